//! The tasks that ask: one for each probe of a backend, one for each database node. They know their target, their
//! interval and where to send what they saw; what it means is decided elsewhere.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{
    Event,
    askers::{Asker, Ways, fpm_url},
    keys::Key,
    outbox::hand_on,
    prober_thread::ProberThread,
    rhythm::Rhythm,
    through::{Beyond, Roads, Through},
};
use crate::{
    config::{self, LoadKind},
    probe::{
        Failure, FailureKind, agent_check, galera,
        handshake::{HandshakeError, Handshakes},
        mysql::Encryption,
        php_fpm,
    },
};

/// Probes of backends that are under way at a time; more of them wait for their turn, and only then does their time
/// begin. Bounds descriptors and memory when everything falls silent at once. Database nodes of clusters never wait.
pub(super) const AT_ONCE: usize = 512;

/// How often, and in which rhythm, a database node is asked whose connection has broken.
const FOLLOW_UPS: u32 = 20;
const FOLLOW_UP_PAUSE: Duration = Duration::from_millis(5);

/// One thing that is probed: hastens its next probe, and ends its probes when dropped.
#[derive(Debug)]
#[must_use]
pub struct Hasten {
    sender: mpsc::UnboundedSender<Duration>,
    tasks: Vec<AbortHandle>,
}

impl Hasten {
    /// The next probe comes after `delay` at the latest, counted from now.
    pub fn after(&self, delay: Duration) {
        // The task ends only with this or with the agent.
        let _ = self.sender.send(delay);
    }
}

impl Drop for Hasten {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Which backend of which service, by numbers that no other gets in this agent's life: what is on its way from a task that
/// has ended finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendAt {
    /// The service.
    pub service: Key,
    /// The backend.
    pub backend: Key,
}

/// What was found out about a backend's load.
#[derive(Clone, Debug, PartialEq)]
pub enum Measured {
    /// By PHP-FPM.
    PhpFpm(php_fpm::Status),
    /// As a part of what it can do; 1: all of it.
    Utilisation(f64),
    /// Its agent's orders.
    Orders(agent_check::Orders),
}

/// Starts probes, all of which share what they can.
#[derive(Debug)]
pub struct Probers {
    thread: ProberThread,
    /// What all rhythms count from.
    origin: Instant,
    events: mpsc::UnboundedSender<Event>,
    turns: Arc<Semaphore>,
    ways: Ways,
    roads: Roads,
    /// Opened for the first backend that needs them.
    handshakes: Option<Result<Handshakes, HandshakeError>>,
}

impl Probers {
    /// What they see goes to `events`, for as long as events are taken.
    pub fn new(events: mpsc::UnboundedSender<Event>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let thread = ProberThread::start();
        let (seen, inbox) = mpsc::unbounded_channel();
        thread.handle().spawn(hand_on(inbox, events));
        Self {
            thread,
            origin: Instant::now(),
            events: seen,
            turns,
            ways: Ways::default(),
            roads: Roads::default(),
            handshakes: None,
        }
    }

    /// What probes see of the ways to backends.
    pub fn roads(&self) -> &Roads {
        &self.roads
    }

    /// Probe a backend's health, and its load if there is one to measure, until the answer is dropped. What must answer
    /// besides its own address is asked once that has answered.
    pub fn backend(
        &mut self,
        at: BackendAt,
        address: SocketAddr,
        check: &config::Check,
        load: Option<&config::Load>,
        beyond: Option<Beyond>,
    ) -> Hasten {
        let (rhythm, sender) = Rhythm::new(check.interval, self.origin);
        let capacity = match load.map(|load| &load.kind) {
            Some(LoadKind::Mysql { capacity }) => Some(*capacity),
            _ => None,
        };
        let asker = Asker::new(address, check, &mut self.ways);
        let task =
            Task { at, timeout: check.timeout, events: self.events.clone(), turns: self.turns.clone() };
        let through = beyond.and_then(|beyond| self.through(address.ip(), beyond));
        let handle = self.thread.handle();
        let mut tasks = vec![handle.spawn(task.check(asker, through, rhythm, capacity)).abort_handle()];
        if let Some(load) = load.filter(|load| !matches!(load.kind, LoadKind::Mysql { .. })) {
            let task =
                Task { at, timeout: load.timeout, events: self.events.clone(), turns: self.turns.clone() };
            let (rhythm, _) = Rhythm::new(load.interval, self.origin);
            tasks.push(handle.spawn(task.load(address, load.clone(), rhythm)).abort_handle());
        }
        Hasten { sender, tasks }
    }

    fn through(&mut self, backend: IpAddr, beyond: Beyond) -> Option<Through> {
        let opened = self.handshakes.get_or_insert_with(|| {
            let opened = Handshakes::open();
            if let Err(error) = &opened {
                log::warn!("backends in dsr and ipip are probed at their own addresses only: {error}");
            }
            opened
        });
        let handshakes = opened.as_ref().ok()?.clone();
        Some(Through { handshakes, roads: self.roads.clone(), backend, beyond })
    }

    /// Ask a database node about itself over one persistent connection, until the answer is dropped.
    ///
    /// A connection that breaks is followed up at once, see [`follow_up`].
    pub fn node(&mut self, at: NodeAt, asked: &config::Node, cluster: &config::Cluster) -> Hasten {
        let monitor = &cluster.monitor;
        let (rhythm, sender) = Rhythm::new(monitor.interval, self.origin);
        let session =
            galera::Monitor::new(asked.address, &monitor.user, monitor.password.expose(), monitor.timeout)
                .with_extra_port(asked.extra_port)
                .with_replication(cluster.kind == config::ClusterKind::Mysql);
        let encryption = self.ways.encryption(&monitor.tls).map_err(|error| error.to_string());
        let asking = node(at, session, encryption, rhythm, self.events.clone());
        Hasten { sender, tasks: vec![self.thread.handle().spawn(asking).abort_handle()] }
    }
}

/// What a task needs beside its question.
struct Task {
    at: BackendAt,
    timeout: Duration,
    events: mpsc::UnboundedSender<Event>,
    turns: Arc<Semaphore>,
}

impl Task {
    async fn check(
        self,
        mut asker: Asker,
        through: Option<Through>,
        mut rhythm: Rhythm,
        capacity: Option<u32>,
    ) {
        let at = self.at;
        loop {
            // The semaphore is never closed.
            let Ok(turn) = self.turns.acquire().await else { return };
            let begun = std::time::Instant::now();
            let mut answer = asker.ask(self.timeout).await;
            if let (Ok(_), Some(through)) = (&answer, &through)
                && let Err(failure) = through.ask(self.timeout).await
            {
                answer = Err(failure);
            }
            drop(turn);
            let load = answer.as_ref().ok().and_then(Option::as_ref).zip(capacity);
            if let Some(load) = load.and_then(|(sample, capacity)| sample.utilisation(capacity))
                && self.events.send(Event::Loaded { at, result: Ok(Measured::Utilisation(load)) }).is_err()
            {
                return;
            }
            let result = answer.map(drop);
            if self.events.send(Event::Checked { at, begun, result }).is_err() {
                return;
            }
            rhythm.turn().await;
        }
    }

    /// Nothing hastens it.
    async fn load(self, address: SocketAddr, load: config::Load, mut rhythm: Rhythm) {
        // A status page that the pool itself serves never shows fewer than one active worker, the one that serves it.
        let mut through_pool = true;
        loop {
            let Ok(turn) = self.turns.acquire().await else { return };
            let result = match &load.kind {
                LoadKind::PhpFpm { url, .. } => match fpm_url(url, address, through_pool) {
                    Ok(url) => php_fpm::status(&url, self.timeout).await.map(Measured::PhpFpm),
                    Err(failure) => Err(failure),
                },
                LoadKind::AgentCheck { port, .. } => {
                    let agent = SocketAddr::new(address.ip(), *port);
                    agent_check::ask(agent, self.timeout).await.map(Measured::Orders)
                }
                // Its check tells it.
                LoadKind::Mysql { .. } => return,
            };
            drop(turn);
            if matches!(&result, Ok(Measured::PhpFpm(status)) if status.active == 0) {
                through_pool = false;
            }
            if self.events.send(Event::Loaded { at: self.at, result }).is_err() {
                return;
            }
            rhythm.turn().await;
        }
    }
}

/// Which node of which cluster, by numbers as in [`BackendAt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAt {
    /// The cluster.
    pub cluster: Key,
    /// The node.
    pub node: Key,
}

async fn node(
    at: NodeAt,
    session: galera::Monitor,
    encryption: Result<Encryption, String>,
    mut rhythm: Rhythm,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut session = match encryption {
        Ok(encryption) => session.encrypted(encryption),
        Err(detail) => {
            let _ =
                events.send(Event::Sampled { at, result: Err(Failure { kind: FailureKind::Local, detail }) });
            return;
        }
    };
    loop {
        let result = session.sample().await.map(Box::new);
        if events.send(Event::Sampled { at, result }).is_err() {
            return;
        }
        tokio::select! {
            () = rhythm.turn() => {}
            () = session.broken() => follow_up(&mut session, at, &events).await,
        }
    }
}

/// Find out what a broken connection means, without waiting for the next turn: a server that was killed is known to be
/// gone after some milliseconds, not after an interval.
///
/// Two refusals are what the election wants. They may follow each other quickly, for the broken connection has already
/// said that this is no passing trouble. A dying process closes its connections before or after its listener, so for a
/// moment a new connection may be taken and closed again, which says nothing yet.
async fn follow_up(session: &mut galera::Monitor, at: NodeAt, events: &mpsc::UnboundedSender<Event>) {
    let mut refusals = 0;
    for _ in 0..FOLLOW_UPS {
        match session.sample().await.map(Box::new) {
            Err(failure) if failure.kind == FailureKind::Closed => {}
            Err(failure) if failure.kind == FailureKind::Refused => {
                refusals += 1;
                if events.send(Event::Sampled { at, result: Err(failure) }).is_err() || refusals == 2 {
                    return;
                }
            }
            // The loop's next sample says it; one that came in time is as good as this one.
            _ => return,
        }
        sleep(FOLLOW_UP_PAUSE).await;
    }
}

#[cfg(test)]
#[path = "probers_tests.rs"]
mod tests;
