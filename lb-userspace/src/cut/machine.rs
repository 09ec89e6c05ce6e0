//! Which side of which connection is to be asked, when, and how it ended: pure, with moments as arguments.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use super::segment::{Frame, Hop, Segment, Tuple};
use crate::health::Moment;

/// How long a side is given after each segment. The first repeats what the network may have lost; the others ask a socket
/// that was mute: a Linux one is for 500 ms after a challenge ACK, and what it does not answer does not prolong that.
pub const PATIENCE: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(600),
    Duration::from_millis(600),
    Duration::from_millis(600),
];

/// How often a side is tried.
pub const ATTEMPTS: usize = PATIENCE.len();

/// The number of our SYNs, arbitrary: sockets answer whatever it is.
const ARBITRARY: u32 = 0;

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Who opened it.
    Client,
    /// Who serves it.
    Backend,
}

/// A connection as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection {
    /// The client's address and port.
    pub client: SocketAddr,
    /// The service's address, and the port that the client connected to.
    pub service: SocketAddr,
}

/// How a side is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Towards {
    /// From whom the side's packets come, and the side itself, as the side sees both.
    pub tuple: Tuple,
    /// The way there. `None` where it is not known: the side is not asked, only answered by the data path.
    pub hop: Option<Hop>,
}

/// In which order the sides are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Both are asked at once: `snat` and `dnat`, where the answers of both pass the balancer.
    Both,
    /// The client is asked, and its numbers become the backend's RST: `dsr` and `ipip`.
    ClientFirst,
}

/// A connection to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Which.
    pub connection: Connection,
    /// The way to the client. The tuple follows from the connection.
    pub client_hop: Option<Hop>,
    /// The backend's side: in `snat` from our address and port, else from the client's; in `dsr` and `ipip` to the
    /// service's address, else to the backend's.
    pub backend: Towards,
    /// In which order.
    pub order: Order,
}

impl Target {
    /// The frame that makes the client's socket speak if it has the connection; `None` if no way to it is known.
    pub fn question(&self) -> Option<Frame> {
        let Connection { client, service } = self.connection;
        Frame::new(&self.client_hop?, &Tuple { from: service, to: client }, challenge(Side::Client))
    }
}

/// Where a side stands, as its packet says. Host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The packet's sequence number.
    pub sequence: u32,
    /// The packet's acknowledgement number.
    pub acknowledgement: u32,
}

/// How it ended for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The data path has answered it with a RST, or has seen its own.
    Told,
    /// It was sent what there was to send, and nothing can confirm it: a backend in [`Order::ClientFirst`].
    Sent,
    /// It did not answer: dead, or behind a filter. In [`Order::ClientFirst`] also a backend whose client did not, for
    /// nobody knows its numbers.
    Silent,
    /// No way to it was known.
    NoHop,
}

/// A connection that nothing more is done about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub connection: Connection,
    /// How it ended for the client.
    pub client: Outcome,
    /// How it ended for the backend.
    pub backend: Outcome,
}

/// What is being done about one side.
#[derive(Clone, Copy, Debug)]
enum Course {
    /// Nothing before the client has answered.
    Waits,
    /// It is sent a segment, and again at `due`.
    Tried {
        segment: Segment,
        attempts: usize,
        due: Moment,
    },
    Ended(Outcome),
}

impl Course {
    const fn outcome(self) -> Option<Outcome> {
        match self {
            Self::Ended(outcome) => Some(outcome),
            Self::Waits | Self::Tried { .. } => None,
        }
    }
}

#[derive(Debug)]
struct Cut {
    number: u64,
    target: Target,
    client: Course,
    backend: Course,
}

impl Cut {
    fn course(&mut self, side: Side) -> &mut Course {
        match side {
            Side::Client => &mut self.client,
            Side::Backend => &mut self.backend,
        }
    }

    fn towards(&self, side: Side) -> Towards {
        let Target { connection, client_hop, backend, .. } = self.target;
        match side {
            Side::Client => {
                Towards { tuple: Tuple { from: connection.service, to: connection.client }, hop: client_hop }
            }
            Side::Backend => backend,
        }
    }

    /// What became of a side that was sent a segment as often as it may.
    fn given_up(&self, side: Side) -> Outcome {
        match (self.target.order, side) {
            (Order::ClientFirst, Side::Backend) => Outcome::Sent,
            _ => Outcome::Silent,
        }
    }
}

/// A side's next turn. Of no effect if the side is not due at that moment any more.
type Turn = (Moment, u64, Side, Connection);

/// The connections that are being cut. Nothing in here waits or sends; see the module for how it is used.
#[derive(Debug, Default)]
pub struct Cuts {
    open: HashMap<Connection, Cut>,
    turns: BinaryHeap<Reverse<Turn>>,
    ended: Vec<Ended>,
    begun: u64,
}

impl Cuts {
    /// No connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections are being cut.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Begin to cut a connection that the data path already knows to be cut. `false` if that has begun before. After
    /// it has ended, a connection may be begun again: one whose side was silent and has spoken, for instance.
    pub fn begin(&mut self, now: Moment, target: Target) -> bool {
        if self.open.contains_key(&target.connection) {
            return false;
        }
        self.begun += 1;
        let cut = Cut { number: self.begun, target, client: Course::Waits, backend: Course::Waits };
        self.open.insert(target.connection, cut);
        self.turn_to(now, &target.connection, Side::Client, challenge(Side::Client));
        if target.order == Order::Both {
            self.turn_to(now, &target.connection, Side::Backend, challenge(Side::Backend));
        }
        true
    }

    /// The data path has told a side: its mark is set. Without effect for a connection that is not being cut.
    pub fn told(&mut self, now: Moment, connection: &Connection, side: Side) {
        let Some(cut) = self.open.get_mut(connection) else { return };
        *cut.course(side) = Course::Ended(Outcome::Told);
        // Told, but with numbers that did not get here: the backend's challenge ACK reaches the client's host, whose
        // RST reaches the backend.
        if side == Side::Client && matches!(cut.backend, Course::Waits) {
            self.turn_to(now, connection, Side::Backend, challenge(Side::Backend));
        }
        self.settle(connection);
    }

    /// A side of a cut connection has spoken, a packet with ACK and without RST, and the data path has answered it.
    /// Without effect for a connection that is not being cut.
    pub fn answered(&mut self, now: Moment, connection: &Connection, side: Side, numbers: Numbers) {
        let Some(cut) = self.open.get_mut(connection) else { return };
        if cut.target.order == Order::ClientFirst && side == Side::Client {
            let reset = Segment::Rst { sequence: numbers.sequence };
            let known = matches!(cut.backend, Course::Tried { segment, .. } if segment == reset);
            if !known && cut.backend.outcome().is_none() {
                self.turn_to(now, connection, Side::Backend, reset);
            }
        }
        self.told(now, connection, side);
    }

    /// Stop with a connection whose record has gone; it is not reported as ended.
    pub fn forget(&mut self, connection: &Connection) {
        self.open.remove(connection);
    }

    /// When [`due`](Self::due) has something to do next.
    pub fn next(&self) -> Option<Moment> {
        self.turns.peek().map(|Reverse((at, ..))| *at)
    }

    /// Append what is to be sent now to `frames`, the longest due first: at most `limit` frames, for at most that many
    /// turns are looked at. If [`next`](Self::next) is not later than `now` afterwards, there is more.
    pub fn due(&mut self, now: Moment, limit: usize, frames: &mut Vec<Frame>) {
        for _ in 0..limit {
            match self.turns.peek() {
                Some(Reverse((at, ..))) if *at <= now => {}
                _ => return,
            }
            let Some(Reverse(turn)) = self.turns.pop() else { return };
            frames.extend(self.take(now, turn));
        }
    }

    /// The connections that have ended since the last call.
    pub fn ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// What a turn sends. The side's next turn is noted.
    fn take(&mut self, now: Moment, (at, number, side, connection): Turn) -> Option<Frame> {
        let cut = self.open.get_mut(&connection).filter(|cut| cut.number == number)?;
        let towards = cut.towards(side);
        let given_up = cut.given_up(side);
        let course = cut.course(side);
        let Course::Tried { segment, attempts, due } = *course else { return None };
        if due != at {
            return None;
        }
        let Some(patience) = PATIENCE.get(attempts) else {
            *course = Course::Ended(given_up);
            self.settle(&connection);
            return None;
        };
        // Numbers that the backend has not obeyed by now are wrong.
        let is_last = attempts + 1 == ATTEMPTS;
        let sent = if is_last { challenge(side) } else { segment };
        let frame = towards.hop.and_then(|hop| Frame::new(&hop, &towards.tuple, sent));
        if frame.is_some() {
            let due = now + *patience;
            *course = Course::Tried { segment, attempts: attempts + 1, due };
            self.turns.push(Reverse((due, number, side, connection)));
        } else {
            *course = Course::Ended(Outcome::NoHop);
            self.settle(&connection);
        }
        frame
    }

    /// A side is to be sent a segment now, whatever was done about it before.
    fn turn_to(&mut self, now: Moment, connection: &Connection, side: Side, segment: Segment) {
        let Some(cut) = self.open.get_mut(connection) else { return };
        *cut.course(side) = Course::Tried { segment, attempts: 0, due: now };
        self.turns.push(Reverse((now, cut.number, side, *connection)));
    }

    /// Report a connection as ended if both of its sides have.
    fn settle(&mut self, connection: &Connection) {
        let Some(cut) = self.open.get_mut(connection) else { return };
        let Some(client) = cut.client.outcome() else { return };
        // A client that was not told leaves a backend behind whose numbers nobody knows.
        if matches!(cut.backend, Course::Waits) {
            cut.backend = Course::Ended(Outcome::Silent);
        }
        let Some(backend) = cut.backend.outcome() else { return };
        self.ended.push(Ended { connection: *connection, client, backend });
        self.open.remove(connection);
    }
}

/// What makes a side speak: see the module for who gets which.
const fn challenge(side: Side) -> Segment {
    match side {
        Side::Client => Segment::SynAck { sequence: ARBITRARY, acknowledgement: ARBITRARY },
        Side::Backend => Segment::Syn { sequence: ARBITRARY },
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
