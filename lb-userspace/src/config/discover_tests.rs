//! What stands in `discover = { … }`, and what it becomes or is refused with.

use std::path::Path;

use super::*;
use crate::config::{ConfigErrors, SystemSecrets, Target, parse};

fn read(address: &str, line: &str) -> Result<Source, ConfigErrors> {
    let text = format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"{address}\"\n{line}\n\
         check = {{ type = \"tcp\", port = 80 }}\n"
    );
    let config = parse(&text, "lb.toml", &SystemSecrets { folder: Path::new(".").to_owned() })?;
    let Target::Backends { backends, discover: Some(source), .. } = &config.services[0].target else {
        panic!("{line} is a discovery")
    };
    assert!(backends.is_empty(), "{line}");
    Ok((**source).clone())
}

const V4: &str = "203.0.113.10:80/tcp";
const V6: &str = "[2001:db8::10]:80/tcp";

#[test]
fn a_name_is_looked_up_as_the_service_wants_it_unless_something_else_is_said() {
    let plain = dns::Source {
        name: "web.internal".parse().unwrap(),
        record: Record::A(80),
        resolver: Resolver::default(),
        ttl: (TTL_MIN, TTL_MAX),
        keep: KEEP,
    };
    let with = |more: &str| format!(r#"discover = {{ type = "dns", name = "web.internal"{more} }}"#);
    let of = |record| dns::Source { record, ..plain.clone() };
    let at = |server: &str| dns::Source { resolver: Resolver::At(server.parse().unwrap()), ..plain.clone() };
    let seconds = Duration::from_secs;
    let table = [
        (V4, "", plain.clone()),
        (V6, "", of(Record::Aaaa(80))),
        (V4, r#", record = "a", port = 8080"#, of(Record::A(8080))),
        (V6, r#", record = "aaaa", port = 8080"#, of(Record::Aaaa(8080))),
        (V4, r#", record = "srv""#, of(Record::Srv)),
        (V6, r#", record = "srv""#, of(Record::SrvAaaa)),
        ("203.0.113.10:8000-8099/tcp", "", of(Record::A(0))),
        (V4, r#", resolver = "127.0.0.1:5353""#, at("127.0.0.1:5353")),
        (V4, r#", resolver = "10.0.0.2""#, at("10.0.0.2:53")),
        (V4, r#", resolver = "[2001:db8::53]:53""#, at("[2001:db8::53]:53")),
        (V4, r#", resolver = "2001:db8::53""#, at("[2001:db8::53]:53")),
        (
            V4,
            r#", ttl-min = "5s", ttl-max = "10s", keep = "1h""#,
            dns::Source { ttl: (seconds(5), seconds(10)), keep: seconds(3600), ..plain.clone() },
        ),
        (V4, r#", ttl-min = "5m""#, dns::Source { ttl: (seconds(300), seconds(300)), ..plain.clone() }),
    ];
    for (address, more, wanted) in table {
        assert_eq!(read(address, &with(more)), Ok(Source::Dns(wanted)), "{address} {more}");
    }
}

#[test]
fn containers_are_those_labelled_with_the_services_name_unless_something_else_is_said() {
    let plain = docker::Source {
        socket: SOCKET.into(),
        service: "web".to_owned(),
        port: 80,
        network: None,
        ipv6: false,
    };
    let table = [
        (V4, "", plain.clone()),
        (V6, "", docker::Source { ipv6: true, ..plain.clone() }),
        (
            V4,
            r#", socket = "/run/podman/podman.sock", label = "shop", port = 9000, network = "shop_default""#,
            docker::Source {
                socket: "/run/podman/podman.sock".into(),
                service: "shop".to_owned(),
                port: 9000,
                network: Some("shop_default".to_owned()),
                ipv6: false,
            },
        ),
    ];
    for (address, more, wanted) in table {
        let line = format!(r#"discover = {{ type = "docker"{more} }}"#);
        assert_eq!(read(address, &line), Ok(Source::Docker(wanted)), "{address} {more}");
    }
}

#[test]
fn what_cannot_be_is_refused_at_its_place() {
    let dns = |more: &str| format!(r#"discover = {{ type = "dns", name = "web.internal"{more} }}"#);
    let table = [
        (V4, r#"discover = "dns""#.to_owned(), "5:12", "discover: a table is wanted, and this is a string"),
        (
            V4,
            r#"discover = { type = "consul" }"#.to_owned(),
            "5:21",
            r#"type: "consul" does not exist; accepted: "dns" or "docker""#,
        ),
        (V4, r#"discover = { type = "dns" }"#.to_owned(), "5:12", "a discovery by dns needs `name`"),
        (V4, dns(r#", socket = "/x""#), "5:51", "unknown key `socket` in a discovery by dns"),
        (
            V4,
            dns(r#", record = "mx""#),
            "5:60",
            r#"record: "mx" does not exist; accepted: "a", "aaaa" or "srv""#,
        ),
        (
            V4,
            dns(r#", record = "aaaa""#),
            "5:60",
            "record: no mode translates between IPv4 and IPv6; write \"a\"",
        ),
        (V4, dns(r#", record = "srv", port = 80"#), "5:67", "port: a SRV record names it; leave `port` out"),
        (
            V4,
            dns(r#", resolver = "dns.internal""#),
            "5:62",
            "resolver: `dns.internal` is no address and port",
        ),
        (V4, dns(r#", resolver = "10.0.0.2:0""#), "5:62", "resolver: `0` is no port"),
        (
            V4,
            dns(r#", ttl-max = "1s", ttl-min = "2s""#),
            "5:61",
            "ttl-max: 1s is shorter than ttl-min, 2s; write at least 2s",
        ),
        (
            "203.0.113.10:80/tcp\"\nmode = \"dsr",
            dns(", port = 81"),
            "6:58",
            r#"port: mode "dsr" keeps the client's port 80, and this is 81"#,
        ),
        (
            V4,
            r#"discover = { type = "dns", name = "10.0.0.11" }"#.to_owned(),
            "5:35",
            "name: `10.0.0.11` is an address; an address needs no discovery",
        ),
        (
            V4,
            r#"discover = { type = "dns", name = "a..b" }"#.to_owned(),
            "5:35",
            "name: `a..b` is no name in DNS",
        ),
        (
            V4,
            r#"discover = { type = "docker", socket = "unix:///run/docker.sock" }"#.to_owned(),
            "5:40",
            r#"socket: `unix:///run/docker.sock` is a URL; write "/run/docker.sock""#,
        ),
        (
            V4,
            r#"discover = { type = "docker", socket = "docker.sock" }"#.to_owned(),
            "5:40",
            "socket: `docker.sock` is no path of a Unix socket",
        ),
        (
            V4,
            r#"discover = { type = "docker", label = "a b" }"#.to_owned(),
            "5:39",
            "label: `a b` is no such word",
        ),
    ];
    for (address, line, place, message) in table {
        let errors = read(address, &line).expect_err(&line).to_string();
        let wanted = format!("lb.toml:{place}: error: {message}");
        assert!(errors.starts_with(&wanted) && errors.lines().count() == 1, "{errors}\n{wanted}");
    }
}
