//! What the balancer said of itself, look after look.

use std::time::{Duration, Instant};

use lb_userspace::api::{ServiceStatus, Status};

/// The span of a share of new connections. The agent counts once a second.
pub const SPAN: Duration = Duration::from_secs(2);

/// Too few new connections to speak of shares.
const TOO_FEW: u64 = 40;

/// All looks, the oldest first.
#[derive(Debug, Default)]
pub struct History(Vec<(Instant, Status)>);

impl History {
    /// Remembers a look.
    pub fn push(&mut self, at: Instant, status: Status) {
        self.0.push((at, status));
    }

    /// The last one.
    pub fn last(&self) -> Option<&Status> {
        self.0.last().map(|(_, status)| status)
    }

    /// Which part of a service's new connections a backend got between `from` and now; nothing as long as
    /// there are few.
    pub fn share_since(&self, service: &str, backend: &str, from: Instant) -> Option<f64> {
        let (_, first) = self.0.iter().find(|(at, _)| *at >= from)?;
        let (first, last) = (find(first, service)?, find(self.last()?, service)?);
        let new = |name: &str| opened(last, name).saturating_sub(opened(first, name));
        let all: u64 = last.backends.iter().map(|backend| new(&backend.name)).sum();
        (all >= TOO_FEW).then(|| new(backend) as f64 / all as f64)
    }

    /// The same over the last [`SPAN`], or since `from` if that is shorter ago.
    pub fn share(&self, service: &str, backend: &str, from: Option<Instant>) -> Option<f64> {
        let (now, _) = self.0.last()?;
        let begin = now.checked_sub(SPAN).unwrap_or(*now);
        self.share_since(service, backend, from.map_or(begin, |from| from.max(begin)))
    }

    /// The highest load that each backend of a service was measured with; nothing where it never was.
    pub fn highest_loads(&self, service: &str) -> Vec<Option<f64>> {
        let mut highest: Vec<Option<f64>> = Vec::new();
        for service in self.0.iter().filter_map(|(_, status)| find(status, service)) {
            highest.resize(service.backends.len(), None);
            for (known, backend) in highest.iter_mut().zip(&service.backends) {
                *known = [*known, backend.load].into_iter().flatten().reduce(f64::max);
            }
        }
        highest
    }

    /// The writers of the first cluster one after the other, as far as looks have caught them.
    pub fn writers(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.0.iter().filter_map(|(_, status)| status.clusters.first()?.writer.clone()).collect();
        names.dedup();
        names
    }
}

/// A service by name.
pub fn find<'a>(status: &'a Status, name: &str) -> Option<&'a ServiceStatus> {
    status.services.iter().find(|service| service.name == name)
}

fn opened(service: &ServiceStatus, backend: &str) -> u64 {
    service.backends.iter().find(|known| known.name == backend).map_or(0, |known| known.opened)
}
