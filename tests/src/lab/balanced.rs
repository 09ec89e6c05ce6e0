//! A [`Topology`] with the balancer in front of two backends of each mode: what the tests of the complete data path
//! have in common.
//!
//! | service | address | backends |
//! | --- | --- | --- |
//! | `snat-4`, `snat-6` | 10.77.0.101, `fd00:77::101` | `web1`, `web2` |
//! | `dnat-4`, `dnat-6` | 10.77.0.102, … | `web3`, `web4` |
//! | `dsr-4`, `dsr-6` | 10.77.0.103, … | `web5`, `web6` |
//! | `ipip-4`, `ipip-6` | 10.77.0.104, … | `far7`, `far8` |
//!
//! With a small link behind the balancer those of `snat` and `dnat` are `far1`, … too.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::topology::{Backend, Mode, Plan, Topology};
use super::{Balancer, Family, Host, Result, Setup};

/// Backends of each mode.
pub const BACKENDS: usize = 2;

/// What is wanted of it.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The network.
    pub plan: Plan,
    /// The modes, side by side.
    pub modes: &'a [Mode],
    /// The port of services and backends.
    pub port: u16,
    /// `tcp` or `udp`; the health of UDP servers is that of the TCP port with the same number.
    pub protocol: &'a str,
    /// Further lines of each service, such as `algorithm = "round-robin"`.
    pub lines: &'a str,
    /// Lines at the top of the file.
    pub top: &'a str,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            modes: &Mode::ALL,
            port: 8080,
            protocol: "tcp",
            lines: "algorithm = \"round-robin\"",
            top: "",
        }
    }
}

/// All of it. The fields are dropped in this order.
#[derive(Debug)]
pub struct Balanced<S> {
    /// The agent and its data path.
    pub balancer: Balancer,
    /// What serves on the backends, in their order.
    pub servers: Vec<S>,
    /// The backends, two of each mode in the order of the modes.
    pub backends: Vec<Backend>,
    /// The network that they are in.
    pub topology: Topology,
    modes: Vec<Mode>,
    port: u16,
}

/// The address of a mode's service.
pub const fn service_address(mode: Mode, family: Family) -> IpAddr {
    family.of(Ipv4Addr::new(10, 77, 0, 101 + mode as u8))
}

/// The name of a mode's service.
pub fn service_name(mode: Mode, family: Family) -> String {
    format!("{mode}-{}", if family == Family::V4 { 4 } else { 6 })
}

impl<S> Balanced<S> {
    /// Makes the network and the backends, starts what serves on each of them, which gets the service's
    /// addresses of both families, then the balancer.
    pub fn start(wanted: &Wanted<'_>, serve: impl Fn(&Host, &[IpAddr]) -> Result<S>) -> Result<Self> {
        let topology = Topology::with(&wanted.plan)?;
        let (mut backends, mut servers) = (Vec::new(), Vec::new());
        for mode in wanted.modes {
            let services = Family::BOTH.map(|family| service_address(*mode, family));
            for place in 0..BACKENDS {
                let number = *mode as u8 * BACKENDS as u8 + place as u8 + 1;
                let far = *mode == Mode::Ipip || wanted.plan.behind.is_some() && *mode != Mode::Dsr;
                let backend = if far {
                    topology.far(number, *mode, &services)?
                } else {
                    topology.near(number, *mode, &services)?
                };
                servers.push(serve(&backend.host, &services)?);
                backends.push(backend);
            }
        }
        let addresses: Vec<_> =
            backends.iter().map(|backend| (backend.host.name().to_owned(), backend.host.address())).collect();
        let text = configuration(wanted, &addresses);
        let balancer = Balancer::start(&topology.balancer, &text, &[])?;
        Ok(Self { balancer, servers, backends, topology, modes: wanted.modes.to_vec(), port: wanted.port })
    }

    /// Where a mode is served.
    pub fn service(&self, mode: Mode, family: Family) -> SocketAddr {
        SocketAddr::new(service_address(mode, family), self.port)
    }

    /// The backends of a mode.
    pub fn backends_of(&self, mode: Mode) -> &[Backend] {
        &self.backends[self.range(mode)]
    }

    /// What serves on the backends of a mode.
    pub fn servers_of(&self, mode: Mode) -> &[S] {
        &self.servers[self.range(mode)]
    }

    /// What a backend of this mode sees as the client's address.
    pub fn seen_client(&self, mode: Mode, family: Family) -> IpAddr {
        let host = if mode == Mode::Snat { &self.topology.balancer } else { &self.topology.client };
        host.address_in(family)
    }

    fn range(&self, mode: Mode) -> std::ops::Range<usize> {
        let place = self.modes.iter().position(|other| *other == mode).unwrap_or(self.modes.len());
        place * BACKENDS..(place + 1) * BACKENDS
    }
}

/// The file: a service of each mode and family, two of the backends for each mode.
fn configuration(wanted: &Wanted<'_>, backends: &[(String, Ipv4Addr)]) -> String {
    let mut setup = Setup::new().top(wanted.top);
    for (mode, backends) in wanted.modes.iter().zip(backends.chunks(BACKENDS)) {
        for family in Family::BOTH {
            setup = setup.toml(&service(wanted, *mode, family, backends));
        }
    }
    setup.text()
}

fn service(wanted: &Wanted<'_>, mode: Mode, family: Family, backends: &[(String, Ipv4Addr)]) -> String {
    let (name, port) = (service_name(mode, family), wanted.port);
    let address = SocketAddr::new(service_address(mode, family), port);
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{address}/{}\"\nmode = \"{mode}\"\n\
         check = {{ type = \"tcp\", port = {port} }}\n{}\nbackends = [\n",
        wanted.protocol, wanted.lines
    );
    for (name, address) in backends {
        let address = SocketAddr::new(family.of(*address), port);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {{ name = \"{name}\", address = \"{address}\" }},");
    }
    text + "]"
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl lb_userspace::config::SecretSource for Nothing {
        fn file(&self, _: &std::path::Path) -> std::io::Result<String> {
            Err(std::io::ErrorKind::NotFound.into())
        }

        fn variable(&self, _: &str) -> Option<String> {
            None
        }
    }

    #[test]
    fn the_services_of_all_modes_are_a_configuration_without_errors() {
        let backends: Vec<_> =
            (1..=8).map(|number| (format!("web{number}"), Ipv4Addr::new(10, 77, 0, 20 + number))).collect();
        for (protocol, lines, top) in [
            ("tcp", "algorithm = \"round-robin\"\ntimeouts = { embryonic = \"3s\", closing = \"3s\" }", ""),
            ("tcp", "algorithm = \"least-conn\"\nmax-connections = 6", "max-flows = 4096"),
            ("tcp", "rate-limit = { per-second = 5, burst = 10 }\ntimeouts = { established = \"3s\" }", ""),
            ("udp", "algorithm = \"round-robin\"\ntimeouts = { udp = \"5s\" }", ""),
        ] {
            let wanted = Wanted { protocol, lines, top, ..Wanted::default() };
            let text = configuration(&wanted, &backends);
            let parsed = lb_userspace::config::parse(&text, "lb.toml", &Nothing);
            assert_eq!(parsed.unwrap_or_else(|error| panic!("{error}\n{text}")).services.len(), 8);
        }
    }
}
