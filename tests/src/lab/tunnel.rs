//! The far end of the mode `ipip`: takes IP packets out of IP packets (RFC 2003: protocol 4, RFC 2473: 41) and
//! hands them to the host through a tun device, as a kernel with tunnel devices would do by itself.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::error::{Context, Error};
use super::{Family, Host, Result};

/// How often a thread looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
const DEVICE: &str = "tunl";
/// RFC 2003 and RFC 2473.
const IPV4_IN: i32 = 4;
const IPV6_IN: i32 = 41;
const LARGEST: usize = 65_535;

/// A decapsulator for both families. Dropping it ends it and removes the device.
#[derive(Debug)]
pub struct Decapsulator {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<io::Result<()>>>>,
}

struct Shared {
    device: tun::Device,
    stopped: AtomicBool,
    seen: Mutex<Seen>,
}

/// What has come through a tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets taken out.
    pub packets: u64,
    /// The sources of the packets that they came in.
    pub outer_sources: BTreeSet<IpAddr>,
    /// The longest of the packets inside.
    pub longest: usize,
    /// Packets whose inside is no packet of the same family, or which the device refused.
    pub refused: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("stopped", &self.stopped)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Decapsulator {
    /// Starts one in a host. Where the packets inside go is the host's own matter: [`Host::serve_on_lo`].
    pub fn start(host: &Host) -> Result<Self> {
        let device = host.enter(make_device)?.map_err(|error| Error::Io {
            what: "cannot make a tun device".to_owned(),
            source: io::Error::other(error),
        })?;
        // The way back to a client does not lead through the tunnel.
        host.take_any_source()?;
        let seen = Mutex::default();
        let shared = Arc::new(Shared { device, stopped: AtomicBool::new(false), seen });
        let mut threads = Vec::new();
        for family in Family::BOTH {
            let socket = host.enter(|| raw_socket(family))?;
            let socket = socket.context(|| format!("cannot make a raw socket for {family}"))?;
            let shared = shared.clone();
            threads.push(host.thread(move || shared.take_out(&socket, family)));
        }
        Ok(Self { shared, threads })
    }

    /// What has come so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Decapsulator {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn make_device() -> tun::Result<tun::Device> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(DEVICE).layer(tun::Layer::L3).up();
    tun::create(&configuration)
}

/// A raw socket in the clothes of the type whose `recv_from` also tells the sender.
fn raw_socket(family: Family) -> io::Result<UdpSocket> {
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, IPV4_IN),
        Family::V6 => (Domain::IPV6, IPV6_IN),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.set_read_timeout(Some(LOOK))?;
    // A burst of a whole TCP window fits, whatever net.core.rmem_max says.
    setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20))?;
    Ok(socket.into())
}

impl Shared {
    fn take_out(&self, socket: &UdpSocket, family: Family) -> io::Result<()> {
        let mut packet = vec![0; LARGEST];
        while !self.stopped.load(Ordering::Relaxed) {
            let (length, source) = match socket.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if is_empty(&error) => continue,
                Err(error) => return Err(error),
            };
            // A raw IPv4 socket gives the outer header too (raw(7)), an IPv6 one does not (RFC 3542, 3).
            let (offset, version) = match family {
                Family::V4 => (usize::from(packet[0] & 0x0f) * 4, 4),
                Family::V6 => (0, 6),
            };
            let inside = packet.get(offset..length).unwrap_or_default();
            let right = inside.first().is_some_and(|first| first >> 4 == version);
            let taken = right && self.device.send(inside).is_ok();
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.outer_sources.insert(source.ip());
            if taken {
                seen.packets += 1;
                seen.longest = seen.longest.max(inside.len());
            } else {
                seen.refused += 1;
            }
        }
        Ok(())
    }
}

fn is_empty(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
