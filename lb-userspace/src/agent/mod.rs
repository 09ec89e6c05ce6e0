//! The agent: one task owns what is wanted, everybody else sends it events.
//!
//! Probers, the netlink watcher, the API and the clock only tell what they saw; [`controller`] alone decides, and hands
//! the whole desired state to the data path's task, which finds the differences. So there is one place where a state
//! changes, and one line in the log for each change.

pub mod advice;
mod answers;
mod askers;
mod clusters;
mod controller;
mod cuts;
mod decisions;
mod descriptors;
mod evidence;
mod explain;
mod handshakes;
mod journal;
mod keys;
mod leases;
mod links;
pub mod machine;
pub mod members;
mod observe;
mod orders;
mod outbox;
mod pressure;
mod prober_thread;
mod probers;
mod publication;
mod reload;
mod report;
mod requests;
mod rhythm;
mod services;
mod shares;
mod sources;
pub mod start;
mod state;
mod through;
mod trace;
mod ways;
mod wishes;

use std::time::Instant;

use crate::{
    api,
    dataplane::task::Notice,
    netlink::{Interface, NextHopChanged},
    probe::{Failure, galera::Sample},
};

pub use cuts::CUT_WITHIN;
pub use start::{StartError, World, start};

/// All that the controller reacts to.
#[derive(Debug)]
pub enum Event {
    /// A backend's health was probed.
    Checked {
        /// Which.
        at: probers::BackendAt,
        /// When it was asked.
        begun: Instant,
        /// What came of it.
        result: Result<(), Failure>,
    },
    /// A backend's load was sampled.
    Loaded {
        /// Which.
        at: probers::BackendAt,
        /// What came of it.
        result: Result<probers::Measured, Failure>,
    },
    /// A database node was asked.
    Sampled {
        /// Which.
        at: probers::NodeAt,
        /// What came of it.
        result: Result<Box<Sample>, Failure>,
    },
    /// The way to a backend has changed.
    Hop(NextHopChanged),
    /// The interfaces of this host have changed; all of them.
    Links(Vec<Interface>),
    /// The data path has something to say.
    Notice(Notice),
    /// A source of discovery tells who serves.
    Members(members::Members),
    /// The source of a service's backends is in trouble, or well again.
    Source {
        /// The service.
        service: String,
        /// What is wrong, as a sentence; `None`: nothing any more.
        trouble: Option<String>,
    },
    /// The configuration's files have changed.
    FilesChanged,
    /// SIGHUP: read the configuration again. While `lb confirm` is awaited it means that the terminal has gone, and with
    /// it whoever could confirm.
    Hangup,
    /// An operator wants something.
    Request(api::Request),
    /// A second has passed.
    Tick,
    /// The agent shall end; the data path runs on.
    Stop,
}
