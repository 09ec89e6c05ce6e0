//! The lab of `lb`: hosts in network namespaces of their own, the real servers in them, and the clients
//! that the end-to-end tests drive.
//!
//! Nothing touches the root network namespace, and nothing outlives the process that built a lab, however
//! that process ends; [`lab::machine`] says how.

pub mod bench;
pub mod demo;
pub mod lab;
pub mod packets;

pub use lab::{Balancer, Error, Host, Lab, Process, Result, Setup, Site, wait_for};
