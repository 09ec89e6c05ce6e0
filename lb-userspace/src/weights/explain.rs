//! What a weight is made of, for people.

use super::Controller;
use crate::health::Moment;

/// The factors of one backend's weight; the weight is the configured one times both, 0 if it is not up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Whether it takes new connections, as the controller was told.
    pub up: bool,
    /// What load makes of it.
    pub load: f64,
    /// The smoothed load; `None`: there is no fresh sample.
    pub measured: Option<f64>,
    /// What a slow start leaves of it; 1: there is none.
    pub slow_start: f64,
}

impl<K: Copy + Ord> Controller<K> {
    /// What the weight of a backend is made of at `now`; `None`: nobody by that key.
    pub fn explain(&self, key: K, now: Moment) -> Option<Factors> {
        let place = self.members.keys().position(|known| *known == key)?;
        let member = self.members.get(&key)?;
        Some(Factors {
            up: member.up,
            load: self.factors(now).get(place).copied().unwrap_or(1.0),
            measured: member.load(&self.tuning, now),
            slow_start: member.slow_start(&self.tuning, now),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::weights::{Member, Tuning};

    #[test]
    fn a_weight_is_the_product_of_what_is_explained() {
        let at = |seconds| Moment::at(Duration::from_secs(seconds));
        let mut controller = Controller::new(Tuning::default());
        let members: Vec<_> = (0..3).map(|key| Member { key, configured: 100 }).collect();
        controller.set_members(&members, at(0));
        (0..2).for_each(|key| controller.health(key, true, at(0), true));
        assert_eq!(controller.explain(3, at(0)), None);
        for second in 0..60 {
            controller.observe(0, 0.9, at(second));
            controller.observe(1, 0.3, at(second));
            controller.step(at(second));
        }
        // The third comes up late, and slowly.
        controller.health(2, true, at(59), false);
        controller.step(at(70));
        let explained: Vec<_> = (0..3).map(|key| controller.explain(key, at(70)).unwrap()).collect();
        assert!(explained[0].measured.is_none(), "a sample of ten seconds ago is stale");
        let explained_then: Vec<_> = (0..2).map(|key| controller.explain(key, at(60)).unwrap()).collect();
        assert!(explained_then[0].load < 0.6 && explained_then[1].load > 1.4, "{explained_then:?}");
        assert!((explained_then[0].slow_start - 1.0).abs() < 1e-9, "it had none");
        assert!((explained[2].slow_start - 11.0 / 30.0).abs() < 0.01, "{:?}", explained[2]);
        for (key, weight) in controller.published() {
            let made = 102_400.0 * explained[key].load * explained[key].slow_start;
            assert!((made - f64::from(weight)).abs() < 0.06 * made, "{key}: {weight} of {made}");
        }
    }
}
