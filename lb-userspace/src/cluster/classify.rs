//! Judges one node by its own answer.

use std::fmt;

use super::{Donor, Kind, Policy, Readiness, RejectQueries, Replication, Signals};

/// Why a node has its readiness. Its text is what the operator reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not probed yet.
    NeverSeen,
    /// Synced and writable.
    Synced,
    /// A server without Galera that is writable.
    Writable,
    /// `wsrep_cluster_status` is not `Primary`.
    NotPrimary,
    /// `wsrep_ready` is off.
    NotReady,
    /// Error 1047.
    Error1047,
    /// `wsrep_connected` is off.
    Disconnected,
    /// No wsrep status at all in a Galera cluster.
    NoWsrep,
    /// `wsrep_local_state` 0, 1, 5 or none.
    State(Option<u8>),
    /// Feeds a joiner, or is locked for a backup.
    Donor,
    /// Donor, and told to reject queries meanwhile.
    DonorRejects,
    /// Catching up.
    Joined,
    /// `wsrep_desync`.
    DesyncedByHand,
    /// `wsrep_reject_queries`.
    RejectsQueries(RejectQueries),
    /// `read_only`.
    ReadOnly,
    /// Maintenance mode.
    Maintenance,
    /// Nearly all connections are in use, or error 1040.
    Saturated,
    /// `read_only`, and nearly all connections are in use.
    SaturatedReader,
    /// Replicates from another server.
    Replica,
    /// Is so many seconds behind the server that it replicates from, more than it may.
    Lags(u64),
    /// Is a replica, how far behind matters, and its replication stands still.
    ReplicationStopped,
    /// Belongs to another cluster.
    Foreign,
    /// In a split brain, is not in the group that the writer is in.
    OtherSide,
    /// In a split brain of which nobody knows which group is the cluster.
    Undecided,
    /// Its view of the cluster is older than another node's.
    Stale,
    /// Connection refused.
    Refused,
    /// So many probes in a row had no answer.
    Silent(u32),
    /// The monitor's login was refused, and nothing was known before.
    MonitorDenied(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::NeverSeen => "not probed yet",
            Self::Synced => "synced",
            Self::Writable => "writable",
            Self::NotPrimary => "wsrep_cluster_status is not Primary",
            Self::NotReady => "wsrep_ready is OFF",
            Self::Error1047 => "error 1047: not ready for queries",
            Self::Disconnected => "wsrep_connected is OFF",
            Self::NoWsrep => "reports no wsrep status: Galera is not running there",
            Self::State(Some(state)) => return write!(f, "wsrep_local_state is {state}"),
            Self::State(None) => "wsrep_local_state is missing",
            Self::Donor => "donor",
            Self::DonorRejects => "donor, and wsrep_sst_donor_rejects_queries is ON",
            Self::Joined => "joined, catching up",
            Self::DesyncedByHand => "wsrep_desync is ON",
            Self::RejectsQueries(RejectQueries::AllKill) => "wsrep_reject_queries is ALL_KILL",
            Self::RejectsQueries(_) => "wsrep_reject_queries is ALL",
            Self::ReadOnly => "read_only",
            Self::Maintenance => "maintenance mode",
            Self::Saturated => "nearly all connections are in use",
            Self::SaturatedReader => "read-only, and nearly all connections are in use",
            Self::Replica => "a replica",
            Self::Lags(seconds) => return write!(f, "a replica, {seconds} s behind"),
            Self::ReplicationStopped => "a replica whose replication stands still",
            Self::OtherSide => "split brain: not in the group of nodes that the writer is in",
            Self::Undecided => "split brain, and nobody knows which group is the cluster",
            Self::Foreign => "belongs to another cluster (wsrep_cluster_state_uuid differs)",
            Self::Stale => "answers with an outdated view of the cluster",
            Self::Refused => "connection refused",
            Self::Silent(probes) => return write!(f, "no answer to {probes} probes in a row"),
            Self::MonitorDenied(text) => return write!(f, "the monitor user was refused: {text}"),
        };
        f.write_str(text)
    }
}

/// A readiness with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What the node may be used for.
    pub readiness: Readiness,
    /// Why.
    pub reason: Reason,
    /// Existing connections are cut by the server itself, or should be.
    pub cut: bool,
}

impl Judgement {
    pub(super) fn new(readiness: Readiness, reason: Reason) -> Self {
        let cut = reason == Reason::RejectsQueries(RejectQueries::AllKill);
        Self { readiness, reason, cut }
    }
}

/// What a node was before, where that ends at another value than it began at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Its connections were nearly all in use.
    pub saturated: bool,
    /// It was too far behind.
    pub lagging: bool,
}

/// Judges a node by its signals alone. What only shows in comparison (foreign, stale) comes later.
pub fn classify(signals: &Signals, policy: &Policy, before: Before) -> Judgement {
    use Readiness::{NoNew, Out, Reader, Writer};
    let judge = |readiness, reason| Judgement::new(readiness, reason);
    let (good, reads_only) = match policy.kind {
        Kind::Galera => match as_galera_node(signals, policy) {
            Ok(good) => (good, signals.read_only.then_some(Reason::ReadOnly)),
            Err((readiness, reason)) => return judge(readiness, reason),
        },
        Kind::Mysql if signals.reject_queries != RejectQueries::None => {
            return judge(Out, Reason::RejectsQueries(signals.reject_queries));
        }
        Kind::Mysql => (Reason::Writable, as_plain_server(signals)),
    };
    if signals.maintenance {
        return judge(NoNew, Reason::Maintenance);
    }
    if let Some(reason) = too_far_behind(signals, policy, before.lagging) {
        return judge(NoNew, reason);
    }
    let limit = if before.saturated { policy.saturated_until } else { policy.saturated_at };
    match (reads_only, signals.connections_used().is_some_and(|used| used >= limit)) {
        (Some(_), true) => judge(NoNew, Reason::SaturatedReader),
        (Some(reason), false) => judge(Reader, reason),
        (None, true) => judge(NoNew, Reason::Saturated),
        (None, false) => judge(Writer, good),
    }
}

/// Why a node of a Galera cluster is good, or what it is instead.
fn as_galera_node(signals: &Signals, policy: &Policy) -> Result<Reason, (Readiness, Reason)> {
    use Readiness::{NoNew, Out};
    if let Some(reason) = out_of_cluster(signals) {
        return Err((Out, reason));
    }
    match signals.local_state {
        Some(2 | 4) if signals.desync => Err((NoNew, Reason::DesyncedByHand)),
        Some(4) => Ok(Reason::Synced),
        Some(2) if signals.sst_donor_rejects => Err((NoNew, Reason::DonorRejects)),
        Some(2) if policy.donor == Donor::Allow => Ok(Reason::Donor),
        Some(2) => Err((NoNew, Reason::Donor)),
        Some(3) => Err((NoNew, Reason::Joined)),
        state => Err((Out, Reason::State(state))),
    }
}

/// Why a server without Galera is not the one to write to.
fn as_plain_server(signals: &Signals) -> Option<Reason> {
    match signals.replication {
        Replication::Replica { .. } => Some(Reason::Replica),
        _ => signals.read_only.then_some(Reason::ReadOnly),
    }
}

/// Whether a replica is further behind than it may be. It is good again at half of that.
fn too_far_behind(signals: &Signals, policy: &Policy, lagging: bool) -> Option<Reason> {
    let (Some(most), Replication::Replica { lag }) = (policy.max_lag, &signals.replication) else {
        return None;
    };
    let Some(lag) = *lag else { return Some(Reason::ReplicationStopped) };
    let most = if lagging { most / 2 } else { most };
    (lag > most.as_secs()).then_some(Reason::Lags(lag))
}

/// What puts a Galera node out at once, whatever else it says.
fn out_of_cluster(signals: &Signals) -> Option<Reason> {
    let primary = signals.primary.ok_or(Reason::NoWsrep);
    match primary {
        Err(reason) => Some(reason),
        Ok(false) => Some(Reason::NotPrimary),
        Ok(true) if signals.ready != Some(true) => Some(Reason::NotReady),
        Ok(true) if signals.connected == Some(false) => Some(Reason::Disconnected),
        Ok(true) if signals.reject_queries != RejectQueries::None => {
            Some(Reason::RejectsQueries(signals.reject_queries))
        }
        Ok(true) => None,
    }
}
