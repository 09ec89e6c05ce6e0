//! Interfaces that appear while the data path runs, in the task's hands.
//!
//! A program is loaded and attached on a thread of its own, one interface at a time, for loading takes long on a busy
//! machine; traffic, sweeps and publications go on meanwhile.

use std::collections::VecDeque;

use tokio::task::JoinHandle;

use super::{Attached, Dataplane, DataplaneError, Port, attach, load::Loaded};

/// What became of an interface that had appeared.
#[derive(Debug)]
pub struct Appeared {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// What became of it, and one of `abi::exit`; or why nothing did.
    pub result: Result<(Attached, u8), DataplaneError>,
}

type Done = (Port, Result<(Loaded, Attached), DataplaneError>);

/// The interfaces that wait, and the one whose turn it is.
#[derive(Default)]
pub(super) struct Appearing {
    waiting: VecDeque<(Port, [u8; 6])>,
    attaching: Option<JoinHandle<Done>>,
}

impl Appearing {
    /// One more has appeared; what becomes of it comes from [`Appearing::next`].
    pub(super) fn push(&mut self, port: Port, mac: [u8; 6]) {
        self.waiting.push_back((port, mac));
    }

    /// Begin with the next one, if none is under way. What is refused at once is answered at once.
    pub(super) fn begin(&mut self, dataplane: &mut Dataplane) -> Option<Appeared> {
        if self.attaching.is_some() {
            return None;
        }
        let (port, mac) = self.waiting.pop_front()?;
        let (name, index) = (port.name.clone(), port.index);
        match dataplane.prepare(port, mac) {
            Ok(port) => {
                let (pins, layout) = (dataplane.pins.clone(), dataplane.common.layout);
                self.attaching = Some(tokio::task::spawn_blocking(move || {
                    let attached = attach::attach(&pins, &layout, &port);
                    (port, attached)
                }));
                None
            }
            Err(error) => Some(Appeared { name, index, result: Err(error) }),
        }
    }

    /// Wait until a program is on the one that is under way; without end if there is none. Nothing is lost when the
    /// future is dropped.
    pub(super) async fn next(&mut self) -> Option<Done> {
        let Some(attaching) = &mut self.attaching else { return std::future::pending().await };
        let done = attaching.await.ok();
        self.attaching = None;
        done
    }
}

impl Dataplane {
    /// A program is on an interface that had appeared, or cannot be.
    pub(super) fn appeared(&mut self, (port, attached): Done) -> Appeared {
        let (name, index) = (port.name.clone(), port.index);
        let result = attached.and_then(|(loaded, attached)| {
            let exit = port.exit(attached.mode);
            Ok((self.settle(port, loaded, attached)?, exit))
        });
        Appeared { name, index, result }
    }
}
