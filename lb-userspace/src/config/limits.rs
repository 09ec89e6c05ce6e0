//! Limits, and what they leave of the choice which packets are looked up.

use super::model::{AgentLost, Algorithm, Mode, RateLimit, Target, Track};
use super::table::Section;
use super::value::Fault;

/// As many as the largest table of connections holds.
const MOST_CONNECTIONS: i64 = 16_777_216;
const MOST_PER_SECOND: i64 = 1_000_000;
pub(super) const RATE_KEYS: &[&str] = &["per-second", "burst"];
const RATE_EXAMPLE: &str = "{ per-second = 50, burst = 100 }";

/// `max-connections` of a service, a backend or a node.
pub(super) fn max_connections(section: &Section<'_>) -> Option<u32> {
    section.integer("max-connections", 1..=MOST_CONNECTIONS)
}

/// `rate-limit` of a service. Without a burst, what a second allows may come at once.
pub(super) fn rate_limit(section: &Section<'_>) -> Option<RateLimit> {
    let table = section.table("rate-limit", RATE_EXAMPLE)?;
    let section = Section::new(section.report(), "a rate limit", table.at, table.value, RATE_KEYS);
    section.require("per-second", "per-second = 50");
    let per_second = section.integer("per-second", 1..=MOST_PER_SECOND);
    let burst = section.integer("burst", 1..=MOST_PER_SECOND);
    Some(RateLimit { per_second: per_second?, burst: burst.or(per_second)? })
}

/// What decides about [`Track`] besides the word itself.
pub(super) struct Counted<'a> {
    pub(super) mode: Mode,
    pub(super) algorithm: Algorithm,
    /// Whether the service itself has a limit.
    pub(super) limited: bool,
    pub(super) agent_lost: AgentLost,
    pub(super) target: &'a Target,
}

impl Counted<'_> {
    /// Why every packet must be looked up, if it must.
    fn obstacle(&self) -> Option<String> {
        let Self { mode, algorithm, .. } = self;
        if *mode == Mode::Snat {
            return Some(r#"mode "snat" must find each connection's source port"#.to_owned());
        }
        if *mode == Mode::Dnat {
            return Some(r#"mode "dnat" must find each connection's client"#.to_owned());
        }
        if !algorithm.is_ring() {
            return Some(format!(r#"algorithm "{algorithm}" chooses anew for each connection"#));
        }
        if self.agent_lost == AgentLost::Pass {
            return Some(r#"agent-lost = "pass" must tell what is new from what is known"#.to_owned());
        }
        match self.target {
            Target::Cluster { .. } => {
                Some("connections to a former writer must be found to be cut".to_owned())
            }
            Target::Backends { backends, .. } => {
                let limited =
                    self.limited || backends.iter().any(|backend| backend.max_connections.is_some());
                limited.then(|| "a limit must count connections".to_owned())
            }
        }
    }
}

/// `track` of a service: by itself as little as its other settings allow. `unread` says that one of these could not be
/// read, so that nothing can be held against the word.
pub(super) fn track(section: &Section<'_>, counted: &Counted<'_>, unread: bool) -> Track {
    let said = section.choice("track", &[("always", Track::Always), ("on-change", Track::OnChange)]);
    let obstacle = counted.obstacle();
    if let (Some(Track::OnChange), Some(why), false) = (said, &obstacle, unread) {
        let wrong = format!(r#"track: "on-change" cannot be, for {why}"#);
        section.add("track", Fault::new(wrong, r#"write track = "always", or leave `track` out"#));
    }
    said.unwrap_or(if obstacle.is_some() { Track::Always } else { Track::OnChange })
}
