//! What operators ask for over the API, and what becomes of it.

use std::{net::SocketAddr, time::Duration};

use super::controller::{Controller, Ended};
use crate::{
    api::{self, Entry, Refusal, RefusalKind, Reply, Then, Topic, Weight},
    health::Admin,
};

impl Controller {
    /// The address of `SERVICE/BACKEND` or `CLUSTER/NODE`.
    pub(super) fn address_of(&self, name: &str) -> Option<SocketAddr> {
        let (owner, member) = name.split_once('/')?;
        if let Some(cluster) = self.clusters.iter().find(|cluster| cluster.name == owner) {
            return Some(cluster.members[cluster.find(member)?].address);
        }
        let index = self.config.services.iter().position(|service| service.name == owner)?;
        let backends = self.services[index].as_ref()?;
        Some(backends.members[backends.find(member)?].address)
    }

    /// Errors: `name` is no name, or nobody's.
    pub(super) fn known(&self, name: &str) -> Result<(), Refusal> {
        if !name.contains('/') {
            let error = format!("`{name}` is no OWNER/NAME");
            return Err(refusal(RefusalKind::BadInput, &error, "`lb status` shows them"));
        }
        self.address_of(name).map(|_| ()).ok_or_else(|| unknown(name))
    }

    /// Do what an operator wants, and answer.
    pub(super) async fn request(&mut self, request: api::Request) -> Option<Ended> {
        let reply = match request.command {
            api::Command::Status => {
                self.count().await;
                Reply::Status(Box::new(self.report()))
            }
            api::Command::Confirm => match self.confirm.take() {
                Some(_) => {
                    self.journal.record(Entry::new(Topic::Agent, "", "confirmed: the agent stays"));
                    Reply::Done { message: "confirmed: the agent stays".to_owned() }
                }
                None => refused(
                    RefusalKind::Conflict,
                    "nothing waits to be confirmed",
                    "`lb run --confirm 60s` starts an agent that does",
                ),
            },
            api::Command::Events(wanted) => match request.entries {
                Some(entries) => {
                    self.journal.follow(&wanted, entries);
                    Reply::Done { message: String::new() }
                }
                None => refused(RefusalKind::BadInput, "there is nobody to tell", ""),
            },
            api::Command::Explain(wanted) => {
                self.count().await;
                self.explain(&wanted.name)
            }
            api::Command::Capture(wanted) => {
                self.capture(&wanted, request.lines, request.reply);
                return None;
            }
            api::Command::Trace(wanted) => {
                self.trace(&wanted, request.reply);
                return None;
            }
            api::Command::Diff(asked) => self.compare(asked.path.as_ref()).await,
            api::Command::Detach => {
                log::info!("detaching, as an operator wants");
                return Some(Ended::Detach(Some(request.reply)));
            }
            command => {
                // What is counted now says how many connections are left.
                self.count().await;
                let reply = self.change(command).await;
                self.published().await;
                reply
            }
        };
        // A client that has gone needs no answer.
        let _ = request.reply.send(reply);
        None
    }

    /// Do what changes something; whoever asks for it is answered when the data path knows.
    async fn change(&mut self, command: api::Command) -> Reply {
        match command {
            api::Command::Drain(api::Drain { deadline_ms: None, then: Then::Cut, .. }) => {
                let hint = "add a deadline, or `lb cut` at once";
                refused(RefusalKind::BadInput, "a drain without a deadline never cuts", hint)
            }
            api::Command::Drain(drain) => {
                let deadline = drain.deadline_ms.map(Duration::from_millis);
                let deadline = deadline.map(|within| (within, drain.then));
                self.administer(&drain.name, Admin::Drain, deadline)
            }
            api::Command::Cut(cut) => self.cut(&cut.name),
            api::Command::Ready(ready) => self.administer(&ready.name, Admin::Ready, None),
            api::Command::Maint(maint) => self.administer(&maint.name, Admin::Maintenance, None),
            api::Command::Weight(asked) => self.weigh(&asked.name, asked.weight),
            api::Command::Reload(asked) => {
                self.reload("`lb reload`", asked.deadline_ms.map(Duration::from_millis)).await
            }
            api::Command::Switch(wanted) => self.switch(&wanted),
            api::Command::Freeze(wanted) => self.freeze(&wanted),
            api::Command::Accept(wanted) => self.accept(&wanted),
            // All others are answered without a change.
            other => refused(RefusalKind::Failed, &format!("{other:?} changes nothing"), ""),
        }
    }

    /// Wait until the data path has done what it was told: whoever asked may rely on it when he is answered.
    async fn published(&mut self) {
        // It takes its commands one after the other.
        self.count().await;
    }

    fn administer(&mut self, name: &str, admin: Admin, deadline: Option<(Duration, Then)>) -> Reply {
        if let Err(refusal) = self.known(name) {
            return Reply::Refused(refusal);
        }
        let (owner, member) = name.split_once('/').unwrap_or((name, ""));
        let cluster = self.clusters.iter().position(|cluster| cluster.name == owner);
        match cluster {
            Some(index) => self.administer_node(index, member, admin),
            None => self.administer_backend(owner, member, admin),
        }
        let message = match admin {
            Admin::Maintenance => {
                // The last word counts.
                self.state.drained.remove(name);
                self.set_deadline(name, None);
                self.state.maintenance.insert(name.to_owned());
                let left = self.live(name);
                format!(
                    "{name} is in maintenance: no new connections whatever its probes say; {left} are left"
                )
            }
            Admin::Drain => {
                self.state.maintenance.remove(name);
                self.state.drained.insert(name.to_owned());
                self.set_deadline(name, deadline);
                let left = self.live(name);
                if cluster.is_some() {
                    format!(
                        "{name} hands its role over as soon as another node can take it; {left} connections are left"
                    )
                } else {
                    format!("{name} takes no new connections; {left} are left")
                }
            }
            Admin::Ready => {
                self.state.drained.remove(name);
                self.state.maintenance.remove(name);
                self.set_deadline(name, None);
                self.cuts.remove(name);
                format!("{name} takes new connections when it is healthy")
            }
        };
        self.journal.record(Entry::new(Topic::Operator, name, told(name, &message)));
        self.store();
        self.publish();
        Reply::Done { message }
    }

    fn administer_node(&mut self, cluster: usize, member: &str, admin: Admin) {
        let Some(node) = self.clusters[cluster].find(member) else { return };
        let member = &mut self.clusters[cluster].members[node];
        if !member.leaves {
            member.admin = admin;
            member.hasten(Duration::ZERO);
        }
    }

    fn administer_backend(&mut self, service: &str, member: &str, admin: Admin) {
        let now = self.now();
        let service = self.config.services.iter().position(|known| known.name == service);
        let Some(backends) = service.and_then(|service| self.services[service].as_mut()) else { return };
        let Some(backend) = backends.find(member) else { return };
        if !backends.members[backend].leaves {
            backends.administer(backend, admin, now);
            backends.step(now);
        }
    }

    /// `lb weight`: a backend weighs something else than the configuration says, or that again.
    fn weigh(&mut self, name: &str, weight: Option<Weight>) -> Reply {
        if let Err(refusal) = self.known(name) {
            return Reply::Refused(refusal);
        }
        let now = self.now();
        let (owner, member) = name.split_once('/').unwrap_or((name, ""));
        let service = self.config.services.iter().position(|known| known.name == owner);
        let Some(backends) = service.and_then(|service| self.services[service].as_mut()) else {
            let hint = "`priority` in the configuration says which node is to write";
            return refused(
                RefusalKind::Conflict,
                &format!("{name}: nodes of a cluster have no weight"),
                hint,
            );
        };
        let Some(place) = backends.find(member) else { return Reply::Refused(unknown(name)) };
        backends.set_weight(place, weight, now);
        backends.step(now);
        let (asked, configured) = (backends.members[place].asked(), backends.members[place].configured);
        let message = if let Some(weight) = weight {
            self.state.weights.insert(name.to_owned(), weight);
            format!("{name} weighs {asked} (set at run time; configured {configured})")
        } else {
            self.state.weights.remove(name);
            format!("{name} weighs {configured} as configured")
        };
        self.journal.record(Entry::new(Topic::Weight, name, told(name, &message)));
        self.store();
        self.publish();
        Reply::Done { message }
    }
}

fn unknown(name: &str) -> Refusal {
    let error = format!("there is no {name} here");
    refusal(RefusalKind::NotFound, &error, "`lb status` shows what there is")
}

/// What follows the name in a message that begins with it.
fn told<'a>(name: &str, message: &'a str) -> &'a str {
    message.strip_prefix(name).unwrap_or(message).trim_start_matches([':', ' '])
}

pub(super) fn refusal(kind: RefusalKind, error: &str, hint: &str) -> Refusal {
    Refusal { kind, error: error.to_owned(), hint: hint.to_owned() }
}

pub(super) fn refused(kind: RefusalKind, error: &str, hint: &str) -> Reply {
    Reply::Refused(refusal(kind, error, hint))
}
