//! The addresses that stand in quotes: of services, of servers, of the balancer itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::value::{Fault, parse_port};
use crate::listen::{Listen, Ports, Protocol};

const SERVICE_FORM: &str = r#"write an address, its port or ports, and the protocol: "203.0.113.10:80/tcp", "[2001:db8::10]:53/udp", "203.0.113.10:8000-8099/tcp" or "203.0.113.10:*/tcp""#;
pub(super) const SERVER_FORM: &str = r#"write an address and a port: "10.0.0.11:80" or "[2001:db8::11]:80""#;

/// `ADDRESS:PORT/PROTOCOL`, `ADDRESS:FIRST-LAST/PROTOCOL` or `ADDRESS:*/PROTOCOL`.
pub(super) fn service_address(text: &str) -> Result<Listen, Fault> {
    let (place, protocol) = match text.split_once('/') {
        Some((place, protocol)) => (place, Some(protocol)),
        None => (text, None),
    };
    let (address, ports) = split(place, SERVICE_FORM)?;
    let Some(ports) = ports else {
        return Err(Fault::new(format!("`{}` names no port", text.escape_debug()), SERVICE_FORM));
    };
    let ports = port_set(ports)?;
    let protocol = match protocol {
        Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        Some(other) => {
            let wrong = format!("protocol `{}` does not exist", other.escape_debug());
            return Err(Fault::new(wrong, format!(r#"accepted are tcp and udp: "{place}/tcp""#)));
        }
        None => {
            let wrong = format!("`{}` names no protocol", text.escape_debug());
            return Err(Fault::new(wrong, format!(r#"write "{place}/tcp" or "{place}/udp""#)));
        }
    };
    Ok(Listen { address, ports, protocol })
}

fn port_set(text: &str) -> Result<Ports, Fault> {
    if text == "*" {
        return Ok(Ports::All);
    }
    let Some((first, last)) = text.split_once('-') else {
        return parse_port(text).map(Ports::One);
    };
    match (parse_port(first)?, parse_port(last)?) {
        (first, last) if first < last => Ok(Ports::Range(first, last)),
        (first, last) => {
            let wrong = format!("{first} to {last} is no range of ports");
            Err(Fault::new(wrong, r#"write the lower first: "8000-8099", or one port: "8000""#))
        }
    }
}

/// `ADDRESS:PORT` of a server.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, Fault> {
    let address = server(text)?;
    if address.port() == 0 {
        return Err(Fault::new(format!("`{}` names no port", text.escape_debug()), SERVER_FORM));
    }
    Ok(address)
}

/// `ADDRESS:PORT` of a server, or `ADDRESS`, which comes as port 0.
pub(super) fn server(text: &str) -> Result<SocketAddr, Fault> {
    if let Some((address, _)) = text.split_once('/') {
        let right = format!(r#"write "{}", the protocol is the service's"#, address.escape_debug());
        return Err(Fault::new(format!("`{}` names a protocol", text.escape_debug()), right));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(SocketAddr::new(host(IpAddr::V6(address))?, 0));
    }
    let (address, port) = split(text, SERVER_FORM)?;
    Ok(SocketAddr::new(address, port.map_or(Ok(0), parse_port)?))
}

/// An address and what follows its colon. An IPv6 address stands in brackets, or nobody could tell them apart.
fn split<'t>(text: &'t str, form: &str) -> Result<(IpAddr, Option<&'t str>), Fault> {
    let no_address = || Fault::new(format!("`{}` is no address and port", text.escape_debug()), form);
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or_else(no_address)?;
        let address = address.parse::<Ipv6Addr>().map_err(|_| {
            let wrong = format!("`{}` is no IPv6 address", address.escape_debug());
            Fault::new(wrong, r#"write its number in brackets: "[2001:db8::10]""#)
        })?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(no_address)?) };
        return Ok((host(IpAddr::V6(address))?, port));
    }
    match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => Err(no_address()),
        Some((address, port)) => Ok((host_v4(address)?, Some(port))),
        None => Ok((host_v4(text)?, None)),
    }
}

/// The address of one host, IPv4 or IPv6, without brackets.
pub(super) fn any_host(text: &str) -> Result<IpAddr, Fault> {
    match text.parse::<Ipv6Addr>() {
        Ok(address) => host(IpAddr::V6(address)),
        Err(_) => host_v4(text),
    }
}

fn host_v4(text: &str) -> Result<IpAddr, Fault> {
    let address: Ipv4Addr = text.parse().map_err(|_| {
        let right = r#"write its number: "10.0.0.11" or "[2001:db8::11]" (names are not resolved)"#;
        Fault::new(format!("`{}` is no IP address", text.escape_debug()), right)
    })?;
    host(IpAddr::V4(address))
}

fn host(address: IpAddr) -> Result<IpAddr, Fault> {
    let fault = |wrong: &str, right: &str| Err(Fault::new(format!("{address} {wrong}"), right));
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast() => {
            fault("is no host's address", "write the address of one host")
        }
        IpAddr::V6(v6) if v6.is_unspecified() || v6.is_multicast() => {
            fault("is no host's address", "write the address of one host")
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => fault(
            "belongs to a link, and no packet is routed to it",
            "write an address that is not of fe80::/10",
        ),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => fault("is an IPv4 address in other words", &format!(r#"write "{v4}""#)),
            None => Ok(address),
        },
        IpAddr::V4(_) => Ok(address),
    }
}
