//! A case: tables, packets, and what becomes of each; and how it is run.

use std::net::SocketAddrV4;

use lb_common::{
    Be16, Be32, Reason, Ticks,
    abi::{self, Flow, FlowKey, Hop, Traffic, checksums, mark},
    cell::{Owner, Phase, PortCell, Side, Signs},
    ports::PortRanges,
};

use super::{
    scene::{self, BACK, BACK_MAC, FRONT, FRONT_MAC, LAST_ID, ROUTER_MAC, SOURCE, WEB_ID, first_cell},
    segment::{self, Ends, SERVER_ISN, Segment},
    world::{Action, Counters, World},
};

/// Something that is different from the scene, or that happens between two packets.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A backend's state, one of `abi::backend_state`.
    State(u32, u8),
    /// A backend's weight.
    Weight(u32, u32),
    /// A backend's next hop is not known.
    Unresolved(u32),
    /// A service's ring; an empty one has been empty since now.
    Ring(u32, Vec<u32>),
    /// A service's algorithm, one of `abi::algorithm`.
    Algorithm(u32, u8),
    /// What a service without backends does, one of `abi::no_backend`.
    NoBackend(u32, u8),
    /// How packets leave an interface, one of `abi::exit`.
    Exit(u16, u8),
    /// A connection of a client to a backend at a place of its block, with cell, flow and account as its life says.
    Connection {
        /// The client.
        client: SocketAddrV4,
        /// The backend.
        backend: u32,
        /// The place in the block.
        place: u32,
        /// How far it has come.
        life: Life,
        /// Milliseconds since it was last heard of.
        age: u64,
    },
    /// So many connections more on a backend's account, none of them in the tables.
    Live(u32, u64),
    /// Milliseconds pass.
    Pass(u64),
}

/// How far a connection has come before the first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its SYN was forwarded.
    Embryonic,
    /// Its SYN was answered.
    Answered,
    /// It is established.
    Established,
    /// Both have sent a FIN, the client first.
    ClosedByClient,
    /// Both have sent a FIN, the server first.
    ClosedByServer,
    /// The client has sent a RST.
    ResetByClient,
    /// Its flow has been removed since.
    Resting,
    /// Its flow has been removed since; the server had closed first.
    RestingByServer,
    /// Its port is changing hands.
    Busy,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to the host, untouched.
    Untouched,
    /// It goes nowhere.
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
    outcome: Outcome,
    counted: Vec<(u32, Reason)>,
    opened: Vec<u32>,
    closed: Vec<u32>,
    opens_it: bool,
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

#[derive(Clone, Debug)]
enum Step {
    Fact(Fact),
    Segment(Box<Segment>, Expect, Vec<Phase>),
    Frame(Vec<u8>, Expect, Vec<Phase>),
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows, as a sentence.
    pub what: String,
    /// The program's source ports.
    pub ports: PortRanges,
    /// How much checksums are worth, one of `abi::checksums`.
    pub trust: u8,
    /// Room in the flow table.
    pub flows: u32,
    /// How often it may be tried, where chance decides.
    tries: u32,
    steps: Vec<Step>,
}

impl Case {
    /// A case over the scene, with one source port.
    pub fn new(what: impl Into<String>) -> Self {
        let ports = scene::ONE_PORT;
        Self { what: what.into(), ports, trust: checksums::COMPLETE, flows: 16, tries: 1, steps: Vec::new() }
    }

    /// With other source ports.
    pub fn ports(self, ports: PortRanges) -> Self {
        Self { ports, ..self }
    }

    /// With checksums that are worth less.
    pub fn trust(self, trust: u8) -> Self {
        Self { trust, ..self }
    }

    /// With room for so many flows.
    pub fn flows(self, flows: u32) -> Self {
        Self { flows, ..self }
    }

    /// With a result that chance may spoil: one try of so many must succeed.
    pub fn tries(self, tries: u32) -> Self {
        Self { tries, ..self }
    }

    /// With something different from the scene, from here on.
    pub fn given(mut self, fact: Fact) -> Self {
        self.steps.push(Step::Fact(fact));
        self
    }

    /// A packet comes in. Afterwards the port cells that are not free are in `phases`, in any order.
    pub fn send(mut self, segment: Segment, expect: Expect, phases: &[Phase]) -> Self {
        self.steps.push(Step::Segment(Box::new(segment), expect, phases.to_vec()));
        self
    }

    /// Any bytes come in.
    pub fn send_frame(mut self, frame: Vec<u8>, expect: Expect, phases: &[Phase]) -> Self {
        self.steps.push(Step::Frame(frame, expect, phases.to_vec()));
        self
    }

    /// A whole handshake of [`scene::CLIENT`] with backend [`scene::A`] through [`scene::WEB`].
    pub fn handshake(self) -> Self {
        use segment::{ACK, SYN, client, server};
        let a = scene::A;
        self.send(client(SYN), to_backend(a).opens(a), &[Phase::Embryonic])
            .send(server(a, SYN | ACK), to_client(a), &[Phase::Answered])
            .send(client(ACK), to_backend(a), &[Phase::Established])
    }

    /// Run it; what went wrong, in words.
    pub fn run(&self, world: &mut dyn World) -> Result<(), String> {
        let mut outcome = self.run_once(world);
        for _ in 1..self.tries {
            if outcome.is_ok() {
                break;
            }
            outcome = self.run_once(world);
        }
        outcome
    }

    fn run_once(&self, world: &mut dyn World) -> Result<(), String> {
        world.clear();
        scene::set(world, self.ports);
        for (number, step) in self.steps.iter().enumerate() {
            let outcome = match step {
                Step::Fact(fact) => {
                    fact.apply(world);
                    Ok(())
                }
                Step::Segment(segment, expect, phases) => ends(world, segment)
                    .and_then(|(from, to)| check(world, &segment.frame_between(from, to), expect, phases)),
                Step::Frame(frame, ..) if frame.len() < world.shortest() => Ok(()),
                Step::Frame(frame, expect, phases) => check(world, frame, expect, phases),
            };
            outcome.map_err(|why| format!("{}: step {}: {why}", self.what, number + 1))?;
        }
        Ok(())
    }
}

/// Run cases, each in the world that `world` has for its constants, and panic with all that went wrong.
pub fn run_all(cases: &[Case], mut world: impl FnMut(&Case, &mut dyn FnMut(&mut dyn World))) {
    let mut failed = Vec::new();
    for case in cases {
        world(case, &mut |world| failed.extend(case.run(world).err()));
    }
    let (bad, all) = (failed.len(), cases.len());
    assert!(failed.is_empty(), "{bad} of {all} cases failed:\n{}", failed.join("\n"));
}

fn ends(world: &dyn World, segment: &Segment) -> Result<(SocketAddrV4, SocketAddrV4), String> {
    match segment.ends {
        Ends::Fixed(from, to) => Ok((from, to)),
        Ends::ToPortOf { backend, client } => {
            let (service, _) = scene::service_of(backend);
            let flow = flow_of(world, client, service).ok_or(format!("{client} has no flow"))?;
            Ok((scene::server_of(backend).0, SocketAddrV4::new(SOURCE, flow.source_port.host())))
        }
    }
}

fn flow_of(world: &dyn World, client: SocketAddrV4, service: u32) -> Option<Flow> {
    let held = |key: &FlowKey| {
        key.client == Be32::from(*client.ip())
            && key.client_port == Be16::from_host(client.port())
            && key.service == service
    };
    world.flows().into_iter().find(|(key, _)| held(key)).map(|(_, flow)| flow)
}

/// Run one packet and compare everything.
fn check(world: &mut dyn World, packet: &[u8], expect: &Expect, phases: &[Phase]) -> Result<(), String> {
    let before = Counters::of(world);
    let (action, bytes) = world.run(packet);
    let after = Counters::of(world);
    let (wanted_action, wanted_bytes, traffic) = outcome(world, packet, &expect.outcome)?;
    if action != wanted_action {
        let counts = difference(&before, &after);
        return Err(format!(
            "{action:?}, wanted {wanted_action:?} for {:?}; counted {counts:?}",
            expect.outcome
        ));
    }
    if bytes != wanted_bytes {
        return Err(format!("the packet is\n  {bytes:02x?}, wanted\n  {wanted_bytes:02x?}"));
    }
    let wanted = wanted_counters(&before, expect, traffic);
    if after != wanted {
        return Err(format!(
            "counters are off: {:?}, wanted {:?}",
            difference(&before, &after),
            difference(&before, &wanted)
        ));
    }
    let mut found: Vec<Phase> =
        (0..world.cell_count()).map(|index| world.cell_at(index).owner.phase()).collect();
    found.retain(|phase| *phase != Phase::Free);
    let mut wanted = phases.to_vec();
    found.sort_by_key(|phase| *phase as u8);
    wanted.sort_by_key(|phase| *phase as u8);
    if found != wanted {
        return Err(format!("the cells are {found:?}, wanted {wanted:?}"));
    }
    consistent(world)
}

type Moved = (u32, Traffic);

/// What an outcome means: action, bytes and traffic.
fn outcome(
    world: &dyn World,
    packet: &[u8],
    outcome: &Outcome,
) -> Result<(Action, Vec<u8>, Option<Moved>), String> {
    let trust = world.config().checksums;
    let leave = |interface: u16| {
        let transmits = interface == FRONT && world.interface_at(FRONT).exit == abi::exit::TX;
        if transmits { Action::Transmit } else { Action::Redirect }
    };
    let bytes = || u64::from(u16::from_be_bytes([packet[16], packet[17]]));
    Ok(match *outcome {
        Outcome::Untouched => (Action::Pass, packet.to_vec(), None),
        Outcome::Dropped => (Action::Drop, packet.to_vec(), None),
        Outcome::Reset(seq, ack) => (leave(FRONT), segment::reset(packet, seq, ack, trust), None),
        Outcome::ToOneOf(backends) => {
            let (client, service) = ends_of(packet);
            let id = world
                .services()
                .iter()
                .find(|(key, _)| *key == scene::service_key(service))
                .map(|(_, s)| s.id);
            let flow = flow_of(world, client, id.unwrap_or_default()).ok_or("the client has no flow")?;
            if !backends.contains(&flow.backend) {
                return Err(format!("the flow is on backend {}, wanted one of {backends:?}", flow.backend));
            }
            let (server, mac) = scene::server_of(flow.backend);
            let source = SocketAddrV4::new(flow.source.into(), flow.source_port.host());
            let out = segment::forwarded(packet, [mac, BACK_MAC], (source, server), trust);
            let traffic = Traffic { packets_in: 1, bytes_in: bytes(), ..Traffic::default() };
            (leave(BACK), out, Some((flow.backend, traffic)))
        }
        Outcome::ToClient(backend, client) => {
            let (_, service) = scene::service_of(backend);
            let out = segment::forwarded(packet, [ROUTER_MAC, FRONT_MAC], (service, client), trust);
            let traffic = Traffic { packets_out: 1, bytes_out: bytes(), ..Traffic::default() };
            (leave(FRONT), out, Some((backend, traffic)))
        }
    })
}

/// Sender and receiver of a TCP packet.
fn ends_of(packet: &[u8]) -> (SocketAddrV4, SocketAddrV4) {
    let tcp = 14 + usize::from(packet[14] & 0x0f) * 4;
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let address = |at| super::checksum::address(packet, at);
    (SocketAddrV4::new(address(26), port(tcp)), SocketAddrV4::new(address(30), port(tcp + 2)))
}

fn wanted_counters(before: &Counters, expect: &Expect, traffic: Option<Moved>) -> Counters {
    let mut wanted = before.clone();
    for (service, reason) in &expect.counted {
        match wanted.reasons.iter_mut().find(|(s, r, _)| s == service && r == reason) {
            Some((.., count)) => *count += 1,
            None => wanted.reasons.push((*service, *reason, 1)),
        }
    }
    wanted.reasons.sort_by_key(|(service, reason, _)| (*service, *reason as u32));
    for id in &expect.opened {
        wanted.accounts[*id as usize].opened += 1;
    }
    for id in &expect.closed {
        wanted.accounts[*id as usize].closed += 1;
    }
    if let Some((backend, moved)) = traffic {
        let traffic = &mut wanted.traffic[backend as usize];
        traffic.packets_in += moved.packets_in;
        traffic.bytes_in += moved.bytes_in;
        traffic.packets_out += moved.packets_out;
        traffic.bytes_out += moved.bytes_out;
        wanted.accounts[backend as usize].opened += u64::from(expect.opens_it);
    }
    wanted
}

/// What moved between two moments, for messages.
fn difference(before: &Counters, after: &Counters) -> Vec<String> {
    let reasons = after.reasons.iter().filter(|entry| !before.reasons.contains(entry));
    let reasons =
        reasons.map(|(service, reason, count)| format!("{} of {service}: now {count}", reason.name()));
    let ids = 0..=LAST_ID as usize;
    let accounts = ids.clone().filter(|id| before.accounts[*id] != after.accounts[*id]);
    let accounts = accounts.map(|id| format!("account {id}: {:?}", after.accounts[id]));
    let traffic = ids.filter(|id| before.traffic[*id] != after.traffic[*id]);
    let traffic = traffic.map(|id| format!("traffic {id}: {:?}", after.traffic[id]));
    reasons.chain(accounts).chain(traffic).collect()
}

/// The rules that hold at every moment at which no packet is on its way (see `lb_common::cell`).
pub fn consistent(world: &dyn World) -> Result<(), String> {
    let ranges = world.config().ports;
    let flows = world.flows();
    for (key, flow) in &flows {
        let cell = world.cell_at(flow.cell);
        if !cell.owner.belongs_to(key.client, key.client_port) || cell.service_port != key.service_port {
            return Err(format!("{key:?} points at a cell of somebody else: {cell:?}"));
        }
        let backend = world.backend_at(flow.backend);
        let place = ranges.index(flow.source_port.host());
        if place.map(|place| backend.cells + place) != Some(flow.cell) || cell.backend != flow.backend {
            return Err(format!("port, backend and cell of {flow:?} do not fit each other: {cell:?}"));
        }
    }
    let mut live = [0; LAST_ID as usize + 1];
    for index in 0..world.cell_count() {
        let cell = world.cell_at(index);
        let held = cell.owner.is_live() || cell.owner.phase() == Phase::Closed;
        if held != flows.iter().any(|(_, flow)| flow.cell == index) {
            return Err(format!("cell {index} and the flow table disagree: {cell:?}"));
        }
        live[cell.backend as usize] += u64::from(cell.owner.is_live());
    }
    for id in 0..=LAST_ID {
        let account = world.account_at(id);
        // `pad` is where `Fact::Live` keeps the connections that stand on the account alone.
        if account.live() != live[id as usize] + account.pad {
            return Err(format!("account {id} is {account:?}, and {} cells live", live[id as usize]));
        }
    }
    Ok(())
}

impl Fact {
    /// Make it so.
    pub fn apply(&self, world: &mut dyn World) {
        match self {
            Self::State(id, state) => edit_backend(world, *id, |backend| backend.state = *state),
            Self::Weight(id, weight) => edit_backend(world, *id, |backend| backend.weight = *weight),
            Self::Unresolved(id) => edit_backend(world, *id, |backend| backend.hop = Hop::default()),
            Self::Ring(id, ring) => {
                let now = world.now().raw();
                edit_service(world, *id, |service| {
                    service.ring_length = ring.len() as u32;
                    service.empty_since = now;
                });
                world.set_ring(scene::service(*id).ring_offset, ring);
            }
            Self::Algorithm(id, algorithm) => {
                edit_service(world, *id, |service| service.algorithm = *algorithm)
            }
            Self::NoBackend(id, policy) => edit_service(world, *id, |service| service.no_backend = *policy),
            Self::Exit(id, exit) => {
                let interface = world.interface_at(*id);
                world.set_interface(*id, abi::Interface { exit: *exit, ..interface });
            }
            Self::Connection { client, backend, place, life, age } => {
                connection(world, *client, *backend, *place, *life, Ticks::from_millis(*age));
            }
            Self::Live(id, count) => {
                let mut account = world.account_at(*id);
                account.opened += count;
                account.pad += count;
                world.set_account(*id, account);
            }
            Self::Pass(millis) => world.age(Ticks::from_millis(*millis)),
        }
    }
}

fn edit_backend(world: &mut dyn World, id: u32, edit: impl FnOnce(&mut abi::Backend)) {
    let mut backend = world.backend_at(id);
    edit(&mut backend);
    world.set_backend(id, backend);
}

fn edit_service(world: &mut dyn World, id: u32, edit: impl FnOnce(&mut abi::Service)) {
    let found = world.services().into_iter().find(|(_, service)| service.id == id);
    let (key, mut service) = found.expect("the scene has no such service");
    edit(&mut service);
    world.set_service(key, service);
}

/// The owner word after a life.
fn owner(client: SocketAddrV4, life: Life) -> Owner {
    use Side::{Client, Server};
    let nothing = Signs::default();
    let syn_ack = (Server, Signs { syn_ack: true, ..nothing });
    let proof = (Client, Signs { proves: true, ..nothing });
    let fin = |side| (side, Signs { fin: true, ..nothing });
    let rst = (Client, Signs { rst: true, ..nothing });
    let signs = match life {
        Life::Embryonic | Life::Busy => vec![],
        Life::Answered => vec![syn_ack],
        Life::Established => vec![syn_ack, proof],
        Life::ClosedByClient | Life::Resting => vec![syn_ack, proof, fin(Client), fin(Server)],
        Life::ClosedByServer | Life::RestingByServer => vec![syn_ack, proof, fin(Server), fin(Client)],
        Life::ResetByClient => vec![syn_ack, proof, rst],
    };
    let port = Be16::from_host(client.port());
    let embryo = Owner::next(Owner(0), (*client.ip()).into(), port, Phase::Embryonic);
    let owner = signs.into_iter().fold(embryo, |owner, (side, signs)| owner.after(side, signs));
    match life {
        Life::Resting | Life::RestingByServer => owner.with_phase(Phase::Resting),
        Life::Busy => owner.with_phase(Phase::Busy),
        _ => owner,
    }
}

fn connection(world: &mut dyn World, client: SocketAddrV4, backend: u32, place: u32, life: Life, age: Ticks) {
    let ranges = world.config().ports;
    let (service, address) = scene::service_of(backend);
    let owner = owner(client, life);
    let index = first_cell(backend, ranges) + place;
    let seen = world.now().raw().wrapping_sub(age.raw());
    let service_port = Be16::from_host(address.port());
    world.set_cell(
        index,
        PortCell {
            owner,
            hop: Hop { mac: ROUTER_MAC, interface: FRONT },
            backend,
            seen,
            server_isn: if life == Life::Embryonic { 0 } else { SERVER_ISN },
            service_port,
            pad: 0,
        },
    );
    let mut account = world.account_at(backend);
    account.opened += 1;
    account.closed += u64::from(!owner.is_live());
    world.set_account(backend, account);
    if !owner.is_live() && owner.phase() != Phase::Closed {
        return;
    }
    let key = FlowKey {
        client: (*client.ip()).into(),
        client_port: Be16::from_host(client.port()),
        service_port,
        service,
        pad: 0,
    };
    let marks = match life {
        Life::Embryonic | Life::Answered => 0,
        Life::Established => mark::PROVEN,
        _ => mark::PROVEN | mark::CLOSING,
    };
    let source_port = Be16::from_host(ranges.port(place));
    world.set_flow(
        key,
        Flow { backend, cell: index, source: SOURCE.into(), source_port, marks, seen, pad: 0 },
    );
}
