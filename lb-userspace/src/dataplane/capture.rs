//! Looking at packets: the programs are replaced in place by ones that show what they see, and back.

use std::net::SocketAddr;

use lb_common::{
    Reason,
    abi::purpose,
    event::{self, NO_REASON, SNAP},
};

use super::{Dataplane, DataplaneError, attach, events::Records};
use crate::listen::Listen;

/// One look at a packet, with the names that its ids had then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, by `CLOCK_MONOTONIC`, in nanoseconds. Equal for the two looks at one packet.
    pub moment: u64,
    /// The CPU.
    pub cpu: u32,
    /// Bytes of the packet, kept or not.
    pub length: u32,
    /// The first bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// The service.
    pub service: Option<Listen>,
    /// The backend.
    pub backend: Option<SocketAddr>,
    /// Index of the interface that it came in by.
    pub interface: u32,
    /// Index of the interface that it leaves by.
    pub leaving: Option<u32>,
    /// Before the program's work, or after: one of `lb_common::event::seen`.
    pub look: u8,
    /// What became of it: one of `lb_common::event::outcome`.
    pub outcome: u8,
    /// Why, where there is a reason.
    pub reason: Option<Reason>,
}

/// The packets that a capture shows.
pub(super) type Packets = Records<event::Captured>;

impl Dataplane {
    /// Have every interface's program show packets. Needs a running tokio. What fails half-way is undone.
    pub(super) fn load_capture(&mut self) -> Result<Packets, DataplaneError> {
        let packets = Records::open(&self.pins, "CAPTURE")?;
        if let Err(error) = self.swap_all(purpose::CAPTURE) {
            self.unload_capture()?;
            return Err(error);
        }
        Ok(packets)
    }

    /// Have the programs only serve again.
    pub(super) fn unload_capture(&mut self) -> Result<(), DataplaneError> {
        self.swap_all(purpose::SERVE)
    }

    /// Replace every program in place by one for `purpose`.
    pub(super) fn swap_all(&mut self, purpose: u8) -> Result<(), DataplaneError> {
        for place in 0..self.attached.len() {
            let (port, mode) = &self.attached[place];
            let (mut loaded, _) = attach::swap(&self.pins, &self.common.layout, port, *mode, purpose)?;
            let name = port.name.clone();
            self.listen_to(&mut loaded, &name);
        }
        Ok(())
    }

    /// A captured packet with names.
    pub(super) fn name_captured(&self, raw: &event::Captured) -> Captured {
        let pair = self.name_of(raw.backend);
        let index = |id: u16| self.interface_index(id);
        Captured {
            moment: raw.moment,
            cpu: raw.cpu,
            length: raw.length,
            bytes: raw.bytes[..(raw.kept as usize).min(SNAP)].to_vec(),
            service: pair.map(|(service, _)| service).or_else(|| self.service_name(raw.service)),
            backend: pair.map(|(_, backend)| backend),
            interface: index(raw.interface).unwrap_or(0),
            leaving: index(raw.leaving),
            look: raw.look,
            outcome: raw.outcome,
            reason: reason(raw.reason),
        }
    }
}

/// A reason by its number.
pub(super) fn reason(number: u8) -> Option<Reason> {
    if number == NO_REASON { None } else { Reason::ALL.get(usize::from(number)).copied() }
}
