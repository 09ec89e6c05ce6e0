//! Members by the records of a name: A, AAAA, or SRV.
//!
//! The name is asked for again when its records' time to live is over, within bounds. A server that does not answer, or
//! answers that it cannot say, changes nothing: the last good set holds ([`memory`]). Everything is bounded: a question
//! by the time for it ([`ask`]), an answer by what a message can hold, a set by what an instance has room for.
//!
//! The servers asked are recursive ones, as hosts have them in `/etc/resolv.conf`. They follow aliases (CNAME) and
//! retry without EDNS; this is a stub resolver (RFC 1034, 5.3.1) and does neither for them.

mod answer;
mod ask;
mod lookup;
mod memory;
mod resolv_conf;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::base::Name;
use tokio::{sync::mpsc, time::Instant};

use super::{Member, Members, Teller};
use memory::Memory;

/// A name in DNS, always from the root: search lists do not apply to it.
pub type DnsName = Name<Vec<u8>>;

/// A source of members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What is asked for.
    pub name: DnsName,
    /// Which of its records.
    pub record: Record,
    /// Who is asked.
    pub resolver: Resolver,
    /// The shortest and the longest time from an answer to the next question, whatever its records say.
    pub ttl: (Duration, Duration),
    /// How long the last set holds when the name is said not to exist, or to have no such record.
    pub keep: Duration,
}

/// Which records name the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// IPv4 addresses, of servers that listen on this port; 0: on the port that the client connected to.
    A(u16),
    /// IPv6 addresses, the same.
    Aaaa(u16),
    /// Names with ports, priorities and weights, and their IPv4 addresses (A).
    Srv,
    /// The same with their IPv6 addresses (AAAA).
    SrvAaaa,
}

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolver {
    /// This server.
    At(SocketAddr),
    /// The servers that a file in the form of resolv.conf(5) names at the time of the question.
    File(PathBuf),
}

impl Default for Resolver {
    fn default() -> Self {
        Self::File(Path::new("/etc/resolv.conf").to_owned())
    }
}

impl Source {
    /// See [`super::Source::run`].
    pub(super) async fn run(self, kept: Option<Vec<Member>>, out: mpsc::Sender<Members>) {
        let mut teller = Teller::new(out);
        let mut memory = Memory::new(&self, kept);
        loop {
            let found = tokio::select! {
                found = lookup::lookup(&self) => found,
                () = teller.closed() => return,
            };
            let wait = memory.take(found, Instant::now());
            if !teller.tell(memory.members()).await {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = teller.closed() => return,
            }
        }
    }
}
