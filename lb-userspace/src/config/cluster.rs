//! `[[cluster]]`: database nodes and how they are asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use toml::de::DeTable;

use super::address::endpoint;
use super::cross::{Seen, claim};
use super::limits::max_connections;
use super::model::{Cluster, ClusterKind, DonorPolicy, Monitor, Node};
use super::report::Report;
use super::secret::{Secret, SecretSource, exposed};
use super::table::{Marked, Section};
use super::value::{Fault, parse_name, user};
use crate::listen::Protocol;

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes that name no priority come after those that name a small one.
const PRIORITY: i32 = 100;

pub(super) const KEYS: &[&str] = &["name", "type", "monitor", "nodes", "donor", "fail-back", "max-lag"];
pub(super) const MONITOR_KEYS: &[&str] = &["user", "password-file", "password-env", "interval", "timeout"];
pub(super) const NODE_KEYS: &[&str] = &["name", "address", "priority", "max-connections", "extra-port"];

const MONITOR_EXAMPLE: &str = r#"{ user = "lb", password-file = "/etc/lb/db.pw" }"#;
const NODES_EXAMPLE: &str = r#"[{ name = "db1", address = "10.0.1.1:3306" }]"#;
const KINDS: [(&str, ClusterKind); 2] = [("galera", ClusterKind::Galera), ("mysql", ClusterKind::Mysql)];
const DONOR: [(&str, DonorPolicy); 3] =
    [("last-resort", DonorPolicy::LastResort), ("avoid", DonorPolicy::Avoid), ("allow", DonorPolicy::Allow)];

/// Reads one cluster and enters its names and addresses into `seen`. `None` if something has been reported.
pub(super) fn read<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    secrets: &dyn SecretSource,
    seen: &mut Seen,
) -> Option<Cluster> {
    let section = Section::new(report, "a cluster", table.at, table.value, KEYS);
    let name = section.required("name", r#""db""#, parse_name);
    if let Some(name) = &name {
        seen.cluster(report, name);
    }
    let kind = section.required_choice("type", &KINDS);
    let donor = section.choice("donor", &DONOR).unwrap_or_default();
    let fail_back = section.choice("fail-back", &[("manual", false), ("auto", true)]).unwrap_or_default();
    let max_lag = section.has("max-lag").then(|| section.duration("max-lag", Duration::ZERO));
    match kind {
        Some(ClusterKind::Galera) => section.refuse(
            "max-lag",
            "max-lag: Galera nodes do not replicate from one another",
            "leave `max-lag` out; a long receive queue lowers a reader's weight by itself",
        ),
        Some(ClusterKind::Mysql) => section.refuse(
            "donor",
            r#"donor: only a cluster of type "galera" has donors"#,
            "leave `donor` out",
        ),
        None => {}
    }
    section.require("monitor", &format!("monitor = {MONITOR_EXAMPLE}"));
    let monitor = section.table("monitor", MONITOR_EXAMPLE).and_then(|table| monitor(report, table, secrets));
    let nodes = nodes(&section, seen);
    if let Some(name) = &name {
        if kind == Some(ClusterKind::Mysql) {
            seen.plain.insert(name.value.clone());
        }
        let nodes = nodes.iter().map(|node| (node.name.clone(), node.address)).collect();
        seen.nodes.insert(name.value.clone(), nodes);
    }
    Some(Cluster { name: name?.value, kind: kind?, monitor: monitor?, donor, fail_back, max_lag, nodes })
}

fn nodes(section: &Section<'_>, seen: &mut Seen) -> Vec<Node> {
    let mut names = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let tables = section.tables("nodes", NODES_EXAMPLE);
    section.require("nodes", &format!("nodes = {NODES_EXAMPLE}"));
    if section.is_empty_list("nodes") {
        section.add("nodes", Fault::new("nodes: a cluster needs at least one node", "list its nodes"));
    }
    let read = |table| node(section.report(), table, &mut names, &mut addresses, seen);
    tables.into_iter().filter_map(read).collect()
}

fn node<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    names: &mut BTreeMap<String, usize>,
    addresses: &mut BTreeMap<SocketAddr, usize>,
    seen: &mut Seen,
) -> Option<Node> {
    let section = Section::new(report, "a node", table.at, table.value, NODE_KEYS);
    let name = section.required("name", r#""db1""#, parse_name);
    let address = section.required("address", r#""10.0.1.1:3306""#, endpoint);
    let priority = section.integer("priority", -1000..=1000).unwrap_or(PRIORITY);
    if let Some(name) = &name {
        claim(report, names, name, "node name", "names of a cluster's nodes differ");
    }
    if let Some(address) = &address {
        claim(report, addresses, address, "node address", "a node stands in its cluster once");
        seen.server(*address, Protocol::Tcp);
    }
    let max_connections = max_connections(&section);
    let extra_port = section.integer("extra-port", 1..=65_535);
    Some(Node { name: name?.value, address: address?.value, priority, max_connections, extra_port })
}

fn monitor<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    secrets: &dyn SecretSource,
) -> Option<Monitor> {
    let keys_with_refused = [MONITOR_KEYS, &["password"]].concat();
    let known = if table.value.contains_key("password") { &keys_with_refused } else { MONITOR_KEYS };
    let section = Section::new(report, "a monitor", table.at, table.value, known);
    section.refuse(
        "password",
        "a password does not belong into this file",
        r#"put it into a file of its own and write password-file = "/etc/lb/db.pw", or use password-env"#,
    );
    let (interval, timeout) = section.rhythm(INTERVAL, TIMEOUT);
    let user = section.required("user", r#""lb""#, user);
    let password = password(&section, secrets);
    Some(Monitor { user: user?.value, password: password?, interval, timeout })
}

fn password(section: &Section<'_>, secrets: &dyn SecretSource) -> Option<Secret> {
    if section.has("password-file") && section.has("password-env") {
        let fault = Fault::new("two passwords, from a file and from the environment", "keep one of them");
        section.add("password-env", fault);
        return None;
    }
    if section.has("password-env") {
        let variable = section.parsed("password-env", r#""LB_DB_PASSWORD""#, |name| {
            let unset = || {
                let wrong = format!("the environment has no variable `{}`", name.escape_debug());
                Fault::new(wrong, "set it for the agent, or use password-file")
            };
            secrets.variable(name).ok_or_else(unset).and_then(|text| one_line(&text))
        });
        return variable.map(|secret| secret.value);
    }
    if !section.has("password") && !section.meant("password-env") {
        section.require(
            "password-file",
            r#"password-file = "/etc/lb/db.pw", or password-env = "LB_DB_PASSWORD""#,
        );
    }
    let file = section.parsed("password-file", r#""/etc/lb/db.pw""#, |path| {
        let unreadable = |error| {
            let wrong = format!("`{}` cannot be read ({error})", path.escape_debug());
            Fault::new(wrong, "write the password into it, readable to the agent only")
        };
        secrets.file(Path::new(path)).map_err(unreadable).and_then(|text| one_line(&text))
    });
    if let Some(path) = section.text("password-file", "").filter(|_| file.is_some())
        && let Some(open) = exposed(Path::new(path.value), secrets)
    {
        section.report().note(path.at, open);
    }
    file.map(|secret| secret.value)
}

/// A password without the newline that editors add. The message shows nothing of it.
fn one_line(text: &str) -> Result<Secret, Fault> {
    const RIGHT: &str = "write the password on one line";
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Fault::new("the password there is empty", RIGHT));
    }
    if line.contains(['\n', '\r', '\0']) {
        return Err(Fault::new("there is more than one line", RIGHT));
    }
    Ok(Secret::new(line))
}
