//! Stage 5: a client's packet that begins a connection, or that nothing is known of.

use lb_common::{
    Reason, Ticks,
    abi::{Service, backend_state, mode, no_backend, service_flag},
    cell::{Owner, Phase},
    event::kind,
    flow::{self, FlowKey},
    ring::Slot,
};

use crate::{
    Complaint, Tables, World,
    family::Family,
    flows::{Found, end, find, free, unlink},
    parse::{Packet, flag},
    request::{Refusal, alive, follow, refused, straight},
    seat::{Full, Seat, reserve, settle},
    select::{by_ring, select},
    settled::slot_of,
    source_rate::spend,
    step::Step,
    tell::tell,
};

/// How long a SYN may go unanswered before its repetition says something about the backend, in microseconds.
const UNANSWERED: u32 = 900_000;

/// The same in ticks.
const UNANSWERED_TICKS: Ticks = Ticks::from_millis(UNANSWERED as u64 / 1_000);

/// The way of a client's packet to its backend.
#[inline(always)]
pub fn begin<A: Family, T: Tables<A>>(packet: &Packet<A>, service: &Service, tables: &T) -> Step {
    // Before anything is taken for it that its backend would never see. What may be the host's has arrived.
    let may_be_hosts =
        || service.flags & service_flag::PASS_LOST != 0 && (!packet.begins() || tables.agent_is_lost());
    if service.mode != mode::DSR && A::ttl(&packet.ip) <= 1 && !may_be_hosts() {
        return Step::explain(service.id, Reason::TtlExceeded, Complaint::TIME_EXCEEDED);
    }
    let key = packet.key(service.id);
    let chosen = if service.flags & service_flag::ON_CHANGE == 0 {
        tracked(packet, service, &key, tables)
    } else {
        unsettled(packet, service, &key, tables)
    };
    match chosen {
        Ok(step) => step,
        Err(refusal) => refused(packet, service, refusal),
    }
}

/// Whether what is new belongs to the host: the agent is lost, and the service wants it so.
///
/// Nobody asks on the way of a packet whose flow is known, so nothing that lives moves.
#[inline(always)]
pub fn is_hosts<T: World>(service: &Service, tables: &T) -> bool {
    service.flags & service_flag::PASS_LOST != 0 && tables.agent_is_lost()
}

/// [`straight`], by the backend's id.
#[inline(always)]
fn directly<A: Family, T: Tables<A>>(id: u16, key: &FlowKey<A>, tables: &T) -> Result<Step, Refusal> {
    straight(id, key, tables).map(|(candidate, way)| Step::send(key.service, candidate.id, way))
}

/// [`follow`], by the backend's id.
#[inline(always)]
fn followed<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    found: &Found<A>,
    tables: &T,
) -> Result<Step, Refusal> {
    follow(packet, key, found, tables).map(|(candidate, way)| Step::send(key.service, candidate.id, way))
}

/// A service that looks up every packet.
#[inline(always)]
fn tracked<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    service: &Service,
    key: &FlowKey<A>,
    tables: &T,
) -> Result<Step, Refusal> {
    match find(key, tables) {
        found if packet.begins() => connect(packet, service, key, found, tables),
        Some(found) => followed(packet, key, &found, tables),
        None if is_stray(service, tables) => Ok(Step::host(service.id, Reason::NoFlowPassed)),
        None if service.mode != mode::SNAT => unknown(packet, service, key, tables),
        None if packet.flags() & flag::RST != 0 => Err(Refusal::Drop(Reason::RstWithoutFlow)),
        None => Err(Refusal::Reset(Reason::NoFlow)),
    }
}

/// Whether a segment of no flow may be of a connection that the host has accepted. In `snat` none is ever answered but by
/// a RST, which the host gives as well, so what it has accepted goes on when the agent is back. In the other modes it may
/// as well be of a backend that nobody recorded, or another balancer's: the host has it only while the agent is lost.
#[inline(always)]
fn is_stray<T: World>(service: &Service, tables: &T) -> bool {
    service.flags & service_flag::PASS_LOST != 0 && (service.mode == mode::SNAT || tables.agent_is_lost())
}

/// A service with settled slots: only where its ring is changing is anything looked up or recorded.
#[inline(always)]
fn unsettled<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    service: &Service,
    key: &FlowKey<A>,
    tables: &T,
) -> Result<Step, Refusal> {
    let Some(Slot { cur: current, prev: previous, settled }) = slot_of(service, key, tables) else {
        return Err(nobody(service, tables));
    };
    // A datagram may belong to a conversation as old as the slot, so it is no beginning.
    let begins = packet.begins() && !packet.is_udp();
    let backend = if begins { current } else { previous };
    if settled && current != 0 {
        return directly(current, key, tables);
    }
    if let Some(found) = find(key, tables) {
        if !begins || alive(&found, tables) && takes_new(&found, tables) {
            return followed(packet, key, &found, tables);
        }
        // Its record would stand in the way of the new one's, and what follows the SYN would follow it.
        if !end(&found, tables) {
            return Err(Refusal::Drop(Reason::PortBusy));
        }
        tables.count(service.id, Reason::SynOnOldFlow);
    }
    if backend == 0 {
        return Err(nobody(service, tables));
    }
    let direct = directly(backend, key, tables)?;
    if packet.ends() {
        return Ok(direct);
    }
    tables.open(backend);
    Ok(Step::record(service.id, backend, previous, begins))
}

/// Whether a flow's backend still takes new connections.
#[inline(always)]
fn takes_new<A: Family, T: Tables<A>>(found: &Found<A>, tables: &T) -> bool {
    tables.backend(found.record.backend).is_some_and(|backend| backend.state == backend_state::ACTIVE)
}

/// A SYN or a datagram: one of a living connection follows its flow; any other begins one.
#[inline(always)]
fn connect<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    service: &Service,
    key: &FlowKey<A>,
    found: Option<Found<A>>,
    tables: &T,
) -> Result<Step, Refusal> {
    if let Some(found) = found
        && let Some(onward) = judge_afresh(packet, key, &found, tables)?
    {
        return Ok(onward);
    }
    if is_hosts(service, tables) {
        return Ok(Step::host(service.id, Reason::AgentLostPassed));
    }
    if found.is_some() {
        tables.count(service.id, Reason::SynOnOldFlow);
    }
    if service.flags & service_flag::RATE != 0 && !spend(service, key.client, tables) {
        return Err(Refusal::Drop(Reason::RateLimited));
    }
    let Some(candidate) = select(service, key, tables) else { return Err(nobody(service, tables)) };
    if service.mode != mode::SNAT && candidate.backend.address == key.client {
        return Err(Refusal::Reset(Reason::Hairpin));
    }
    if let Err(full) = reserve(service, candidate.id, candidate.backend.server, tables) {
        return Err(no_room(service, full, tables));
    }
    if tables.full_since(service.id).raw() != 0 {
        tables.set_full_since(service.id, Ticks::from_raw(0));
    }
    Ok(if service.mode == mode::SNAT {
        Step::claim(service.id, candidate.id)
    } else {
        Step::record(service.id, candidate.id, 0, true)
    })
}

/// No SYN and no flow, where the client's address is kept: perhaps there was no room to record it. It goes where the
/// ring says, and is recorded if there is room now.
#[inline(always)]
fn unknown<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    service: &Service,
    key: &FlowKey<A>,
    tables: &T,
) -> Result<Step, Refusal> {
    let Some(candidate) = by_ring(service, key, false, tables) else { return Err(nobody(service, tables)) };
    if candidate.backend.address == key.client {
        return Err(Refusal::Reset(Reason::Hairpin));
    }
    tables.count(service.id, Reason::UnknownByRing);
    if packet.ends() {
        return Ok(Step::send(service.id, candidate.id, flow::Way::default()));
    }
    tables.open(candidate.id);
    let backend = candidate.id;
    Ok(Step::record(service.id, backend, backend, false))
}

/// What a SYN or a datagram finds of an older connection on its tuple: where to follow while that connection lives and
/// its backend takes new ones; otherwise the old one is ended here, and the SYN is not made to wait for it.
#[inline(always)]
fn judge_afresh<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    key: &FlowKey<A>,
    found: &Found<A>,
    tables: &T,
) -> Result<Option<Step>, Refusal> {
    let seat = found.seat();
    let backend = tables.backend(found.record.backend);
    let held = seat.owner(tables).filter(|owner| owner.has(key.client.tag(), key.client_port));
    let lives = held.is_some_and(Owner::is_live) && !found.owner.is_cut();
    let stays = backend.is_some_and(|backend| {
        // Where a SYN has just been answered, its repetition has met the answer on the way. Sent to another server, it
        // would end a connection that the client takes for its own.
        let crossed =
            !mode::is_one_sided(backend.mode) && held.is_some_and(|owner| owner.phase() == Phase::Answered);
        backend.state == backend_state::ACTIVE
            || (packet.is_udp() || crossed) && backend.state == backend_state::CLOSED_TO_NEW
    });
    if lives && stays {
        if packet.is_udp() {
            return followed(packet, key, found, tables).map(Some);
        }
        let one_sided = backend.is_some_and(|backend| mode::is_one_sided(backend.mode));
        repeated(key, found, held, one_sided, tables);
        tables.touch_flow(found.slot, tables.now());
        return Ok(Some(Step::send(key.service, found.record.backend, found.record.way)));
    }
    let gone = match (seat, held) {
        (Seat::Cell(index), Some(owner)) => rest(index, owner, key, found.record.backend, tables),
        (Seat::Cell(_), None) => {
            free(found.slot, found.owner, tables);
            true
        }
        (Seat::Slot(_), _) => end(found, tables),
    };
    if gone { Ok(None) } else { Err(Refusal::Drop(Reason::PortBusy)) }
}

/// A SYN that comes again says that its backend has not answered, if it has not.
#[inline(always)]
fn repeated<A: Family, T: Tables<A>>(
    key: &FlowKey<A>,
    found: &Found<A>,
    held: Option<Owner>,
    one_sided: bool,
    tables: &T,
) {
    if held.is_none_or(|owner| owner.phase() != Phase::Embryonic) {
        return;
    }
    let since = match found.seat() {
        Seat::Cell(index) => tables.cell(index).map_or(0, |cell| cell.word),
        Seat::Slot(_) => found.record.word,
    };
    // Where answers are not seen, a record says in ticks when it began.
    let late = if one_sided {
        tables.now().since(Ticks::from_raw(since)).at_least(UNANSWERED_TICKS)
    } else {
        tables.micros().wrapping_sub(since) >= UNANSWERED
    };
    if late {
        tell(kind::UNANSWERED, key, found.record.backend, 0, tables);
    }
}

/// End the connection that holds a port cell, and free its flow; whether nobody else was at it.
#[inline(always)]
fn rest<A: Family, T: Tables<A>>(
    index: u32,
    owner: Owner,
    key: &FlowKey<A>,
    backend: u16,
    tables: &T,
) -> bool {
    let busy = owner.with_phase(Phase::Busy);
    if owner.phase() == Phase::Busy || !tables.swap_owner(index, owner, busy) {
        return false;
    }
    settle(owner, busy, backend, tables);
    if owner.is_live() {
        tables.touch_cell(index, tables.now());
    }
    unlink(key, index, tables);
    // Nobody else moves a busy cell.
    tables.swap_owner(index, busy, busy.with_phase(Phase::Resting));
    true
}

/// Every backend that could serve is at its limit, or the service is.
#[inline(always)]
fn no_room<A: Family, T: Tables<A>>(service: &Service, full: Full, tables: &T) -> Refusal {
    let reason = if full == Full::Service { Reason::ServiceFull } else { Reason::BackendsFull };
    tables.count(service.id, reason);
    let (now, mut since) = (tables.now(), tables.full_since(service.id));
    if since.raw() == 0 {
        since = now;
        tables.set_full_since(service.id, since);
    }
    by_policy(service, now.since(since))
}

/// Nobody can serve: as the service's policy says.
#[inline(always)]
pub fn nobody<A: Family, T: Tables<A>>(service: &Service, tables: &T) -> Refusal {
    if service.ring_length != 0 {
        // The ring names somebody. Full, or being replaced this moment: then the client's next try meets the new one.
        return no_room(service, Full::Backend, tables);
    }
    by_policy(service, tables.now().since(Ticks::from_raw(service.empty_since)))
}

/// What a new connection gets that nobody has been able to serve for `span`.
#[inline(always)]
const fn by_policy(service: &Service, span: Ticks) -> Refusal {
    match service.no_backend {
        no_backend::DROP => Refusal::Drop(Reason::NoBackendDrop),
        no_backend::HOLD if span.raw() < service.hold => Refusal::Drop(Reason::NoBackendHold),
        _ => Refusal::Reset(Reason::NoBackendReset),
    }
}
