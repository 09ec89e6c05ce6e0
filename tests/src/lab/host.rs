//! A host of the lab: a [`Machine`] with one network interface, `eth0`, plugged into the switch.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::error::{Context, Result};
use super::machine::Machine;
use super::{HostCommand, Inner, PREFIX_LENGTH, Process};

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
    port: String,
    directory: PathBuf,
    lab: Arc<Inner>,
}

impl Host {
    pub(crate) fn new(lab: Arc<Inner>, name: &str, address: Ipv4Addr, port: String) -> Result<Self> {
        let machine = Machine::new(name)?;
        let directory = lab.scratch.path().join(name);
        fs::create_dir(&directory).context(|| format!("cannot make {}", directory.display()))?;
        let [_, _, c, d] = address.octets();
        let mac = |kind: u8| format!("02:{kind:02x}:0a:4d:{c:02x}:{d:02x}");
        let (init, own, other) = (machine.init().to_string(), mac(0), mac(1));
        lab.switch.ip(&[
            "link", "add", &port, "address", &other, "type", "veth", //
            "peer", "name", "eth0", "address", &own, "netns", &init,
        ])?;
        lab.switch.ip(&["link", "set", &port, "master", "br0", "up"])?;
        machine.ip(&["address", "add", &format!("{address}/{PREFIX_LENGTH}"), "dev", "eth0"])?;
        machine.ip(&["link", "set", "eth0", "up"])?;
        let inner = HostInner { machine, name: name.to_owned(), address, port, directory, lab };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The host's name, also within the host.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The first address of `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.inner.address
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

    /// Adds an address: on `eth0` as the primary one has it, on any other device (`lo`) as a /32.
    pub fn add_address(&self, address: Ipv4Addr, device: &str) -> Result<()> {
        let length = if device == "eth0" { PREFIX_LENGTH } else { 32 };
        self.inner.machine.ip(&["address", "add", &format!("{address}/{length}"), "dev", device]).map(drop)
    }

    /// The MAC address of `eth0`; it follows from the IP address.
    pub fn mac(&self) -> String {
        let [_, _, c, d] = self.inner.address.octets();
        format!("02:00:0a:4d:{c:02x}:{d:02x}")
    }

    /// Pulls the cable: the switch's port goes down, `eth0` loses its carrier and keeps its settings.
    pub fn link_down(&self) -> Result<()> {
        self.inner.lab.switch.ip(&["link", "set", &self.inner.port, "down"]).map(drop)
    }

    /// Plugs the cable in again.
    pub fn link_up(&self) -> Result<()> {
        self.inner.lab.switch.ip(&["link", "set", &self.inner.port, "up"]).map(drop)
    }

    /// Turns GRO on at the switch's end of `eth0`. veth receives frames that an XDP program redirected only
    /// where NAPI runs, which GRO (or an XDP program) starts: `veth_xdp_xmit` in the kernel's
    /// drivers/net/veth.c. Without it they are lost in silence.
    pub fn gro_on_peer(&self) -> Result<()> {
        self.inner.lab.switch.run_outside(&["ethtool", "-K", &self.inner.port, "gro", "on"]).map(drop)
    }
}
