//! MariaDB servers without Galera: a primary, and replicas of it.

use super::template;
use super::{GaleraNode, GaleraOptions, START_LIMIT};
use crate::lab::{Host, Result, wait_for};

/// Who replicates, and what the monitor may see of it (MariaDB from 10.5 on). The replicas learn it from the log.
const ACCOUNTS: &str = "
    CREATE USER repl@'10.77.%' IDENTIFIED BY 'repl';
    GRANT REPLICATION SLAVE ON *.* TO repl@'10.77.%';
    GRANT REPLICA MONITOR ON *.* TO mon@'10.77.%';";

/// A primary and its replicas. Dropping it kills them.
#[derive(Debug)]
pub struct Servers {
    nodes: Vec<GaleraNode>,
}

impl Servers {
    /// Starts a server on each host, all of the same data. The first is the primary, and returns when the others replicate
    /// from it; they are `read_only`.
    pub fn start(hosts: &[&Host]) -> Result<Self> {
        let template = template::prepared()?;
        let options = GaleraOptions::default();
        let nodes = (1..)
            .zip(hosts)
            .map(|(server, host)| GaleraNode::prepare_alone(host, server, &options, &template))
            .collect::<Result<Vec<_>>>()?;
        let servers = Self { nodes };
        servers.nodes.iter().try_for_each(|node| node.launch(&[]))?;
        servers.nodes.iter().try_for_each(GaleraNode::wait_for_answer)?;
        if let Some((primary, replicas)) = servers.nodes.split_first() {
            primary.sql(ACCOUNTS)?;
            for replica in replicas {
                replica.sql("SET GLOBAL read_only=ON")?;
                replica.replicate_from(primary)?;
            }
            replicas.iter().try_for_each(|replica| replica.wait_for_all_of(primary))?;
        }
        Ok(servers)
    }

    /// The servers, in the order of their hosts.
    pub fn nodes(&self) -> &[GaleraNode] {
        &self.nodes
    }
}

impl GaleraNode {
    /// Lets a server without Galera replicate from another one, from where it stands on.
    pub fn replicate_from(&self, primary: &GaleraNode) -> Result<()> {
        let statements = format!(
            "STOP SLAVE; CHANGE MASTER TO MASTER_HOST='{}', MASTER_PORT=3306, MASTER_USER='repl', \
             MASTER_PASSWORD='repl', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=current_pos; START SLAVE",
            primary.host().address()
        );
        self.sql(&statements).map(drop)
    }

    /// Waits until a replica has applied what its primary has logged so far.
    pub fn wait_for_all_of(&self, primary: &GaleraNode) -> Result<()> {
        let logged = primary.sql("SELECT @@gtid_binlog_pos")?;
        wait_for(&format!("{} to have what {} has", self.name(), primary.name()), START_LIMIT, || {
            (self.sql("SELECT @@gtid_slave_pos").ok()? == logged).then_some(())
        })
    }
}
