//! When a probe's turn comes.

use std::time::Duration;

use rand::Rng as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// A probe's time may differ from its interval by this part, so that probes do not march in step.
const JITTER: f64 = 0.1;

/// Turns come at whole parts of this, and of an interval at a part of [`PARTS`], counted from a moment that all share. What
/// would come within such a part comes together, so that the thread that probes wakes up once for it: a wake-up costs as
/// much as a probe.
const GRID: Duration = Duration::from_millis(20);
const PARTS: u32 = 50;

/// Where a task's rhythm comes from.
pub(super) struct Rhythm {
    interval: Duration,
    hasten: mpsc::UnboundedReceiver<Duration>,
    /// How far its turns may come before and after their time, as parts of the interval.
    spread: (f64, f64),
    /// Where the grid begins.
    origin: Instant,
    step: Duration,
}

impl Rhythm {
    /// The first turn comes at any time within the interval, so that what begins together soon does not march in step. The
    /// sender hastens the next turn: it comes after what is sent at the latest.
    pub fn new(interval: Duration, origin: Instant) -> (Self, mpsc::UnboundedSender<Duration>) {
        let (sender, hasten) = mpsc::unbounded_channel();
        let step = (interval / PARTS).clamp(Duration::from_millis(1), GRID);
        (Self { interval, hasten, spread: (JITTER, 1.0), origin, step }, sender)
    }

    /// Wait for the next turn.
    pub async fn turn(&mut self) {
        // To the nearest point of the grid it is half a step at most.
        let jitter = JITTER - 0.5 / f64::from(PARTS);
        let (least, most) = std::mem::replace(&mut self.spread, (1.0 - jitter, 1.0 + jitter));
        let spread = rand::rng().random_range(least..=most);
        let mut due = self.on_grid(Instant::now() + self.interval.mul_f64(spread));
        loop {
            tokio::select! {
                () = sleep_until(due) => return,
                delay = self.hasten.recv() => match delay {
                    Some(delay) => due = due.min(Instant::now() + delay),
                    // Nobody hastens this task (any more); its rhythm goes on.
                    None => return sleep_until(due).await,
                },
            }
        }
    }

    fn on_grid(&self, due: Instant) -> Instant {
        let step = self.step.as_nanos();
        let steps = (due.saturating_duration_since(self.origin).as_nanos() + step / 2) / step;
        self.origin + Duration::from_nanos((steps * step) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_rhythm_goes_on_when_nobody_hastens_it() {
        let interval = 10 * SECOND;
        let (mut rhythm, hasten) = Rhythm::new(interval, Instant::now());
        drop(hasten);
        rhythm.turn().await;
        let begun = Instant::now();
        for turn in 1..=3_u32 {
            rhythm.turn().await;
            let least = interval.mul_f64(f64::from(turn) * (1.0 - JITTER));
            assert!(begun.elapsed() >= least, "turn {turn} after {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hastened_turn_comes_at_its_time_and_the_rhythm_returns() {
        let (mut rhythm, hasten) = Rhythm::new(10 * SECOND, Instant::now());
        rhythm.turn().await;
        let begun = Instant::now();
        hasten.send(Duration::from_millis(250)).unwrap();
        rhythm.turn().await;
        assert_eq!(begun.elapsed().as_millis(), 250);
        rhythm.turn().await;
        assert!(begun.elapsed() + GRID >= 9 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_of_many_fall_together_and_do_not_march_in_step() {
        let origin = Instant::now();
        let (mut moments, mut times) = (std::collections::BTreeSet::new(), Vec::new());
        for _ in 0..200 {
            let (mut rhythm, _) = Rhythm::new(SECOND, origin);
            rhythm.turn().await;
            let begun = Instant::now();
            rhythm.turn().await;
            times.push(begun.elapsed());
            moments.insert(begun.duration_since(origin).as_millis() % 1000);
        }
        assert!(moments.len() <= 50 && moments.iter().all(|at| at % 20 == 0), "{moments:?}");
        assert!(moments.len() > 40, "{moments:?}");
        let (least, most) = (SECOND.mul_f64(1.0 - JITTER), SECOND.mul_f64(1.0 + JITTER));
        assert!(times.iter().all(|time| (least..=most).contains(time)), "{times:?}");
        assert!(times.iter().min() < times.iter().max());
    }
}
