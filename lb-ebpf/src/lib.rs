//! The data path of `lb` as a pure library: the same source runs in the kernel, in host tests and under a fuzzer.
//!
//! It is generic over [`Frame`], the bytes of one packet, and [`Tables`], the maps, clock and chance. The kernel's
//! shell around it (`main.rs`) implements the two over an `xdp_md` and BPF maps; tests implement them over vectors.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod claim;
mod lookup;
mod parse;
mod reply;
mod request;
mod reset;
mod rewrite;
pub mod select;
pub mod tables;
pub mod verdict;

use lb_common::{Reason, plain::Plain};
use lookup::{Direction, look_up};
use parse::{Parsed, parse};
use reply::to_client;
use request::to_backend;
use reset::reset;
use rewrite::{Step, rewrite};

pub use tables::{Found, Tables};
pub use verdict::Verdict;

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
}

/// The whole way of a packet: parse, look up, find its route, rewrite.
#[inline(always)]
pub fn balance<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match parse(frame) {
        Parsed::Tcp(packet) => packet,
        Parsed::Other => return Verdict::Pass,
        Parsed::Fragment => return Verdict::Note(0, Reason::Fragment),
        Parsed::Malformed => return Verdict::Note(0, Reason::Malformed),
    };
    let step = match look_up(&packet, tables) {
        Direction::Reply(held) => to_client(&packet, &held, tables),
        Direction::Request(service) => to_backend(&packet, &service, tables),
        Direction::Neither => return Verdict::Pass,
    };
    match step {
        Step::Onward(route) => rewrite(frame, &packet, &route, tables),
        Step::Reset(service, reason) => reset(frame, &packet, service, reason, tables),
        Step::Drop(service, reason) => Verdict::Drop(service, reason),
    }
}
