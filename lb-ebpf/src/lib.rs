//! The data path of `lb` as a pure library: the same source runs in the kernel, in host tests and under a fuzzer.
//!
//! It is generic over [`Frame`], the bytes of one packet, and [`Tables`], the maps, clock and chance. The kernel's
//! shell around it (`main.rs`) implements the two over an `xdp_md` and BPF maps; tests implement them over vectors.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod checksum;
mod claim;
mod lookup;
mod parse;
mod reply;
mod request;
mod reset;
mod rewrite;
mod select;
pub mod tables;
pub mod verdict;

use lb_common::{Reason, plain::Plain};

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
    /// Cut the packet to its first `length` bytes.
    fn truncate(&mut self, length: usize) -> Option<()>;
}

/// The whole way of a packet: parse, look up, and follow its direction.
#[inline(always)]
pub fn balance<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let packet = match parse::parse(frame) {
        parse::Parsed::Tcp(packet) => packet,
        parse::Parsed::Other => return Verdict::Pass,
        parse::Parsed::Malformed => return Verdict::Note(0, Reason::Malformed),
    };
    match lookup::look_up(&packet, tables) {
        lookup::Direction::Reply(cell) => reply::to_client(frame, &packet, cell, tables),
        lookup::Direction::Request(service) => request::to_backend(frame, &packet, &service, tables),
        lookup::Direction::Neither => Verdict::Pass,
    }
}
