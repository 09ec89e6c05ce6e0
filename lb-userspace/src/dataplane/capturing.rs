//! A capture in the task's hands: programs that are loaded for it and after it, and the looks that are handed on.
//!
//! Programs are loaded on a thread of their own, for that takes seconds on a busy machine; the task puts them in place.

use std::sync::atomic::Ordering;

use lb_common::{abi::purpose, event};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{Captured, Dataplane, DataplaneError, Lost, capture::Packets, load::Loaded};

/// A capture that is to begin.
pub(super) struct Begin {
    pub(super) to: mpsc::Sender<Captured>,
    pub(super) lost: Lost,
    pub(super) reply: oneshot::Sender<Result<(), DataplaneError>>,
}

/// A capture that is going on.
struct Capture {
    packets: Packets,
    to: mpsc::Sender<Captured>,
    lost: Lost,
    /// Looks that the receiver has not taken in time.
    untaken: u64,
}

impl Capture {
    /// Hand looks on. `false`: nobody looks any more.
    fn show(&mut self, dataplane: &Dataplane, packets: &[event::Captured]) -> bool {
        for raw in packets {
            match self.to.try_send(dataplane.name_captured(raw)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => self.untaken += 1,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
        }
        self.count_lost();
        true
    }

    fn count_lost(&self) {
        self.lost.store(self.untaken + self.packets.missed(), Ordering::Relaxed);
    }
}

/// Programs that are being loaded.
struct Loading {
    programs: JoinHandle<Result<Vec<Loaded>, DataplaneError>>,
    /// Who waits for a capture; `None`: they are to serve only.
    capture: Option<Begin>,
}

/// What happens next.
pub(super) enum Turn {
    /// Programs are loaded, or cannot be.
    Loaded(Result<Vec<Loaded>, DataplaneError>),
    /// Packets; `None`: nobody looks any more, or there is nothing to be had.
    Packets(Option<Vec<event::Captured>>),
}

/// The capture of an instance, one at a time.
#[derive(Default)]
pub(super) struct Capturing {
    capture: Option<Capture>,
    loading: Option<Loading>,
    /// Whether programs that show packets are, or may be, on the interfaces.
    showing: bool,
}

impl Capturing {
    /// Wait for what happens next; without end where nothing goes on. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Turn {
        if let Some(Loading { programs, .. }) = &mut self.loading {
            // A thread that panicked has loaded nothing.
            let programs = programs.await.unwrap_or(Err(DataplaneError::Object { name: "lb" }));
            return Turn::Loaded(programs);
        }
        let Some(Capture { packets, to, .. }) = &mut self.capture else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            () = to.closed() => Turn::Packets(None),
            packets = packets.next() => Turn::Packets(packets.ok()),
        }
    }

    /// Begin a capture in place of any other.
    pub(super) fn begin(&mut self, dataplane: &Dataplane, begin: Begin) {
        self.capture = None;
        self.load(dataplane, purpose::CAPTURE, Some(begin));
    }

    /// Take what has happened. Errors: the programs that only serve cannot be put back.
    pub(super) fn take(&mut self, dataplane: &mut Dataplane, turn: Turn) -> Result<(), DataplaneError> {
        match turn {
            Turn::Loaded(programs) => match self.loading.take().and_then(|loading| loading.capture) {
                Some(begin) => self.show(dataplane, begin, programs),
                None => return self.serve(dataplane, programs),
            },
            Turn::Packets(packets) => {
                let shown = match (&mut self.capture, packets) {
                    (Some(capture), Some(packets)) => capture.show(dataplane, &packets),
                    _ => false,
                };
                if !shown && self.capture.take().is_some() {
                    self.load(dataplane, purpose::SERVE, None);
                }
            }
        }
        Ok(())
    }

    /// A second has passed.
    pub(super) fn second(&self) {
        if let Some(capture) = &self.capture {
            capture.count_lost();
        }
    }

    /// The agent ends, and with it the capture.
    pub(super) fn end(&mut self, dataplane: &mut Dataplane) -> Result<(), DataplaneError> {
        if !self.showing {
            return Ok(());
        }
        let programs = dataplane.loading(purpose::SERVE)();
        self.serve(dataplane, programs)
    }

    /// Begin to load programs; those that are being loaded already are given up.
    fn load(&mut self, dataplane: &Dataplane, purpose: u8, capture: Option<Begin>) {
        let programs = tokio::task::spawn_blocking(dataplane.loading(purpose));
        self.loading = Some(Loading { programs, capture });
    }

    fn show(
        &mut self,
        dataplane: &mut Dataplane,
        Begin { to, lost, reply }: Begin,
        programs: Result<Vec<Loaded>, DataplaneError>,
    ) {
        let begun = programs.and_then(|programs| {
            self.showing = true;
            dataplane.show_packets(programs)
        });
        let begun = begun.map(|packets| {
            self.capture = Some(Capture { packets, to, lost, untaken: 0 });
        });
        if begun.is_err() && self.showing {
            self.load(dataplane, purpose::SERVE, None);
        }
        let _ = reply.send(begun);
    }

    fn serve(
        &mut self,
        dataplane: &mut Dataplane,
        programs: Result<Vec<Loaded>, DataplaneError>,
    ) -> Result<(), DataplaneError> {
        dataplane.swap_all(&mut programs?)?;
        self.showing = false;
        Ok(())
    }
}
