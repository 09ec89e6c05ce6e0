//! Who serves a service: backends of its own with a check, or the nodes of a cluster.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::address::server;
use super::check::{CHECK_EXAMPLE, LOAD_EXAMPLE, read_check, read_load};
use super::cross::{Seen, claim};
use super::discover::{self, DISCOVER_EXAMPLE, For};
use super::fit;
use super::limits::max_connections;
use super::model::{Backend, Check, CheckKind, HttpCheck, LoadKind, Mode, OnOut, Role, Target, WriterReads};
use super::report::Report;
use super::secret::SecretSource;
use super::table::{Marked, Section};
use super::value::{Fault, parse_name};
use crate::discovery::Source;
use crate::listen::{self, Listen, Ports, Protocol};

const WEIGHT: u16 = 100;
pub(super) const BACKEND_KEYS: &[&str] = &["name", "address", "weight", "max-connections"];
const BACKENDS_EXAMPLE: &str = r#"[{ name = "web1", address = "10.0.0.11:80" }]"#;
/// Where MySQL and MariaDB listen unless told otherwise.
const DATABASE_PORT: u16 = 3306;
const DATABASE_EXAMPLE: &str = r#"{ type = "mysql", user = "lb", password-file = "/etc/lb/db.pw" }"#;
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
        section.refuse(
            "discover",
            "a service has either `discover` or `cluster`, not both",
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
    let role = role(section, cluster.as_ref(), seen);
    let on_out = section.choice("on-out", &[("cut", OnOut::Cut), ("keep", OnOut::Keep)]);
    if role == Some(Role::Writer) {
        let wrong = "on-out: connections to a node that is not the writer are always cut";
        section.refuse("on-out", wrong, "leave `on-out` out");
    }
    Some(Target::Cluster { cluster: cluster?.value, role: role?, on_out: on_out.unwrap_or_default() })
}

const ROLES: [(&str, Role); 3] =
    [("writer", Role::Writer), ("reader", Role::Reader(WriterReads::LastResort)), ("any", Role::Any)];
const WRITER_READS: [(&str, WriterReads); 3] = [
    ("never", WriterReads::Never),
    ("last-resort", WriterReads::LastResort),
    ("always", WriterReads::Always),
];

fn role(section: &Section<'_>, cluster: Option<&Marked<String>>, seen: &Seen) -> Option<Role> {
    let role = section.required_choice("role", &ROLES)?;
    let writer_reads = section.choice("writer-reads", &WRITER_READS).unwrap_or_default();
    match role {
        Role::Reader(_) => return Some(Role::Reader(writer_reads)),
        Role::Any if cluster.is_some_and(|cluster| seen.plain.contains(&cluster.value)) => {
            let wrong = r#"role: "any" writes to all nodes, which only a cluster of type "galera" stands"#;
            section.add("role", Fault::new(wrong, r#"write role = "writer" or role = "reader""#));
        }
        Role::Any | Role::Writer => {}
    }
    let wrong = r#"writer-reads: it has a meaning only with role = "reader""#;
    section.refuse("writer-reads", wrong, "leave `writer-reads` out");
    Some(role)
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
pub(super) fn backends_target(
    section: &Section<'_>,
    name: Option<&str>,
    shape: Shape,
    secrets: &dyn SecretSource,
    seen: &mut Seen,
) -> Option<Target> {
    section.refuse("role", "role: only a service with `cluster` has one", r#"name it: cluster = "db""#);
    for key in ["writer-reads", "on-out"] {
        let wrong = format!("{key}: only a service with `cluster` has it");
        section.refuse(key, &wrong, r#"name it: cluster = "db""#);
    }
    let backends = backends(section, shape, seen);
    let of = For { service: name, listen: shape.listen, mode: shape.mode };
    let discover = match section.table("discover", DISCOVER_EXAMPLE) {
        Some(table) => Some(discover::read(section.report(), table, of)?),
        None => None,
    };
    let check = match section.table("check", CHECK_EXAMPLE) {
        Some(table) => read_check(section.report(), table, secrets)?,
        None if shape.protocol() == Protocol::Udp && !section.meant("check") => {
            let wrong = "a service over UDP needs `check`, for silence of UDP says nothing";
            let right = format!("{PORT_EXAMPLE} with a TCP port that its servers answer on");
            section.report().add(section.at, Fault::new(wrong, right));
            return None;
        }
        None => Check::tcp(),
    };
    check_has_port(section, &check, shape, &backends, discover.as_ref());
    check_is_harmless(section, &check, &backends);
    let load = section.table("load", LOAD_EXAMPLE).and_then(|table| read_load(section.report(), table));
    let by_check = load.as_ref().is_some_and(|load| matches!(load.kind, LoadKind::Mysql { .. }));
    if by_check && !matches!(check.kind, CheckKind::Mysql(_)) {
        let wrong = r#"load: "mysql" is measured by a check of the same type"#;
        section.add("load", Fault::new(wrong, format!("write check = {DATABASE_EXAMPLE}")));
    }
    Some(Target::Backends { backends, discover: discover.map(Box::new), check, load })
}

/// Reports a check that would not know which port to connect to.
fn check_has_port(
    section: &Section<'_>,
    check: &Check,
    shape: Shape,
    backends: &[Backend],
    discover: Option<&Source>,
) {
    let (CheckKind::Tcp { port: None } | CheckKind::Http(HttpCheck { port: None, .. }) | CheckKind::Mysql(_)) =
        &check.kind
    else {
        return;
    };
    let portless = backends.iter().find(|backend| backend.address.port() == 0);
    let why = match portless {
        _ if shape.protocol() == Protocol::Udp => "for the ports of the service are UDP".to_owned(),
        Some(backend) => format!("for backend {} names none", backend.name),
        None if discover.is_some_and(Source::may_lack_ports) => {
            "for what is discovered names none".to_owned()
        }
        None => return,
    };
    section.add("check", Fault::new(format!("check: it needs a `port`, {why}"), PORT_EXAMPLE));
}

/// Reports bare connections to a port that database servers listen on: they count as failed logins there, and after a
/// hundred of them the server lets nobody from this host in any more (error 1129).
fn check_is_harmless(section: &Section<'_>, check: &Check, backends: &[Backend]) {
    let CheckKind::Tcp { port } = check.kind else { return };
    let harmed = backends.iter().find(|backend| port.unwrap_or(backend.address.port()) == DATABASE_PORT);
    let Some(backend) = harmed else { return };
    let wrong = format!(
        "check: bare connections to port {DATABASE_PORT} of backend {} end in its blocking this host (error 1129)",
        backend.name
    );
    section.add("check", Fault::new(wrong, format!("write check = {DATABASE_EXAMPLE}")));
}

fn backends(section: &Section<'_>, shape: Shape, seen: &mut Seen) -> Vec<Backend> {
    let tables = section.tables("backends", BACKENDS_EXAMPLE);
    if !section.meant("backends") && !section.meant("discover") && !section.has("role") {
        let right = format!(
            r#"write backends = {BACKENDS_EXAMPLE}, discover = {DISCOVER_EXAMPLE}, or cluster = "db" and role = "writer""#
        );
        section.report().add(section.at, Fault::new("a service needs `backends` or a `cluster`", right));
    } else if section.is_empty_list("backends") && !section.meant("discover") {
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
