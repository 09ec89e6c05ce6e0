//! Interfaces and addresses.

use std::collections::HashMap;

use rtnetlink::{
    packet_core::{Emitable, Parseable},
    packet_route::link::{InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkMessage, VlanProtocol},
};

use super::*;
use crate::netlink::interfaces::interface_of;

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
    let expected = Interface {
        name: "v0".to_owned(),
        index: v0.index,
        mac: Some([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        ipv6_mtu: 1500,
        kind: Some("veth".to_owned()),
        vlan: None,
        master: None,
        below: None,
        driver: Some("veth".to_owned()),
        up: true,
        addresses: vec![prefix("10.9.0.1/24"), prefix("fd09::1/64"), prefix("fe80::1/64")],
        xdp: None,
        peer_elsewhere: true,
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
        let missing = ip("203.0.113.10");
        let error = netlink.require_local(missing, "v0").await.expect_err("nobody has it").to_string();
        (error, netlink.require_local(OWN, "v0").await.expect("v0 has it"))
    });
    assert_eq!(
        error,
        "no interface has the address 203.0.113.10, so nobody answers ARP for it; \
         add it with: ip addr add 203.0.113.10/32 dev v0"
    );
    let Ownership::OnInterface(local) = found else { panic!("{found:?}") };
    assert_eq!((local.interface_name.as_str(), local.prefix), ("v0", prefix("10.9.0.1/24")));
}

#[test]
fn an_ipv6_service_address_on_no_interface_gets_the_line_that_adds_it() {
    if skipped("an_ipv6_service_address_on_no_interface_gets_the_line_that_adds_it") {
        return;
    }
    let pair = Pair::new();
    let error = pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        netlink.require_local(ip("2001:db8::10"), "v0").await.expect_err("nobody has it").to_string()
    });
    assert_eq!(
        error,
        "no interface has the address 2001:db8::10, so nobody answers neighbour discovery for it; \
         add it with: ip -6 addr add 2001:db8::10/128 dev v0 preferred_lft 0"
    );
}

#[test]
fn an_address_is_this_hosts_on_an_interface_or_by_a_local_route() {
    if skipped("an_address_is_this_hosts_on_an_interface_or_by_a_local_route") {
        return;
    }
    let pair = Pair::new();
    pair.balancer.ip("address add 198.51.100.1 peer 198.51.100.2 dev v0
                      address add 2001:db8:1::1 peer 2001:db8:1::2 dev v0 nodad
                      route add local 203.0.113.0/24 dev lo
                      route add local 2001:db8::/64 dev lo
                      route add unreachable 10.7.0.0/16");
    // The address, where it sits ("v0"), or "routed"; empty: not this host's.
    let table = [
        ("10.9.0.1", "v0"),
        ("fd09::1", "v0"),
        ("fe80::1", "v0"),
        ("198.51.100.1", "v0"),
        ("198.51.100.2", ""),
        ("2001:db8:1::1", "v0"),
        ("2001:db8:1::2", ""),
        ("203.0.113.10", "routed"),
        ("2001:db8::10", "routed"),
        ("10.9.0.2", ""),
        ("fd09::2", ""),
        ("10.9.0.255", ""),
        ("10.7.0.1", ""),
        ("192.0.2.1", ""),
        ("2001:db8:ffff::1", ""),
    ];
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        for (address, expected) in table {
            let found = match netlink.ownership(ip(address)).await.expect("an answer") {
                Ownership::OnInterface(local) => local.interface_name,
                Ownership::Routed => "routed".to_owned(),
                Ownership::Foreign => String::new(),
            };
            assert_eq!(found, expected, "{address}");
            let local = netlink.is_local(ip(address)).await.expect("an answer");
            assert_eq!(local, !expected.is_empty(), "{address}");
        }
    });
}

#[test]
fn a_service_address_that_another_host_has_is_refused() {
    if skipped("a_service_address_that_another_host_has_is_refused") {
        return;
    }
    let pair = Pair::new();
    pair.backend.ip("address add fd09::10/64 dev v1 nodad");
    let balancer = &pair.balancer;
    let error = pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        // The check runs once the link has a carrier; the backend's answer ends it.
        let state = async || {
            let locals = netlink.local_addresses().await.expect("the addresses");
            let found = locals.iter().find(|local| local.prefix.address == ip("fd09::10"));
            found.map(|local| local.state)
        };
        balancer.ip("address add fd09::10/64 dev v0");
        let deadline = Instant::now() + Duration::from_secs(10);
        while state().await != Some(AddressState::Duplicate) {
            assert!(Instant::now() < deadline, "still {:?}", state().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        netlink.require_local(ip("fd09::10"), "v0").await.expect_err("it is another's").to_string()
    });
    assert_eq!(
        error,
        "another host on the link of v0 has the address fd09::10, so this one does not use it; \
         where that is meant, as in a pair of balancers, add it with: \
         ip -6 addr add fd09::10/128 dev v0 preferred_lft 0 nodad"
    );
}

#[test]
fn a_vlan_interface_says_its_tag_and_what_is_below_it() {
    if skipped("a_vlan_interface_says_its_tag_and_what_is_below_it") {
        return;
    }
    let pair = Pair::new();
    let made = pair.balancer.inside(|| {
        let lines = [
            "link add link v0 name v0.7 type vlan id 7",
            "link add link v0 name v0.8 type vlan proto 802.1ad id 8",
        ];
        lines.iter().all(|line| {
            Command::new("ip").args(line.split(' ')).output().expect("iproute2 is installed").status.success()
        })
    });
    if !made {
        eprintln!(
            "SKIPPED: a_vlan_interface_says_its_tag_and_what_is_below_it: this kernel has no VLAN interfaces"
        );
        return;
    }
    pair.balancer.block_on(async || {
        let netlink = Netlink::open().expect("netlink");
        let below = netlink.interface("v0").await.expect("v0").index;
        let tagged = netlink.interface("v0.7").await.expect("v0.7");
        assert_eq!(tagged.kind.as_deref(), Some("vlan"));
        assert_eq!(tagged.vlan, Some(Vlan { id: 7, service_tag: false, below }));
        let stacked = netlink.interface("v0.8").await.expect("v0.8");
        assert_eq!(stacked.vlan, Some(Vlan { id: 8, service_tag: true, below }));
    });
}

#[test]
fn the_tag_of_a_vlan_interface_is_read_from_its_message() {
    let table = [(VlanProtocol::Ieee8021Q, false), (VlanProtocol::Ieee8021Ad, true)];
    for (protocol, service_tag) in table {
        let mut message = LinkMessage::default();
        let tag = InfoData::Vlan(vec![InfoVlan::Protocol(protocol), InfoVlan::Id(7)]);
        message.attributes = vec![
            LinkAttribute::IfName("v0.7".to_owned()),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(tag)]),
        ];
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let read = LinkMessage::parse(&bytes).expect("a link");
        let interface = interface_of(&read, &mut HashMap::new());
        assert_eq!(interface.vlan, Some(Vlan { id: 7, service_tag, below: 3 }));
        assert_eq!(interface.driver.as_deref(), Some("vlan"));
    }
}

#[test]
fn a_prefix_contains_what_shares_its_leading_bits() {
    let table = [
        ("10.9.0.1/24", "10.9.0.255", true),
        ("10.9.0.1/24", "10.9.1.0", false),
        ("10.9.0.1/32", "10.9.0.1", true),
        ("10.9.0.1/32", "10.9.0.0", false),
        ("0.0.0.0/0", "255.255.255.255", true),
        ("0.0.0.0/0", "::", false),
        ("fd09::1/64", "fd09::ffff:0:0:0", true),
        ("fd09::1/64", "fd09:0:0:1::", false),
        ("fd09::1/128", "fd09::1", true),
        ("fd09::1/128", "fd09::2", false),
        ("::/0", "ffff::", true),
    ];
    for (network, address, expected) in table {
        assert_eq!(prefix(network).contains(ip(address)), expected, "{network} {address}");
    }
    let table = [
        ("10.9.0.1/24", "10.9.0.0/24"),
        ("10.9.0.1/32", "10.9.0.1/32"),
        ("10.9.0.1/0", "0.0.0.0/0"),
        ("fd09::1/64", "fd09::/64"),
        ("fd09::1/128", "fd09::1/128"),
        ("fd09::1/0", "::/0"),
    ];
    for (with_host_bits, expected) in table {
        assert_eq!(prefix(with_host_bits).network(), prefix(expected), "{with_host_bits}");
    }
}
