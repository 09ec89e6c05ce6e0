//! Load into weights: the slow half of `least-load`.
//!
//! The kernel takes the better of two random candidates by live connections over weight. That reacts within one
//! connection but is blind to what a connection does (keep-alive hides everything). So the agent feeds the weight
//! with measured utilisation, slowly enough never to oscillate: an integrator `m` per backend that moves by at most
//! η of itself a second, plus a proportional term, both on smoothed samples, relative to the mean of all backends. A
//! headroom weight would have to know the utilisation's absolute scale and herds near saturation; an integrator is
//! stable as long as η ≤ 0.5/(utilisation × connection lifetime).
//!
//! Weights are relative: only those that are measured take part in the mean, so that a backend without a metric has
//! exactly its configured weight, and a slow start moves nobody else's weight.

mod explain;
#[cfg(test)]
mod in_the_model;
mod member;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::health::Moment;
pub use explain::Factors;
use member::Member as State;

/// The weight published for one unit of configured weight.
pub const UNIT: u32 = 1_024;

/// The constants of the controller.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// The interval T at which samples are expected.
    pub interval: Duration,
    /// Time constant of the smoothing of samples.
    pub smoothing: Duration,
    /// A sample older than so many intervals is not used.
    pub stale_intervals: u32,
    /// A backend without a sample for so long gets its configured weight.
    pub forget_after: Duration,
    /// η: the greatest relative change of the integrator in a second.
    pub integral_gain: f64,
    /// `k_p`: exponent of the proportional term.
    pub proportional_gain: f64,
    /// The integrator rests while the relative deviation is below this.
    pub dead_band: f64,
    /// The least and the greatest value of the integrator.
    pub integrator: (f64, f64),
    /// The least and the greatest weight, as multiples of the configured one.
    pub bounds: (f64, f64),
    /// Utilisation above this counts as this in the mean.
    pub mean_cap: f64,
    /// The mean is taken for at least this, so that an idle service does not divide by nothing.
    pub mean_floor: f64,
    /// How long a slow start lasts.
    pub slow_start: Duration,
    /// The share of its weight with which a slow start begins.
    pub slow_start_floor: f64,
    /// The least relative change that is published.
    pub publish_band: f64,
    /// The least time between two publications for one backend.
    pub publish_interval: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            smoothing: Duration::from_secs(1),
            stale_intervals: 3,
            forget_after: Duration::from_secs(30),
            integral_gain: 0.05,
            proportional_gain: 0.5,
            dead_band: 0.05,
            integrator: (0.05, 2.0),
            bounds: (0.02, 2.0),
            mean_cap: 1.5,
            mean_floor: 0.1,
            slow_start: Duration::from_secs(30),
            slow_start_floor: 0.1,
            publish_band: 0.05,
            publish_interval: Duration::from_secs(1),
        }
    }
}

impl Tuning {
    /// The age at which a sample is no longer used.
    fn stale_after(&self) -> Duration {
        self.interval * self.stale_intervals
    }
}

/// A backend of the service whose weights are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<K> {
    /// What the caller calls it.
    pub key: K,
    /// The configured weight, 0 to 1,000; 0 stays 0 whatever the load.
    pub configured: u32,
}

/// The weights of one service's backends.
#[derive(Clone, Debug)]
pub struct Controller<K> {
    tuning: Tuning,
    members: BTreeMap<K, State>,
    stepped: Option<Moment>,
}

impl<K: Copy + Ord> Controller<K> {
    /// A controller without members.
    pub fn new(tuning: Tuning) -> Self {
        Self { tuning, members: BTreeMap::new(), stepped: None }
    }

    /// Sets who the backends are. Those that stay keep what was learnt of them; new ones weigh 0 until
    /// [`health`](Self::health) says that they are up. Those that went are forgotten without a publication.
    pub fn set_members(&mut self, members: &[Member<K>], now: Moment) {
        self.members.retain(|key, _| members.iter().any(|member| member.key == *key));
        for member in members {
            let state = self.members.entry(member.key).or_insert_with(|| State::new(now));
            if state.configured != member.configured {
                state.configured = member.configured;
                state.must_publish = true;
            }
        }
    }

    /// Takes in a utilisation: 0 idle, 1 all workers busy, more when requests queue. What is not a number is no
    /// sample. Unknown keys are ignored, for a sample may arrive after its backend has gone.
    pub fn observe(&mut self, key: K, utilisation: f64, now: Moment) {
        if let Some(member) = self.members.get_mut(&key) {
            member.observe(utilisation, &self.tuning, now);
        }
    }

    /// Says whether a backend takes new connections (healthy and not drained). Coming up begins a slow start unless
    /// `restored`: an agent that finds its predecessor's state did not change anything for the backend.
    pub fn health(&mut self, key: K, up: bool, now: Moment, restored: bool) {
        let Some(member) = self.members.get_mut(&key) else { return };
        if up && !member.up {
            member.up_since = (!restored).then_some(now);
        }
        member.up = up;
    }

    /// Advances to `now` and returns the weights to publish, in units of 1/[`UNIT`] of the configured unit. To be
    /// called once an interval, and at once after [`health`](Self::health) said that a backend went down.
    pub fn step(&mut self, now: Moment) -> Vec<(K, u32)> {
        let elapsed = self.elapsed(now);
        for member in self.members.values_mut() {
            member.forget_if_old(&self.tuning, now);
        }
        self.integrate(elapsed, now);
        let factors = self.factors(now);
        let tuning = self.tuning;
        let deserted = self.published().all(|(_, weight)| weight == 0);
        self.members
            .iter_mut()
            .zip(factors)
            .filter_map(|((key, member), factor)| {
                let weight = member.weight(factor, &tuning, now);
                member.publish(weight, deserted, &tuning, now).then_some((*key, weight))
            })
            .collect()
    }

    /// The weights published last, by key; a backend never published is missing.
    pub fn published(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.members.iter().filter_map(|(key, member)| Some((*key, member.published?)))
    }

    /// The time since the last step, at most the age at which samples are no longer used: after a pause (a suspended
    /// machine, a clock that jumped) nothing is known that could justify a greater step. A clock that went back is
    /// taken as it is, and everything recorded as later happened now.
    fn elapsed(&mut self, now: Moment) -> Duration {
        let last = self.stepped.replace(now).unwrap_or(now);
        if now < last {
            for member in self.members.values_mut() {
                member.rebase(&self.tuning, now);
            }
        }
        now.since(last).min(self.tuning.stale_after())
    }

    /// Relative deviations of the measured members that serve: positive where there is less load than on average.
    fn deviations(&self, now: Moment) -> Vec<Option<f64>> {
        let tuning = &self.tuning;
        let measured = |member: &State| member.load(tuning, now).filter(|_| member.serves());
        let loads: Vec<Option<f64>> = self.members.values().map(measured).collect();
        let capped = || loads.iter().flatten().map(|load| load.min(tuning.mean_cap));
        let mean = capped().sum::<f64>() / capped().count().max(1) as f64;
        let deviation = |load: f64| ((mean - load) / mean.max(tuning.mean_floor)).clamp(-1.0, 1.0);
        loads.into_iter().map(|load| load.map(deviation)).collect()
    }

    /// Moves the integrators, and scales those of the measured members to a mean of 1.
    fn integrate(&mut self, elapsed: Duration, now: Moment) {
        let tuning = self.tuning;
        let gain = tuning.integral_gain * elapsed.as_secs_f64();
        let deviations = self.deviations(now);
        let measured = |(member, deviation): (_, Option<f64>)| Some((member, deviation?));
        let mut moved: Vec<(&mut State, f64)> =
            self.members.values_mut().zip(deviations).filter_map(measured).collect();
        let (least, greatest) = tuning.integrator;
        for (member, deviation) in &mut moved {
            let step = if deviation.abs() < tuning.dead_band { 0.0 } else { gain * *deviation };
            member.integral = (member.integral * (1.0 + step)).clamp(least, greatest);
        }
        let mean = moved.iter().map(|(member, _)| member.integral).sum::<f64>() / moved.len().max(1) as f64;
        for (member, _) in &mut moved {
            member.integral = (member.integral / mean).clamp(least, greatest);
        }
    }

    /// What load makes of each member's configured weight: 1 on average over the measured ones, 1 for a member
    /// without a metric.
    fn factors(&self, now: Moment) -> Vec<f64> {
        let deviations = self.deviations(now);
        let raw = |(member, deviation): (&State, &Option<f64>)| {
            member.integral * (self.tuning.proportional_gain * deviation.unwrap_or(0.0)).exp()
        };
        let raw: Vec<f64> = self.members.values().zip(&deviations).map(raw).collect();
        let measured = || raw.iter().zip(&deviations).filter(|(_, deviation)| deviation.is_some());
        let sum: f64 = measured().map(|(factor, _)| factor).sum();
        let mean = sum / measured().count().max(1) as f64;
        let (least, greatest) = self.tuning.bounds;
        let scaled = |(factor, deviation): (&f64, &Option<f64>)| {
            let relative = if deviation.is_some() { factor / mean } else { *factor };
            relative.clamp(least, greatest)
        };
        raw.iter().zip(&deviations).map(scaled).collect()
    }
}
