//! What only the whole file shows: names and addresses used twice, clusters that are not there, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::SocketAddr;

use lb_common::{MAX_BACKENDS, MAX_SERVICES};

use super::report::Report;
use super::sharing::Sharing;
use super::table::{Marked, Section, nearest};
use super::value::Fault;
use crate::listen::{self, Listen, Ports, Protocol};

// Id 0 of both is nobody's.
const MOST_SERVICES: usize = MAX_SERVICES as usize - 1;
const MOST_BACKENDS: usize = MAX_BACKENDS as usize - 1;

/// What has been read so far, with the offset of its first appearance. Clusters are read before services.
#[derive(Default)]
pub(super) struct Seen {
    /// Services and clusters share one name space: `lb drain NAME/MEMBER` must mean one thing.
    names: BTreeMap<String, usize>,
    listens: Vec<Marked<Listen>>,
    /// Nodes by cluster: names and addresses.
    pub(super) nodes: BTreeMap<String, Vec<(String, SocketAddr)>>,
    /// Clusters without Galera.
    pub(super) plain: BTreeSet<String>,
    /// Addresses of backends and nodes.
    servers: Vec<(Marked<SocketAddr>, Protocol)>,
    /// `max-connections` of servers that backends name.
    limits: BTreeMap<(SocketAddr, Protocol), (Option<u32>, usize)>,
    /// Which services use which servers in `dnat`.
    pub(super) sharing: Sharing,
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
        listen: Option<&Marked<Listen>>,
    ) {
        if let Some(name) = name {
            claim(report, &mut self.names, name, "name", "names of services and clusters differ");
        }
        if let Some(listen) = listen {
            self.listens(report, listen);
            self.listens.push(*listen);
        }
    }

    /// One port may lie within a range, and a range within all ports, for the more exact one is meant; two ranges that
    /// share a port would leave open who is.
    fn listens(&self, report: &Report<'_>, Marked { value: new, at }: &Marked<Listen>) {
        let rivals = self
            .listens
            .iter()
            .filter(|Marked { value: old, .. }| (old.address, old.protocol) == (new.address, new.protocol));
        for Marked { value: old, at: first } in rivals {
            let line = report.line(*first, *at);
            if old.ports == new.ports {
                let wrong = format!("service address `{new}` is taken already, at {line}");
                return report.add(*at, Fault::new(wrong, "each service has its own"));
            }
            if let (Ports::Range(one, two), Ports::Range(first, last)) = (old.ports, new.ports)
                && one <= last
                && first <= two
            {
                let wrong = format!("service address `{new}` shares ports with `{old}` at {line}");
                return report.add(*at, Fault::new(wrong, "write ranges that lie apart"));
            }
        }
    }

    /// A server that some service or cluster names.
    pub(super) fn server(&mut self, address: Marked<SocketAddr>, protocol: Protocol) {
        self.servers.push((address, protocol));
    }

    /// A server has one limit, whichever service it is reached by.
    pub(super) fn limit(
        &mut self,
        section: &Section<'_>,
        server: SocketAddr,
        protocol: Protocol,
        limit: Option<u32>,
    ) {
        let (first, at) = *self.limits.entry((server, protocol)).or_insert((limit, section.at));
        if first != limit {
            let is = first.map_or_else(|| "no limit".to_owned(), |limit| format!("a limit of {limit}"));
            let line = section.report().line(at, section.at);
            let wrong = format!("max-connections: {} has {is} at {line}", listen::server(server));
            section
                .add("max-connections", Fault::new(wrong, "a server has one limit; write the same in both"));
        }
    }

    /// A service takes its backends from a cluster.
    pub(super) fn cluster_user(&mut self, report: &Report<'_>, cluster: &Marked<String>) {
        let Marked { value: name, at } = cluster;
        if let Some(nodes) = self.nodes.get(name) {
            let nodes = nodes.len();
            self.count_backends(report, *at, nodes);
            return;
        }
        let right = match nearest(name, self.nodes.keys().map(String::as_str)) {
            Some(near) => format!(r#"did you mean "{near}"?"#),
            None if self.nodes.is_empty() => "describe it in a [[cluster]]".to_owned(),
            None => {
                let names: Vec<&str> = self.nodes.keys().map(String::as_str).collect();
                format!("clusters here: {}", names.join(", "))
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
        for (Marked { value: address, at }, protocol) in &self.servers {
            let same = |listen: &Listen| (listen.address, listen.protocol) == (address.ip(), *protocol);
            let hit = |listen: &Listen| address.port() == 0 || listen.contains(address.port());
            if let Some(service) = self.listens.iter().find(|Marked { value, .. }| same(value) && hit(value))
            {
                let line = report.line(service.at, *at);
                let address = listen::server(*address);
                let wrong = format!("address: {address} is the service of {line} itself");
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
        let line = report.line(first, *at);
        report.add(*at, Fault::new(format!("{what} `{value}` is taken already, at {line}"), right));
    }
}
