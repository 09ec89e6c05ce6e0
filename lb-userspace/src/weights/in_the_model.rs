//! The controller in the model: what it is worth in milliseconds.

use super::model::{Outcome, POOLS, Policy, Random, Scenario, simulate};
use super::*;

fn at(seconds: f64) -> Moment {
    Moment::at(Duration::from_secs_f64(seconds))
}

/// The policy as the Python model has it, to check the port by.
struct Reference {
    load: Option<[f64; POOLS]>,
    integral: [f64; POOLS],
}

impl Policy for Reference {
    fn weigh(&mut self, load: &[f64; POOLS], _now: f64, weights: &mut [f64; POOLS]) {
        let share = 1.0 - (-1.0_f64).exp();
        let smoothed = match self.load {
            None => *load,
            Some(last) => std::array::from_fn(|i| last[i] + share * (load[i] - last[i])),
        };
        self.load = Some(smoothed);
        let mean = smoothed.iter().map(|load| load.min(1.5)).sum::<f64>() / POOLS as f64;
        let mut new = [0.0; POOLS];
        for i in 0..POOLS {
            let deviation = ((mean - smoothed[i]) / mean.max(0.1)).clamp(-1.0, 1.0);
            let step = if deviation.abs() < 0.05 { 0.0 } else { deviation };
            self.integral[i] = (self.integral[i] * (1.0 + 0.05 * step)).clamp(0.05, 2.0);
            new[i] = self.integral[i] * (0.5 * deviation).exp();
        }
        let sum = self.integral.iter().sum::<f64>() / POOLS as f64;
        self.integral = self.integral.map(|integral| (integral / sum).clamp(0.05, 2.0));
        let sum = new.iter().sum::<f64>() / POOLS as f64;
        for (weight, new) in weights.iter_mut().zip(new) {
            let new = (new / sum).clamp(0.02, 2.0);
            if (new - *weight).abs() >= 0.05 * *weight {
                *weight = new;
            }
        }
    }
}

/// The controller that is shipped, with a count of what it published.
struct Shipped {
    controller: Controller<usize>,
    published: Vec<(f64, usize)>,
    /// Turns a true load into the sample that arrives, if one does.
    sampling: fn(f64, &mut Random) -> Option<f64>,
    random: Random,
}

impl Shipped {
    fn new() -> Self {
        let mut controller = Controller::new(Tuning::default());
        let members: Vec<_> = (0..POOLS).map(|key| Member { key, configured: 100 }).collect();
        controller.set_members(&members, Moment::START);
        for key in 0..POOLS {
            controller.health(key, true, Moment::START, true);
        }
        Self { controller, published: Vec::new(), sampling: |load, _| Some(load), random: Random::new(7) }
    }

    /// The most publications for one backend in any minute that begins with one.
    fn busiest_minute(&self) -> usize {
        let within = |from: f64, key| {
            self.published.iter().filter(|(at, k)| *k == key && (from..from + 60.0).contains(at)).count()
        };
        self.published.iter().map(|(from, key)| within(*from, *key)).max().unwrap_or(0)
    }
}

impl Policy for Shipped {
    fn weigh(&mut self, load: &[f64; POOLS], now: f64, weights: &mut [f64; POOLS]) {
        for (key, load) in load.iter().enumerate() {
            if let Some(sample) = (self.sampling)(*load, &mut self.random) {
                self.controller.observe(key, sample, at(now));
            }
        }
        for (key, weight) in self.controller.step(at(now)) {
            self.published.push((now, key));
            weights[key] = f64::from(weight) / 102_400.0;
        }
    }
}

/// p99 in milliseconds that the Python model (policy `p2c_pi0.05_0.5`, utilisation .75, T = 1 s, D = .2 s, one
/// balancer, `CPython` 3.11) gave for the seeds 1, 2 and 3, with one request a connection.
const MODEL_P99: [f64; 3] = [487.525_535, 487.813_827, 489.366_776];
/// The same with keep-alive: connections of 8 s, 16 requests each.
const MODEL_P99_KEEP_ALIVE: [f64; 3] = [521.337_754, 538.114_447, 560.932_461];

fn mean_share(outcome: &Outcome, from: f64, to: f64) -> f64 {
    let shares = || outcome.shares.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, share)| share);
    shares().sum::<f64>() / shares().count() as f64
}

#[test]
fn the_port_gives_the_figures_of_the_python_model() {
    let reference = || [Reference { load: None, integral: [1.0; POOLS] }];
    for (keep_alive, p99) in [(0.0, MODEL_P99[0]), (8.0, MODEL_P99_KEEP_ALIVE[0])] {
        let outcome = simulate(Scenario::standard(keep_alive, 1), &mut reference());
        let got = outcome.percentile(0.99);
        assert!((got - p99).abs() < 0.001, "keep-alive {keep_alive}: {got} ms, the model had {p99}");
    }
}

#[test]
fn p99_is_within_a_tenth_of_the_models() {
    // The seeds differ by less than a half per cent here, so one of them is enough.
    let mut policies = [Shipped::new()];
    let p99 = simulate(Scenario::standard(0.0, 1), &mut policies).percentile(0.99);
    assert!(p99 <= 1.1 * MODEL_P99[0], "{p99} ms, the model had {}", MODEL_P99[0]);
    assert!(policies[0].busiest_minute() <= 60);
}

#[test]
fn with_keep_alive_p99_holds_and_the_slow_node_of_ten_gets_about_half() {
    for (seed, models) in (1..).zip(MODEL_P99_KEEP_ALIVE) {
        let mut policies = [Shipped::new()];
        let outcome = simulate(Scenario::standard(8.0, seed), &mut policies);
        let p99 = outcome.percentile(0.99);
        let share = mean_share(&outcome, 120.0, 180.0);
        assert!(p99 <= 1.1 * models, "seed {seed}: {p99} ms, the model had {models}");
        assert!((0.35..=0.75).contains(&share), "seed {seed}: {share} of an equal share");
        assert!(policies[0].busiest_minute() <= 60);
    }
}

/// Two minutes with keep-alive: the pool turns slow half-way, and what follows is all settling.
const SHORT: fn() -> Scenario = || Scenario { end: 120.0, ..Scenario::standard(8.0, 2) };

fn references<const N: usize>() -> [Reference; N] {
    [const { Reference { load: None, integral: [1.0; POOLS] } }; N]
}

#[test]
fn four_balancers_at_once_do_not_fight() {
    let mut policies: [Shipped; 4] = std::array::from_fn(|_| Shipped::new());
    let p99 = simulate(SHORT(), &mut policies).percentile(0.99);
    let models = simulate(SHORT(), &mut references::<4>()).percentile(0.99);
    assert!(p99 <= 1.1 * models, "{p99} ms, four of the model's policy had {models} ms");
    assert!(policies.iter().all(|policy| policy.busiest_minute() <= 60));
}

#[test]
fn with_a_third_of_the_samples_lost_the_slow_node_still_gets_about_half() {
    // No promise on p99 here, for who sees less settles later: over seeds 1 to 6 of the short scenario it was 614 to
    // 2,603 ms, against 546 to 589 ms with every sample.
    let lossy = |load: f64, random: &mut Random| (random.fraction() >= 0.3).then_some(load);
    let mut policies = [Shipped { sampling: lossy, ..Shipped::new() }];
    let outcome = simulate(Scenario { end: 180.0, ..Scenario::standard(8.0, 2) }, &mut policies);
    let share = mean_share(&outcome, 120.0, 180.0);
    assert!((0.35..=0.75).contains(&share), "{share} of an equal share");
    assert!(policies[0].busiest_minute() <= 60);
}
