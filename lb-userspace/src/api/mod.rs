//! The agent's local interface: HTTP/1.1 with JSON over a Unix socket.
//!
//! The server knows nothing about what the agent does: it turns a request into a [`Command`], hands it to
//! whoever owns the state, and turns the [`Reply`] into an answer. The client in this module is what the
//! command line uses; `curl --unix-socket /run/lb/lb.sock http://lb/status` works as well.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /status` | – | [`Status`] |
//! | `POST /drain` | `{"name": "web/web1", "deadline_ms": 60000, "then": "cut"}` | `{"message": …}` |
//! | `POST /cut` | `{"name": "web/web1"}` | `{"message": …}` |
//! | `POST /ready` | `{"name": "web/web1"}` | `{"message": …}` |
//! | `POST /maint` | `{"name": "web/web1"}` | `{"message": …}` |
//! | `POST /weight` | `{"name": "web/web1", "weight": "50%"}`; without a weight: the configured one | `{"message": …}` |
//! | `POST /reload` | `{"deadline_ms": 60000}` or nothing | [`Changes`] |
//! | `POST /diff` | `{"path": "/etc/lb/lb.toml"}` | [`Changes`] |
//! | `POST /trace` | `{"client": "198.51.100.7:40000", "service": "web"}` | [`Traced`] |
//! | `POST /capture` | `{"service": "web", "count": 10}` | a [`Line`] of JSON for each packet, until the client goes |
//! | `POST /galera/switch` | `{"cluster": "db", "node": "db2"}`, without `node` the best other one | `{"message": …}` |
//! | `POST /galera/freeze` | `{"cluster": "db", "frozen": true}` | `{"message": …}` |
//! | `POST /galera/accept` | `{"cluster": "db", "node": "db2"}` | `{"message": …}` |
//! | `POST /events` | `{"name": "web", "since_ms": 600000, "follow": true}` | an [`Entry`] of JSON for each change |
//! | `POST /explain` | `{"name": "web/web1"}` | [`Explanation`] |
//! | `POST /confirm` | – | `{"message": …}` |
//! | `POST /detach` | – | `{"message": …}` |
//!
//! Every error is `{"error": what is wrong, "hint": what to do}` with a fitting status code.

mod changes;
mod client;
mod events;
pub mod explain;
mod galera;
mod observe;
mod render;
mod sentence;
mod server;
mod socket;
mod status;
#[cfg(test)]
mod tests;
mod weight;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

pub use self::{
    changes::{Change, ChangeKind, Changes, Diff, Reload},
    client::{Lines, call, capture, events},
    events::{Entry, Events, Grade, Topic},
    explain::{Answer, Explain, Explanation, explained},
    galera::{Accept, Freeze, Switch},
    observe::{Capture, Followed, Hex, Line, Look, NextHop, Packet, Segment, Trace, Traced, Tunnel, Verdict},
    render::{render, render_clusters},
    sentence::sentence,
    server::serve,
    socket::Socket,
    status::{
        AgentStatus, BackendState, BackendStatus, ClusterStatus, HandshakeMs, InterfaceStatus, NodeReadiness,
        NodeStatus, NodeUse, ServiceStatus, Status, Timestamp,
    },
    weight::{NoWeight, Weight},
};

/// The longest request body and the longest request head, in bytes.
const REQUEST_LIMIT: usize = 64 * 1024;
/// How many clients are served at once; more wait in the socket's backlog.
const CONNECTION_LIMIT: usize = 64;
/// A client has this long to send its request.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// The owner of the state has this long to answer.
const REPLY_WITHIN: Duration = Duration::from_secs(10);
/// The same where programs are loaded first, one after the other for each interface.
const LOADED_WITHIN: Duration = Duration::from_mins(1);

/// What a client may ask of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Everything that `lb status` shows.
    Status,
    /// Give the backend no new connections.
    Drain(Drain),
    /// End the backend's connections.
    Cut(Cut),
    /// Take a drained backend back.
    Ready(Ready),
    /// Give the backend no new connections, whatever its probes say.
    Maint(Maint),
    /// Give the backend another weight than the configured one.
    Weight(SetWeight),
    /// Take up the configuration's files as they are now.
    Reload(Reload),
    /// Say what a file would change.
    Diff(Diff),
    /// Show packets.
    Capture(Capture),
    /// Say what would become of a packet.
    Trace(Trace),
    /// Hand a cluster's writer role over.
    Switch(Switch),
    /// Let the writer role move by itself no more, or again.
    Freeze(Freeze),
    /// Take one group of nodes for the cluster.
    Accept(Accept),
    /// Show what has changed, and what changes.
    Events(Events),
    /// Say why something is as it is.
    Explain(Explain),
    /// Stay attached: the operator still has access to the host.
    Confirm,
    /// Take program, maps and pins away.
    Detach,
}

impl Command {
    /// How long the answer may take.
    const fn patience(&self) -> Duration {
        match self {
            Self::Capture(_) | Self::Trace(_) => LOADED_WITHIN,
            _ => REPLY_WITHIN,
        }
    }
}

/// The backend to drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// SERVICE/BACKEND or CLUSTER/NODE.
    pub name: String,
    /// After how many milliseconds the rest is given up; without it, existing connections may take forever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What becomes of connections that are left then; needs a deadline.
    #[serde(default, skip_serializing_if = "Then::is_keep")]
    pub then: Then,
}

/// What becomes of connections that are left when a drain's deadline passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// They go on.
    #[default]
    Keep,
    /// They end with a RST to both sides.
    Cut,
}

impl Then {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
    const fn is_keep(&self) -> bool {
        matches!(self, Self::Keep)
    }
}

/// The backend whose connections end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// SERVICE/BACKEND or CLUSTER/NODE.
    pub name: String,
}

/// The backend to take back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ready {
    /// SERVICE/BACKEND or CLUSTER/NODE.
    pub name: String,
}

/// The backend to put into maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maint {
    /// SERVICE/BACKEND or CLUSTER/NODE.
    pub name: String,
}

/// The backend whose weight is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetWeight {
    /// SERVICE/BACKEND.
    pub name: String,
    /// `None`: the configured one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
}

/// A command on its way to the owner of the state, who answers by `reply`.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// Where the answer goes; gone if the client is.
    pub reply: oneshot::Sender<Reply>,
    /// Where the packets of a capture go; there for no other command.
    pub lines: Option<mpsc::Sender<Line>>,
    /// Where what has changed goes; there for [`Command::Events`] only.
    pub entries: Option<mpsc::Sender<Entry>>,
}

/// The agent's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Trace`].
    Trace(Box<Traced>),
    /// To [`Command::Reload`] and [`Command::Diff`].
    Changes(Box<Changes>),
    /// To [`Command::Explain`].
    Explain(Box<Explanation>),
    /// The command was carried out; one sentence for people.
    Done {
        /// What was done.
        message: String,
    },
    /// The command was not carried out.
    Refused(Refusal),
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}{hint}", if hint.is_empty() { "" } else { "; " })]
pub struct Refusal {
    /// Of what kind it is.
    pub kind: RefusalKind,
    /// What is wrong.
    pub error: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// Kinds of refusal, each an HTTP status code and an exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request makes no sense.
    BadInput,
    /// What it names does not exist.
    NotFound,
    /// It makes no sense as things are now.
    Conflict,
    /// A deadline passed before it was carried out.
    DeadlinePassed,
    /// The agent tried and failed.
    Failed,
}

impl RefusalKind {
    const CODES: [(Self, u16); 5] = [
        (Self::BadInput, 400),
        (Self::NotFound, 404),
        (Self::Conflict, 409),
        (Self::DeadlinePassed, 504),
        (Self::Failed, 500),
    ];

    /// The HTTP status code.
    fn status_code(self) -> u16 {
        Self::CODES.iter().find(|(kind, _)| *kind == self).map_or(500, |(_, code)| *code)
    }

    /// The kind that an HTTP status code stands for: other 4xx are bad input, other 5xx a failure.
    fn from_status_code(code: u16) -> Self {
        let known = Self::CODES.iter().find(|(_, known)| *known == code).map(|(kind, _)| *kind);
        known.unwrap_or(if (400..500).contains(&code) { Self::BadInput } else { Self::Failed })
    }
}

/// Why the agent's socket cannot be opened or a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nobody answers on the socket.
    #[error("no lb agent answers on {}: {source}; start it with `lb run`", socket.display())]
    NotReached {
        /// The socket's path.
        socket: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Somebody took the connection and does not answer.
    #[error("the agent on {} does not answer: {reason}", socket.display())]
    NoAnswer {
        /// The socket's path.
        socket: PathBuf,
        /// What happened instead.
        reason: String,
    },
    /// The agent refused the command.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A living agent owns the socket already.
    #[error("another lb agent (instance {instance}) is running on {}; stop it or give this one another --instance", socket.display())]
    AnotherAgent {
        /// The instance that this agent was to be.
        instance: String,
        /// The socket's path.
        socket: PathBuf,
    },
    /// Something that is no socket stands where the socket belongs.
    #[error("{} exists and is not a socket; move it away", path.display())]
    NotASocket {
        /// What stands in the way.
        path: PathBuf,
    },
    /// The group that is to speak to the agent does not exist.
    #[error("there is no group {group} on this machine; `groupadd --system {group}` makes it")]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The socket or its folder cannot be made.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

impl ApiError {
    /// The command line's exit code: 1 failed, 2 bad input, 3 agent not reached, 4 deadline passed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotReached { .. } | Self::NoAnswer { .. } => 3,
            Self::Refused(refusal) => match refusal.kind {
                RefusalKind::BadInput | RefusalKind::NotFound => 2,
                RefusalKind::DeadlinePassed => 4,
                RefusalKind::Conflict | RefusalKind::Failed => 1,
            },
            Self::AnotherAgent { .. } | Self::NotASocket { .. } | Self::NoGroup { .. } | Self::Io { .. } => 1,
        }
    }
}

/// A reply without data, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct DoneBody {
    message: String,
}

/// A refusal, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct ErrorBody {
    error: String,
    #[serde(default)]
    hint: String,
}
