//! The data path of `lb` as a pure library: the same source runs in the kernel, in host tests and under a fuzzer.
//!
//! It is generic over [`Frame`], the bytes of one packet, [`Tables`], the maps, clock and chance, and
//! [`Family`], IPv4 or IPv6. The kernel's shell around it (`main.rs`) implements the first two over an `xdp_md` and BPF
//! maps; tests implement them over vectors.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

mod answer;
pub mod checksum;
pub mod claim;
mod connect;
pub mod deliver;
pub mod explain;
pub mod family;
pub mod flows;
pub mod fragment;
pub mod icmp;
mod lookup;
mod parse;
mod quote;
mod record;
mod reply;
mod request;
mod reset;
mod rewrite;
pub mod seat;
pub mod select;
mod settled;
pub mod source_rate;
mod steady;
mod step;
pub mod tables;
mod tell;
pub mod tunnel;
pub mod verdict;

use lb_common::{Be32, Be128, Reason, plain::Plain, program::Stage};

use answer::to_client_of_flow;
use connect::begin;
use family::{ETHERNET, Family, Link, link};
use lookup::{Direction, look_up};
use parse::{Parsed, parse};
use reply::to_client;
use request::to_backend;
use reset::reset;
use rewrite::rewrite;
use select::Candidate;
use steady::{Steady, steady};

use tables::hand_over;
pub use tables::{Tables, World};
pub use verdict::{Complaint, Parcel, Verdict};

/// The bytes of one packet, from the Ethernet header on.
pub trait Frame {
    /// The value at `offset`, if it lies within the packet.
    fn load<T: Plain>(&self, offset: usize) -> Option<T>;
    /// Overwrite the value at `offset`, if it lies within the packet.
    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()>;
    /// The ones' complement sum of `length` bytes from `offset` on, not folded (RFC 1071).
    fn sum(&self, offset: usize, length: usize) -> Option<u32>;
    /// Bytes of the packet, those in further buffers included.
    fn length(&self) -> usize;
    /// Cut the packet to its first `length` bytes.
    fn truncate(&mut self, length: usize) -> Option<()>;
    /// What follows IPv6's extension headers: [`family::walk`].
    fn walk(&self, offset: usize, protocol: u8) -> u64;
    /// Make room for `length` bytes in front of the packet.
    fn prepend(&mut self, length: usize) -> Option<()>;
    /// Take `length` bytes from the front of the packet.
    fn strip(&mut self, length: usize) -> Option<()>;
}

/// The entry: untagged IPv4 is balanced here, what else may be ours goes on to a stage of its own. Another station's
/// frame, which this one happens to see, is left alone.
#[inline(always)]
pub fn enter<F: Frame, T: Tables<Be32>>(frame: &mut F, tables: &T) -> Verdict {
    if !frame.load::<u64>(0).is_some_and(|head| tables.stations().take(head)) {
        return Verdict::PASS;
    }
    match link(frame) {
        Some(Link::Ipv4 { header: ETHERNET, .. }) => balance::<Be32, F, T>(frame, tables),
        Some(Link::Ipv4 { .. }) => Verdict::proceed(Stage::Hear),
        Some(Link::Ipv6 { header: ETHERNET, .. }) => Verdict::proceed(Stage::Ipv6),
        Some(Link::Ipv6 { .. }) => Verdict::proceed(Stage::HearIpv6),
        None => Verdict::PASS,
    }
}

/// A stage of a packet's way other than [`enter`], for worlds without tail calls.
pub fn proceed<F: Frame, T: Tables<Be32> + Tables<Be128>>(
    stage: Stage,
    frame: &mut F,
    tables: &T,
) -> Verdict {
    match stage {
        Stage::Ipv6 => balance::<Be128, F, T>(frame, tables),
        Stage::Hear => hear::<Be32, F, T>(frame, tables),
        Stage::HearIpv6 => hear::<Be128, F, T>(frame, tables),
        Stage::Turn => turn::<Be32, F, T>(frame, tables),
        Stage::TurnIpv6 => turn::<Be128, F, T>(frame, tables),
        Stage::Connect => connect::<Be32, F, T>(frame, tables),
        Stage::ConnectIpv6 => connect::<Be128, F, T>(frame, tables),
        Stage::Claim => claim_port::<Be32, F, T>(frame, tables),
        Stage::ClaimIpv6 => claim_port::<Be128, F, T>(frame, tables),
        Stage::Record => record_flow::<Be32, F, T>(frame, tables),
        Stage::RecordIpv6 => record_flow::<Be128, F, T>(frame, tables),
        Stage::Send => send::<Be32, F, T>(frame, tables),
        Stage::SendIpv6 => send::<Be128, F, T>(frame, tables),
        Stage::Return => give_back::<Be32, F, T>(frame, tables),
        Stage::ReturnIpv6 => give_back::<Be128, F, T>(frame, tables),
        Stage::Refuse => refuse::<Be32, F, T>(frame, tables),
        Stage::RefuseIpv6 => refuse::<Be128, F, T>(frame, tables),
        Stage::Icmp => icmp::icmp::<Be32, F, T>(frame, tables),
        Stage::IcmpIpv6 => icmp::icmp::<Be128, F, T>(frame, tables),
        Stage::Quote => icmp::quoted::<Be32, F, T>(frame, tables),
        Stage::QuoteIpv6 => icmp::quoted::<Be128, F, T>(frame, tables),
        Stage::Carry => icmp::carried::<Be32, F, T>(frame, tables),
        Stage::CarryIpv6 => icmp::carried::<Be128, F, T>(frame, tables),
        Stage::Tunnel => tunnel::tunnelled::<Be32, F, T>(frame, tables),
        Stage::TunnelIpv6 => tunnel::tunnelled::<Be128, F, T>(frame, tables),
        Stage::Fragment => fragment::follow::<Be32, F, T>(frame, tables),
        Stage::FragmentIpv6 => fragment::follow::<Be128, F, T>(frame, tables),
        Stage::Explain => explain::explain::<Be32, F, T>(frame, tables),
        Stage::ExplainIpv6 => explain::explain::<Be128, F, T>(frame, tables),
    }
}

/// The whole way of an untagged packet of a connection that goes on as it is: parse, look up, rewrite, forward.
#[inline(always)]
pub fn balance<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match parse::<A, F>(frame, ETHERNET, 0) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    match steady(&packet, tables) {
        Steady::Onward(route) => rewrite(frame, &packet, &route, tables),
        Steady::Heard => Verdict::proceed(A::STAGES.hear),
        Steady::Turning => Verdict::proceed(A::STAGES.turn),
        Steady::NotOurs => Verdict::PASS,
        Steady::Malformed => Verdict::note(0, Reason::Malformed),
    }
}

/// The way of a backend's packet that moves its connection on, and of any packet behind VLAN tags.
#[inline(always)]
pub fn hear<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    match look_up(&packet, tables) {
        Direction::Neither => Verdict::PASS,
        _ if packet.lacks_checksum() => Verdict::note(0, Reason::Malformed),
        Direction::Reply(held) => to_client(&packet, &held, tables).take::<A, T>(tables),
        Direction::Answer(found) => to_client_of_flow(&packet, &found, tables).take::<A, T>(tables),
        Direction::Request(_) => Verdict::proceed(A::STAGES.turn),
    }
}

/// The way of a client's packet that moves its connection on.
#[inline(always)]
pub fn turn<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    match lookup::service(packet.destination(), packet.destination_port(), packet.protocol, tables) {
        Some(service) => to_backend(&packet, &service, tables).take::<A, T>(tables),
        None => Verdict::PASS,
    }
}

/// The way of a client's packet that begins a connection, or that nothing is known of.
#[inline(always)]
pub fn connect<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    match lookup::service(packet.destination(), packet.destination_port(), packet.protocol, tables) {
        Some(service) => begin(&packet, &service, tables).take::<A, T>(tables),
        None => Verdict::PASS,
    }
}

/// A source port for a packet's connection.
#[inline(always)]
pub fn claim_port<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    let parcel = tables.handed_over();
    match claim::take_port(&packet, parcel.service, parcel.backend, tables) {
        Ok(way) => hand_over(tables, A::STAGES.record, Parcel { way, ..parcel }),
        Err(step) => step.take::<A, T>(tables),
    }
}

/// A record of a packet's connection.
#[inline(always)]
pub fn record_flow<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    record::keep(&packet, &tables.handed_over(), tables).take::<A, T>(tables)
}

/// The way of a packet to the backend that the stage before has named.
#[inline(always)]
pub fn send<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    let Parcel { service, backend: id, way, .. } = tables.handed_over();
    let route = match tables.backend(id) {
        Some(backend) => request::route(&packet, &Candidate { id, backend }, way, tables),
        None => None,
    };
    match route {
        Some(route) => rewrite(frame, &packet, &route, tables),
        None => Verdict::drop(service, Reason::NextHopUnresolved),
    }
}

/// The way of a packet back to its client, whatever it says: the stage before has judged it.
#[inline(always)]
pub fn give_back<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    match steady::answered(&packet, tables) {
        Some(route) => rewrite(frame, &packet, &route, tables),
        None => Verdict::drop(tables.handed_over().service, Reason::ReplyWithoutFlow),
    }
}

/// Turn a packet into a RST to its sender; for what reason, [`World::handed_over`] says.
#[inline(always)]
pub fn refuse<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    match again(frame, tables) {
        Parsed::Packet(packet) => {
            let Parcel { service, reason, .. } = tables.handed_over();
            reset(frame, &packet, service, reason, tables)
        }
        other => other.verdict(),
    }
}

/// Read a packet that another stage has read already, wherever its IP header begins.
#[inline(always)]
fn again<A: Family, F: Frame, T: Tables<A>>(frame: &F, tables: &T) -> Parsed<A> {
    match link(frame) {
        Some(Link::Ipv4 { header, vlan } | Link::Ipv6 { header, vlan }) => {
            parse::<A, F>(frame, tables.vague(header), vlan)
        }
        None => Parsed::Other,
    }
}
