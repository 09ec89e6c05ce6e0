//! One packet run, and everything compared: action, bytes, counters, events, flows, and that the tables agree.

use lb_common::{
    abi::{self, Traffic, mode},
    cell::Phase,
    event::Event,
};

use super::{
    agree::{phases_of, slack},
    ends::{end, slot_of, towards_backend, tunnel},
    expect::{Expect, Outcome},
    expected,
    fact::rows_of,
    kind::Kind,
    layout::Layout,
    scene::{self, BACK, BACK_MAC, FRONT, FRONT_MAC, ROUTER_MAC, Setting},
    world::{Action, Counters, Store},
};

type Moved = (u16, Traffic);

/// What a packet should have become: action, bytes and traffic.
type Wanted = (Action, Vec<u8>, Option<Moved>);

/// Run one packet and compare everything.
pub(super) fn check<A: Kind>(
    world: &mut impl Store<A>,
    setting: &Setting,
    packet: &[u8],
    expect: &Expect,
    phases: &[Phase],
) -> Result<(), String> {
    let before = Counters::of(world);
    let owed = slack(world)?;
    world.events();
    let (action, bytes) = world.run(packet);
    let after = Counters::of(world);
    let (wanted_action, wanted_bytes, traffic) = outcome(world, setting, packet, expect.outcome)?;
    if action != wanted_action {
        let counts = difference(&before, &after);
        return Err(format!(
            "{action:?}, wanted {wanted_action:?} for {:?}; counted {counts:?}",
            expect.outcome
        ));
    }
    if bytes != wanted_bytes {
        return Err(unlike(&bytes, &wanted_bytes, packet));
    }
    let wanted = wanted_counters(&before, expect, traffic);
    if after != wanted {
        return Err(format!(
            "counters are off: {:?}, wanted {:?}",
            difference(&before, &after),
            difference(&before, &wanted)
        ));
    }
    let (found, mut wanted) = (phases_of(world), phases.to_vec());
    wanted.sort_by_key(|phase| *phase as u8);
    if found != wanted {
        return Err(format!("the flows are {found:?}, wanted {wanted:?}"));
    }
    let owes = slack(world)?;
    if owes != owed {
        return Err(format!("accounts and flows disagree by {owes:?}, and by {owed:?} before"));
    }
    told(expect, &world.events(), setting)
}

/// Where two packets begin to differ, in words.
fn unlike(bytes: &[u8], wanted: &[u8], packet: &[u8]) -> String {
    let same = bytes.iter().zip(wanted).take_while(|(one, other)| one == other).count();
    let part = |bytes: &[u8]| format!("{:02x?}", &bytes[same.min(bytes.len())..(same + 24).min(bytes.len())]);
    format!(
        "of {} bytes, wanted {}, from byte {same} on the packet is\n  {}, wanted\n  {}; it was\n  {:02x?}",
        bytes.len(),
        wanted.len(),
        part(bytes),
        part(wanted),
        &packet[..packet.len().min(80)],
    )
}

fn told(expect: &Expect, events: &[Event], setting: &Setting) -> Result<(), String> {
    let Some(wanted) = &expect.told else { return Ok(()) };
    let agree = wanted.len() == events.len()
        && wanted.iter().zip(events).all(|(told, event)| told.is(event, setting.version));
    if agree { Ok(()) } else { Err(format!("{events:?} was told, wanted {wanted:?}")) }
}

/// What an outcome means.
fn outcome<A: Kind>(
    world: &impl Store<A>,
    setting: &Setting,
    packet: &[u8],
    outcome: Outcome,
) -> Result<Wanted, String> {
    let trust = setting.trust;
    let leave = |interface: u16| match (world.interface_at(interface).exit, interface == FRONT) {
        (abi::exit::STACK, _) | (abi::exit::TX_OR_STACK, false) if !setting.joined => Action::Onward,
        (abi::exit::REDIRECT, _) | (_, false) => Action::Redirect,
        (_, true) => Action::Transmit,
    };
    let answer = |bytes| Ok((leave(FRONT), bytes, None));
    let inwards = |backend, bytes| {
        let moved = Traffic { packets_in: 1, bytes_in: length(packet), ..Traffic::default() };
        Ok((leave(BACK), bytes, Some((backend, moved))))
    };
    let outwards = |backend, bytes| {
        let moved = Traffic { packets_out: 1, bytes_out: length(packet), ..Traffic::default() };
        Ok((leave(FRONT), bytes, Some((backend, moved))))
    };
    let front = [ROUTER_MAC, FRONT_MAC];
    let back = |backend| [scene::server_of(backend).1, BACK_MAC];
    match outcome {
        Outcome::Untouched => Ok((Action::Pass, packet.to_vec(), None)),
        Outcome::Dropped => Ok((Action::Drop, packet.to_vec(), None)),
        Outcome::Reset(seq, ack) => answer(expected::reset(packet, seq, ack, trust)),
        Outcome::Echoed => answer(expected::echoed(packet)),
        Outcome::Complained(trouble) => answer(expected::complained(packet, trouble, trust)),
        Outcome::ToOneOf(backends) => {
            let (backend, bytes) = forwarded(world, setting, packet, backends)?;
            inwards(backend, bytes)
        }
        Outcome::ToClient(backend, client) => {
            let (service, mut address) = scene::service_of(backend);
            if let Some(slot) = slot_of(world, end::<A>(client), service) {
                address.set_port(slot.record.service_port.host());
            }
            let ends = (end::<A>(address), end::<A>(client));
            outwards(backend, expected::translated(packet, front, ends, trust))
        }
        Outcome::ErrorToClient(backend, client) => {
            let service = end::<A>(scene::service_of(backend).1);
            let client = end::<A>(client);
            let outer = (service.ip(), client.ip());
            outwards(backend, expected::carried(packet, front, outer, (client, service)))
        }
        Outcome::ErrorToBackend(backend, client) => {
            let macs = back(backend);
            let bytes = match setting.mode {
                mode::DSR => expected::redirected(packet, macs, trust),
                mode::IPIP => expected::tunnelled(packet, macs, tunnel(world, backend), trust),
                _ => {
                    let (at_us, server) = towards_backend(world, setting, backend, end::<A>(client))?;
                    let layout = Layout::of(packet);
                    let speaker = layout.address(packet, layout.source());
                    let from = if setting.mode == mode::SNAT { at_us.ip() } else { speaker };
                    expected::carried(packet, macs, (from, server.ip()), (server, at_us))
                }
            };
            inwards(backend, bytes)
        }
        Outcome::Untunnelled(backend, mtu) => outwards(backend, expected::untunnelled(packet, front, mtu)),
    }
}

/// Bytes of IP.
fn length(packet: &[u8]) -> u64 {
    Layout::of(packet).length() as u64
}

/// A client's packet as it should be on its way to the backend that its flow names, or to the only one that it may be.
fn forwarded<A: Kind>(
    world: &impl Store<A>,
    setting: &Setting,
    packet: &[u8],
    backends: &'static [u16],
) -> Result<(u16, Vec<u8>), String> {
    let layout = Layout::of(packet);
    let later = layout.part.is_some_and(|(offset, _)| offset != 0);
    let mut client = layout.ends(packet).0;
    if later {
        client.set_port(0);
    }
    let (service, _) = scene::service_of(backends[0]);
    let slot = slot_of(world, client, service);
    let backend = match (backends, slot) {
        ([only], None) => *only,
        (_, None) => return Err("the client has no flow".into()),
        (_, Some(slot)) => slot.record.backend,
    };
    if !backends.contains(&backend) {
        return Err(format!("the flow is on backend {backend}, wanted one of {backends:?}"));
    }
    let macs = [scene::server_of(backend).1, BACK_MAC];
    let bytes = match setting.mode {
        mode::DSR => expected::redirected(packet, macs, setting.trust),
        mode::IPIP => expected::tunnelled(packet, macs, tunnel(world, backend), setting.trust),
        _ => {
            let mut ends = towards_backend(world, setting, backend, client)?;
            if world.backend_at(backend).port.host() == 0 && !later {
                ends.1.set_port(layout.ends(packet).1.port());
            }
            expected::translated(packet, macs, ends, setting.trust)
        }
    };
    Ok((backend, bytes))
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
    let mut opened = expect.opened.clone();
    if let Some((backend, moved)) = traffic {
        let traffic = &mut wanted.traffic[usize::from(backend)];
        traffic.packets_in += moved.packets_in;
        traffic.bytes_in += moved.bytes_in;
        traffic.packets_out += moved.packets_out;
        traffic.bytes_out += moved.bytes_out;
        opened.extend(expect.opens_it.then_some(backend));
    }
    for (row, account) in &mut wanted.accounts {
        let of_row = |backends: &[u16]| {
            backends.iter().flat_map(|backend| rows_of(*backend)).filter(|moved| moved == row).count() as u64
        };
        account.opened += of_row(&opened);
        account.closed += of_row(&expect.closed);
    }
    wanted
}

/// What moved between two moments, for messages.
fn difference(before: &Counters, after: &Counters) -> Vec<String> {
    let reasons = after.reasons.iter().filter(|entry| !before.reasons.contains(entry));
    let reasons =
        reasons.map(|(service, reason, count)| format!("{} of {service}: now {count}", reason.name()));
    let accounts = before.accounts.iter().zip(&after.accounts).filter(|(before, after)| before != after);
    let accounts = accounts.map(|(_, (row, account))| format!("account {row}: {account:?}"));
    let traffic = before.traffic.iter().zip(&after.traffic).enumerate();
    let traffic = traffic.filter(|(_, (before, after))| before != after);
    let traffic = traffic.map(|(id, (_, traffic))| format!("traffic {id}: {traffic:?}"));
    reasons.chain(accounts).chain(traffic).collect()
}
