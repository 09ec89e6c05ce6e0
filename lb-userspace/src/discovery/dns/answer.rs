//! What an answer says: its records, and for how long they hold. Pure.

use std::{net::IpAddr, time::Duration};

use domain::{
    base::{
        ParsedName, ParsedRecord,
        iana::{Rcode, Rtype},
        name::ToName,
        wire::ParseError,
    },
    rdata::{A, Aaaa, Srv},
};

use super::{DnsName, ask::Answer};

/// Records, and for how long they hold: as long as the first of them, aliases on the way included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<T> {
    /// In the order of the answer; not empty.
    pub all: Vec<T>,
    /// Time to live.
    pub ttl: Duration,
}

/// A server's place as a SRV record has it (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The lowest is to be used, and the others only without it.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its name.
    pub target: DnsName,
}

/// Why an answer has no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// There is no such name.
    Name,
    /// The name has no such record.
    Record,
    /// The message cannot be read.
    Sense,
}

/// The addresses of an answer to a question for A.
pub fn v4(answer: &Answer) -> Result<Records<IpAddr>, Without> {
    records(answer, |record| Ok(record.to_record::<A>()?.map(|record| IpAddr::V4(record.data().addr()))))
}

/// The addresses of an answer to a question for AAAA.
pub fn v6(answer: &Answer) -> Result<Records<IpAddr>, Without> {
    records(answer, |record| Ok(record.to_record::<Aaaa>()?.map(|record| IpAddr::V6(record.data().addr()))))
}

/// The places of an answer to a question for SRV.
pub fn places(answer: &Answer) -> Result<Records<Place>, Without> {
    records(answer, |record| Ok(record.to_record::<Srv<_>>()?.map(|record| place(record.data()))))
}

fn place(srv: &Srv<ParsedName<&[u8]>>) -> Place {
    Place { priority: srv.priority(), weight: srv.weight(), port: srv.port(), target: srv.target().to_vec() }
}

type Parsed<'a> = ParsedRecord<'a, Vec<u8>>;

fn records<T>(
    answer: &Answer,
    wanted: impl Fn(&Parsed<'_>) -> Result<Option<T>, ParseError>,
) -> Result<Records<T>, Without> {
    if answer.header().rcode() == Rcode::NXDOMAIN {
        return Err(Without::Name);
    }
    let senseless = |_: ParseError| Without::Sense;
    // Aliases lead from the name that was asked for to the one that has the records.
    let owner = answer.canonical_name().ok_or(Without::Sense)?;
    let (mut all, mut ttl) = (Vec::new(), u32::MAX);
    for record in answer.answer().map_err(senseless)? {
        let record = record.map_err(senseless)?;
        let value = if record.owner().name_eq(&owner) { wanted(&record).map_err(senseless)? } else { None };
        if value.is_some() || record.rtype() == Rtype::CNAME {
            ttl = ttl.min(record.ttl().as_secs());
            all.extend(value);
        }
    }
    if all.is_empty() { Err(Without::Record) } else { Ok(Records { all, ttl: seconds(ttl) }) }
}

/// A time with its highest bit set is none (RFC 2181, 8).
fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(if ttl > i32::MAX as u32 { 0 } else { ttl.into() })
}
