//! Those that the configuration names no more, until their connections have ended.

use std::{collections::BTreeSet, time::Duration};

use super::merge::Leaver;
use crate::{
    agent::{controller::Controller, cuts::CUT_WITHIN, machine::addresses},
    api::{Entry, Topic},
    health::Moment,
    listen::Listen,
};

/// Nobody goes before counts have come in that are newer than the publication which closed the door.
const AT_LEAST: Duration = Duration::from_secs(2);

/// So long one that leaves takes new connections where nobody else can: those that came in its place are probed first.
const STANDS_IN: Duration = Duration::from_secs(10);

/// How somebody leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When it began.
    pub since: Moment,
    /// When the rest of the connections is cut; `None`: they may take for ever.
    pub deadline: Option<Moment>,
}

impl Leaving {
    /// Whether connections that are left are being cut.
    pub fn cuts(&self, now: Moment) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// Whether it may still take new connections, if nobody else can.
    pub fn stands_in(&self, now: Moment) -> bool {
        now.since(self.since) < STANDS_IN && !self.cuts(now)
    }

    /// Whether they have had their time to be cut, too.
    fn is_over(&self, now: Moment) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline + CUT_WITHIN)
    }
}

impl Controller {
    /// Let those go that have no connections left. Called with counts that are newer than the last publication.
    pub(in crate::agent) fn depart(&mut self, now: Moment) {
        if self.leavers.is_empty() {
            return;
        }
        let may_go = |(who, leaving): &(&Leaver, &Leaving)| {
            let rested = now.since(leaving.since) >= AT_LEAST;
            (rested && self.has_ended(who)) || leaving.is_over(now)
        };
        let gone: BTreeSet<Leaver> = self.leavers.iter().filter(may_go).map(|(who, _)| who.clone()).collect();
        for who in &gone {
            let entry = Entry::new(Topic::Reload, self.name_of(who), "no connection is left; it is gone");
            self.journal.record(entry);
        }
        if gone.is_empty() {
            // What they may do changes with time.
            self.publish();
        } else {
            self.rebuild(None, &gone);
        }
    }

    /// Whether nobody has a connection to a leaver any more.
    fn has_ended(&self, who: &Leaver) -> bool {
        let services = || self.config.services.iter();
        match who {
            Leaver::Service(listen) => {
                let service = services().find(|service| service.listen == *listen);
                let servers = service.map(|service| addresses(&self.config, &service.target));
                self.is_settled(*listen)
                    && servers.unwrap_or_default().iter().all(|server| self.live_of(*listen, *server) == 0)
            }
            Leaver::Backend(listen, address) => {
                self.is_settled(*listen) && self.live_of(*listen, *address) == 0
            }
            Leaver::Node(name, address) => {
                let cluster = self.clusters.iter().find(|cluster| cluster.name == *name);
                let serves = cluster.is_some_and(|cluster| {
                    let place = cluster.members.iter().position(|member| member.address == *address);
                    place.is_some() && (cluster.election.writer() == place || cluster.leaving() == place)
                });
                !serves && self.live_at(*address) == 0
            }
        }
    }

    fn live_of(&self, listen: Listen, server: std::net::SocketAddr) -> u64 {
        self.history.last(listen, server).map_or(0, |counts| counts.account.live())
    }

    /// Whether the data path knows each connection of a service, so that none is left where it counts none.
    fn is_settled(&self, listen: Listen) -> bool {
        self.history.unsettled(listen) == 0
    }

    /// A leaver's name, for people.
    fn name_of(&self, who: &Leaver) -> String {
        let service = |listen: &Listen| {
            let known = self.config.services.iter().position(|service| service.listen == *listen);
            known.map(|place| (self.config.services[place].name.clone(), place))
        };
        let name = match who {
            Leaver::Service(listen) => service(listen).map(|(name, _)| format!("{name} ({listen})")),
            Leaver::Backend(listen, address) => service(listen).and_then(|(name, place)| {
                let members = &self.services[place].as_ref()?.members;
                let member = members.iter().find(|member| member.address == *address)?;
                Some(format!("{name}/{} ({address})", member.name))
            }),
            Leaver::Node(name, address) => Some(format!("{name} ({address})")),
        };
        name.unwrap_or_else(|| "?".to_owned())
    }
}
