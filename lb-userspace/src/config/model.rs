//! The typed configuration: what the rest of the agent sees of the file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::pattern::Pattern;
use super::secret::Secret;
use super::value::FpmUrl;
use crate::discovery::Source;
use crate::listen::Listen;
use crate::probe::{http::Method, tls::Trust};

/// A whole configuration, valid by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Interfaces to attach to, no name twice; at least one, or a pattern.
    pub interfaces: Vec<String>,
    /// Patterns of those that come and go; none twice.
    pub patterns: Vec<Pattern>,
    /// How to attach.
    pub xdp_mode: XdpMode,
    /// Established flows that the table has room for; `None`: a million or 2 % of memory, whichever is less.
    pub max_flows: Option<u32>,
    /// The ports that `snat` takes source ports from, less the host's own; `None`: 1024 to 65535.
    pub source_ports: Option<SourcePorts>,
    /// Addresses of this host that backends see in `snat` and as the outer source in `ipip`; empty, or none of a
    /// backend's version of IP: the route's own.
    pub sources: Vec<IpAddr>,
    /// How long the agent may be silent before the kernel's half counts it as lost.
    pub agent_lost_after: Duration,
    /// The group that may speak to the agent beside root; `None`: nobody.
    pub api_group: Option<String>,
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
    /// Where clients connect to; unique.
    pub listen: Listen,
    /// How packets are rewritten.
    pub mode: Mode,
    /// How a backend is chosen.
    pub algorithm: Algorithm,
    /// Which packets look up their connection.
    pub track: Track,
    /// What a new connection meets when nobody can serve it.
    pub no_backend: NoBackend,
    /// Where new connections go while the agent is lost.
    pub agent_lost: AgentLost,
    /// When connections are forgotten.
    pub timeouts: Timeouts,
    /// Connections at most; `None`: no limit.
    pub max_connections: Option<u32>,
    /// New connections of one source address; `None`: no limit.
    pub rate_limit: Option<RateLimit>,
    /// Whether ICMP echo requests to its address are answered.
    pub echo: bool,
    /// Who serves.
    pub target: Target,
}

/// How packets are rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Source and destination: backends see the balancer's address.
    #[default]
    Snat,
    /// The destination: backends see the client's address, and their answers pass the balancer.
    Dnat,
    /// The MAC addresses only: backends have the service's address, and answer clients themselves.
    Dsr,
    /// Nothing, in a tunnel of IP in IP to the backend, which answers clients itself.
    Ipip,
}

impl Mode {
    /// Whether a backend is reached on the port that the client connected to, whatever else is rewritten.
    pub const fn keeps_port(self) -> bool {
        matches!(self, Self::Dsr | Self::Ipip)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snat => "snat",
            Self::Dnat => "dnat",
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
        })
    }
}

/// How a backend is chosen for a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// In turns, as often as the weights say.
    RoundRobin,
    /// The better of two random candidates by live connections over weight.
    #[default]
    LeastLoad,
    /// The one with the fewest live connections over weight.
    LeastConn,
    /// By a hash of the connection, the same on every balancer with the same configuration.
    Maglev,
    /// By a hash of the client's address.
    SourceHash,
}

impl Algorithm {
    /// Whether a packet's own words decide, so that nothing needs to be remembered while no backend changes.
    pub const fn is_ring(self) -> bool {
        matches!(self, Self::Maglev | Self::SourceHash)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round-robin",
            Self::LeastLoad => "least-load",
            Self::LeastConn => "least-conn",
            Self::Maglev => "maglev",
            Self::SourceHash => "source-hash",
        })
    }
}

/// Which packets look up their connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// All of them.
    Always,
    /// Those whose place in the ring is changing hands; a ring algorithm without `snat`, limits or a cluster.
    OnChange,
}

/// New connections of one source address: a bucket of `burst` tokens that fills by `per_second`; both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// A second, for good.
    pub per_second: u32,
    /// At once, after a rest.
    pub burst: u32,
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

/// Where new connections go while the agent is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentLost {
    /// To the backends, as the agent has published them last.
    #[default]
    Keep,
    /// To the balancer's own host.
    Pass,
}

impl fmt::Display for AgentLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Pass => "pass",
        })
    }
}

/// When connections are forgotten; none is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// An established connection on which nothing is said.
    pub established: Duration,
    /// After a FIN or RST.
    pub closing: Duration,
    /// Until the handshake is proven, or UDP answered.
    pub embryonic: Duration,
    /// UDP on which nothing is said.
    pub udp: Duration,
}

/// Who serves.
// One for each service, read once: a pointer to its parts would save nothing.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each service, and it is read in place")]
pub enum Target {
    /// Servers that the service lists itself.
    Backends {
        /// At least one, unless others are discovered; names and addresses are unique within the service.
        backends: Vec<Backend>,
        /// Where further ones come from.
        discover: Option<Box<Source>>,
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
        /// What becomes of connections to a node that is out.
        on_out: OnOut,
    },
}

/// Which nodes of a cluster serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The elected one.
    Writer,
    /// Those that may be read from.
    Reader(WriterReads),
    /// Those that may be written to, all of them.
    Any,
}

impl Role {
    /// As it is typed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Writer => "writer",
            Self::Reader(_) => "reader",
            Self::Any => "any",
        }
    }
}

/// Whether the writer is read from too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriterReads {
    /// Never, even if nobody else is left.
    Never,
    /// If no other node is as good.
    #[default]
    LastResort,
    /// Like any other node.
    Always,
}

/// What becomes of connections to a node that is out (not Primary, gone, foreign); those to a node that only takes no
/// new ones stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOut {
    /// They end with a RST to both sides.
    #[default]
    Cut,
    /// They stay, for what they are worth.
    Keep,
}

/// One server of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Unique within the service.
    pub name: String,
    /// Where it listens; port 0: on the port that the client connected to.
    pub address: SocketAddr,
    /// 0 to 1000; 0 gets no new connections.
    pub weight: u16,
    /// Connections at most, over all services that name this server; `None`: no limit.
    pub max_connections: Option<u32>,
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
    Http(HttpCheck),
    /// Asks PHP-FPM for its status page.
    PhpFpm {
        /// Where it is.
        url: FpmUrl,
    },
    /// Logs in to a MySQL or MariaDB server and asks how it is, over one connection that stays.
    Mysql(Login),
}

/// Which page is asked for, and which answers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCheck {
    /// How it is asked for.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The `Host` header, and what a certificate must be for; `None`: the backend's address.
    pub host: Option<String>,
    /// Good answers; at least one range.
    pub status: Vec<StatusRange>,
    /// A header that must be there, and a text that its value holds.
    pub expect_header: Option<(String, String)>,
    /// A text that the body holds.
    pub expect_body: Option<String>,
    /// Port to connect to.
    pub port: Option<u16>,
    /// HTTPS, and whose certificates are believed; `None`: HTTP.
    pub tls: Option<Trust>,
}

/// How a database server lets the agent in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Database user; USAGE is enough.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// Whether the connection is encrypted.
    pub tls: DatabaseTls,
}

/// Whether a connection to a database server is encrypted, and whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseTls {
    /// Whether.
    pub mode: TlsMode,
    /// With whom. Names in certificates do not matter.
    pub trust: Trust,
}

impl Default for DatabaseTls {
    fn default() -> Self {
        Self { mode: TlsMode::default(), trust: Trust::Anybody }
    }
}

/// Whether a connection to a database server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Off,
    /// Where the server speaks TLS.
    #[default]
    Preferred,
    /// Always, or nobody logs in.
    Required,
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
    /// A line of an agent beside the server, see [`crate::probe::agent_check`].
    AgentCheck {
        /// Port of the backend's address that it listens on.
        port: u16,
        /// For how long what it has ordered stands after it was last heard.
        lease: Duration,
    },
    /// `Threads_running` of a database server, which its check asks for anyway.
    Mysql {
        /// Threads that may run at a time before the server counts as full.
        capacity: u32,
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
    /// Whether a preferred node that has been well for a minute takes the writer's role back by itself.
    pub fail_back: bool,
    /// How far a replica may be behind; `None`: however far.
    pub max_lag: Option<Duration>,
    /// At least one; names and addresses are unique within the cluster.
    pub nodes: Vec<Node>,
}

/// How a cluster's states are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// Galera: MariaDB or Percona XtraDB Cluster.
    Galera,
    /// MySQL or MariaDB by themselves, one of which the others replicate from.
    Mysql,
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
    /// Whether the connection is encrypted.
    pub tls: DatabaseTls,
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
    pub address: SocketAddr,
    /// -1000 to 1000. The lowest that is not negative is preferred as writer, then the order of the file;
    /// negative: never.
    pub priority: i32,
    /// Connections at most, over all services; `None`: what the server itself has room for.
    pub max_connections: Option<u32>,
    /// MariaDB's `extra_port`, by which the monitor gets in when all other connections are taken.
    pub extra_port: Option<u16>,
}
