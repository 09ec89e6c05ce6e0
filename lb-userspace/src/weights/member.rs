//! What the controller remembers of one backend.

use std::time::Duration;

use super::{Tuning, UNIT};
use crate::health::Moment;

/// Utilisation beyond this says nothing more, and smoothing would take long to forget it.
const GREATEST_LOAD: f64 = 100.0;

/// One backend's samples, integrator and publications.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) configured: u32,
    /// It takes new connections.
    pub(super) up: bool,
    /// When its slow start began; none if it had none.
    pub(super) up_since: Option<Moment>,
    /// The smoothed utilisation and the time of the latest sample in it.
    load: Option<(f64, Moment)>,
    /// `m`: what the load has made of its weight so far.
    pub(super) integral: f64,
    pub(super) published: Option<u32>,
    /// The next publication is due, however small the change.
    pub(super) must_publish: bool,
    /// No publication before this, except of a 0.
    not_before: Moment,
}

impl Member {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            configured: 0,
            up: false,
            up_since: None,
            load: None,
            integral: 1.0,
            published: None,
            must_publish: false,
            not_before: now,
        }
    }

    /// Whether it is up and wanted.
    pub(super) fn serves(&self) -> bool {
        self.up && self.configured > 0
    }

    pub(super) fn observe(&mut self, utilisation: f64, tuning: &Tuning, now: Moment) {
        if !utilisation.is_finite() {
            return;
        }
        let sample = utilisation.clamp(0.0, GREATEST_LOAD);
        self.forget_if_old(tuning, now);
        let smoothed = self.load.map_or(sample, |(load, at)| {
            let share = 1.0 - (-now.since(at).as_secs_f64() / tuning.smoothing.as_secs_f64().max(1e-9)).exp();
            load + share * (sample - load)
        });
        self.load = Some((smoothed, now));
    }

    /// Forgets all that load has taught if the last sample is too old to mean anything.
    pub(super) fn forget_if_old(&mut self, tuning: &Tuning, now: Moment) {
        if self.load.is_some_and(|(_, at)| now.since(at) > tuning.forget_after) {
            self.load = None;
            self.integral = 1.0;
        }
    }

    /// The smoothed utilisation, unless its newest sample is stale.
    pub(super) fn load(&self, tuning: &Tuning, now: Moment) -> Option<f64> {
        self.load.filter(|(_, at)| now.since(*at) <= tuning.stale_after()).map(|(load, _)| load)
    }

    /// Takes everything recorded as later than `now` as having happened now.
    pub(super) fn rebase(&mut self, tuning: &Tuning, now: Moment) {
        self.not_before = self.not_before.min(now + tuning.publish_interval);
        self.up_since = self.up_since.map(|since| since.min(now));
        self.load = self.load.map(|(load, at)| (load, at.min(now)));
    }

    /// The weight to have now, in published units.
    pub(super) fn weight(&self, factor: f64, tuning: &Tuning, now: Moment) -> u32 {
        if !self.serves() {
            return 0;
        }
        let whole = f64::from(self.configured) * f64::from(UNIT);
        let started = self.slow_start(tuning, now);
        ((whole * factor * started).max(whole * tuning.bounds.0).round() as u32).max(1)
    }

    /// What a slow start leaves of the weight.
    pub(super) fn slow_start(&self, tuning: &Tuning, now: Moment) -> f64 {
        let Some(since) = self.up_since else { return 1.0 };
        let past = now.since(since);
        if past >= tuning.slow_start {
            return 1.0;
        }
        (past.as_secs_f64() / tuning.slow_start.as_secs_f64()).max(tuning.slow_start_floor)
    }

    /// Decides whether `weight` is published now, and records it.
    ///
    /// Zero is published at once, for it stops connections to a dead backend; its slot in the rhythm is used up all
    /// the same, so a flapping backend cannot have more than one publication an interval in the long run. Where nobody
    /// else serves (`deserted`) there is nobody to be gentle with, and clients wait: then whoever comes back comes at once.
    pub(super) fn publish(&mut self, weight: u32, deserted: bool, tuning: &Tuning, now: Moment) -> bool {
        let due = match self.published {
            None => true,
            Some(last) if (last == 0) != (weight == 0) => true,
            Some(last) if self.must_publish => last != weight,
            Some(last) => {
                f64::from(weight.abs_diff(last)) >= tuning.publish_band * f64::from(last) && last != weight
            }
        };
        if !due || (weight != 0 && !deserted && now < self.not_before) {
            return false;
        }
        // Nothing stands where nothing was published yet, so a first zero is no news and uses up no slot.
        let news = self.published.is_some() || weight != 0;
        self.published = Some(weight);
        self.must_publish = false;
        if !news {
            return true;
        }
        self.not_before = self.not_before.max(now) + tuning.publish_interval.max(Duration::from_millis(1));
        true
    }
}
