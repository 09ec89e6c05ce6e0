//! The agent's sign of life: until when the kernel's half counts it as there.
//!
//! The agent writes the end of its lease rather than the moment, so the kernel needs one word and one comparison, and how
//! long an agent may be silent is nobody's business but the agent's. An agent that is stopped or hangs writes nothing, and
//! is as lost as one that is dead.

use std::time::Duration;

use aya::maps::{Array, MapData};
use lb_common::{Ticks, abi::service_flag};

use super::{Dataplane, DataplaneError, Pins, common::typed, now};

const NAME: &str = "HEARTBEAT";

/// The word that says so.
pub(super) struct Heartbeat {
    until: Array<MapData, u32>,
    after: Ticks,
}

impl Heartbeat {
    /// Open the pinned word. Nothing is said in it yet.
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        Ok(Self { until: typed(pins, NAME)?, after: Ticks::default() })
    }

    /// From the next beat on, silence may last this long.
    pub(super) fn allow(&mut self, silence: Duration) {
        self.after = Ticks::from_millis(silence.as_millis() as u64);
    }

    /// The agent is there. For how long it, or the one before it, had counted as lost, if it had.
    fn beat(&mut self) -> Result<Option<Duration>, DataplaneError> {
        let failed = DataplaneError::write(NAME);
        let (now, before) = (now(), self.until.get(&0, 0).map_err(&failed)?);
        self.until.set(0, now.plus(self.after).raw(), 0).map_err(failed)?;
        let lost = now.since(Ticks::from_raw(before)).as_millis();
        // Zero: there has been no agent yet.
        Ok((before != 0 && lost != 0).then(|| Duration::from_millis(lost)))
    }
}

impl Dataplane {
    /// Tell the kernel's half that the agent is there; call it once a second.
    pub fn beat(&mut self) -> Result<(), DataplaneError> {
        let Some(lost) = self.common.heartbeat.beat()? else { return Ok(()) };
        let services = self.v4.services.iter().chain(&self.v6.services);
        let passed = services.filter(|(_, known)| known.entry.flags & service_flag::PASS_LOST != 0);
        let passed: Vec<String> = passed.map(|(listen, _)| listen.to_string()).collect();
        if !passed.is_empty() {
            log::warn!(
                "no agent was heard, and for {} s this host itself got new connections to {}",
                lost.as_secs(),
                passed.join(", ")
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::testing::{LAYOUT, with_maps};

    #[test]
    fn a_beat_says_until_when_the_agent_counts_as_there_and_how_long_it_was_lost() {
        with_maps(LAYOUT, |pins| {
            let mut heartbeat = Heartbeat::open(pins).expect("the map is there");
            let (silence, tick) = (Ticks::from_millis(30_000), Ticks::from_millis(1));
            heartbeat.allow(Duration::from_secs(30));
            assert_eq!(heartbeat.beat().expect("the map can be written"), None, "nobody was there before");
            let until = |heartbeat: &Heartbeat| Ticks::from_raw(heartbeat.until.get(&0, 0).expect("a word"));
            let left = until(&heartbeat).since(now());
            assert!(silence.since(left).raw() <= tick.raw() + 1, "{left:?} of {silence:?} are left");
            assert_eq!(heartbeat.beat().expect("the map can be written"), None, "it beats in time");

            let ended = Ticks::from_raw(now().raw().wrapping_sub(Ticks::from_millis(10_000).raw()));
            heartbeat.until.set(0, ended.raw(), 0).expect("the map can be written");
            let lost = heartbeat.beat().expect("the map can be written").expect("it was lost");
            assert!((10_000..11_000).contains(&lost.as_millis()), "{lost:?}");
            assert_eq!(heartbeat.beat().expect("the map can be written"), None, "it is there again");
        });
    }
}
