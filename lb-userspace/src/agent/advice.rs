//! What a configuration that is right may still run into on this machine: `lb check` says it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use lb_common::ports::PortRanges;

use crate::{
    config::{Config, Mode, Service, Target},
    netlink::{Netlink, NetlinkError, Prefix},
};

/// What the routes of this machine say about the modes of the services, one sentence each.
///
/// Errors: the kernel does not list its interfaces.
pub async fn advice(netlink: &Netlink, config: &Config) -> Result<Vec<String>, NetlinkError> {
    let servers = config.services.iter().flat_map(|service| members(config, &service.target));
    let subnets = netlink.shared_subnets(servers.map(|(_, address)| address.ip())).await?;
    let shared = |server: IpAddr| subnets.keys().find(|subnet| subnet.contains(server)).copied();
    Ok(config.services.iter().flat_map(|service| about(config, service, shared)).collect())
}

/// What is to be said about one service; `shared` is the subnet that a server shares with this machine.
fn about(config: &Config, service: &Service, shared: impl Fn(IpAddr) -> Option<Prefix>) -> Vec<String> {
    let mut places: BTreeMap<Option<Prefix>, Vec<String>> = BTreeMap::new();
    for (name, address) in members(config, &service.target) {
        places.entry(shared(address.ip())).or_default().push(name);
    }
    let sentence = |(subnet, names): (Option<Prefix>, Vec<String>)| {
        let (name, names) = (&service.name, names.join(", "));
        match (service.mode, subnet) {
            (Mode::Dnat, Some(subnet)) => Some(format!(
                "{name} (dnat): {names} would answer clients in {subnet} directly, and such connections \
                 fail; if there are any, write mode = \"snat\""
            )),
            (Mode::Dsr, None) => Some(format!(
                "{name} (dsr): {names} is not on a link of this host, and only a frame of its own link reaches a \
                 server with the service's address; write mode = \"ipip\""
            )),
            _ => None,
        }
    };
    places.into_iter().filter_map(sentence).collect()
}

fn members(config: &Config, target: &Target) -> Vec<(String, SocketAddr)> {
    match target {
        Target::Backends { backends, .. } => {
            backends.iter().map(|backend| (backend.name.clone(), backend.address)).collect()
        }
        Target::Cluster { cluster, .. } => {
            let cluster = config.clusters.iter().filter(|known| known.name == *cluster);
            cluster.flat_map(|known| &known.nodes).map(|node| (node.name.clone(), node.address)).collect()
        }
    }
}

/// How many new connections to each backend `snat` can go on with for ever, one line for each version of IP in use.
pub fn sustainable(config: &Config, ports: &PortRanges) -> Vec<String> {
    let line = |version: &str, sources: usize, both: bool| {
        let of = if both { format!(" of {version}") } else { String::new() };
        let addresses = if sources > 1 { format!(" on each of {sources} addresses") } else { String::new() };
        let rate = u64::from(ports.sustainable()) * sources.max(1) as u64;
        format!(
            "source ports{of}: {}{addresses} for each backend: {rate} new connections a second to each backend can go \
             on for ever",
            ports.count()
        )
    };
    let used = |v4: bool| {
        let snat = config.services.iter().filter(|service| service.mode == Mode::Snat);
        snat.filter(|service| service.listen.address.is_ipv4() == v4).count() > 0
    };
    let sources = |v4: bool| config.sources.iter().filter(|source| source.is_ipv4() == v4).count();
    let both = used(true) && used(false);
    let versions = [("IPv4", true), ("IPv6", false)].into_iter().filter(|(_, v4)| used(*v4));
    versions.map(|(version, v4)| line(version, sources(v4), both)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SystemSecrets, parse};

    fn config(mode: &str, servers: &[&str], top: &str) -> Config {
        let service = if servers[0].contains('[') { "[2001:db8:1::10]:80" } else { "203.0.113.10:80" };
        let backends: Vec<String> = servers
            .iter()
            .enumerate()
            .map(|(at, server)| format!("{{ name = \"web{}\", address = \"{server}\" }}", at + 1))
            .collect();
        let text = format!(
            "interfaces = [\"eth0\"]\n{top}\n[[service]]\nname = \"web\"\naddress = \"{service}/tcp\"\n\
             mode = \"{mode}\"\nbackends = [{}]\n",
            backends.join(", ")
        );
        let secrets = SystemSecrets { folder: "/".into() };
        parse(&text, "lb.toml", &secrets).unwrap_or_else(|errors| panic!("{errors}"))
    }

    #[test]
    fn modes_that_the_routes_speak_against_are_named() {
        let subnets = [("10.0.0.0", 24), ("2001:db8::", 64)];
        let subnets = subnets.map(|(address, length)| Prefix { address: address.parse().unwrap(), length });
        let shared = |server: IpAddr| subnets.iter().find(|subnet| subnet.contains(server)).copied();
        let near = "would answer clients in";
        for (mode, servers, said) in [
            ("snat", &["10.0.0.11:80", "10.9.0.12:80"][..], None),
            ("dnat", &["10.9.0.11:80"], None),
            (
                "dnat",
                &["10.0.0.11:80", "10.9.0.12:80", "10.0.0.13:80"],
                Some(format!("web1, web3 {near} 10.0.0.0/24")),
            ),
            ("dnat", &["[2001:db8::11]:80"], Some(format!("web1 {near} 2001:db8::/64"))),
            ("dsr", &["10.0.0.11:80"], None),
            ("dsr", &["10.0.0.11:80", "10.9.0.12:80"], Some("web2 is not on a link of this host".to_owned())),
            ("ipip", &["10.0.0.11:80", "10.9.0.12:80"], None),
        ] {
            let config = config(mode, servers, "");
            let sentences = about(&config, &config.services[0], shared);
            assert_eq!(sentences.len(), usize::from(said.is_some()), "{mode} {servers:?}: {sentences:?}");
            assert!(
                said.is_none_or(|said| sentences[0].contains(&said)),
                "{mode} {servers:?}: {sentences:?}"
            );
        }
    }

    #[test]
    fn what_source_ports_sustain_grows_with_the_addresses_and_is_silent_without_snat() {
        let ports = PortRanges::around(1024, 65_535, (32_768, 60_999));
        let rate = ports.sustainable();
        let two = "sources = [\"10.0.0.2\", \"10.0.0.3\", \"2001:db8::2\"]";
        let lines = |config: &Config| sustainable(config, &ports);
        let one = lines(&config("snat", &["10.0.0.11:80"], ""));
        assert_eq!(one.len(), 1);
        assert!(one[0].starts_with("source ports: 36280 for each backend: 549 new connections"), "{one:?}");
        let pool = lines(&config("snat", &["10.0.0.11:80"], two));
        let wanted = format!("36280 on each of 2 addresses for each backend: {} new", 2 * rate);
        assert!(pool.len() == 1 && pool[0].contains(&wanted), "{pool:?}");
        assert!(lines(&config("dsr", &["10.0.0.11:80"], "")).is_empty());
    }
}
