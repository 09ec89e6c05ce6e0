//! The whole state in one sentence that says first what matters most, and last what to type.

use jiff::tz::TimeZone;

use super::status::{
    BackendState, BackendStatus, ClusterStatus, NodeReadiness, NodeUse, ServiceStatus, Status, Timestamp,
};

/// More troubled services than this are only counted: a sentence is read at a glance.
const TROUBLED_AT_MOST: usize = 5;
/// More services without trouble than this are only counted.
const WELL_AT_MOST: usize = 3;

/// One sentence about the whole, such as `web: all 2 backends up; db-write: writer db1`, with times in the
/// system's time zone. What serves nobody comes first, then alarms, then what serves with less than it should, then
/// what an operator has ordered, then what is well; where something is wrong it ends with what to type.
pub fn sentence(status: &Status) -> String {
    sentence_in(status, &TimeZone::system())
}

pub(super) fn sentence_in(status: &Status, zone: &TimeZone) -> String {
    let mut parts = Vec::new();
    if let Some(deadline) = status.agent.confirm_deadline {
        parts.push(format!("detaches at {} unless `lb confirm` comes first", clock(deadline, zone)));
    }
    let mut summaries: Vec<Summary> =
        status.services.iter().map(|service| summary(service, status, zone)).collect();
    // Among the equally bad, the order of the configuration.
    summaries.sort_by_key(|summary| std::cmp::Reverse(summary.state));
    let of = |state: State| summaries.iter().filter(move |summary| summary.state == state);
    let (dead, troubled) = (of(State::Dead).count(), of(State::Degraded).count());
    let bad: Vec<&Summary> = of(State::Dead).chain(of(State::Degraded)).collect();
    let mut told = bad.iter().take(TROUBLED_AT_MOST).map(|summary| summary.text.clone());
    parts.extend(told.by_ref().take(dead));
    parts.extend(alarms(status));
    parts.extend(told);
    if bad.len() > TROUBLED_AT_MOST {
        parts.push(format!("{} more services in trouble", bad.len() - TROUBLED_AT_MOST));
    }
    parts.extend(status.agent.unloaded.as_ref().map(|what| format!("the configuration's files {what}")));
    parts.extend(of(State::Ordered).map(|summary| summary.text.clone()));
    let well: Vec<&Summary> = of(State::Well).collect();
    if well.len() > WELL_AT_MOST {
        let rest = if well.len() == summaries.len() { "all" } else { "the other" };
        parts.push(format!("{rest} {} services well", well.len()));
    } else {
        parts.extend(well.iter().map(|summary| summary.text.clone()));
    }
    if status.services.is_empty() {
        parts.push("no service is configured".to_owned());
    }
    let look = bad.first().map(|summary| format!("lb explain {}", summary.look));
    let events = (!status.alarms.is_empty()).then(|| "lb events".to_owned());
    let check = status.agent.unloaded.is_some().then(|| "lb check --diff".to_owned());
    parts.extend(look.or(events).or(check).map(|command| format!("type `{command}`")));
    debug_assert!(dead + troubled == bad.len(), "each service is told once");
    parts.join("; ")
}

/// How many things need a person; they stand below in full.
fn alarms(status: &Status) -> Option<String> {
    match status.alarms.len() {
        0 => None,
        1 => Some("1 alarm".to_owned()),
        many => Some(format!("{many} alarms")),
    }
}

/// How a service does, the worst last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Well,
    /// Less than all of it serves, as an operator wants.
    Ordered,
    /// Less than all of it serves.
    Degraded,
    /// It serves nobody.
    Dead,
}

struct Summary {
    text: String,
    state: State,
    /// What `lb explain` says most about.
    look: String,
}

fn summary(service: &ServiceStatus, status: &Status, zone: &TimeZone) -> Summary {
    let cluster = service.cluster.as_ref();
    let cluster = cluster.and_then(|name| status.clusters.iter().find(|cluster| cluster.name == *name));
    let ((text, state), look) = match cluster {
        Some(cluster) if service.role.as_deref() == Some("writer") => {
            (writer(service, cluster, zone), &cluster.name)
        }
        Some(cluster) => (several(service, cluster, zone), &cluster.name),
        None => (backends(service, zone), &service.name),
    };
    Summary { text: format!("{}: {text}", service.name), state, look: look.clone() }
}

fn writer(service: &ServiceStatus, cluster: &ClusterStatus, zone: &TimeZone) -> (String, State) {
    let ordered = |name: &str| {
        let backend = service.backends.iter().find(|backend| backend.name == name)?;
        backend.state.is_ordered().then(|| order(backend))
    };
    let mut state = State::Well;
    let mut ailing = Vec::new();
    for node in &cluster.nodes {
        let (reason, is) = match (ordered(&node.name), node.readiness) {
            (Some(order), _) => (order, State::Ordered),
            (None, NodeReadiness::Ready) => continue,
            (None, readiness) if node.reason.is_empty() => (readiness.to_string(), State::Degraded),
            (None, _) => (node.reason.clone(), State::Degraded),
        };
        state = state.max(is);
        ailing.push((node.name.as_str(), reason));
    }
    let ailing = because(ailing.into_iter());
    match &cluster.writer {
        Some(writer) => (format!("writer {writer}{ailing}"), state),
        None => (format!("no writer since {}{ailing}", clock(cluster.since, zone)), State::Dead),
    }
}

/// A service of several nodes: who takes new connections, and what is the matter with nodes that are out.
fn several(service: &ServiceStatus, cluster: &ClusterStatus, zone: &TimeZone) -> (String, State) {
    let takes = |node: &&BackendStatus| node.weight_effective > 0.0;
    let taking: Vec<&str> = service.backends.iter().filter(takes).map(|node| node.name.as_str()).collect();
    let ordered = |name: &str| {
        let backend = service.backends.iter().find(|backend| backend.name == name)?;
        backend.state.is_ordered().then(|| order(backend))
    };
    let mut state = State::Well;
    let mut ailing: Vec<(&str, String)> = Vec::new();
    for node in cluster.nodes.iter().filter(|node| !taking.contains(&&*node.name)) {
        let (reason, is) = match (ordered(&node.name), node.used) {
            (Some(order), _) => (order, State::Ordered),
            (None, NodeUse::Out) => (node.reason.clone(), State::Degraded),
            (None, _) => continue,
        };
        state = state.max(is);
        ailing.push((node.name.as_str(), reason));
    }
    let ailing = because(ailing.into_iter());
    if taking.is_empty() {
        let since = service.backends.iter().map(|backend| backend.since).max().unwrap_or_default();
        return (format!("no node since {}{ailing}", clock(since, zone)), State::Dead);
    }
    (format!("{} {}{ailing}", plural(taking.len()), enumerate(&taking)), state)
}

fn plural(nodes: usize) -> &'static str {
    if nodes == 1 { "node" } else { "nodes" }
}

fn backends(service: &ServiceStatus, zone: &TimeZone) -> (String, State) {
    let all = service.backends.len();
    let up = service.backends.iter().filter(|backend| backend.state == BackendState::Up).count();
    let ordered = service.backends.iter().filter(|backend| backend.state.is_ordered()).count();
    let ailing = service.backends.iter().filter(|backend| backend.state != BackendState::Up).map(|backend| {
        let reason = match backend.state {
            state if state.is_ordered() => order(backend),
            BackendState::Down if !backend.reason.is_empty() => backend.reason.clone(),
            state => state.to_string(),
        };
        (backend.name.as_str(), reason)
    });
    match (all, up) {
        (0, _) => ("no backend is configured".to_owned(), State::Dead),
        (1, 1) => ("its backend is up".to_owned(), State::Well),
        (_, 0) => {
            let since = service.backends.iter().map(|backend| backend.since).max().unwrap_or_default();
            (format!("no backend up since {}{}", clock(since, zone), because(ailing)), State::Dead)
        }
        _ if up == all => (format!("all {all} backends up"), State::Well),
        // What the operator wants is no trouble.
        _ => {
            let state = if up + ordered < all { State::Degraded } else { State::Ordered };
            (format!("{up} of {all} backends up{}", because(ailing)), state)
        }
    }
}

/// What an operator has ordered, and how far that is.
fn order(backend: &BackendStatus) -> String {
    match backend.live {
        0 => format!("{}, no connection left", backend.state),
        1 => format!("{}, 1 connection left", backend.state),
        left => format!("{}, {left} connections left", backend.state),
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
