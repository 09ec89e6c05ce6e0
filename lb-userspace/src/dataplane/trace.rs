//! What would become of a packet: the program is loaded beside the ones that serve, over the same maps, and run once.

use std::net::SocketAddr;

use aya::{
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunOptions},
};
use lb_common::{
    Reason,
    abi::purpose,
    event::{Traced, outcome},
};

use super::{Dataplane, DataplaneError, capture::reason, common::typed, load::Loaded};
use crate::listen::Listen;

/// Bytes that a packet may grow by: the header of an IPv6 tunnel, with room to spare.
const GROWTH: usize = 256;

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The service.
    pub service: Option<Listen>,
    /// The backend.
    pub backend: Option<SocketAddr>,
    /// Index of the interface that it leaves by.
    pub leaving: Option<u32>,
    /// One of `lb_common::event::outcome`.
    pub outcome: u8,
    /// Why, where there is a reason.
    pub reason: Option<Reason>,
    /// What the program returned, an XDP action (include/uapi/linux/bpf.h).
    pub action: u32,
    /// The packet as it leaves, from the Ethernet header on.
    pub packet: Vec<u8>,
}

impl Dataplane {
    /// Run a packet, from its Ethernet header on, as if it had come in by `interface`. Nothing is written or counted but
    /// the answer.
    pub(super) fn trace(&self, packet: &[u8], interface: &str) -> Result<Trace, DataplaneError> {
        let attached = self.attached.iter().find(|(port, _)| port.name == interface);
        let (port, mode) =
            attached.ok_or_else(|| DataplaneError::NotAttached { interface: interface.to_owned() })?;
        let mut loaded = Loaded::new(&self.pins, &self.common.layout, port, *mode, purpose::TRACE)?;
        let mut map: Array<MapData, Traced> = typed(&self.pins, "TRACED")?;
        let unset =
            Traced { outcome: outcome::PASS, reason: lb_common::event::NO_REASON, ..Traced::default() };
        map.set(0, unset, 0).map_err(DataplaneError::write("TRACED"))?;

        let context = context(packet.len() as u32, port.index);
        let mut out = vec![0; packet.len() + GROWTH];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = loaded.entry()?.test_run(options).map_err(DataplaneError::from_program)?;
        out.truncate(result.data_size_out as usize);

        let traced = map.get(&0, 0).map_err(DataplaneError::write("TRACED"))?;
        let pair = self.name_of(traced.backend);
        Ok(Trace {
            service: pair.map(|(service, _)| service).or_else(|| self.service_name(traced.service)),
            backend: pair.map(|(_, backend)| backend),
            leaving: self.interface_index(traced.leaving),
            outcome: traced.outcome,
            reason: reason(traced.reason),
            action: result.return_value,
            packet: out,
        })
    }
}

/// The `struct xdp_md` of the run: `data`, `data_end`, `data_meta`, `ingress_ifindex`, `rx_queue_index`,
/// `egress_ifindex` (net/bpf/test_run.c, `bpf_prog_test_run_xdp`).
fn context(length: u32, interface: u32) -> [u8; 24] {
    let mut context = [0; 24];
    for (place, word) in context.chunks_exact_mut(4).zip([0, length, 0, interface, 0, 0]) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    context
}
