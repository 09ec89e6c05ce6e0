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
mod deliver;
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
mod seat;
pub mod select;
mod settled;
pub mod source_rate;
mod steady;
pub mod tables;
mod tell;
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
use rewrite::{Step, rewrite};
use select::Candidate;
use steady::{Steady, steady};

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
    /// Make room for `length` bytes in front of the packet.
    fn prepend(&mut self, length: usize) -> Option<()>;
    /// Take `length` bytes from the front of the packet.
    fn strip(&mut self, length: usize) -> Option<()>;
}

/// The entry: untagged IPv4 is balanced here, what else may be ours goes on to a stage of its own.
#[inline(always)]
pub fn enter<F: Frame, T: Tables<Be32>>(frame: &mut F, tables: &T) -> Verdict {
    match link(frame) {
        Some(Link::Ipv4 { header: ETHERNET, .. }) => balance::<Be32, F, T>(frame, tables),
        Some(Link::Ipv4 { .. }) => Verdict::Continue(Stage::Hear),
        Some(Link::Ipv6 { header: ETHERNET, .. }) => Verdict::Continue(Stage::Ipv6),
        Some(Link::Ipv6 { .. }) => Verdict::Continue(Stage::HearIpv6),
        None => Verdict::Pass,
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
        Stage::Send => send::<Be32, F, T>(frame, tables),
        Stage::SendIpv6 => send::<Be128, F, T>(frame, tables),
        Stage::Refuse => refuse::<Be32, F, T>(frame, tables),
        Stage::RefuseIpv6 => refuse::<Be128, F, T>(frame, tables),
        Stage::Icmp => icmp::icmp::<Be32, F, T>(frame, tables),
        Stage::Icmpv6 => icmp::icmp::<Be128, F, T>(frame, tables),
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
        Steady::Heard => Verdict::Continue(A::STAGES.hear),
        Steady::Turning => Verdict::Continue(A::STAGES.turn),
        Steady::NotOurs => Verdict::Pass,
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
        Direction::Reply(held) => decided::<A>(to_client(&packet, &held, tables)),
        Direction::Answer(found) => decided::<A>(to_client_of_flow(&packet, &found, tables)),
        Direction::Request(_) => Verdict::Continue(A::STAGES.turn),
        Direction::Neither => Verdict::Pass,
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
        Some(service) => decided::<A>(to_backend(&packet, &service, tables)),
        None => Verdict::Pass,
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
        Some(service) => decided::<A>(begin(&packet, &service, tables)),
        None => Verdict::Pass,
    }
}

/// The way of a packet that the stage before has judged: to the backend that it names, or back to a client.
#[inline(always)]
pub fn send<A: Family, F: Frame, T: Tables<A>>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match again(frame, tables) {
        Parsed::Packet(packet) => packet,
        other => return other.verdict(),
    };
    let Parcel { service, backend, way, .. } = tables.handed_over();
    let route = if backend == 0 {
        steady::answered(&packet, tables)
    } else {
        let found = tables.backend(backend);
        found.and_then(|found| {
            request::route(&packet, &Candidate { id: backend, backend: found }, way, tables)
        })
    };
    match route {
        Some(route) => rewrite(frame, &packet, &route, tables),
        None => Verdict::Drop(service, Reason::NextHopUnresolved),
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

/// What becomes of a packet that is not rewritten here: another stage does it, with a stack of its own.
#[inline(always)]
const fn decided<A: Family>(step: Step) -> Verdict {
    match step {
        Step::Connect => Verdict::Continue(A::STAGES.connect),
        Step::Send(service, backend, way) => {
            Verdict::HandOver(A::STAGES.send, Parcel::sending(service, backend, way))
        }
        Step::Reset(service, reason) => {
            Verdict::HandOver(A::STAGES.refuse, Parcel::refusal(service, reason, Complaint::NONE))
        }
        Step::Explain(service, reason, complaint) => {
            Verdict::HandOver(A::STAGES.explain, Parcel::refusal(service, reason, complaint))
        }
        Step::Drop(service, reason) => Verdict::Drop(service, reason),
    }
}
