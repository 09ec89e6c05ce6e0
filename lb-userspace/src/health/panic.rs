//! The panic threshold: when most backends look dead, the probes are the likelier culprit.

use super::{Health, State};

/// The smallest service in which panic makes sense: below it, most backends can well be dead.
const SMALLEST: usize = 5;

/// One backend's state as the panic threshold sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// It takes new connections as things are.
    pub takes_new: bool,
    /// It is down by doubtful failures alone (time-outs, bad statuses). What refused, was unreachable or died, is
    /// drained or was never probed, is not doubtful.
    pub doubtful: bool,
}

impl From<&Health> for Judged {
    fn from(health: &Health) -> Self {
        let doubtful = health.state() == State::Down && !health.certainly_down();
        Self { takes_new: health.takes_new(), doubtful }
    }
}

/// Which backends to use, in the order given: those that take connections, and the doubtful ones too once fewer than
/// `threshold` (0 to 1) of all take any. Never below five backends.
pub fn panic(backends: &[Judged], threshold: f64) -> Vec<bool> {
    let working = backends.iter().filter(|backend| backend.takes_new).count();
    let in_panic = backends.len() >= SMALLEST && (working as f64) < threshold * backends.len() as f64;
    backends.iter().map(|backend| backend.takes_new || in_panic && backend.doubtful).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UP: Judged = Judged { takes_new: true, doubtful: false };
    const DOUBTFUL: Judged = Judged { takes_new: false, doubtful: true };
    const DEAD: Judged = Judged { takes_new: false, doubtful: false };

    #[test]
    fn only_doubtful_failures_are_overruled_and_only_in_services_of_five_and_more() {
        for (backends, used) in [
            (vec![UP, DOUBTFUL, DOUBTFUL, DEAD], vec![true, false, false, false]),
            (vec![UP, UP, DOUBTFUL, DOUBTFUL, DEAD], vec![true, true, true, true, false]),
            (vec![UP, UP, UP, DOUBTFUL, DOUBTFUL], vec![true, true, true, false, false]),
            (vec![DEAD; 6], vec![false; 6]),
            (vec![DOUBTFUL; 6], vec![true; 6]),
            (vec![], vec![]),
        ] {
            assert_eq!(panic(&backends, 0.5), used, "{backends:?}");
        }
    }
}
