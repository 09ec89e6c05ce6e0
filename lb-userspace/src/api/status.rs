//! What the agent says about itself: the answer to `GET /status` and what `lb status --json` prints.
//!
//! Field names are part of the interface: they are added to, not changed. Times are RFC 3339 in UTC.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::Weight;

pub use jiff::Timestamp;

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent itself.
    pub agent: AgentStatus,
    /// What needs a person, one sentence each, the most urgent first.
    #[serde(default)]
    pub alarms: Vec<String>,
    /// Where the program sits.
    #[serde(default)]
    pub interfaces: Vec<InterfaceStatus>,
    /// The services, in the order of the configuration.
    #[serde(default)]
    pub services: Vec<ServiceStatus>,
    /// The database clusters, in the order of the configuration.
    #[serde(default)]
    pub clusters: Vec<ClusterStatus>,
    /// Packets by the reason code that decided them, since the program was attached.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
}

/// The agent's own state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The version of the binary that runs.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub since: Timestamp,
    /// When this status was taken.
    pub now: Timestamp,
    /// The instance's name, `lb` unless `--instance` says otherwise.
    pub instance: String,
    /// When it detaches by itself unless `lb confirm` comes first.
    #[serde(default)]
    pub confirm_deadline: Option<Timestamp>,
    /// What the configuration's files say that does not run, in a few words; `None`: what they say is what runs.
    #[serde(default)]
    pub unloaded: Option<String>,
}

/// An interface that the program is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// The interface's name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// How packets leave: `tx`, `redirect` or `stack`.
    pub exit: String,
    /// The kernel's id of the attached program.
    pub program_id: u32,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Address, port and protocol, as in the configuration.
    pub address: String,
    /// `snat`, `dnat`, `dsr` or `ipip`.
    pub mode: String,
    /// `round-robin`, `least-load`, …
    pub algorithm: String,
    /// Which packets look up their connection: `always` or `on-change`.
    #[serde(default)]
    pub track: String,
    /// `reset`, `hold` or `drop`.
    pub no_backend: String,
    /// Where new connections go while the agent is lost: `keep` (the backends) or `pass` (the host itself).
    #[serde(default)]
    pub agent_lost: String,
    /// The cluster whose nodes are its backends.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Which of the cluster's nodes it wants: `writer`, `reader` or `any`.
    #[serde(default)]
    pub role: Option<String>,
    /// One sentence of the agent about it; empty if the backends say it all.
    #[serde(default)]
    pub state: String,
    /// Connections open now.
    pub live: u64,
    /// Connections opened since the program was attached.
    pub opened: u64,
    /// New connections per second over the last 5 s.
    pub new_per_second: f64,
    /// Packets of this service that were dropped, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// Its backends, in the order of the configuration.
    pub backends: Vec<BackendStatus>,
}

/// What the agent thinks of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It gets connections.
    Up,
    /// It gets none: the checks say so.
    Down,
    /// It has not been checked often enough to say.
    Unknown,
    /// It gets no new ones: the operator says so, or it is in the configuration no more.
    Draining,
    /// It gets no new ones whatever its checks say: the operator says so.
    Maintenance,
}

impl BackendState {
    /// Whether the operator wants it so, whatever the checks say.
    pub fn is_ordered(self) -> bool {
        matches!(self, Self::Draining | Self::Maintenance)
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
        })
    }
}

/// A backend of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name within the service.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// What the agent thinks of it.
    pub state: BackendState,
    /// Why, in a few words such as `refused`; empty when there is nothing to say.
    #[serde(default)]
    pub reason: String,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// The weight that the configuration gives it, 0 to 1000.
    pub weight_configured: u32,
    /// The weight that was set at run time in its place: a number, or a part such as `50%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_set: Option<Weight>,
    /// The weight that the kernel works with, in the same unit.
    pub weight_effective: f64,
    /// Its measured load; 1 is as much as it can do.
    #[serde(default)]
    pub load: Option<f64>,
    /// How long it takes to answer a SYN; `None`: no answer was seen yet.
    #[serde(default)]
    pub handshake_ms: Option<HandshakeMs>,
    /// Connections open now.
    pub live: u64,
    /// Connections at most; `None`: no limit.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Connections opened since the program was attached.
    pub opened: u64,
    /// Its share of the service's new connections over the last 5 s, 0 to 1.
    pub share: f64,
    /// `resolved`, or what keeps packets from reaching it.
    pub next_hop: String,
}

/// Time from the SYN that the balancer forwards to the answer that comes back, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HandshakeMs {
    /// Over about the last ten seconds of traffic.
    pub mean: f64,
    /// The longest of late; it fades to the mean in about a minute.
    pub max: f64,
}

/// A database cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// The node that takes the writes; `None` if none may.
    #[serde(default)]
    pub writer: Option<String>,
    /// Since when it is this one, or since when there is none.
    pub since: Timestamp,
    /// Raised with every change of the writer.
    pub epoch: u64,
    /// The writer does not change by itself, see `lb galera freeze`.
    #[serde(default)]
    pub frozen: bool,
    /// The part of the last ten seconds that writes have waited for the slowest node (flow control), in percent.
    #[serde(default)]
    pub paused_percent: u8,
    /// What is worth knowing and needs nobody at once.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Its nodes, in the order of the configuration.
    pub nodes: Vec<NodeStatus>,
}

/// What a node can be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeReadiness {
    /// Reads and writes.
    Ready,
    /// Reads only.
    ReadOnly,
    /// Nothing.
    NotReady,
    /// Not known yet.
    Unknown,
}

impl fmt::Display for NodeReadiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::ReadOnly => "read-only",
            Self::NotReady => "not-ready",
            Self::Unknown => "unknown",
        })
    }
}

/// What the balancer does with a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeUse {
    /// It may be the writer, and read from.
    Write,
    /// It may be read from.
    Read,
    /// It gets no new connections; those that it has stay.
    NoNew,
    /// It gets none, and those that it has are cut unless the service says otherwise.
    Out,
    /// It has not been heard yet.
    #[default]
    Unknown,
}

impl fmt::Display for NodeUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Write => "write",
            Self::Read => "read",
            Self::NoNew => "no-new",
            Self::Out => "out",
            Self::Unknown => "unknown",
        })
    }
}

/// A node of a database cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name within the cluster.
    pub name: String,
    /// Address and port.
    pub address: String,
    /// What it can be used for.
    pub readiness: NodeReadiness,
    /// What the balancer does with it.
    #[serde(default, rename = "use")]
    pub used: NodeUse,
    /// Galera's own word for its state (`wsrep_local_state_comment`), `Synced` for instance.
    #[serde(default)]
    pub state_comment: Option<String>,
    /// Why it is not ready, in a few words such as `not Primary`; empty if it is.
    #[serde(default)]
    pub reason: String,
    /// The cluster's configuration that it sees (`wsrep_cluster_conf_id`).
    #[serde(default)]
    pub conf_id: Option<u64>,
    /// Write sets that it has received and not applied (`wsrep_local_recv_queue`).
    #[serde(default)]
    pub recv_queue: Option<u64>,
    /// The length of that queue at which it makes the whole cluster wait.
    #[serde(default)]
    pub queue_limit: Option<u64>,
    /// `wsrep_last_committed`.
    #[serde(default)]
    pub last_committed: Option<u64>,
    /// Transactions that lost against another node's: `wsrep_local_cert_failures`.
    #[serde(default)]
    pub cert_failures: Option<u64>,
    /// Transactions that were aborted for another node's: `wsrep_local_bf_aborts`.
    #[serde(default)]
    pub bf_aborts: Option<u64>,
    /// How many seconds a replica is behind.
    #[serde(default)]
    pub lag_seconds: Option<u64>,
    /// `Threads_connected`.
    #[serde(default)]
    pub threads_connected: Option<u64>,
    /// `Threads_running`.
    #[serde(default)]
    pub threads_running: Option<u64>,
}
