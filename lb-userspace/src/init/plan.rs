//! What a first configuration says.

use std::net::{IpAddr, SocketAddr};

/// What a first configuration says. At least one of the two lists has something in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where clients' packets and the servers' answers come in; at least one.
    pub(super) interfaces: Vec<String>,
    /// Where clients of PHP connect to.
    pub(super) web: Option<SocketAddr>,
    /// PHP servers.
    pub(super) php: Vec<SocketAddr>,
    /// Where clients of the database connect to.
    pub(super) database: Option<SocketAddr>,
    /// Nodes of the cluster.
    pub(super) nodes: Vec<SocketAddr>,
    /// This host's addresses as the nodes see them.
    pub(super) seen: Vec<IpAddr>,
    /// Service addresses that this host does not have yet.
    pub(super) missing: Vec<IpAddr>,
    /// What may not be as it was meant.
    pub(super) warnings: Vec<String>,
}

impl Plan {
    /// The port of a service: its servers' own if they agree, else the usual one.
    pub(super) fn port(servers: &[SocketAddr], usual: u16) -> u16 {
        match servers {
            [first, rest @ ..] if rest.iter().all(|server| server.port() == first.port()) => first.port(),
            _ => usual,
        }
    }
}
