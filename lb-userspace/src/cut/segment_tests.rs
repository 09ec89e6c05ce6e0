//! Frames are read back by etherparse, which shares no code with what built them.

use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, NetSlice, SlicedPacket, TcpHeaderSlice, TransportSlice, VlanSlice};
use proptest::prelude::*;

use super::*;

const MACS: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

fn hop(vlan: Option<u16>, tunnel: Option<Tunnel>) -> Hop {
    Hop { interface: 7, source: MACS.0, destination: MACS.1, vlan, tunnel }
}

fn tuple(from: &str, to: &str) -> Tuple {
    Tuple { from: from.parse().expect("an address"), to: to.parse().expect("an address") }
}

/// What stands in a segment: numbers, flags SYN, ACK, RST, and window.
type Read = (u32, u32, [bool; 3], u16);

fn expected(segment: Segment) -> Read {
    match segment {
        Segment::Syn { sequence } => (sequence, 0, [true, false, false], 65_535),
        Segment::SynAck { sequence, acknowledgement } => {
            (sequence, acknowledgement, [true, true, false], 65_535)
        }
        Segment::Rst { sequence } => (sequence, 0, [false, false, true], 0),
    }
}

fn read(tcp: &TcpHeaderSlice<'_>) -> Read {
    assert_eq!((tcp.data_offset(), tcp.fin(), tcp.psh(), tcp.urg()), (5, false, false, false));
    let flags = [tcp.syn(), tcp.ack(), tcp.rst()];
    (tcp.sequence_number(), tcp.acknowledgment_number(), flags, tcp.window_size())
}

/// Checks an IP header, its checksum and its length, and returns its addresses, protocol and payload.
fn network<'a>(net: &NetSlice<'a>) -> (IpAddr, IpAddr, IpNumber, &'a [u8]) {
    match net {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!((header.time_to_live, header.dont_fragment, header.identification), (64, true, 0));
            (header.source.into(), header.destination.into(), header.protocol, ip.payload().payload)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.hop_limit, 64);
            (header.source.into(), header.destination.into(), header.next_header, ip.payload().payload)
        }
        NetSlice::Arp(_) => panic!("an ARP packet"),
    }
}

fn check(hop: &Hop, tuple: &Tuple, segment: Segment) {
    let frame = Frame::new(hop, tuple, segment).expect("a frame");
    assert_eq!(frame.interface(), hop.interface);
    let mut packet = SlicedPacket::from_ethernet(frame.bytes()).expect("a whole frame");
    let link = packet.link.as_ref().and_then(etherparse::LinkSlice::to_header).expect("a link header");
    let link = link.ethernet2().expect("Ethernet");
    assert_eq!((link.destination, link.source), (hop.destination, hop.source));
    let tag = packet.vlan().map(|vlan| match vlan {
        VlanSlice::SingleVlan(tag) => {
            u16::from(tag.priority_code_point().value()) << 13
                | u16::from(tag.drop_eligible_indicator()) << 12
                | tag.vlan_identifier().value()
        }
        VlanSlice::DoubleVlan(_) => panic!("two tags"),
    });
    assert_eq!(tag, hop.vlan);
    if let Some(tunnel) = hop.tunnel {
        let (from, to, protocol, inner) = network(packet.net.as_ref().expect("an outer header"));
        let expected = if tuple.from.is_ipv4() { IpNumber::IPV4 } else { IpNumber::IPV6 };
        assert_eq!((from, to, protocol), (tunnel.from, tunnel.to, expected));
        packet = SlicedPacket::from_ip(inner).expect("a whole inner packet");
    }
    let (from, to, protocol, payload) = network(packet.net.as_ref().expect("a network header"));
    assert_eq!((from, to, protocol, payload.len()), (tuple.from.ip(), tuple.to.ip(), IpNumber::TCP, 20));
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
    assert_eq!((tcp.source_port(), tcp.destination_port()), (tuple.from.port(), tuple.to.port()));
    assert!(tcp.payload().is_empty());
    let sum = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            tcp.to_header().calc_checksum_ipv4_raw(from.octets(), to.octets(), &[])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            tcp.to_header().calc_checksum_ipv6_raw(from.octets(), to.octets(), &[])
        }
        _ => panic!("two families"),
    };
    assert_eq!(sum.expect("a sum"), tcp.checksum());
    let header = TcpHeaderSlice::from_slice(payload).expect("a TCP header");
    assert_eq!(read(&header), expected(segment));
}

#[test]
fn every_segment_reads_back_in_both_families_with_tag_and_through_tunnels() {
    let v4 = tuple("203.0.113.10:80", "198.51.100.7:40000");
    let v6 = tuple("[2001:db8::10]:3306", "[2001:db8:1::7]:40000");
    let tunnels = [
        None,
        Some(Tunnel { from: [10, 0, 0, 1].into(), to: [10, 0, 0, 2].into() }),
        Some(Tunnel { from: "fd00::1".parse().expect("v6"), to: "fd00::2".parse().expect("v6") }),
    ];
    let segments = [
        Segment::Syn { sequence: 0 },
        Segment::SynAck { sequence: 1, acknowledgement: u32::MAX },
        Segment::Rst { sequence: 0x8000_0001 },
    ];
    for tuple in [v4, v6] {
        for tunnel in tunnels {
            for vlan in [None, Some(0), Some(0xefff)] {
                for segment in segments {
                    check(&hop(vlan, tunnel), &tuple, segment);
                }
            }
        }
    }
}

#[test]
fn ends_of_different_families_make_no_frame() {
    let syn = Segment::Syn { sequence: 0 };
    let mixed = tuple("10.0.0.1:80", "[2001:db8::7]:40000");
    assert_eq!(Frame::new(&hop(None, None), &mixed, syn), None);
    let tunnel = Tunnel { from: [10, 0, 0, 1].into(), to: "fd00::2".parse().expect("v6") };
    let right = tuple("10.0.0.1:80", "10.0.0.7:40000");
    assert_eq!(Frame::new(&hop(None, Some(tunnel)), &right, syn), None);
}

fn any_tuple() -> impl Strategy<Value = Tuple> {
    let v4 = any::<([u8; 4], u16, [u8; 4], u16)>().prop_map(|(from, from_port, to, to_port)| Tuple {
        from: SocketAddr::new(from.into(), from_port),
        to: SocketAddr::new(to.into(), to_port),
    });
    let v6 = any::<([u8; 16], u16, [u8; 16], u16)>().prop_map(|(from, from_port, to, to_port)| Tuple {
        from: SocketAddr::new(from.into(), from_port),
        to: SocketAddr::new(to.into(), to_port),
    });
    prop_oneof![v4, v6]
}

fn any_segment() -> impl Strategy<Value = Segment> {
    any::<(u8, u32, u32)>().prop_map(|(kind, sequence, acknowledgement)| match kind % 3 {
        0 => Segment::Syn { sequence },
        1 => Segment::SynAck { sequence, acknowledgement },
        _ => Segment::Rst { sequence },
    })
}

proptest! {
    #[test]
    fn any_segment_reads_back_with_both_checksums_right(
        tuple in any_tuple(),
        outer in proptest::option::of(any_tuple()),
        vlan in proptest::option::of(any::<u16>()),
        segment in any_segment(),
    ) {
        let tunnel = outer.map(|outer| Tunnel { from: outer.from.ip(), to: outer.to.ip() });
        check(&hop(vlan, tunnel), &tuple, segment);
    }
}
