//! Next hops of IPv4 backends, and what is the same for both families.

use super::*;

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
            let resolution = netlink.next_hop(IpAddr::from(backend)).await.expect("an answer");
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
            source: Some(OWN),
            gateway: None,
            mac: Some(BACKEND_MAC),
            mtu: 1500,
            on_link: Some(prefix("10.9.0.0/24")),
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

#[test]
fn a_backend_behind_a_router_gets_the_routers_mac() {
    if skipped("a_backend_behind_a_router_gets_the_routers_mac") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add 10.20.0.0/16 via 10.9.0.2");
    let far = ip("10.20.0.7");
    let event = pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([far]);
        wait_for(&mut events, "it is resolved", |event| mac_of(event).is_some()).await
    });
    let hop = event.hop.expect("a hop");
    assert_eq!((hop.gateway, hop.mac, hop.on_link), (Some(BACKEND), Some(BACKEND_MAC), None));
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
    let silent = ip("10.9.0.77");
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([silent]);
        let first = wait_for(&mut events, "it is told", |_| true).await;
        assert_eq!(first.obstacle, Some(Obstacle::Resolving));
        let no_answer = Some(Obstacle::NoAnswer { neighbour: silent, router: false });
        let failed = |event: &NextHopChanged| event.obstacle == no_answer;
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
    let far = ip("10.20.0.7");
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
        watcher.watch([BACKEND, ip("10.9.0.3")]);
        wait_for(&mut events, "the other is told", |event| event.backend != BACKEND).await;
        let neighbours = netlink.neighbours().await.expect("the neighbours");
        let (_, entry) = neighbours.iter().find(|(key, _)| key.1 == BACKEND).expect("the entry");
        assert_eq!(entry.state.to_string(), "permanent");
    });
}
