//! Next hops of IPv6 backends.

use super::*;

#[test]
fn an_ipv6_backend_that_cannot_be_forwarded_to_says_why() {
    if skipped("an_ipv6_backend_that_cannot_be_forwarded_to_says_why") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add unreachable fd07::/16
                      route add blackhole fd06::/16
                      route add prohibit fd05::/16");
    let table = [
        ("fd09::1", "is an address of this host"),
        ("2001:db8::1", "no route: Network is unreachable (os error 101)"),
        ("fd07::1", "no route: No route to host (os error 113)"),
        ("fd06::1", "no route: Invalid argument (os error 22)"),
        ("fd05::1", "no route: Permission denied (os error 13)"),
        ("ff02::1", "no route: the route is of type multicast"),
        ("fe80::2", "no route: a link-local address does not say which link"),
    ];
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        for (backend, expected) in table {
            let resolution = netlink.next_hop(ip(backend)).await.expect("an answer");
            assert_eq!(resolution.hop, None);
            assert_eq!(resolution.obstacle.expect("an obstacle").to_string(), expected, "{backend}");
        }
    });
}

#[test]
fn a_watched_ipv6_backend_is_resolved_and_kept_resolved() {
    if skipped("a_watched_ipv6_backend_is_resolved_and_kept_resolved") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND_V6]);
        let settled = |event: &NextHopChanged| event.obstacle.is_none();
        let event = wait_for(&mut events, "it is resolved", settled).await;
        let hop = NextHop {
            interface: netlink.interface("v0").await.expect("v0").index,
            source: Some(OWN_V6),
            gateway: None,
            mac: Some(BACKEND_MAC),
            mtu: 1500,
            on_link: Some(prefix("fd09::/64")),
        };
        assert_eq!(event, NextHopChanged { backend: BACKEND_V6, hop: Some(hop.clone()), obstacle: None });
        assert_eq!(
            netlink.next_hop(BACKEND_V6).await.expect("an answer"),
            Resolution { hop: Some(hop), obstacle: None }
        );
        assert_eq!(managed(&netlink, BACKEND_V6).await, Some(true), "the kernel keeps it");

        watcher.watch([BACKEND]);
        while managed(&netlink, BACKEND_V6).await == Some(true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        watcher.watch([BACKEND, BACKEND_V6]);
        let again = |event: &NextHopChanged| event.backend == BACKEND_V6 && event.obstacle.is_none();
        wait_for(&mut events, "it is resolved again", again).await;
        assert_eq!(managed(&netlink, BACKEND_V6).await, Some(true), "the kernel keeps it again");

        drop(watcher);
        netlink.release_neighbours(&[]).await.expect("the entries are let go");
        assert_eq!(managed(&netlink, BACKEND_V6).await, Some(false), "nothing of ours is left");
    });
}

#[test]
fn an_ipv6_neighbour_is_kept_true_by_the_kernel_without_an_agent() {
    if skipped("an_ipv6_neighbour_is_kept_true_by_the_kernel_without_an_agent") {
        return;
    }
    let pair = Pair::new();
    let backend = &pair.backend;
    pair.balancer.block_on(async || {
        // By itself the kernel probes a kept entry each 5 s, believes an answer for 30 s, and gives up after 8 s.
        let folder = std::path::Path::new("/proc/sys/net/ipv6/neigh/v0");
        for (setting, value) in [
            ("interval_probe_time_ms", "100"),
            ("base_reachable_time_ms", "200"),
            ("delay_first_probe_time", "0"),
            ("retrans_time_ms", "100"),
        ] {
            std::fs::write(folder.join(setting), value).expect(setting);
        }
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND_V6]);
        wait_for(&mut events, "it is resolved", |event| mac_of(event) == Some(BACKEND_MAC)).await;
        drop(watcher);
        // Nobody announces the new MAC, and nobody sends there: only a probe can find that the old one is silent.
        backend.ip("link set v1 address 02:00:00:00:00:22");
        let netlink = Netlink::open().expect("netlink");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let hop = netlink.next_hop(BACKEND_V6).await.expect("an answer").hop.expect("a hop");
            if hop.mac == Some(MOVED_MAC) {
                break;
            }
            assert!(Instant::now() < deadline, "still {:02x?}", hop.mac);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn backends_behind_a_link_local_router_get_its_mac() {
    if skipped("backends_behind_a_link_local_router_get_its_mac") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add fd20::/64 via fe80::2 dev v0
                      route add 10.20.0.0/16 via inet6 fe80::2 dev v0");
    for (far, source) in [("fd20::7", OWN_V6), ("10.20.0.7", OWN)] {
        let event = pair.balancer.block_on(async || {
            let (sender, mut events) = mpsc::channel(16);
            let watcher = Watcher::start(sender).expect("a watcher");
            watcher.watch([ip(far)]);
            wait_for(&mut events, "it is resolved", |event| event.obstacle.is_none()).await
        });
        let hop = event.hop.expect("a hop");
        assert_eq!(hop.gateway, Some(ROUTER_V6), "{far}");
        assert_eq!((hop.source, hop.mac, hop.on_link), (Some(source), Some(BACKEND_MAC), None), "{far}");
    }
}

#[test]
fn one_link_local_router_on_two_links_is_two_neighbours() {
    if skipped("one_link_local_router_on_two_links_is_two_neighbours") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip(&format!(
        "link add w0 type veth peer name w1 address 02:00:00:00:00:33
         link set w1 netns {}
         link set w0 addrgenmode none
         address add fe80::1/64 dev w0 nodad
         link set w0 up
         route add fd20::/64 via fe80::2 dev v0
         route add fd30::/64 via fe80::2 dev w0",
        pair.backend.path()
    ));
    pair.backend.ip("link set w1 addrgenmode none
                     address add fe80::2/64 dev w1 nodad
                     link set w1 up");
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([ip("fd20::7"), ip("fd30::7")]);
        let mut macs = std::collections::BTreeMap::new();
        while macs.len() < 2 {
            let event = wait_for(&mut events, "both are resolved", |event| mac_of(event).is_some()).await;
            macs.insert(event.backend, mac_of(&event));
        }
        assert_eq!(macs[&ip("fd20::7")], Some(BACKEND_MAC));
        assert_eq!(macs[&ip("fd30::7")], Some([2, 0, 0, 0, 0, 0x33]));
    });
}

#[test]
fn an_ipv6_backend_that_moves_to_another_mac_is_followed_within_a_second() {
    if skipped("an_ipv6_backend_that_moves_to_another_mac_is_followed_within_a_second") {
        return;
    }
    let pair = Pair::new();
    // With ndisc_notify the kernel announces a new MAC by an unsolicited advertisement (RFC 4861, section 7.2.6).
    pair.backend.inside(|| {
        std::fs::write("/proc/sys/net/ipv6/conf/v1/ndisc_notify", "1").expect("ndisc_notify");
    });
    let backend = &pair.backend;
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([BACKEND_V6]);
        wait_for(&mut events, "it is resolved", |event| mac_of(event) == Some(BACKEND_MAC)).await;
        backend.ip("link set v1 address 02:00:00:00:00:22");
        let moved = Instant::now();
        wait_for(&mut events, "it has moved", |event| mac_of(event) == Some(MOVED_MAC)).await;
        assert!(moved.elapsed() < Duration::from_secs(1), "took {:?}", moved.elapsed());
    });
}

#[test]
fn a_router_that_never_answers_is_named() {
    if skipped("a_router_that_never_answers_is_named") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add fd20::/64 via fe80::77 dev v0");
    pair.balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([ip("fd20::7"), ip("fd09::77")]);
        let mut said = std::collections::BTreeMap::new();
        let failed = |event: &NextHopChanged| matches!(event.obstacle, Some(Obstacle::NoAnswer { .. }));
        while said.len() < 2 {
            let event = wait_for(&mut events, "the kernel gives up", failed).await;
            said.insert(event.backend, event.obstacle.expect("an obstacle").to_string());
        }
        assert_eq!(said[&ip("fd20::7")], "no answer to neighbour discovery by the router fe80::77");
        assert_eq!(said[&ip("fd09::77")], "no answer to neighbour discovery");
    });
}

#[test]
fn a_backend_waits_for_an_address_to_send_from() {
    if skipped("a_backend_waits_for_an_address_to_send_from") {
        return;
    }
    let pair = Pair::new();
    let balancer = &pair.balancer;
    balancer.ip("address del fd09::1/64 dev v0
                 address del fe80::1/64 dev v0
                 address del ::1/128 dev lo
                 route add fd20::/64 dev v0
                 neighbour add fd20::7 lladdr 02:00:00:00:00:02 dev v0 nud permanent");
    balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        watcher.watch([ip("fd20::7")]);
        let event = wait_for(&mut events, "it is told", |_| true).await;
        assert_eq!((mac_of(&event), event.obstacle), (Some(BACKEND_MAC), Some(Obstacle::NoSource)));
        balancer.ip("address add fd09::1/128 dev v0");
        let event = wait_for(&mut events, "there is an address", |event| event.obstacle.is_none()).await;
        assert_eq!(event.hop.and_then(|hop| hop.source), Some(OWN_V6));
    });
}
