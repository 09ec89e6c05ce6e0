//! What a backend's own traffic shows of it: events of the data path.
//!
//! A backend whose traffic shows that it is dead is *suspected* ([`Suspicion`](crate::health::Suspicion)): it takes no
//! new connections until the probe that is sent at once has decided. A database node is not: its monitor is hastened,
//! and the election decides.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::{
    controller::Controller,
    services::{Backend, Backends},
};
use crate::{
    api::{Entry, Topic},
    config::Target,
    dataplane::{Event, What},
    health::{Consequence, Moment, Sign},
};

/// Whom an event is about, by their places.
enum About {
    Backend { service: usize, backend: usize },
    Node { cluster: usize, node: usize },
}

impl Controller {
    /// The data path tells of a connection.
    pub(super) fn heard(&mut self, event: &Event) {
        let sign = match event.what {
            What::Refused => Sign::Refused,
            What::Unanswered => Sign::Unanswered(event.client.ip()),
            What::Answered { .. } => Sign::Answered,
            What::Pressure { .. } => return self.pressed(event),
            What::Cut { .. } => return,
        };
        let took = match event.what {
            What::Answered { micros } => Some(Duration::from_micros(micros.into())),
            _ => None,
        };
        match self.about(event) {
            Some(About::Backend { service, backend }) => {
                self.heard_of_backend((service, backend), sign, took);
            }
            Some(About::Node { cluster, node }) => self.heard_of_node((cluster, node), sign, took),
            None => {}
        }
    }

    /// Whom an event is about; `None`: of somebody who has gone meanwhile.
    fn about(&self, event: &Event) -> Option<About> {
        let (listen, address) = (event.service?, event.backend?);
        let services = &self.config.services;
        let service = services.iter().position(|service| service.listen == listen)?;
        match &services[service].target {
            Target::Backends { .. } => {
                let members = &self.services[service].as_ref()?.members;
                let backend = members.iter().position(|member| member.address == address)?;
                Some(About::Backend { service, backend })
            }
            Target::Cluster { cluster, .. } => {
                let cluster = self.clusters.iter().position(|known| known.name == *cluster)?;
                let members = &self.clusters[cluster].members;
                let node = members.iter().position(|member| member.address == address)?;
                Some(About::Node { cluster, node })
            }
        }
    }

    fn heard_of_backend(&mut self, at: (usize, usize), sign: Sign, took: Option<Duration>) {
        let (now, (index, backend)) = (self.now(), at);
        let service = &self.config.services[index].name;
        let Some(backends) = self.services[index].as_ref() else { return };
        // What is being cut takes nothing new, and a backend without a way cannot stand in for another.
        let takes = |backend: &Backend| {
            !self.is_cut(service, &backend.name) && self.ways.contains_key(&backend.address.ip())
        };
        let takes: Vec<bool> = backends.members.iter().map(takes).collect();
        let Some(backends) = self.services[index].as_mut() else { return };
        if let Some(took) = took {
            backends.members[backend].handshakes.observe(took, now);
        }
        let consequence = backends.heard(backend, sign, &takes, now);
        if consequence == Consequence::Nothing {
            return;
        }
        backends.members[backend].hasten(Duration::ZERO);
        if self.step(index, now) {
            self.publish();
        }
    }

    fn heard_of_node(&mut self, (cluster, node): (usize, usize), sign: Sign, took: Option<Duration>) {
        let now = self.now();
        let member = &mut self.clusters[cluster].members[node];
        if let Some(took) = took {
            member.handshakes.observe(took, now);
        }
        // The election knows whether anybody could take its place; here nobody can.
        if member.suspicion.hear(sign, false, now) != Consequence::Nothing {
            member.hasten(Duration::ZERO);
        }
    }

    fn pressed(&mut self, event: &Event) {
        let (What::Pressure { reason }, now) = (event.what, self.now()) else { return };
        let services = &self.config.services;
        let service = services.iter().find(|service| Some(service.listen) == event.service);
        let service = service.map_or("?", |service| &service.name);
        if let Some(line) = self.pressure.heard(reason, service, event.backend, now) {
            self.journal.record(Entry::new(Topic::Alarm, "", line).warning());
        }
    }

    /// Let a service's weights step, and log what has become of suspicions; whether there is anything to publish.
    pub(super) fn step(&mut self, service: usize, now: Moment) -> bool {
        let Some(backends) = self.services[service].as_mut() else { return false };
        let changed = backends.step(now);
        let news = std::mem::take(&mut backends.news);
        let owner = &self.config.services[service].name;
        for sentence in &news {
            let (backend, what) = sentence.split_once(": ").unwrap_or(("?", sentence));
            let entry = Entry::new(Topic::Suspicion, format!("{owner}/{backend}"), what);
            self.journal.record(entry.warning());
        }
        changed || !news.is_empty()
    }
}

impl Backends {
    /// The data path has seen something of a backend. `takes` says of each one whether anything else than its health
    /// keeps it from taking new connections.
    pub fn heard(&mut self, index: usize, sign: Sign, takes: &[bool], now: Moment) -> Consequence {
        let stands_in = |(at, (other, takes)): (usize, (&Backend, &bool))| {
            at != index && *takes && other.serves() && other.suspicion.evidence().is_none()
        };
        let others = self.members.iter().zip(takes).enumerate().any(stands_in);
        let Some(backend) = self.members.get_mut(index) else { return Consequence::Nothing };
        if !backend.serves() || !takes[index] {
            return Consequence::Nothing;
        }
        let consequence = backend.suspicion.hear(sign, others, now);
        if let Consequence::Suspect(evidence) = consequence {
            backend.suspected_at = jiff::Timestamp::now();
            let name = &backend.name;
            self.news.push(format!(
                "{name}: suspected: {evidence}; takes no new connections until its probe has decided"
            ));
        }
        consequence
    }

    /// The weight at which each backend is offered to new connections, in the order of [`members`](Self::members): what is
    /// suspected is not, unless all others have gone since.
    pub fn offered(&self) -> impl Iterator<Item = u32> + '_ {
        let suspected = |backend: &Backend| backend.suspicion.evidence().is_some();
        let others = self.members.iter().any(|backend| backend.serves() && !suspected(backend));
        let offered = move |backend: &Backend| if others && suspected(backend) { 0 } else { backend.weight };
        self.members.iter().map(offered)
    }

    /// End the suspicions whose time is over.
    pub(super) fn expire_suspicions(&mut self, now: Moment) {
        for backend in &mut self.members {
            if backend.suspicion.expire(now) {
                let name = &backend.name;
                self.news.push(format!(
                    "{name}: no probe has decided within an interval, so it is not suspected any more"
                ));
            }
        }
    }
}

impl Backend {
    /// Whether it takes new connections, suspicion apart.
    fn serves(&self) -> bool {
        self.takes_new && self.admin.takes_new() && self.weight > 0
    }

    /// Why it is as it is: a suspicion comes before what its probes have said.
    pub fn reason(&self) -> String {
        match self.suspicion.evidence() {
            Some(evidence) => {
                let at = self.suspected_at.to_zoned(TimeZone::system());
                format!("suspected: {evidence} at {}", at.strftime("%H:%M:%S%.3f"))
            }
            None => match self.orders.in_words() {
                Some(orders) => format!("{}; its agent orders: {orders}", self.health.reason()),
                None => self.health.reason().to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        agent::services::{hastened, tests::service},
        health::{Admin, Evidence, State},
        probe::{Failure, FailureKind},
    };

    const SUSPECTED: Consequence = Consequence::Suspect(Evidence::Refused);

    fn at(millis: u64) -> Moment {
        Moment::at(Duration::from_millis(millis))
    }

    fn failed(kind: FailureKind) -> Result<(), Failure> {
        Err(Failure { kind, detail: String::new() })
    }

    /// Who is offered, a letter each.
    fn offered(service: &Backends) -> String {
        service.offered().map(|weight| if weight > 0 { 'u' } else { '-' }).collect()
    }

    fn refuse(service: &mut Backends, index: usize, now: Moment) -> Consequence {
        let takes = vec![true; service.members.len()];
        service.heard(index, Sign::Refused, &takes, now)
    }

    #[test]
    fn a_suspected_backend_is_not_offered_until_its_probe_has_decided() {
        for (probes, state, then) in [
            (vec![(5, Ok(()))], State::Up, "uuu"),
            // Under way before the refusal.
            (vec![(4, Ok(()))], State::Up, "-uu"),
            (vec![(4, Ok(())), (6, Ok(()))], State::Up, "uuu"),
            // Health has its own way to keep it out, and to confirm.
            (vec![(5, failed(FailureKind::Refused))], State::Up, "-uu"),
            (
                vec![(5, failed(FailureKind::Refused)), (255, failed(FailureKind::Refused))],
                State::Down,
                "-uu",
            ),
            // Doubtful failures have to add up as ever, and it stays out meanwhile.
            (vec![(5, failed(FailureKind::TimedOut))], State::Up, "-uu"),
            (vec![(5, failed(FailureKind::TimedOut)), (255, Ok(()))], State::Up, "uuu"),
            (vec![(5, failed(FailureKind::TimedOut)); 3], State::Down, "-uu"),
        ] {
            let mut service = service(3);
            assert_eq!(refuse(&mut service, 0, at(5)), SUSPECTED);
            assert_eq!(offered(&service), "-uu");
            let what = format!("{probes:?}");
            for (begun, result) in probes {
                service.checked(0, result, at(begun), at(begun + 1));
                service.step(at(begun + 1));
            }
            assert_eq!((service.members[0].health.state(), &*offered(&service)), (state, then), "{what}");
        }
    }

    #[test]
    fn a_suspicion_is_told_in_words_and_so_is_its_end() {
        let mut service = service(2);
        service.news.clear();
        assert_eq!(refuse(&mut service, 0, at(5)), SUSPECTED);
        let reason = service.members[0].reason();
        assert!(reason.starts_with("suspected: refused a connection at "), "{reason}");
        service.checked(0, Ok(()), at(6), at(7));
        assert_eq!(service.members[0].reason(), "probe succeeded");
        assert_eq!(
            service.news,
            [
                "web1: suspected: refused a connection; takes no new connections until its probe has decided",
                "web1: its probe succeeded, so it is not suspected any more",
            ]
        );
    }

    #[test]
    fn a_suspected_backend_whose_probe_fails_doubtfully_is_probed_on_without_waiting_for_an_interval() {
        for (kind, next) in [
            (FailureKind::TimedOut, Some(0)),
            (FailureKind::BadStatus, Some(250)),
            (FailureKind::Refused, Some(250)),
        ] {
            let mut service = service(2);
            let unsuspected = service.checked(1, failed(FailureKind::TimedOut), at(1), at(2)).unwrap();
            assert_eq!(hastened(&unsuspected), None);
            assert_eq!(refuse(&mut service, 0, at(5)), SUSPECTED);
            let step = service.checked(0, failed(kind), at(5), at(6)).unwrap();
            assert_eq!(hastened(&step), next.map(Duration::from_millis), "{kind:?}");
        }
    }

    #[test]
    fn a_suspicion_without_a_word_of_a_probe_ends_after_an_interval() {
        let mut service = service(2);
        assert_eq!(refuse(&mut service, 0, at(5)), SUSPECTED);
        // The agent's own trouble decides nothing.
        assert_eq!(service.checked(0, failed(FailureKind::Local), at(6), at(7)), None);
        service.step(at(1_004));
        assert_eq!(offered(&service), "-u");
        service.step(at(1_005));
        assert_eq!(offered(&service), "uu");
    }

    #[test]
    fn the_last_backend_that_could_serve_is_never_without_connections() {
        let mut service = service(3);
        assert_eq!(refuse(&mut service, 0, at(1)), SUSPECTED);
        assert_eq!(refuse(&mut service, 1, at(2)), SUSPECTED);
        assert_eq!(refuse(&mut service, 2, at(3)), Consequence::Probe);
        assert_eq!(offered(&service), "--u");
        // The last unsuspected one goes down after all: suspects are better than nobody.
        service.checked(2, failed(FailureKind::Refused), at(4), at(5));
        service.step(at(5));
        assert_eq!(offered(&service), "uu-");
    }

    #[test]
    fn what_is_drained_cut_down_or_without_a_way_neither_is_suspected_nor_stands_in() {
        let out: [fn(&mut Backends); 3] = [
            |service| service.administer(1, Admin::Drain, at(1)),
            |service| {
                service.checked(1, failed(FailureKind::Refused), at(1), at(1));
            },
            |service| service.members[1].weight = 0,
        ];
        for (number, out) in out.iter().enumerate() {
            let mut service = service(2);
            out(&mut service);
            assert_eq!(refuse(&mut service, 1, at(2)), Consequence::Nothing, "{number}");
            assert_eq!(refuse(&mut service, 0, at(2)), Consequence::Probe, "{number}");
        }
        // Cut, or without a way.
        let mut service = service(2);
        let takes = [true, false];
        assert_eq!(service.heard(1, Sign::Refused, &takes, at(2)), Consequence::Nothing);
        assert_eq!(service.heard(0, Sign::Refused, &takes, at(2)), Consequence::Probe);
    }
}
