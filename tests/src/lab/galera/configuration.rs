//! The configuration file of a node: small, not durable, quick.

use std::net::Ipv4Addr;
use std::path::Path;

use super::GaleraOptions;

/// Group timers under which a lost node is noticed after 1.8 s.
const FAST_TIMERS: &str = "evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1.5S;\
    evs.inactive_timeout=PT3S;evs.inactive_check_period=PT0.2S;evs.install_timeout=PT3S;\
    evs.join_retrans_period=PT0.3S;gmcast.peer_timeout=PT1S";

/// The settings of the data files, which the installation must share with the server.
pub(super) const DATA_FILES: [&str; 5] = [
    "innodb_data_file_path=ibdata1:4M:autoextend",
    "innodb_autoextend_increment=1",
    "innodb_log_file_size=8M",
    "innodb_flush_method=nosync",
    "innodb_doublewrite=0",
];

/// What distinguishes one node from another.
#[derive(Debug)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) address: Ipv4Addr,
    pub(super) directory: &'a Path,
    pub(super) copies: Copies<'a>,
    pub(super) options: &'a GaleraOptions,
}

/// How the servers come to have the same data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Copies<'a> {
    /// By Galera, among these members.
    Galera { members: &'a [Ipv4Addr], library: &'a Path },
    /// From the binary log of one of them; each has an id of its own.
    Log { server: u32 },
}

impl Node<'_> {
    /// The text of its `my.cnf`.
    pub(super) fn text(&self) -> String {
        let directory = self.directory.display();
        let GaleraOptions { max_connections, bind, resolve_names, .. } = self.options;
        let resolve = if *resolve_names { "" } else { "skip-name-resolve" };
        let data_files = DATA_FILES.join("\n");
        let copies = match self.copies {
            Copies::Galera { members, library } => self.galera(members, library),
            // What a primary has acknowledged outlives its process. A replica whose primary has fallen silent connects
            // anew after two seconds.
            Copies::Log { server } => format!(
                "wsrep_on=OFF\nserver_id={server}\nlog_bin=log\nlog_slave_updates=ON\nrelay_log=relay\n\
                 innodb_flush_log_at_trx_commit=1\nsync_binlog=1\nslave_net_timeout=2\n"
            ),
        };
        format!(
            "[mysqld]
user=mysql
datadir={directory}/data
tmpdir={directory}/tmp
socket={directory}/sock
pid-file={directory}/pid
bind-address={bind}
port=3306
{resolve}
binlog_format=ROW
default_storage_engine=InnoDB
innodb_autoinc_lock_mode=2
innodb_flush_log_at_trx_commit=0
{data_files}
innodb_buffer_pool_size=32M
innodb_log_buffer_size=2M
innodb_temp_data_file_path=ibtmp1:4M:autoextend
innodb_buffer_pool_dump_at_shutdown=0
innodb_buffer_pool_load_at_startup=0
key_buffer_size=1M
aria_pagecache_buffer_size=1M
query_cache_size=0
table_open_cache=200
table_definition_cache=400
max_connections={max_connections}
back_log=1024
thread_stack=256K
performance_schema=OFF
{copies}"
        )
    }

    fn galera(&self, members: &[Ipv4Addr], library: &Path) -> String {
        let Self { name, address, .. } = self;
        let library = library.display();
        let members = members.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(",");
        let timers = if self.options.fast_timers { FAST_TIMERS } else { "" };
        format!(
            "skip-log-bin
wsrep_on=ON
wsrep_provider={library}
wsrep_cluster_name=lab
wsrep_cluster_address=gcomm://{members}
wsrep_node_address={address}
wsrep_node_name={name}
wsrep_slave_threads=1
wsrep_sst_method=rsync
wsrep_sst_auth=sst:sst
wsrep_provider_options=\"gcache.size=16M;gcache.page_size=16M;gcs.fc_limit=64;{timers}\"
"
        )
    }
}
