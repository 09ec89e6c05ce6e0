//! Against the real kernel, in anonymous network namespaces that end with the test.

mod interfaces;
mod mtu;
mod next_hops;
mod next_hops_v6;

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsRawFd,
    process::Command,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::{sync::mpsc, time::Instant};

use super::*;

/// A network namespace without a name: the kernel removes it, and all in it, when the file is closed.
struct Namespace(File);

impl Namespace {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("the new namespace's file")
        });
        Self(made.join().expect("the namespace's thread"))
    }

    /// Runs a function on a thread inside the namespace.
    fn inside<R: Send>(&self, run: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
                run()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a test's future on a single-threaded runtime inside the namespace.
    fn block_on<R: Send>(&self, future: impl AsyncFnOnce() -> R + Send) -> R {
        self.inside(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(future())
        })
    }

    /// Runs `ip` inside the namespace, one command a line.
    fn ip(&self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let done = self.inside(|| Command::new("ip").args(line.split_whitespace()).output());
            let done = done.expect("iproute2 is installed");
            assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }

    /// Waits until all IPv6 addresses are in use: without a duplicate check too, that takes the link's carrier.
    fn wait_for_addresses(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let list = ["-oneline", "-6", "address", "show", "tentative"];
            let tentative =
                self.inside(|| Command::new("ip").args(list).output()).expect("iproute2 is installed");
            assert!(tentative.status.success(), "ip: {}", String::from_utf8_lossy(&tentative.stderr));
            if tentative.stdout.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{}", String::from_utf8_lossy(&tentative.stdout));
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// A path by which `ip link set … netns` finds the namespace.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// The balancer's namespace and a backend's, joined by a veth pair: 10.9.0.1, fd09::1 and fe80::1 on `v0`, those that end
/// in 2 on `v1`.
struct Pair {
    balancer: Namespace,
    backend: Namespace,
}

const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1));
const BACKEND: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2));
const BACKEND_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2));
const ROUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2));
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MOVED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];

impl Pair {
    fn new() -> Self {
        let pair = Self { balancer: Namespace::new(), backend: Namespace::new() };
        pair.balancer.ip(&format!(
            "link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:02
             link set v1 netns {}
             link set v0 addrgenmode none
             address add 10.9.0.1/24 dev v0
             address add fd09::1/64 dev v0 nodad
             address add fe80::1/64 dev v0 nodad
             link set lo up
             link set v0 up",
            pair.backend.path()
        ));
        pair.backend.ip("link set v1 addrgenmode none
                         address add 10.9.0.2/24 dev v1
                         address add fd09::2/64 dev v1 nodad
                         address add fe80::2/64 dev v1 nodad
                         link set lo up
                         link set v1 up");
        pair.balancer.wait_for_addresses();
        pair.backend.wait_for_addresses();
        pair
    }
}

/// Says why a test does not run here; the runner collects these lines.
fn skipped(test: &str) -> bool {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        eprintln!("SKIPPED: {test}: making network namespaces needs root");
    }
    !root
}

/// The first event that satisfies the condition, and when it came.
async fn wait_for(
    events: &mut mpsc::Receiver<NextHopChanged>,
    what: &str,
    wanted: impl Fn(&NextHopChanged) -> bool,
) -> NextHopChanged {
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Ok(Some(event)) = tokio::time::timeout_at(deadline, events.recv()).await {
        if wanted(&event) {
            return event;
        }
        seen.push(event);
    }
    panic!("waited in vain until {what}; seen: {seen:?}");
}

fn mac_of(event: &NextHopChanged) -> Option<[u8; 6]> {
    event.hop.as_ref().and_then(|hop| hop.mac)
}

/// An address of either family.
fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An address with the length of its prefix.
fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix { address: ip(address), length: length.parse().expect("a length") }
}

/// Whether the kernel keeps the entry resolved for us; `None` without an entry.
async fn managed(netlink: &Netlink, address: IpAddr) -> Option<bool> {
    let neighbours = netlink.neighbours().await.expect("the neighbours");
    neighbours.iter().find(|(key, _)| key.1 == address).map(|(_, neighbour)| neighbour.kept_for_us())
}
