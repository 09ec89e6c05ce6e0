//! One packet run, and everything compared: action, bytes, counters, port cells, and that the tables agree.

use std::net::SocketAddrV4;

use lb_common::{
    Be16, Be32,
    abi::{self, Flow, FlowKey, Traffic},
    cell::Phase,
};

use super::{
    checksum,
    expect::{Expect, Outcome},
    scene::{self, BACK, BACK_MAC, FRONT, FRONT_MAC, LAST_ID, ROUTER_MAC},
    segment,
    world::{Action, Counters, World},
};

/// Run one packet and compare everything.
pub(super) fn check(
    world: &mut dyn World,
    packet: &[u8],
    expect: &Expect,
    phases: &[Phase],
) -> Result<(), String> {
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
    let address = |at| checksum::address(packet, at);
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

/// The flow of a client to a service.
pub(super) fn flow_of(world: &dyn World, client: SocketAddrV4, service: u32) -> Option<Flow> {
    let held = |key: &FlowKey| {
        key.client == Be32::from(*client.ip())
            && key.client_port == Be16::from_host(client.port())
            && key.service == service
    };
    world.flows().into_iter().find(|(key, _)| held(key)).map(|(_, flow)| flow)
}
