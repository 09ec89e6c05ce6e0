//! ICMP echoes every 50 ms, each one accounted for.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::error::Context;
use super::machine::join;
use super::{Host, Result};

const PAUSE: Duration = Duration::from_millis(50);
/// An echo that has not come back after this time is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// RFC 792: types, and the length of the header.
const ECHO_REPLY: u8 = 0;
const ECHO: u8 = 8;
const HEADER: usize = 8;

/// Tells the echoes of one `Ping` from those of others on the same host.
static IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// Echoes that run. Dropping it ends them.
#[derive(Debug)]
pub struct Ping {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<io::Result<PingReport>>>>,
}

/// What came of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Echoes sent.
    pub sent: u64,
    /// Echoes that did not come back within a second.
    pub lost: u64,
    /// The slowest of those that came back.
    pub slowest: Duration,
}

impl Ping {
    /// Starts to send echoes from a host to an address.
    pub fn start(host: &Host, to: Ipv4Addr) -> Result<Self> {
        let socket = host.enter(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))?;
        let socket = socket.context(|| "cannot make an ICMP socket".to_owned())?;
        let stopped = Arc::new(AtomicBool::new(false));
        let told = stopped.clone();
        let thread = host.thread(move || send_echoes(&socket, to, &told));
        Ok(Self { stopped, thread: Some(thread) })
    }

    /// Ends them and tells what came of them; an echo that is under way is waited for.
    pub fn finish(mut self) -> Result<PingReport> {
        let outcome = self.end().unwrap_or_else(|| Ok(Ok(PingReport::default())))?;
        outcome.context(|| "cannot send or receive an echo".to_owned())
    }

    fn end(&mut self) -> Option<Result<io::Result<PingReport>>> {
        self.stopped.store(true, Ordering::Relaxed);
        self.thread.take().map(join)
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn send_echoes(socket: &Socket, to: Ipv4Addr, stopped: &AtomicBool) -> io::Result<PingReport> {
    let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
    let mut report = PingReport::default();
    // One at least, so that a report never says that nothing was lost because nothing was sent.
    while report.sent == 0 || !stopped.load(Ordering::Relaxed) {
        let sequence = report.sent as u16;
        let start = Instant::now();
        report.sent += 1;
        let sent = socket.send_to(&echo(identifier, sequence), &SocketAddrV4::new(to, 0).into());
        // An unreachable network loses the echo like any other cause.
        if sent.is_ok() && reply_came(socket, identifier, sequence, start)? {
            report.slowest = report.slowest.max(start.elapsed());
        } else {
            report.lost += 1;
        }
        thread::sleep(PAUSE.saturating_sub(start.elapsed()));
    }
    Ok(report)
}

/// Waits for one reply. The socket gets all ICMP of the host, with its IP header.
fn reply_came(mut socket: &Socket, identifier: u16, sequence: u16, start: Instant) -> io::Result<bool> {
    let mut packet = [0; 1500];
    loop {
        let left = PATIENCE.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.read(&mut packet) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        let offset = usize::from(packet[0] & 0x0f) * 4;
        let Some(message) = packet[..length].get(offset..offset + HEADER) else { continue };
        if message[0] == ECHO_REPLY && message[4..] == echo(identifier, sequence)[4..] {
            return Ok(true);
        }
    }
}

/// An echo without data.
fn echo(identifier: u16, sequence: u16) -> [u8; HEADER] {
    // The sum of RFC 1071 over the words 0x0800, 0, identifier, sequence; it needs two folds at most.
    let sum = u32::from(ECHO) << 8;
    let sum = sum + u32::from(identifier) + u32::from(sequence);
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    let mut message = [ECHO, 0, 0, 0, 0, 0, 0, 0];
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message[4..6].copy_from_slice(&identifier.to_be_bytes());
    message[6..8].copy_from_slice(&sequence.to_be_bytes());
    message
}
