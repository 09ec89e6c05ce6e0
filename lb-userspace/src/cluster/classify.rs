//! Judges one node by its own answer.

use std::fmt;

use super::{Donor, Kind, Policy, Readiness, RejectQueries, Signals};

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
    /// Belongs to another cluster.
    Foreign,
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
            Self::SaturatedReader => "read_only, and nearly all connections are in use",
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

/// Judges a node by its signals alone; `saturated` says whether it was saturated before, for that ends lower than it
/// begins. What only shows in comparison (foreign, stale) comes later.
pub fn classify(signals: &Signals, policy: &Policy, saturated: bool) -> Judgement {
    use Readiness::{NoNew, Out, Reader, Writer};
    let judge = |readiness, reason| Judgement::new(readiness, reason);
    if policy.kind == Kind::Galera
        && let Some(reason) = out_of_cluster(signals)
    {
        return judge(Out, reason);
    }
    let mut good = Reason::Writable;
    if policy.kind == Kind::Galera {
        good = Reason::Synced;
        match signals.local_state {
            Some(2 | 4) if signals.desync => return judge(NoNew, Reason::DesyncedByHand),
            Some(4) => {}
            Some(2) if signals.sst_donor_rejects => return judge(NoNew, Reason::DonorRejects),
            Some(2) if policy.donor == Donor::Allow => good = Reason::Donor,
            Some(2) => return judge(NoNew, Reason::Donor),
            Some(3) => return judge(NoNew, Reason::Joined),
            state => return judge(Out, Reason::State(state)),
        }
    }
    let limit = if saturated { policy.saturated_until } else { policy.saturated_at };
    if signals.maintenance {
        judge(NoNew, Reason::Maintenance)
    } else {
        match (signals.read_only, signals.connections_used().is_some_and(|used| used >= limit)) {
            (true, true) => judge(NoNew, Reason::SaturatedReader),
            (true, false) => judge(Reader, Reason::ReadOnly),
            (false, true) => judge(NoNew, Reason::Saturated),
            (false, false) => judge(Writer, good),
        }
    }
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
