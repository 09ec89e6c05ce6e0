//! What the machine has to offer: its kernel, our privileges, its interfaces and addresses, its memory and ports.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use lb_common::{
    Be32,
    abi::{Layout, Stations},
    flow::{Bucket, SLOTS},
    ports::PortRanges,
};
use rand::Rng as _;

use super::start::StartError;
use crate::{
    config::{self, Config, Target, XdpMode},
    dataplane::{DataplaneError, Kind, Mode, Port},
    listen::Protocol,
    netlink::{self, Interface, Netlink, NetlinkError, Ownership},
};

/// Bytes of kernel memory that a flow costs: a slot of a bucket.
const FLOW_BYTES: u64 = (size_of::<Bucket<Be32>>() / SLOTS) as u64;

/// Flows that a table has room for whose version of IP no service speaks yet.
const IDLE_FLOWS: u64 = 1 << 12;

/// The largest MTU whose packets' checksums a native program can make whole: what `lb_sum_far` of the data path reaches.
const SUMMABLE_MTU: u32 = 9_216;

/// Flows at most, unless the configuration says otherwise.
const MAX_FLOWS: u64 = 1 << 20;

/// Linux 6.1 and newer.
pub(super) fn kernel_is_new_enough() -> Result<(), StartError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map(|part| part.trim().parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 1) { Err(StartError::Kernel { found: release.trim().to_owned() }) } else { Ok(()) }
}

/// Bits of capabilities (include/uapi/linux/capability.h).
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON_AND_BPF: u64 = 0b11 << 38;

/// Without the capabilities everything else would fail later, and in words that help less.
pub(super) fn may_load_programs() -> Result<(), StartError> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX);
    let bpf = held & CAP_PERFMON_AND_BPF == CAP_PERFMON_AND_BPF || held & CAP_SYS_ADMIN != 0;
    if bpf && held & CAP_NET_ADMIN != 0 { Ok(()) } else { Err(DataplaneError::NotPermitted.into()) }
}

/// The interfaces of the configuration, and proof that each service's address and each source is on this host.
pub async fn interfaces(netlink: &Netlink, config: &Config) -> Result<Vec<Interface>, NetlinkError> {
    let mut found = Vec::new();
    for name in &config.interfaces {
        found.push(netlink.interface(name).await?);
    }
    let suggestion = config.interfaces.first().map_or("eth0", String::as_str);
    let services = config.services.iter().map(|service| service.listen.address);
    for address in services.chain(config.sources.iter().copied()) {
        require_ours(netlink, address, suggestion).await?;
    }
    Ok(found)
}

/// Proof that an address that others send to is this host's: on an interface, or by a route of type `local`.
async fn require_ours(netlink: &Netlink, address: IpAddr, suggestion: &str) -> Result<(), NetlinkError> {
    if netlink.require_local(address, suggestion).await? == Ownership::Routed && address.is_ipv6() {
        log::warn!(
            "{address}: no interface has it, only a route of type `local`; nobody answers neighbour discovery for it, so a router must send it here"
        );
    }
    Ok(())
}

/// The source ports that are not the host's own.
///
/// Errors: none are left.
pub fn source_ports(config: &Config) -> Result<PortRanges, StartError> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    let local = (numbers.next().unwrap_or(32768), numbers.next().unwrap_or(60999));
    let (first, last) = config.source_ports.map_or((1024, 65535), |ports| (ports.first, ports.last));
    let ports = PortRanges::around(first, last, local);
    if ports.count() == 0 { Err(StartError::NoPorts { local }) } else { Ok(ports) }
}

/// The layout of a data path that is made anew: at most a million flows or 2 % of memory.
pub(super) fn layout(config: &Config) -> Result<Layout, StartError> {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(1 << 20);
    let affordable = kilobytes * 1024 / 50 / FLOW_BYTES;
    let flows = config.max_flows.map_or(MAX_FLOWS.min(affordable), u64::from);
    Ok(Layout {
        seed: rand::rng().random(),
        ports: source_ports(config)?,
        buckets: [buckets(config, flows, true), buckets(config, flows, false)],
        blocks: [blocks(config, true), blocks(config, false)],
    })
}

/// Buckets of a flow table that has room for `flows` flows of one version of IP: a power of two. A version that no
/// service speaks gets a small one, for services may come.
fn buckets(config: &Config, flows: u64, v4: bool) -> u32 {
    let spoken = config.services.iter().any(|service| service.listen.address.is_ipv4() == v4);
    let flows = if spoken { flows } else { flows.min(IDLE_FLOWS) };
    // Buckets begin to overflow where three slots of four are taken (lb_common::flow).
    (flows * 4 / 3).div_ceil(SLOTS as u64).next_power_of_two().clamp(1, 1 << 20) as u32
}

/// Blocks of port cells for one version of IP: one for each server and source address of `snat`, twice, so that
/// backends can come while the old ones' connections end.
fn blocks(config: &Config, v4: bool) -> u32 {
    let snat = config
        .services
        .iter()
        .filter(|service| service.mode == config::Mode::Snat && service.listen.address.is_ipv4() == v4);
    let servers: BTreeSet<(Protocol, SocketAddr)> = snat
        .flat_map(|service| {
            addresses(config, &service.target).into_iter().map(|server| (service.listen.protocol, server))
        })
        .collect();
    let sources = config.sources.iter().filter(|source| source.is_ipv4() == v4).count();
    (2 * servers.len() * sources.max(1)).max(16) as u32
}

/// The backends of a target.
pub(super) fn addresses(config: &Config, target: &Target) -> Vec<SocketAddr> {
    match target {
        Target::Backends { backends, .. } => backends.iter().map(|backend| backend.address).collect(),
        Target::Cluster { cluster, .. } => config
            .clusters
            .iter()
            .filter(|known| known.name == *cluster)
            .flat_map(|known| known.nodes.iter().map(|node| node.address))
            .collect(),
    }
}

/// The names of interfaces that patterns of the configuration speak of and that are there. None is no error, but a
/// warning.
pub(super) fn matching(all: &[Interface], config: &Config) -> Vec<String> {
    let mut names = Vec::new();
    for pattern in &config.patterns {
        let before = names.len();
        names.extend(all.iter().map(|there| there.name.clone()).filter(|name| pattern.matches(name)));
        if names.len() == before {
            log::warn!("{pattern}: no interface is called like this yet; those that appear are attached to");
        }
    }
    names
}

/// An interface of a pattern: whoever made it has made its other end too. What comes in there is a container's, whichever
/// address of this host, or of a bridge that it may become a port of later, it is for.
pub(super) fn appeared(interface: &Interface, mode: XdpMode) -> Result<(Port, [u8; 6]), StartError> {
    let (port, mac) = port(interface, &[], mode)?;
    Ok((Port { untouched: true, stations: Stations::ANY, ..port }, mac))
}

/// `all`: the interfaces of this network namespace.
pub(super) fn port(
    interface: &Interface,
    all: &[Interface],
    mode: XdpMode,
) -> Result<(Port, [u8; 6]), StartError> {
    let mac = interface.mac.ok_or_else(|| StartError::NotEthernet { name: interface.name.clone() })?;
    let kind = match interface.driver.as_deref().or(interface.kind.as_deref()) {
        Some("veth") => Kind::Veth,
        Some("virtio_net" | "tun" | "tap" | "bridge" | "macvlan") => Kind::Virtual,
        _ => Kind::Physical,
    };
    let running = interface.xdp.as_ref().map(|xdp| {
        let mode = if xdp.mode == netlink::XdpMode::Generic { Mode::Generic } else { Mode::Native };
        (xdp.program_id, mode)
    });
    let mode = match mode {
        XdpMode::Auto if kind != Kind::Physical && interface.mtu > SUMMABLE_MTU => {
            log::warn!(
                "{}: generic, and so slower: with an MTU of {} a local sender's checksum lies out of reach of a native program",
                interface.name,
                interface.mtu
            );
            Some(Mode::Generic)
        }
        XdpMode::Auto => None,
        XdpMode::Native => Some(Mode::Native),
        XdpMode::Generic => Some(Mode::Generic),
    };
    let mtu = interface.mtu.min(u16::MAX.into()) as u16;
    let stations = Stations::of(&interface.stations(all));
    let port = Port {
        name: interface.name.clone(),
        index: interface.index,
        id: 0,
        kind,
        mode,
        stations,
        running,
        mtu,
        untouched: false,
    };
    Ok((port, mac))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SystemSecrets, parse};

    #[test]
    fn there_are_blocks_for_each_server_and_source_of_snat_twice_and_some_to_spare() {
        let servers = |first: u8| {
            let list =
                (first..first + 10).map(|at| format!("{{ name = \"a{at}\", address = \"10.0.0.{at}:80\" }}"));
            format!("backends = [{}]\n", list.collect::<Vec<_>>().join(", "))
        };
        let service = |name: &str, lines: &str, first: u8| {
            let servers = servers(first);
            format!("[[service]]\nname = \"{name}\"\naddress = \"203.0.113.10:{lines}\n{servers}")
        };
        let snat = service("a", "80/tcp\"", 1);
        let shared = service("b", "81/tcp\"", 1);
        let udp = service("c", "80/udp\"\ncheck = { type = \"tcp\", port = 80 }", 1);
        let others = service("d", "82/tcp\"", 101);
        let dnat = service("e", "83/tcp\"\nmode = \"dnat\"", 201);
        let two = "sources = [\"10.0.0.250\", \"10.0.0.251\", \"2001:db8::1\"]\n";
        for (top, services, v4) in [
            ("", vec![&dnat], 16),
            ("", vec![&snat, &dnat], 20),
            ("", vec![&snat, &shared], 20),
            ("", vec![&snat, &udp], 40),
            ("", vec![&snat, &others], 40),
            (two, vec![&snat, &others], 80),
        ] {
            let services: String = services.into_iter().cloned().collect();
            let text = format!("interfaces = [\"eth0\"]\n{top}{services}");
            let config = parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() });
            let config = config.unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!((blocks(&config, true), blocks(&config, false)), (v4, 16), "{text}");
        }
    }
}
