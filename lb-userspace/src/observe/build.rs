//! The packet that a trace sends through the program.

use std::net::IpAddr;

use etherparse::{IpHeaders, Ipv4Header, Ipv6FlowLabel, Ipv6Header, PacketBuilder, ip_number};

use crate::{api::Segment, dataplane::Question, listen::Protocol};

/// A sender's MAC address that nobody has: locally administered.
const SENDER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];
/// Hops that it may make yet.
const HOPS: u8 = 64;
/// A window, a sequence number and one that is acknowledged; no part of a verdict.
const WINDOW: u16 = 65_535;
const SEQUENCE: u32 = 1;
const ACKNOWLEDGED: u32 = 1;

/// A packet from its Ethernet header on, without data, with true checksums. `None`: client and service are of
/// different families.
pub fn packet(question: &Question, receiver: [u8; 6], segment: Segment) -> Option<Vec<u8>> {
    let ip = match (question.client.ip(), question.service.address) {
        (IpAddr::V4(client), IpAddr::V4(service)) => {
            let mut header =
                Ipv4Header::new(0, HOPS, ip_number::TCP, client.octets(), service.octets()).ok()?;
            header.dont_fragment = true;
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        }
        (IpAddr::V6(client), IpAddr::V6(service)) => IpHeaders::Ipv6(
            Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: ip_number::TCP,
                hop_limit: HOPS,
                source: client.octets(),
                destination: service.octets(),
            },
            etherparse::Ipv6Extensions::default(),
        ),
        _ => return None,
    };
    let (from, to) = (question.client.port(), question.port);
    let builder = PacketBuilder::ethernet2(SENDER, receiver).ip(ip);
    let mut packet = Vec::new();
    let written = match (question.service.protocol, segment) {
        (Protocol::Udp, _) => builder.udp(from, to).write(&mut packet, &[]),
        (Protocol::Tcp, Segment::Syn) => {
            builder.tcp(from, to, SEQUENCE, WINDOW).syn().write(&mut packet, &[])
        }
        (Protocol::Tcp, Segment::Ack) => {
            builder.tcp(from, to, SEQUENCE, WINDOW).ack(ACKNOWLEDGED).write(&mut packet, &[])
        }
    };
    written.ok().map(|()| packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{listen::Listen, observe::Headers};

    #[test]
    fn the_packet_is_of_the_services_family_and_protocol() {
        for (client, service, protocol, segment, wanted) in [
            ("198.51.100.7:40000", "203.0.113.10:80", Protocol::Tcp, Segment::Syn, Some("TCP SYN")),
            ("198.51.100.7:40000", "203.0.113.10:80", Protocol::Tcp, Segment::Ack, Some("TCP ACK")),
            ("[2001:db8::7]:40000", "[2001:db8::10]:80", Protocol::Tcp, Segment::Syn, Some("TCP SYN")),
            ("[2001:db8::7]:40000", "[2001:db8::10]:53", Protocol::Udp, Segment::Syn, Some("UDP")),
            ("198.51.100.7:40000", "203.0.113.10:53", Protocol::Udp, Segment::Ack, Some("UDP")),
            ("198.51.100.7:40000", "[2001:db8::10]:80", Protocol::Tcp, Segment::Syn, None),
        ] {
            let at: std::net::SocketAddr = service.parse().expect("an address");
            let question = Question {
                packet: Vec::new(),
                interface: "eth0".to_owned(),
                service: Listen { protocol, ..Listen::tcp(at) },
                port: at.port(),
                client: client.parse().expect("an address"),
            };
            let packet = packet(&question, [2; 6], segment);
            let headers = packet.as_deref().map(|packet| Headers::read(packet).to_string());
            assert_eq!(headers, wanted.map(|what| format!("{client} → {service} {what}")));
        }
    }
}
