//! What operators ask for over the API, and what becomes of it.

use std::{net::SocketAddr, time::Duration};

use super::{
    controller::{Controller, Ended},
    probers::NodeAt,
};
use crate::{
    api::{self, Refusal, RefusalKind, Reply},
    config::Target,
    health::{Admin, Moment},
};

impl Controller {
    /// Say which drains have not ended in time.
    pub(super) fn deadlines_passed(&mut self, now: Moment) {
        let passed: Vec<String> =
            self.deadlines.iter().filter(|(_, at)| now >= **at).map(|(name, _)| name.clone()).collect();
        for name in passed {
            self.deadlines.remove(&name);
            let left = self.live(&name);
            if left > 0 {
                log::warn!(
                    "{name}: the drain's deadline has passed with {left} connections left; they are kept"
                );
            }
        }
    }

    /// Live connections of a backend, or of a node over all its services.
    fn live(&self, name: &str) -> u64 {
        let Some((owner, member)) = name.split_once('/') else { return 0 };
        let address = self.address_of(owner, member);
        let services = self.fixed.config.services.iter().filter(|service| match &service.target {
            Target::Backends { .. } => service.name == owner,
            Target::Cluster { cluster, .. } => cluster == owner,
        });
        services.filter_map(|service| Some(self.history.last(service.listen, address?)?.account.live())).sum()
    }

    fn address_of(&self, owner: &str, member: &str) -> Option<SocketAddr> {
        if let Some(cluster) = self.clusters.iter().find(|cluster| cluster.name == owner) {
            return Some(cluster.members[cluster.find(member)?].address);
        }
        let index = self.fixed.config.services.iter().position(|service| service.name == owner)?;
        let backends = self.services[index].as_ref()?;
        Some(backends.members[backends.find(member)?].address)
    }

    /// Do what an operator wants, and answer.
    pub(super) async fn request(&mut self, request: api::Request) -> Option<Ended> {
        let reply = match request.command {
            api::Command::Status => {
                self.count().await;
                Reply::Status(Box::new(self.report()))
            }
            api::Command::Drain(drain) => {
                let deadline = drain.deadline_ms.map(Duration::from_millis);
                self.administer(&drain.name, Admin::Drain, deadline)
            }
            api::Command::Ready(ready) => self.administer(&ready.name, Admin::Ready, None),
            api::Command::Confirm => match self.confirm.take() {
                Some(_) => {
                    log::info!("confirmed: the agent stays");
                    Reply::Done { message: "confirmed: the agent stays".to_owned() }
                }
                None => refused(
                    RefusalKind::Conflict,
                    "nothing waits to be confirmed",
                    "`lb run --confirm 60s` starts an agent that does",
                ),
            },
            api::Command::Detach => {
                log::info!("detaching, as an operator wants");
                return Some(Ended::Detach(Some(request.reply)));
            }
        };
        // A client that has gone needs no answer.
        let _ = request.reply.send(reply);
        None
    }

    fn administer(&mut self, name: &str, admin: Admin, deadline: Option<Duration>) -> Reply {
        let now = self.now();
        let Some((owner, member)) = name.split_once('/') else {
            return refused(
                RefusalKind::BadInput,
                &format!("`{name}` is no OWNER/NAME"),
                "`lb status` shows them",
            );
        };
        let unknown = || {
            refused(
                RefusalKind::NotFound,
                &format!("there is no {name} here"),
                "`lb status` shows what there is",
            )
        };
        if let Some(index) = self.clusters.iter().position(|cluster| cluster.name == owner) {
            let Some(node) = self.clusters[index].find(member) else { return unknown() };
            self.clusters[index].members[node].admin = admin;
            if let Some(task) = self.nodes.get(&NodeAt { cluster: index, node }) {
                task.after(Duration::ZERO);
            }
        } else {
            let service = self.fixed.config.services.iter().position(|service| service.name == owner);
            let backends = service.and_then(|service| self.services[service].as_mut());
            let Some(backends) = backends else { return unknown() };
            let Some(backend) = backends.find(member) else { return unknown() };
            backends.administer(backend, admin, now);
            backends.step(now);
        }
        let message = match admin {
            Admin::Drain => {
                self.state.drained.insert(name.to_owned());
                if let Some(deadline) = deadline {
                    self.deadlines.insert(name.to_owned(), now + deadline);
                }
                let left = self.live(name);
                if self.clusters.iter().any(|cluster| cluster.name == owner) {
                    format!(
                        "{name} hands its role over as soon as another node can take it; {left} connections are left"
                    )
                } else {
                    format!("{name} takes no new connections; {left} are left")
                }
            }
            Admin::Ready => {
                self.state.drained.remove(name);
                self.deadlines.remove(name);
                format!("{name} takes new connections when it is healthy")
            }
        };
        log::info!("{message}");
        self.store();
        self.publish();
        Reply::Done { message }
    }
}

fn refused(kind: RefusalKind, error: &str, hint: &str) -> Reply {
    Reply::Refused(Refusal { kind, error: error.to_owned(), hint: hint.to_owned() })
}
