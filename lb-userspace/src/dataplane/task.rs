//! The task that alone holds BPF descriptors: it publishes what it is told, sweeps, and answers with counts.

use std::{net::SocketAddr, time::Duration};

use lb_common::Reason;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::listen::Listen;

use super::{BackendCounts, Dataplane, DataplaneError, Desired, Swept};

/// Time from one sweep over all connections to the next.
const SWEEP: Duration = Duration::from_secs(1);

/// What the task can be asked for.
enum Command {
    Publish(Desired),
    Count(oneshot::Sender<Counts>),
}

/// What happened in the data path that somebody should know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A publication succeeded after one that had failed.
    Published,
    /// A sweep succeeded after one that had failed.
    Swept,
    /// A publication failed in part; what did not fail stands.
    PublicationFailed(String),
    /// A sweep failed.
    SweepFailed(String),
    /// An account does not agree with the connections it stands for: a defect of ours.
    AccountFault {
        /// The service.
        service: Listen,
        /// The backend.
        backend: SocketAddr,
        /// By how many connections.
        difference: i64,
    },
}

/// Counters of everything at one moment.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// By service, in the order of the last publication.
    pub services: Vec<ServiceCounts>,
    /// Of packets without a service.
    pub nobody: Vec<(Reason, u64)>,
}

/// Counters of a service.
#[derive(Clone, Debug)]
pub struct ServiceCounts {
    /// Where clients connect to.
    pub listen: Listen,
    /// By reason.
    pub reasons: Vec<(Reason, u64)>,
    /// By backend.
    pub backends: Vec<(SocketAddr, BackendCounts)>,
}

/// The way to the task.
#[derive(Clone)]
pub struct Handle(mpsc::UnboundedSender<Command>);

impl Handle {
    /// Have this published. What is wrong with it comes as a [`Notice`].
    pub fn publish(&self, desired: Desired) {
        // The task ends only with the agent.
        let _ = self.0.send(Command::Publish(desired));
    }

    /// The counters; `None` if the task has ended.
    pub async fn count(&self) -> Option<Counts> {
        let (reply, counts) = oneshot::channel();
        self.0.send(Command::Count(reply)).ok()?;
        counts.await.ok()
    }
}

/// Give the data path to a task of its own. Every address whose counters are wanted must be in `watched`:
/// (service, its backends). The task ends when every handle is gone.
pub fn spawn(
    dataplane: Dataplane,
    watched: Vec<(Listen, Vec<SocketAddr>)>,
    notices: mpsc::UnboundedSender<Notice>,
) -> (Handle, JoinHandle<()>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(run(dataplane, watched, notices, receiver));
    (Handle(sender), task)
}

async fn run(
    mut dataplane: Dataplane,
    watched: Vec<(Listen, Vec<SocketAddr>)>,
    notices: mpsc::UnboundedSender<Notice>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let mut sweeps = interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sweeping, mut unpublished, mut unswept) = (false, false, false);
    loop {
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                None => return,
                Some(Command::Publish(desired)) => {
                    let errors: Vec<String> =
                        dataplane.publish(&desired).iter().map(ToString::to_string).collect();
                    let failed = !errors.is_empty();
                    if failed {
                        let _ = notices.send(Notice::PublicationFailed(errors.join("; ")));
                    } else if unpublished {
                        let _ = notices.send(Notice::Published);
                    }
                    unpublished = failed;
                }
                Some(Command::Count(reply)) => match counts(&dataplane, &watched) {
                    Ok(counts) => { let _ = reply.send(counts); }
                    Err(error) => log::error!("the counters cannot be read: {error}"),
                },
            },
            _ = sweeps.tick() => {
                sweeping = true;
                dataplane.relay_logs();
            }
            // One slice a turn: what is to be published never waits for a whole sweep.
            () = tokio::task::yield_now(), if sweeping => match dataplane.sweep() {
                Ok(None) => {}
                Ok(Some(swept)) => {
                    sweeping = false;
                    tell_faults(&dataplane, swept, &notices);
                    if std::mem::take(&mut unswept) {
                        let _ = notices.send(Notice::Swept);
                    }
                }
                Err(error) => {
                    (sweeping, unswept) = (false, true);
                    let _ = notices.send(Notice::SweepFailed(error.to_string()));
                }
            },
        }
    }
}

/// Accounts that do not agree with the connections they stand for.
fn tell_faults(dataplane: &Dataplane, swept: Swept, notices: &mpsc::UnboundedSender<Notice>) {
    for (number, difference) in swept.faults {
        if let Some((service, backend)) = dataplane.name_of(number) {
            let _ = notices.send(Notice::AccountFault { service, backend, difference });
        }
    }
}

fn counts(dataplane: &Dataplane, watched: &[(Listen, Vec<SocketAddr>)]) -> Result<Counts, DataplaneError> {
    let services = watched
        .iter()
        .map(|(listen, backends)| {
            let backends = backends
                .iter()
                .map(|backend| Ok((*backend, dataplane.backend_counts(*listen, *backend)?)))
                .collect::<Result<_, DataplaneError>>()?;
            Ok(ServiceCounts { listen: *listen, reasons: dataplane.reasons(Some(*listen))?, backends })
        })
        .collect::<Result<_, DataplaneError>>()?;
    Ok(Counts { services, nobody: dataplane.reasons(None)? })
}
