//! The flow table and the allocation of ports against a simple model: random packets of clients and servers, expiries,
//! weights and removals. First on one CPU, packet by packet and shrinkable; then on several.

use std::collections::HashMap;

use lb_common::{
    Be32, Be128, Ticks,
    abi::{backend_state, mode},
    cell::Phase,
    flow::FlowKey,
};
use lb_ebpf::{World as _, flows};
use lb_fuzz::{
    Site, World,
    agent::{self, Agent, ESTABLISHED},
    inspect::inspect,
    packets::{End, Numbered, port},
    site::{PLANS, SERVICE_PORT, client, client_port, plan_of},
    traffic::{Said, Taken, Traffic},
    world::Has,
};
use proptest::prelude::*;

/// What happens to a site.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A client (its number, and a choice of its ports) says something to a service.
    Client { client: (u32, u16), service: u16, said: Said },
    /// A client goes through a handshake and says something.
    Connects { client: (u32, u16), service: u16 },
    /// The server of one of the ways that packets went says something.
    Server { way: u64, said: Said },
    /// Milliseconds pass.
    Passes(u64),
    /// A pair gets another weight.
    Weighs { pair: u16, weight: u32 },
    /// A pair gets another state.
    Orders { pair: u16, state: u8 },
    /// The agent looks at everything.
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let client = (1..=4_u32, 0..=2_u16);
    let services = PLANS.len() as u16;
    let said = prop::sample::select(Said::ALL.to_vec());
    let states = [
        backend_state::ACTIVE,
        backend_state::ACTIVE,
        backend_state::CLOSED_TO_NEW,
        backend_state::CUT,
        backend_state::ABSENT,
    ];
    prop_oneof![
        10 => (client.clone(), 1..=services, said.clone())
            .prop_map(|(client, service, said)| Event::Client { client, service, said }),
        10 => (client, 1..=services).prop_map(|(client, service)| Event::Connects { client, service }),
        8 => (0..64_u64, said).prop_map(|(way, said)| Event::Server { way, said }),
        3 => prop::sample::select(vec![70, 1_100, 5_000, 11_000, 70_000, 120_000]).prop_map(Event::Passes),
        1 => (1..=22_u16, 1..=5_000_u32).prop_map(|(pair, weight)| Event::Weighs { pair, weight }),
        1 => (1..=22_u16, prop::sample::select(states.to_vec()))
            .prop_map(|(pair, state)| Event::Orders { pair, state }),
        2 => Just(Event::Sweep),
    ]
}

/// A connection that both sides have agreed to, and that nobody has ended.
#[derive(Clone, Copy, Debug)]
struct Established<A> {
    taken: Taken<A>,
    heard: Ticks,
}

/// The simple model: who is connected to whom.
struct Model<'a, A> {
    world: &'a World,
    traffic: Traffic<'a, A>,
    agent: Agent,
    established: HashMap<(u16, End<A>), Established<A>>,
}

impl<'a, A: Numbered> Model<'a, A>
where
    World: Has<A>,
{
    fn new(site: Site, world: &'a World) -> Self {
        let traffic = Traffic::new(site, world);
        Self { world, traffic, agent: Agent::default(), established: HashMap::new() }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Client { client: (number, choice), service, said } => {
                let from = End { address: client(number), port: client_port(service, choice) };
                self.ask(from, service, said);
            }
            Event::Connects { client: (number, choice), service } => {
                let from = End { address: client(number), port: client_port(service, choice) };
                self.ask(from, service, Said::Begin);
                if let Some(way) = self.traffic.way(u64::MAX).filter(|way| way.client == from) {
                    self.answer(&way, Said::Begin);
                }
                self.ask(from, service, Said::Acknowledge);
                self.world.pass(Ticks::from_millis(1_000));
                self.ask(from, service, Said::Speak);
            }
            Event::Server { way, said } => {
                if let Some(way) = self.traffic.way(way) {
                    self.answer(&way, said);
                }
            }
            Event::Passes(millis) => self.world.pass(Ticks::from_millis(millis)),
            Event::Weighs { pair, weight } => agent::weigh::<A>(self.world, pair, weight),
            Event::Orders { pair, state } => {
                agent::order::<A>(self.world, pair, state);
                if matches!(state, backend_state::CUT | backend_state::ABSENT) {
                    self.established.retain(|_, known| known.taken.pair != pair);
                }
            }
            Event::Sweep => {
                let now = self.world.now();
                self.established.retain(|_, known| !now.since(known.heard).at_least(ESTABLISHED));
                self.agent.sweep::<A>(self.world);
            }
        }
        inspect(self.world, true);
        self.tuples_are_held_once();
    }

    fn state(&self, pair: u16) -> u8 {
        Has::<A>::half(self.world).backends.get(&pair).map_or(0, |backend| backend.state)
    }

    fn ask(&mut self, from: End<A>, service: u16, said: Said) {
        let known = self.established.get(&(service, from)).copied();
        let tcp = plan_of(service).protocol == lb_common::abi::TCP;
        let afresh = tcp
            && said == Said::Begin
            && known.is_some_and(|known| self.state(known.taken.pair) != backend_state::ACTIVE);
        let taken = self.traffic.ask(from, service, said);
        if let Some(known) = known.filter(|_| !afresh) {
            assert_eq!(taken, Some(known.taken), "{said:?} on an established connection");
        }
        if afresh || tcp && matches!(said, Said::Finish | Said::Abort) {
            self.established.remove(&(service, from));
        }
        self.learn(from, service, taken);
    }

    /// What the table calls established is so until the model knows why not.
    fn learn(&mut self, from: End<A>, service: u16, taken: Option<Taken<A>>) {
        let key = FlowKey {
            client: from.address,
            client_port: port(from.port),
            service_port: port(SERVICE_PORT),
            service,
        };
        let (Some(taken), Some(found)) = (taken, flows::find(&key, self.world)) else { return };
        let owner = found.seat().owner::<A, _>(self.world).unwrap_or_default();
        let usable = matches!(self.state(taken.pair), backend_state::ACTIVE | backend_state::CLOSED_TO_NEW);
        // A conversation in UDP may have to yield at any time.
        let tcp = plan_of(service).protocol == lb_common::abi::TCP;
        if tcp && owner.phase() == Phase::Established && !owner.is_closing() && !owner.is_cut() && usable {
            let heard = self.world.now();
            self.established.insert((service, from), Established { taken, heard });
        }
    }

    fn answer(&mut self, way: &Taken<A>, said: Said) {
        let known = self.established.get(&(way.service, way.client)).copied();
        // The way may be an older one of the same client; and where the client hears from its server directly, none of
        // that passes here.
        let passes = !mode::is_one_sided(plan_of(way.service).mode);
        let known = known.filter(|known| passes && known.taken == *way);
        let heard = self.traffic.answer(way, said);
        if let Some(known) = known {
            assert_eq!(heard, Some(known.taken.client), "{said:?} of {way:?}");
        }
        let ends = matches!(said, Said::Finish | Said::Abort);
        if ends && plan_of(way.service).protocol == lb_common::abi::TCP {
            // Whoever holds the tuple now has heard it.
            if let Some(client) = heard {
                self.established.retain(|(service, end), known| {
                    *end != client || *service != way.service && known.taken.tuple != way.tuple
                });
            }
        } else if let (Some(client), Some(known)) =
            (heard, self.established.get_mut(&(way.service, way.client)))
            && client == way.client
            && known.taken == *way
        {
            known.heard = self.world.now();
        }
    }

    fn tuples_are_held_once(&self) {
        let mut held = HashMap::new();
        for ((service, client), known) in &self.established {
            let plan = plan_of(*service);
            if plan.mode == mode::SNAT {
                let other = held.insert(known.taken.tuple, client);
                assert!(other.is_none(), "{other:?} and {client:?} hold {:?}", known.taken.tuple);
            }
        }
    }
}

fn live<A: Numbered>(site: Site, events: &[Event])
where
    World: Has<A>,
{
    let world = site.build();
    let mut model = Model::<A>::new(site, &world);
    for event in events {
        model.happen(*event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connections_stay_ports_are_held_once_and_accounts_add_up(
        events in prop::collection::vec(event(), 1..200),
        seed in 0..8_u64,
        log_buckets in 0..=3_u32,
    ) {
        let site = Site { seed, buckets: 1 << log_buckets, ..Site::default() };
        live::<Be32>(site, &events);
        live::<Be128>(site, &events);
    }
}
