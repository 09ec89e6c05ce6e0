//! How long a backend takes to answer a SYN, as the data path sees it.
//!
//! Samples come as traffic does, at most one in 67 ms, so both figures fade by time and not by sample: the mean is one
//! over about the last ten seconds, and the maximum a peak that is forgotten in about a minute.

use std::time::Duration;

use crate::health::Moment;

/// Time constant of the mean.
const MEAN: Duration = Duration::from_secs(10);
/// Time constant by which the maximum falls back to the mean.
const PEAK: Duration = Duration::from_secs(30);

/// Handshake times of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshakes {
    last: Option<Sample>,
}

/// What was known when the last sample came, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    mean: f64,
    max: f64,
    at: Moment,
}

/// The part of something that is left after `elapsed`.
fn left(elapsed: Duration, constant: Duration) -> f64 {
    (-elapsed.as_secs_f64() / constant.as_secs_f64()).exp()
}

impl Handshakes {
    /// Takes in one time.
    pub fn observe(&mut self, took: Duration, now: Moment) {
        let millis = took.as_secs_f64() * 1_000.0;
        let Some(last) = self.last else {
            self.last = Some(Sample { mean: millis, max: millis, at: now });
            return;
        };
        let elapsed = now.since(last.at);
        let mean = millis + (last.mean - millis) * left(elapsed, MEAN);
        let max = mean + (last.max - mean).max(0.0) * left(elapsed, PEAK);
        self.last = Some(Sample { mean, max: max.max(millis), at: now });
    }

    /// Mean and maximum in milliseconds; `None` before the first sample.
    pub fn millis(&self, now: Moment) -> Option<(f64, f64)> {
        let Sample { mean, max, at } = self.last?;
        Some((mean, mean + (max - mean) * left(now.since(at), PEAK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn assert_close(found: Option<(f64, f64)>, mean: f64, max: f64) {
        let (found_mean, found_max) = found.unwrap();
        assert!((found_mean - mean).abs() < 0.01 * mean, "mean {found_mean}, not {mean}");
        assert!((found_max - max).abs() < 0.01 * max, "maximum {found_max}, not {max}");
    }

    #[test]
    fn mean_and_maximum_follow_the_samples_by_time() {
        let mut handshakes = Handshakes::default();
        assert_eq!(handshakes.millis(at(0)), None);
        handshakes.observe(Duration::from_millis(2), at(0));
        assert_close(handshakes.millis(at(0)), 2.0, 2.0);
        // One slow answer after 67 ms moves the mean by 67 ms of ten seconds, and is the maximum.
        handshakes.observe(Duration::from_millis(102), at(67));
        assert_close(handshakes.millis(at(67)), 2.0 + 100.0 * 0.006_68, 102.0);
        // A minute of 15 samples a second later both say what is usual.
        (1..=900).for_each(|sample| handshakes.observe(Duration::from_millis(1), at(67 + sample * 67)));
        let (mean, max) = handshakes.millis(at(60_367)).unwrap();
        assert!((1.0..1.02).contains(&mean) && (10.0..16.0).contains(&max), "{mean}, {max}");
    }

    #[test]
    fn without_new_samples_the_mean_stands_and_the_maximum_fades_to_it() {
        let mut handshakes = Handshakes::default();
        handshakes.observe(Duration::from_millis(1), at(0));
        handshakes.observe(Duration::from_millis(31), at(0));
        assert_close(handshakes.millis(at(0)), 1.0, 31.0);
        assert_close(handshakes.millis(at(30_000)), 1.0, 1.0 + 30.0 / std::f64::consts::E);
        let (mean, max) = handshakes.millis(at(3_600_000)).unwrap();
        assert!(mean <= max && max < 1.001, "{mean}, {max}");
    }
}
