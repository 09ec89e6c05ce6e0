//! The task that alone holds BPF descriptors: it publishes what it is told, sweeps, cuts, hears the kernel's events,
//! and answers with counts.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use lb_common::{Reason, abi::Account, event};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    Appeared, BackendCounts, Captured, Dataplane, DataplaneError, Desired, Event, Fault, Lost, Port,
    Question, Swept, Trace,
    appear::Appearing,
    capturing::{Begin, Capturing, Turn},
    cuts::Cutting,
    events::Records,
};
use crate::listen::Listen;

/// Time from one sweep over all connections to the next.
const SWEEP: Duration = Duration::from_secs(1);

/// What the task can be asked for.
enum Command {
    Publish(Desired),
    Count(oneshot::Sender<Counts>),
    Capture { to: mpsc::Sender<Captured>, lost: Lost, reply: oneshot::Sender<Result<(), DataplaneError>> },
    Trace { question: Question, reply: oneshot::Sender<Result<Trace, DataplaneError>> },
    Attach { port: Port, mac: [u8; 6] },
    KeepInterfaces(BTreeSet<u32>),
}

/// What happened in the data path that somebody should know of.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A publication succeeded after one that had failed.
    Published,
    /// A sweep succeeded after one that had failed.
    Swept,
    /// A publication failed in part; what did not fail stands.
    PublicationFailed(String),
    /// A sweep failed.
    SweepFailed(String),
    /// Something runs with less than it should: cuts without a socket, events that cannot be read.
    Degraded(String),
    /// An account does not agree with the connections it stands for: a defect of ours.
    AccountFault(Fault),
    /// The kernel's half tells of a connection.
    Event(Event),
    /// What became of an interface that had appeared.
    Appeared(Arc<Appeared>),
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
    /// Its connections.
    pub account: Account,
    /// Slots of its ring that are changing hands.
    pub unsettled: usize,
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

    /// Have every packet shown to `packets` until its receiver is dropped; what it does not take in time is left out,
    /// and counted in `lost`. One capture at a time: a second one takes the place of the first. `None` if the task has
    /// ended.
    pub async fn capture(
        &self,
        packets: mpsc::Sender<Captured>,
        lost: Lost,
    ) -> Option<Result<(), DataplaneError>> {
        let (reply, begun) = oneshot::channel();
        self.0.send(Command::Capture { to: packets, lost, reply }).ok()?;
        begun.await.ok()
    }

    /// Attach to an interface that has appeared, with its MAC. What becomes of it comes as a [`Notice`].
    pub fn attach(&self, port: Port, mac: [u8; 6]) {
        let _ = self.0.send(Command::Attach { port, mac });
    }

    /// Forget the interfaces whose indices are not among these any more. The others' traffic does not notice.
    pub fn keep_interfaces(&self, living: BTreeSet<u32>) {
        let _ = self.0.send(Command::KeepInterfaces(living));
    }

    /// What would become of a packet. `None` if the task has ended.
    pub async fn trace(&self, question: Question) -> Option<Result<Trace, DataplaneError>> {
        let (reply, trace) = oneshot::channel();
        self.0.send(Command::Trace { question, reply }).ok()?;
        trace.await.ok()
    }
}

/// Give the data path to a task of its own. `watched`: whose counters are wanted until something is published, (service,
/// its backends). The task ends when every handle is gone.
pub fn spawn(
    dataplane: Dataplane,
    watched: Vec<(Listen, Vec<SocketAddr>)>,
    notices: mpsc::UnboundedSender<Notice>,
) -> (Handle, JoinHandle<()>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = Task::new(dataplane, watched, notices);
    (Handle(sender), tokio::spawn(task.run(receiver)))
}

struct Task {
    dataplane: Dataplane,
    watched: Vec<(Listen, Vec<SocketAddr>)>,
    notices: mpsc::UnboundedSender<Notice>,
    cutting: Cutting,
    /// `None` where they cannot be read.
    events: Option<Records<event::Event>>,
    capturing: Capturing,
    appearing: Appearing,
    sweeping: bool,
    unpublished: bool,
    unswept: bool,
}

/// A command and those that wait behind it. Of publications that follow each other only the last is left: each says all that
/// is wanted. When an agent starts, a thousand backends come up one by one, and a publication looks at them all.
fn with_those_behind(first: Command, commands: &mut mpsc::UnboundedReceiver<Command>) -> Vec<Command> {
    let mut all = vec![first];
    while let Ok(command) = commands.try_recv() {
        match (all.last_mut(), &command) {
            (Some(last @ Command::Publish(_)), Command::Publish(_)) => *last = command,
            _ => all.push(command),
        }
    }
    all
}

impl Task {
    fn new(
        dataplane: Dataplane,
        watched: Vec<(Listen, Vec<SocketAddr>)>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Self {
        let (cutting, no_socket) = Cutting::new();
        let (events, no_events) = match Records::open(&dataplane.pins, "EVENTS") {
            Ok(events) => (Some(events), None),
            Err(error) => (None, Some(error)),
        };
        let reasons = [no_socket.map(|error| error.to_string()), no_events.map(|error| error.to_string())];
        for reason in reasons.into_iter().flatten() {
            let _ = notices.send(Notice::Degraded(reason));
        }
        Self {
            dataplane,
            watched,
            notices,
            cutting,
            events,
            capturing: Capturing::default(),
            appearing: Appearing::default(),
            sweeping: false,
            unpublished: false,
            unswept: false,
        }
    }

    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut seconds = interval(SWEEP);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    None => break,
                    Some(command) => {
                        for command in with_those_behind(command, &mut commands) {
                            self.command(command);
                        }
                    }
                },
                () = self.cutting.due() => self.cut(),
                events = next(self.events.as_mut()) => self.heard(&events),
                () = tokio::task::yield_now(), if self.dataplane.is_hunting() => {
                    self.cutting.begin(&self.dataplane.hunt());
                }
                _ = seconds.tick() => self.second(),
                turn = self.capturing.next() => self.capturing(turn),
                done = self.appearing.next() => {
                    // A thread that panicked has attached nothing.
                    if let Some(done) = done {
                        let appeared = self.dataplane.appeared(done);
                        self.say_appeared(appeared);
                    }
                    self.attach();
                }
                // One slice a turn: what is to be published never waits for a whole sweep.
                () = tokio::task::yield_now(), if self.sweeping => self.sweep(),
            }
        }
        let ended = self.capturing.end(&mut self.dataplane);
        self.captured(ended);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish(desired) => {
                self.watched = desired.watched();
                let errors = self.dataplane.publish(&desired);
                self.published(&errors);
            }
            Command::Count(reply) => match counts(&self.dataplane, &self.watched) {
                Ok(counts) => {
                    let _ = reply.send(counts);
                }
                Err(error) => log::error!("the counters cannot be read: {error}"),
            },
            Command::Capture { to, lost, reply } => {
                self.capturing.begin(&self.dataplane, Begin { to, lost, reply });
            }
            Command::Trace { question, reply } => {
                let _ = reply.send(self.dataplane.trace(&question));
            }
            Command::Attach { port, mac } => {
                self.appearing.push(port, mac);
                self.attach();
            }
            Command::KeepInterfaces(living) => {
                if let Err(error) = self.dataplane.keep_interfaces(&living) {
                    let reason = format!("an interface that is gone is not forgotten: {error}");
                    let _ = self.notices.send(Notice::Degraded(reason));
                }
            }
        }
    }

    /// Go on with the interfaces that have appeared.
    fn attach(&mut self) {
        while let Some(refused) = self.appearing.begin(&mut self.dataplane) {
            self.say_appeared(refused);
        }
    }

    fn say_appeared(&self, appeared: Appeared) {
        let _ = self.notices.send(Notice::Appeared(Arc::new(appeared)));
    }

    fn published(&mut self, errors: &[DataplaneError]) {
        let failed = !errors.is_empty();
        if failed {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let _ = self.notices.send(Notice::PublicationFailed(errors.join("; ")));
        } else if self.unpublished {
            let _ = self.notices.send(Notice::Published);
        }
        self.unpublished = failed;
    }

    fn second(&mut self) {
        if let Err(error) = self.dataplane.beat() {
            let reason = format!("this agent counts as lost before long: {error}");
            let _ = self.notices.send(Notice::Degraded(reason));
        }
        self.sweeping = true;
        self.dataplane.relay_logs();
        if let Some(errors) = self.dataplane.tick() {
            self.published(&errors);
        }
        self.dataplane.put_tracer_away();
        self.capturing.second();
    }

    fn sweep(&mut self) {
        match self.dataplane.sweep() {
            Ok(None) => {}
            Ok(Some(swept)) => {
                self.sweeping = false;
                self.conclude(&swept);
            }
            Err(error) => {
                (self.sweeping, self.unswept) = (false, true);
                let _ = self.notices.send(Notice::SweepFailed(error.to_string()));
            }
        }
    }

    fn conclude(&mut self, swept: &Swept) {
        for fault in &swept.faults {
            let _ = self.notices.send(Notice::AccountFault(*fault));
        }
        self.cutting.swept(swept);
        if std::mem::take(&mut self.unswept) {
            let _ = self.notices.send(Notice::Swept);
        }
    }

    fn cut(&mut self) {
        if let Err(error) = self.cutting.send() {
            let _ = self.notices.send(Notice::Degraded(error.to_string()));
        }
    }

    fn heard(&mut self, events: &std::io::Result<Vec<event::Event>>) {
        match events {
            Ok(events) => {
                for raw in events {
                    let Some(event) = self.dataplane.name_event(raw) else { continue };
                    if let Some(connection) = self.dataplane.connection_of(raw, &event) {
                        self.cutting.event(&connection, event.what);
                    }
                    let _ = self.notices.send(Notice::Event(event));
                }
            }
            Err(error) => {
                self.events = None;
                let _ = self.notices.send(Notice::Degraded(format!("events cannot be read: {error}")));
            }
        }
    }

    /// The capture goes on.
    fn capturing(&mut self, turn: Turn) {
        let taken = self.capturing.take(&mut self.dataplane, turn);
        self.captured(taken);
        // However many packets there are, a sweep goes on between them.
        if self.sweeping {
            self.sweep();
        }
    }

    fn captured(&self, taken: Result<(), DataplaneError>) {
        if let Err(error) = taken {
            let _ = self.notices.send(Notice::Degraded(format!("the capture does not end: {error}")));
        }
    }
}

/// The next events; without end where they cannot be read.
async fn next(events: Option<&mut Records<event::Event>>) -> std::io::Result<Vec<event::Event>> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
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
            Ok(ServiceCounts {
                listen: *listen,
                account: dataplane.service_account(*listen),
                unsettled: dataplane.unsettled(*listen),
                reasons: dataplane.reasons(Some(*listen))?,
                backends,
            })
        })
        .collect::<Result<_, DataplaneError>>()?;
    Ok(Counts { services, nobody: dataplane.reasons(None)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_publications_that_wait_only_the_last_of_a_row_is_made() {
        let (sender, mut commands) = mpsc::unbounded_channel();
        let published = |number: u64| {
            Command::Publish(Desired { agent_lost_after: Duration::from_secs(number), ..Desired::default() })
        };
        let (reply, _) = oneshot::channel();
        for command in [published(2), published(3), Command::Count(reply), published(4), published(5)] {
            assert!(sender.send(command).is_ok());
        }
        let left: Vec<Option<u64>> = with_those_behind(published(1), &mut commands)
            .iter()
            .map(|command| match command {
                Command::Publish(desired) => Some(desired.agent_lost_after.as_secs()),
                _ => None,
            })
            .collect();
        assert_eq!(left, [Some(3), None, Some(5)]);
    }
}
