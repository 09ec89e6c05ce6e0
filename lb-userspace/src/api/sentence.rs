//! The whole state in one sentence that says first what matters most.

use jiff::tz::TimeZone;

use super::status::{
    BackendState, BackendStatus, ClusterStatus, NodeReadiness, NodeUse, ServiceStatus, Status, Timestamp,
};

/// More troubled services than this are only counted: a sentence is read at a glance.
const TROUBLED_AT_MOST: usize = 5;
/// More services without trouble than this are only counted.
const WELL_AT_MOST: usize = 3;

/// One sentence about the whole, such as `web: all 2 backends up; db-write: writer db1`, with times in the
/// system's time zone; where something is wrong it ends by naming `lb status`.
pub fn sentence(status: &Status) -> String {
    sentence_in(status, &TimeZone::system())
}

pub(super) fn sentence_in(status: &Status, zone: &TimeZone) -> String {
    let headline = headline(status, zone);
    let troubled = status.services.iter().any(|service| summary(service, status, zone).troubled);
    if troubled { format!("{headline}; type `lb status`") } else { headline }
}

/// The sentence without the advice: what `lb status` itself opens with.
pub(super) fn headline(status: &Status, zone: &TimeZone) -> String {
    let mut parts = Vec::new();
    if let Some(deadline) = status.agent.confirm_deadline {
        parts.push(format!("detaches at {} unless `lb confirm` comes first", clock(deadline, zone)));
    }
    let (troubled, well): (Vec<Summary>, Vec<Summary>) = status
        .services
        .iter()
        .map(|service| summary(service, status, zone))
        .partition(|summary| summary.troubled);
    parts.extend(troubled.iter().take(TROUBLED_AT_MOST).map(|summary| summary.text.clone()));
    if troubled.len() > TROUBLED_AT_MOST {
        parts.push(format!("{} more services in trouble", troubled.len() - TROUBLED_AT_MOST));
    }
    if well.len() > WELL_AT_MOST {
        let rest = if troubled.is_empty() { "all" } else { "the other" };
        parts.push(format!("{rest} {} services well", well.len()));
    } else {
        parts.extend(well.into_iter().map(|summary| summary.text));
    }
    if status.services.is_empty() {
        parts.push("no service is configured".to_owned());
    }
    parts.join("; ")
}

struct Summary {
    text: String,
    troubled: bool,
}

fn summary(service: &ServiceStatus, status: &Status, zone: &TimeZone) -> Summary {
    let cluster = service.cluster.as_ref();
    let cluster = cluster.and_then(|name| status.clusters.iter().find(|cluster| cluster.name == *name));
    let (text, troubled) = match cluster {
        Some(cluster) if service.role.as_deref() == Some("writer") => writer(cluster, zone),
        Some(cluster) => several(service, cluster, zone),
        None => backends(service, zone),
    };
    Summary { text: format!("{}: {text}", service.name), troubled }
}

fn writer(cluster: &ClusterStatus, zone: &TimeZone) -> (String, bool) {
    if let Some(writer) = &cluster.writer {
        return (format!("writer {writer}"), false);
    }
    let ailing = cluster.nodes.iter().filter(|node| node.readiness != NodeReadiness::Ready);
    let ailing = ailing.map(|node| {
        let reason = if node.reason.is_empty() { node.readiness.to_string() } else { node.reason.clone() };
        (node.name.as_str(), reason)
    });
    (format!("no writer since {}{}", clock(cluster.since, zone), because(ailing)), true)
}

/// A service of several nodes: who takes new connections, and what is the matter with nodes that are out.
fn several(service: &ServiceStatus, cluster: &ClusterStatus, zone: &TimeZone) -> (String, bool) {
    let takes = |node: &&BackendStatus| node.weight_effective > 0.0;
    let taking: Vec<&str> = service.backends.iter().filter(takes).map(|node| node.name.as_str()).collect();
    let ailing =
        cluster.nodes.iter().filter(|node| node.used == NodeUse::Out && !taking.contains(&&*node.name));
    let ailing: Vec<(&str, String)> = ailing.map(|node| (node.name.as_str(), node.reason.clone())).collect();
    if taking.is_empty() {
        let since = service.backends.iter().map(|backend| backend.since).max().unwrap_or_default();
        return (format!("no node since {}{}", clock(since, zone), because(ailing.into_iter())), true);
    }
    let troubled = !ailing.is_empty();
    (format!("{} {}{}", plural(taking.len()), enumerate(&taking), because(ailing.into_iter())), troubled)
}

fn plural(nodes: usize) -> &'static str {
    if nodes == 1 { "node" } else { "nodes" }
}

fn backends(service: &ServiceStatus, zone: &TimeZone) -> (String, bool) {
    let all = service.backends.len();
    let count = |state| service.backends.iter().filter(|backend| backend.state == state).count();
    let up = count(BackendState::Up);
    let draining = count(BackendState::Draining) + count(BackendState::Maintenance);
    let ailing = service.backends.iter().filter(|backend| backend.state != BackendState::Up).map(|backend| {
        let reason = match backend.state {
            BackendState::Draining | BackendState::Maintenance | BackendState::Unknown => {
                backend.state.to_string()
            }
            _ if backend.reason.is_empty() => backend.state.to_string(),
            _ => backend.reason.clone(),
        };
        (backend.name.as_str(), reason)
    });
    match (all, up) {
        (0, _) => ("no backend is configured".to_owned(), true),
        (1, 1) => ("its backend is up".to_owned(), false),
        (_, 0) => {
            let since = service.backends.iter().map(|backend| backend.since).max().unwrap_or_default();
            (format!("no backend up since {}{}", clock(since, zone), because(ailing)), true)
        }
        _ if up == all => (format!("all {all} backends up"), false),
        // What the operator drains on purpose is no trouble.
        _ => (format!("{up} of {all} backends up{}", because(ailing)), up + draining < all),
    }
}

/// `: a refused, b and c not Primary`: names that share a reason stand together, in the order given.
fn because<'a>(ailing: impl Iterator<Item = (&'a str, String)>) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for (name, reason) in ailing {
        match groups.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, names)) => names.push(name),
            None => groups.push((reason, vec![name])),
        }
    }
    let groups: Vec<String> =
        groups.iter().map(|(reason, names)| format!("{} {reason}", enumerate(names))).collect();
    if groups.is_empty() { String::new() } else { format!(": {}", groups.join(", ")) }
}

fn enumerate(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

fn clock(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
}
