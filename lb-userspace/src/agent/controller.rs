//! The one owner of what is wanted.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Event,
    clusters::Galera,
    cuts::Cut,
    pressure::Pressure,
    probers::{BackendAt, Hasten, Measured, NodeAt},
    report::History,
    services::{Backends, hastened},
    state::{State as Kept, StateFile},
    through::Roads,
};
use crate::{
    api::{Reply, Timestamp},
    cluster::{self, How, Outcome},
    config::{Config, Load, LoadKind, Target},
    dataplane::{
        Attached, Desired, Fault, Way,
        task::{Handle, Notice},
    },
    health::{Moment, NextProbe, Step},
    listen::{self, Listen},
    netlink::Interface,
    probe::{Failure, galera::Sample},
};

/// How the agent ended.
#[derive(Debug)]
pub enum Ended {
    /// The data path runs on.
    Running,
    /// The data path is to be removed, as an operator or a missing `lb confirm` wants; whoever asked waits for the word
    /// that it is done.
    Detach(Option<oneshot::Sender<Reply>>),
}

/// What stays the same from start to end.
pub struct Fixed {
    /// Name of the instance.
    pub instance: String,
    /// The configuration.
    pub config: Config,
    /// The interfaces attached to, with what became of them.
    pub attached: Vec<(Interface, Attached, u8)>,
    /// Whether an earlier agent's data path was taken up.
    pub adopted: bool,
    /// What took new connections in it: (service, backend).
    pub active: Vec<(Listen, SocketAddr)>,
    /// When the agent started.
    pub since: Timestamp,
    /// The origin of all moments.
    pub origin: Instant,
}

/// The owner of what is wanted.
pub struct Controller {
    pub(super) fixed: Fixed,
    pub(super) services: Vec<Option<Backends>>,
    pub(super) clusters: Vec<Galera>,
    pub(super) ways: HashMap<IpAddr, Way>,
    /// What probes see of the ways.
    pub(super) roads: Roads,
    pub(super) obstacles: HashMap<IpAddr, String>,
    pub(super) history: History,
    pub(super) confirm: Option<(Moment, Timestamp)>,
    pub(super) faults: BTreeMap<String, String>,
    pub(super) dataplane: Handle,
    pub(super) state: Kept,
    file: StateFile,
    pub(super) checks: HashMap<BackendAt, Hasten>,
    pub(super) nodes: HashMap<NodeAt, Hasten>,
    pub(super) published: Option<Desired>,
    /// Whose connections are being ended.
    pub(super) cuts: BTreeMap<String, Cut>,
    quiet: HashMap<BackendAt, bool>,
    pub(super) pressure: Pressure,
    /// The capture that is going on, or the last one.
    pub(super) capturing: Option<JoinHandle<()>>,
}

impl Controller {
    /// A controller that has published nothing yet.
    pub fn new(
        fixed: Fixed,
        dataplane: Handle,
        state: Kept,
        file: StateFile,
        confirm: Option<Duration>,
    ) -> Self {
        let now = Moment::at(fixed.origin.elapsed());
        let drained = |owner: &str| {
            let state = state.clone();
            let owner = owner.to_owned();
            move |name: &str| state.drained.contains(&format!("{owner}/{name}"))
        };
        let served = |service: Listen| {
            let active = fixed.active.clone();
            move |backend: SocketAddr| active.contains(&(service, backend))
        };
        let services = fixed
            .config
            .services
            .iter()
            .map(|service| Backends::new(service, drained(&service.name), served(service.listen), now))
            .collect();
        let clusters = fixed
            .config
            .clusters
            .iter()
            .map(|cluster| {
                let incumbent = state.writers.get(&cluster.name).cloned();
                Galera::new(cluster, incumbent, drained(&cluster.name), now)
            })
            .collect();
        let confirm = confirm.map(|within| {
            let deadline = Timestamp::now().checked_add(within).unwrap_or(fixed.since);
            (now + within, deadline)
        });
        Self {
            fixed,
            services,
            clusters,
            ways: HashMap::new(),
            roads: Roads::default(),
            obstacles: HashMap::new(),
            history: History::default(),
            confirm,
            faults: BTreeMap::new(),
            dataplane,
            state,
            file,
            checks: HashMap::new(),
            nodes: HashMap::new(),
            published: None,
            cuts: BTreeMap::new(),
            quiet: HashMap::new(),
            pressure: Pressure::default(),
            capturing: None,
        }
    }

    /// The tasks whose rhythm the controller may hasten.
    pub fn hasten(&mut self, checks: HashMap<BackendAt, Hasten>, nodes: HashMap<NodeAt, Hasten>) {
        self.checks = checks;
        self.nodes = nodes;
    }

    /// What probes may know of the ways to backends.
    pub fn roads(&self) -> Roads {
        self.roads.clone()
    }

    /// Take events until the end.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Ended {
        while let Some(event) = events.recv().await {
            if let Some(ended) = self.take(event).await {
                return ended;
            }
        }
        Ended::Running
    }

    pub(super) fn now(&self) -> Moment {
        Moment::at(self.fixed.origin.elapsed())
    }

    async fn take(&mut self, event: Event) -> Option<Ended> {
        match event {
            Event::Checked { at, begun, result } => self.checked(at, begun, result),
            Event::Loaded { at, result } => self.loaded(at, result),
            Event::Sampled { at, result } => self.sampled(at, result).await,
            Event::Hop(changed) => self.hop(&changed),
            Event::Notice(notice) => self.notice(notice),
            Event::Request(request) => return self.request(request).await,
            Event::Tick => return self.tick().await,
            Event::Stop if self.confirm.is_some() => {
                // Whoever has locked himself out loses the session first, and with it the agent.
                log::warn!("the agent ends before `lb confirm`: detaching");
                return Some(Ended::Detach(None));
            }
            Event::Stop => {
                log::info!("the agent ends; the data path runs on (`lb detach` removes it)");
                return Some(Ended::Running);
            }
        }
        None
    }

    async fn sampled(&mut self, at: NodeAt, result: Result<Box<Sample>, Failure>) {
        let (now, answered) = (self.now(), result.is_ok());
        let Some(cluster) = self.clusters.get_mut(at.cluster) else { return };
        let former = cluster.election.writer();
        let outcome = cluster.sampled(at.node, result, now);
        self.elected(at.cluster, former, &outcome);
        if answered {
            // Counts as old as the sample, or a burst would look like somebody else's connections.
            self.count().await;
            let Some(server) = self.clusters[at.cluster].members.get(at.node).map(|node| node.address) else {
                return;
            };
            let ours = self.live_at(server);
            if self.clusters[at.cluster].members[at.node].learn_limit(ours) {
                self.publish();
            }
        }
    }

    fn checked(&mut self, at: BackendAt, begun: Instant, result: Result<(), Failure>) {
        let now = self.now();
        let begun = Moment::at(begun.saturating_duration_since(self.fixed.origin));
        let Some(Some(backends)) = self.services.get_mut(at.service) else { return };
        let step = backends.checked(at.backend, result, begun, now);
        if !backends.stirred() && step.as_ref().is_none_or(|step| step.next_probe == NextProbe::Normal) {
            return;
        }
        if let Some(step) = step {
            self.judged(at, &step);
        }
        if self.step(at.service, now) {
            self.publish();
        }
    }

    /// What a probe has changed, or would like to know soon.
    fn judged(&mut self, at: BackendAt, step: &Step) {
        let Some(Some(backends)) = self.services.get_mut(at.service) else { return };
        if let (Some(after), Some(task)) = (hastened(step), self.checks.get(&at)) {
            task.after(after);
        }
        if let Some(change) = &step.changed {
            let backend = &backends.members[at.backend];
            let service = &self.fixed.config.services[at.service].name;
            log::info!("{service}/{}: {} → {}: {}", backend.name, change.from, change.to, change.reason);
        }
        if let Some(sentence) = backends.panic_changed() {
            log::warn!("{}: {sentence}", self.fixed.config.services[at.service].name);
        }
    }

    fn loaded(&mut self, at: BackendAt, result: Result<Measured, Failure>) {
        let now = self.now();
        let Some(Some(backends)) = self.services.get_mut(at.service) else { return };
        let failed = result.is_err();
        // A load that cannot be read is said once, not once a second.
        if self.quiet.insert(at, failed) != Some(failed)
            && let Err(failure) = &result
        {
            let name = backends.members.get(at.backend).map_or("?", |backend| &backend.name);
            let service = &self.fixed.config.services[at.service];
            let then = match &service.target {
                Target::Backends { load: Some(Load { kind: LoadKind::AgentCheck { .. }, .. }), .. } => {
                    "what it has ordered stands until its lease ends"
                }
                _ => "its weight returns to the configured one",
            };
            log::warn!("{}/{name}: no load: {failure}; {then}", service.name);
        }
        match result {
            Ok(Measured::PhpFpm(status)) => backends.loaded(at.backend, &status, now),
            Ok(Measured::Utilisation(utilisation)) => backends.utilised(at.backend, utilisation, now),
            Ok(Measured::Orders(orders)) => backends.ordered(at.backend, orders, now),
            Err(_) => {}
        }
        if backends.stirred() && self.step(at.service, now) {
            self.publish();
        }
    }

    /// What an election has decided: log it, keep it, publish it, and hasten the probes that it wants.
    fn elected(&mut self, index: usize, former: Option<usize>, outcome: &Outcome) {
        for wish in &outcome.reprobe {
            if let Some(task) = self.nodes.get(&NodeAt { cluster: index, node: wish.node }) {
                task.after(wish.after);
            }
        }
        let now = self.now();
        let cluster = &mut self.clusters[index];
        for event in &outcome.events {
            log_election(cluster, event);
            if let (cluster::Event::WriterElected { how: How::Planned, node, .. }, Some(former)) =
                (event, former)
                && former != *node
            {
                cluster.hand_over(former, now);
            }
        }
        if !outcome.events.is_empty()
            && let Some(incumbent) = cluster.election.incumbent().cloned()
        {
            let name = cluster.name.clone();
            if self.state.writers.get(&name) != Some(&incumbent) {
                self.state.writers.insert(name, incumbent);
                self.store();
            }
        }
        self.publish();
    }

    fn notice(&mut self, notice: Notice) {
        let (key, text) = match notice {
            Notice::Published => {
                if self.faults.remove("publication").is_some() {
                    log::info!("the data path takes updates again");
                }
                return;
            }
            Notice::Swept => {
                self.faults.remove("sweep");
                return;
            }
            Notice::PublicationFailed(why) => {
                // What stands in the maps is not what was asked for, so the next attempt is a full one.
                self.published = None;
                ("publication".to_owned(), format!("the data path refused an update: {why}"))
            }
            Notice::SweepFailed(why) => ("sweep".to_owned(), format!("connections cannot be expired: {why}")),
            Notice::Degraded(why) => ("degraded".to_owned(), why),
            Notice::Event(event) => return self.heard(&event),
            Notice::AccountFault(fault) => {
                let (of, difference) = match fault {
                    Fault::Pair { service, backend, difference } => {
                        (format!("{service} {}", listen::server(backend)), difference)
                    }
                    Fault::Server { server, difference } => (listen::server(server), difference),
                    Fault::Service { service, difference } => (service.to_string(), difference),
                };
                let text =
                    format!("{of}: live connections are {difference} off (a defect; please report it)");
                (format!("account {of}"), text)
            }
        };
        if self.faults.insert(key, text.clone()).as_ref() != Some(&text) {
            log::error!("{text}");
        }
    }

    async fn tick(&mut self) -> Option<Ended> {
        let now = self.now();
        if self.confirm.is_some_and(|(deadline, _)| now >= deadline) {
            log::warn!("no `lb confirm` came in time: detaching");
            return Some(Ended::Detach(None));
        }
        for index in 0..self.clusters.len() {
            let cluster = &mut self.clusters[index];
            if cluster.wake.is_some_and(|wake| now >= wake) || cluster.leaving().is_some() {
                let former = cluster.election.writer();
                let outcome = cluster.tick(now);
                self.elected(index, former, &outcome);
            }
        }
        let mut changed = false;
        for service in 0..self.services.len() {
            changed |= self.step(service, now);
        }
        if changed || self.published.is_none() {
            self.publish();
        }
        self.count().await;
        self.end_cuts(now);
        self.deadlines_passed();
        None
    }

    /// Fetch the counters and remember them for rates.
    pub(super) async fn count(&mut self) {
        if let Some(counts) = self.dataplane.count().await {
            let now = self.now();
            self.history.push(now, counts);
        }
    }

    pub(super) fn store(&self) {
        if let Err(error) = self.file.store(&self.state) {
            log::error!("the state cannot be kept for the next start: {error}");
        }
    }
}

/// One line for each decision.
fn log_election(cluster: &Galera, event: &cluster::Event) {
    let name = &cluster.name;
    let node = |index: usize| cluster.members.get(index).map_or("?", |member| member.name.as_str());
    match event {
        cluster::Event::WriterElected { node: index, epoch, how, reason } => {
            let how = match how {
                How::First => "elected",
                How::Failover => "elected after a failure",
                How::Planned => "elected by plan",
            };
            log::info!("{name}: writer {}, epoch {epoch}, {how}: {reason}", node(*index));
        }
        cluster::Event::WriterLost { node: index, reason } => {
            log::error!("{name}: no writer: {} is out: {reason}", node(*index));
        }
        cluster::Event::ReadinessChanged { node: index, from, to, reason } => {
            log::info!("{name}/{}: {from:?} → {to:?}: {reason}", node(*index));
        }
        cluster::Event::AlarmRaised(alarm) => log::error!("{name}: {alarm:?}"),
        cluster::Event::AlarmCleared(alarm) => log::info!("{name}: over: {alarm:?}"),
    }
}
