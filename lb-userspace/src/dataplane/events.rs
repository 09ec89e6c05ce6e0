//! What the kernel tells by itself: ring buffers, read when there is something in them.

use std::net::{IpAddr, SocketAddr};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use lb_common::{
    Be32, Be128, Reason,
    event::{self, kind},
};
use tokio::io::unix::AsyncFd;

use super::{
    Dataplane, DataplaneError, Pins,
    common::typed,
    family::Ip as _,
    shared::{read, watch},
};
use crate::{
    cut::{Connection, Numbers, Side},
    listen::Listen,
};

/// Records that one reading takes at most, so that nobody else waits for long.
const BATCH: usize = 512;

/// A ring buffer of records of one type.
pub(super) struct Records<T> {
    ring: AsyncFd<RingBuf<MapData>>,
    kind: std::marker::PhantomData<T>,
}

impl<T: Pod> Records<T> {
    /// Open a pinned ring buffer. Needs a running tokio.
    pub(super) fn open(pins: &Pins, name: &'static str) -> Result<Self, DataplaneError> {
        let ring: RingBuf<MapData> = typed(pins, name)?;
        let ring = watch(ring).map_err(|source| DataplaneError::Wait { name, source })?;
        Ok(Self { ring, kind: std::marker::PhantomData })
    }

    /// Wait until there are records, and take some. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> std::io::Result<Vec<T>> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let mut records = Vec::new();
            while records.len() < BATCH {
                let Some(record) = ready.get_inner_mut().next() else {
                    ready.clear_ready();
                    break;
                };
                records.extend(read::<T>(&record));
            }
            if !records.is_empty() {
                return Ok(records);
            }
        }
    }
}

/// What happened to a connection, as the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The service; `None` if it has gone meanwhile.
    pub service: Option<Listen>,
    /// The backend; `None` if there was none, or it has gone meanwhile.
    pub backend: Option<SocketAddr>,
    /// The client.
    pub client: SocketAddr,
    /// The port that it connected to.
    pub service_port: u16,
    /// What.
    pub what: What,
}

/// What happened. All but [`Cut`](Self::Cut) are samples: at most one of a kind per backend and 67 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The backend answered a SYN with a RST.
    Refused,
    /// The client sent its SYN again: the backend has not answered within a second.
    Unanswered,
    /// The backend answered a SYN.
    Answered {
        /// Time that it took.
        micros: u32,
    },
    /// A table had no room for a connection.
    Pressure {
        /// What became of it.
        reason: Reason,
    },
    /// A side of a cut connection spoke, and got its RST.
    Cut {
        /// Which.
        side: Side,
        /// Where it stands.
        numbers: Numbers,
    },
}

impl Dataplane {
    /// An event in the words of the agent's other parts; `None`: of a kind that this version does not know.
    pub(super) fn name_event(&self, raw: &event::Event) -> Option<Event> {
        let [first, ..] = raw.client;
        let client: IpAddr = match raw.version {
            4 => Be32::from_wire(first).ip(),
            6 => Be128::from_wire(raw.client).ip(),
            _ => return None,
        };
        let what = match raw.kind {
            kind::REFUSED => What::Refused,
            kind::UNANSWERED => What::Unanswered,
            kind::ANSWERED => What::Answered { micros: raw.value },
            kind::PRESSURE => What::Pressure { reason: *Reason::ALL.get(raw.value as usize)? },
            kind::CUT => What::Cut {
                side: if raw.side == 0 { Side::Client } else { Side::Backend },
                numbers: Numbers { sequence: raw.sequence, acknowledgement: raw.acknowledgement },
            },
            _ => return None,
        };
        let pair = self.name_of(raw.backend);
        Some(Event {
            service: pair.map(|(service, _)| service).or_else(|| self.service_name(raw.service)),
            backend: pair.map(|(_, backend)| backend),
            client: SocketAddr::new(client, raw.client_port.host()),
            service_port: raw.service_port.host(),
            what,
        })
    }

    /// The connection that an event is about, as the machine of cuts calls it. The address is the pair's: the service
    /// itself may have been withdrawn.
    pub(super) fn connection_of(&self, raw: &event::Event, event: &Event) -> Option<Connection> {
        let address = self.service_address(raw.backend)?;
        Some(Connection { client: event.client, service: SocketAddr::new(address, event.service_port) })
    }
}
