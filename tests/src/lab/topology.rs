//! A network with routers: clients in front of the balancer's segment, backends in it or behind it.
//!
//! | segment | hosts |
//! | --- | --- |
//! | 10.78.0.0/16 | clients: `client` is 10.78.1.1 |
//! | 10.88.0.0/16 | between the routers `edge` (.0.2) and `front` (.0.1), only where that link is to be small |
//! | 10.77.0.0/16 | `lb` 10.77.0.10, the services, near backends 10.77.0.21, …; `front` 10.77.0.1, `back` 10.77.0.2 |
//! | 10.89.0.0/16 | between the routers `back` (.0.1) and `rear` (.0.2), only where that link is to be small |
//! | 10.79.0.0/16 | far backends: 10.79.0.21, … |
//!
//! A small link lies between two routers, so that both ends of a connection know nothing of it until a router
//! tells them. Everything has an IPv6 address too.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::error::Error;
use super::setup::{BALANCER, web_address};
use super::tunnel::Decapsulator;
use super::{Host, Lab, Result, flood};

/// The second byte of the clients' addresses.
pub const CLIENTS: u8 = 78;
/// The second byte of the far backends' addresses.
pub const FAR: u8 = 79;
const SERVICES: u8 = 77;

const FRONT: Ipv4Addr = Ipv4Addr::new(10, SERVICES, 0, 1);
const BACK: Ipv4Addr = Ipv4Addr::new(10, SERVICES, 0, 2);
const CLIENTS_ROUTER: Ipv4Addr = Ipv4Addr::new(10, CLIENTS, 0, 1);
const FAR_ROUTER: Ipv4Addr = Ipv4Addr::new(10, FAR, 0, 1);
const BEFORE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 88, 0, 1), Ipv4Addr::new(10, 88, 0, 2)];
const BEHIND: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 89, 0, 1), Ipv4Addr::new(10, 89, 0, 2)];

/// How packets get from the balancer to a backend, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// Both addresses are rewritten.
    Snat,
    /// The destination is rewritten; replies come back through the balancer.
    Dnat,
    /// Only the MAC address is; replies go straight to the client.
    Dsr,
    /// Packets travel in packets; replies go straight to the client.
    Ipip,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Snat, Self::Dnat, Self::Dsr, Self::Ipip];
}

/// As it is typed in a configuration.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Snat => "snat",
            Self::Dnat => "dnat",
            Self::Dsr => "dsr",
            Self::Ipip => "ipip",
        })
    }
}

/// What is out of the ordinary.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// The MTU of the link between clients and balancer.
    pub before: Option<u16>,
    /// The MTU of the link between balancer and far backends.
    pub behind: Option<u16>,
    /// Whether what far backends send to clients goes through the balancer, as `dnat` needs it.
    pub back_through_balancer: bool,
}

/// The network. Backends are added to it.
#[derive(Debug)]
pub struct Topology {
    /// `lb`, ready for redirected frames.
    pub balancer: Host,
    /// Where connections come from.
    pub client: Host,
    /// The router between clients and balancer, on the balancer's side.
    pub front: Host,
    /// The router between balancer and far backends, on the balancer's side.
    pub back: Host,
    /// The routers at the other ends of the small links.
    pub others: Vec<Host>,
    /// What they all share.
    pub lab: Lab,
}

/// A host that serves, and the end of its tunnel.
#[derive(Debug)]
pub struct Backend {
    /// Where the servers run.
    pub host: Host,
    /// The tunnel's end in the mode `ipip`.
    pub tunnel: Option<Decapsulator>,
}

impl Topology {
    /// All links of 1,500 bytes.
    pub fn new() -> Result<Self> {
        Self::with(&Plan::default())
    }

    /// The same with a plan.
    pub fn with(plan: &Plan) -> Result<Self> {
        let lab = Lab::new()?;
        let balancer = lab.balancer_host()?;
        let (front, edge) = routers(&lab, ["front", "edge"], FRONT, BEFORE, CLIENTS_ROUTER, plan.before)?;
        let (back, rear) = routers(&lab, ["back", "rear"], BACK, BEHIND, FAR_ROUTER, plan.behind)?;
        balancer.route(CLIENTS, FRONT)?;
        balancer.route(FAR, BACK)?;
        front.route(FAR, BACK)?;
        back.route(CLIENTS, if plan.back_through_balancer { BALANCER } else { FRONT })?;
        if edge.is_some() {
            front.route(CLIENTS, BEFORE[1])?;
        }
        if rear.is_some() {
            back.route(FAR, BEHIND[1])?;
        }
        // What answers a flood's spoofed sources vanishes here, without ICMP errors that nobody would get.
        for network in [flood::SOURCES_4, flood::SOURCES_6] {
            front.swallow(network)?;
            back.swallow(network)?;
        }
        let client = client_on(&lab, "client", 1)?;
        let others = edge.into_iter().chain(rear).collect();
        Ok(Self { balancer, client, front, back, others, lab })
    }

    /// Another client, 10.78.`number`.1.
    pub fn another_client(&self, name: &str, number: u8) -> Result<Host> {
        client_on(&self.lab, name, number)
    }

    /// The MAC address that a client's packets to a service go to first, for a [`flood`].
    pub fn clients_next_hop(&self) -> [u8; 6] {
        super::host::mac_of(CLIENTS_ROUTER)
    }

    /// The backend `web<number>` in the balancer's segment, set up for a mode and these services' addresses.
    pub fn near(&self, number: u8, mode: Mode, services: &[IpAddr]) -> Result<Backend> {
        let host = self.lab.web_host(number)?;
        let tunnel = match mode {
            Mode::Snat => None,
            Mode::Dnat => host.behind_dnat(BALANCER).map(|()| None)?,
            Mode::Dsr => host.behind_dsr(services, FRONT).map(|()| None)?,
            Mode::Ipip => Some(host.behind_ipip(services, FRONT)?),
        };
        Ok(Backend { host, tunnel })
    }

    /// The backend `far<number>`, 10.79.0.20 + number, behind routers, where `dsr` does not reach.
    pub fn far(&self, number: u8, mode: Mode, services: &[IpAddr]) -> Result<Backend> {
        let host = self.lab.host(&format!("far{number}"), far_address(number))?;
        let tunnel = match mode {
            Mode::Snat | Mode::Dnat => host.route_default(FAR_ROUTER).map(|()| None)?,
            Mode::Ipip => Some(host.behind_ipip(services, FAR_ROUTER)?),
            Mode::Dsr => {
                let program = "a way for the mode dsr through routers".to_owned();
                return Err(Error::Missing { program });
            }
        };
        Ok(Backend { host, tunnel })
    }
}

/// The address of the host `far<number>`.
pub const fn far_address(number: u8) -> Ipv4Addr {
    let [_, _, c, d] = web_address(number).octets();
    Ipv4Addr::new(10, FAR, c, d)
}

/// One router from the balancer's segment to another, or two with a small link between them.
fn routers(
    lab: &Lab,
    names: [&str; 2],
    inside: Ipv4Addr,
    link: [Ipv4Addr; 2],
    outside: Ipv4Addr,
    mtu: Option<u16>,
) -> Result<(Host, Option<Host>)> {
    let Some(mtu) = mtu else {
        let router = lab.router(names[0], &[inside, outside])?;
        router.take_any_source()?;
        return Ok((router, None));
    };
    let near = lab.router(names[0], &[inside, link[0]])?;
    let distant = lab.router(names[1], &[link[1], outside])?;
    near.set_mtu("eth1", mtu)?;
    distant.set_mtu("eth0", mtu)?;
    distant.route_default(link[0])?;
    near.take_any_source()?;
    distant.take_any_source()?;
    Ok((near, Some(distant)))
}

fn client_on(lab: &Lab, name: &str, number: u8) -> Result<Host> {
    let client = lab.host(name, Ipv4Addr::new(10, CLIENTS, number, 1))?;
    client.route_default(CLIENTS_ROUTER)?;
    Ok(client)
}
