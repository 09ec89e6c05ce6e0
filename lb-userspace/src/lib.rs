//! The agent of `lb`, as a library: the binary only wires its parts together.
#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod cut;
pub mod dataplane;
pub mod discovery;
pub mod health;
pub mod init;
pub mod listen;
pub mod netlink;
pub mod observe;
pub mod probe;
pub mod ring;
pub mod weights;
