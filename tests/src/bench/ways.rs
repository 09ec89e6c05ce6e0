//! Ways to a cluster of databases: what the balancer is told, and where pages write and read.

use std::net::SocketAddrV4;

use crate::lab::Setup;
use crate::lab::galera::journal::{ANY, READERS};
use crate::lab::setup::{DATABASE, Service, database_address};

/// Nodes of the cluster.
pub const NODES: u8 = 3;
/// Who balances the databases, and what the service for writing and the one for reading are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Three backends in turn, without limits: what a balancer does that knows nothing of Galera.
    InTurn,
    /// Reads and writes go to the one writer.
    Writer,
    /// Writes go to the writer, reads to the role `reader`.
    WriterAndReaders,
    /// Both go to the role `any`.
    Any,
}

impl Way {
    /// What the table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InTurn => "plain round robin",
            Self::Writer => "`lb`: one `writer` for both",
            Self::WriterAndReaders => "`lb`: `writer`, reads by `reader`",
            Self::Any => "`lb`: `any` for both",
        }
    }

    /// Where pages write, and where they read.
    pub const fn addresses(self) -> [SocketAddrV4; 2] {
        match self {
            Self::InTurn | Self::Writer => [DATABASE, DATABASE],
            Self::WriterAndReaders => [DATABASE, READERS],
            Self::Any => [ANY, ANY],
        }
    }

    /// The balancer's configuration.
    pub fn configuration(self) -> String {
        match self {
            Self::InTurn => in_turn(),
            Self::Writer | Self::WriterAndReaders | Self::Any => roles(),
        }
    }
}

/// A service over three databases that somebody has told nothing but their addresses.
fn in_turn() -> String {
    let backend = |number| (format!("db{number}"), (database_address(number), 3306).into(), 100);
    let service = Service {
        name: "db",
        address: format!("{DATABASE}/tcp"),
        backends: (1..=NODES).map(backend).collect(),
        lines: "algorithm = \"round-robin\"\ncheck = { type = \"mysql\", user = \"mon\", password-file = \"db.pw\" }",
    };
    Setup::new().service(&service).text()
}

/// The cluster with a service for each role, and nothing else: `lb` finds out by itself how many connections a node
/// has room for, and holds back those beyond.
fn roles() -> String {
    let service = |(name, address, role): (&str, SocketAddrV4, &str)| {
        format!(
            "[[service]]\nname = \"{name}\"\naddress = \"{address}/tcp\"\ncluster = \"db\"\nrole = \"{role}\"\n\n"
        )
    };
    let services = [("db-write", DATABASE, "writer"), ("db-read", READERS, "reader"), ("db-any", ANY, "any")]
        .map(service);
    let node = |number: u8| {
        let address = database_address(number);
        format!("  {{ name = \"db{number}\", address = \"{address}:3306\", priority = {number} }},\n")
    };
    let nodes: String = (1..=NODES).map(node).collect();
    let cluster = format!(
        "[[cluster]]\nname = \"db\"\ntype = \"galera\"\nmonitor = {{ user = \"mon\", password-file = \"db.pw\" }}\n\
         nodes = [\n{nodes}]"
    );
    Setup::new().toml(&(services.concat() + &cluster)).text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_userspace::config;

    #[test]
    fn what_the_balancer_is_told_is_a_configuration_without_errors() {
        struct Password;
        impl config::SecretSource for Password {
            fn file(&self, _: &std::path::Path) -> std::io::Result<String> {
                Ok("mon\n".to_owned())
            }
            fn variable(&self, _: &str) -> Option<String> {
                None
            }
        }
        for (way, services, clusters) in [(Way::InTurn, 1, 0), (Way::Writer, 3, 1)] {
            let text = way.configuration();
            let parsed = config::parse(&text, "lb.toml", &Password);
            let parsed = parsed.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!((parsed.services.len(), parsed.clusters.len()), (services, clusters));
        }
    }
}
