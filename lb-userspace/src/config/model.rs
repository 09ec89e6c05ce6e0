//! The typed configuration: what the rest of the agent sees of the file.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::secret::Secret;
use super::value::FpmUrl;

/// A whole configuration, valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interfaces to attach to; at least one, no name twice.
    pub interfaces: Vec<String>,
    /// How to attach.
    pub xdp_mode: XdpMode,
    /// Established flows that the table has room for; `None`: a million or 2 % of memory, whichever is less.
    pub max_flows: Option<u32>,
    /// The ports that `snat` takes source ports from, less the host's own; `None`: 1024 to 65535.
    pub source_ports: Option<SourcePorts>,
    /// Services in the order of the file.
    pub services: Vec<Service>,
    /// Clusters in the order of the file.
    pub clusters: Vec<Cluster>,
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, and where it has no support, in the generic hook, said aloud.
    #[default]
    Auto,
    /// In the driver or not at all.
    Native,
    /// In the generic hook.
    Generic,
}

/// A range of ports, both ends included; `first` is at least 1024 and at most `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePorts {
    /// Lowest port.
    pub first: u16,
    /// Highest port.
    pub last: u16,
}

/// An address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique among services and clusters.
    pub name: String,
    /// Address and TCP port; unique.
    pub address: SocketAddrV4,
    /// How packets are rewritten.
    pub mode: Mode,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// What a new connection meets when nobody can serve it.
    pub no_backend: NoBackend,
    /// When connections are forgotten.
    pub timeouts: Timeouts,
    /// Who serves.
    pub target: Target,
}

/// How packets are rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Source and destination: backends see the balancer's address.
    #[default]
    Snat,
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turns, as often as the weights say.
    RoundRobin,
    /// The better of two random candidates by live connections over weight.
    #[default]
    LeastLoad,
}

/// What a new connection meets when no backend can serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBackend {
    /// A RST.
    Reset,
    /// Silence for at most this long, so that TCP's own retry finds the new backend; then a RST.
    Hold(Duration),
    /// Silence.
    Drop,
}

/// When connections are forgotten; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An established connection on which nothing is said.
    pub established: Duration,
    /// After a FIN or RST.
    pub closing: Duration,
    /// Until the handshake is proven.
    pub embryonic: Duration,
}

/// Who serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Servers that the service lists itself.
    Backends {
        /// At least one; names and addresses are unique within the service.
        backends: Vec<Backend>,
        /// How their health is found out.
        check: Check,
        /// How their load is measured, if it is.
        load: Option<Load>,
    },
    /// Nodes of a cluster.
    Cluster {
        /// Name of a cluster of the same configuration.
        cluster: String,
        /// Which of its nodes.
        role: Role,
    },
}

/// Which nodes of a cluster serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The elected one.
    Writer,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique within the service.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddrV4,
    /// 0 to 1000; 0 gets no new connections.
    pub weight: u16,
}

/// How the health of a service's backends is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What a probe does.
    pub kind: CheckKind,
    /// From one probe to the next.
    pub interval: Duration,
    /// How long a probe may take; at most the interval.
    pub timeout: Duration,
    /// Good probes in a row that bring a backend up.
    pub rise: u8,
    /// Bad probes in a row that take it down.
    pub fall: u8,
}

/// What a probe does. A `port` of `None` is the backend's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Connects.
    Tcp {
        /// Port to connect to.
        port: Option<u16>,
    },
    /// Asks for a page.
    Http {
        /// Path and query.
        path: String,
        /// The `Host` header; `None`: the backend's address.
        host: Option<String>,
        /// Answers that are good.
        status: StatusRange,
        /// Port to connect to.
        port: Option<u16>,
    },
    /// Asks PHP-FPM for its status page.
    PhpFpm {
        /// Where it is.
        url: FpmUrl,
    },
}

/// A range of HTTP status codes, both ends included; within 100 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange {
    /// Lowest code.
    pub first: u16,
    /// Highest code.
    pub last: u16,
}

impl StatusRange {
    /// Whether an answer with this code is good.
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status)
    }
}

/// How the load of a service's backends is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// What is asked.
    pub kind: LoadKind,
    /// From one sample to the next.
    pub interval: Duration,
    /// How long a sample may take; at most the interval.
    pub timeout: Duration,
}

/// What is asked for the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadKind {
    /// PHP-FPM's status page.
    PhpFpm {
        /// Where it is.
        url: FpmUrl,
        /// `pm.max_children` of the pool; `None`: learnt from the page.
        max_children: Option<u32>,
    },
}

/// Database nodes that replicate among themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Unique among services and clusters.
    pub name: String,
    /// How its states are understood.
    pub kind: ClusterKind,
    /// How nodes are asked.
    pub monitor: Monitor,
    /// What a node that feeds a joiner may do.
    pub donor: DonorPolicy,
    /// At least one; names and addresses are unique within the cluster.
    pub nodes: Vec<Node>,
}

/// How a cluster's states are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// Galera: MariaDB or Percona XtraDB Cluster.
    Galera,
}

/// What a donor (`wsrep_local_state` 2) may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DonorPolicy {
    /// Serve only if no synced node is left.
    #[default]
    LastResort,
    /// Never serve.
    Avoid,
    /// Serve as if it were synced.
    Allow,
}

/// How database nodes are asked for their state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// Database user; USAGE is enough.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// From one probe to the next.
    pub interval: Duration,
    /// How long a probe may take; at most the interval.
    pub timeout: Duration,
}

/// One node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique within the cluster.
    pub name: String,
    /// Where it listens for clients.
    pub address: SocketAddrV4,
    /// -1000 to 1000. The lowest that is not negative is preferred as writer, then the order of the file;
    /// negative: never.
    pub priority: i32,
}
