//! What becomes of a packet: decided once inside, translated and counted once at the edge.

use lb_common::Reason;

/// Which way a forwarded packet goes, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the backend.
    In,
    /// From the backend to the client.
    Out,
}

/// The end of a packet's way through the data path.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: to the host, untouched and uncounted.
    Pass,
    /// Not for us to handle, but worth a count (service, reason): to the host, untouched.
    Note(u32, Reason),
    /// Dropped (service, reason).
    Drop(u32, Reason),
    /// Turned into an answer to its sender (service, reason): out by the interface that it came in by.
    Answer(u32, Reason),
    /// Rewritten.
    Forward {
        /// The (service, backend) pair.
        backend: u32,
        /// Id of the interface to leave by.
        interface: u16,
        /// Bytes of IP.
        bytes: u16,
        /// Which way.
        way: Way,
    },
}
