//! What becomes of a packet, in words.

use std::net::SocketAddrV4;

use lb_common::{Reason, event::Event};

use super::{
    message::Trouble,
    scene::{self, CLIENT, WEB_ID},
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to the host, untouched.
    Untouched,
    /// It goes nowhere, untouched.
    Dropped,
    /// It goes to one of these backends, as the mode says; in `snat` from the port that its client holds there.
    ToOneOf(&'static [u16]),
    /// It goes from this backend to the client that holds the port or the flow.
    ToClient(u16, SocketAddrV4),
    /// Its sender gets a RST with these numbers.
    Reset(u32, Option<u32>),
    /// Its sender gets an answer to its echo request.
    Echoed,
    /// Its sender gets an ICMP error.
    Complained(Trouble),
    /// An ICMP error goes on to the client whose packet it quotes.
    ErrorToClient(u16, SocketAddrV4),
    /// An ICMP error goes on to the backend whose packet it quotes.
    ErrorToBackend(u16, SocketAddrV4),
    /// "Too big" about a tunnel goes on to the client whose packet was in it, with what fits.
    Untunnelled(u16, u16),
}

/// What becomes of a packet, and everything that is counted.
#[derive(Clone, Debug)]
pub struct Expect {
    pub(super) outcome: Outcome,
    pub(super) counted: Vec<(u16, Reason)>,
    pub(super) opened: Vec<u16>,
    pub(super) closed: Vec<u16>,
    pub(super) opens_it: bool,
    pub(super) told: Option<Vec<Told>>,
}

/// An event that is told: its kind, the backend, and more where it has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// One of `event::kind`.
    pub kind: u8,
    /// The (service, backend) pair.
    pub backend: u16,
    /// The reason that an event of pressure names.
    pub reason: Option<Reason>,
    /// Of a cut: who spoke, and with which numbers.
    pub numbers: Option<(u8, u32, u32)>,
}

impl Told {
    /// Whether an event says this about the scene's client.
    pub fn is(&self, event: &Event, version: u8) -> bool {
        let numbers = (event.side, event.sequence, event.acknowledgement);
        event.kind == self.kind
            && event.backend == self.backend
            && event.version == version
            && event.pad == 0
            && event.client_port.host() == CLIENT.port()
            && self.reason.is_none_or(|reason| event.value == reason as u32)
            && numbers == self.numbers.unwrap_or((0, 0, 0))
    }
}

/// It goes to the host, untouched and uncounted.
pub fn untouched() -> Expect {
    as_outcome(Outcome::Untouched)
}

fn as_outcome(outcome: Outcome) -> Expect {
    Expect {
        outcome,
        counted: Vec::new(),
        opened: Vec::new(),
        closed: Vec::new(),
        opens_it: false,
        told: None,
    }
}

/// It goes nowhere.
pub fn dropped(reason: Reason) -> Expect {
    as_outcome(Outcome::Dropped).counted(WEB_ID, reason)
}

/// It goes to this backend.
pub fn to_backend(backend: u16) -> Expect {
    let one: &'static [u16] = match backend {
        scene::A => &[scene::A],
        scene::B => &[scene::B],
        _ => &[scene::A2],
    };
    to_one_of(one)
}

/// It goes to one of these backends.
pub fn to_one_of(backends: &'static [u16]) -> Expect {
    as_outcome(Outcome::ToOneOf(backends))
}

/// It goes from this backend to [`scene::CLIENT`].
pub fn to_client(backend: u16) -> Expect {
    as_outcome(Outcome::ToClient(backend, CLIENT))
}

/// Its sender gets a RST.
pub fn reset(reason: Reason, seq: u32, ack: Option<u32>) -> Expect {
    reset_on(WEB_ID, reason, seq, ack)
}

/// Its sender gets a RST, which another service counts.
pub fn reset_on(service: u16, reason: Reason, seq: u32, ack: Option<u32>) -> Expect {
    as_outcome(Outcome::Reset(seq, ack)).counted(service, reason)
}

/// Its sender gets an answer to its echo request.
pub fn echoed() -> Expect {
    as_outcome(Outcome::Echoed).counted(0, Reason::EchoAnswered)
}

/// Its sender gets an ICMP error.
pub fn complained(reason: Reason, trouble: Trouble) -> Expect {
    as_outcome(Outcome::Complained(trouble)).counted(WEB_ID, reason)
}

/// An ICMP error goes on to [`scene::CLIENT`].
pub fn error_to_client(backend: u16) -> Expect {
    as_outcome(Outcome::ErrorToClient(backend, CLIENT)).counted(WEB_ID, Reason::ErrorTranslated)
}

/// An ICMP error about an answer to [`scene::CLIENT`] goes on to a backend.
pub fn error_to_backend(backend: u16) -> Expect {
    as_outcome(Outcome::ErrorToBackend(backend, CLIENT)).counted(WEB_ID, Reason::ErrorTranslated)
}

/// "Too big" about a tunnel goes on to the client.
pub fn untunnelled(backend: u16, mtu: u16) -> Expect {
    as_outcome(Outcome::Untunnelled(backend, mtu)).counted(WEB_ID, Reason::ErrorTranslated)
}

impl Expect {
    /// It goes to another client.
    pub fn of(self, client: SocketAddrV4) -> Self {
        let Outcome::ToClient(backend, _) = self.outcome else { panic!("{self:?} goes to no client") };
        Self { outcome: Outcome::ToClient(backend, client), ..self }
    }

    /// One more of a reason is counted.
    pub fn counted(mut self, service: u16, reason: Reason) -> Self {
        self.counted.push((service, reason));
        self
    }

    /// A connection of a backend is opened.
    pub fn opens(mut self, backend: u16) -> Self {
        self.opened.push(backend);
        self
    }

    /// A connection of whichever backend it goes to is opened.
    pub fn opens_it(self) -> Self {
        Self { opens_it: true, ..self }
    }

    /// A connection of a backend is closed.
    pub fn closes(mut self, backend: u16) -> Self {
        self.closed.push(backend);
        self
    }

    /// Exactly these events are told, in this order, and no others.
    pub fn tells(mut self, kind: u8, backend: u16) -> Self {
        let told = Told { kind, backend, reason: None, numbers: None };
        self.told.get_or_insert_default().push(told);
        self
    }

    /// That a table has no room.
    pub fn tells_pressure(mut self, backend: u16, reason: Reason) -> Self {
        let kind = lb_common::event::kind::PRESSURE;
        let told = Told { kind, backend, reason: Some(reason), numbers: None };
        self.told.get_or_insert_default().push(told);
        self
    }

    /// That a side of a cut connection has spoken: 0 the client, 1 the server; sequence and acknowledgement number.
    pub fn tells_cut(mut self, backend: u16, side: u8, seq: u32, ack: u32) -> Self {
        let kind = lb_common::event::kind::CUT;
        let told = Told { kind, backend, reason: None, numbers: Some((side, seq, ack)) };
        self.told.get_or_insert_default().push(told);
        self
    }

    /// Nothing is told.
    pub fn tells_nothing(self) -> Self {
        Self { told: Some(Vec::new()), ..self }
    }
}
