//! The live table: what the balancer says of each backend, and what the visitors see.

use std::time::{Duration, Instant};

use lb_userspace::api::{BackendState, NodeReadiness, NodeStatus, ServiceStatus, Status};

use super::history::{History, SPAN, find};
use super::summary::{Times, milliseconds};
use super::traffic::Request;

/// The lines of the table; at most 78 characters wide, so that no terminal breaks them.
pub fn lines(history: &History, visits: &str) -> Vec<String> {
    let Some(status) = history.last() else { return Vec::new() };
    let mut lines = vec![String::new()];
    if let Some(web) = find(status, "web") {
        web_lines(&mut lines, web, history);
    }
    if let Some(database) = find(status, "db-write") {
        database_lines(&mut lines, database, status);
    }
    lines.extend(status.alarms.iter().map(|alarm| cut(&format!("  alarm: {alarm}"))));
    lines.push(cut(&format!("  pages     {visits}")));
    lines.push(String::new());
    lines
}

fn web_lines(lines: &mut Vec<String>, web: &ServiceStatus, history: &History) {
    lines.push("  web       state     connections    share of new    load   weight".to_owned());
    for backend in &web.backends {
        let share = history.share("web", &backend.name, None);
        lines.push(cut(&format!(
            "  {:<9} {:<9} {:>11} {:>15} {:>7} {:>8.0}  {}",
            backend.name,
            backend.state.to_string(),
            format!("{} live", backend.live),
            share.map_or("-".to_owned(), percent),
            backend.load.map_or("-".to_owned(), |load| format!("{load:.2}")),
            backend.weight_effective,
            if backend.state == BackendState::Up { "" } else { &backend.reason },
        )));
    }
}

fn database_lines(lines: &mut Vec<String>, service: &ServiceStatus, status: &Status) {
    let Some(cluster) = status.clusters.first() else { return };
    lines.push("  database  state     connections          Galera    role".to_owned());
    for node in &cluster.nodes {
        let live = service.backends.iter().find(|backend| backend.name == node.name);
        let writer = cluster.writer.as_ref() == Some(&node.name);
        lines.push(cut(&format!(
            "  {:<9} {:<9} {:>11} {:>15}    {:<7} {}",
            node.name,
            node.readiness.to_string(),
            format!("{} live", live.map_or(0, |backend| backend.live)),
            galera_state(node),
            if writer { "writer" } else { "" },
            if node.readiness == NodeReadiness::Ready { "" } else { &node.reason },
        )));
    }
}

/// Galera's word for the state; a node that is not ready does not vouch for its last one.
fn galera_state(node: &NodeStatus) -> &str {
    if node.readiness == NodeReadiness::NotReady {
        return "-";
    }
    node.state_comment.as_deref().unwrap_or("-")
}

/// What the visitors have seen so far, in one line.
pub fn visits(requests: &[Request]) -> String {
    let failed = requests.iter().filter(|request| !request.is_written()).count();
    let now = Instant::now();
    let recent = requests.iter().rev().take_while(|request| now - request.ended < SPAN);
    let times = Times::of(recent.filter(|request| request.is_written()).map(Request::time));
    let rate = times.count as f64 / SPAN.as_secs_f64();
    format!(
        "{} served, {failed} failed; now {rate:.0} a second, p50 {}, p99 {}",
        requests.len() - failed,
        milliseconds(times.p50),
        milliseconds(times.p99)
    )
}

/// 0.257 as "26 %".
pub fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// A duration as "1.9 s".
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn cut(line: &str) -> String {
    line.trim_end().chars().take(78).collect()
}
