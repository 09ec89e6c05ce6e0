//! Against the real kernel, in anonymous network namespaces that end with the test.

use std::{fs::File, net::Ipv4Addr, os::fd::AsRawFd, process::Command, thread, time::Duration};

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

    /// A path by which `ip link set … netns` finds the namespace.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// The balancer's namespace and a backend's, joined by a veth pair: 10.9.0.1 on `v0`, 10.9.0.2 on `v1`.
struct Pair {
    balancer: Namespace,
    backend: Namespace,
}

const BACKEND: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MOVED_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x22];

impl Pair {
    fn new() -> Self {
        let pair = Self { balancer: Namespace::new(), backend: Namespace::new() };
        pair.balancer.ip(&format!(
            "link add v0 address 02:00:00:00:00:01 type veth peer name v1 address 02:00:00:00:00:02
             link set v1 netns {}
             address add 10.9.0.1/24 dev v0
             link set lo up
             link set v0 up",
            pair.backend.path()
        ));
        pair.backend.ip("address add 10.9.0.2/24 dev v1
                         link set lo up
                         link set v1 up");
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

#[test]
fn an_interface_is_described_as_the_kernel_has_it() {
    if skipped("an_interface_is_described_as_the_kernel_has_it") {
        return;
    }
    let pair = Pair::new();
    let v0 = pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        netlink.interface("v0").await.expect("v0")
    });
    let prefix = Prefix { address: Ipv4Addr::new(10, 9, 0, 1), length: 24 };
    let expected = Interface {
        name: "v0".to_owned(),
        index: v0.index,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        kind: Some("veth".to_owned()),
        driver: Some("veth".to_owned()),
        up: true,
        addresses: vec![prefix],
        xdp: None,
    };
    assert_eq!(v0, expected);
}

#[test]
fn a_missing_interface_is_named_beside_those_that_exist() {
    if skipped("a_missing_interface_is_named_beside_those_that_exist") {
        return;
    }
    let pair = Pair::new();
    let error = pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        netlink.interface("eth7").await.expect_err("there is no eth7").to_string()
    });
    assert_eq!(error, r#"there is no interface "eth7" here; there are: lo, v0"#);
}

#[test]
fn a_service_address_on_no_interface_gets_the_line_that_adds_it() {
    if skipped("a_service_address_on_no_interface_gets_the_line_that_adds_it") {
        return;
    }
    let pair = Pair::new();
    let (error, found) = pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        let missing = Ipv4Addr::new(203, 0, 113, 10);
        let error = netlink.require_local(missing, "v0").await.expect_err("nobody has it").to_string();
        (error, netlink.require_local(Ipv4Addr::new(10, 9, 0, 1), "v0").await.expect("v0 has it"))
    });
    assert_eq!(
        error,
        "no interface has the address 203.0.113.10, so nobody answers ARP for it; \
         add it with: ip addr add 203.0.113.10/32 dev v0"
    );
    assert_eq!((found.interface_name.as_str(), found.prefix.to_string().as_str()), ("v0", "10.9.0.1/24"));
}

#[test]
fn a_backend_that_cannot_be_forwarded_to_says_why() {
    if skipped("a_backend_that_cannot_be_forwarded_to_says_why") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add unreachable 10.7.0.0/16
                      route add blackhole 10.6.0.0/16
                      route add prohibit 10.5.0.0/16");
    let table = [
        ([10, 9, 0, 1], "is an address of this host"),
        ([198, 51, 100, 1], "no route: Network is unreachable (os error 101)"),
        ([10, 7, 0, 1], "no route: No route to host (os error 113)"),
        ([10, 6, 0, 1], "no route: Invalid argument (os error 22)"),
        ([10, 5, 0, 1], "no route: Permission denied (os error 13)"),
        ([10, 9, 0, 255], "no route: the route is of type broadcast"),
    ];
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        for (backend, expected) in table {
            let resolution = netlink.next_hop(Ipv4Addr::from(backend)).await.expect("an answer");
            assert_eq!(resolution.hop, None);
            assert_eq!(resolution.obstacle.expect("an obstacle").to_string(), expected, "{backend:?}");
        }
    });
}

#[test]
fn a_watched_backend_is_resolved_and_kept_resolved() {
    if skipped("a_watched_backend_is_resolved_and_kept_resolved") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND]);
        let event = wait_for(&mut events, "it is resolved", |event| mac_of(event).is_some()).await;
        let hop = NextHop {
            interface: netlink.interface("v0").await.expect("v0").index,
            source: Ipv4Addr::new(10, 9, 0, 1),
            gateway: None,
            mac: Some(BACKEND_MAC),
        };
        assert_eq!(event, NextHopChanged { backend: BACKEND, hop: Some(hop.clone()), obstacle: None });
        assert_eq!(
            netlink.next_hop(BACKEND).await.expect("an answer"),
            Resolution { hop: Some(hop.clone()), obstacle: None }
        );
        assert_eq!(managed(&netlink, BACKEND).await, Some(true), "the kernel keeps it");

        watcher.watch([]);
        while managed(&netlink, BACKEND).await == Some(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        watcher.watch([BACKEND]);
        wait_for(&mut events, "it is resolved again", |event| mac_of(event) == Some(BACKEND_MAC)).await;
        assert_eq!(managed(&netlink, BACKEND).await, Some(true), "the kernel keeps it again");

        drop(watcher);
        netlink.release_neighbours(&[]).await.expect("the entries are let go");
        assert_eq!(managed(&netlink, BACKEND).await, Some(false), "nothing of ours is left");
    });
}

/// Whether the kernel keeps the entry resolved for us; `None` without an entry.
async fn managed(netlink: &Netlink, address: Ipv4Addr) -> Option<bool> {
    let neighbours = netlink.neighbours().await.expect("the neighbours");
    neighbours.iter().find(|(key, _)| key.1 == address).map(|(_, neighbour)| neighbour.kept_for_us())
}

#[test]
fn a_backend_behind_a_router_gets_the_routers_mac() {
    if skipped("a_backend_behind_a_router_gets_the_routers_mac") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add 10.20.0.0/16 via 10.9.0.2");
    let far = Ipv4Addr::new(10, 20, 0, 7);
    let event = pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([far]);
        wait_for(&mut events, "it is resolved", |event| mac_of(event).is_some()).await
    });
    let hop = event.hop.expect("a hop");
    assert_eq!((hop.gateway, hop.mac), (Some(BACKEND), Some(BACKEND_MAC)));
}

#[test]
fn a_backend_that_moves_to_another_mac_is_followed_within_a_second() {
    if skipped("a_backend_that_moves_to_another_mac_is_followed_within_a_second") {
        return;
    }
    let pair = Pair::new();
    // With arp_notify the kernel announces a new MAC by gratuitous ARP, as a moved virtual machine does.
    pair.backend.inside(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/v1/arp_notify", "1").expect("arp_notify");
    });
    let backend = &pair.backend;
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND]);
        wait_for(&mut events, "it is resolved", |event| mac_of(event) == Some(BACKEND_MAC)).await;
        backend.ip("link set v1 address 02:00:00:00:00:22");
        let moved = Instant::now();
        wait_for(&mut events, "it has moved", |event| mac_of(event) == Some(MOVED_MAC)).await;
        assert!(moved.elapsed() < Duration::from_secs(1), "took {:?}", moved.elapsed());
    });
}

#[test]
fn a_move_whose_announcement_was_lost_in_a_flood_is_followed_all_the_same() {
    if skipped("a_move_whose_announcement_was_lost_in_a_flood_is_followed_all_the_same") {
        return;
    }
    let pair = Pair::new();
    pair.backend.inside(|| {
        std::fs::write("/proc/sys/net/ipv4/conf/v1/arp_notify", "1").expect("arp_notify");
    });
    // Each line is one announcement; the socket's buffer holds some hundreds.
    let mut flood = Vec::new();
    for n in 0..3000 {
        let mac = format!("02:00:00:01:{:02x}:{:02x}", n / 256, n % 256);
        flood.push(format!("neighbour replace 10.9.0.99 lladdr {mac} dev v0 nud permanent"));
    }
    let batch = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(batch.path(), flood.join("\n") + "\n").expect("the batch");
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND]);
        wait_for(&mut events, "it is resolved", |event| mac_of(event) == Some(BACKEND_MAC)).await;
        // The runtime's only thread is in here meanwhile, so nobody empties the socket.
        pair.balancer.ip(&format!("-batch {}", batch.path().display()));
        pair.backend.ip("link set v1 address 02:00:00:00:00:22");
        let moved = Instant::now();
        wait_for(&mut events, "it has moved", |event| mac_of(event) == Some(MOVED_MAC)).await;
        // The kernel's own next announcement about that neighbour would come after several seconds.
        assert!(moved.elapsed() < Duration::from_secs(1), "took {:?}", moved.elapsed());
    });
}

#[test]
fn a_backend_that_never_answers_is_a_hop_without_mac() {
    if skipped("a_backend_that_never_answers_is_a_hop_without_mac") {
        return;
    }
    let pair = Pair::new();
    let silent = Ipv4Addr::new(10, 9, 0, 77);
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([silent]);
        let first = wait_for(&mut events, "it is told", |_| true).await;
        assert_eq!(first.obstacle, Some(Obstacle::Resolving));
        let failed = |event: &NextHopChanged| event.obstacle == Some(Obstacle::NoAnswer);
        let event = wait_for(&mut events, "the kernel gives up", failed).await;
        assert_eq!(mac_of(&event), None);
        assert!(event.hop.is_some(), "the route is still there");
    });
}

#[test]
fn a_change_of_routes_is_told_for_every_backend_it_concerns() {
    if skipped("a_change_of_routes_is_told_for_every_backend_it_concerns") {
        return;
    }
    let pair = Pair::new();
    let far = Ipv4Addr::new(10, 20, 0, 7);
    let balancer = &pair.balancer;
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([far]);
        wait_for(&mut events, "there is no route", |event| event.hop.is_none()).await;
        balancer.ip("route add 10.20.0.0/16 via 10.9.0.2");
        let event = wait_for(&mut events, "the route is used", |event| mac_of(event).is_some()).await;
        assert_eq!(event.hop.expect("a hop").gateway, Some(BACKEND));
        balancer.ip("link set v0 down");
        wait_for(&mut events, "the link is down", |event| event.hop.is_none()).await;
    });
}

#[test]
fn a_permanent_entry_is_used_and_left_alone() {
    if skipped("a_permanent_entry_is_used_and_left_alone") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("neighbour add 10.9.0.2 lladdr 02:00:00:00:00:22 dev v0 nud permanent");
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND]);
        wait_for(&mut events, "it is told", |event| mac_of(event) == Some(MOVED_MAC)).await;
        watcher.watch([]);
        watcher.watch([BACKEND, Ipv4Addr::new(10, 9, 0, 3)]);
        wait_for(&mut events, "the other is told", |event| event.backend != BACKEND).await;
        let neighbours = netlink.neighbours().await.expect("the neighbours");
        let (_, entry) = neighbours.iter().find(|(key, _)| key.1 == BACKEND).expect("the entry");
        assert_eq!(entry.state.to_string(), "permanent");
    });
}
