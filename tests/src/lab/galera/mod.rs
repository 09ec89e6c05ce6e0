//! A real Galera cluster of `MariaDB` nodes.
//!
//! All nodes start from copies of one prepared data directory (see [`template`]), which have the same state
//! and position: the joiners need no state transfer, and three nodes are up in about five seconds.
//!
//! Users: `app`/`app` with all rights on the database `t`, and `mon`/`mon` with none (USAGE); the table
//! `t.a (id, v)` is there.

use std::time::Duration;

use super::{Host, Result, wait_for};

mod configuration;
pub mod journal;
mod node;
mod servers;
mod template;

pub use node::GaleraNode;
pub use servers::Servers;

/// How long a node may take to come up; a state transfer by rsync takes up to 15 s on two processors.
pub const START_LIMIT: Duration = Duration::from_mins(1);

/// `wsrep_local_state` of a node that serves.
pub const SYNCED: u8 = 4;

/// How the nodes are set up.
#[derive(Debug, Clone)]
pub struct GaleraOptions {
    /// `max_connections` of each node.
    pub max_connections: u32,
    /// The address that `MariaDB` listens on, port 3306.
    pub bind: std::net::Ipv4Addr,
    /// Whether the group timers are tuned to notice a lost node after 1.8 s instead of 6.3 s.
    pub fast_timers: bool,
    /// Whether the servers look up who connects: only then do they block hosts that leave handshakes unfinished. The
    /// balancer has a name there, on each node's own /etc/hosts.
    pub resolve_names: bool,
}

impl Default for GaleraOptions {
    fn default() -> Self {
        Self {
            max_connections: 60,
            bind: std::net::Ipv4Addr::UNSPECIFIED,
            fast_timers: true,
            resolve_names: false,
        }
    }
}

/// A cluster. Dropping it kills the nodes.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<GaleraNode>,
}

impl Galera {
    /// Starts a node on each host, and returns when all are Synced in one Primary component.
    pub fn start(hosts: &[&Host]) -> Result<Self> {
        Self::start_with(hosts, &GaleraOptions::default())
    }

    /// The same with options.
    pub fn start_with(hosts: &[&Host], options: &GaleraOptions) -> Result<Self> {
        let template = template::prepared()?;
        let members: Vec<_> = hosts.iter().map(|host| host.address()).collect();
        let nodes = hosts
            .iter()
            .map(|host| GaleraNode::prepare(host, &members, options, &template))
            .collect::<Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        cluster.bring_up()?;
        Ok(cluster)
    }

    /// Two nodes that ask at once slow each other down: each waits until the one before it is a member.
    fn bring_up(&self) -> Result<()> {
        let Some((first, joiners)) = self.nodes.split_first() else { return Ok(()) };
        first.bootstrap()?;
        for (index, joiner) in joiners.iter().enumerate() {
            joiner.launch(&[])?;
            self.wait_size_at(first, index + 2)?;
        }
        self.nodes.iter().try_for_each(|node| node.wait_state(SYNCED, START_LIMIT))
    }

    fn wait_size_at(&self, observer: &GaleraNode, size: usize) -> Result<()> {
        wait_for(&format!("a cluster of {size}"), START_LIMIT, || {
            let died = self.nodes[..size].iter().find_map(|node| node.check_alive().err());
            died.map(Err).or_else(|| (observer.size() == Some(size)).then_some(Ok(())))
        })?
    }

    /// The nodes, in the order of their hosts.
    pub fn nodes(&self) -> &[GaleraNode] {
        &self.nodes
    }

    /// The node on the host of that name.
    pub fn node(&self, name: &str) -> Option<&GaleraNode> {
        self.nodes.iter().find(|node| node.name() == name)
    }

    /// Waits until the running nodes see each other and nobody else, and all are Synced.
    pub fn wait_size(&self, size: usize, timeout: Duration) -> Result<()> {
        wait_for(&format!("all running nodes to see {size} members"), timeout, || {
            let mut running = self.nodes.iter().filter(|node| node.is_running());
            running.all(|node| node.size() == Some(size) && node.state() == Some(SYNCED)).then_some(())
        })
    }
}
