//! What a backend's own traffic shows of it: events of the data path.
//!
//! They only hasten a probe, which decides.

use std::time::Duration;

use super::{controller::Controller, probers::BackendAt};
use crate::dataplane::{Event, What};

impl Controller {
    /// The data path tells of a connection.
    pub(super) fn heard(&mut self, event: &Event) {
        if !matches!(event.what, What::Refused | What::Unanswered) {
            return;
        }
        let (Some(listen), Some(address)) = (event.service, event.backend) else { return };
        let services = &self.fixed.config.services;
        let Some(service) = services.iter().position(|service| service.listen == listen) else { return };
        let Some(backends) = self.services[service].as_ref() else { return };
        let Some(backend) = backends.members.iter().position(|member| member.address == address) else {
            return;
        };
        if let Some(check) = self.checks.get(&BackendAt { service, backend }) {
            check.after(Duration::ZERO);
        }
    }
}
