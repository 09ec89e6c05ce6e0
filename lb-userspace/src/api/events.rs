//! What has changed, an entry a change: what `lb events` asks for, and what it is told.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::status::Timestamp;

/// Which entries to show.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Only of this name and what belongs to it: a service with its backends, a cluster with its nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Only those of the last so many milliseconds; all that are remembered unless said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Go on with those that come.
    pub follow: bool,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The agent itself: its start, `lb confirm`.
    Agent,
    /// What probes say of a backend.
    Health,
    /// What a backend's own traffic says of it.
    Suspicion,
    /// The load of a backend cannot be read, or can again.
    Load,
    /// What a database node may be used for.
    Node,
    /// Who writes in a cluster.
    Writer,
    /// What an operator has ordered: drains, maintenance, and their ends.
    Operator,
    /// A weight that an operator has set.
    Weight,
    /// Connections that were ended.
    Cut,
    /// Another configuration, or one that was refused.
    Reload,
    /// Who serves, as discovery finds it.
    Discovery,
    /// The way to a backend.
    Way,
    /// What needs a person.
    Alarm,
}

/// How much an entry matters; the levels of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Good to know.
    #[default]
    Info,
    /// Not as it should be.
    Warning,
    /// Somebody has to act.
    Error,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number since the agent's start, from 1 on.
    pub number: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What it is about.
    pub topic: Topic,
    /// How much it matters.
    pub grade: Grade,
    /// Whom it is about: SERVICE, SERVICE/BACKEND, CLUSTER, CLUSTER/NODE, an address; empty: the agent itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What has changed, `up → down` for instance.
    pub what: String,
    /// Why, in words; empty where `what` says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What was seen that shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

impl Entry {
    /// An entry of now, without a number yet.
    pub fn new(topic: Topic, name: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            number: 0,
            at: Timestamp::now(),
            topic,
            grade: Grade::Info,
            name: name.into(),
            what: what.into(),
            reason: String::new(),
            evidence: String::new(),
        }
    }

    /// The same with the reason.
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// The same with what shows it.
    #[must_use]
    pub fn shown_by(self, evidence: impl Into<String>) -> Self {
        Self { evidence: evidence.into(), ..self }
    }

    /// The same as a warning.
    #[must_use]
    pub fn warning(self) -> Self {
        Self { grade: Grade::Warning, ..self }
    }

    /// The same as an error.
    #[must_use]
    pub fn error(self) -> Self {
        Self { grade: Grade::Error, ..self }
    }

    /// Whether it is about `name` or what belongs to it.
    pub fn concerns(&self, name: &str) -> bool {
        self.name.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Without its time: `web/web1: up → down: refused, confirmed`.
    pub fn sentence(&self) -> String {
        let parts = [&self.name, &self.what, &self.reason];
        let parts: Vec<&str> =
            parts.into_iter().filter(|part| !part.is_empty()).map(String::as_str).collect();
        parts.join(": ")
    }

    /// One line: time, grade where it is more than good to know, sentence, evidence.
    pub fn line(&self, zone: &TimeZone) -> String {
        let at = self.at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
        let grade = match self.grade {
            Grade::Info => "",
            Grade::Warning => "WARNING ",
            Grade::Error => "ERROR ",
        };
        let evidence = if self.evidence.is_empty() { String::new() } else { format!(" [{}]", self.evidence) };
        // Text of a server may hold anything; an entry is one line.
        let line = format!("{at} {grade}{}{evidence}", self.sentence());
        line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_concerns_its_name_and_what_that_belongs_to() {
        for (name, asked, concerned) in [
            ("web/web1", "web/web1", true),
            ("web/web1", "web", true),
            ("web", "web", true),
            ("web", "web/web1", false),
            ("web/web11", "web/web1", false),
            ("webshop/web1", "web", false),
            ("", "web", false),
        ] {
            let entry = Entry::new(Topic::Health, name, "up → down");
            assert_eq!(entry.concerns(asked), concerned, "{name}, {asked}");
        }
    }

    #[test]
    fn an_entry_is_one_line_whatever_a_server_has_said() {
        let at: Timestamp = "2026-03-01T02:13:07.25Z".parse().expect("a time");
        for (entry, line) in [
            (Entry::new(Topic::Agent, "", "started"), "started"),
            (
                Entry::new(Topic::Health, "web/web1", "up → down").because("refused").warning(),
                "WARNING web/web1: up → down: refused",
            ),
            (
                Entry::new(Topic::Node, "db/db1", "out").because("a\nb\u{1b}[31m").shown_by("x").error(),
                "ERROR db/db1: out: a b [31m [x]",
            ),
        ] {
            let entry = Entry { at, ..entry };
            assert_eq!(entry.line(&TimeZone::UTC), format!("2026-03-01 02:13:07.250 {line}"));
        }
    }
}
