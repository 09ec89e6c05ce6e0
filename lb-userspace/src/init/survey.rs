//! What this machine's routes say: where clients come in, by which address, and how the servers are reached.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{InitError, plan::Plan};
use crate::cli::Init;
use crate::netlink::{Interface, Netlink, NextHop, Obstacle, Ownership};

/// Addresses of documents (RFC 5737, RFC 3849): whoever has no route of its own for them sends there by its default
/// route. Nothing is sent.
const AFAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// How one server is reached.
struct Reached {
    server: SocketAddr,
    interface: String,
    source: IpAddr,
}

/// A plan for the servers that are `wanted`.
pub(super) async fn survey(netlink: &Netlink, wanted: &Init) -> Result<Plan, InitError> {
    let known = netlink.interfaces().await?;
    for name in &wanted.interface {
        netlink.interface(name).await?;
    }
    let mut reached = Vec::new();
    for server in wanted.php.iter().chain(&wanted.galera) {
        reached.push(reach(netlink, &known, *server).await?);
    }
    let (interfaces, warnings) = interfaces(netlink, wanted, &known, &reached).await?;
    let first = known.iter().find(|interface| interfaces.first() == Some(&interface.name));
    let first = first.ok_or_else(|| InitError::NoAddress { interface: "no interface".to_owned() })?;
    let web = service(netlink, wanted, first, &wanted.php, 80).await?;
    let database = service(netlink, wanted, first, &wanted.galera, 3306).await?;
    let mut missing = Vec::new();
    for address in [web, database].into_iter().flatten().map(|service| service.ip()) {
        if !missing.contains(&address) && netlink.ownership(address).await? == Ownership::Foreign {
            missing.push(address);
        }
    }
    let mut seen: Vec<IpAddr> =
        reached.iter().filter(|way| wanted.galera.contains(&way.server)).map(|way| way.source).collect();
    seen.sort();
    seen.dedup();
    let (php, nodes) = (wanted.php.clone(), wanted.galera.clone());
    Ok(Plan { interfaces, web, php, database, nodes, seen, missing, warnings })
}

async fn reach(netlink: &Netlink, known: &[Interface], server: SocketAddr) -> Result<Reached, InitError> {
    let way = netlink.next_hop(server.ip()).await?;
    let unreachable = |reason: String| InitError::Unreachable { server, reason };
    let hop = match (way.hop, way.obstacle) {
        (_, Some(Obstacle::Local)) => return Err(InitError::Own { server }),
        (None, obstacle) => {
            return Err(unreachable(obstacle.map_or_else(String::new, |obstacle| obstacle.to_string())));
        }
        // That a neighbour has not answered yet says nothing: it has not been asked.
        (Some(hop), _) => hop,
    };
    let interface =
        ethernet(known, &hop).map_err(|interface| InitError::NotEthernet { server, interface })?;
    let source = hop.source.ok_or_else(|| unreachable(Obstacle::NoSource.to_string()))?;
    Ok(Reached { server, interface, source })
}

/// The interface of a hop, if it carries Ethernet frames; its name in any case.
fn ethernet(known: &[Interface], hop: &NextHop) -> Result<String, String> {
    match known.iter().find(|interface| interface.index == hop.interface) {
        Some(interface) if interface.mac.is_some() => Ok(interface.name.clone()),
        Some(interface) => Err(interface.name.clone()),
        None => Err("an interface that has gone".to_owned()),
    }
}

/// Where packets come in, and what is to be said of that: clients by the default route, answers by the way to the
/// servers.
async fn interfaces(
    netlink: &Netlink,
    wanted: &Init,
    known: &[Interface],
    reached: &[Reached],
) -> Result<(Vec<String>, Vec<String>), InitError> {
    if !wanted.interface.is_empty() {
        let missed = reached.iter().filter(|way| !wanted.interface.contains(&way.interface));
        let warning = |way: &Reached| {
            let Reached { server, interface, .. } = way;
            format!("{server} is reached by {interface}: add it to `interfaces`, or its answers are not seen")
        };
        return Ok((wanted.interface.clone(), missed.map(warning).collect()));
    }
    let mut names: Vec<String> = Vec::new();
    for afar in AFAR {
        let spoken = reached.iter().any(|way| way.server.is_ipv4() == afar.is_ipv4());
        if let Some(hop) = netlink.next_hop(afar).await?.hop.filter(|_| spoken) {
            names.extend(ethernet(known, &hop));
        }
    }
    for name in reached.iter().map(|way| &way.interface) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let mut once = Vec::new();
    names.retain(|name| {
        !once.contains(name) && {
            once.push(name.clone());
            true
        }
    });
    Ok((names, Vec::new()))
}

/// Where the clients of `servers` connect to: the address that was asked for, or the first interface's own.
async fn service(
    netlink: &Netlink,
    wanted: &Init,
    first: &Interface,
    servers: &[SocketAddr],
    usual: u16,
) -> Result<Option<SocketAddr>, InitError> {
    let Some(server) = servers.first() else { return Ok(None) };
    if let Some(other) = servers.iter().find(|other| other.is_ipv4() != server.is_ipv4()) {
        return Err(InitError::Mixed { one: *server, other: *other });
    }
    let address = match wanted.address {
        Some(address) if address.is_ipv4() != server.is_ipv4() => {
            return Err(InitError::OtherVersion { address, server: *server });
        }
        Some(address) => address,
        None => own(netlink, first, server.ip()).await?,
    };
    Ok(Some(SocketAddr::new(address, Plan::port(servers, usual))))
}

/// The address of an interface that clients know it by: the one that the kernel would send from, if it is there.
async fn own(netlink: &Netlink, interface: &Interface, like: IpAddr) -> Result<IpAddr, InitError> {
    let addresses = interface.addresses.iter().map(|prefix| prefix.address);
    let mut addresses =
        addresses.filter(|address| address.is_ipv4() == like.is_ipv4() && !link_local(*address));
    let afar = AFAR[usize::from(like.is_ipv6())];
    let preferred = [netlink.next_hop(afar).await?.hop, netlink.next_hop(like).await?.hop];
    let preferred = preferred.into_iter().flatten().find_map(|hop| {
        hop.source
            .filter(|source| hop.interface == interface.index && addresses.clone().any(|own| own == *source))
    });
    let none = || InitError::NoAddress { interface: interface.name.clone() };
    preferred.or_else(|| addresses.next()).ok_or_else(none)
}

fn link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}
