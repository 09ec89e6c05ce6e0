//! `lb status` for people: the sentence, then aligned tables.

use std::fmt::Write;

use jiff::tz::TimeZone;

use super::{
    sentence::sentence_in,
    status::{BackendStatus, ClusterStatus, NodeStatus, ServiceStatus, Status, Timestamp},
};

/// The whole status as text that ends with a newline; opens with the sentence that says what matters first.
pub fn render(status: &Status) -> String {
    render_in(status, &TimeZone::system())
}

pub(super) fn render_in(status: &Status, zone: &TimeZone) -> String {
    let mut text = sentence_in(status, zone);
    text.push('\n');
    for alarm in &status.alarms {
        line(&mut text, &format!("ALARM: {alarm}"));
    }
    text.push('\n');
    agent(&mut text, status, zone);
    for service in &status.services {
        text.push('\n');
        self::service(&mut text, service, status.agent.now);
    }
    for cluster in &status.clusters {
        text.push('\n');
        self::cluster(&mut text, cluster, status.agent.now);
    }
    counters(&mut text, status);
    text
}

/// Database clusters alone, as `lb galera status` shows them: the same tables, and what the servers count.
pub fn render_clusters(status: &Status, name: Option<&str>) -> String {
    let mut text = String::new();
    for cluster in status.clusters.iter().filter(|cluster| name.is_none_or(|name| cluster.name == name)) {
        if !text.is_empty() {
            text.push('\n');
        }
        for alarm in &status.alarms {
            if alarm.starts_with(&format!("{}: ", cluster.name)) {
                line(&mut text, &format!("ALARM: {alarm}"));
            }
        }
        self::cluster(&mut text, cluster, status.agent.now);
        let columns = [
            left("NODE"),
            right("COMMITTED"),
            right("CERT FAILURES"),
            right("BF ABORTS"),
            right("LAG"),
            right("CONNECTED"),
            right("RUNNING"),
        ];
        table(&mut text, &columns, cluster.nodes.iter().map(counted_row));
    }
    text
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn counted_row(node: &NodeStatus) -> [String; 7] {
    [
        node.name.clone(),
        number(node.last_committed),
        number(node.cert_failures),
        number(node.bf_aborts),
        node.lag_seconds.map_or_else(|| "-".to_owned(), |lag| format!("{lag} s")),
        number(node.threads_connected),
        number(node.threads_running),
    ]
}

pub(super) fn line(text: &mut String, line: &str) {
    text.push_str(line.trim_end());
    text.push('\n');
}

fn agent(text: &mut String, status: &Status, zone: &TimeZone) {
    let agent = &status.agent;
    let since = agent.since.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    let up = age(agent.since, agent.now);
    line(
        text,
        &format!(
            "lb {}, instance {}, pid {}, since {since} ({up})",
            agent.version, agent.instance, agent.pid
        ),
    );
    let columns = [left("INTERFACE"), left("MODE"), left("EXIT"), right("PROGRAM")];
    let rows = status.interfaces.iter().map(|interface| {
        [
            interface.name.clone(),
            interface.mode.clone(),
            interface.exit.clone(),
            interface.program_id.to_string(),
        ]
    });
    table(text, &columns, rows);
}

fn service(text: &mut String, service: &ServiceStatus, now: Timestamp) {
    let ServiceStatus { name, address, mode, algorithm, no_backend, .. } = service;
    // The default goes without saying.
    let lost = if service.agent_lost == "pass" { ", agent lost: pass" } else { "" };
    line(text, &format!("{name}  {address}  {mode}, {algorithm}, no backend: {no_backend}{lost}"));
    if !service.state.is_empty() {
        line(text, &format!("  {}", service.state));
    }
    let mut counts =
        format!("  {} live, {} opened, {:.1} new/s", service.live, service.opened, service.new_per_second);
    for (reason, count) in service.drops.iter().filter(|(_, count)| **count > 0) {
        // Writing to a string does not fail.
        let _ = write!(counts, ", dropped {count} {reason}");
    }
    line(text, &counts);
    let columns = [
        left("BACKEND"),
        left("ADDRESS"),
        left("STATE"),
        right("FOR"),
        right("WEIGHT"),
        right("NOW"),
        right("LOAD"),
        right("CONNECT"),
        right("LIVE"),
        right("OPENED"),
        right("SHARE"),
        left("NEXT HOP"),
        left("REASON"),
    ];
    table(text, &columns, service.backends.iter().map(|backend| backend_row(backend, now)));
}

/// `50 (set at run time; configured 100)`, or only what is configured.
fn weight(backend: &BackendStatus) -> String {
    let configured = backend.weight_configured;
    backend.weight_set.map_or_else(
        || configured.to_string(),
        |set| {
            let weight = set.of(u16::try_from(configured).unwrap_or(u16::MAX));
            format!("{weight} (set at run time; configured {configured})")
        },
    )
}

fn backend_row(backend: &BackendStatus, now: Timestamp) -> [String; 13] {
    [
        backend.name.clone(),
        backend.address.clone(),
        backend.state.to_string(),
        age(backend.since, now),
        weight(backend),
        format!("{:.1}", backend.weight_effective),
        backend.load.map_or_else(|| "-".to_owned(), |load| format!("{load:.2}")),
        backend.handshake_ms.map_or_else(|| "-".to_owned(), |handshake| format!("{:.2} ms", handshake.mean)),
        backend
            .max_connections
            .map_or_else(|| backend.live.to_string(), |most| format!("{}/{most}", backend.live)),
        backend.opened.to_string(),
        format!("{:.0} %", backend.share * 100.0),
        backend.next_hop.clone(),
        backend.reason.clone(),
    ]
}

fn cluster(text: &mut String, cluster: &ClusterStatus, now: Timestamp) {
    let writer =
        cluster.writer.as_ref().map_or_else(|| "no writer".to_owned(), |name| format!("writer {name}"));
    let since = age(cluster.since, now);
    let frozen = if cluster.frozen { ", frozen" } else { "" };
    line(text, &format!("cluster {}: {writer} for {since}, epoch {}{frozen}", cluster.name, cluster.epoch));
    for warning in &cluster.warnings {
        line(text, &format!("  {warning}"));
    }
    let columns = [
        left("NODE"),
        left("ADDRESS"),
        left("READINESS"),
        left("STATE"),
        right("CONF ID"),
        right("QUEUE"),
        left("REASON"),
    ];
    table(text, &columns, cluster.nodes.iter().map(node_row));
}

fn node_row(node: &NodeStatus) -> [String; 7] {
    [
        node.name.clone(),
        node.address.clone(),
        node.readiness.to_string(),
        node.state_comment.clone().unwrap_or_else(|| "-".to_owned()),
        number(node.conf_id),
        number(node.recv_queue),
        node.reason.clone(),
    ]
}

/// Counters that never moved only hide those that did.
fn counters(text: &mut String, status: &Status) {
    let moved: Vec<_> = status.counters.iter().filter(|(_, count)| **count > 0).collect();
    if moved.is_empty() {
        return;
    }
    text.push('\n');
    let rows = moved.into_iter().map(|(reason, count)| [reason.clone(), count.to_string()]);
    table(text, &[left("PACKETS BY REASON"), right("COUNT")], rows);
}

/// A time span in at most two units: `12s`, `3m05s`, `2h07m`, `4d03h`.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second().saturating_sub(since.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// A column's title and on which side its cells align.
struct Column {
    title: &'static str,
    right: bool,
}

fn left(title: &'static str) -> Column {
    Column { title, right: false }
}

fn right(title: &'static str) -> Column {
    Column { title, right: true }
}

/// Rows under their titles, indented by two, each column as wide as its widest cell.
fn table<const N: usize>(text: &mut String, columns: &[Column; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return;
    }
    let titles = columns.each_ref().map(|column| column.title.to_owned());
    let widths: [usize; N] = std::array::from_fn(|at| {
        rows.iter().chain([&titles]).map(|row| row[at].chars().count()).max().unwrap_or(0)
    });
    for row in [&titles].into_iter().chain(&rows) {
        let mut cells = String::new();
        for ((cell, width), column) in row.iter().zip(widths).zip(columns) {
            // Writing to a string does not fail.
            let _ = if column.right {
                write!(cells, "  {cell:>width$}")
            } else {
                write!(cells, "  {cell:<width$}")
            };
        }
        line(text, &cells);
    }
}
