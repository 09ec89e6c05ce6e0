//! Ending connections: at once by `lb cut`, or when a drain's deadline has passed.
//!
//! A cut is a moment, not a state: a backend that is not drained takes new connections again as soon as none of the old
//! ones is left. Until then it takes none, for the data path could not tell the two apart.

use std::{net::SocketAddr, time::Duration};

use super::{controller::Controller, machine::addresses};
use crate::{
    api::{Entry, Reply, Then, Timestamp, Topic},
    config::{Service, Target, Track},
    health::Moment,
};

/// A cut has ended when no connection has gone for this long: a silent peer is asked four times in two seconds, and
/// what does not answer then has no connection any more.
pub const CUT_WITHIN: Duration = Duration::from_secs(10);

/// A backend whose connections are being ended.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// How many are left.
    left: u64,
    /// Until when at most, if none goes.
    until: Moment,
}

/// When the rest of a drained backend's connections is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Deadline {
    /// The time of day, so that it means the same to the next agent.
    pub at: Timestamp,
    /// What becomes of them.
    pub then: Then,
}

impl Controller {
    /// Whether the connections of `owner/member` are being ended.
    pub(super) fn is_cut(&self, owner: &str, member: &str) -> bool {
        !self.cuts.is_empty() && self.cuts.contains_key(&format!("{owner}/{member}"))
    }

    /// `lb cut`: the answer says how many connections end.
    pub(super) fn cut(&mut self, name: &str) -> Reply {
        if let Err(refusal) = self.known(name) {
            return Reply::Refused(refusal);
        }
        let left = self.begin_cut(name);
        let message = format!("{name}: {left} connections are cut");
        self.journal.record(
            Entry::new(Topic::Cut, name, format!("{left} connections are cut"))
                .because("an operator wants it"),
        );
        Reply::Done { message }
    }

    /// End the connections of `name`; how many there are.
    fn begin_cut(&mut self, name: &str) -> u64 {
        let left = self.live(name);
        if left > 0 || !self.counts(name) {
            let cut = Cut { left, until: self.now() + CUT_WITHIN };
            self.cuts.insert(name.to_owned(), cut);
            self.publish();
        }
        left
    }

    /// Whether the data path knows each connection of `name`, so that none is left when it counts none.
    fn counts(&self, name: &str) -> bool {
        self.services_of(name).all(|service| service.track == Track::Always)
    }

    /// Called with counts that are newer than the cuts. A drained backend stays cut: nothing is lost by it, and stragglers are met.
    pub(super) fn end_cuts(&mut self, now: Moment) {
        let mut cuts = std::mem::take(&mut self.cuts);
        let mut over = Vec::new();
        for (name, cut) in &mut cuts {
            let left = self.live(name);
            if left < cut.left {
                // Tens of thousands take longer than the last of them may.
                *cut = Cut { left, until: now + CUT_WITHIN };
            }
            let gone = left == 0 && self.counts(name);
            if !self.state.drained.contains(name) && (gone || now >= cut.until) {
                over.push(name.clone());
            }
        }
        self.cuts = cuts;
        for name in &over {
            self.cuts.remove(name);
            let entry = |what: String| Entry::new(Topic::Cut, name, what);
            let entry = match self.live(name) {
                0 => entry("all connections are cut".to_owned()),
                left => entry(format!("{left} connections could not be cut")).warning(),
            };
            self.journal.record(entry);
        }
        if !over.is_empty() {
            self.publish();
        }
    }

    /// Begin or forget a drain's deadline.
    pub(super) fn set_deadline(&mut self, name: &str, deadline: Option<(Duration, Then)>) {
        match deadline.and_then(|(within, then)| Some((Timestamp::now().checked_add(within).ok()?, then))) {
            Some((at, then)) => self.state.deadlines.insert(name.to_owned(), Deadline { at, then }),
            None => self.state.deadlines.remove(name),
        };
    }

    /// Cut or name what is left of drains whose deadline has passed.
    pub(super) fn deadlines_passed(&mut self) {
        let now = Timestamp::now();
        let passed: Vec<(String, Then)> = self
            .state
            .deadlines
            .iter()
            .filter(|(_, deadline)| now >= deadline.at)
            .map(|(name, deadline)| (name.clone(), deadline.then))
            .collect();
        for (name, then) in &passed {
            self.state.deadlines.remove(name);
            match (then, self.live(name)) {
                (Then::Cut, _) => {
                    let left = self.begin_cut(name);
                    let what = format!("the drain's deadline has passed; {left} connections are cut");
                    self.journal.record(Entry::new(Topic::Cut, name, what));
                }
                (Then::Keep, 0) => {}
                (Then::Keep, left) => {
                    let what = format!(
                        "the drain's deadline has passed with {left} connections left; they are kept"
                    );
                    self.journal.record(Entry::new(Topic::Operator, name, what).warning());
                }
            }
        }
        if !passed.is_empty() {
            self.store();
        }
    }

    /// Live connections of a backend, or of a node over all its services.
    pub(super) fn live(&self, name: &str) -> u64 {
        let Some(address) = self.address_of(name) else { return 0 };
        let accounts =
            self.services_of(name).filter_map(|service| self.history.last(service.listen, address));
        accounts.map(|counts| counts.account.live()).sum()
    }

    /// Live connections of a server, whichever services they came by.
    pub(super) fn live_at(&self, server: SocketAddr) -> u64 {
        let config = &self.config;
        let services =
            config.services.iter().filter(|known| addresses(config, &known.target).contains(&server));
        let accounts = services.filter_map(|service| self.history.last(service.listen, server));
        accounts.map(|counts| counts.account.live()).sum()
    }

    /// The services that `SERVICE/BACKEND` or `CLUSTER/NODE` serves.
    fn services_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Service> {
        let owner = name.split_once('/').map_or(name, |(owner, _)| owner);
        self.config.services.iter().filter(move |service| match &service.target {
            Target::Backends { .. } => service.name == owner,
            Target::Cluster { cluster, .. } => cluster == owner,
        })
    }
}
