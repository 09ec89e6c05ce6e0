//! The flow table and the allocation of ports on several CPUs: with every access to a shared word in an order that a
//! seed decides, and with threads that run as they like. A failure names its seed.

use std::sync::{Barrier, Mutex};

use lb_common::{
    Be32, Be128, Ticks,
    abi::backend_state,
    cell::{Phase, Rights},
    flow::{FlowKey, Record, Way},
};
use lb_ebpf::{
    Tables, World as _,
    flows::{self, NotAdded},
};
use lb_fuzz::{
    Site, World,
    agent::{self, Agent},
    claims::Claims,
    inspect::inspect,
    pace::{self, Dice, Order, Pace},
    packets::{End, Numbered, port},
    site::{PLANS, SERVICE_PORT, client, client_port, plan_of},
    traffic::{Said, Taken, Traffic},
    world::Has,
};

/// Clients from this number on are left alone once they are connected.
const LOYAL: u32 = 50;

/// A connection that nobody ends, and where it goes.
type Loyal<A> = (End<A>, u16, Taken<A>);

/// What one CPU is dealt.
struct Cpu<'a, A> {
    traffic: &'a Traffic<'a, A>,
    loyal: &'a [Loyal<A>],
    dice: Dice,
}

impl<A: Numbered> Cpu<'_, A>
where
    World: Has<A>,
{
    fn run(mut self, events: u64) {
        for _ in 0..events {
            self.event();
        }
    }

    fn event(&mut self) {
        let said = Said::ALL[self.dice.below(5) as usize];
        match self.dice.below(20) {
            0..=8 => {
                let service = 1 + self.dice.below(PLANS.len() as u64) as u16;
                let port = client_port(service, self.dice.below(2) as u16);
                let from = End { address: client(1 + self.dice.below(3) as u32), port };
                let said = if self.dice.one_in(2) { Said::Begin } else { said };
                self.traffic.ask(from, service, said);
            }
            9..=14 => {
                let way = self.traffic.way(self.dice.roll());
                if let Some(way) = way.filter(|way| way.client.address.number() < client::<A>(LOYAL).number())
                {
                    self.traffic.answer(&way, said);
                }
            }
            15 | 16 if !self.loyal.is_empty() => {
                let (from, service, known) = &self.loyal[self.dice.below(self.loyal.len() as u64) as usize];
                let said = if self.dice.one_in(2) { Said::Speak } else { Said::Acknowledge };
                assert_eq!(self.traffic.ask(*from, *service, said), Some(*known), "{said:?}");
                if !lb_common::abi::mode::is_one_sided(plan_of(*service).mode) {
                    assert_eq!(self.traffic.answer(known, said), Some(*from), "{said:?} for {known:?}");
                }
            }
            17 => self.traffic.world.pass(Ticks::from_raw(self.dice.below(18) as u32)),
            18 => agent::weigh::<A>(self.traffic.world, 1 + self.dice.below(22) as u16, 1024),
            _ => {
                let pair = 1 + self.dice.below(22) as u16;
                let free = self.loyal.iter().all(|(_, _, known)| known.pair != pair);
                let states = [
                    backend_state::ACTIVE,
                    backend_state::CLOSED_TO_NEW,
                    backend_state::CUT,
                    backend_state::ABSENT,
                ];
                let state = states[self.dice.below(if free { 4 } else { 2 }) as usize];
                agent::order::<A>(self.traffic.world, pair, state);
            }
        }
    }
}

/// Connect a few clients, one after the other; those whose connections are established and recorded.
fn connect<A: Numbered>(traffic: &Traffic<'_, A>, dice: &mut Dice) -> Vec<Loyal<A>>
where
    World: Has<A>,
{
    let mut loyal = Vec::new();
    for number in 0..4 {
        let service = 1 + dice.below(PLANS.len() as u64) as u16;
        let from = End { address: client::<A>(LOYAL + number), port: client_port(service, 0) };
        let Some(way) = traffic.ask(from, service, Said::Begin) else { continue };
        traffic.answer(&way, Said::Begin);
        traffic.ask(from, service, Said::Acknowledge);
        traffic.world.pass(Ticks::from_millis(1_000));
        let taken = traffic.ask(from, service, Said::Speak);
        let key = FlowKey {
            client: from.address,
            client_port: port(from.port),
            service_port: port(SERVICE_PORT),
            service,
        };
        let Some(found) = flows::find(&key, traffic.world) else { continue };
        let owner = found.seat().owner::<A, _>(traffic.world);
        // A conversation in UDP may have to yield at any time.
        let stays = plan_of(service).protocol == lb_common::abi::TCP;
        if let (true, Some(taken), Some(Phase::Established)) =
            (stays, taken, owner.map(lb_common::cell::Owner::phase))
        {
            loyal.push((from, service, taken));
        }
    }
    loyal
}

fn site(dice: &mut Dice) -> Site {
    Site { seed: dice.roll(), buckets: 1 << dice.below(3), ..Site::default() }
}

/// Several CPUs and the agent, in an order that the seed decides.
fn interleaved<A: Numbered>(seed: u64)
where
    World: Has<A>,
{
    let mut dice = Dice(seed);
    let site = site(&mut dice);
    let mut world = site.build();
    world.claims = Some(Claims::default());
    let traffic = Traffic::<A>::new(site, &world);
    let loyal = connect(&traffic, &mut dice);
    let mut cpus: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
    for _ in 0..2 + dice.below(2) {
        let cpu = Cpu { traffic: &traffic, loyal: &loyal, dice: Dice(dice.roll()) };
        cpus.push(Box::new(move || cpu.run(20)));
    }
    let world = &world;
    cpus.push(Box::new(move || {
        let mut agent = Agent::default();
        agent.sweep::<A>(world);
        agent.sweep::<A>(world);
    }));
    let rarity = [2, 5, 20, 100][dice.below(4) as usize];
    pace::race(Order::Drawn(Dice(dice.roll()), rarity), cpus);
    settled::<A>(world);
}

/// What must hold once everybody has stopped, and again when the agent has looked twice.
fn settled<A: Numbered>(world: &World)
where
    World: Has<A>,
{
    inspect(world, false);
    let mut agent = Agent::default();
    agent.sweep::<A>(world);
    agent.sweep::<A>(world);
    inspect(world, true);
}

/// Run `body` for `count` seeds from 0 on; `LB_SEED` and `LB_SEEDS` say otherwise. A failure names its seed.
fn seeds(count: u64, body: impl Fn(u64) + std::panic::RefUnwindSafe) {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let (first, count) = (number("LB_SEED").unwrap_or(0), number("LB_SEEDS").unwrap_or(count));
    for seed in first..first + count {
        let ran = std::panic::catch_unwind(|| body(seed));
        assert!(ran.is_ok(), "fails with LB_SEED={seed}");
    }
}

#[test]
fn any_order_of_accesses_leaves_the_tables_whole() {
    seeds(1_000, |seed| {
        interleaved::<Be32>(seed);
        interleaved::<Be128>(seed);
    });
}

const SERVICE: u16 = 6;

fn key(number: u32, service: u16) -> FlowKey<Be32> {
    FlowKey { client: client(number), client_port: port(40_000), service_port: port(SERVICE_PORT), service }
}

/// Add a flow of a service without port cells, with its account; whether there was room.
fn add(world: &World, number: u32, backend: u16) -> Result<(), NotAdded> {
    let key = key(number, SERVICE);
    let record = Record::<Be32> {
        way: Way::default(),
        seen: world.now().raw(),
        word: 0,
        backend,
        service: key.service,
        service_port: key.service_port,
        vlan: 0,
        client: [],
    };
    Tables::<Be32>::open(world, backend);
    let added = flows::insert(&key, &record, Phase::Embryonic, Rights::default(), world);
    if added.is_err() {
        Tables::<Be32>::close(world, backend);
    }
    added
}

/// End a flow, if it is there.
fn end(world: &World, number: u32) {
    if let Some(found) = flows::find(&key(number, SERVICE), world) {
        flows::end(&found, world);
    }
}

#[test]
fn two_cpus_that_add_the_same_flow_never_both_succeed() {
    let won = Mutex::new([0; 3]);
    seeds(4_000, |seed| {
        let mut dice = Dice(seed);
        let world = Site { buckets: 1 << dice.below(2), seed, ..Site::default() }.build();
        // Others fill the table. Who ends meanwhile makes the two choose different slots.
        let others = 20 + dice.below(8) as u32;
        for number in 20..others {
            let _ = add(&world, number, 12);
        }
        let results = Mutex::new(Vec::new());
        let mut cpus: Vec<Box<dyn FnOnce() + Send + '_>> = Vec::new();
        for backend in [12, 13] {
            let (world, results) = (&world, &results);
            cpus.push(Box::new(move || {
                let added = add(world, 1, backend);
                results.lock().expect("no CPU panics with it").push(added);
            }));
        }
        let gone = 20 + dice.below(8) as u32;
        let there = &world;
        cpus.push(Box::new(move || end(there, gone)));
        let order = if dice.one_in(4) {
            Order::Drawn(dice.clone(), 30)
        } else {
            // Both are held up at any place, and somebody ends in between.
            let turns = [(1, 60), (0, 60), (1, 400), (2, 400), (0, 400)];
            Order::Written(turns.map(|(cpu, most)| (cpu, 1 + dice.below(most))).to_vec())
        };
        pace::race(order, cpus);
        let results = results.into_inner().expect("no CPU panics with it");
        let added = results.iter().filter(|added| added.is_ok()).count();
        assert!(added <= 1, "both have added it");
        won.lock().expect("no CPU panics with it")[added] += 1;
        inspect(&world, true);
    });
    let [neither, one, _] = won.into_inner().expect("no CPU panics with it");
    println!("one of two CPUs has added the flow {one} times, neither {neither} times");
}

#[test]
fn a_look_up_never_mixes_two_flows_that_follow_each_other_in_a_slot() {
    let seen = Mutex::new([0; 2]);
    seeds(400, |seed| {
        let mut dice = Dice(seed);
        let world = Site { buckets: 1, seed, ..Site::default() }.build();
        for number in 1..=8 {
            add(&world, number, 12).expect("there is room for eight");
        }
        let there = &world;
        let seen = &seen;
        let cpus: Vec<Box<dyn FnOnce() + Send + '_>> = vec![
            Box::new(move || {
                let found = flows::find(&key(8, SERVICE), there);
                assert!(found.is_none_or(|found| found.record.backend == 12), "another flow's record");
                seen.lock().expect("no CPU panics with it")[usize::from(found.is_some())] += 1;
            }),
            Box::new(move || {
                end(there, 8);
                add(there, 9, 13).expect("there is room for one");
            }),
        ];
        pace::race(Order::Written(vec![(1, 400), (0, 1 + dice.below(40))]), cpus);
        inspect(&world, true);
    });
    println!("not found and found: {:?}", seen.into_inner().expect("no CPU panics with it"));
}

#[test]
fn an_ended_connection_of_another_service_does_not_get_its_successors_answers() {
    let site = Site::default();
    let world = site.build();
    let traffic = Traffic::<Be32>::new(site, &world);
    // Server 4 stands behind both services, and sees the client itself.
    for pair in [9, 21, 22] {
        agent::order::<Be32>(&world, pair, backend_state::CLOSED_TO_NEW);
    }
    let mut recorded = 0;
    for number in 40_000..40_008 {
        let from = End { address: client::<Be32>(1), port: number };
        let first = traffic.ask(from, 4, Said::Begin).expect("pair 8 serves");
        traffic.answer(&first, Said::Abort);
        let second = traffic.ask(from, 10, Said::Begin).expect("pair 20 serves");
        // Only the slots that have changed record anything.
        let key = FlowKey { client_port: port(number), ..key(1, 10) };
        if flows::find(&key, &world).is_some() {
            assert_eq!(traffic.answer(&second, Said::Begin), Some(from));
            let phase = flows::find(&key, &world).map(|found| found.owner.phase());
            assert_eq!(phase, Some(Phase::Answered));
            recorded += 1;
        }
    }
    assert!(recorded > 0, "no slot has changed");
}

#[test]
fn a_port_is_never_taken_from_under_a_flow_that_its_client_marks() {
    seeds(400, |seed| {
        let mut dice = Dice(seed);
        let site = Site { seed, ..Site::default() };
        let world = site.build();
        let traffic = Traffic::<Be32>::new(site, &world);
        let from = End { address: client::<Be32>(1), port: 40_000 };
        let way = traffic.ask(from, 1, Said::Begin).expect("there are free ports");
        traffic.answer(&way, Said::Begin);
        traffic.ask(from, 1, Said::Acknowledge);
        traffic.answer(&way, Said::Abort);
        let key = key(1, 1);
        let cell = way.tuple.expect("a service in snat has a tuple").1;
        let (there, traffic) = (&world, &traffic);
        let cpus: Vec<Box<dyn FnOnce() + Send + '_>> = vec![
            Box::new(move || flows::unlink(&key, cell, there)),
            Box::new(move || {
                traffic.ask(from, 1, Said::Finish);
            }),
        ];
        pace::race(Order::Written(vec![(1, 400), (0, 1 + dice.below(60))]), cpus);
        assert!(flows::find(&key, &world).is_none(), "a flow is left that leads to another client's port");
    });
}

/// Threads that run as they like, in rounds; what holds is checked while they wait for each other.
fn at_large<A: Numbered>(seed: u64, rounds: u32)
where
    World: Has<A>,
{
    const CPUS: usize = 4;
    let mut dice = Dice(seed);
    let site = site(&mut dice);
    let mut world = site.build();
    world.claims = Some(Claims::default());
    let traffic = Traffic::<A>::new(site, &world);
    for _ in 0..rounds {
        let loyal = connect(&traffic, &mut dice);
        let start = Barrier::new(CPUS + 1);
        std::thread::scope(|scope| {
            for _ in 0..CPUS {
                let cpu = Cpu { traffic: &traffic, loyal: &loyal, dice: Dice(dice.roll()) };
                let pace = Pace::Random(Dice(dice.roll()), 50);
                let start = &start;
                scope.spawn(move || {
                    pace::walk(Some(pace));
                    start.wait();
                    cpu.run(60);
                });
            }
            start.wait();
            let mut agent = Agent::default();
            for _ in 0..4 {
                agent.sweep::<A>(&world);
            }
        });
        settled::<A>(&world);
        for pair in 1..=22 {
            agent::order::<A>(&world, pair, backend_state::ACTIVE);
        }
    }
}

#[test]
fn cpus_at_large_leave_the_tables_whole() {
    seeds(10, |seed| {
        at_large::<Be32>(seed, 40);
        at_large::<Be128>(seed, 40);
    });
}
