//! The two looks at a packet, put together.
//!
//! A CPU handles one packet after the other, so what it shows is a look at a packet as it came in, then one at the same
//! packet after the program's work, unless one of them was lost. Both bear the same time.

use std::collections::HashMap;

use lb_common::event::seen;

use crate::dataplane::Captured;

/// A packet as it came in and as it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// As it came in; `None` if that look was lost.
    pub before: Option<Captured>,
    /// After the program's work: what became of it.
    pub after: Captured,
}

/// Looks that wait for their second, by CPU.
#[derive(Debug, Default)]
pub struct Pairs(HashMap<u32, Captured>);

impl Pairs {
    /// Take a look; the packet, if it is the second one.
    pub fn take(&mut self, look: Captured) -> Option<Pair> {
        if look.look == seen::IN {
            // One that is still there has lost its second look.
            self.0.insert(look.cpu, look);
            return None;
        }
        let before = self.0.remove(&look.cpu).filter(|before| before.moment == look.moment);
        Some(Pair { before, after: look })
    }
}

#[cfg(test)]
mod tests {
    use lb_common::event::outcome;

    use super::*;

    fn look(cpu: u32, moment: u64, look: u8) -> Captured {
        Captured {
            moment,
            cpu,
            length: 60,
            bytes: vec![0; 60],
            service: None,
            backend: None,
            interface: 1,
            leaving: None,
            look,
            outcome: outcome::PASS,
            reason: None,
        }
    }

    #[test]
    fn looks_are_paired_by_cpu_and_time_and_lost_ones_mislead_nobody() {
        let mut pairs = Pairs::default();
        for (cpu, moment, which, wanted) in [
            (0, 10, seen::IN, None),
            (1, 11, seen::IN, None),
            (0, 10, seen::OUT, Some(true)),
            (1, 11, seen::OUT, Some(true)),
            // The second look is lost.
            (0, 20, seen::IN, None),
            (0, 30, seen::IN, None),
            (0, 30, seen::OUT, Some(true)),
            // The first look is lost.
            (0, 40, seen::OUT, Some(false)),
            // The second of one and the first of the next are lost.
            (0, 50, seen::IN, None),
            (0, 60, seen::OUT, Some(false)),
        ] {
            let pair = pairs.take(look(cpu, moment, which));
            assert_eq!(pair.as_ref().map(|pair| pair.before.is_some()), wanted, "{moment}");
            assert!(pair.is_none_or(|pair| pair.after.moment == moment));
        }
    }
}
