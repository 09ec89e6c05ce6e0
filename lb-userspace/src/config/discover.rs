//! `discover = { … }` of a service: where its backends come from besides those that it lists.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use toml::de::DeTable;

use super::address::any_host;
use super::fit;
use super::model::Mode;
use super::report::Report;
use super::table::{Marked, Section};
use super::value::{Fault, parse_port, spell};
use crate::discovery::{
    Source,
    dns::{self, DnsName, Record, Resolver},
    docker,
};
use crate::listen::{Listen, Ports};

pub(super) const DNS_KEYS: &[&str] =
    &["type", "name", "record", "port", "resolver", "ttl-min", "ttl-max", "keep"];
pub(super) const DOCKER_KEYS: &[&str] = &["type", "socket", "label", "port", "network"];
/// With an unreadable type any source's key may be right.
const ANY_KEYS: &[&str] = &[
    "type", "name", "record", "port", "resolver", "ttl-min", "ttl-max", "keep", "socket", "label", "network",
];
pub(super) const DISCOVER_EXAMPLE: &str = r#"{ type = "dns", name = "web.internal" }"#;

const TTL_MIN: Duration = Duration::from_secs(1);
const TTL_MAX: Duration = Duration::from_mins(1);
const KEEP: Duration = Duration::from_mins(10);
const DNS_PORT: u16 = 53;
const SOCKET: &str = "/var/run/docker.sock";
/// The longest path of a Unix socket, in bytes (unix(7)).
const LONGEST_SOCKET: usize = 107;

#[derive(Clone, Copy)]
enum Type {
    Dns,
    Docker,
}

const TYPES: [(&str, Type); 2] = [("dns", Type::Dns), ("docker", Type::Docker)];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    A,
    Aaaa,
    Srv,
}

const RECORDS: [(&str, Kind); 3] = [("a", Kind::A), ("aaaa", Kind::Aaaa), ("srv", Kind::Srv)];

/// What the source's members are to serve.
#[derive(Clone, Copy)]
pub(super) struct For<'a> {
    /// The service's name, where it could be read.
    pub(super) service: Option<&'a str>,
    pub(super) listen: Option<Listen>,
    pub(super) mode: Option<Mode>,
}

impl For<'_> {
    fn ipv6(self) -> bool {
        self.listen.is_some_and(|listen| listen.address.is_ipv6())
    }

    /// The service's one port; 0 where it has several.
    fn port(self) -> u16 {
        match self.listen.map(|listen| listen.ports) {
            Some(Ports::One(port)) => port,
            _ => 0,
        }
    }

    /// Whether members on this port could serve, wherever they are.
    fn fits(self, port: u16) -> Result<(), Fault> {
        let (Some(listen), Some(mode)) = (self.listen, self.mode) else { return Ok(()) };
        let any: IpAddr =
            if self.ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        fit::server(listen, mode, SocketAddr::new(any, port))
            .map_err(|fault| Fault::new(fault.wrong, "leave `port` out"))
    }
}

/// Reads `discover = { … }`. `None` if something has been reported.
pub(super) fn read<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    of: For<'_>,
) -> Option<Source> {
    let Marked { value: table, at } = table;
    // The type decides which keys are known, and says itself what is wrong with it.
    let named = table.get("type").and_then(|value| value.get_ref().as_str());
    let known = TYPES.iter().find(|(name, _)| Some(*name) == named).map(|(_, kind)| *kind);
    let (what, keys) = match known {
        Some(Type::Dns) => ("a discovery by dns", DNS_KEYS),
        Some(Type::Docker) => ("a discovery by docker", DOCKER_KEYS),
        None => ("a discovery", ANY_KEYS),
    };
    let section = Section::new(report, what, at, table, keys);
    match section.required_choice("type", &TYPES)? {
        Type::Dns => by_dns(&section, of).map(Source::Dns),
        Type::Docker => by_docker(&section, of).map(Source::Docker),
    }
}

fn by_dns(section: &Section<'_>, of: For<'_>) -> Option<dns::Source> {
    let name = section.required("name", r#""web.internal""#, name);
    let default = if of.ipv6() { Kind::Aaaa } else { Kind::A };
    let said = section.choice("record", &RECORDS);
    let kind = said.unwrap_or(default);
    if said.is_some() && kind != Kind::Srv && kind != default && of.listen.is_some() {
        let wrong = "record: no mode translates between IPv4 and IPv6";
        let right = if of.ipv6() { r#"write "aaaa""# } else { r#"write "a""# };
        section.add("record", Fault::new(wrong, right));
    }
    if kind == Kind::Srv {
        section.refuse("port", "port: a SRV record names it", "leave `port` out");
    }
    let record = match kind {
        Kind::A => Record::A(port(section, of)),
        Kind::Aaaa => Record::Aaaa(port(section, of)),
        Kind::Srv if of.ipv6() => Record::SrvAaaa,
        Kind::Srv => Record::Srv,
    };
    let resolver = section.parsed("resolver", r#""127.0.0.1:53""#, resolver);
    let least = section.duration("ttl-min", TTL_MIN.min(TTL_MAX));
    let most = section.duration("ttl-max", TTL_MAX.max(least));
    if least > most {
        let wrong = format!("ttl-max: {} is shorter than ttl-min, {}", spell(most), spell(least));
        section.add("ttl-max", Fault::new(wrong, format!("write at least {}", spell(least))));
    }
    Some(dns::Source {
        name: name?.value,
        record,
        resolver: resolver.map_or_else(Resolver::default, |resolver| Resolver::At(resolver.value)),
        ttl: (least, most),
        keep: section.duration("keep", KEEP),
    })
}

fn by_docker(section: &Section<'_>, of: For<'_>) -> Option<docker::Source> {
    let socket = section.parsed("socket", &format!(r#""{SOCKET}""#), socket);
    let label = section.parsed("label", r#""web""#, word);
    let network = section.parsed("network", r#""shop_default""#, word);
    let label = label.map(|label| label.value).or_else(|| of.service.map(str::to_owned));
    Some(docker::Source {
        socket: socket.map_or_else(|| SOCKET.into(), |socket| socket.value),
        service: label?,
        port: port(section, of),
        network: network.map(|network| network.value),
        ipv6: of.ipv6(),
    })
}

fn port(section: &Section<'_>, of: For<'_>) -> u16 {
    let port = section.integer("port", 1..=65_535).unwrap_or_else(|| of.port());
    if section.has("port")
        && let Err(Fault { wrong, right }) = of.fits(port)
    {
        section.add("port", Fault::new(format!("port: {wrong}"), right));
    }
    port
}

fn name(text: &str) -> Result<DnsName, Fault> {
    let right = r#"write a whole name, as `dig` takes it: "web.internal""#;
    let fault = || Fault::new(format!("`{}` is no name in DNS", text.escape_debug()), right);
    if text.parse::<IpAddr>().is_ok() {
        let right = "an address needs no discovery; write it in `backends`";
        return Err(Fault::new(format!("`{text}` is an address"), right));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if !text.bytes().all(plain) {
        return Err(fault());
    }
    text.parse::<DnsName>().ok().filter(|name| !name.is_root()).ok_or_else(fault)
}

/// `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`. The balancer's own host may be asked, unlike for a server.
fn resolver(text: &str) -> Result<SocketAddr, Fault> {
    if let Ok(address) = any_host(text) {
        return Ok(SocketAddr::new(address, DNS_PORT));
    }
    let fault = || {
        let right = r#"write the address of a DNS server: "127.0.0.1:53" or "[2001:db8::53]:53""#;
        Fault::new(format!("`{}` is no address and port", text.escape_debug()), right)
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(fault)?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| fault())?,
        None => host.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| fault())?,
    };
    Ok(SocketAddr::new(any_host(&host.to_string())?, parse_port(port)?))
}

fn socket(text: &str) -> Result<PathBuf, Fault> {
    let right = format!(r#"write the whole path of the daemon's socket: "{SOCKET}""#);
    if let Some(rest) = text.strip_prefix("unix://") {
        let right = format!(r#"write "{}""#, rest.escape_debug());
        return Err(Fault::new(format!("`{}` is a URL", text.escape_debug()), right));
    }
    if !text.starts_with('/') || text.len() > LONGEST_SOCKET || text.contains('\0') {
        return Err(Fault::new(format!("`{}` is no path of a Unix socket", text.escape_debug()), right));
    }
    Ok(text.into())
}

/// The value of a label, or the name of a network: one word, as Docker's command line takes it.
fn word(text: &str) -> Result<String, Fault> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'/');
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let right = "use letters, digits, `.`, `_`, `-` and `/`";
    Err(Fault::new(format!("`{}` is no such word", text.escape_debug()), right))
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
