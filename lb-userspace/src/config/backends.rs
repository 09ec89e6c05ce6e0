//! Who serves a service: backends of its own with a check, or the nodes of a cluster.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::address::server;
use super::check::{CHECK_EXAMPLE, LOAD_EXAMPLE, read_check, read_load};
use super::cross::{Seen, claim};
use super::fit;
use super::limits::max_connections;
use super::model::{Backend, Check, CheckKind, Mode, Role, Target};
use super::report::Report;
use super::table::{Marked, Section};
use super::value::{Fault, parse_name};
use crate::listen::{self, Listen, Ports, Protocol};

const WEIGHT: u16 = 100;
pub(super) const BACKEND_KEYS: &[&str] = &["name", "address", "weight", "max-connections"];
const BACKENDS_EXAMPLE: &str = r#"[{ name = "web1", address = "10.0.0.11:80" }]"#;
const PORT_EXAMPLE: &str = r#"write check = { type = "tcp", port = 8080 }"#;

/// What its servers must fit; `None` where it could not be read.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) listen: Option<Listen>,
    pub(super) mode: Option<Mode>,
}

impl Shape {
    fn fits(self, address: std::net::SocketAddr) -> Result<(), Fault> {
        match self {
            Self { listen: Some(listen), mode: Some(mode) } => fit::server(listen, mode, address),
            _ => Ok(()),
        }
    }

    fn protocol(self) -> Protocol {
        self.listen.map_or(Protocol::Tcp, |listen| listen.protocol)
    }
}

/// Reads the nodes of a cluster as a target. `None` if something has been reported.
pub(super) fn cluster_target(section: &Section<'_>, shape: Shape, seen: &mut Seen) -> Option<Target> {
    if section.has("cluster") {
        section.refuse(
            "backends",
            "a service has either `backends` or `cluster`, not both",
            "leave one of them out",
        );
        for key in ["check", "load"] {
            let wrong = format!("{key}: the nodes of a cluster are looked after by its monitor");
            section.refuse(key, &wrong, &format!("leave `{key}` out"));
        }
    }
    let cluster = section.parsed("cluster", r#""db""#, parse_name);
    if let Some(cluster) = &cluster {
        seen.cluster_user(section.report(), cluster);
        nodes_fit(section, cluster, shape, seen);
    }
    let role = section.required_choice("role", &[("writer", Role::Writer)]);
    Some(Target::Cluster { cluster: cluster?.value, role: role? })
}

/// Reports nodes that cannot serve the service, at the service: others may use the same cluster well.
fn nodes_fit(section: &Section<'_>, cluster: &Marked<String>, shape: Shape, seen: &mut Seen) {
    let report = section.report();
    let Some(listen) = shape.listen else { return };
    if listen.protocol != Protocol::Tcp {
        report.add(cluster.at, Fault::new("cluster: databases speak TCP", r#"write "/tcp" in `address`"#));
        return;
    }
    if !matches!(listen.ports, Ports::One(_)) {
        let wrong = "cluster: each node listens on one port";
        report.add(cluster.at, Fault::new(wrong, "write one port in `address`"));
        return;
    }
    for (name, address) in &seen.nodes.get(&cluster.value).cloned().unwrap_or_default() {
        if let Err(Fault { wrong, right }) = shape.fits(*address) {
            report.add(cluster.at, Fault::new(format!("cluster: node {name}: {wrong}"), right));
        } else if let Some(mode) = shape.mode {
            let server = Marked { value: *address, at: cluster.at };
            seen.sharing.uses(report, server, Protocol::Tcp, mode, section.at);
        }
    }
}

/// Reads backends as a target. `None` if something has been reported.
pub(super) fn backends_target(section: &Section<'_>, shape: Shape, seen: &mut Seen) -> Option<Target> {
    section.refuse("role", "role: only a service with `cluster` has one", r#"name it: cluster = "db""#);
    let backends = backends(section, shape, seen);
    let check = match section.table("check", CHECK_EXAMPLE) {
        Some(table) => read_check(section.report(), table)?,
        None if shape.protocol() == Protocol::Udp && !section.meant("check") => {
            let wrong = "a service over UDP needs `check`, for silence of UDP says nothing";
            let right = format!("{PORT_EXAMPLE} with a TCP port that its servers answer on");
            section.report().add(section.at, Fault::new(wrong, right));
            return None;
        }
        None => Check::tcp(),
    };
    check_has_port(section, &check, shape, &backends);
    let load = section.table("load", LOAD_EXAMPLE).and_then(|table| read_load(section.report(), table));
    Some(Target::Backends { backends, check, load })
}

/// Reports a check that would not know which port to connect to.
fn check_has_port(section: &Section<'_>, check: &Check, shape: Shape, backends: &[Backend]) {
    let (CheckKind::Tcp { port: None } | CheckKind::Http { port: None, .. }) = &check.kind else { return };
    let portless = backends.iter().find(|backend| backend.address.port() == 0);
    let why = match portless {
        _ if shape.protocol() == Protocol::Udp => "for the ports of the service are UDP".to_owned(),
        Some(backend) => format!("for backend {} names none", backend.name),
        None => return,
    };
    section.add("check", Fault::new(format!("check: it needs a `port`, {why}"), PORT_EXAMPLE));
}

fn backends(section: &Section<'_>, shape: Shape, seen: &mut Seen) -> Vec<Backend> {
    let tables = section.tables("backends", BACKENDS_EXAMPLE);
    if !section.meant("backends") && !section.has("role") {
        let right = format!(r#"write backends = {BACKENDS_EXAMPLE}, or cluster = "db" and role = "writer""#);
        section.report().add(section.at, Fault::new("a service needs `backends` or a `cluster`", right));
    } else if section.is_empty_list("backends") {
        let wrong = "backends: a service needs at least one backend";
        section.add("backends", Fault::new(wrong, format!("write backends = {BACKENDS_EXAMPLE}")));
    }
    for table in &tables {
        seen.count_backends(section.report(), table.at, 1);
    }
    let mut taken = Taken { service: section.at, names: BTreeMap::new(), addresses: BTreeMap::new() };
    let read = |table| backend(section.report(), table, shape, &mut taken, seen);
    tables.into_iter().filter_map(read).collect()
}

/// What must differ within a service.
struct Taken {
    /// Where the service's table begins.
    service: usize,
    names: BTreeMap<String, usize>,
    addresses: BTreeMap<String, usize>,
}

fn backend<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    shape: Shape,
    taken: &mut Taken,
    seen: &mut Seen,
) -> Option<Backend> {
    let section = Section::new(report, "a backend", table.at, table.value, BACKEND_KEYS);
    let name = section.required("name", r#""web1""#, parse_name);
    let address = section.required("address", r#""10.0.0.11:80""#, |text| {
        let address = server(text)?;
        shape.fits(address).map(|()| address)
    });
    let weight = section.integer("weight", 0..=1000).unwrap_or(WEIGHT);
    let max_connections = max_connections(&section);
    if let Some(name) = &name {
        claim(report, &mut taken.names, name, "backend name", "names of a service's backends differ");
    }
    if let Some(address) = &address {
        let spelt = Marked { value: listen::server(address.value), at: address.at };
        claim(report, &mut taken.addresses, &spelt, "backend address", "a server stands in a service once");
        seen.server(*address, shape.protocol());
        if let Some(mode) = shape.mode {
            seen.sharing.uses(report, *address, shape.protocol(), mode, taken.service);
        }
        seen.limit(&section, address.value, shape.protocol(), max_connections);
    }
    Some(Backend { name: name?.value, address: address?.value, weight, max_connections })
}
