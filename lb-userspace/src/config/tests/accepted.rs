//! What is right becomes exactly these types.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::*;
use crate::config::{
    AgentLost, Algorithm, Backend, Check, CheckKind, Cluster, ClusterKind, DatabaseTls, DonorPolicy,
    FpmScheme, FpmUrl, HttpCheck, Load, LoadKind, Login, Mode, Monitor, NoBackend, Node, Pattern, RateLimit,
    Role, Secret, Service, SourcePorts, StatusRange, Target, Timeouts, TlsMode, Track, XdpMode,
    parse_duration, parse_name,
};
use crate::listen::{Listen, Ports, Protocol};
use crate::probe::{
    http::Method,
    tls::{Authorities, Trust},
};

const MINUTE: Duration = Duration::from_mins(1);
const SECOND: Duration = Duration::from_secs(1);
const QUARTER: Duration = Duration::from_millis(250);

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn backend(name: &str, at: &str, weight: u16) -> Backend {
    Backend { name: name.to_owned(), address: address(at), weight, max_connections: None }
}

fn node(name: &str, at: &str, priority: i32) -> Node {
    Node { name: name.to_owned(), address: address(at), priority, max_connections: None, extra_port: None }
}

fn fpm(text: &str) -> FpmUrl {
    let (scheme, rest) = match text.strip_prefix("fcgi://:") {
        Some(rest) => (FpmScheme::Fcgi, rest),
        None => (FpmScheme::Http, text.strip_prefix("http://:").unwrap()),
    };
    let (port, path) = rest.split_once('/').unwrap();
    FpmUrl { scheme, host: None, port: port.parse().unwrap(), path: format!("/{path}") }
}

/// What an HTTP check asks for that says nothing.
fn page() -> HttpCheck {
    HttpCheck {
        method: Method::Get,
        path: "/".to_owned(),
        host: None,
        status: vec![StatusRange { first: 200, last: 399 }],
        expect_header: None,
        expect_body: None,
        port: None,
        tls: None,
    }
}

fn timeouts(established: Duration) -> Timeouts {
    Timeouts { established, closing: MINUTE, embryonic: 10 * SECOND, udp: MINUTE }
}

/// The example of the documentation, spelt with inline tables.
const EXAMPLE: &str = r#"
interfaces = ["eth0"]

[[service]]
name = "web"
address = "203.0.113.10:80/tcp"
check = { type = "http", path = "/ping", interval = "1s", timeout = "250ms" }
load = { type = "php-fpm", url = "fcgi://:9001/status", max-children = 20 }
backends = [
  { name = "web1", address = "10.0.0.11:80", weight = 100 },
  { name = "web2", address = "10.0.0.12:80" },
]

[[cluster]]
name = "db"
type = "galera"
monitor = { user = "lb", password-file = "/etc/lb/db.pw" }
nodes = [
  { name = "db1", address = "10.0.1.1:3306", priority = 1 },
  { name = "db2", address = "10.0.1.2:3306", priority = 2 },
]

[[service]]
name = "db-write"
address = "203.0.113.20:3306/tcp"
cluster = "db"
role = "writer"
"#;

/// The same with tables of their own.
const EXAMPLE_IN_TABLES: &str = r#"
interfaces = ["eth0"]
[[service]]
name = "web"
address = "203.0.113.10:80/tcp"
check.type = "http"
check.path = "/ping"
[service.load]
type = "php-fpm"
url = "fcgi://:9001/status"
max-children = 20
[[service.backends]]
name = "web1"
address = "10.0.0.11:80"
[[service.backends]]
name = "web2"
address = "10.0.0.12:80"
[[service]]
name = "db-write"
address = "203.0.113.20:3306/tcp"
cluster = "db"
role = "writer"
[[cluster]]
name = "db"
type = "galera"
monitor.user = "lb"
monitor.password-env = "LB_PW"
[[cluster.nodes]]
name = "db1"
address = "10.0.1.1:3306"
priority = 1
[[cluster.nodes]]
name = "db2"
address = "10.0.1.2:3306"
priority = 2
"#;

fn example() -> Config {
    let path = "/ping".to_owned();
    let kind = LoadKind::PhpFpm { url: fpm("fcgi://:9001/status"), max_children: Some(20) };
    let web = Service {
        name: "web".to_owned(),
        listen: Listen::tcp(address("203.0.113.10:80")),
        mode: Mode::Snat,
        algorithm: Algorithm::LeastLoad,
        track: Track::Always,
        max_connections: None,
        rate_limit: None,
        echo: false,
        agent_lost: AgentLost::Keep,
        no_backend: NoBackend::Reset,
        timeouts: timeouts(60 * MINUTE),
        target: Target::Backends {
            backends: vec![backend("web1", "10.0.0.11:80", 100), backend("web2", "10.0.0.12:80", 100)],
            discover: None,
            check: Check {
                kind: CheckKind::Http(HttpCheck { path, ..page() }),
                interval: SECOND,
                timeout: QUARTER,
                rise: 2,
                fall: 3,
            },
            load: Some(Load { kind, interval: SECOND, timeout: QUARTER }),
        },
    };
    let write = Service {
        name: "db-write".to_owned(),
        listen: Listen::tcp(address("203.0.113.20:3306")),
        mode: Mode::Snat,
        algorithm: Algorithm::LeastLoad,
        track: Track::Always,
        max_connections: None,
        rate_limit: None,
        echo: false,
        agent_lost: AgentLost::Keep,
        no_backend: NoBackend::Hold(3 * SECOND),
        timeouts: timeouts(9 * 60 * MINUTE),
        target: Target::Cluster {
            cluster: "db".to_owned(),
            role: Role::Writer,
            on_out: crate::config::OnOut::Cut,
        },
    };
    let monitor = Monitor {
        user: "lb".to_owned(),
        password: Secret::new("hunter2"),
        tls: DatabaseTls::default(),
        interval: SECOND,
        timeout: SECOND,
    };
    Config {
        interfaces: vec!["eth0".to_owned()],
        patterns: Vec::new(),
        xdp_mode: XdpMode::Auto,
        max_flows: None,
        source_ports: None,
        sources: Vec::new(),
        agent_lost_after: 30 * SECOND,
        api_group: None,
        services: vec![web, write],
        clusters: vec![Cluster {
            name: "db".to_owned(),
            kind: ClusterKind::Galera,
            monitor,
            donor: DonorPolicy::LastResort,
            fail_back: false,
            max_lag: None,
            nodes: vec![node("db1", "10.0.1.1:3306", 1), node("db2", "10.0.1.2:3306", 2)],
        }],
    }
}

#[test]
fn the_documented_example_means_what_it_says_however_tables_are_spelt() {
    assert_eq!(accepted(EXAMPLE), example());
    assert_eq!(accepted(EXAMPLE_IN_TABLES), example());
}

#[test]
fn a_name_with_a_star_is_a_pattern_and_may_stand_alone() {
    let with = |list: &str| accepted(&EXAMPLE.replace("interfaces = [\"eth0\"]", list));
    let config = with("interfaces = [\"eth0\", \"veth*\"]");
    assert_eq!(config.interfaces, ["eth0"]);
    assert_eq!(config.patterns, [Pattern::parse("veth*").unwrap()]);
    assert!(with("interfaces = [\"veth*\"]").interfaces.is_empty());
}

#[test]
fn a_file_of_a_real_shop_is_read_whole() {
    let config = accepted(include_str!("sample.toml"));
    assert_eq!(config.interfaces, ["enp5s0f0", "enp5s0f1.210", "br-apps"]);
    assert_eq!((config.xdp_mode, config.max_flows), (XdpMode::Native, Some(500_000)));
    assert_eq!(config.source_ports, Some(SourcePorts { first: 10_000, last: 59_999 }));
    let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["shop", "shop-tls", "api", "admin", "legacy", "shop-db", "reports-db"]);
    let [shop, tls, api, admin, legacy, shop_db, reports_db] = &config.services[..] else {
        panic!("seven services");
    };
    let backends = |service: &Service| match &service.target {
        Target::Backends { backends, .. } => backends.clone(),
        Target::Cluster { .. } => panic!("{} lists its backends", service.name),
    };
    let numbers = [shop, tls, api, admin, legacy].map(|service| backends(service).len());
    assert_eq!(numbers, [6, 6, 4, 2, 1]);
    assert_eq!(backends(shop)[5], backend("php6", "10.20.0.16:80", 50));
    assert_eq!(backends(legacy)[0], backend("old.box_1", "10.20.9.9:8080", 0));
    assert_eq!((tls.algorithm, tls.no_backend), (Algorithm::RoundRobin, NoBackend::Drop));
    assert_eq!(api.no_backend, NoBackend::Hold(Duration::from_millis(1500)));
    let day = 24 * 60 * MINUTE;
    let long = Timeouts { established: day, closing: 30 * SECOND, embryonic: 5 * SECOND, udp: MINUTE };
    assert_eq!((admin.timeouts, tls.timeouts), (long, timeouts(60 * MINUTE)));
    assert_eq!((shop_db.no_backend, reports_db.no_backend), (NoBackend::Hold(5 * SECOND), NoBackend::Reset));
    let clusters: Vec<_> =
        config.clusters.iter().map(|c| (c.name.as_str(), c.donor, c.nodes.len())).collect();
    assert_eq!(clusters, [("shop-galera", DonorPolicy::LastResort, 3), ("reports", DonorPolicy::Avoid, 2)]);
    assert_eq!(config.clusters[0].nodes[2], node("sql3", "10.20.1.3:3306", -1));
    assert_eq!(config.clusters[1].nodes[1], node("rep2", "10.20.2.2:3307", 100));
}

#[test]
fn every_kind_of_check_is_read() {
    let port = Some(8080);
    let http = CheckKind::Http;
    let path = |path: &str| HttpCheck { path: path.to_owned(), ..page() };
    let codes = |codes: &[(u16, u16)]| {
        codes.iter().map(|&(first, last)| StatusRange { first, last }).collect::<Vec<_>>()
    };
    let header = Some(("X-Ready".to_owned(), "yes: 1".to_owned()));
    let ca = Trust::Authorities(Authorities::from_pem(CA).unwrap());
    let login = |mode, trust| {
        let (user, password) = ("lb".to_owned(), Secret::new("hunter2"));
        CheckKind::Mysql(Login { user, password, tls: DatabaseTls { mode, trust } })
    };
    let table = [
        (r#"type = "tcp""#, CheckKind::Tcp { port: None }),
        (r#"type = "tcp", port = 8080"#, CheckKind::Tcp { port }),
        (r#"type = "http""#, http(page())),
        (
            r#"type = "http", path = "/a?b=%20", status = "204""#,
            http(HttpCheck { status: codes(&[(204, 204)]), ..path("/a?b=%20") }),
        ),
        (
            r#"type = "http", host = "shop.example:81", status = "200-299, 401", port = 8080"#,
            http(HttpCheck {
                host: Some("shop.example:81".to_owned()),
                status: codes(&[(200, 299), (401, 401)]),
                port,
                ..page()
            }),
        ),
        (
            r#"type = "http", method = "HEAD", expect-header = "X-Ready: yes: 1""#,
            http(HttpCheck { method: Method::Head, expect_header: header, ..page() }),
        ),
        (
            r#"type = "http", expect-header = "etag", expect-body = "po ng""#,
            http(HttpCheck {
                expect_header: Some(("etag".to_owned(), String::new())),
                expect_body: Some("po ng".to_owned()),
                ..page()
            }),
        ),
        (r#"type = "https""#, http(HttpCheck { tls: Some(Trust::System), ..page() })),
        (r#"type = "https", verify = true"#, http(HttpCheck { tls: Some(Trust::System), ..page() })),
        (r#"type = "https", verify = false"#, http(HttpCheck { tls: Some(Trust::Anybody), ..page() })),
        (r#"type = "https", ca-file = "ca.pem""#, http(HttpCheck { tls: Some(ca.clone()), ..page() })),
        (r#"type = "php-fpm", url = "fcgi://:9001/s""#, CheckKind::PhpFpm { url: fpm("fcgi://:9001/s") }),
        (
            r#"type = "mysql", user = "lb", password-file = "db.pw""#,
            login(TlsMode::Preferred, Trust::Anybody),
        ),
        (
            r#"type = "mysql", user = "lb", password-env = "LB_PW", tls = "required", ca-file = "ca.pem""#,
            login(TlsMode::Required, ca),
        ),
    ];
    for (text, kind) in table {
        let text = EXAMPLE.replace(r#"type = "http", path = "/ping""#, text);
        let config = accepted(&text);
        let Target::Backends { check, .. } = &config.services[0].target else { panic!("{text}") };
        assert_eq!(check.kind, kind, "{text}");
    }
}

#[test]
fn every_kind_of_load_is_read() {
    let line = r#"load = { type = "php-fpm", url = "fcgi://:9001/status", max-children = 20 }"#;
    let database = r#"check = { type = "mysql", user = "lb", password-file = "db.pw" }"#;
    for (text, kind) in [
        (
            r#"load = { type = "agent-check", port = 9999 }"#.to_owned(),
            LoadKind::AgentCheck { port: 9999, lease: 30 * SECOND },
        ),
        (
            r#"load = { type = "agent-check", port = 1, lease = "5s", interval = "5s" }"#.to_owned(),
            LoadKind::AgentCheck { port: 1, lease: 5 * SECOND },
        ),
        (format!("load = {{ type = \"mysql\" }}\n{database}"), LoadKind::Mysql { capacity: 16 }),
        (
            format!("load = {{ type = \"mysql\", capacity = 64 }}\n{database}"),
            LoadKind::Mysql { capacity: 64 },
        ),
    ] {
        let check = EXAMPLE.lines().find(|line| line.starts_with("check")).unwrap();
        let check = if text.contains("check =") { check } else { "" };
        let config =
            accepted(&EXAMPLE.replacen(check, "", usize::from(!check.is_empty())).replace(line, &text));
        let Target::Backends { load: Some(load), .. } = &config.services[0].target else { panic!("{text}") };
        assert_eq!(load.kind, kind, "{text}");
    }
}

#[test]
fn a_service_without_check_is_probed_by_tcp_and_a_short_interval_shortens_the_timeout() {
    let line = EXAMPLE.lines().find(|line| line.starts_with("check")).unwrap();
    for (text, interval, timeout) in [
        ("", SECOND, QUARTER),
        (r#"check = { type = "tcp", interval = "100ms" }"#, SECOND / 10, SECOND / 10),
        (r#"check = { type = "tcp", interval = "2s", timeout = "2s" }"#, 2 * SECOND, 2 * SECOND),
    ] {
        let config = accepted(&EXAMPLE.replace(line, text));
        let Target::Backends { check, .. } = &config.services[0].target else { panic!("{text}") };
        let kind = CheckKind::Tcp { port: None };
        assert_eq!(*check, Check { kind, interval, timeout, rise: 2, fall: 3 }, "{text}");
    }
}

#[test]
fn a_status_page_is_where_its_url_says() {
    let backend = IpAddr::from([10, 0, 0, 11]);
    for (text, endpoint, spelt) in [
        ("fcgi://:9001/status", "10.0.0.11:9001", "fcgi://:9001/status"),
        ("fcgi:///status", "10.0.0.11:9000", "fcgi://:9000/status"),
        ("http:///fpm-status", "10.0.0.11:80", "http://:80/fpm-status"),
        ("http://10.9.9.9:8080/a/b", "10.9.9.9:8080", "http://10.9.9.9:8080/a/b"),
        ("fcgi://[2001:db8::9]:9001/s", "[2001:db8::9]:9001", "fcgi://[2001:db8::9]:9001/s"),
        ("http://[2001:db8::9]/s", "[2001:db8::9]:80", "http://[2001:db8::9]:80/s"),
    ] {
        let config = accepted(&EXAMPLE.replace("fcgi://:9001/status", text));
        let Target::Backends { load: Some(load), .. } = &config.services[0].target else { panic!("{text}") };
        let LoadKind::PhpFpm { url, .. } = &load.kind else { panic!("{text}") };
        assert_eq!((url.endpoint(backend), url.to_string()), (address(endpoint), spelt.to_owned()), "{text}");
    }
}

#[test]
fn times_are_what_their_units_say() {
    let table = [
        ("1ms", 1),
        ("250ms", 250),
        ("1s", 1_000),
        ("5m", 300_000),
        ("9h", 32_400_000),
        ("30d", 2_592_000_000),
    ];
    for (text, millis) in table {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in [
        "",
        "s",
        "1",
        "0s",
        "-1s",
        "+1s",
        "1.5s",
        "1S",
        " 1s",
        "1s ",
        "1h30m",
        "31d",
        "99999999999999999999d",
    ] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn names_are_what_labels_and_paths_can_hold() {
    for text in ["a", "0", "web-1", "db.example_2", "abcdefghijabcdefghijabcdefghijab"] {
        assert_eq!(parse_name(text).as_deref(), Ok(text));
    }
    for text in
        ["", ".", "..", "-a", "_a", "A", "ä", "a b", "a/b", "a\n", "abcdefghijabcdefghijabcdefghijabc"]
    {
        assert!(parse_name(text).is_err(), "{text:?}");
    }
}

/// A service with these lines and one backend at `server`.
fn service(lines: &str, server: &str) -> Service {
    let text = format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"x\"\n{lines}\nbackends = [{{ name = \"a\", address = \"{server}\" }}]"
    );
    accepted(&text).services.remove(0)
}

#[test]
fn services_are_of_either_version_of_ip_either_protocol_and_one_or_many_ports() {
    let check = r#"check = { type = "tcp", port = 8080 }"#;
    let v4 = IpAddr::from([203, 0, 113, 10]);
    let v6: IpAddr = "2001:db8::10".parse().unwrap();
    for (typed, server, address, ports, protocol) in [
        ("203.0.113.10:80/tcp", "10.0.0.11:8080", v4, Ports::One(80), Protocol::Tcp),
        ("203.0.113.10:53/udp", "10.0.0.11:53", v4, Ports::One(53), Protocol::Udp),
        ("203.0.113.10:8000-8099/tcp", "10.0.0.11", v4, Ports::Range(8000, 8099), Protocol::Tcp),
        ("203.0.113.10:8000-8099/tcp", "10.0.0.11:80", v4, Ports::Range(8000, 8099), Protocol::Tcp),
        ("203.0.113.10:*/udp", "10.0.0.11", v4, Ports::All, Protocol::Udp),
        ("[2001:db8::10]:443/tcp", "[2001:db8::11]:8443", v6, Ports::One(443), Protocol::Tcp),
        ("[2001:db8::10]:1-65535/udp", "2001:db8::11", v6, Ports::Range(1, 65_535), Protocol::Udp),
        ("[2001:db8::10]:*/tcp", "[2001:db8::11]", v6, Ports::All, Protocol::Tcp),
    ] {
        let service = service(&format!("address = \"{typed}\"\n{check}"), server);
        assert_eq!(service.listen, Listen { address, ports, protocol }, "{typed}");
        assert_eq!(service.listen.to_string(), typed);
        let Target::Backends { backends, .. } = service.target else { panic!("{typed}") };
        let spelt = crate::listen::server(backends[0].address);
        assert_eq!(
            spelt,
            server
                .replace("[2001:db8::11]", "2001:db8::11")
                .replace("2001:db8::11:8443", "[2001:db8::11]:8443")
        );
    }
}

#[test]
fn what_needs_no_memory_of_connections_has_none_unless_asked_for() {
    let limits = "max-connections = 9\n";
    for (mode, algorithm, more, track) in [
        ("snat", "maglev", "", Track::Always),
        ("dnat", "least-load", "", Track::Always),
        ("dnat", "least-conn", "", Track::Always),
        ("dsr", "round-robin", "", Track::Always),
        ("dnat", "maglev", "", Track::Always),
        ("dsr", "source-hash", "", Track::OnChange),
        ("ipip", "maglev", "track = \"on-change\"\n", Track::OnChange),
        ("ipip", "maglev", "track = \"always\"\n", Track::Always),
        ("ipip", "maglev", limits, Track::Always),
        ("ipip", "maglev", "rate-limit = { per-second = 5 }\n", Track::Always),
        ("ipip", "maglev", "agent-lost = \"pass\"\n", Track::Always),
        ("ipip", "maglev", "agent-lost = \"keep\"\n", Track::OnChange),
    ] {
        let lines = format!(
            "address = \"203.0.113.10:80/tcp\"\nmode = \"{mode}\"\nalgorithm = \"{algorithm}\"\n{more}"
        );
        let service = service(&lines, "10.0.0.11:80");
        assert_eq!(service.track, track, "{lines}");
        assert_eq!(
            (service.mode.to_string(), service.algorithm.to_string()),
            (mode.into(), algorithm.into())
        );
    }
}

#[test]
fn limits_echo_and_sources_are_read() {
    let text = EXAMPLE
        .replace("interfaces = [\"eth0\"]", "interfaces = [\"eth0\"]\nsources = [\"10.0.0.2\", \"2001:db8::2\"]")
        .replace("name = \"web\"", "name = \"web\"\necho = true\nmax-connections = 5000\nrate-limit = { per-second = 50, burst = 100 }")
        .replace("weight = 100", "max-connections = 20")
        .replace("priority = 2", "max-connections = 60");
    let config = accepted(&text);
    assert_eq!(config.sources, ["10.0.0.2", "2001:db8::2"].map(|text| text.parse::<IpAddr>().unwrap()));
    let web = &config.services[0];
    assert_eq!((web.echo, web.max_connections), (true, Some(5_000)));
    assert_eq!(web.rate_limit, Some(RateLimit { per_second: 50, burst: 100 }));
    let Target::Backends { backends, .. } = &web.target else { panic!("{web:?}") };
    assert_eq!(backends.iter().map(|backend| backend.max_connections).collect::<Vec<_>>(), [Some(20), None]);
    let limits: Vec<_> = config.clusters[0].nodes.iter().map(|node| node.max_connections).collect();
    assert_eq!(limits, [None, Some(60)]);
    let lazy = service("address = \"203.0.113.10:80/tcp\"\nrate-limit = { per-second = 7 }", "10.0.0.11:80");
    assert_eq!(
        lazy.rate_limit,
        Some(RateLimit { per_second: 7, burst: 7 }),
        "what a second allows may come at once"
    );
}

#[test]
fn udp_has_a_timeout_of_its_own_and_ranges_may_hold_other_services() {
    let udp = service(
        "address = \"203.0.113.10:53/udp\"\ntimeouts = { udp = \"5s\", embryonic = \"2s\" }\ncheck = { type = \"tcp\", port = 53 }",
        "10.0.0.11:53",
    );
    assert_eq!((udp.timeouts.udp, udp.timeouts.embryonic), (5 * SECOND, 2 * SECOND));
    let holds = [("a", "80/tcp"), ("b", "80/udp"), ("c", "8000-8099/tcp"), ("d", "8050/tcp"), ("e", "*/tcp")];
    let services = holds.map(|(name, ports)| {
        format!(
            "[[service]]\nname = \"{name}\"\naddress = \"203.0.113.10:{ports}\"\n\
             check = {{ type = \"tcp\", port = 1 }}\nbackends = [{{ name = \"x\", address = \"10.0.0.11:80\" }}]\n"
        )
    });
    let text = format!("interfaces = [\"eth0\"]\n{}", services.concat());
    assert_eq!(accepted(&text).services.len(), 5);
}

#[test]
fn a_lost_agent_is_waited_for_as_long_as_the_file_says() {
    for (line, after) in [("", 30), ("agent-lost-after = \"5s\"", 5), ("agent-lost-after = \"1h\"", 3_600)] {
        let top = format!("interfaces = [\"eth0\"]\n{line}");
        let config = accepted(&EXAMPLE.replace("interfaces = [\"eth0\"]", &top));
        assert_eq!(config.agent_lost_after, after * SECOND, "{line}");
    }
}
