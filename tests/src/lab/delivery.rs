//! What the modes need at a backend: its route, the service's address on its `lo`, the end of a tunnel.

use std::net::{IpAddr, Ipv4Addr};

use super::tunnel::Decapsulator;
use super::{Host, Result};

impl Host {
    /// Takes packets for these addresses without answering for them on the wire: on `lo`, silent in ARP
    /// (`arp_ignore` and `arp_announce` of the kernel's ip-sysctl document). Neighbour discovery answers for the
    /// addresses of the asked interface only, so an IPv6 address on `lo` is silent by itself.
    pub fn serve_on_lo(&self, addresses: &[IpAddr]) -> Result<()> {
        self.set("ipv4/conf/all/arp_ignore", "1")?;
        self.set("ipv4/conf/all/arp_announce", "2")?;
        addresses.iter().try_for_each(|address| self.add_address(*address, "lo"))
    }

    /// A backend of the mode `dnat`: everything that is not its own segment goes through the balancer.
    pub fn behind_dnat(&self, balancer: Ipv4Addr) -> Result<()> {
        self.route_default(balancer)
    }

    /// A backend of the mode `dsr`: replies go straight to the clients, `router` is the way to those elsewhere.
    pub fn behind_dsr(&self, services: &[IpAddr], router: Ipv4Addr) -> Result<()> {
        self.serve_on_lo(services)?;
        self.route_default(router)
    }

    /// A backend of the mode `ipip`: the same, and the end of a tunnel, which is held.
    pub fn behind_ipip(&self, services: &[IpAddr], router: Ipv4Addr) -> Result<Decapsulator> {
        self.behind_dsr(services, router)?;
        self.plain_frames()?;
        Decapsulator::start(self)
    }
}
