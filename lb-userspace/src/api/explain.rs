//! Why one thing is as it is: what `lb explain` asks for, what it is told, and how that is shown.

use std::fmt::Write;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::{
    events::Entry,
    render::{age, line},
    status::Timestamp,
};

/// What to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Explain {
    /// SERVICE, SERVICE/BACKEND, CLUSTER or CLUSTER/NODE.
    pub name: String,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A service.
    Service,
    /// A backend of a service.
    Backend,
    /// A database cluster.
    Cluster,
    /// A node of a cluster.
    Node,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Backend => "backend",
            Self::Cluster => "cluster",
            Self::Node => "node",
        }
    }
}

/// Everything about one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The name.
    pub name: String,
    /// What it stands for.
    pub kind: Kind,
    /// Where it listens; empty for a cluster.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// When this was said.
    pub now: Timestamp,
    /// What it is: `up`, `draining`, `no writer`.
    pub state: String,
    /// Since when it is that, where one knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// How its weight comes about, of a backend or node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weighing>,
    /// Connections, for each service that uses it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connections>,
    /// Where packets to it go, or what keeps them from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// How it is probed and what came of the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// Its backends or nodes, each with its state, and why it is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<Member>,
    /// What needs a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<String>,
    /// What has happened to it of late, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Entry>,
    /// What one may type now, and what for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<Hint>,
}

/// How a weight comes about: configured × all factors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Weighing {
    /// By the configuration, 0 to 1000.
    pub configured: u32,
    /// What makes another one of it.
    pub factors: Vec<Factor>,
    /// What the kernel works with, in the same unit. Small changes wait, so it need not be the product to the digit.
    pub effective: f64,
}

/// One factor of a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Factor {
    /// Of what: `health`, `load`, …
    pub of: String,
    /// By how much.
    pub factor: f64,
    /// Why.
    pub why: String,
}

/// Connections by one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    /// The service.
    pub service: String,
    /// Open now.
    pub live: u64,
    /// At most; `None`: no limit.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Since the program was attached.
    pub opened: u64,
    /// Its share of the service's new ones over the last 5 s, 0 to 1; 1 of a service itself.
    pub share: f64,
}

/// The probe of a backend or node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is asked, and how often.
    pub what: String,
    /// What came of the last one; `None`: there was none yet.
    #[serde(default)]
    pub last: Option<Answer>,
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When.
    pub at: Timestamp,
    /// Whether it was good.
    pub good: bool,
    /// In words.
    pub text: String,
}

/// A backend or node of what is explained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// SERVICE/BACKEND or CLUSTER/NODE.
    pub name: String,
    /// Its state.
    pub state: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// A command line and what it is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// To be typed.
    #[serde(rename = "type")]
    pub command: String,
    /// What it does.
    pub does: String,
}

/// One screen of text.
pub fn explained(explanation: &Explanation) -> String {
    explained_in(explanation, &TimeZone::system())
}

pub(super) fn explained_in(it: &Explanation, zone: &TimeZone) -> String {
    let mut text = String::new();
    let address = if it.address.is_empty() { String::new() } else { format!("  {}", it.address) };
    line(&mut text, &format!("{}  {}{address}", it.name, it.kind.word()));
    let since = it.since.map(|since| format!(" for {}", age(since, it.now))).unwrap_or_default();
    row(&mut text, "state", &format!("{}{since}", it.state));
    row(&mut text, "why", &it.reason);
    for alarm in &it.alarms {
        row(&mut text, "ALARM", alarm);
    }
    if let Some(weight) = &it.weight {
        weighed(&mut text, weight);
    }
    for connections in &it.connections {
        row(&mut text, "connections", &counted(connections));
    }
    row(&mut text, "next hop", it.next_hop.as_deref().unwrap_or_default());
    if let Some(probe) = &it.probe {
        row(&mut text, "probe", &probe.what);
        let last = probe.last.as_ref().map(|last| {
            let ago = age(last.at, it.now);
            format!("{}, {ago} ago", last.text)
        });
        row(&mut text, "last probe", last.as_deref().unwrap_or("none yet"));
    }
    for (at, member) in it.members.iter().enumerate() {
        let reason = if member.reason.is_empty() { String::new() } else { format!(": {}", member.reason) };
        let title = if at == 0 { "members" } else { "" };
        titled(&mut text, title, &format!("{} {}{reason}", member.name, member.state));
    }
    for (at, event) in it.events.iter().enumerate() {
        titled(&mut text, if at == 0 { "of late" } else { "" }, &event.line(zone));
    }
    let width = it.hints.iter().map(|hint| hint.command.chars().count()).max().unwrap_or(0);
    for (at, hint) in it.hints.iter().enumerate() {
        let command = format!("{:<width$}  {}", hint.command, hint.does);
        titled(&mut text, if at == 0 { "type" } else { "" }, &command);
    }
    text
}

fn weighed(text: &mut String, weight: &Weighing) {
    let mut product = weight.configured.to_string();
    for factor in &weight.factors {
        // Writing to a string does not fail.
        let _ = write!(product, " × {} {}", short(factor.factor), factor.of);
    }
    row(text, "weight", &format!("{:.1} = {product}", weight.effective));
    for factor in weight.factors.iter().filter(|factor| !factor.why.is_empty()) {
        titled(text, "", &format!("{}: {}", factor.of, factor.why));
    }
}

/// Without digits that say nothing: `1`, `0.85`.
fn short(factor: f64) -> String {
    let text = format!("{factor:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn counted(connections: &Connections) -> String {
    let Connections { service, live, limit, opened, share } = connections;
    let limit = limit.map(|limit| format!(" of at most {limit}")).unwrap_or_default();
    format!("{service}: {live} live{limit}, {opened} opened, {:.0} % of the new ones", share * 100.0)
}

/// A titled line, unless it says nothing.
fn row(text: &mut String, title: &str, value: &str) {
    if !value.is_empty() {
        titled(text, title, value);
    }
}

fn titled(text: &mut String, title: &str, value: &str) {
    line(text, &format!("  {title:<11}  {value}"));
}
