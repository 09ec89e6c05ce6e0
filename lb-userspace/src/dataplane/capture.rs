//! Looking at packets: the programs are replaced in place by ones that show what they see, and back.

use std::{net::SocketAddr, sync::atomic::AtomicU64};

use aya::maps::{MapData, PerCpuArray};
use lb_common::{
    Reason,
    event::{self, NO_REASON, SNAP},
};

use super::{Dataplane, DataplaneError, Port, attach, events::Records, load::Loaded};
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

/// Where a program's map `MOMENT` counts the looks that the ring buffer had no room for.
const MISSED: u32 = 1;

/// Looks that were lost since a capture began: the ring buffer had no room, or whoever looks was too slow.
pub type Lost = std::sync::Arc<AtomicU64>;

/// The packets that a capture shows.
pub(super) struct Packets {
    records: Records<event::Captured>,
    /// Of each interface's program.
    moments: Vec<PerCpuArray<MapData, u64>>,
}

impl Packets {
    /// Wait until there are looks, and take some. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> std::io::Result<Vec<event::Captured>> {
        self.records.next().await
    }

    /// Looks that the ring buffer had no room for.
    pub(super) fn missed(&self) -> u64 {
        let counts = self.moments.iter().filter_map(|moment| moment.get(&MISSED, 0).ok());
        counts.flat_map(|by_cpu| by_cpu.iter().copied().collect::<Vec<_>>()).sum()
    }
}

impl Dataplane {
    /// What loads a program of a purpose for each interface, anywhere: it takes seconds on a busy machine.
    pub(super) fn loading(
        &self,
        purpose: u8,
    ) -> impl FnOnce() -> Result<Vec<Loaded>, DataplaneError> + Send + 'static {
        let (pins, layout, ports) = (self.pins.clone(), self.common.layout, self.attached.clone());
        move || ports.iter().map(|(port, mode)| Loaded::new(&pins, &layout, port, *mode, purpose)).collect()
    }

    /// Replace every program in place. Of interfaces that came or went since they were loaded, none is.
    pub(super) fn swap_all(&mut self, programs: &mut [Loaded]) -> Result<(), DataplaneError> {
        for loaded in programs {
            let attached = self.attached.iter().find(|(port, _)| port.id == loaded.id);
            let Some(port) = attached.map(|(port, _)| port.clone()).filter(Port::exists) else { continue };
            attach::swap(&self.pins, &port, loaded)?;
            self.listen_to(loaded, &port.name);
        }
        Ok(())
    }

    /// Have every interface's program show packets. Needs a running tokio. After an error some may.
    pub(super) fn show_packets(&mut self, mut programs: Vec<Loaded>) -> Result<Packets, DataplaneError> {
        let records = Records::open(&self.pins, "CAPTURE")?;
        self.swap_all(&mut programs)?;
        let moments = programs.into_iter().map(Loaded::into_moment).collect::<Result<_, _>>()?;
        Ok(Packets { records, moments })
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
