//! What only the whole file shows: names and addresses used twice, clusters that are not there, limits.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddrV4;

use lb_common::{MAX_BACKENDS, MAX_SERVICES};

use super::report::Report;
use super::table::{Marked, nearest};
use super::value::Fault;

// Id 0 of both is nobody's.
const MOST_SERVICES: usize = MAX_SERVICES as usize - 1;
const MOST_BACKENDS: usize = MAX_BACKENDS as usize - 1;

/// What has been read so far, with the offset of its first appearance. Clusters are read before services.
#[derive(Default)]
pub(super) struct Seen {
    /// Services and clusters share one name space: `lb drain NAME/MEMBER` must mean one thing.
    names: BTreeMap<String, usize>,
    addresses: BTreeMap<SocketAddrV4, usize>,
    /// Number of nodes by cluster.
    pub(super) nodes: BTreeMap<String, usize>,
    /// Addresses of backends and nodes.
    pub(super) servers: Vec<Marked<SocketAddrV4>>,
    services: usize,
    backends: usize,
}

impl Seen {
    pub(super) fn cluster(&mut self, report: &Report<'_>, name: &Marked<String>) {
        claim(report, &mut self.names, name, "name", "names of services and clusters differ");
    }

    pub(super) fn service(
        &mut self,
        report: &Report<'_>,
        name: Option<&Marked<String>>,
        address: Option<&Marked<SocketAddrV4>>,
    ) {
        if let Some(name) = name {
            claim(report, &mut self.names, name, "name", "names of services and clusters differ");
        }
        if let Some(address) = address {
            claim(report, &mut self.addresses, address, "service address", "each service has its own");
        }
    }

    /// A service takes its backends from a cluster.
    pub(super) fn cluster_user(&mut self, report: &Report<'_>, cluster: &Marked<String>) {
        let Marked { value: name, at } = cluster;
        if let Some(nodes) = self.nodes.get(name) {
            self.count_backends(report, *at, *nodes);
            return;
        }
        let right = match nearest(name, self.nodes.keys().map(String::as_str)) {
            Some(near) => format!(r#"did you mean "{near}"?"#),
            None if self.nodes.is_empty() => "describe it in a [[cluster]]".to_owned(),
            None => {
                let names: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
                format!("clusters of this file: {}", names.join(", "))
            }
        };
        report.add(*at, Fault::new(format!(r#"cluster: there is no cluster "{name}""#), right));
    }

    /// Reports the one service that is too many.
    pub(super) fn count_service(&mut self, report: &Report<'_>, at: usize) {
        self.services += 1;
        if self.services == MOST_SERVICES + 1 {
            let right = format!("at most {MOST_SERVICES} fit into one instance");
            report.add(at, Fault::new("too many services", right));
        }
    }

    /// Reports the first backend that is too many.
    pub(super) fn count_backends(&mut self, report: &Report<'_>, at: usize, more: usize) {
        let before = self.backends;
        self.backends += more;
        if before <= MOST_BACKENDS && self.backends > MOST_BACKENDS {
            let right = format!("at most {MOST_BACKENDS} in all services together fit into one instance");
            report.add(at, Fault::new("too many backends", right));
        }
    }

    /// Reports servers that are services of this very balancer: their packets would never leave it.
    pub(super) fn check_servers(&self, report: &Report<'_>) {
        for Marked { value: address, at } in &self.servers {
            if let Some(service) = self.addresses.get(address) {
                let line = report.line(*service);
                let wrong = format!("address: {address} is the service of line {line} itself");
                report.add(*at, Fault::new(wrong, "write the address of a server"));
            }
        }
    }
}

/// Enters a value that must be unique, and reports it if it is not.
pub(super) fn claim<T: Ord + Clone + Display>(
    report: &Report<'_>,
    taken: &mut BTreeMap<T, usize>,
    marked: &Marked<T>,
    what: &str,
    right: &str,
) {
    let Marked { value, at } = marked;
    let first = *taken.entry(value.clone()).or_insert(*at);
    if first != *at {
        let line = report.line(first);
        report.add(*at, Fault::new(format!("{what} `{value}` is taken already, at line {line}"), right));
    }
}
