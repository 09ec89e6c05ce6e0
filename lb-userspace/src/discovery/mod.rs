//! Who serves, as somebody else knows it: names in DNS, labels on containers.
//!
//! A source tells *whole sets* of members, each time that something about them has changed. It knows nothing of
//! services, health or weights, and takes its world as arguments: addresses of servers, the path of a socket. Whatever
//! becomes of the world, a source keeps the last set that was good, and says in words why it is not a fresh one.
//!
//! Nobody is flooded: a channel of one place is enough, for a set replaces the one before it.

pub mod dns;
pub mod docker;
mod name;
mod pace;

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use tokio::sync::mpsc;

/// The weight of a member whose source names none.
pub const WEIGHT: u16 = 100;
/// The members of a set at most; an instance has no room for more.
pub const MOST_MEMBERS: usize = 4095;

/// One server of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Member {
    /// Unique within the set, and fit for `lb drain SERVICE/NAME`: see [`crate::config::parse_name`].
    pub name: String,
    /// Where it listens; unique within the set. Port 0: on the port that the client connected to.
    pub address: SocketAddr,
    /// 0 to 1000.
    pub weight: u16,
    /// Why it shall get no new connections while it keeps those that it has; `None`: it serves.
    pub draining: Option<String>,
}

/// What a source knows at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// All members, in the order of their addresses; `None`: nothing is known of them yet.
    pub list: Option<Vec<Member>>,
    /// What is wrong, as a sentence; the same words for as long as it is the same trouble.
    pub trouble: Option<String>,
}

/// What becomes of a member that a new set no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It may still run, and keeps the connections that it has.
    Drain,
    /// It has ended, and with it its connections.
    Cut,
}

/// Where members come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Records of a name.
    Dns(dns::Source),
    /// Containers with a label.
    Docker(docker::Source),
}

impl Source {
    /// What becomes of a member that a new set no longer has.
    pub const fn absent(&self) -> Absent {
        match self {
            // A record goes when an operator takes it out, which says nothing of the server.
            Self::Dns(_) => Absent::Drain,
            Self::Docker(_) => Absent::Cut,
        }
    }

    /// Whether members may come without a port of their own.
    pub const fn may_lack_ports(&self) -> bool {
        match self {
            Self::Dns(source) => matches!(source.record, dns::Record::A(0) | dns::Record::Aaaa(0)),
            Self::Docker(source) => source.port == 0,
        }
    }

    /// Tells sets until nobody takes them any more. `kept` is the last set of an earlier run, which holds until there
    /// is a better one.
    pub async fn run(self, kept: Option<Vec<Member>>, out: mpsc::Sender<Members>) {
        match self {
            Self::Dns(source) => source.run(kept, out).await,
            Self::Docker(source) => source.run(kept, out).await,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(source) => write!(f, "dns {}", source.name),
            Self::Docker(source) => write!(f, "docker lb.service={}", source.service),
        }
    }
}

/// Tells what has changed, and only that.
struct Teller {
    out: mpsc::Sender<Members>,
    last: Option<Members>,
}

impl Teller {
    const fn new(out: mpsc::Sender<Members>) -> Self {
        Self { out, last: None }
    }

    /// Whether anybody listens still.
    async fn tell(&mut self, members: Members) -> bool {
        if self.last.as_ref() == Some(&members) {
            return !self.out.is_closed();
        }
        self.last = Some(members.clone());
        self.out.send(members).await.is_ok()
    }

    /// Waits until nobody listens any more.
    async fn closed(&self) {
        self.out.closed().await;
    }
}

/// Whether a packet can be sent to this address as to one host, over any network.
///
/// Resolvers that block names answer with 0.0.0.0, and those that rebind them with addresses of the asking host.
const fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !(v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast() || v4.is_loopback())
        }
        IpAddr::V6(v6) => {
            !(v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_loopback()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some())
        }
    }
}
