//! The usual topology: a balancer, PHP nodes and Galera nodes behind it, a client in front.

use std::time::Duration;

use super::echo::EchoSession;
use super::galera::Galera;
use super::php::{PhpNode, PhpOptions};
use super::ping::Ping;
use super::setup::BALANCER;
use super::{Balancer, Host, Lab, Result};

/// Where the session to the balancer's own host ends.
const SESSION_PORT: u16 = 22;
/// The longest silence of that session and the slowest echo that nobody would notice.
const UNNOTICED: Duration = Duration::from_millis(500);

/// The whole of it. The fields are dropped in this order.
#[derive(Debug)]
pub struct Site {
    /// The agent and its data path.
    pub balancer: Balancer,
    /// `web1`, `web2`, …
    pub webs: Vec<PhpNode>,
    /// `db1`, `db2`, …; nothing if there are none.
    pub galera: Option<Galera>,
    /// Where requests come from.
    pub client: Host,
    /// What they all share.
    pub lab: Lab,
}

impl Site {
    /// Starts `webs` PHP nodes and `databases` Galera nodes, then the balancer in front of them.
    pub fn start(webs: u8, databases: u8, configuration: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_with(webs, &PhpOptions::default(), databases, configuration, arguments)
    }

    /// The same with options for PHP.
    pub fn start_with(
        webs: u8,
        options: &PhpOptions,
        databases: u8,
        configuration: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let lab = Lab::new()?;
        let host = lab.balancer_host()?;
        let client = lab.client_host()?;
        let webs = (1..=webs)
            .map(|number| PhpNode::start(&lab.web_host(number)?, options))
            .collect::<Result<_>>()?;
        let hosts = (1..=databases).map(|number| lab.database_host(number)).collect::<Result<Vec<_>>>()?;
        let galera = match &hosts[..] {
            [] => None,
            hosts => Some(Galera::start(&hosts.iter().collect::<Vec<_>>())?),
        };
        let balancer = Balancer::start(&host, configuration, arguments)?;
        Ok(Self { balancer, webs, galera, client, lab })
    }

    /// Starts to watch the balancer's own host from the client.
    pub fn watch(&self) -> Result<Bystanders> {
        let host = self.balancer.host();
        Ok(Bystanders {
            ping: Ping::start(&self.client, BALANCER)?,
            session: EchoSession::start(host, &self.client, SESSION_PORT)?,
        })
    }
}

/// What has nothing to do with the services: a ping and a session to the balancer's own host.
#[derive(Debug)]
pub struct Bystanders {
    ping: Ping,
    session: EchoSession,
}

impl Bystanders {
    /// Ends both, and panics if anything disturbed them: one lost echo, one byte that took half a second.
    pub fn assert_undisturbed(self) {
        let ping = self.ping.finish().expect("the ping can be sent");
        let session = self.session.finish().expect("the session can be read");
        assert_eq!(ping.lost, 0, "{ping:?}");
        assert!(ping.sent > 0 && ping.slowest < UNNOTICED, "{ping:?}");
        assert_eq!(session.broken, None, "{session:?}");
        assert!(session.echoes > 0 && session.largest_gap < UNNOTICED, "{session:?}");
    }
}
