//! Flow control and conflicts: how fast the servers' counters grow.
//!
//! Flow control makes the *whole* cluster wait for its slowest node, so it is no reason to leave a node out: all of them
//! show it. The one that asks for it is found by what it sends.

use std::collections::VecDeque;
use std::time::Duration;

use super::Signals;
use crate::health::Moment;

/// The time over which flow control is judged.
const FLOW: Duration = Duration::from_secs(10);
/// The time for which conflicts are news.
const CONFLICTS: Duration = Duration::from_mins(1);
/// The part of the time spent waiting that is worth a warning, and an alarm; each ends at half of it.
const WARN: f64 = 0.1;
const ALARM: f64 = 0.5;

/// The counters of one sample.
#[derive(Clone, Copy, Debug)]
struct Counters {
    paused_ns: u64,
    sent: u64,
    conflicts: u64,
}

/// The counters of one node over the last minute.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted(VecDeque<(Moment, Counters)>);

impl Counted {
    /// Takes in a sample. A server that counts from 0 again has been restarted.
    pub(super) fn take(&mut self, signals: &Signals, now: Moment) {
        let (Some(paused_ns), Some(sent), Some(conflicts)) =
            (signals.paused_ns, signals.pauses_sent, signals.conflicts)
        else {
            return;
        };
        let again = |(_, last): &(Moment, Counters)| {
            paused_ns < last.paused_ns || sent < last.sent || conflicts < last.conflicts
        };
        if self.0.back().is_some_and(again) {
            self.0.clear();
        }
        self.0.push_back((now, Counters { paused_ns, sent, conflicts }));
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= CONFLICTS) {
            self.0.pop_front();
        }
    }

    /// The newest counters and those before the span, if the newest are of the span themselves.
    fn ends(&self, span: Duration, now: Moment) -> Option<((Moment, Counters), (Moment, Counters))> {
        let last = *self.0.back().filter(|(at, _)| now.since(*at) < span)?;
        let first = *self.0.iter().rev().find(|(at, _)| now.since(*at) >= span).or_else(|| self.0.front())?;
        Some((first, last))
    }

    /// The part of the time that the node has waited.
    fn paused(&self, now: Moment) -> Option<f64> {
        let ((from, first), (to, last)) = self.ends(FLOW, now)?;
        let span = to.since(from);
        (!span.is_zero()).then(|| (last.paused_ns - first.paused_ns) as f64 / span.as_nanos() as f64)
    }

    /// How often it has asked the others to wait.
    fn sent(&self, now: Moment) -> u64 {
        self.ends(FLOW, now).map_or(0, |((_, first), (_, last))| last.sent - first.sent)
    }

    /// Transactions that lost against another node's within the last minute.
    pub(super) fn conflicts(&self, now: Moment) -> u64 {
        self.ends(CONFLICTS, now).map_or(0, |((_, first), (_, last))| last.conflicts - first.conflicts)
    }
}

/// How bad flow control is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    None,
    Warn,
    Alarm,
}

/// Flow control of the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Flow {
    pub(super) level: Level,
    /// The part of the last ten seconds that the cluster has waited.
    pub(super) paused: f64,
    /// The node that asks for more than half of the waiting, while there is enough of it.
    pub(super) culprit: Option<usize>,
}

impl Flow {
    /// Judges anew.
    pub(super) fn look(&mut self, nodes: &[&Counted], now: Moment) {
        self.paused = nodes.iter().filter_map(|node| node.paused(now)).fold(0.0, f64::max);
        let lasts = |begins: f64| self.paused >= begins / 2.0;
        self.level = match self.level {
            _ if self.paused > ALARM => Level::Alarm,
            Level::Alarm if lasts(ALARM) => Level::Alarm,
            _ if self.paused > WARN => Level::Warn,
            Level::Warn | Level::Alarm if lasts(WARN) => Level::Warn,
            _ => Level::None,
        };
        let sent: Vec<u64> = nodes.iter().map(|node| node.sent(now)).collect();
        let all: u64 = sent.iter().sum();
        self.culprit = sent.iter().position(|sent| 2 * sent > all).filter(|_| self.level > Level::None);
    }
}
