//! Configurations of the balancer for the lab's usual topology, built rather than typed in every test.
//!
//! | host | address |
//! | --- | --- |
//! | `lb`, the balancer | 10.77.0.10, and the service addresses |
//! | `web1`, `web2`, … | 10.77.0.21, … |
//! | `db1`, `db2`, `db3` | 10.77.0.31, … |
//! | clients | 10.77.1.1, … |

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::{Host, Lab, Result, php};

/// The balancer's own address.
pub const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// The service `web`.
pub const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 100), 80);
/// The service `db-write`.
pub const DATABASE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 101), 3306);
/// The first client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);

/// The address of the host `web<number>`.
pub const fn web_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 20 + number)
}

/// The address of the host `db<number>`.
pub const fn database_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 30 + number)
}

impl Lab {
    /// The balancer's host, ready for redirected frames.
    pub fn balancer_host(&self) -> Result<Host> {
        let host = self.host("lb", BALANCER)?;
        host.gro_on_peer()?;
        Ok(host)
    }

    /// The host `web<number>`.
    pub fn web_host(&self, number: u8) -> Result<Host> {
        self.host(&format!("web{number}"), web_address(number))
    }

    /// The host `db<number>`.
    pub fn database_host(&self, number: u8) -> Result<Host> {
        self.host(&format!("db{number}"), database_address(number))
    }

    /// The host `client`.
    pub fn client_host(&self) -> Result<Host> {
        self.host("client", CLIENT)
    }
}

/// A configuration in the making; [`Setup::text`] is the file.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    top: String,
    rest: String,
}

/// A service over backends, as [`Setup::service`] writes it.
#[derive(Debug, Clone)]
pub struct Service<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is served, as it is typed: `10.77.0.100:80/tcp`, `[fd00:77::100]:8000-8099/udp`.
    pub address: String,
    /// Names, addresses and weights of its backends.
    pub backends: Vec<(String, SocketAddr, u32)>,
    /// Further lines, such as `algorithm = "round-robin"` or `mode = "dsr"`.
    pub lines: &'a str,
}

impl Service<'_> {
    /// The service `web` over `web1`, `web2`, … with these weights.
    pub fn web(weights: &[u32]) -> Self {
        let backend = |(number, weight): (u8, &u32)| {
            (format!("web{number}"), SocketAddr::from((web_address(number), 80)), *weight)
        };
        Self {
            name: "web",
            address: format!("{WEB}/tcp"),
            backends: (1..).zip(weights).map(backend).collect(),
            lines: "",
        }
    }
}

impl Setup {
    /// One interface, `eth0`, and nothing behind it yet.
    pub fn new() -> Self {
        Self::on("\"eth0\"")
    }

    /// The same with these interfaces, as they are typed between the brackets.
    pub fn on(interfaces: &str) -> Self {
        Self { top: format!("interfaces = [{interfaces}]\n"), rest: String::new() }
    }

    /// Adds lines at the top of the file, such as `source-ports = "20000-20999"`.
    #[must_use]
    pub fn top(mut self, lines: &str) -> Self {
        self.top.push_str(lines);
        self.top.push('\n');
        self
    }

    /// Adds a service over backends.
    #[must_use]
    pub fn service(mut self, service: &Service<'_>) -> Self {
        let Service { name, address, backends, lines } = service;
        self.add(format_args!("\n[[service]]\nname = \"{name}\"\naddress = \"{address}\"\n{lines}\n"));
        self.add(format_args!("backends = [\n"));
        for (name, address, weight) in backends {
            self.add(format_args!(
                "  {{ name = \"{name}\", address = \"{address}\", weight = {weight} }},\n"
            ));
        }
        self.add(format_args!("]\n"));
        self
    }

    /// Adds the service `web` over `web1` to `web<count>` with an HTTP check that reaches PHP, by the load of
    /// their PHP-FPM.
    #[must_use]
    pub fn web(self, count: u8) -> Self {
        let lines = format!(
            "check = {{ type = \"http\", path = \"/ping\" }}\n\
             load = {{ type = \"php-fpm\", url = \"fcgi://:{}/status\" }}",
            php::STATUS_PORT
        );
        self.service(&Service { lines: &lines, ..Service::web(&vec![100; count.into()]) })
    }

    /// Adds the service `db-write` for the writer of the cluster `db`, whose nodes are `db1` to `db<count>`.
    #[must_use]
    pub fn database(mut self, count: u8) -> Self {
        self.add(format_args!(
            "\n[[service]]\nname = \"db-write\"\naddress = \"{DATABASE}/tcp\"\ncluster = \"db\"\n\
             role = \"writer\"\n\n[[cluster]]\nname = \"db\"\ntype = \"galera\"\n\
             monitor = {{ user = \"mon\", password-file = \"db.pw\" }}\nnodes = [\n"
        ));
        for number in 1..=count {
            let address = SocketAddrV4::new(database_address(number), 3306);
            self.add(format_args!(
                "  {{ name = \"db{number}\", address = \"{address}\", priority = {number} }},\n"
            ));
        }
        self.add(format_args!("]\n"));
        self
    }

    /// Adds text as it is, such as a whole `[[service]]` that nothing here can write.
    #[must_use]
    pub fn toml(mut self, text: &str) -> Self {
        self.add(format_args!("\n{text}\n"));
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        format!("{}{}", self.top, self.rest)
    }

    fn add(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.rest.write_fmt(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setup_is_a_configuration_without_errors() {
        struct Password;
        impl lb_userspace::config::SecretSource for Password {
            fn file(&self, _: &std::path::Path) -> std::io::Result<String> {
                Ok("mon\n".to_owned())
            }
            fn variable(&self, _: &str) -> Option<String> {
                None
            }
        }
        let text = Setup::new().top("source-ports = \"20000-20999\"").web(2).database(3).text();
        let parsed = lb_userspace::config::parse(&text, "lb.toml", &Password).unwrap();
        assert_eq!((parsed.services.len(), parsed.clusters.len()), (2, 1));
        assert_eq!(parsed.clusters[0].nodes.len(), 3);
    }
}
