//! What the data path needs to know about the world, asked of the kernel over route netlink: the
//! interfaces it attaches to, the addresses of this host, and by which interface and MAC a backend is reached
//! and how large a packet may be on the way there. IPv4 and IPv6 alike.
//!
//! [`Netlink`] answers single questions; [`Watcher`] keeps next hops true while the world moves, and
//! [`LinkWatcher`] tells which interfaces there are. All belong
//! to the network namespace of the thread that opened them (see `rtnetlink(7)`). Nothing here knows about
//! services, BPF maps or the configuration.

mod addresses;
mod interfaces;
mod links;
mod neighbours;
mod routes;
#[cfg(test)]
mod tests;
mod watcher;

use std::{future::Future, net::IpAddr, time::Duration};

use futures_util::{Stream, StreamExt};

pub use self::{
    addresses::{AddressState, LocalAddress, Ownership, Prefix},
    interfaces::{AttachedXdp, Interface, Vlan, XdpMode},
    links::LinkWatcher,
    neighbours::{Neighbour, NeighbourKey},
    routes::{NextHop, Obstacle, Resolution},
    watcher::{NextHopChanged, Watcher},
};

/// How long the kernel may take for one answer: it answers in microseconds, so longer means that the answer
/// was lost and that it is better to ask again than to wait forever.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why a question to the kernel has no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The netlink socket cannot be opened.
    #[error("cannot open a route netlink socket: {source}")]
    Open {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The kernel refused a request.
    #[error("the kernel refuses to {action}: {source}")]
    Refused {
        /// What was asked, as a verb phrase.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A request has no answer, or one that this agent does not understand.
    #[error("no usable answer from the kernel when asked to {action}: {reason}")]
    NoAnswer {
        /// What was asked, as a verb phrase.
        action: &'static str,
        /// What came instead.
        reason: String,
    },
    /// The interface does not exist in this network namespace.
    #[error("there is no interface {name:?} here; there are: {}", existing.join(", "))]
    NoSuchInterface {
        /// The name that was looked for.
        name: String,
        /// The interfaces that exist, by index.
        existing: Vec<String>,
    },
    /// A service address is on no interface, so nobody would answer for it.
    #[error(
        "no interface has the address {address}, so nobody answers {} for it; add it with: {}",
        question_about(*address),
        addresses::line_that_adds(*address, suggestion)
    )]
    AddressNotLocal {
        /// The address of the service.
        address: IpAddr,
        /// The interface that the clients come in by.
        suggestion: String,
    },
    /// A service address is also another host's, so this host does not answer for it (RFC 4862, section 5.4.5).
    #[error(
        "another host on the link of {interface} has the address {address}, so this one does not use it; \
         where that is meant, as in a pair of balancers, add it with: {} nodad",
        addresses::line_that_adds(*address, interface)
    )]
    AddressDuplicate {
        /// The address of the service.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
}

impl NetlinkError {
    fn from_rtnetlink(action: &'static str, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::Refused { action, source: message.to_io() },
            other => Self::NoAnswer { action, reason: other.to_string() },
        }
    }
}

/// A connection to the kernel's route netlink in this thread's network namespace.
///
/// Cloning is cheap; the socket closes when the last clone is gone. Needs a tokio runtime with I/O and time.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Opens the socket and spawns the task that serves it.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(|source| NetlinkError::Open { source })?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}

/// How a host on the link asks for the address's MAC.
fn question_about(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "ARP",
        IpAddr::V6(_) => "neighbour discovery",
    }
}

/// All items of a dump, or the first error.
async fn collect<T>(
    action: &'static str,
    answers: impl Stream<Item = Result<T, rtnetlink::Error>>,
) -> Result<Vec<T>, NetlinkError> {
    let all = async {
        let mut answers = std::pin::pin!(answers);
        let mut items = Vec::new();
        while let Some(item) = answers.next().await {
            items.push(item.map_err(|error| NetlinkError::from_rtnetlink(action, error))?);
        }
        Ok(items)
    };
    in_time(action, all).await
}

async fn in_time<T>(
    action: &'static str,
    answer: impl Future<Output = Result<T, NetlinkError>>,
) -> Result<T, NetlinkError> {
    tokio::time::timeout(ANSWER_WITHIN, answer).await.unwrap_or_else(|_elapsed| {
        Err(NetlinkError::NoAnswer { action, reason: format!("nothing within {ANSWER_WITHIN:?}") })
    })
}
