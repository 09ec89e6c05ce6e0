//! A lab: one switch (a bridge in a namespace of its own) and the hosts plugged into it.
//!
//! Labs know nothing of each other, so any number of them may use the same addresses at the same time.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub mod balancer;
pub mod command;
pub mod echo;
pub mod error;
pub mod galera;
pub mod host;
pub mod http;
pub mod load;
pub mod machine;
pub mod mysql;
pub mod php;
pub mod ping;
pub mod process;
pub mod scratch;
pub mod setup;
pub mod site;
pub mod skip;
pub mod wait;
pub mod wrk;

pub use balancer::Balancer;
pub use command::HostCommand;
pub use error::{Error, Result};
pub use host::Host;
pub use process::Process;
pub use setup::Setup;
pub use site::Site;
pub use wait::wait_for;

use machine::Machine;
use scratch::Scratch;

/// The network that all hosts of a lab share: 10.77.0.0/16.
pub const PREFIX_LENGTH: u8 = 16;

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
}

impl Lab {
    /// Builds the switch: bridge `br0` without spanning tree and without forward delay.
    pub fn new() -> Result<Self> {
        scratch::remove_stale();
        let scratch = Scratch::new()?;
        let switch = Machine::new("switch")?;
        for arguments in [
            &["link", "add", "br0", "type", "bridge", "forward_delay", "0", "stp_state", "0"][..],
            &["link", "set", "br0", "up"],
        ] {
            switch.ip(arguments)?;
        }
        Ok(Self { inner: Arc::new(Inner { switch, scratch, ports: AtomicU32::new(0) }) })
    }

    /// Adds a host whose `eth0` has `address`/16 and is plugged into the switch.
    pub fn host(&self, name: &str, address: Ipv4Addr) -> Result<Host> {
        let port = self.inner.ports.fetch_add(1, Ordering::Relaxed);
        Host::new(self.inner.clone(), name, address, format!("port{port}"))
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
