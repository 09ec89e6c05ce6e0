//! What a packet socket has seen, read from its IP header on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const IPV6_HEADER: usize = 40;

/// A backend's answer to a SYN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A SYN with ACK; a RST with this sequence number ends the handshake.
    Accepted { next: u32 },
    /// A RST.
    Refused,
}

/// A TCP segment that acknowledges something and is a SYN or a RST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub acknowledgement: u32,
    refuses: bool,
}

impl Reply {
    /// Reads a packet; `None` if it is anything else, or cut short.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (from, to, segment) = match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet[0] & 0xf) * 4;
                let address =
                    |at: usize| Some(IpAddr::from(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?)));
                (*packet.get(9)? == TCP).then_some(())?;
                (address(12)?, address(16)?, packet.get(header..)?)
            }
            6 => {
                let address =
                    |at: usize| Some(IpAddr::from(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?)));
                (*packet.get(6)? == TCP).then_some(())?;
                (address(8)?, address(24)?, packet.get(IPV6_HEADER..)?)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(*segment.get(at..)?.first_chunk()?));
        let flags = *segment.get(13)?;
        let acknowledges = flags & ACK != 0 && flags & (SYN | RST) != 0;
        acknowledges.then_some(Self {
            from: SocketAddr::new(from, port(0)?),
            to: SocketAddr::new(to, port(2)?),
            acknowledgement: u32::from_be_bytes(*segment.get(8..)?.first_chunk()?),
            refuses: flags & RST != 0,
        })
    }

    /// What it says to the SYN.
    pub fn answer(&self) -> Answer {
        if self.refuses { Answer::Refused } else { Answer::Accepted { next: self.acknowledgement } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::{Frame, Hop, Segment, Tuple};

    /// Frames of the agent's own making, from the IP header on.
    fn packet(from: &str, to: &str, segment: Segment) -> Vec<u8> {
        let hop = Hop { interface: 1, source: [2; 6], destination: [4; 6], vlan: None, tunnel: None };
        let tuple = Tuple { from: from.parse().unwrap(), to: to.parse().unwrap() };
        Frame::new(&hop, &tuple, segment).unwrap().bytes()[14..].to_vec()
    }

    #[test]
    fn a_syn_with_ack_is_read_in_both_families_and_nothing_else_is() {
        for (from, to) in
            [("203.0.113.10:80", "10.0.0.1:28001"), ("[2001:db8::10]:443", "[2001:db8:1::1]:31999")]
        {
            let accepted = packet(from, to, Segment::SynAck { sequence: 7, acknowledgement: 0xfeed_f00d });
            let reply = Reply::read(&accepted).unwrap();
            assert_eq!((reply.from, reply.to), (from.parse().unwrap(), to.parse().unwrap()));
            assert_eq!(reply.acknowledgement, 0xfeed_f00d);
            assert_eq!(reply.answer(), Answer::Accepted { next: 0xfeed_f00d });
            for length in 0..accepted.len() - 6 {
                assert_eq!(Reply::read(&accepted[..length]), None, "{length}");
            }
            assert_eq!(Reply::read(&packet(from, to, Segment::Syn { sequence: 7 })), None);
            assert_eq!(
                Reply::read(&packet(from, to, Segment::Rst { sequence: 7 })),
                None,
                "a RST without ACK"
            );
            let mut refused = accepted;
            let flags = refused.len() - 7;
            refused[flags] = RST | ACK;
            assert_eq!(Reply::read(&refused).unwrap().answer(), Answer::Refused);
        }
    }
}
