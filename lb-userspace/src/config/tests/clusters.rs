//! What can be said of clusters and of the services over them.

use std::time::Duration;

use super::*;
use crate::config::{ClusterKind, OnOut, Role, Target, WriterReads};

const RIGHT: &str = include_str!("right.toml");

#[test]
fn every_role_is_read_with_what_belongs_to_it() {
    for (text, role, on_out) in [
        (r#"role = "writer""#, Role::Writer, OnOut::Cut),
        (r#"role = "reader""#, Role::Reader(WriterReads::LastResort), OnOut::Cut),
        ("role = \"reader\"\nwriter-reads = \"never\"", Role::Reader(WriterReads::Never), OnOut::Cut),
        (
            "role = \"reader\"\nwriter-reads = \"always\"\non-out = \"keep\"",
            Role::Reader(WriterReads::Always),
            OnOut::Keep,
        ),
        ("role = \"any\"\non-out = \"keep\"", Role::Any, OnOut::Keep),
    ] {
        let config = accepted(&RIGHT.replace(r#"role = "writer""#, text));
        let wanted = Target::Cluster { cluster: "db".to_owned(), role, on_out };
        assert_eq!(config.services[1].target, wanted, "{text}");
    }
}

#[test]
fn a_cluster_of_plain_servers_may_limit_how_far_its_replicas_are_behind() {
    let text = "type = \"mysql\"\nfail-back = \"auto\"\nmax-lag = \"90s\"";
    let text = RIGHT
        .replace(r#"type = "galera""#, text)
        .replace(":3306\" },\n]", ":3306\", extra-port = 3307 },\n]");
    let config = accepted(&text);
    let cluster = &config.clusters[0];
    assert_eq!((cluster.kind, cluster.fail_back), (ClusterKind::Mysql, true));
    assert_eq!(cluster.max_lag, Some(Duration::from_secs(90)));
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.extra_port).collect();
    assert_eq!(ports, [None, Some(3307)]);
}
