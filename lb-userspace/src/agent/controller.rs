//! The one owner of what is wanted.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use lb_common::abi::Layout;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Event,
    clusters::Galera,
    cuts::Cut,
    decisions::elected,
    journal::Journal,
    keys::Keys,
    links::Links,
    pressure::Pressure,
    probers::Probers,
    reload::{Leaving, merge::Leaver},
    report::History,
    services::Backends,
    sources::Sources,
    state::{State as Kept, StateFile},
};
use crate::{
    api::{Entry, Reply, Timestamp, Topic},
    cluster::{self, How, Outcome},
    config::Config,
    dataplane::{
        Attached, Desired, Fault, Way,
        task::{Handle, Notice},
    },
    health::Moment,
    listen::{self, Listen},
    netlink::{Interface, Watcher},
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
    /// The configuration's file.
    pub file: PathBuf,
    /// Sizes and ports of the data path.
    pub layout: Layout,
    /// The interfaces attached to, with what became of them.
    pub attached: Vec<(Interface, Attached, u8)>,
    /// Whether an earlier agent's data path was taken up.
    pub adopted: bool,
    /// When the agent started.
    pub since: Timestamp,
    /// The origin of all moments.
    pub origin: Instant,
}

/// The owner of what is wanted.
pub struct Controller {
    pub(super) fixed: Fixed,
    /// What the configuration's files say.
    pub(super) file_says: Config,
    /// What runs: that, whom discovery has found, and those that leave.
    pub(super) config: Config,
    /// Those of [`config`](Self::config) that nobody names any more.
    pub(super) leavers: BTreeMap<Leaver, Leaving>,
    /// In the order of `config.services`; `None`: a cluster's nodes serve.
    pub(super) services: Vec<Option<Backends>>,
    /// In the order of `config.clusters`.
    pub(super) clusters: Vec<Galera>,
    pub(super) keys: Keys,
    /// What took new connections in an earlier agent's data path, until the first configuration has been taken up.
    pub(super) active: Vec<(Listen, SocketAddr)>,
    pub(super) watcher: Watcher,
    /// Where those who are asked to look send what they see.
    pub(super) events: mpsc::UnboundedSender<Event>,
    pub(super) probers: Probers,
    pub(super) ways: HashMap<IpAddr, Way>,
    pub(super) obstacles: HashMap<IpAddr, String>,
    /// Interfaces that come and go.
    pub(super) links: Links,
    pub(super) history: History,
    pub(super) confirm: Option<(Moment, Timestamp)>,
    pub(super) faults: BTreeMap<String, String>,
    pub(super) dataplane: Handle,
    pub(super) state: Kept,
    file: StateFile,
    pub(super) published: Option<Desired>,
    /// Whose connections are being ended.
    pub(super) cuts: BTreeMap<String, Cut>,
    pub(super) pressure: Pressure,
    /// Who finds further backends.
    pub(super) sources: Sources,
    /// What has changed.
    pub(super) journal: Journal,
    /// The capture that is going on, or the last one.
    pub(super) capturing: Option<JoinHandle<()>>,
}

/// What a controller works with.
pub struct Tools {
    /// The way to the data path.
    pub dataplane: Handle,
    /// Who knows the ways to backends.
    pub watcher: Watcher,
    /// Where those who are asked to look send what they see.
    pub events: mpsc::UnboundedSender<Event>,
    /// The file for what must survive.
    pub state: StateFile,
}

impl Controller {
    /// A controller of a configuration, that has published nothing yet. `active`: what took new connections when the last
    /// agent ended, (service, backend). `confirm`: how soon somebody has to confirm that the agent may stay.
    pub fn new(
        fixed: Fixed,
        tools: Tools,
        state: Kept,
        config: Config,
        active: Vec<(Listen, SocketAddr)>,
        confirm: Option<Duration>,
        links: Links,
    ) -> Self {
        let now = Moment::at(fixed.origin.elapsed());
        let confirm = confirm.map(|within| {
            let deadline = Timestamp::now().checked_add(within).unwrap_or(fixed.since);
            (now + within, deadline)
        });
        let nothing = Config { services: Vec::new(), clusters: Vec::new(), ..config.clone() };
        let mut controller = Self {
            fixed,
            file_says: config,
            config: nothing,
            leavers: BTreeMap::new(),
            services: Vec::new(),
            clusters: Vec::new(),
            keys: Keys::default(),
            active,
            watcher: tools.watcher,
            probers: Probers::new(tools.events.clone()),
            events: tools.events,
            ways: HashMap::new(),
            obstacles: HashMap::new(),
            links,
            history: History::default(),
            confirm,
            faults: BTreeMap::new(),
            dataplane: tools.dataplane,
            state,
            file: tools.state,
            published: None,
            cuts: BTreeMap::new(),
            pressure: Pressure::default(),
            sources: Sources::default(),
            journal: Journal::default(),
            capturing: None,
        };
        controller.rebuild(None, &BTreeSet::new());
        controller
    }

    /// Take events until the end.
    pub async fn run(mut self, mut events: mpsc::UnboundedReceiver<Event>) -> Ended {
        self.journal.started(self.fixed.adopted);
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
            Event::Links(interfaces) => self.links(interfaces),
            Event::Notice(notice) => self.notice(notice),
            Event::Members(members) => self.discovered(members),
            Event::Source { service, trouble } => self.source_is(&service, trouble),
            Event::FilesChanged => {
                self.reload("the configuration's files have changed", None).await;
            }
            Event::Hangup if self.confirm.is_none() => {
                self.reload("SIGHUP", None).await;
            }
            Event::Request(request) => return self.request(request).await,
            Event::Tick => return self.tick().await,
            Event::Stop | Event::Hangup if self.confirm.is_some() => {
                // Whoever has locked himself out loses the session first, and with it the agent.
                log::warn!("the agent ends before `lb confirm`: detaching");
                return Some(Ended::Detach(None));
            }
            Event::Stop | Event::Hangup => {
                log::info!("the agent ends; the data path runs on (`lb detach` removes it)");
                return Some(Ended::Running);
            }
        }
        None
    }

    /// What an election has decided: log it, keep it, publish it, and hasten the probes that it wants.
    pub(super) fn elected(&mut self, index: usize, former: Option<usize>, outcome: &Outcome) {
        for wish in &outcome.reprobe {
            if let Some(member) = self.clusters[index].members.get(wish.node) {
                member.hasten(wish.after);
            }
        }
        let now = self.now();
        let cluster = &mut self.clusters[index];
        for event in &outcome.events {
            self.journal.record(elected(cluster, event));
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
                    self.journal.record(Entry::new(Topic::Alarm, "", "the data path takes updates again"));
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
            Notice::Appeared(appeared) => return self.appeared(&appeared),
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
            self.journal.record(Entry::new(Topic::Alarm, "", text).error());
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
        for cluster in &mut self.clusters {
            changed |= cluster.loads.step(now);
        }
        for service in 0..self.services.len() {
            changed |= self.step(service, now);
        }
        if changed || self.published.is_none() {
            self.publish();
        }
        self.count().await;
        self.end_cuts(now);
        self.deadlines_passed();
        self.depart(now);
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
