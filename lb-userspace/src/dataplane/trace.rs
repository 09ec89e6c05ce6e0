//! What would become of a packet: the program is loaded beside the ones that serve, over the same maps, and run once.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use aya::{
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunOptions},
};
use lb_common::{
    Be16, Reason,
    abi::purpose,
    event::{NO_REASON, Traced, outcome},
    flow::FlowKey,
};

use super::{
    Dataplane, DataplaneError,
    capture::reason,
    common::typed,
    family::{Family, Ip},
    load::Loaded,
};
use crate::listen::Listen;

/// Bytes that a packet may grow by: the header of an IPv6 tunnel, with room to spare.
const GROWTH: usize = 256;

/// A program that nobody has asked for so long is unloaded. To load it takes a second or so.
const KEPT: Duration = Duration::from_secs(10);

/// A packet, and the connection that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The packet from its Ethernet header on.
    pub packet: Vec<u8>,
    /// Name of the interface that it would come in by.
    pub interface: String,
    /// The service.
    pub service: Listen,
    /// The port that the client connects to.
    pub port: u16,
    /// The client.
    pub client: SocketAddr,
}

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The service.
    pub service: Option<Listen>,
    /// The backend.
    pub backend: Option<SocketAddr>,
    /// Whether the connection was known before.
    pub known: bool,
    /// Index of the interface that it leaves by.
    pub leaving: Option<u32>,
    /// One of `lb_common::event::outcome`.
    pub outcome: u8,
    /// Why, where there is a reason; what is forwarded can have one too.
    pub reason: Option<Reason>,
    /// What the program returned, an XDP action (include/uapi/linux/bpf.h).
    pub action: u32,
    /// The packet as it leaves, from the Ethernet header on.
    pub packet: Vec<u8>,
}

/// A loaded program that traces.
pub(super) struct Tracer {
    interface: String,
    index: u32,
    loaded: Loaded,
    used: Instant,
}

impl Dataplane {
    /// Run a packet as if it had come in by its interface. Nothing is written or counted but the answer.
    pub(super) fn trace(&mut self, question: &Question) -> Result<Trace, DataplaneError> {
        // Before the program runs: should the connection begin meanwhile, it is the answer that is newer.
        let known = if question.client.is_ipv4() {
            self.v4.knows(question, self.common.layout.seed)
        } else {
            self.v6.knows(question, self.common.layout.seed)
        };
        let mut map: Array<MapData, Traced> = typed(&self.pins, "TRACED")?;
        let unset = Traced { outcome: outcome::PASS, reason: NO_REASON, ..Traced::default() };
        map.set(0, unset, 0).map_err(DataplaneError::write("TRACED"))?;
        let (action, packet) = self.tracer(&question.interface)?.run(&question.packet)?;
        let traced = map.get(&0, 0).map_err(DataplaneError::write("TRACED"))?;
        let pair = self.name_of(traced.backend);
        Ok(Trace {
            service: pair.map(|(service, _)| service).or_else(|| self.service_name(traced.service)),
            backend: pair.map(|(_, backend)| backend),
            known,
            leaving: self.interface_index(traced.leaving),
            outcome: traced.outcome,
            reason: reason(traced.reason),
            action,
            packet,
        })
    }

    /// The program for an interface, loaded if it is not yet.
    fn tracer(&mut self, interface: &str) -> Result<&mut Tracer, DataplaneError> {
        let kept = self.tracer.take().filter(|tracer| tracer.interface == interface);
        let mut tracer = match kept {
            Some(tracer) => tracer,
            None => self.load_tracer(interface)?,
        };
        tracer.used = Instant::now();
        Ok(self.tracer.insert(tracer))
    }

    fn load_tracer(&self, interface: &str) -> Result<Tracer, DataplaneError> {
        let attached = self.attached.iter().find(|(port, _)| port.name == interface);
        let (port, mode) =
            attached.ok_or_else(|| DataplaneError::NotAttached { interface: interface.to_owned() })?;
        let loaded = Loaded::new(&self.pins, &self.common.layout, port, *mode, purpose::TRACE)?;
        Ok(Tracer { interface: interface.to_owned(), index: port.index, loaded, used: Instant::now() })
    }

    /// Unload the program that traces, if nobody has asked it for a while.
    pub(super) fn put_tracer_away(&mut self) {
        self.tracer.take_if(|tracer| tracer.used.elapsed() >= KEPT);
    }
}

impl Tracer {
    /// The XDP action, and the packet as the program leaves it.
    fn run(&mut self, packet: &[u8]) -> Result<(u32, Vec<u8>), DataplaneError> {
        let context = context(packet.len() as u32, self.index);
        let mut out = vec![0; packet.len() + GROWTH];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        let result = self.loaded.entry()?.test_run(options).map_err(DataplaneError::from_program)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }
}

impl<A: Ip> Family<A> {
    /// Whether there is a flow.
    fn knows(&self, question: &Question, seed: u64) -> bool {
        let (Some(client), Some(service)) =
            (A::of(question.client.ip()), self.services.get(&question.service))
        else {
            return false;
        };
        let key = FlowKey {
            client,
            client_port: Be16::from_host(question.client.port()),
            service_port: Be16::from_host(question.port),
            service: service.entry.id,
        };
        self.maps.flows.find(&key, seed).is_some()
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
