//! `[[service]]`: an address and who serves it.

use std::time::Duration;

use toml::de::DeTable;

use super::address::service_address;
use super::backends::{Shape, backends_target, cluster_target};
use super::cross::Seen;
use super::limits::{Counted, max_connections, rate_limit, track};
use super::model::{AgentLost, Algorithm, Mode, NoBackend, Service, Timeouts};
use super::report::Report;
use super::secret::SecretSource;
use super::table::{Marked, Section};
use super::value::parse_name;
use crate::listen::Protocol;

const HOLD: Duration = Duration::from_secs(3);
const ESTABLISHED: Duration = Duration::from_hours(1);
/// An hour more than MySQL's `wait_timeout`, so that the server is the one who ends a sleeping session.
const ESTABLISHED_DATABASE: Duration = Duration::from_hours(9);
const CLOSING: Duration = Duration::from_mins(1);
const EMBRYONIC: Duration = Duration::from_secs(10);
const UDP: Duration = Duration::from_mins(1);

pub(super) const KEYS: &[&str] = &[
    "name",
    "address",
    "mode",
    "algorithm",
    "track",
    "no-backend",
    "hold",
    "agent-lost",
    "timeouts",
    "max-connections",
    "rate-limit",
    "echo",
    "backends",
    "discover",
    "check",
    "load",
    "cluster",
    "role",
    "writer-reads",
    "on-out",
];
pub(super) const TIMEOUT_KEYS: &[&str] = &["established", "closing", "embryonic", "udp"];

const MODES: [(&str, Mode); 4] =
    [("snat", Mode::Snat), ("dnat", Mode::Dnat), ("dsr", Mode::Dsr), ("ipip", Mode::Ipip)];
const ALGORITHMS: [(&str, Algorithm); 5] = [
    ("least-load", Algorithm::LeastLoad),
    ("least-conn", Algorithm::LeastConn),
    ("round-robin", Algorithm::RoundRobin),
    ("maglev", Algorithm::Maglev),
    ("source-hash", Algorithm::SourceHash),
];

#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    Reset,
    Hold,
    Drop,
}

const AGENT_LOST: [(&str, AgentLost); 2] = [("keep", AgentLost::Keep), ("pass", AgentLost::Pass)];
const REFUSALS: [(&str, Refusal); 3] =
    [("reset", Refusal::Reset), ("hold", Refusal::Hold), ("drop", Refusal::Drop)];

/// Reads one service and enters its names and addresses into `seen`. `None` if something has been reported.
pub(super) fn read<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    secrets: &dyn SecretSource,
    seen: &mut Seen,
) -> Option<Service> {
    let section = Section::new(report, "a service", table.at, table.value, KEYS);
    let name = section.required("name", r#""web""#, parse_name);
    let listen = section.required("address", r#""203.0.113.10:80/tcp""#, service_address);
    seen.service(report, name.as_ref(), listen.as_ref());
    let listen = listen.map(|listen| listen.value);
    let mode = section.choice("mode", &MODES);
    let algorithm = section.choice("algorithm", &ALGORITHMS);
    let unread = |key, said: bool| !said && section.meant(key);
    let (no_mode, no_algorithm) = (unread("mode", mode.is_some()), unread("algorithm", algorithm.is_some()));
    let (mode, algorithm) = (mode.unwrap_or_default(), algorithm.unwrap_or_default());
    let database = section.meant("cluster");
    let no_backend = no_backend(&section, database);
    let agent_lost = section.choice("agent-lost", &AGENT_LOST).unwrap_or_default();
    let timeouts = timeouts(&section, database, listen.map(|listen| listen.protocol));
    let max_connections = max_connections(&section);
    let rate_limit = rate_limit(&section);
    let echo = section.switch("echo").unwrap_or(false);
    let shape = Shape { listen, mode: (!no_mode).then_some(mode) };
    let called = name.as_ref().map(|name| name.value.as_str());
    let target = if database {
        cluster_target(&section, shape, seen)
    } else {
        backends_target(&section, called, shape, secrets, seen)
    };
    let (name, listen, target) = (name?.value, listen?, target?);
    let limited = max_connections.is_some() || rate_limit.is_some();
    let counted = Counted { mode, algorithm, limited, agent_lost, target: &target };
    let track = track(&section, &counted, no_mode || no_algorithm);
    Some(Service {
        name,
        listen,
        mode,
        algorithm,
        track,
        no_backend,
        agent_lost,
        timeouts,
        max_connections,
        rate_limit,
        echo,
        target,
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

fn timeouts(section: &Section<'_>, database: bool, protocol: Option<Protocol>) -> Timeouts {
    let established = if database { ESTABLISHED_DATABASE } else { ESTABLISHED };
    let Some(table) = section.table("timeouts", r#"{ established = "1h" }"#) else {
        return Timeouts { established, closing: CLOSING, embryonic: EMBRYONIC, udp: UDP };
    };
    let section = Section::new(section.report(), "a set of timeouts", table.at, table.value, TIMEOUT_KEYS);
    let foreign: &[&str] = match protocol {
        Some(Protocol::Tcp) => &["udp"],
        Some(Protocol::Udp) => &["established", "closing"],
        None => &[],
    };
    for (key, protocol) in foreign.iter().zip(protocol.iter().cycle()) {
        let wrong = format!("{key}: it has no meaning for a service over {protocol}");
        section.refuse(key, &wrong, &format!("leave `{key}` out"));
    }
    Timeouts {
        established: section.duration("established", established),
        closing: section.duration("closing", CLOSING),
        embryonic: section.duration("embryonic", EMBRYONIC),
        udp: section.duration("udp", UDP),
    }
}
