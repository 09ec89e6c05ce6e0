//! What the agent decides about a cluster, line by line as it logs it: the exact transitions of a story.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use crate::lab::setup::{DATABASE, Setup};
use crate::lab::{Balancer, Result, wait_for};

/// The service `db-read`.
pub const READERS: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 102), 3306);
/// The service `db-any`.
pub const ANY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 103), 3306);

/// How long a decision may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The cluster `db` of `db1`, `db2` and `db3` behind a service for each role: `db-write`, `db-read` and `db-any`. The
/// nodes are asked in this rhythm, such as `interval = "200ms", timeout = "200ms"`.
pub fn roles(rhythm: &str) -> String {
    let any = service("db-any", ANY, "any");
    Setup::new().toml(&format!("{any}{}", cluster("type = \"galera\"", rhythm))).text()
}

/// The same for servers without Galera, of which replicas may be behind as far as this (`2s`); not all can be written to,
/// so there is no `db-any`.
pub fn replicas(max_lag: &str, rhythm: &str) -> String {
    let kind = format!("type = \"mysql\"\nmax-lag = \"{max_lag}\"");
    Setup::new().toml(&cluster(&kind, rhythm)).text()
}

fn cluster(kind: &str, rhythm: &str) -> String {
    let nodes: Vec<String> = (1..=3)
        .map(|n| format!("  {{ name = \"db{n}\", address = \"10.77.0.3{n}:3306\", priority = {n} }},\n"))
        .collect();
    format!(
        "{}{}[[cluster]]\nname = \"db\"\n{kind}\n\
         monitor = {{ user = \"mon\", password-file = \"db.pw\", {rhythm} }}\nnodes = [\n{}]\n",
        service("db-write", DATABASE, "writer"),
        service("db-read", READERS, "reader"),
        nodes.concat(),
    )
}

fn service(name: &str, address: SocketAddrV4, role: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\naddress = \"{address}/tcp\"\nalgorithm = \"round-robin\"\n\
         cluster = \"db\"\nrole = \"{role}\"\n\n"
    )
}

/// The decisions of an agent from some moment on.
#[derive(Debug)]
pub struct Journal<'a> {
    balancer: &'a Balancer,
    told: usize,
}

impl<'a> Journal<'a> {
    /// From now on.
    pub fn begin(balancer: &'a Balancer) -> Self {
        let told = decisions(&balancer.log()).len();
        Self { balancer, told }
    }

    /// What has been decided and not been told yet.
    pub fn news(&self) -> Vec<String> {
        decisions(&self.balancer.log()).split_off(self.told)
    }

    /// Waits for as many decisions as these and panics unless they are these, in this order. Each is told by how it
    /// begins: `db2: Writer → NoNew: donor`, `writer db2, epoch 2`.
    pub fn expect(&mut self, expected: &[&str]) {
        let waited =
            wait_for("the agent's decisions", LIMIT, || (self.news().len() >= expected.len()).then_some(()));
        let news = self.news();
        let same = news.len() == expected.len()
            && news.iter().zip(expected).all(|(is, wanted)| is.starts_with(wanted));
        assert!(waited.is_ok() && same, "the agent decided {news:#?} instead of {expected:#?}");
        self.told += news.len();
    }

    /// Waits until the last decision begins like one of these; what was decided until then, which the caller judges.
    pub fn until(&mut self, last: &[&str]) -> Result<Vec<String>> {
        let is_last = |line: &String| last.iter().any(|wanted| line.starts_with(wanted));
        wait_for(&format!("the decision {last:?}"), LIMIT, || {
            self.news().last().is_some_and(is_last).then_some(())
        })
        .inspect_err(|_| eprintln!("decided instead: {:#?}", self.news()))?;
        let news = self.news();
        self.told += news.len();
        Ok(news)
    }
}

/// The lines about nodes' states and the writer, without date, place and the cluster's name.
fn decisions(log: &str) -> Vec<String> {
    let message = |line: &str| {
        let (_, message) = line.split_once("] ")?;
        let node = message.strip_prefix("db/").filter(|rest| rest.contains(" → "));
        let role = message.strip_prefix("db: ");
        let role = role.filter(|rest| rest.starts_with("writer ") || rest.starts_with("no writer"));
        node.or(role).map(str::to_owned)
    };
    log.lines().filter_map(message).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_told_without_date_and_place() {
        let log = "[2026-03-01T00:00:00Z INFO  lb] db/db2: Writer → NoNew: donor\n\
                   [2026-03-01T00:00:00Z WARN  lb] db: flow control: slow\n\
                   [2026-03-01T00:00:00Z INFO  lb] web/web1: up → down: refused\n\
                   [2026-03-01T00:00:00Z INFO  lb] db: writer db2, epoch 2, elected by plan: db1: donor\n";
        let told = ["db2: Writer → NoNew: donor", "writer db2, epoch 2, elected by plan: db1: donor"];
        assert_eq!(decisions(log), told);
    }
}
