//! Packet tables: packet in, verdict and packet out, with every counter that moves.
//!
//! A [`Case`] says what the tables hold, which packets come in, and what becomes of each, for IPv4 and IPv6 at once. The
//! same case runs in two worlds: [`Model`] is the data path's library over collections of `std`; [`Kernel`] is the
//! loaded programs over real maps, run packet by packet by the kernel's own test-run
//! (Documentation/bpf/bpf_prog_run.rst). What a case expects is computed here from scratch, by code that shares nothing
//! with the data path.

pub mod agree;
pub mod case;
pub mod cases;
mod check;
pub mod checksum;
pub mod connection;
pub mod differential;
pub mod ends;
pub mod expect;
pub mod expected;
pub mod fact;
pub mod frame;
pub mod kernel;
mod kernel_family;
pub mod kind;
pub mod layout;
pub mod message;
pub mod model;
mod model_family;
pub mod object;
pub mod scene;
pub mod segment;
pub mod traffic;
pub mod world;

pub use case::{Case, run_all};
pub use connection::Life;
pub use expect::Expect;
pub use fact::Fact;
pub use kernel::Kernel;
pub use model::Model;
pub use segment::{Segment, Sum};
pub use world::{Action, Store, World};
