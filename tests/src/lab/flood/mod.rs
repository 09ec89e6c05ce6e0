//! A flood: packets from spoofed sources as fast as a packet socket sends them, each one counted.
//!
//! It leaves by a packet socket that is bound to `eth0` of one of the lab's hosts, whose cable ends in the lab's
//! switch: no packet of it can reach anything that the lab has not made. What the kernel took is counted; on their way
//! packets may be lost like on any network, where the queue of a processor is full (`net.core.netdev_max_backlog`).

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, setsockopt, socket,
    sockopt,
};

use super::error::{Context, Error};
use super::machine::join;
use super::{Host, Result};

mod packet;

pub use packet::{Kind, SOURCES_4, SOURCES_6};

/// Packets in one system call.
const BATCH: u64 = 64;
const DEVICE: &str = "eth0";

/// What is to be sent.
#[derive(Debug, Clone)]
pub struct Flood {
    /// What each packet is.
    pub kind: Kind,
    /// Whom it is for.
    pub target: SocketAddr,
    /// The MAC address of the next hop, such as [`mac_of`](super::host::mac_of) the balancer's address.
    pub next_hop: [u8; 6],
    /// Spoofed addresses that take turns; each goes through its ports too, so that no two of
    /// `addresses` × 60,000 packets have the same source and port.
    pub addresses: u32,
    /// How many packets; nothing means until it is stopped.
    pub total: Option<u64>,
    /// Packets a second; nothing means as fast as they go.
    pub per_second: Option<f64>,
}

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FloodReport {
    /// Packets that the kernel took, exactly.
    pub sent: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl FloodReport {
    /// Packets a second.
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// A flood that runs. Dropping it stops it.
#[derive(Debug)]
pub struct RunningFlood {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<io::Result<FloodReport>>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    sent: AtomicU64,
}

impl Flood {
    /// A flood of `total` packets from 200 addresses to a target behind a next hop, as fast as they go.
    pub fn new(kind: Kind, target: SocketAddr, next_hop: [u8; 6], total: u64) -> Self {
        Self { kind, target, next_hop, addresses: 200, total: Some(total), per_second: None }
    }

    /// Starts it in a host.
    pub fn start(self, host: &Host) -> Result<RunningFlood> {
        let socket = host.enter(open)??;
        let own = super::host::mac_of(host.address());
        let shared = Arc::new(Shared::default());
        let told = shared.clone();
        let thread = host.thread(move || self.send(&socket, own, &told));
        Ok(RunningFlood { shared, thread: Some(thread) })
    }

    /// Sends all of it.
    pub fn run(self, host: &Host) -> Result<FloodReport> {
        self.start(host)?.finish()
    }

    fn send(&self, socket: &OwnedFd, own: [u8; 6], shared: &Shared) -> io::Result<FloodReport> {
        let template = packet::Template::new(self.kind, own, self.next_hop, self.target);
        let mut frames = vec![template.frame(); BATCH as usize];
        let start = Instant::now();
        let mut sent = 0;
        while !shared.stopped.load(Ordering::Relaxed) && self.total.is_none_or(|total| sent < total) {
            let length = self.total.map_or(BATCH, |total| BATCH.min(total - sent));
            if let Some(rate) = self.per_second {
                let due = start + Duration::from_secs_f64(sent as f64 / rate);
                thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            for (number, frame) in (sent..sent + length).zip(&mut frames) {
                template.fill(frame, number, self.addresses);
            }
            sent += send_batch(socket, &frames[..length as usize])?;
            shared.sent.store(sent, Ordering::Relaxed);
        }
        Ok(FloodReport { sent, elapsed: start.elapsed() })
    }
}

impl RunningFlood {
    /// Packets sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Ends it where it is.
    pub fn stop(self) -> Result<FloodReport> {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until all of it has been sent.
    pub fn finish(mut self) -> Result<FloodReport> {
        let ended = || Error::Missing { program: "a running flood".to_owned() };
        let thread = self.thread.take().ok_or_else(ended)?;
        join(thread)?.context(|| "cannot send a flood".to_owned())
    }
}

impl Drop for RunningFlood {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A packet socket that sends by `eth0` and receives nothing (protocol 0, packet(7)).
fn open() -> Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)
        .context(|| "cannot make a packet socket".to_owned())?;
    let mut links =
        getifaddrs().context(|| "cannot list the interfaces".to_owned())?.filter_map(|interface| {
            let address = interface.address?;
            (interface.interface_name == DEVICE).then(|| address.as_link_addr().copied())?
        });
    let link = links.next().ok_or_else(|| Error::Missing { program: DEVICE.to_owned() })?;
    bind(socket.as_raw_fd(), &link).context(|| format!("cannot bind to {DEVICE}"))?;
    // A queue that is full lets the sender wait rather than lose.
    setsockopt(&socket, sockopt::SndBuf, &(4 << 20)).context(|| "cannot set SO_SNDBUF".to_owned())?;
    Ok(socket)
}

/// Sends frames in one call; how many the kernel took.
fn send_batch(socket: &OwnedFd, frames: &[Vec<u8>]) -> io::Result<u64> {
    let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(frames.len(), None);
    let nobody = vec![None; frames.len()];
    match sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &nobody, [], MsgFlags::empty()) {
        Ok(results) => Ok(results.count() as u64),
        // The queue of the device is full; the next call tries the same again.
        Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}
