//! What the headers of a frame say, of which only the first bytes may be there.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpSlice, TransportSlice};

/// Source and destination.
pub type Ends<T> = (T, T);

/// What the headers of a frame say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The MAC addresses.
    pub macs: Ends<[u8; 6]>,
    /// The addresses of an IP packet.
    pub addresses: Option<Ends<IpAddr>>,
    /// The ports of TCP and UDP.
    pub ports: Option<Ends<u16>>,
    /// What it is: `TCP SYN`, `UDP`, `ARP`, …
    pub what: String,
    /// The outer addresses where an IP packet travels in another one; all the rest is the inner one's.
    pub tunnel: Option<Ends<IpAddr>>,
}

impl Headers {
    /// Read a frame from its Ethernet header on.
    pub fn read(frame: &[u8]) -> Self {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else {
            return Self { what: "a truncated frame".to_owned(), ..Self::default() };
        };
        let macs = match &packet.link {
            Some(LinkSlice::Ethernet2(link)) => (link.source(), link.destination()),
            _ => Default::default(),
        };
        let inner = tunnelled(&packet).and_then(|payload| LaxSlicedPacket::from_ip(payload).ok());
        match inner {
            Some(inner) => Self { macs, tunnel: addresses(&packet), ..Self::of(&inner) },
            None => Self { macs, ..Self::of(&packet) },
        }
    }

    fn of(packet: &LaxSlicedPacket<'_>) -> Self {
        let (ports, what) = match (&packet.transport, &packet.net) {
            (Some(TransportSlice::Tcp(tcp)), _) => {
                (Some((tcp.source_port(), tcp.destination_port())), flags(tcp))
            }
            (Some(TransportSlice::Udp(udp)), _) => {
                (Some((udp.source_port(), udp.destination_port())), "UDP".to_owned())
            }
            (Some(TransportSlice::Icmpv4(icmp)), _) => {
                (None, format!("ICMP type {} code {}", icmp.type_u8(), icmp.code_u8()))
            }
            (Some(TransportSlice::Icmpv6(icmp)), _) => {
                (None, format!("ICMPv6 type {} code {}", icmp.type_u8(), icmp.code_u8()))
            }
            (_, Some(LaxNetSlice::Arp(_))) => (None, "ARP".to_owned()),
            (_, Some(net)) => (None, net.ip_payload_ref().map_or_else(String::new, other)),
            (_, None) => (None, "no IP".to_owned()),
        };
        Self { addresses: addresses(packet), ports, what, ..Self::default() }
    }

    /// Whether an address is among those of the packet or of its tunnel.
    pub fn names(&self, address: IpAddr) -> bool {
        let ends = [self.addresses, self.tunnel];
        ends.into_iter().flatten().any(|(from, to)| from == address || to == address)
    }

    /// Whom it comes from.
    pub fn from(&self) -> String {
        end(self.addresses.map(|(from, _)| from), self.ports.map(|(from, _)| from))
    }

    /// Whom it goes to.
    pub fn to(&self) -> String {
        end(self.addresses.map(|(_, to)| to), self.ports.map(|(_, to)| to))
    }
}

/// `10.0.0.1:40000 → 10.0.0.2:80 TCP SYN`.
impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.addresses.is_none() {
            return f.write_str(&self.what);
        }
        write!(f, "{} → {} {}", self.from(), self.to(), self.what)?;
        match self.tunnel {
            Some((from, to)) => write!(f, " in {from} → {to}"),
            None => Ok(()),
        }
    }
}

/// A MAC address as it is typed.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn end(address: Option<IpAddr>, port: Option<u16>) -> String {
    match (address, port) {
        (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
        (Some(address), None) => address.to_string(),
        (None, _) => "?".to_owned(),
    }
}

/// The packet within a packet.
fn tunnelled<'a>(packet: &LaxSlicedPacket<'a>) -> Option<&'a [u8]> {
    let payload = packet.ip_payload()?;
    let inner = matches!(payload.ip_number, IpNumber::IPV4 | IpNumber::IPV6);
    (inner && !payload.fragmented).then_some(payload.payload)
}

fn addresses(packet: &LaxSlicedPacket<'_>) -> Option<Ends<IpAddr>> {
    match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((header.source_addr().into(), header.destination_addr().into()))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

fn other(payload: &etherparse::LaxIpPayloadSlice<'_>) -> String {
    let protocol = match payload.ip_number {
        IpNumber::TCP => "TCP".to_owned(),
        IpNumber::UDP => "UDP".to_owned(),
        IpNumber::ICMP => "ICMP".to_owned(),
        IpNumber::IPV6_ICMP => "ICMPv6".to_owned(),
        IpNumber(number) => format!("protocol {number}"),
    };
    if payload.fragmented { format!("{protocol} fragment") } else { protocol }
}

fn flags(tcp: &TcpSlice<'_>) -> String {
    let flags = [
        (tcp.syn(), "SYN"),
        (tcp.fin(), "FIN"),
        (tcp.rst(), "RST"),
        (tcp.psh(), "PSH"),
        (tcp.ack(), "ACK"),
        (tcp.urg(), "URG"),
    ];
    let set: Vec<&str> = flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
    format!("TCP {}", set.join(","))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const MACS: Ends<[u8; 6]> = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn written(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).expect("room");
        frame
    }

    #[test]
    fn a_frame_says_who_speaks_to_whom_and_what() {
        let link = || PacketBuilder::ethernet2(MACS.0, MACS.1);
        let syn = link().ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(40_000, 80, 1, 1000).syn();
        let six = link()
            .single_vlan(7.try_into().expect("a VLAN"))
            .ipv6([0xfd; 16], [0xfe; 16], 64)
            .tcp(1, 2, 1, 1000)
            .fin()
            .ack(5);
        let syn = written(syn, &[]);
        let mut inside = link().ipv4([9, 0, 0, 1], [9, 0, 0, 2], 64).tcp(0, 0, 0, 0).size(0);
        let mut tunnel = Vec::new();
        let outer = etherparse::Ipv4Header::new(40, 64, IpNumber::IPV4, [9, 0, 0, 1], [9, 0, 0, 2]);
        tunnel.extend(&syn[..14]);
        outer.expect("a header").write(&mut tunnel).expect("room");
        tunnel.extend(&syn[14..]);
        inside += 20;
        assert_eq!(tunnel.len(), inside);
        let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6]].concat();
        let line = "10.0.0.1:40000 → 10.0.0.2:80 TCP SYN";
        let six_line = "[fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd]:1 → [fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:2 TCP FIN,ACK";
        for (frame, wanted) in [
            (syn.clone(), line.to_owned()),
            (written(six, &[7; 400])[..100].to_vec(), six_line.to_owned()),
            (tunnel, format!("{line} in 9.0.0.1 → 9.0.0.2")),
            (syn[..36].to_vec(), "10.0.0.1 → 10.0.0.2 TCP".to_owned()),
            (arp, "no IP".to_owned()),
            (vec![0; 5], "a truncated frame".to_owned()),
        ] {
            assert_eq!(Headers::read(&frame).to_string(), wanted);
        }
        assert_eq!(Headers::read(&syn).macs, MACS);
    }

    #[test]
    fn an_address_is_found_at_both_ends_and_at_those_of_the_tunnel() {
        let ends = |from: [u8; 4], to: [u8; 4]| Some((IpAddr::from(from), IpAddr::from(to)));
        let headers =
            Headers { addresses: ends([1; 4], [2; 4]), tunnel: ends([3; 4], [4; 4]), ..Headers::default() };
        for (address, named) in
            [([1; 4], true), ([2; 4], true), ([3; 4], true), ([4; 4], true), ([5; 4], false)]
        {
            assert_eq!(headers.names(address.into()), named);
        }
    }
}
