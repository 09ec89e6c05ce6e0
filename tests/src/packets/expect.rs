//! What becomes of a packet, in words.

use std::net::SocketAddrV4;

use lb_common::Reason;

use super::scene::{self, WEB_ID};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to the host, untouched.
    Untouched,
    /// It goes nowhere, untouched.
    Dropped,
    /// It goes to one of these backends, from the port that its client holds there.
    ToOneOf(&'static [u32]),
    /// It goes from this backend to the client that holds the port.
    ToClient(u32, SocketAddrV4),
    /// Its sender gets a RST with these numbers.
    Reset(u32, Option<u32>),
}

/// What becomes of a packet, and everything that is counted.
#[derive(Clone, Debug)]
pub struct Expect {
    pub(super) outcome: Outcome,
    pub(super) counted: Vec<(u32, Reason)>,
    pub(super) opened: Vec<u32>,
    pub(super) closed: Vec<u32>,
    pub(super) opens_it: bool,
}

/// It goes to the host, untouched and uncounted.
pub fn untouched() -> Expect {
    Expect {
        outcome: Outcome::Untouched,
        counted: Vec::new(),
        opened: Vec::new(),
        closed: Vec::new(),
        opens_it: false,
    }
}

/// It goes nowhere.
pub fn dropped(reason: Reason) -> Expect {
    Expect { outcome: Outcome::Dropped, ..untouched() }.counted(WEB_ID, reason)
}

/// It goes to this backend.
pub fn to_backend(backend: u32) -> Expect {
    let one: &'static [u32] = match backend {
        scene::A => &[scene::A],
        scene::B => &[scene::B],
        _ => &[scene::A2],
    };
    Expect { outcome: Outcome::ToOneOf(one), ..untouched() }
}

/// It goes to one of these backends.
pub fn to_one_of(backends: &'static [u32]) -> Expect {
    Expect { outcome: Outcome::ToOneOf(backends), ..untouched() }
}

/// It goes from this backend to [`scene::CLIENT`].
pub fn to_client(backend: u32) -> Expect {
    Expect { outcome: Outcome::ToClient(backend, scene::CLIENT), ..untouched() }
}

/// Its sender gets a RST.
pub fn reset(reason: Reason, seq: u32, ack: Option<u32>) -> Expect {
    reset_on(WEB_ID, reason, seq, ack)
}

/// Its sender gets a RST, which another service counts.
pub fn reset_on(service: u32, reason: Reason, seq: u32, ack: Option<u32>) -> Expect {
    Expect { outcome: Outcome::Reset(seq, ack), ..untouched() }.counted(service, reason)
}

impl Expect {
    /// It goes to another client.
    pub fn of(self, client: SocketAddrV4) -> Self {
        let Outcome::ToClient(backend, _) = self.outcome else { panic!("{self:?} goes to no client") };
        Self { outcome: Outcome::ToClient(backend, client), ..self }
    }

    /// One more of a reason is counted.
    pub fn counted(mut self, service: u32, reason: Reason) -> Self {
        self.counted.push((service, reason));
        self
    }

    /// A connection of a backend is opened.
    pub fn opens(mut self, backend: u32) -> Self {
        self.opened.push(backend);
        self
    }

    /// A connection of whichever backend it goes to is opened.
    pub fn opens_it(self) -> Self {
        Self { opens_it: true, ..self }
    }

    /// A connection of a backend is closed.
    pub fn closes(mut self, backend: u32) -> Self {
        self.closed.push(backend);
        self
    }
}
