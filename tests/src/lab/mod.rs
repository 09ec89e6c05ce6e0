//! A lab: one switch (bridges in a namespace of their own) and the hosts plugged into it.
//!
//! A host's address says where it is plugged in: 10.77.0.0/16 is the usual segment, and every other second
//! byte is a segment of its own, which routers join. Beside its IPv4 address each host has the IPv6 address
//! that [`family::beside`] tells. Labs know nothing of each other, so any number of them may use the same
//! addresses at the same time.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub mod balanced;
pub mod balancer;
pub mod command;
pub mod counters;
pub mod crowd;
pub mod datagram;
pub mod delivery;
pub mod docker;
pub mod echo;
pub mod error;
pub mod family;
pub mod flood;
pub mod galera;
pub mod held;
pub mod host;
pub mod http;
pub mod load;
pub mod machine;
pub mod mysql;
pub mod network;
pub mod pcapng;
pub mod php;
pub mod ping;
pub mod process;
pub mod scratch;
pub mod server;
pub mod setup;
pub mod site;
pub mod skip;
pub mod topology;
pub mod transfer;
pub mod tunnel;
pub mod wait;
pub mod wrk;

pub use balancer::Balancer;
pub use command::HostCommand;
pub use error::{Error, Result};
pub use family::Family;
pub use host::Host;
pub use process::Process;
pub use setup::Setup;
pub use site::Site;
pub use wait::wait_for;

use machine::Machine;
use scratch::Scratch;

/// The length of a segment's IPv4 prefix: 10.77.0.0/16.
pub const PREFIX_LENGTH: u8 = 16;
/// The length of a segment's IPv6 prefix: `fd00:77::/64`.
pub const PREFIX_LENGTH_6: u8 = 64;
/// The second byte of the addresses on the usual segment.
const USUAL: u8 = 77;

/// A switch and a scratch directory; [`Lab::host`] adds hosts to it.
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) inner: Arc<Inner>,
}

/// What the lab and its hosts share. The fields are dropped in this order, the scratch directory when
/// nobody can write into it any more.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) switch: Machine,
    pub(crate) scratch: Scratch,
    ports: AtomicU32,
    segments: Mutex<BTreeSet<u8>>,
}

impl Inner {
    /// The bridge of an address, made when it is first asked for.
    pub(crate) fn bridge(&self, address: Ipv4Addr) -> Result<String> {
        let segment = address.octets()[1];
        // The segment 0 must not be taken for the usual one.
        let name = if segment == USUAL { "br0".to_owned() } else { format!("segment{segment}") };
        // A segment is entered only when its bridge is whole.
        let mut segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        if !segments.contains(&segment) {
            self.switch.ip(&[
                "link",
                "add",
                &name,
                "type",
                "bridge", //
                "forward_delay",
                "0",
                "stp_state",
                "0",
                "mcast_snooping",
                "0",
            ])?;
            self.switch.ip(&["link", "set", &name, "up"])?;
            segments.insert(segment);
        }
        Ok(name)
    }

    /// A name for the next port of the switch.
    pub(crate) fn next_port(&self) -> String {
        format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed))
    }
}

impl Lab {
    /// Builds the switch, whose bridges have neither spanning tree nor forward delay.
    pub fn new() -> Result<Self> {
        scratch::remove_stale();
        let inner = Inner {
            scratch: Scratch::new()?,
            switch: Machine::new("switch")?,
            ports: AtomicU32::new(0),
            segments: Mutex::default(),
        };
        inner.bridge(Ipv4Addr::new(10, USUAL, 0, 0))?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Adds a host whose `eth0` has `address`/16 and is plugged into that address's segment.
    pub fn host(&self, name: &str, address: Ipv4Addr) -> Result<Host> {
        Host::new(self.inner.clone(), name, address)
    }

    /// The directory for configuration, data and logs; removed with the lab.
    pub fn directory(&self) -> &Path {
        self.inner.scratch.path()
    }

    /// Runs a program in the switch's network namespace, for captures or faults (`tc`, `nft`, `bridge`).
    pub fn run_on_switch(&self, command: &[&str]) -> Result<String> {
        self.inner.switch.run_outside(command)
    }
}
