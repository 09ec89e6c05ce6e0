//! Packets for people: what a frame's headers say, two looks at a packet put together, a file for Wireshark, lines for a
//! terminal.

pub mod build;
pub mod capture;
mod headers;
pub mod pairs;
mod pcapng;
pub mod text;

pub use headers::{Headers, mac};
pub use pcapng::{Direction, Frame, Writer};
