//! What follows from an answer: of a probe, of a load page, of a database node.

use std::time::Instant;

use super::{
    controller::Controller,
    keys::Key,
    probers::{BackendAt, NodeAt},
    services::hastened,
};
use crate::{
    health::Moment,
    probe::{Failure, galera::Sample, php_fpm},
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
        let Some(step) = backends.checked(place, result, begun, now) else { return };
        let service = &self.config.services[index].name;
        let backend = &backends.members[place];
        if let Some(after) = hastened(&step) {
            backend.hasten(after);
        }
        if let Some(change) = &step.changed {
            log::info!("{service}/{}: {} → {}: {}", backend.name, change.from, change.to, change.reason);
        }
        if let Some(sentence) = backends.panic_changed() {
            log::warn!("{service}: {sentence}");
        }
        if self.step(index, now) {
            self.publish();
        }
    }

    /// A backend's load was sampled.
    pub(super) fn loaded(&mut self, at: BackendAt, result: &Result<php_fpm::Status, Failure>) {
        let now = self.now();
        let Some(index) = self.place(at.service) else { return };
        let Some(backends) = self.services[index].as_mut() else { return };
        let Some(place) = backends.place(at.backend) else { return };
        let backend = &mut backends.members[place];
        // A load that cannot be read is said once, not once a second.
        if backend.quiet.replace(result.is_err()) != Some(result.is_err())
            && let Err(failure) = result
        {
            let (service, name) = (&self.config.services[index].name, &backend.name);
            log::warn!("{service}/{name}: no load: {failure}; its weight returns to the configured one");
        }
        if let Ok(status) = result {
            backends.loaded(place, status, now);
        }
    }
}
