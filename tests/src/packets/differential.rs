//! Library against kernel: the same tables, the same generated packets, and the same of everything afterwards.
//!
//! A round is a seed: it says what the tables hold and which packets come. Its services choose by ring or in turns, for
//! those choices depend on no chance. The model's clock stands still; where the kernel's ticks within a round, that round
//! is run again. Nothing else differs but stamps of the precise clock, which are left out of the comparison.

use lb_common::{
    abi::{TCP, UDP, algorithm, backend_state, mode, no_backend},
    event::Event,
};

use super::{
    Fact, Kernel, Life, Model,
    agree::slack,
    kind::Kind,
    scene::{self, A, ADMIN_ID, B, BACK, CLIENT, FOUR_PORTS, FRONT, OTHER, Setting, WEB_ID},
    traffic::{Chance, packet},
    world::{Counters, Store, World, slots},
};

/// Packets that a round consists of; it takes a tenth of a tick.
pub const PACKETS: u64 = 40;

/// What a round's tables hold.
pub struct Round {
    /// What the scene is set up for.
    pub setting: Setting,
    facts: Vec<Fact>,
    packets: Vec<Vec<u8>>,
}

impl Round {
    /// The round of a seed, for interfaces whose checksums are worth so much.
    pub fn new(seed: u64, trust: u8) -> Self {
        let mut chance = Chance::new(seed << 2 | u64::from(trust));
        let setting = Setting {
            version: chance.of(&[4, 6]),
            mode: chance.of(&[mode::SNAT, mode::DNAT, mode::DSR, mode::IPIP]),
            protocol: chance.of(&[TCP, TCP, UDP]),
            trust,
            buckets: 1,
            ..Setting::DEFAULT
        };
        let setting = setting.with_ports(FOUR_PORTS);
        let facts = facts(&mut chance, &setting);
        let other = 10 - setting.version;
        let packets = (0..PACKETS).map(|_| {
            let version = if chance.once_in(12) { other } else { setting.version };
            packet(&mut chance, version)
        });
        Self { setting, facts, packets: packets.collect() }
    }

    /// Run it in both worlds and compare everything; false if the kernel's clock ticked in between.
    pub fn agrees<A: Kind>(&self, kernel: &mut Kernel, model: &mut Model) -> Result<bool, String>
    where
        Kernel: Store<A>,
        Model: Store<A>,
    {
        let begun = World::now(kernel);
        self.prepare(kernel);
        self.prepare(model);
        let ours: Vec<_> = self.packets.iter().map(|packet| World::run(kernel, packet)).collect();
        if World::now(kernel) != begun {
            return Ok(false);
        }
        for ((number, packet), ours) in self.packets.iter().enumerate().zip(ours) {
            let theirs = World::run(model, packet);
            if ours != theirs {
                return Err(format!(
                    "packet {number} of {:?} with {:?}:\n  {packet:02x?}\nkernel\n  {ours:02x?}\nlibrary\n  {theirs:02x?}",
                    self.setting, self.facts
                ));
            }
        }
        let (ours, theirs) = (summary(kernel)?, summary(model)?);
        if ours != theirs {
            return Err(format!(
                "after {:?} with {:?} kernel\n  {ours:?}\nlibrary\n  {theirs:?}",
                self.setting, self.facts
            ));
        }
        Ok(true)
    }

    fn prepare<A: Kind>(&self, world: &mut impl Store<A>) {
        world.clear();
        scene::set(world, &self.setting);
        for fact in &self.facts {
            fact.apply(world);
        }
    }
}

/// All that is left after a round, but for stamps.
fn summary<A: Kind>(world: &mut impl Store<A>) -> Result<(Counters, Vec<String>, Vec<String>), String> {
    let events = world.events().into_iter().map(|event| format!("{:?}", Event { value: 0, ..event }));
    let events = events.collect();
    slack(world)?;
    let cells = (0..world.cell_count()).map(|index| {
        let cell = world.cell_at(index);
        let stamps = (cell.owner, cell.hop, cell.backend, cell.service_port, cell.vlan, cell.client);
        format!("{stamps:?}")
    });
    let mut state: Vec<String> = cells.collect();
    state.extend(slots(world).iter().map(|slot| {
        let record = lb_common::flow::Record { seen: 0, word: 0, ..slot.record };
        format!("{:?} {record:?}", slot.owner)
    }));
    Ok((Counters::of(world), state, events))
}

fn facts(chance: &mut Chance, setting: &Setting) -> Vec<Fact> {
    let algorithms = [algorithm::ROUND_ROBIN, algorithm::MAGLEV, algorithm::SOURCE_HASH];
    let one_side = setting.mode != mode::SNAT;
    let mut facts = vec![
        Fact::Algorithm(WEB_ID, chance.of(&algorithms)),
        Fact::Algorithm(ADMIN_ID, algorithm::ROUND_ROBIN),
        Fact::Ring(WEB_ID, chance.of(&[&[A, B, A][..], &[A], &[B, A], &[]]).to_vec()),
        Fact::NoBackend(WEB_ID, chance.of(&[no_backend::RESET, no_backend::HOLD, no_backend::DROP])),
        Fact::Refusals(A, chance.of(&[no_backend::RESET, no_backend::HOLD])),
    ];
    if one_side && chance.once_in(3) {
        let slots = chance.of(&[&[(A, A)][..], &[(B, A)], &[(A, 0xffff)], &[(A, A), (B, A), (B, B)]]);
        facts.push(Fact::Slots(WEB_ID, slots.to_vec()));
    }
    let states = [backend_state::CLOSED_TO_NEW, backend_state::CUT, backend_state::ABSENT];
    let lives = [Life::Embryonic, Life::Answered, Life::Established, Life::ClosedByServer];
    let mut maybe = |fact: Fact, times: u64| {
        if chance.once_in(times) {
            facts.push(fact);
        }
    };
    maybe(Fact::AnswersEcho, 2);
    maybe(Fact::PassesLost(WEB_ID), 3);
    maybe(Fact::AgentLost(10_000), 2);
    maybe(Fact::Mtu(BACK, 1_300), 4);
    maybe(Fact::Mtu(FRONT, 1_300), 4);
    maybe(Fact::WayMtu(A, 700), 6);
    maybe(Fact::ServerLimit(1, 2), 4);
    maybe(Fact::ServiceLimit(WEB_ID, 2), 4);
    maybe(Fact::Rate(WEB_ID, 1, 3), 4);
    maybe(Fact::Unresolved(B), 8);
    maybe(Fact::ErrorsSpent, 8);
    for state in states {
        maybe(Fact::State(A, state), 12);
    }
    for (place, client) in [CLIENT, OTHER].into_iter().enumerate() {
        if chance.once_in(2) {
            let (life, age) = (chance.of(&lives), chance.of(&[0, 500, 5_000]));
            facts.push(Fact::Connection { client, backend: A, place: place as u32, life, age });
        }
    }
    if chance.once_in(8) {
        facts.push(Fact::Cut(CLIENT));
    }
    if one_side && chance.once_in(6) {
        facts.push(Fact::Crowd(A, chance.of(&lives), chance.of(&[100, 5_000])));
    }
    facts
}
