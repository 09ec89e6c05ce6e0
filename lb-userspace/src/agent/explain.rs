//! `lb explain`: all that is known of one name, put together from the status, the journal and the weights.

use super::{
    controller::Controller,
    requests::refusal,
    services::{Backend, Backends},
};
use crate::{
    api::{
        BackendState, BackendStatus, ClusterStatus, Explanation, RefusalKind, Reply, ServiceStatus, Status,
        Timestamp,
        explain::{Connections, Factor, Hint, Kind, Member, Probe, Weighing},
    },
    config::{Check, CheckKind, HttpCheck, Login, Monitor, Target, spell},
    health::Admin,
};

/// Entries of the journal that fit on a screen.
const EVENTS: usize = 8;

impl Controller {
    /// Everything about `name`, or that there is nothing of that name.
    pub(super) fn explain(&self, name: &str) -> Reply {
        let status = self.report();
        let explanation = match name.split_once('/') {
            Some((owner, member)) => self
                .explain_backend(&status, owner, member)
                .or_else(|| self.explain_node(&status, owner, member)),
            None => self.explain_service(&status, name).or_else(|| self.explain_cluster(&status, name)),
        };
        explanation.map_or_else(
            || {
                let error = format!("there is no {name} here");
                let hint = format!("there are {}", names(&status).join(", "));
                Reply::Refused(refusal(RefusalKind::NotFound, &error, &hint))
            },
            |explanation| Reply::Explain(Box::new(explanation)),
        )
    }

    fn explain_service(&self, status: &Status, name: &str) -> Option<Explanation> {
        let service = status.services.iter().find(|service| service.name == name)?;
        let up = service.backends.iter().filter(|backend| backend.state == BackendState::Up).count();
        let members = members(service.cluster.as_ref().unwrap_or(&service.name), &service.backends);
        let state = format!("{up} of {} backends up", service.backends.len());
        let first = members.iter().find(|member| member.state != "up").or(members.first());
        let mut hints = Vec::new();
        if let Some(member) = first {
            hints.push(hint(format!("lb explain {}", member.name), "why it is as it is"));
        }
        if let Some(cluster) = &service.cluster {
            hints.push(hint(format!("lb explain {cluster}"), "who writes, and why"));
        }
        hints.push(hint(format!("lb trace CLIENT:PORT {name}"), "what becomes of a client's packet"));
        let connections = vec![Connections {
            service: service.name.clone(),
            live: service.live,
            limit: self.config.services.iter().find(|known| known.name == name)?.max_connections,
            opened: service.opened,
            share: 1.0,
        }];
        Some(Explanation {
            address: service.address.clone(),
            reason: service.state.clone(),
            connections,
            members,
            hints,
            ..self.plain(name, Kind::Service, state)
        })
    }

    fn explain_cluster(&self, status: &Status, name: &str) -> Option<Explanation> {
        let cluster = status.clusters.iter().find(|cluster| cluster.name == name)?;
        let members: Vec<Member> = cluster.nodes.iter().map(|node| node_member(cluster, node)).collect();
        let prefix = format!("{name}: ");
        let alarms = status.alarms.iter().filter_map(|alarm| alarm.strip_prefix(&prefix));
        let state = match &cluster.writer {
            Some(writer) => format!("writer {writer}, epoch {}", cluster.epoch),
            None => "no writer".to_owned(),
        };
        let hints = cluster
            .nodes
            .iter()
            .map(|node| hint(format!("lb explain {name}/{}", node.name), "what is known of it"))
            .collect();
        Some(Explanation {
            since: Some(cluster.since),
            members,
            alarms: alarms.map(str::to_owned).collect(),
            hints,
            ..self.plain(name, Kind::Cluster, state)
        })
    }

    fn explain_backend(&self, status: &Status, owner: &str, member: &str) -> Option<Explanation> {
        let index = self.config.services.iter().position(|service| service.name == owner)?;
        let Target::Backends { check, .. } = &self.config.services[index].target else { return None };
        let backends = self.services.get(index)?.as_ref()?;
        let place = backends.find(member)?;
        let service = status.services.iter().find(|service| service.name == owner)?;
        let known = service.backends.iter().find(|backend| backend.name == member)?;
        let backend = &backends.members[place];
        let name = format!("{owner}/{member}");
        Some(Explanation {
            address: known.address.clone(),
            since: Some(known.since),
            reason: known.reason.clone(),
            weight: Some(self.weighing(backends, place, known)),
            connections: vec![connections(service, known)],
            next_hop: Some(known.next_hop.clone()),
            probe: Some(Probe {
                what: asked(check, &known.address),
                last: self.journal.answer(&name).cloned(),
            }),
            events: self.journal.of(&[&name, &backend.address.ip().to_string()], EVENTS),
            hints: hints(&name, known.state, &known.next_hop, &look(check, backend)),
            ..self.plain(&name, Kind::Backend, known.state.to_string())
        })
    }

    fn explain_node(&self, status: &Status, owner: &str, member: &str) -> Option<Explanation> {
        let cluster = status.clusters.iter().find(|cluster| cluster.name == owner)?;
        let node = cluster.nodes.iter().find(|node| node.name == member)?;
        let config = self.config.clusters.iter().find(|known| known.name == owner)?;
        let monitor = &config.monitor;
        let using = status.services.iter().filter(|service| service.cluster.as_deref() == Some(owner));
        let found = using.filter_map(|service| {
            Some((service, service.backends.iter().find(|backend| backend.name == member)?))
        });
        let found: Vec<(&ServiceStatus, &BackendStatus)> = found.collect();
        let name = format!("{owner}/{member}");
        let known = found.first().map(|(_, backend)| *backend);
        let writes = cluster.writer.as_deref() == Some(member);
        let state = node_member(cluster, node).state;
        let address = node.address.clone();
        let (host, port) = address.rsplit_once(':').unwrap_or((&address, "3306"));
        let ask = format!(
            "mysql -h {} -P {port} -u {} -p -e \"SHOW STATUS LIKE 'wsrep%'\"",
            host.trim_matches(['[', ']']),
            monitor.user
        );
        let backend_state = known.map_or(BackendState::Unknown, |backend| backend.state);
        let next_hop = known.map(|backend| backend.next_hop.clone());
        Some(Explanation {
            since: known.map(|backend| backend.since),
            reason: node.reason.clone(),
            weight: known.map(|backend| role(backend, writes)),
            connections: found.iter().map(|(service, backend)| connections(service, backend)).collect(),
            probe: Some(Probe {
                what: monitored(monitor, &address),
                last: self.journal.answer(&name).cloned(),
            }),
            events: self.journal.of(&[&name, host.trim_matches(['[', ']'])], EVENTS),
            hints: hints(&name, backend_state, next_hop.as_deref().unwrap_or(" via "), &ask),
            next_hop,
            address: address.clone(),
            ..self.plain(&name, Kind::Node, state)
        })
    }

    /// With nothing but the name, its state and what happened to it and what belongs to it.
    fn plain(&self, name: &str, kind: Kind, state: String) -> Explanation {
        Explanation {
            name: name.to_owned(),
            kind,
            address: String::new(),
            now: Timestamp::now(),
            state,
            since: None,
            reason: String::new(),
            weight: None,
            connections: Vec::new(),
            next_hop: None,
            probe: None,
            members: Vec::new(),
            alarms: Vec::new(),
            events: self.journal.of(&[name], EVENTS),
            hints: Vec::new(),
        }
    }

    fn weighing(&self, backends: &Backends, place: usize, known: &BackendStatus) -> Weighing {
        let backend = &backends.members[place];
        let mut factors = Vec::new();
        let mut add = |of: &str, factor: f64, why: &str| {
            factors.push(Factor { of: of.to_owned(), factor, why: why.to_owned() });
        };
        let made = backends.factors(place, self.now());
        if backend.admin.takes_new() {
            let up = made.is_some_and(|made| made.up);
            // More than half of the backends look dead: then the probes are not believed.
            let why = if up && !backend.takes_new { &backends.panic } else { backend.health.reason() };
            add("health", f64::from(u8::from(up)), why);
        } else {
            let order = if backend.admin == Admin::Drain { "draining" } else { "in maintenance" };
            add("operator", 0.0, &format!("{order}, as an operator wants"));
        }
        if let Some(evidence) = backend.suspicion.evidence() {
            add("suspicion", 0.0, &evidence.to_string());
        }
        if let Some(made) = made {
            let why = match made.measured {
                Some(load) => format!("measured {load:.2}, smoothed, against the others"),
                None => "not measured, so it is as configured".to_owned(),
            };
            add("load", made.load, &why);
            if made.slow_start < 1.0 {
                add("slow start", made.slow_start, "it came up a moment ago");
            }
        }
        Weighing { configured: known.weight_configured, factors, effective: known.weight_effective }
    }
}

/// The weight of a node is its role's.
fn role(backend: &BackendStatus, writes: bool) -> Weighing {
    let configured = backend.weight_configured;
    let factor = backend.weight_effective / f64::from(configured.max(1));
    let why = if writes { "it is the cluster's writer" } else { "it is not the cluster's writer" };
    let factors = vec![Factor { of: "role".to_owned(), factor, why: why.to_owned() }];
    Weighing { configured, factors, effective: backend.weight_effective }
}

/// How a backend is asked, in words.
fn asked(check: &Check, address: &str) -> String {
    let at = |port: &Option<u16>| port.map_or_else(|| address.to_owned(), |port| format!("port {port}"));
    let what = match &check.kind {
        CheckKind::Tcp { port } => format!("a TCP connection to {}", at(port)),
        CheckKind::Http(HttpCheck { method, path, port, tls, .. }) => {
            let scheme = if tls.is_some() { "HTTPS" } else { "HTTP" };
            format!("{scheme} {method} {path} at {}", at(port))
        }
        CheckKind::PhpFpm { url } => format!("the status page of PHP-FPM at {url}"),
        CheckKind::Mysql(Login { user, .. }) => format!("a login as {user} at {address}"),
    };
    let Check { interval, timeout, rise, fall, .. } = check;
    format!(
        "{what}, every {}, at most {}; up after {rise} good ones, down after {fall} bad ones",
        spell(*interval),
        spell(*timeout)
    )
}

/// How a node is asked, in words.
fn monitored(monitor: &Monitor, address: &str) -> String {
    let Monitor { user, interval, timeout, .. } = monitor;
    format!("a login as {user} at {address}, every {}, at most {}", spell(*interval), spell(*timeout))
}

/// The command that asks as the check does.
fn look(check: &Check, backend: &Backend) -> String {
    let address = backend.address;
    let at = |port: Option<u16>| match port.unwrap_or(address.port()) {
        0 => 80,
        port => port,
    };
    let host = match address.ip() {
        std::net::IpAddr::V4(address) => address.to_string(),
        std::net::IpAddr::V6(address) => format!("[{address}]"),
    };
    match &check.kind {
        CheckKind::Http(HttpCheck { path, port, tls, .. }) => {
            let scheme = if tls.is_some() { "https" } else { "http" };
            format!("curl -i {scheme}://{host}:{}{path}", at(*port))
        }
        CheckKind::Mysql(Login { user, .. }) => {
            format!("mysql -h {} -P {} -u {user} -p", address.ip(), at(None))
        }
        CheckKind::Tcp { port } => format!("nc -vz {} {}", address.ip(), at(*port)),
        CheckKind::PhpFpm { url } => {
            let end = url.endpoint(address.ip());
            format!("nc -vz {} {}", end.ip(), end.port())
        }
    }
}

fn hints(name: &str, state: BackendState, next_hop: &str, look: &str) -> Vec<Hint> {
    let mut hints = Vec::new();
    if !next_hop.contains(" via ") {
        hints.push(hint("ip neigh; ip route", "why there is no way to it"));
    }
    match state {
        BackendState::Up => {
            hints.push(hint(format!("lb drain {name} --deadline 60s --wait"), "take it out of service"));
            hints.push(hint(format!("lb events {name} -f"), "watch what becomes of it"));
        }
        BackendState::Down | BackendState::Unknown => {
            hints.push(hint(look, "ask it as the probe does, from this host"));
            hints.push(hint(format!("lb events {name} -f"), "watch what becomes of it"));
        }
        BackendState::Draining | BackendState::Maintenance => {
            hints.push(hint(format!("lb ready {name}"), "let it take new connections again"));
            hints.push(hint(format!("lb cut {name}"), "end the connections that are left"));
        }
    }
    hints
}

fn hint(command: impl Into<String>, does: &str) -> Hint {
    Hint { command: command.into(), does: does.to_owned() }
}

fn connections(service: &ServiceStatus, backend: &BackendStatus) -> Connections {
    Connections {
        service: service.name.clone(),
        live: backend.live,
        limit: backend.max_connections,
        opened: backend.opened,
        share: backend.share,
    }
}

fn members(owner: &str, backends: &[BackendStatus]) -> Vec<Member> {
    let member = |backend: &BackendStatus| Member {
        name: format!("{owner}/{}", backend.name),
        state: backend.state.to_string(),
        reason: backend.reason.clone(),
    };
    backends.iter().map(member).collect()
}

fn node_member(cluster: &ClusterStatus, node: &crate::api::NodeStatus) -> Member {
    let writes = cluster.writer.as_deref() == Some(&*node.name);
    let writer = if writes { ", writer" } else { "" };
    Member {
        name: format!("{}/{}", cluster.name, node.name),
        state: format!("{}{writer}", node.readiness),
        reason: node.reason.clone(),
    }
}

/// All that can be explained, without the backends.
fn names(status: &Status) -> Vec<&str> {
    let services = status.services.iter().map(|service| service.name.as_str());
    services.chain(status.clusters.iter().map(|cluster| cluster.name.as_str())).collect()
}
