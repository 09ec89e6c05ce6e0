//! The packet socket that the frames leave by.
//!
//! One `AF_PACKET` socket serves all interfaces. Its protocol is 0, so the kernel delivers nothing to it. Each frame is
//! a system call of its own: `sendmmsg` would lose the error, and with it the frame that caused it, whenever one was
//! sent before (sendmmsg(2), BUGS), and saves little where thousands of frames a second are many.
//!
//! The address that names the interface comes from the kernel's own list (`getifaddrs`), which is read again when an
//! interface is not in it or has gone.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};

use super::segment::Frame;

/// For how long one call may wait, in all, for room in the queues of the interfaces.
const PATIENCE: Duration = Duration::from_millis(2);
/// Between two tries for one frame.
const PAUSE: Duration = Duration::from_micros(100);

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The capability is missing.
    #[error(
        "cutting silent connections needs a packet socket, which the kernel refuses: run `lb` as root, or with CAP_NET_RAW"
    )]
    NotPermitted,
    /// The kernel has no packet sockets.
    #[error(
        "cutting silent connections needs a packet socket, which this kernel does not have (CONFIG_PACKET)"
    )]
    Unsupported,
    /// The socket could not be opened otherwise.
    #[error("opening a packet socket: {source}")]
    Open {
        /// Why.
        source: io::Error,
    },
    /// The interfaces could not be listed.
    #[error("listing the interfaces: {source}")]
    Interfaces {
        /// Why.
        source: io::Error,
    },
}

/// What became of the frames of one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// How many of them, from the first on, are done with: sent or refused. Give the others again, later.
    pub done: usize,
    /// Of those, the ones that the kernel refused: place and reason, such as an interface that has gone.
    pub refused: Vec<(usize, Errno)>,
}

/// The socket.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    /// How the kernel calls the interfaces, by index.
    links: HashMap<u32, LinkAddr>,
}

impl Sender {
    /// Open the socket in the network namespace of the calling thread. Needs `CAP_NET_RAW`.
    pub fn open() -> Result<Self, SendError> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let opened = socket(AddressFamily::Packet, SockType::Raw, flags, None);
        let socket = opened.map_err(|error| match error {
            Errno::EPERM | Errno::EACCES => SendError::NotPermitted,
            Errno::EAFNOSUPPORT => SendError::Unsupported,
            other => SendError::Open { source: other.into() },
        })?;
        let mut sender = Self { socket, links: HashMap::new() };
        sender.list()?;
        Ok(sender)
    }

    /// Send frames, in their order, without waiting longer than two milliseconds for room in the queues. A refused
    /// frame does not stop those behind it. Call it in the network namespace that the socket was opened in.
    pub fn send(&mut self, frames: &[Frame]) -> Result<Sent, SendError> {
        let begun = Instant::now();
        let mut sent = Sent::default();
        let mut listed = false;
        while let Some(frame) = frames.get(sent.done) {
            match self.send_one(frame) {
                Ok(()) => sent.done += 1,
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS | Errno::EAGAIN) => {
                    if begun.elapsed() >= PATIENCE {
                        break;
                    }
                    std::thread::sleep(PAUSE);
                }
                // The index may be that of an interface made since the list was read. Once a call is enough.
                Err(Errno::ENODEV | Errno::ENXIO) if !listed => {
                    self.list()?;
                    listed = true;
                }
                Err(reason) => {
                    sent.refused.push((sent.done, reason));
                    sent.done += 1;
                }
            }
        }
        Ok(sent)
    }

    fn send_one(&self, frame: &Frame) -> Result<(), Errno> {
        let link = self.links.get(&frame.interface()).ok_or(Errno::ENODEV)?;
        sendto(self.socket.as_raw_fd(), frame.bytes(), link, MsgFlags::MSG_DONTWAIT).map(drop)
    }

    fn list(&mut self) -> Result<(), SendError> {
        let interfaces = getifaddrs().map_err(|error| SendError::Interfaces { source: error.into() })?;
        self.links = interfaces
            .filter_map(|interface| interface.address?.as_link_addr().copied())
            .map(|link| (link.ifindex() as u32, link))
            .collect();
        Ok(())
    }
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;
