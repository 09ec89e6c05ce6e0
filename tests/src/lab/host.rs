//! A host of the lab: a [`Machine`] with a network interface, `eth0`, plugged into the switch. What makes a
//! router of it is in [`network`](super::network).

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::error::{Context, Error, Result};
use super::machine::Machine;
use super::{Family, HostCommand, Inner, PREFIX_LENGTH, PREFIX_LENGTH_6, Process, family};

/// A host; clones are the same host. It ends with its last clone and its last [`Process`].
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<HostInner>,
}

#[derive(Debug)]
struct HostInner {
    /// Dropped first: the processes of the machine end before their directory is removed.
    machine: Machine,
    name: String,
    address: Ipv4Addr,
    /// The switch's end of each interface.
    ports: Mutex<BTreeMap<String, String>>,
    directory: PathBuf,
    lab: Arc<Inner>,
}

impl Host {
    pub(crate) fn new(lab: Arc<Inner>, name: &str, address: Ipv4Addr) -> Result<Self> {
        let machine = Machine::new(name)?;
        let directory = lab.scratch.path().join(name);
        fs::create_dir(&directory).context(|| format!("cannot make {}", directory.display()))?;
        let port = plug(&lab, &machine, "eth0", address)?;
        let ports = Mutex::new(BTreeMap::from([("eth0".to_owned(), port)]));
        let inner = HostInner { machine, name: name.to_owned(), address, ports, directory, lab };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Gives the host another interface, plugged into the address's segment.
    pub fn plug(&self, device: &str, address: Ipv4Addr) -> Result<()> {
        let port = plug(&self.inner.lab, &self.inner.machine, device, address)?;
        let mut ports = self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.insert(device.to_owned(), port);
        Ok(())
    }

    /// The same, ready for redirected frames: see [`Host::gro_on_peer`].
    pub fn plug_for_redirects(&self, device: &str, address: Ipv4Addr) -> Result<()> {
        self.plug(device, address)?;
        self.gro_on_peer_of(device)
    }

    /// The switch's end of an interface.
    fn port(&self, device: &str) -> Result<String> {
        let ports = self.inner.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::Missing { program: format!("the interface {device} of {}", self.name()) };
        ports.get(device).cloned().ok_or_else(missing)
    }

    /// The host's name, also within the host.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The first address of `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
    }

    /// The IPv6 address of `eth0`.
    pub fn address6(&self) -> Ipv6Addr {
        family::beside(self.inner.address)
    }

    /// The address of `eth0` in that family.
    pub fn address_in(&self, family: Family) -> IpAddr {
        family.of(self.inner.address)
    }

    /// The host's directory in the lab's: configuration, data, logs. It has the same path inside the host.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The host's root directory as seen from the test: /run and /sys/fs/bpf of a host are its own.
    pub fn root(&self) -> PathBuf {
        self.inner.machine.root()
    }

    /// A command line that opens a shell in the host, for people who want to look around.
    pub fn shell_command(&self) -> String {
        format!("nsenter --target {} --all", self.inner.machine.init())
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.inner.machine
    }

    /// A program to be run in this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> HostCommand {
        HostCommand::new(self.clone(), program)
    }

    /// Runs a program to its end; its standard output, or an error with its standard error.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let (program, arguments) = command.split_first().unwrap_or((&"true", &[]));
        self.command(program).args(arguments).run()
    }

    /// Starts a program and leaves it running; the same as [`HostCommand::spawn`].
    pub fn spawn(&self, command: HostCommand, log_name: &str) -> Result<Process> {
        command.spawn(log_name)
    }

    /// Runs `task` on a thread inside the host's network; sockets it makes stay there.
    pub fn enter<T: Send>(&self, task: impl FnOnce() -> T + Send) -> Result<T> {
        self.inner.machine.enter(task)
    }

    /// Starts a thread inside the host's network. The host lives at least as long as the thread.
    pub fn thread<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let host = self.clone();
        thread::spawn(move || host.inner.machine.join_network().map(|()| task()))
    }

    /// Adds an address: on an `eth` with its segment's prefix, on any other device (`lo`) for itself alone.
    /// An IPv6 address is used at once, without the search for a duplicate.
    pub fn add_address(&self, address: impl Into<IpAddr>, device: &str) -> Result<()> {
        self.add_address_with(address.into(), device, &[])
    }

    /// Adds the address of a service as `lb` says it should be: the host does not send from it by itself.
    pub fn add_service_address(&self, address: IpAddr, device: &str) -> Result<()> {
        let never_source: &[&str] = if address.is_ipv6() { &["preferred_lft", "0"] } else { &[] };
        self.add_address_with(address, device, never_source)
    }

    fn add_address_with(&self, address: IpAddr, device: &str, more: &[&str]) -> Result<()> {
        let (segment, alone) = match address {
            IpAddr::V4(_) => (PREFIX_LENGTH, 32),
            IpAddr::V6(_) => (PREFIX_LENGTH_6, 128),
        };
        let length = if device.starts_with("eth") { segment } else { alone };
        let written = format!("{address}/{length}");
        // IPv4 knows no such search, and `ip` no such word for it.
        let at_once: &[&str] = if address.is_ipv6() { &["nodad"] } else { &[] };
        let arguments = [&["address", "add", &written, "dev", device], at_once, more].concat();
        self.inner.machine.ip(&arguments).map(drop)
    }

    /// The MAC address of `eth0`; it follows from the IP address.
    pub fn mac(&self) -> String {
        mac_of(self.inner.address).map(|byte| format!("{byte:02x}")).join(":")
    }

    /// Pulls the cable: the switch's port goes down, `eth0` loses its carrier and keeps its settings.
    pub fn link_down(&self) -> Result<()> {
        self.inner.lab.switch.ip(&["link", "set", &self.port("eth0")?, "down"]).map(drop)
    }

    /// Plugs the cable in again.
    pub fn link_up(&self) -> Result<()> {
        self.inner.lab.switch.ip(&["link", "set", &self.port("eth0")?, "up"]).map(drop)
    }

    /// Turns GRO on at the switch's end of `eth0`. veth receives frames that an XDP program redirected only
    /// where NAPI runs, which GRO (or an XDP program) starts: `veth_xdp_xmit` in the kernel's
    /// drivers/net/veth.c. Without it they are lost in silence.
    pub fn gro_on_peer(&self) -> Result<()> {
        self.gro_on_peer_of("eth0")
    }

    fn gro_on_peer_of(&self, device: &str) -> Result<()> {
        self.inner.lab.switch.run_outside(&["ethtool", "-K", &self.port(device)?, "gro", "on"]).map(drop)
    }

    /// Sets the largest packet that both ends of an interface's cable take.
    pub fn set_link_mtu(&self, device: &str, mtu: u16) -> Result<()> {
        self.set_mtu(device, mtu)?;
        let port = self.port(device)?;
        self.inner.lab.switch.ip(&["link", "set", &port, "mtu", &mtu.to_string()]).map(drop)
    }

    /// Has `eth0` get frames as they are on a wire: none longer than the MTU, checksums complete. What GRO has joined
    /// on the way, tunnelled TCP too, is taken apart again at the switch. A raw socket would get it as it is, its inner
    /// checksum left to hardware, and no note of that.
    pub fn plain_frames(&self) -> Result<()> {
        let off = ["ethtool", "-K", &self.port("eth0")?, "tso", "off", "gso", "off", "tx", "off"];
        self.inner.lab.switch.run_outside(&off).map(drop)
    }
}

/// The MAC address of the interface that was plugged in with this address.
pub const fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [_, b, c, d] = address.octets();
    [0x02, 0, 0x0a, b, c, d]
}

/// Lays a cable from the machine's new `device` to a new port of the switch; the port's name.
fn plug(lab: &Inner, machine: &Machine, device: &str, address: Ipv4Addr) -> Result<String> {
    let (bridge, port) = (lab.bridge(address)?, lab.next_port());
    cable((&lab.switch, &bridge, &port), machine, device, address)?;
    Ok(port)
}

/// Lays a cable from a new port of a machine's bridge to another machine's new `device`, which gets the address.
pub(super) fn cable(
    (switch, bridge, port): (&Machine, &str, &str),
    machine: &Machine,
    device: &str,
    address: Ipv4Addr,
) -> Result<()> {
    let own = mac_of(address);
    let other = [own[0], 1, own[2], own[3], own[4], own[5]];
    let [own, other] = [own, other].map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    switch.ip(&[
        "link",
        "add",
        port,
        "address",
        &other,
        "type",
        "veth", //
        "peer",
        "name",
        device,
        "address",
        &own,
        "netns",
        &machine.init().to_string(),
    ])?;
    switch.ip(&["link", "set", port, "master", bridge, "up"])?;
    machine.ip(&["address", "add", &format!("{address}/{PREFIX_LENGTH}"), "dev", device])?;
    let beside = format!("{}/{PREFIX_LENGTH_6}", family::beside(address));
    machine.ip(&["address", "add", &beside, "dev", device, "nodad"])?;
    machine.ip(&["link", "set", device, "up"]).map(drop)
}
