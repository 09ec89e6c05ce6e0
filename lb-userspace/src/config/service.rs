//! `[[service]]`: an address and who serves it.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use toml::de::DeTable;

use super::check::{CHECK_EXAMPLE, LOAD_EXAMPLE, read_check, read_load};
use super::cross::{Seen, claim};
use super::model::{Algorithm, Backend, Check, Mode, NoBackend, Role, Service, Target, Timeouts};
use super::report::Report;
use super::table::{Marked, Section};
use super::value::{Fault, endpoint, parse_name, service_address};

const HOLD: Duration = Duration::from_secs(3);
const ESTABLISHED: Duration = Duration::from_hours(1);
/// An hour more than MySQL's `wait_timeout`, so that the server is the one who ends a sleeping session.
const ESTABLISHED_DATABASE: Duration = Duration::from_hours(9);
const CLOSING: Duration = Duration::from_mins(1);
const EMBRYONIC: Duration = Duration::from_secs(10);
const WEIGHT: u16 = 100;

const KEYS: &[&str] = &[
    "name",
    "address",
    "mode",
    "algorithm",
    "no-backend",
    "hold",
    "timeouts",
    "backends",
    "check",
    "load",
    "cluster",
    "role",
];
const TIMEOUT_KEYS: &[&str] = &["established", "closing", "embryonic"];
const BACKEND_KEYS: &[&str] = &["name", "address", "weight"];

const BACKENDS_EXAMPLE: &str = r#"[{ name = "web1", address = "10.0.0.11:80" }]"#;
const ALGORITHMS: [(&str, Algorithm); 2] =
    [("least-load", Algorithm::LeastLoad), ("round-robin", Algorithm::RoundRobin)];

#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    Reset,
    Hold,
    Drop,
}

const REFUSALS: [(&str, Refusal); 3] =
    [("reset", Refusal::Reset), ("hold", Refusal::Hold), ("drop", Refusal::Drop)];

/// Reads one service and enters its names and addresses into `seen`. `None` if something has been reported.
pub(super) fn read<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    seen: &mut Seen,
) -> Option<Service> {
    let section = Section::new(report, "a service", table.at, table.value, KEYS);
    let name = section.required("name", r#""web""#, parse_name);
    let address = section.required("address", r#""203.0.113.10:80/tcp""#, service_address);
    seen.service(report, name.as_ref(), address.as_ref());
    let mode = section.choice("mode", &[("snat", Mode::Snat)]).unwrap_or_default();
    let algorithm = section.choice("algorithm", &ALGORITHMS).unwrap_or_default();
    let database = section.meant("cluster");
    let no_backend = no_backend(&section, database);
    let timeouts = timeouts(&section, database);
    let target = if database { cluster_target(&section, seen) } else { backends_target(&section, seen) };
    Some(Service {
        name: name?.value,
        address: address?.value,
        mode,
        algorithm,
        no_backend,
        timeouts,
        target: target?,
    })
}

fn no_backend(section: &Section<'_>, database: bool) -> NoBackend {
    let default = if database { Refusal::Hold } else { Refusal::Reset };
    let said = section.choice("no-backend", &REFUSALS);
    let refusal = said.unwrap_or(default);
    let hold = section.duration("hold", HOLD);
    // A `no-backend` that could not be read may well have meant "hold".
    let unread = said.is_none() && section.meant("no-backend");
    if refusal != Refusal::Hold && !unread {
        let wrong = r#"hold: it has a meaning only with no-backend = "hold""#;
        section.refuse("hold", wrong, r#"write no-backend = "hold", or leave `hold` out"#);
    }
    match refusal {
        Refusal::Reset => NoBackend::Reset,
        Refusal::Hold => NoBackend::Hold(hold),
        Refusal::Drop => NoBackend::Drop,
    }
}

fn timeouts(section: &Section<'_>, database: bool) -> Timeouts {
    let established = if database { ESTABLISHED_DATABASE } else { ESTABLISHED };
    let Some(table) = section.table("timeouts", r#"{ established = "1h" }"#) else {
        return Timeouts { established, closing: CLOSING, embryonic: EMBRYONIC };
    };
    let section = Section::new(section.report(), "a set of timeouts", table.at, table.value, TIMEOUT_KEYS);
    Timeouts {
        established: section.duration("established", established),
        closing: section.duration("closing", CLOSING),
        embryonic: section.duration("embryonic", EMBRYONIC),
    }
}

fn cluster_target(section: &Section<'_>, seen: &mut Seen) -> Option<Target> {
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
    }
    let role = section.required_choice("role", &[("writer", Role::Writer)]);
    Some(Target::Cluster { cluster: cluster?.value, role: role? })
}

fn backends_target(section: &Section<'_>, seen: &mut Seen) -> Option<Target> {
    section.refuse("role", "role: only a service with `cluster` has one", r#"name it: cluster = "db""#);
    let backends = backends(section, seen);
    let check = match section.table("check", CHECK_EXAMPLE) {
        Some(table) => read_check(section.report(), table)?,
        None => Check::tcp(),
    };
    let load = section.table("load", LOAD_EXAMPLE).and_then(|table| read_load(section.report(), table));
    Some(Target::Backends { backends, check, load })
}

fn backends(section: &Section<'_>, seen: &mut Seen) -> Vec<Backend> {
    let mut names = BTreeMap::new();
    let mut addresses = BTreeMap::new();
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
    let read = |table| backend(section.report(), table, &mut names, &mut addresses, seen);
    tables.into_iter().filter_map(read).collect()
}

fn backend<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    names: &mut BTreeMap<String, usize>,
    addresses: &mut BTreeMap<SocketAddrV4, usize>,
    seen: &mut Seen,
) -> Option<Backend> {
    let section = Section::new(report, "a backend", table.at, table.value, BACKEND_KEYS);
    let name = section.required("name", r#""web1""#, parse_name);
    let address = section.required("address", r#""10.0.0.11:80""#, endpoint);
    let weight = section.integer("weight", 0..=1000).unwrap_or(WEIGHT);
    if let Some(name) = &name {
        claim(report, names, name, "backend name", "names of a service's backends differ");
    }
    if let Some(address) = &address {
        claim(report, addresses, address, "backend address", "a server stands in a service once");
        seen.servers.push(*address);
    }
    Some(Backend { name: name?.value, address: address?.value, weight })
}
