//! Why there is no first configuration.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::ConfigErrors;
use crate::netlink::NetlinkError;

/// Why there is no first configuration.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The kernel does not answer, or there is no such interface.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A server that packets cannot be sent to.
    #[error("{server} cannot be reached: {reason}; mend the route, or leave it out")]
    Unreachable {
        /// The server.
        server: SocketAddr,
        /// The kernel's words.
        reason: String,
    },
    /// A server of this very host.
    #[error(
        "{server} is this host itself: a balanced server is another host, or a container with an address of its own"
    )]
    Own {
        /// The server.
        server: SocketAddr,
    },
    /// A server behind something that carries no Ethernet frames.
    #[error("{server} is reached by {interface}, which is no Ethernet interface")]
    NotEthernet {
        /// The server.
        server: SocketAddr,
        /// The interface.
        interface: String,
    },
    /// Servers of one service of both versions of IP.
    #[error("{one} and {other} are of different versions of IP; give the servers of one of them")]
    Mixed {
        /// One of them.
        one: SocketAddr,
        /// One of the other version.
        other: SocketAddr,
    },
    /// The address that was asked for is of another version of IP than the servers.
    #[error(
        "{address} and {server} are of different versions of IP; give an --address of the servers' version"
    )]
    OtherVersion {
        /// The address.
        address: IpAddr,
        /// A server.
        server: SocketAddr,
    },
    /// This host has no address that clients could connect to.
    #[error("{interface} has no address of the servers' version of IP; say --address IP")]
    NoAddress {
        /// The interface that clients come in by.
        interface: String,
    },
    /// A file that is there is never overwritten.
    #[error("{} is there already, and is left as it is; name another --output, or move it away", path.display())]
    Exists {
        /// Which.
        path: PathBuf,
    },
    /// A file cannot be read or made.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is a password's file, and no password in it.
    #[error("{} is there, but no password on a line of its own is in it; move it away", path.display())]
    NoPassword {
        /// Which.
        path: PathBuf,
    },
    /// What was written is not what the agent takes.
    #[error("what these options ask for does not go together:\n{errors}")]
    Refused {
        /// What the agent would say.
        errors: ConfigErrors,
    },
}

impl InitError {
    /// Whether other options would do; otherwise it was tried and failed.
    pub fn is_bad_input(&self) -> bool {
        !matches!(
            self,
            Self::Io { .. } | Self::Netlink(NetlinkError::Open { .. } | NetlinkError::Refused { .. })
        )
    }
}
