//! Backends that somebody else than the configuration names: discovery by DNS or from containers.
//!
//! A source tells of one service and always of all that it knows: what it does not name any more has gone. The service
//! serves from its configured backends and those of all its sources. What goes is drained, as a reload does it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What a source of discovery knows of a service's backends, in place of all that the same source has told before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// The service's name in the configuration. For one that does not exist (any more) this is forgotten.
    pub service: String,
    /// Who tells: the same text each time, and unique among the sources of a service, such as `dns web.example.net`.
    pub source: String,
    /// All of them; none, too, from a source that the configuration names no more. A source that cannot be asked at present
    /// tells nothing: the last that it told stays, over a restart of the agent as well.
    pub found: Vec<Found>,
}

/// One discovered backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its name within the service, by the rules of names. A configured backend of the same name or address comes
    /// first, then the first that was told.
    pub name: String,
    /// Where it listens; of the service's version of IP. Port 0: the port that the client connected to.
    pub address: SocketAddr,
    /// 0 to 1000.
    pub weight: u16,
    /// Connections at most; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}
