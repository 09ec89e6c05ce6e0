//! One node's signals, typed. Reading them is pure.

use std::collections::HashMap;

use super::Replication;

/// `wsrep_cluster_conf_id` of a node that knows none.
const NO_CONF_ID: u64 = u64::MAX;

/// `wsrep_cluster_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterStatus {
    /// The node is in the component with the quorum.
    Primary,
    /// It is in a component without quorum, or says something that is not known here.
    NonPrimary,
    /// It is in no component.
    Disconnected,
}

/// `wsrep_reject_queries`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectQueries {
    /// Queries are served.
    None,
    /// Clients get error 1047.
    All,
    /// Clients get error 1047, and those that were connected were cut.
    AllKill,
}

/// What a node said. A field is `None` where the server does not know the variable or left it empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// `wsrep_on`: false on a MariaDB that could replicate but does not.
    pub wsrep_on: Option<bool>,
    /// `wsrep_cluster_status`.
    pub cluster_status: Option<ClusterStatus>,
    /// `wsrep_ready`.
    pub ready: Option<bool>,
    /// `wsrep_connected`.
    pub connected: Option<bool>,
    /// `wsrep_local_state`: 0 initialized, 1 joining, 2 donor or desynced, 3 joined, 4 synced, 5 error.
    pub local_state: Option<u8>,
    /// `wsrep_local_state_comment`, for people.
    pub local_state_comment: Option<String>,
    /// `wsrep_desync`: desynced by hand.
    pub desync: Option<bool>,
    /// `wsrep_desync_count`: reasons to be desynced at this moment (an SST, a backup, by hand).
    pub desync_count: Option<u64>,
    /// `wsrep_reject_queries`.
    pub reject_queries: Option<RejectQueries>,
    /// `wsrep_sst_donor_rejects_queries`.
    pub sst_donor_rejects_queries: Option<bool>,
    /// `read_only` or `super_read_only`, in any of their modes but OFF.
    pub read_only: bool,
    /// `offline_mode` is ON or `pxc_maint_mode` is not DISABLED.
    pub maintenance: bool,
    /// `max_connections`.
    pub max_connections: Option<u64>,
    /// `Threads_connected`.
    pub threads_connected: Option<u64>,
    /// `Threads_running`, this monitor's own thread included.
    pub threads_running: Option<u64>,
    /// `wsrep_local_recv_queue`: write sets received and not yet applied.
    pub recv_queue: Option<u64>,
    /// `wsrep_flow_control_paused_ns`: a counter, in nanoseconds.
    pub flow_control_paused_ns: Option<u64>,
    /// `wsrep_flow_control_sent`: a counter.
    pub flow_control_sent: Option<u64>,
    /// `wsrep_local_cert_failures`: a counter.
    pub cert_failures: Option<u64>,
    /// `wsrep_local_bf_aborts`: a counter.
    pub bf_aborts: Option<u64>,
    /// `wsrep_cluster_state_uuid`.
    pub state_uuid: Option<String>,
    /// `wsrep_cluster_conf_id`; `None` also for 2⁶⁴ − 1, which stands for *unknown*.
    pub conf_id: Option<u64>,
    /// `wsrep_incoming_addresses` as listed; an arbitrator (garbd) is an empty string.
    pub incoming_addresses: Vec<String>,
    /// `wsrep_cluster_size`.
    pub cluster_size: Option<u64>,
    /// `wsrep_last_committed`; `None` also where the node has none (−1).
    pub last_committed: Option<u64>,
    /// `gcs.fc_limit` of the provider's options, as of the connection's start.
    pub fc_limit: Option<u64>,
    /// `gcs.fc_single_primary` (formerly `gcs.fc_master_slave`): the limit does not grow with the cluster.
    pub fc_limit_is_fixed: bool,
    /// Of a server without Galera, if it was asked.
    pub replication: Replication,
}

impl Sample {
    /// The members that have an address, sorted: part of a component's identity.
    pub fn members(&self) -> Vec<&str> {
        let mut members: Vec<&str> =
            self.incoming_addresses.iter().map(String::as_str).filter(|member| !member.is_empty()).collect();
        members.sort_unstable();
        members
    }

    /// The receive queue's length at which this node pauses the cluster: `gcs.fc_limit`·√size + ½
    /// (`gcs_set_fc_limit` in galera's `gcs.cpp`).
    pub fn queue_limit(&self) -> Option<u64> {
        let limit = self.fc_limit?;
        if self.fc_limit_is_fixed {
            return Some(limit);
        }
        let size = self.cluster_size.filter(|&size| size > 0)?;
        Some((limit as f64 * (size as f64).sqrt() + 0.5) as u64)
    }

    /// How busy the server is: threads that run beside this monitor's own, over `capacity`; 0 counts as 1. `None` where
    /// it does not say.
    pub fn utilisation(&self, capacity: u32) -> Option<f64> {
        let others = self.threads_running?.saturating_sub(1);
        Some(others as f64 / f64::from(capacity.max(1)))
    }

    /// Reads a sample; the error completes a sentence that begins with the node's address.
    pub(super) fn from_values(
        values: &HashMap<String, String>,
        provider_options: Option<&str>,
    ) -> Result<Self, String> {
        let get = |name: &str| {
            let value = values.get(name).map(|value| value.trim());
            value.filter(|value| !value.is_empty())
        };
        let number = |name| get(name).map(|value| parse_number(name, value)).transpose();
        let switch = |name| get(name).map(|value| parse_switch(name, value)).transpose();
        let options = |name| provider_options.and_then(|all| option(all, name));
        let state = number("wsrep_local_state")?.map(u8::try_from);
        Ok(Self {
            wsrep_on: switch("wsrep_on")?,
            cluster_status: get("wsrep_cluster_status").map(parse_cluster_status),
            ready: switch("wsrep_ready")?,
            connected: switch("wsrep_connected")?,
            local_state: state.transpose().map_err(|_| "reports a wsrep_local_state above 255".to_owned())?,
            local_state_comment: get("wsrep_local_state_comment")
                .map(|text| super::super::printable(text.as_bytes())),
            desync: switch("wsrep_desync")?,
            desync_count: number("wsrep_desync_count")?,
            reject_queries: get("wsrep_reject_queries").map(parse_reject_queries),
            sst_donor_rejects_queries: switch("wsrep_sst_donor_rejects_queries")?,
            // MariaDB 12 and later know modes between OFF and ON; none of them makes a writer.
            read_only: ["read_only", "super_read_only"]
                .into_iter()
                .any(|name| get(name).is_some_and(|value| !is_off(value))),
            maintenance: get("offline_mode").is_some_and(|value| !is_off(value))
                || get("pxc_maint_mode").is_some_and(|value| !value.eq_ignore_ascii_case("disabled")),
            max_connections: number("max_connections")?,
            threads_connected: number("threads_connected")?,
            threads_running: number("threads_running")?,
            recv_queue: number("wsrep_local_recv_queue")?,
            flow_control_paused_ns: number("wsrep_flow_control_paused_ns")?,
            flow_control_sent: number("wsrep_flow_control_sent")?,
            cert_failures: number("wsrep_local_cert_failures")?,
            bf_aborts: number("wsrep_local_bf_aborts")?,
            state_uuid: get("wsrep_cluster_state_uuid").map(str::to_ascii_lowercase),
            conf_id: number("wsrep_cluster_conf_id")?.filter(|&id| id != NO_CONF_ID),
            incoming_addresses: get("wsrep_incoming_addresses")
                .map(|list| list.split(',').map(|one| one.trim().to_owned()).collect())
                .unwrap_or_default(),
            cluster_size: number("wsrep_cluster_size")?,
            last_committed: get("wsrep_last_committed")
                .filter(|&value| value != "-1")
                .map(|value| parse_number("wsrep_last_committed", value))
                .transpose()?
                .filter(|&position| position != u64::MAX),
            fc_limit: options("gcs.fc_limit").and_then(|value| value.parse().ok()),
            fc_limit_is_fixed: ["gcs.fc_single_primary", "gcs.fc_master_slave"]
                .into_iter()
                .filter_map(options)
                .any(|value| !is_off(value)),
            replication: Replication::NotAsked,
        })
    }
}

fn parse_number(name: &str, value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| unexpected(name, value, "a number"))
}

fn parse_switch(name: &str, value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "1" | "yes" | "true" => Ok(true),
        _ if is_off(value) => Ok(false),
        _ => Err(unexpected(name, value, "ON or OFF")),
    }
}

fn unexpected(name: &str, value: &str, wanted: &str) -> String {
    let value = super::super::printable(value.as_bytes());
    format!("reports {name} as {value:?}, not as {wanted}")
}

fn is_off(value: &str) -> bool {
    ["off", "0", "no", "false"].iter().any(|off| value.eq_ignore_ascii_case(off))
}

fn parse_cluster_status(value: &str) -> ClusterStatus {
    match value.to_ascii_lowercase().as_str() {
        "primary" => ClusterStatus::Primary,
        "disconnected" => ClusterStatus::Disconnected,
        _ => ClusterStatus::NonPrimary,
    }
}

fn parse_reject_queries(value: &str) -> RejectQueries {
    match value.to_ascii_uppercase().as_str() {
        "NONE" => RejectQueries::None,
        "ALL_KILL" => RejectQueries::AllKill,
        _ => RejectQueries::All,
    }
}

/// One of the provider's options: `name = value; name = value; …`.
fn option<'a>(all: &'a str, name: &str) -> Option<&'a str> {
    all.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}
