//! The Galera probe: everything that one node says about itself, from one persistent session.
//!
//! A bare connection or a `SELECT 1` proves nothing: both succeed on a node that is not in the primary component. So
//! each sample is one `SHOW GLOBAL STATUS` and one `SELECT` of global variables, which succeed in every state in which
//! a server accepts logins, and which need no privilege. What a sample *means* is decided elsewhere.
//!
//! A plain MySQL or MariaDB without wsrep gives a sample without the wsrep fields.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::mysql::{Encryption, Rows, Session};
use super::peer::Peer;
use super::{Failure, FailureKind};

mod replication;
mod sample;

pub use replication::Replication;
pub use sample::{ClusterStatus, RejectQueries, Sample};

/// Error 1193: the server does not know the variable.
const UNKNOWN_VARIABLE: FailureKind = FailureKind::Server(1193);

/// The status variables of a sample.
const STATUS: [&str; 17] = [
    "Threads_connected",
    "Threads_running",
    "wsrep_cluster_conf_id",
    "wsrep_cluster_size",
    "wsrep_cluster_state_uuid",
    "wsrep_cluster_status",
    "wsrep_connected",
    "wsrep_desync_count",
    "wsrep_flow_control_paused_ns",
    "wsrep_flow_control_sent",
    "wsrep_incoming_addresses",
    "wsrep_last_committed",
    "wsrep_local_bf_aborts",
    "wsrep_local_cert_failures",
    "wsrep_local_recv_queue",
    "wsrep_local_state",
    "wsrep_local_state_comment",
];
const READY: &str = "wsrep_ready";

/// The global variables of a sample, where the server knows them.
const VARIABLES: [&str; 9] = [
    "max_connections",
    "offline_mode",
    "pxc_maint_mode",
    "read_only",
    "super_read_only",
    "wsrep_desync",
    "wsrep_on",
    "wsrep_reject_queries",
    "wsrep_sst_donor_rejects_queries",
];
const PROVIDER_OPTIONS: &str = "wsrep_provider_options";

/// Values by lower-case name.
type Values = HashMap<String, String>;

/// The monitor of one node. Holds at most one connection, opened when a sample needs it.
pub struct Monitor {
    addr: SocketAddr,
    user: String,
    password: String,
    encryption: Encryption,
    timeout: Duration,
    extra_port: Option<u16>,
    asks_replication: bool,
    link: Option<Link>,
}

/// A session and what was learnt once for it.
struct Link {
    session: Session,
    /// Those of [`VARIABLES`] that this server knows.
    known: Vec<&'static str>,
    provider_options: Option<String>,
    replication: replication::Asked,
}

impl Monitor {
    /// `timeout` bounds a whole sample, with connection and login where they are needed.
    pub fn new(
        addr: SocketAddr,
        user: impl Into<String>,
        password: impl Into<String>,
        timeout: Duration,
    ) -> Self {
        Self {
            addr,
            user: user.into(),
            password: password.into(),
            encryption: Encryption::Off,
            timeout,
            extra_port: None,
            asks_replication: false,
            link: None,
        }
    }

    /// The same monitor, encrypted so.
    #[must_use]
    pub fn encrypted(self, encryption: Encryption) -> Self {
        Self { encryption, ..self }
    }

    /// Lets the monitor in by this port (MariaDB's `extra_port`) when the other one takes no more connections.
    #[must_use]
    pub fn with_extra_port(self, extra_port: Option<u16>) -> Self {
        Self { extra_port, ..self }
    }

    /// Asks about replication too, which needs a privilege; see [`Replication::Forbidden`].
    #[must_use]
    pub fn with_replication(self, asks_replication: bool) -> Self {
        Self { asks_replication, ..self }
    }

    /// Takes one sample.
    ///
    /// A connection that turns out to have died since the last sample (the server was restarted, or closed it as idle)
    /// is no evidence yet: the sample is taken once more on a new one. After a failure, and if this future is dropped
    /// half-way, the connection is given up.
    pub async fn sample(&mut self) -> Result<Sample, Failure> {
        let peer = Peer::new(self.addr, self.timeout);
        if let Some(link) = self.link.take() {
            match self.sample_on(link, &peer).await {
                Err(failure) if failure.kind == FailureKind::Closed => {}
                answer => return answer,
            }
        }
        let link = self.connect(&peer).await?;
        self.sample_on(link, &peer).await
    }

    /// Waits until the connection breaks between two samples; without a connection, for ever.
    pub async fn broken(&self) {
        match &self.link {
            Some(link) => link.session.broken().await,
            None => std::future::pending().await,
        }
    }

    /// The server's version, while connected.
    pub fn version(&self) -> Option<&str> {
        self.link.as_ref().map(|link| link.session.version())
    }

    async fn connect(&self, peer: &Peer) -> Result<Link, Failure> {
        let mut session = self.log_in(peer).await?;
        // With causal reads on, SHOW would wait for the very backlog that it shall report.
        match session.query_by(peer, "SET SESSION wsrep_sync_wait=0").await {
            Err(failure) if failure.kind != UNKNOWN_VARIABLE => return Err(failure),
            _ => {}
        }
        let mut link = Link {
            session,
            known: Vec::new(),
            provider_options: None,
            replication: replication::Asked::default(),
        };
        link.learn(peer).await?;
        Ok(link)
    }

    async fn log_in(&self, peer: &Peer) -> Result<Session, Failure> {
        let answer = self.session(peer).await;
        let answer = answer.map_err(|failure| self.with_grants(failure));
        let (Err(failure), Some(port)) = (&answer, self.extra_port) else { return answer };
        if failure.kind != FailureKind::Saturated {
            return answer;
        }
        let mut extra = *peer;
        extra.addr.set_port(port);
        // Without this way in, that the server is full is what there is to say.
        self.session(&extra).await.or(answer)
    }

    async fn session(&self, peer: &Peer) -> Result<Session, Failure> {
        Session::connect_by(peer, &self.user, &self.password, &self.encryption).await
    }

    /// An account that is to be created needs more than that for questions about replication.
    fn with_grants(&self, mut failure: Failure) -> Failure {
        if self.asks_replication && failure.detail.contains("CREATE USER") {
            failure
                .detail
                .push_str("; and GRANT REPLICA MONITOR (MariaDB) or REPLICATION CLIENT (MySQL) ON *.* TO it");
        }
        failure
    }

    async fn sample_on(&mut self, mut link: Link, peer: &Peer) -> Result<Sample, Failure> {
        let values = link.read(peer).await?;
        let mut sample = Sample::from_values(&values, link.provider_options.as_deref())
            .map_err(|what| Failure::new(FailureKind::BadAnswer, format!("{} {what}", self.addr)))?;
        if self.asks_replication {
            sample.replication = link.replication.look(&mut link.session, peer).await?;
        }
        if !link.replication.wants_new_session() {
            self.link = Some(link);
        }
        Ok(sample)
    }
}

impl Link {
    /// Finds out which variables the server knows, so that no sample runs into error 1193.
    async fn learn(&mut self, peer: &Peer) -> Result<(), Failure> {
        let names = VARIABLES.iter().chain([&PROVIDER_OPTIONS]);
        let sql = format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({})", quoted(names.copied()));
        let found = pairs(self.session.query_by(peer, &sql).await?);
        self.known = VARIABLES.into_iter().filter(|name| found.contains_key(*name)).collect();
        self.provider_options = None;
        if found.contains_key(PROVIDER_OPTIONS) {
            // SHOW cuts values at 2,048 characters, and the options are longer.
            let sql = format!("SELECT @@global.{PROVIDER_OPTIONS}");
            let rows = self.session.query_by(peer, &sql).await?;
            self.provider_options = rows.rows.into_iter().flatten().next().flatten();
        }
        Ok(())
    }

    /// The two queries of a sample.
    async fn read(&mut self, peer: &Peer) -> Result<Values, Failure> {
        let sql = format!(
            "SHOW GLOBAL STATUS WHERE Variable_name IN ({})",
            quoted(STATUS.into_iter().chain([READY]))
        );
        let mut values = pairs(self.session.query_by(peer, &sql).await?);
        let variables = match self.variables(peer).await {
            // The set of variables changed under a living session: a plugin was unloaded.
            Err(failure) if failure.kind == UNKNOWN_VARIABLE => {
                self.learn(peer).await?;
                self.variables(peer).await
            }
            answer => answer,
        }?;
        values.extend(variables);
        Ok(values)
    }

    async fn variables(&mut self, peer: &Peer) -> Result<Values, Failure> {
        if self.known.is_empty() {
            return Ok(Values::new());
        }
        let columns: Vec<String> = self.known.iter().map(|name| format!("@@global.{name}")).collect();
        let sql = format!("SELECT {}", columns.join(", "));
        let rows = self.session.query_by(peer, &sql).await?;
        let row = rows.rows.into_iter().next().unwrap_or_default();
        let named = self.known.iter().zip(row);
        Ok(named.filter_map(|(name, value)| Some(((*name).to_owned(), value?))).collect())
    }
}

fn quoted(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<String> = names.map(|name| format!("'{name}'")).collect();
    names.join(",")
}

/// The two columns of a SHOW. Names are spelled differently by different servers and statements.
fn pairs(rows: Rows) -> Values {
    rows.rows
        .into_iter()
        .filter_map(|row| match <[_; 2]>::try_from(row) {
            Ok([Some(name), Some(value)]) => Some((name.to_ascii_lowercase(), value)),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
