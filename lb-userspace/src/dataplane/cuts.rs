//! Cuts in the task's hands: what the sweep hands out, what events say, and the segments that go out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::time::{Instant as Deadline, sleep_until};

use super::{Swept, events::What};
use crate::{
    cut::{Connection, Cuts, Frame, SendError, Sender, Target},
    health::Moment,
};

/// Segments of one batch: what one interface's queue takes without waiting.
const BATCH: usize = 256;

/// Between two batches, so that thousands of cuts do not fill the queues of the traffic.
const PAUSE: Duration = Duration::from_millis(5);

/// The connections that are being cut, and the socket that asks their ends.
pub(super) struct Cutting {
    cuts: Cuts,
    /// `None`: the kernel would not let us; ends are told when they speak by themselves.
    sender: Option<Sender>,
    /// What a full queue has left.
    left: Vec<Frame>,
    /// Questions to clients that may have no connection.
    questions: VecDeque<Frame>,
    not_before: Moment,
    origin: Instant,
}

impl Cutting {
    /// With a socket of its own; without one, a reason why.
    pub(super) fn new() -> (Self, Option<SendError>) {
        let (sender, error) = match Sender::open() {
            Ok(sender) => (Some(sender), None),
            Err(error) => (None, Some(error)),
        };
        let cutting = Self {
            cuts: Cuts::new(),
            sender,
            left: Vec::new(),
            questions: VecDeque::new(),
            not_before: Moment::START,
            origin: Instant::now(),
        };
        (cutting, error)
    }

    /// Now, as the machine of cuts counts time.
    fn now(&self) -> Moment {
        Moment::at(self.origin.elapsed())
    }

    /// Ask the ends of connections that are marked as cut.
    pub(super) fn begin(&mut self, targets: &[Target]) {
        let now = self.now();
        for target in targets.iter().filter(|_| self.sender.is_some()) {
            self.cuts.begin(now, *target);
        }
    }

    /// What a sweep has found.
    pub(super) fn swept(&mut self, swept: &Swept) {
        self.begin(&swept.cut);
        if self.sender.is_some() {
            self.questions.extend(swept.ask.iter().filter_map(Target::question));
        }
        let now = self.now();
        for (connection, side) in &swept.told {
            self.cuts.told(now, connection, *side);
        }
    }

    /// What an event says.
    pub(super) fn event(&mut self, connection: &Connection, what: What) {
        if let What::Cut { side, numbers } = what {
            self.cuts.answered(self.now(), connection, side, numbers);
        }
    }

    /// Wait until there is something to send. Without end where there is nothing.
    pub(super) async fn due(&self) {
        let waits = !self.left.is_empty() || !self.questions.is_empty();
        let next = if waits { Some(self.not_before) } else { self.cuts.next() };
        match next {
            Some(next) => {
                let deadline = self.origin + next.max(self.not_before).since_start();
                sleep_until(Deadline::from_std(deadline)).await;
            }
            None => std::future::pending().await,
        }
    }

    /// Send one batch.
    pub(super) fn send(&mut self) -> Result<(), SendError> {
        let now = self.now();
        self.not_before = now + PAUSE;
        let mut frames = std::mem::take(&mut self.left);
        self.cuts.due(now, BATCH.saturating_sub(frames.len()), &mut frames);
        let room = BATCH.saturating_sub(frames.len()).min(self.questions.len());
        frames.extend(self.questions.drain(..room));
        // Nobody waits for the end of single ones; silent ends were dead or had no connection any more.
        self.cuts.ended();
        let Some(sender) = self.sender.as_mut() else { return Ok(()) };
        let sent = sender.send(&frames)?;
        for (place, reason) in sent.refused {
            if let Some(frame) = frames.get(place) {
                log::debug!("interface {}: a segment was refused: {reason}", frame.interface());
            }
        }
        self.left = frames.split_off(sent.done.min(frames.len()));
        Ok(())
    }
}
