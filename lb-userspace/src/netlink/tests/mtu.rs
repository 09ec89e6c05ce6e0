//! How large a packet may be on the way to a backend, and which subnet the backend is in.

use super::*;

/// The MTU that is told next for a backend and satisfies the condition.
async fn told(events: &mut mpsc::Receiver<NextHopChanged>, backend: IpAddr, mtu: u16) {
    let wanted = |event: &NextHopChanged| {
        event.backend == backend && event.hop.as_ref().is_some_and(|hop| hop.mtu == mtu)
    };
    wait_for(events, &format!("{backend} has an MTU of {mtu}"), wanted).await;
}

#[test]
fn the_mtu_of_an_interface_is_followed() {
    if skipped("the_mtu_of_an_interface_is_followed") {
        return;
    }
    let pair = Pair::new();
    let balancer = &pair.balancer;
    balancer.block_on(async || {
        let (sender, mut events) = mpsc::channel(16);
        let watcher = Watcher::start(sender).expect("a watcher");
        for backend in [BACKEND, BACKEND_V6] {
            balancer.ip("link set v0 mtu 1500");
            watcher.watch([backend]);
            told(&mut events, backend, 1500).await;
            balancer.ip("link set v0 mtu 9000");
            told(&mut events, backend, 9000).await;
            balancer.ip("link set v0 mtu 1400");
            told(&mut events, backend, 1400).await;
        }
    });
}

#[test]
fn what_a_router_advertises_limits_ipv6_only() {
    if skipped("what_a_router_advertises_limits_ipv6_only") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.block_on(async || {
        // The kernel writes a router's MTU option into this setting.
        std::fs::write("/proc/sys/net/ipv6/conf/v0/mtu", "1300").expect("the setting");
        let netlink = Netlink::open().expect("netlink");
        let v0 = netlink.interface("v0").await.expect("v0");
        assert_eq!((v0.mtu, v0.ipv6_mtu), (1500, 1300));
        for (backend, expected) in [(BACKEND, 1500), (BACKEND_V6, 1300)] {
            let resolution = netlink.next_hop(backend).await.expect("an answer");
            assert_eq!(resolution.hop.expect("a hop").mtu, expected, "{backend}");
        }
    });
}

#[test]
fn a_routes_own_mtu_counts_where_it_is_the_smaller() {
    if skipped("a_routes_own_mtu_counts_where_it_is_the_smaller") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("route add 10.20.0.0/16 via 10.9.0.2 mtu 1400
                      route add 10.21.0.0/16 via 10.9.0.2 mtu lock 1300
                      route add 10.22.0.0/16 via 10.9.0.2 mtu 9000
                      route add 10.23.0.0/16 via 10.9.0.2 advmss 1000
                      route add fd20::/64 via fe80::2 dev v0 mtu 1400
                      route add fd22::/64 via fe80::2 dev v0 mtu 9000
                      route add fd23::/64 via fe80::2 dev v0 advmss 1000");
    let table = [
        ("10.20.0.7", 1400),
        ("10.21.0.7", 1300),
        ("10.22.0.7", 1500),
        ("10.23.0.7", 1500),
        ("fd20::7", 1400),
        ("fd22::7", 1500),
        ("fd23::7", 1500),
    ];
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        for (backend, expected) in table {
            let resolution = netlink.next_hop(ip(backend)).await.expect("an answer");
            assert_eq!(resolution.hop.expect("a hop").mtu, expected, "{backend}");
        }
    });
}

#[test]
fn what_path_mtu_discovery_found_counts() {
    if skipped("what_path_mtu_discovery_found_counts") {
        return;
    }
    let pair = Pair::new();
    // The backend forwards to a link that is too small.
    pair.backend.inside(|| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding");
    });
    pair.backend.ip("link add d0 mtu 1300 type veth peer name d1 mtu 1300
                     address add 10.20.0.1/16 dev d0
                     address add fd20::1/64 dev d0 nodad
                     link set d0 up
                     link set d1 up");
    pair.balancer.ip("route add 10.20.0.0/16 via 10.9.0.2
                      route add fd20::/64 via fe80::2 dev v0");
    for (backend, socket, size) in [("10.20.0.7", "10.9.0.1:0", 1400), ("fd20::7", "[fd09::1]:0", 1400)] {
        pair.balancer.block_on(async || {
            let netlink = Netlink::open().expect("netlink");
            let mtu = async || {
                let resolution = netlink.next_hop(ip(backend)).await.expect("an answer");
                resolution.hop.expect("a hop").mtu
            };
            assert_eq!(mtu().await, 1500, "{backend}");
            let socket = std::net::UdpSocket::bind(socket).expect("a socket");
            let deadline = Instant::now() + Duration::from_secs(10);
            while mtu().await != 1300 {
                assert!(Instant::now() < deadline, "{backend}: still {}", mtu().await);
                // Refused once the exception is there.
                let _ = socket.send_to(&vec![0; size], (ip(backend), 9));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}

#[test]
fn a_backend_on_the_link_says_the_subnet() {
    if skipped("a_backend_on_the_link_says_the_subnet") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("address add 198.51.100.1/32 dev v0
                      address add 10.9.0.65/26 dev v0
                      route add 10.9.0.3/32 dev v0 mtu 1400
                      route add 198.51.100.128/25 dev v0
                      route add fd30::/56 dev v0
                      route add 10.20.0.0/16 via 10.9.0.2
                      route add fd20::/64 via fd09::2");
    let table = [
        ("10.9.0.2", Some("10.9.0.0/24")),
        ("10.9.0.3", Some("10.9.0.0/24")),
        ("10.9.0.70", Some("10.9.0.64/26")),
        ("198.51.100.200", Some("198.51.100.128/25")),
        ("10.20.0.7", None),
        ("fd09::2", Some("fd09::/64")),
        ("fd30::7", Some("fd30::/56")),
        ("fd20::7", None),
    ];
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        for (backend, expected) in table {
            let resolution = netlink.next_hop(ip(backend)).await.expect("an answer");
            let hop = resolution.hop.expect("a hop");
            assert_eq!(hop.on_link, expected.map(prefix), "{backend}");
            assert_eq!(hop.gateway.is_none(), expected.is_some(), "{backend}");
        }
        let all = table.map(|(backend, _)| ip(backend));
        let expected = [
            ("10.9.0.0/24", vec!["10.9.0.2", "10.9.0.3"]),
            ("10.9.0.64/26", vec!["10.9.0.70"]),
            ("198.51.100.128/25", vec!["198.51.100.200"]),
            ("fd09::/64", vec!["fd09::2"]),
            ("fd30::/56", vec!["fd30::7"]),
        ];
        let expected = expected.map(|(subnet, them)| (prefix(subnet), them.into_iter().map(ip).collect()));
        assert_eq!(netlink.shared_subnets(all).await.expect("an answer"), expected.into());

        pair.balancer.ip("route add default dev v0");
        let resolution = netlink.next_hop(ip("192.0.2.1")).await.expect("an answer");
        assert_eq!(resolution.hop.expect("a hop").on_link, Some(prefix("0.0.0.0/0")));
    });
}
