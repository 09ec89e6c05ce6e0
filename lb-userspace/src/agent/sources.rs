//! The sources of discovery that run: a task for each service that has one.
//!
//! Sources tell whole sets in words of their own; here they become what the controller understands. A member that drains
//! is not told any more, for the controller drains whom nobody names. One whose process has ended is cut besides.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::{
    Event,
    controller::Controller,
    members::{Found, Members},
    reload::merge::Discovered,
};
use crate::{
    api::{Command, Cut, Entry, Request, Topic},
    config::{self, Config, Mode, Target},
    discovery::{self, Absent, Member, Source},
    listen::Listen,
};

/// The sources that run, by service.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, Running>);

/// A source and what it is for.
#[derive(Debug)]
struct Running {
    of: Of,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whose members a source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Of {
    service: String,
    source: Source,
    listen: Listen,
    mode: Mode,
    /// What this balancer serves itself, and so can be nobody's member.
    own: Vec<Listen>,
}

impl Sources {
    /// Runs the sources of a configuration and no others. `discovered` is what earlier ones have told: what holds of it
    /// until the new ones know better, and what nobody is there for any more, which is taken back.
    pub fn follow(
        &mut self,
        config: &Config,
        discovered: &Discovered,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        let own: Vec<Listen> = config.services.iter().map(|service| service.listen).collect();
        let mut wanted = BTreeMap::new();
        for service in &config.services {
            if let Target::Backends { discover: Some(source), .. } = &service.target {
                let (source, own) = ((**source).clone(), own.clone());
                let of = Of {
                    service: service.name.clone(),
                    source,
                    listen: service.listen,
                    mode: service.mode,
                    own,
                };
                wanted.insert(service.name.clone(), of);
            }
        }
        self.0.retain(|service, running| {
            let stays = wanted.get(service) == Some(&running.of);
            if !stays {
                let _ = events.send(Event::Source { service: service.clone(), trouble: None });
            }
            stays
        });
        for (service, sources) in discovered {
            let told_by = wanted.get(service).map(|of| of.source.to_string());
            let stale = sources
                .iter()
                .filter(|(source, found)| Some(*source) != told_by.as_ref() && !found.is_empty());
            for (source, _) in stale {
                let (service, source) = (service.clone(), source.clone());
                let _ = events.send(Event::Members(Members { service, source, found: Vec::new() }));
            }
        }
        for (service, of) in wanted {
            self.0.entry(service).or_insert_with_key(|service| {
                let told = discovered.get(service).and_then(|sources| sources.get(&of.source.to_string()));
                run(of, told.map(|found| kept(found)), events.clone())
            });
        }
    }
}

/// What a source told before, in its own words.
fn kept(found: &[Found]) -> Vec<Member> {
    let member = |found: &Found| Member {
        name: found.name.clone(),
        address: found.address,
        weight: found.weight,
        draining: None,
    };
    found.iter().map(member).collect()
}

fn run(of: Of, kept: Option<Vec<Member>>, events: mpsc::UnboundedSender<Event>) -> Running {
    // A set replaces the one before it, so there is nothing to queue.
    let (out, told) = mpsc::channel(1);
    let source = of.source.clone().run(kept.clone(), out);
    let forward = forward(of.clone(), kept.unwrap_or_default(), told, events);
    // Neither outlives the other: the source ends when nobody listens, and both with the task.
    let task = tokio::spawn(async move {
        tokio::join!(source, forward);
    });
    Running { of, task }
}

async fn forward(
    of: Of,
    mut before: Vec<Member>,
    mut told: mpsc::Receiver<discovery::Members>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut known = None;
    while let Some(discovery::Members { list, trouble }) = told.recv().await {
        if trouble != known {
            known.clone_from(&trouble);
            let _ = events.send(Event::Source { service: of.service.clone(), trouble });
        }
        let Some(list) = list else { continue };
        let (service, source) = (of.service.clone(), of.source.to_string());
        let found = list.iter().filter(|member| member.draining.is_none() && of.takes(member)).map(found);
        let members = Members { service, source, found: found.collect() };
        if events.send(Event::Members(members)).is_err() {
            return;
        }
        if of.source.absent() == Absent::Cut {
            let here: BTreeSet<SocketAddr> = list.iter().map(|member| member.address).collect();
            for member in before.iter().filter(|member| !here.contains(&member.address)) {
                cut(&of, member, &events);
            }
        }
        before = list;
    }
}

impl Controller {
    /// A source has said how it is: said once, and shown by `lb status` for as long as it lasts.
    pub(super) fn source_is(&mut self, service: &str, trouble: Option<String>) {
        let key = format!("discovery of {service}");
        match trouble {
            Some(trouble) => {
                let entry = Entry::new(Topic::Discovery, service, format!("discovery: {trouble}"));
                self.journal.record(entry.warning());
                self.faults.insert(key, format!("{service}: discovery: {trouble}"));
            }
            None if self.faults.remove(&key).is_some() => {
                self.journal.record(Entry::new(Topic::Discovery, service, "discovery is well again"));
            }
            None => {}
        }
    }
}

fn found(member: &Member) -> Found {
    let Member { name, address, weight, .. } = member;
    Found { name: name.clone(), address: *address, weight: *weight, max_connections: None }
}

/// Asks for the connections of a member that has ended to be cut. Nobody waits for the answer: one who had no
/// connections may have left already.
fn cut(of: &Of, member: &Member, events: &mpsc::UnboundedSender<Event>) {
    let command = Command::Cut(Cut { name: format!("{}/{}", of.service, member.name) });
    let (reply, _) = oneshot::channel();
    let _ = events.send(Event::Request(Request { command, reply, lines: None, entries: None }));
}

impl Of {
    /// Whether it can serve here; if not, the log says why.
    fn takes(&self, member: &Member) -> bool {
        let wrong = match config::fits(self.listen, self.mode, member.address) {
            Err(fault) => fault.to_string(),
            Ok(()) if self.own.iter().any(|listen| is_own(*listen, member.address)) => {
                format!("{} is a service of this balancer itself", member.address)
            }
            Ok(()) => return true,
        };
        log::warn!("{}: discovery: {} is left out: {wrong}", self.service, member.name);
        false
    }
}

fn is_own(listen: Listen, server: SocketAddr) -> bool {
    listen.address == server.ip() && (server.port() == 0 || listen.contains(server.port()))
}
