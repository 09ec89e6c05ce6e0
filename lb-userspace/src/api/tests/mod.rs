//! The status that the tests speak of; the tests themselves are about the texts and the wire.

mod documented;
mod text;
mod wire;

use super::*;

fn at(time: &str) -> Timestamp {
    format!("2026-03-01T{time}Z").parse().expect("a time")
}

fn backend(name: &str, address: &str, state: BackendState, reason: &str) -> BackendStatus {
    BackendStatus {
        name: name.to_owned(),
        address: address.to_owned(),
        state,
        reason: reason.to_owned(),
        since: at("02:13:00"),
        weight_configured: 100,
        weight_set: None,
        weight_effective: 100.0,
        load: None,
        handshake_ms: None,
        live: 0,
        max_connections: None,
        opened: 0,
        share: 0.0,
        next_hop: "resolved".to_owned(),
    }
}

fn service(name: &str, backends: Vec<BackendStatus>) -> ServiceStatus {
    ServiceStatus {
        name: name.to_owned(),
        address: "203.0.113.10:80/tcp".to_owned(),
        mode: "snat".to_owned(),
        algorithm: "least-load".to_owned(),
        track: "always".to_owned(),
        no_backend: "reset".to_owned(),
        agent_lost: "keep".to_owned(),
        cluster: None,
        role: None,
        state: String::new(),
        live: 0,
        opened: 0,
        new_per_second: 0.0,
        drops: [].into(),
        backends,
    }
}

fn web(states: [(BackendState, &str); 2]) -> ServiceStatus {
    let [one, two] = states;
    service(
        "web",
        vec![backend("web1", "10.0.0.11:80", one.0, one.1), backend("web2", "10.0.0.12:80", two.0, two.1)],
    )
}

fn node(name: &str, address: &str, readiness: NodeReadiness, reason: &str) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        address: address.to_owned(),
        readiness,
        used: NodeUse::default(),
        state_comment: None,
        reason: reason.to_owned(),
        conf_id: None,
        recv_queue: None,
        queue_limit: None,
        last_committed: None,
        cert_failures: None,
        bf_aborts: None,
        lag_seconds: None,
        threads_connected: None,
        threads_running: None,
    }
}

fn db_write() -> ServiceStatus {
    ServiceStatus {
        address: "203.0.113.20:3306/tcp".to_owned(),
        algorithm: "round-robin".to_owned(),
        no_backend: "hold".to_owned(),
        agent_lost: "pass".to_owned(),
        cluster: Some("db".to_owned()),
        role: Some("writer".to_owned()),
        ..service("db-write", vec![backend("db1", "10.0.1.1:3306", BackendState::Up, "")])
    }
}

fn cluster(writer: Option<&str>, nodes: Vec<NodeStatus>) -> ClusterStatus {
    ClusterStatus {
        name: "db".to_owned(),
        writer: writer.map(str::to_owned),
        since: at("02:13:07"),
        epoch: 7,
        frozen: false,
        paused_percent: 0,
        warnings: Vec::new(),
        nodes,
    }
}

fn broken_cluster() -> ClusterStatus {
    let not_ready = NodeReadiness::NotReady;
    cluster(
        None,
        vec![
            node("db1", "10.0.1.1:3306", not_ready, "refused"),
            node("db2", "10.0.1.2:3306", not_ready, "not Primary"),
            node("db3", "10.0.1.3:3306", not_ready, "not Primary"),
        ],
    )
}

fn status(services: Vec<ServiceStatus>, clusters: Vec<ClusterStatus>) -> Status {
    Status {
        agent: AgentStatus {
            version: "0.1.0".to_owned(),
            pid: 4242,
            since: at("00:00:00"),
            now: at("02:15:12"),
            instance: "lb".to_owned(),
            confirm_deadline: None,
            unloaded: None,
        },
        alarms: vec![],
        interfaces: vec![],
        services,
        clusters,
        counters: [].into(),
    }
}

const UP: (BackendState, &str) = (BackendState::Up, "");
const REFUSED: (BackendState, &str) = (BackendState::Down, "refused");
const DRAINING: (BackendState, &str) = (BackendState::Draining, "by the operator");

/// A status with something in every field.
fn full_status() -> Status {
    let mut web = web([UP, REFUSED]);
    web.live = 12;
    web.opened = 4711;
    web.new_per_second = 38.04;
    web.drops = [("no-backend".to_owned(), 3), ("truncated".to_owned(), 0)].into();
    web.backends[0] = BackendStatus {
        weight_effective: 87.46,
        load: Some(0.416),
        handshake_ms: Some(HandshakeMs { mean: 0.314, max: 2.5 }),
        live: 12,
        max_connections: Some(60),
        opened: 4000,
        share: 1.0,
        ..web.backends[0].clone()
    };
    web.backends[1].next_hop = "no answer to ARP".to_owned();
    let mut db_write = db_write();
    db_write.state = "new connections wait for at most 3 s".to_owned();
    let mut cluster = broken_cluster();
    cluster.nodes[1].state_comment = Some("Initialized".to_owned());
    cluster.nodes[1].conf_id = Some(18);
    cluster.nodes[1].recv_queue = Some(0);
    let mut status = status(vec![web, db_write], vec![cluster]);
    status.alarms = vec!["the port cells of 10.0.0.11:80 are 93 % full".to_owned()];
    status.interfaces = vec![InterfaceStatus {
        name: "eth0".to_owned(),
        mode: "native".to_owned(),
        exit: "redirect".to_owned(),
        program_id: 17,
    }];
    status.counters =
        [("forwarded".to_owned(), 123_456), ("no-backend".to_owned(), 3), ("truncated".to_owned(), 0)].into();
    status
}

/// What is known of a backend that is down.
fn explanation() -> Explanation {
    use crate::api::explain::{Connections, Factor, Hint, Kind, Member, Probe, Weighing};
    let factor = |of: &str, factor: f64, why: &str| Factor { of: of.to_owned(), factor, why: why.to_owned() };
    let event = Entry::new(Topic::Health, "web/web2", "up → down").because("refused, confirmed");
    Explanation {
        name: "web/web2".to_owned(),
        kind: Kind::Backend,
        address: "10.0.0.12:80".to_owned(),
        now: at("02:15:12"),
        state: "down".to_owned(),
        since: Some(at("02:13:00")),
        reason: "refused, confirmed".to_owned(),
        weight: Some(Weighing {
            configured: 100,
            factors: vec![factor("health", 0.0, "refused, confirmed"), factor("load", 0.854, "")],
            effective: 0.0,
        }),
        connections: vec![Connections {
            service: "web".to_owned(),
            live: 3,
            limit: Some(60),
            opened: 612,
            share: 0.0,
        }],
        next_hop: Some("02:00:0a:4d:00:0c via eth0".to_owned()),
        probe: Some(Probe {
            what: "HTTP GET /ping at 10.0.0.12:80, every 1s".to_owned(),
            last: Some(Answer { at: at("02:15:11"), good: false, text: "refused".to_owned() }),
        }),
        members: vec![Member { name: "a/b".to_owned(), state: "up".to_owned(), reason: String::new() }],
        alarms: vec!["split brain".to_owned()],
        events: vec![Entry { at: at("02:13:00"), number: 7, ..event }],
        hints: vec![
            Hint { command: "curl -i http://10.0.0.12:80/ping".to_owned(), does: "ask it".to_owned() },
            Hint { command: "lb events".to_owned(), does: "watch".to_owned() },
        ],
    }
}
