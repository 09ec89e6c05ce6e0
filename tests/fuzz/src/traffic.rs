//! Clients and servers of a site: what they say, and where the data path takes it.

use std::sync::{Mutex, PoisonError};

use lb_common::abi::{TCP, mode};
use lb_ebpf::{
    Verdict,
    verdict::{Kind, Way},
};

use crate::{
    Bytes, Site, World,
    packets::{End, Numbered, Segment, ends, flag, frame, tcp, udp},
    site::{SERVER_PORT, SERVICE_PORT, SOURCES, cells, front, plan_of, server, source},
    world::Has,
};

/// Servers begin with this sequence number.
const SERVER_ISN: u32 = 1_000;

/// Ways that are remembered for servers to answer by.
const REMEMBERED: usize = 64;

/// What one side says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A SYN (from a server: SYN and ACK), or a datagram.
    Begin,
    /// An ACK without data, or a datagram.
    Acknowledge,
    /// Data, or a datagram.
    Speak,
    /// A FIN, or a datagram.
    Finish,
    /// A RST, or a datagram.
    Abort,
}

impl Said {
    /// All of it.
    pub const ALL: [Self; 5] = [Self::Begin, Self::Acknowledge, Self::Speak, Self::Finish, Self::Abort];
}

/// Where a client's packet came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken<A> {
    /// The client.
    pub client: End<A>,
    /// The service.
    pub service: u16,
    /// The (service, backend) pair.
    pub pair: u16,
    /// In `snat`: the tuple that the server sees, and the port cell that it belongs to.
    pub tuple: Option<(End<A>, u32)>,
}

/// The traffic of one family.
pub struct Traffic<'a, A> {
    /// The site.
    pub site: Site,
    /// Its world.
    pub world: &'a World,
    ways: Mutex<Vec<Taken<A>>>,
}

impl<'a, A: Numbered> Traffic<'a, A>
where
    World: Has<A>,
{
    /// No traffic yet.
    pub fn new(site: Site, world: &'a World) -> Self {
        Self { site, world, ways: Mutex::new(Vec::new()) }
    }

    /// A client says something to a service; where it went, if it went to a server.
    pub fn ask(&self, client: End<A>, service: u16, said: Said) -> Option<Taken<A>> {
        let began = self.world.claims.as_ref().map(crate::claims::Claims::moment);
        let to = front::<A>(service);
        let packet = if plan_of(service).protocol == TCP {
            let (sequence, acknowledgement) = (5_001, SERVER_ISN + 1);
            let segment = match said {
                Said::Begin => Segment { flags: flag::SYN, sequence: 5_000, ..Segment::default() },
                Said::Acknowledge => Segment { flags: flag::ACK, sequence, acknowledgement, data: b"" },
                Said::Speak => Segment { flags: flag::ACK, sequence, acknowledgement, data: b"data" },
                Said::Finish => {
                    Segment { flags: flag::FIN | flag::ACK, sequence, acknowledgement, data: b"" }
                }
                Said::Abort => Segment { flags: flag::RST, sequence, ..Segment::default() },
            };
            tcp(client, to, &segment)
        } else {
            udp(client, to, b"question")
        };
        let mut packet = Bytes::new(&frame::<A>(&packet, &[]));
        let Verdict { kind: Kind::Forward, backend: pair, way, .. } = self.world.run(&mut packet) else {
            return None;
        };
        assert_eq!(way, Way::In);
        let taken = self.taken(client, service, pair, packet.packet());
        if let (Some((_, cell)), Some(claims), Some(began)) = (taken.tuple, &self.world.claims, began) {
            assert!(
                claims.held(cell, client.address, client.port, pair, began),
                "{said:?} of {client:?} left by cell {cell}, which was somebody else's: {taken:?}"
            );
        }
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if ways.len() == REMEMBERED {
            ways.remove(0);
        }
        ways.push(taken);
        Some(taken)
    }

    /// Check what came out, and tell where it went.
    fn taken(&self, client: End<A>, service: u16, pair: u16, packet: &[u8]) -> Taken<A> {
        let plan = plan_of(service);
        let number = plan.backends.iter().find(|(id, _)| *id == pair).map(|(_, number)| *number);
        let number = number.unwrap_or_else(|| panic!("pair {pair} is not of service {service}"));
        let there = End { address: server::<A>(number), port: SERVER_PORT };
        let mut tuple = None;
        if plan.mode != mode::IPIP {
            let (from, to) = ends::<A>(packet).expect("what was forwarded has ends");
            let (expected_from, expected_to) = match plan.mode {
                mode::SNAT => (from, there),
                mode::DNAT => (client, there),
                _ => (client, front(service)),
            };
            assert_eq!((from, to), (expected_from, expected_to), "service {service}");
            if plan.mode == mode::SNAT {
                tuple = Some((from, self.cell(number, plan.protocol, from)));
            }
        }
        Taken { client, service, pair, tuple }
    }

    /// The port cell of a source of ours towards a server.
    fn cell(&self, number: u16, protocol: u8, from: End<A>) -> u32 {
        let place = (1..=SOURCES).find(|place| source::<A>(*place) == from.address);
        let place = place.unwrap_or_else(|| panic!("{from:?} is no source of ours"));
        let port = self.site.ports.index(from.port).unwrap_or_else(|| panic!("{from:?} is no port of ours"));
        cells(number, protocol, self.site.ports) + u32::from(place - 1) * self.site.ports.count() + port
    }

    /// One of the ways that packets went lately.
    pub fn way(&self, choice: u64) -> Option<Taken<A>> {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if ways.is_empty() { None } else { Some(ways[choice as usize % ways.len()]) }
    }

    /// The server at the end of a way says something; the client that heard it, if one did.
    pub fn answer(&self, by: &Taken<A>, said: Said) -> Option<End<A>> {
        let plan = plan_of(by.service);
        if mode::is_one_sided(plan.mode) {
            return None;
        }
        let number = plan.backends.iter().find(|(id, _)| *id == by.pair).map(|(_, number)| *number)?;
        let from = End { address: server::<A>(number), port: SERVER_PORT };
        let to = by.tuple.map_or(by.client, |(source, _)| source);
        let packet = if plan.protocol == TCP {
            let (sequence, acknowledgement) = (SERVER_ISN + 1, 5_001);
            let segment = match said {
                Said::Begin => {
                    Segment { flags: flag::SYN | flag::ACK, sequence: SERVER_ISN, acknowledgement, data: b"" }
                }
                Said::Acknowledge => Segment { flags: flag::ACK, sequence, acknowledgement, data: b"" },
                Said::Speak => Segment { flags: flag::ACK, sequence, acknowledgement, data: b"answer" },
                Said::Finish => {
                    Segment { flags: flag::FIN | flag::ACK, sequence, acknowledgement, data: b"" }
                }
                Said::Abort => Segment { flags: flag::RST, sequence, ..Segment::default() },
            };
            tcp(from, to, &segment)
        } else {
            udp(from, to, b"answer")
        };
        let mut packet = Bytes::new(&frame::<A>(&packet, &[]));
        let Verdict { kind: Kind::Forward, way, .. } = self.world.run(&mut packet) else { return None };
        assert_eq!(way, Way::Out);
        let (from, to) = ends::<A>(packet.packet()).expect("what was forwarded has ends");
        assert_eq!(from.port, SERVICE_PORT);
        Some(to)
    }
}
