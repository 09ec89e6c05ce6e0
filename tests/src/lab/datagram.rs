//! UDP: a server that gives every datagram back with its name, and a client that accounts for each of them. What
//! is larger than the MTU travels in fragments.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::Context;
use super::transfer::pattern;
use super::{Family, Host, Result};

/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Sequence number, length of the whole.
const HEADER: usize = 12;
const LARGEST: usize = 65_535;

/// An echo server. Dropping it ends it.
#[derive(Debug)]
pub struct DatagramServer {
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<io::Result<u64>>>>,
}

impl DatagramServer {
    /// Serves these addresses of a host. Each has a socket of its own, because a reply must leave from the
    /// address that was asked.
    pub fn start(host: &Host, addresses: &[SocketAddr]) -> Result<Self> {
        let stopped = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for address in addresses {
            let socket = host.enter(|| UdpSocket::bind(address))?;
            let socket = socket.context(|| format!("cannot bind to {address}"))?;
            socket.set_read_timeout(Some(LOOK)).context(|| "cannot set a timeout".to_owned())?;
            let (stopped, name) = (stopped.clone(), host.name().to_owned());
            threads.push(host.thread(move || give_back(&socket, &name, &stopped)));
        }
        Ok(Self { stopped, threads })
    }

    /// Serves `port` of the host's own addresses, and of those of `services` that are on its `lo`: what a
    /// backend of any mode is asked at.
    pub fn start_behind(host: &Host, services: &[IpAddr], port: u16) -> Result<Self> {
        let on_lo = host.run(&["ip", "-o", "address", "show", "dev", "lo"])?;
        let own = Family::BOTH.map(|family| host.address_in(family));
        let here = services.iter().filter(|address| on_lo.contains(&format!(" {address}/")));
        let addresses: Vec<_> =
            own.iter().chain(here).map(|address| SocketAddr::new(*address, port)).collect();
        Self::start(host, &addresses)
    }

    /// Ends it; how many datagrams it has given back.
    pub fn finish(mut self) -> Result<u64> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut total = 0;
        for thread in self.threads.drain(..) {
            total += super::machine::join(thread)?.context(|| "a UDP server failed".to_owned())?;
        }
        Ok(total)
    }
}

impl Drop for DatagramServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn give_back(socket: &UdpSocket, name: &str, stopped: &AtomicBool) -> io::Result<u64> {
    let (mut count, mut bytes) = (0, vec![0; LARGEST]);
    while !stopped.load(Ordering::Relaxed) {
        let (length, peer) = match socket.recv_from(&mut bytes) {
            Ok(received) => received,
            Err(error) if is_empty(&error) || error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        let reply = [&bytes[..length], name.as_bytes()].concat();
        socket.send_to(&reply, peer)?;
        count += 1;
    }
    Ok(count)
}

/// What is to be sent: `count` datagrams of each size, one after the other's reply.
#[derive(Debug, Clone)]
pub struct Datagrams {
    /// Where to.
    pub server: SocketAddr,
    /// Lengths of the payload, each at least 12 bytes.
    pub sizes: Vec<usize>,
    /// How many of each.
    pub count: u64,
    /// How many sockets (source ports) take turns.
    pub sockets: usize,
    /// How long to wait for a reply.
    pub timeout: Duration,
}

/// What became of them; `sent` is the sum of the replies, `lost`, `refused` and `too_large`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatagramReport {
    /// Datagrams sent.
    pub sent: u64,
    /// Replies with the right number and contents, by the server's name.
    pub replies: BTreeMap<String, u64>,
    /// The servers that answered each socket, by the socket's local end.
    pub served: BTreeMap<SocketAddr, Vec<String>>,
    /// Datagrams without a reply in time.
    pub lost: u64,
    /// Datagrams that were answered with an ICMP unreachable.
    pub refused: u64,
    /// Datagrams that were answered with an ICMP error that told of a smaller MTU; the next ones are cut to fit.
    pub too_large: u64,
    /// Replies with other contents than were sent, of an earlier number, or from another address.
    pub wrong: u64,
    /// From the first to the last.
    pub elapsed: Duration,
}

impl DatagramReport {
    /// All right replies.
    pub fn answered(&self) -> u64 {
        self.replies.values().sum()
    }
}

impl Datagrams {
    /// One datagram of each size from one socket, and a second of patience.
    pub fn new(server: SocketAddr, sizes: &[usize]) -> Self {
        Self { server, sizes: sizes.to_vec(), count: 1, sockets: 1, timeout: Duration::from_secs(1) }
    }

    /// Sends them from a host.
    pub fn run(&self, host: &Host) -> Result<DatagramReport> {
        host.enter(|| self.converse())?
            .context(|| format!("datagrams from {} to {}", host.name(), self.server))
    }

    fn converse(&self) -> io::Result<DatagramReport> {
        let any = match self.server.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let sockets = (0..self.sockets.max(1)).map(|_| {
            let socket = UdpSocket::bind((any, 0))?;
            // A connected socket hears of ICMP errors, and nothing from strangers.
            socket.connect(self.server)?;
            Ok(socket)
        });
        let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
        let mut report = DatagramReport::default();
        let start = Instant::now();
        let each = (0..self.count).flat_map(|_| self.sizes.iter());
        for (size, socket) in each.zip(sockets.iter().cycle()) {
            let bytes = datagram(report.sent, *size);
            report.sent += 1;
            self.exchange(socket, &bytes, &mut report)?;
        }
        report.elapsed = start.elapsed();
        Ok(report)
    }

    /// One datagram and its reply, or what comes instead.
    fn exchange(&self, socket: &UdpSocket, bytes: &[u8], report: &mut DatagramReport) -> io::Result<()> {
        match socket.send(bytes) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // The answer to an earlier one; this one has not been sent.
                report.wrong += 1;
                socket.send(bytes)?;
            }
            sent => drop(sent?),
        }
        let start = Instant::now();
        let mut reply = vec![0; LARGEST];
        loop {
            let left = self.timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                report.lost += 1;
                return Ok(());
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv(&mut reply) {
                Ok(length) if reply[..length].starts_with(bytes) => {
                    let name = String::from_utf8_lossy(&reply[bytes.len()..length]).into_owned();
                    *report.replies.entry(name.clone()).or_default() += 1;
                    report.served.entry(socket.local_addr()?).or_default().push(name);
                    return Ok(());
                }
                Ok(_) => report.wrong += 1,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    report.refused += 1;
                    return Ok(());
                }
                Err(error) if error.raw_os_error() == Some(nix::libc::EMSGSIZE) => {
                    report.too_large += 1;
                    return Ok(());
                }
                Err(error) if is_empty(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A payload that differs from every other in its head, and from itself at every offset.
fn datagram(number: u64, size: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((size as u32).to_be_bytes());
    bytes.extend(pattern(number, size.saturating_sub(HEADER)));
    bytes
}

fn is_empty(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
