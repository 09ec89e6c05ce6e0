//! The model that the controller is judged by: one or more balancers, ten PHP-FPM pools of twenty workers with
//! 100 ms of work a request and a FIFO backlog, one of them twice as slow for two minutes.
//!
//! A discrete-event simulation, a port of the Python program with which the policy was chosen, event for event and
//! random number for random number (Mersenne Twister, as `CPython` seeds it), so its figures can be compared digit by
//! digit: see `the_port_gives_the_figures_of_the_python_model`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// Pools.
pub const POOLS: usize = 10;
/// Workers in a pool.
const WORKERS: usize = 20;
/// Mean work of a request, in seconds.
const WORK: f64 = 0.1;
/// Seconds between snapshots of the pools' load.
const INTERVAL: f64 = 1.0;
/// Seconds from a snapshot to its arrival at the policy.
const DELAY: f64 = 0.2;
/// Seconds at the start that do not count.
const WARM_UP: f64 = 30.0;
/// Requests a second on a kept-alive connection.
const REQUEST_RATE: f64 = 2.0;

/// `CPython`'s `random.Random(seed)`: M. Matsumoto, T. Nishimura, "Mersenne Twister", 1998, reference code mt19937ar.
pub struct Random {
    state: [u32; 624],
    at: usize,
}

impl Random {
    /// Seeds as `CPython` does for a small integer: by an array of one word.
    pub fn new(seed: u32) -> Self {
        let mut state = [0_u32; 624];
        state[0] = 19_650_218;
        for i in 1..624 {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let mut i = 1;
        for step in 0..624 + 623 {
            let last = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = if step < 624 {
                (state[i] ^ last.wrapping_mul(1_664_525)).wrapping_add(seed)
            } else {
                (state[i] ^ last.wrapping_mul(1_566_083_941)).wrapping_sub(i as u32)
            };
            i += 1;
            if i == 624 {
                state[0] = state[623];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, at: 624 }
    }

    fn word(&mut self) -> u32 {
        if self.at == 624 {
            for i in 0..624 {
                let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let odd = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (mixed >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut word = self.state[self.at];
        self.at += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// From 0 to below 1, with 53 bits.
    pub fn fraction(&mut self) -> f64 {
        let (high, low) = (f64::from(self.word() >> 5), f64::from(self.word() >> 6));
        (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
    }

    fn exponential(&mut self, rate: f64) -> f64 {
        -(1.0 - self.fraction()).ln() / rate
    }
}

/// What computes weights from snapshots.
pub trait Policy {
    /// Takes in the load of all pools, as it was [`DELAY`] before `now` (seconds), and changes the weights in use.
    fn weigh(&mut self, load: &[f64; POOLS], now: f64, weights: &mut [f64; POOLS]);
}

/// What is simulated.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Mean utilisation of all workers.
    pub utilisation: f64,
    /// Mean lifetime of a kept-alive connection in seconds; 0 for one request a connection.
    pub keep_alive: f64,
    /// The random seed.
    pub seed: u32,
    /// From when to when pool 0 is how many times slower.
    pub slow: (f64, f64, f64),
    /// The end, in seconds.
    pub end: f64,
}

impl Scenario {
    /// The scenario of all figures: four minutes, pool 0 twice as slow from 60 to 180 s.
    pub fn standard(keep_alive: f64, seed: u32) -> Self {
        Self { utilisation: 0.75, keep_alive, seed, slow: (60.0, 180.0, 2.0), end: 240.0 }
    }
}

/// What came out.
pub struct Outcome {
    latencies: Vec<f64>,
    /// Arrival time at the policy, and the slow pool's weight over the mean of all.
    pub shares: Vec<(f64, f64)>,
}

impl Outcome {
    /// The latency in milliseconds below which so many of all requests stayed.
    pub fn percentile(&self, share: f64) -> f64 {
        let at = (share * self.latencies.len() as f64) as usize;
        self.latencies[at.min(self.latencies.len() - 1)] * 1_000.0
    }
}

/// An event by what happens; times in it are seconds.
#[derive(Clone, Copy)]
enum Event {
    Arrival,
    Completion { pool: usize, arrived: f64, balancer: usize },
    Snapshot { balancer: usize },
    Weights { balancer: usize, load: [f64; POOLS] },
    Request { pool: usize, expires: f64, balancer: usize },
}

/// One balancer: live connections per pool, and the weights in use.
struct Balancer {
    live: [u32; POOLS],
    weights: [f64; POOLS],
}

struct Simulation {
    scenario: Scenario,
    random: Random,
    busy: [usize; POOLS],
    backlog: [VecDeque<(f64, usize)>; POOLS],
    balancers: Vec<Balancer>,
    /// Ordered by time, then by the order of creation.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: Vec<Event>,
    spare: Vec<u32>,
    created: u64,
    /// Connections so far; the balancers take them in turn.
    connections: usize,
    outcome: Outcome,
}

/// Runs the scenario with one balancer per policy.
pub fn simulate<P: Policy>(scenario: Scenario, policies: &mut [P]) -> Outcome {
    let balancers = policies.iter().map(|_| Balancer { live: [0; POOLS], weights: [1.0; POOLS] }).collect();
    let mut simulation = Simulation {
        scenario,
        random: Random::new(scenario.seed),
        busy: [0; POOLS],
        backlog: Default::default(),
        balancers,
        queue: BinaryHeap::new(),
        events: Vec::new(),
        spare: Vec::new(),
        created: 0,
        connections: 0,
        outcome: Outcome { latencies: Vec::new(), shares: Vec::new() },
    };
    let first = simulation.random.exponential(simulation.arrival_rate());
    simulation.push(first, Event::Arrival);
    for balancer in 0..policies.len() {
        let phase = balancer as f64 / policies.len() as f64;
        simulation.push(INTERVAL + phase * INTERVAL, Event::Snapshot { balancer });
    }
    while let Some((now, event)) = simulation.pop() {
        if now > scenario.end {
            break;
        }
        simulation.handle(now, event, policies);
    }
    simulation.outcome.latencies.sort_by(f64::total_cmp);
    simulation.outcome
}

impl Simulation {
    /// New connections a second.
    fn arrival_rate(&self) -> f64 {
        let requests = self.scenario.utilisation * (POOLS * WORKERS) as f64 / WORK;
        if self.scenario.keep_alive > 0.0 {
            requests / (REQUEST_RATE * self.scenario.keep_alive)
        } else {
            requests
        }
    }

    /// Times are not negative, so their bits order as they do.
    fn push(&mut self, time: f64, event: Event) {
        let slot = self.spare.pop().unwrap_or_else(|| {
            self.events.push(event);
            self.events.len() as u32 - 1
        });
        self.events[slot as usize] = event;
        self.queue.push(Reverse((time.to_bits(), self.created << 24 | u64::from(slot))));
        self.created += 1;
    }

    fn pop(&mut self) -> Option<(f64, Event)> {
        let Reverse((time, tag)) = self.queue.pop()?;
        let slot = (tag & 0xff_ffff) as u32;
        self.spare.push(slot);
        Some((f64::from_bits(time), self.events[slot as usize]))
    }

    fn handle<P: Policy>(&mut self, now: f64, event: Event, policies: &mut [P]) {
        match event {
            Event::Arrival => self.arrive(now),
            Event::Completion { pool, arrived, balancer } => self.complete(now, pool, arrived, balancer),
            Event::Request { pool, expires, balancer } => {
                if now >= expires {
                    self.balancers[balancer].live[pool] -= 1;
                } else {
                    let pause = self.random.exponential(REQUEST_RATE);
                    self.push(now + pause, event);
                    self.request(now, pool, balancer);
                }
            }
            Event::Snapshot { balancer } => {
                self.push(now + INTERVAL, Event::Snapshot { balancer });
                let load = |pool: usize| (self.busy[pool] + self.backlog[pool].len()) as f64 / WORKERS as f64;
                self.push(now + DELAY, Event::Weights { balancer, load: std::array::from_fn(load) });
            }
            Event::Weights { balancer, load } => {
                let weights = &mut self.balancers[balancer].weights;
                policies[balancer].weigh(&load, now, weights);
                let mean = weights.iter().sum::<f64>() / POOLS as f64;
                self.outcome.shares.push((now, weights[0] / mean));
            }
        }
    }

    fn arrive(&mut self, now: f64) {
        let pause = self.random.exponential(self.arrival_rate());
        self.push(now + pause, Event::Arrival);
        let balancer = self.connections % self.balancers.len();
        self.connections += 1;
        let (one, other) = (self.draw(balancer), self.draw(balancer));
        let Balancer { live, weights } = &mut self.balancers[balancer];
        let cost = |pool: usize| f64::from(live[pool] + 1) / weights[pool].max(1e-9);
        let pool = if cost(one) <= cost(other) { one } else { other };
        live[pool] += 1;
        if self.scenario.keep_alive == 0.0 {
            return self.request(now, pool, balancer);
        }
        let pause = self.random.exponential(REQUEST_RATE);
        let expires = now + self.random.exponential(1.0 / self.scenario.keep_alive);
        self.push(now + pause, Event::Request { pool, expires, balancer });
    }

    /// Draws a pool in proportion to the balancer's weights.
    fn draw(&mut self, balancer: usize) -> usize {
        let weights = &self.balancers[balancer].weights;
        let mark = self.random.fraction() * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let reaches = |weight: &f64| {
            sum += weight;
            mark < sum
        };
        weights.iter().position(reaches).unwrap_or(POOLS - 1)
    }

    fn request(&mut self, now: f64, pool: usize, balancer: usize) {
        if self.busy[pool] < WORKERS {
            self.busy[pool] += 1;
            let work = self.work(now, pool);
            self.push(now + work, Event::Completion { pool, arrived: now, balancer });
        } else {
            self.backlog[pool].push_back((now, balancer));
        }
    }

    fn complete(&mut self, now: f64, pool: usize, arrived: f64, balancer: usize) {
        if self.scenario.keep_alive == 0.0 {
            self.balancers[balancer].live[pool] -= 1;
        }
        if now > WARM_UP {
            self.outcome.latencies.push(now - arrived);
        }
        if let Some((arrived, balancer)) = self.backlog[pool].pop_front() {
            let work = self.work(now, pool);
            self.push(now + work, Event::Completion { pool, arrived, balancer });
        } else {
            self.busy[pool] -= 1;
        }
    }

    fn work(&mut self, now: f64, pool: usize) -> f64 {
        let (from, to, factor) = self.scenario.slow;
        let factor = if pool == 0 && (from..to).contains(&now) { factor } else { 1.0 };
        self.random.exponential(1.0 / (WORK * factor))
    }
}
