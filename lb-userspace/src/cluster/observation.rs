//! What a probe of a database node can have seen.

use crate::health::Moment;

/// One probe's result.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// What was seen.
    pub result: Seen,
    /// When. Results older than the latest of the same node are ignored.
    pub at: Moment,
}

/// The result itself.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// The node answered.
    Sample(Signals),
    /// Error 1040, too many connections.
    Saturated,
    /// Error 1045, 1129 or 1130, or trouble of this host: the monitor cannot ask, which says nothing about the node.
    MonitorDenied(String),
    /// Error 1047, the node is not ready.
    NotReady1047,
    /// The connection was refused.
    Refused {
        /// A second attempt was refused too.
        confirmed: bool,
    },
    /// No answer in time.
    TimedOut {
        /// How many probes in a row.
        failed_in_a_row: u32,
    },
}

/// `wsrep_reject_queries`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RejectQueries {
    /// Clients are served.
    #[default]
    None,
    /// Clients get error 1047.
    All,
    /// Clients get error 1047 and existing ones are cut.
    AllKill,
}

/// What a server says of the replication that it takes part in as a replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// It was not asked, as Galera nodes are not.
    #[default]
    NotAsked,
    /// It copies from nobody.
    Source,
    /// It copies from another server.
    Replica {
        /// How far it is behind, in seconds; `None` while it does not replicate.
        lag: Option<u64>,
    },
    /// The monitor may not ask; the sentence says what to type.
    Forbidden(String),
}

/// The status variables and settings that a sample holds. What a server does not have, or does not say, is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of the server that stands for itself")]
pub struct Signals {
    /// `wsrep_cluster_status` is `Primary`.
    pub primary: Option<bool>,
    /// `wsrep_ready`.
    pub ready: Option<bool>,
    /// `wsrep_connected`.
    pub connected: Option<bool>,
    /// `wsrep_local_state`: 0 Undefined, 1 Joining, 2 Donor/Desynced, 3 Joined, 4 Synced, 5 Error.
    pub local_state: Option<u8>,
    /// `wsrep_desync`: desynced by hand.
    pub desync: bool,
    /// `wsrep_reject_queries`.
    pub reject_queries: RejectQueries,
    /// `wsrep_sst_donor_rejects_queries`; means something only while the node is a donor.
    pub sst_donor_rejects: bool,
    /// `read_only` or `super_read_only`.
    pub read_only: bool,
    /// `pxc_maint_mode` is not `DISABLED`, or `offline_mode` is on.
    pub maintenance: bool,
    /// `Threads_connected`.
    pub threads_connected: Option<u64>,
    /// `max_connections`.
    pub max_connections: Option<u64>,
    /// `wsrep_local_recv_queue`, the current one.
    pub recv_queue: Option<u64>,
    /// The receive queue at which the node makes the cluster wait.
    pub fc_limit: Option<f64>,
    /// `wsrep_cluster_state_uuid`.
    pub state_uuid: Option<String>,
    /// `wsrep_cluster_conf_id`; `None` where it is 18446744073709551615, which means *unknown*.
    pub conf_id: Option<u64>,
    /// `wsrep_incoming_addresses`, split at the commas. An arbitrator shows as an empty string, and a server may
    /// write `AUTO` for all of them.
    pub members: Vec<String>,
    /// `wsrep_cluster_size`.
    pub cluster_size: Option<u32>,
    /// `wsrep_last_committed`.
    pub last_committed: Option<u64>,
    /// `wsrep_flow_control_paused_ns`, a counter.
    pub paused_ns: Option<u64>,
    /// `wsrep_flow_control_sent`, a counter.
    pub pauses_sent: Option<u64>,
    /// `wsrep_local_cert_failures` and `wsrep_local_bf_aborts` together, a counter.
    pub conflicts: Option<u64>,
    /// Of a server without Galera.
    pub replication: Replication,
}

impl Signals {
    /// The share of `max_connections` in use, where both are known.
    pub fn connections_used(&self) -> Option<f64> {
        let most = self.max_connections.filter(|most| *most > 0)?;
        Some(self.threads_connected? as f64 / most as f64)
    }

    /// How far the receive queue has filled, 1 where the node makes the cluster wait.
    pub fn queue_filled(&self) -> Option<f64> {
        let limit = self.fc_limit.filter(|limit| *limit > 0.0)?;
        Some(self.recv_queue? as f64 / limit)
    }
}
