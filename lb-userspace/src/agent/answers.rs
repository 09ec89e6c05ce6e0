//! What follows from an answer: of a probe, of a load page, of a database node.

use std::time::Instant;

use super::{
    controller::Controller,
    decisions::seen,
    keys::Key,
    probers::{BackendAt, Measured, NodeAt},
    services::hastened,
};
use crate::{
    api::{Entry, Topic},
    config::{Load, LoadKind, Target},
    health::Moment,
    probe::{Failure, galera::Sample},
};

impl Controller {
    /// The place of a service by what its probes call it.
    fn place(&self, service: Key) -> Option<usize> {
        self.services.iter().position(|known| known.as_ref().is_some_and(|known| known.key == service))
    }

    /// A database node has answered, or has not.
    pub(super) async fn sampled(&mut self, at: NodeAt, result: Result<Box<Sample>, Failure>) {
        let (now, answered) = (self.now(), result.is_ok());
        let Some(index) = self.clusters.iter().position(|cluster| cluster.key == at.cluster) else { return };
        let cluster = &mut self.clusters[index];
        let Some(node) = cluster.place(at.node) else { return };
        let name = format!("{}/{}", cluster.name, cluster.members[node].name);
        self.journal.probed(&name, result.as_ref().map(|sample| seen(sample)));
        let former = cluster.election.writer();
        let outcome = cluster.sampled(node, result, now);
        self.elected(index, former, &outcome);
        if answered {
            // Counts as old as the sample, or a burst would look like somebody else's connections.
            self.count().await;
            let server = self.clusters[index].members[node].address;
            let ours = self.live_at(server);
            if self.clusters[index].members[node].learn_limit(ours) {
                self.publish();
            }
        }
    }

    /// A backend's health was probed.
    pub(super) fn checked(&mut self, at: BackendAt, begun: Instant, result: Result<(), Failure>) {
        let now = self.now();
        let begun = Moment::at(begun.saturating_duration_since(self.fixed.origin));
        let Some(index) = self.place(at.service) else { return };
        let Some(backends) = self.services[index].as_mut() else { return };
        let Some(place) = backends.place(at.backend) else { return };
        let service = &self.config.services[index].name;
        let name = format!("{service}/{}", backends.members[place].name);
        self.journal.probed(&name, result.as_ref().map(|()| "it answered well".to_owned()));
        let step = backends.checked(place, result, begun, now);
        let backend = &backends.members[place];
        if let Some(after) = step.as_ref().and_then(hastened) {
            backend.hasten(after);
        }
        if let Some(change) = step.as_ref().and_then(|step| step.changed.as_ref()) {
            let answer = self.journal.answer(&name).map(|answer| format!("last probe: {}", answer.text));
            let entry = Entry::new(Topic::Health, name, format!("{} → {}", change.from, change.to));
            self.journal.record(entry.because(&*change.reason).shown_by(answer.unwrap_or_default()));
        }
        if !backends.stirred() {
            return;
        }
        if let Some(sentence) = backends.panic_changed() {
            self.journal.record(Entry::new(Topic::Health, service, sentence).warning());
        }
        if self.step(index, now) {
            self.publish();
        }
    }

    /// A backend's load was sampled.
    pub(super) fn loaded(&mut self, at: BackendAt, result: Result<Measured, Failure>) {
        let now = self.now();
        let Some(index) = self.place(at.service) else { return };
        let Some(backends) = self.services[index].as_mut() else { return };
        let Some(place) = backends.place(at.backend) else { return };
        let backend = &mut backends.members[place];
        // A load that cannot be read is said once, not once a second.
        if backend.quiet.replace(result.is_err()) != Some(result.is_err())
            && let Err(failure) = &result
        {
            let service = &self.config.services[index];
            let then = match &service.target {
                Target::Backends { load: Some(Load { kind: LoadKind::AgentCheck { .. }, .. }), .. } => {
                    "what it has ordered stands until its lease ends"
                }
                _ => "its weight returns to the configured one",
            };
            let name = format!("{}/{}", service.name, backend.name);
            let reason = format!("{failure}; {then}");
            self.journal.record(Entry::new(Topic::Load, name, "no load").because(reason).warning());
        }
        match result {
            Ok(Measured::PhpFpm(status)) => backends.loaded(place, &status, now),
            Ok(Measured::Utilisation(utilisation)) => backends.utilised(place, utilisation, now),
            Ok(Measured::Orders(orders)) => backends.ordered(place, orders, now),
            Err(_) => {}
        }
        if backends.stirred() && self.step(index, now) {
            self.publish();
        }
    }
}
