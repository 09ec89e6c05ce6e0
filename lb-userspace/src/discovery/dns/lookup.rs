//! One look-up of a name: the questions that it takes, and the members that their answers make.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use domain::base::iana::Rtype;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::{
    super::{MOST_MEMBERS, Member, WEIGHT, is_host, name},
    DnsName, Record, Resolver, Source,
    answer::{Place, Records, Without, places, v4, v6},
    ask::{Answer, ask},
    memory::Found,
    resolv_conf,
};

/// All questions of a look-up together.
const LONGEST: Duration = Duration::from_secs(15);
/// Targets of SRV records whose addresses are asked for; that many questions leave at once.
const MOST_TARGETS: usize = 64;
/// The highest weight of a member.
const MOST_WEIGHT: u32 = 1000;

/// Looks the source's name up, in at most 15 s.
pub async fn lookup(source: &Source) -> Found {
    match timeout(LONGEST, found(source)).await {
        Ok(Ok(found) | Err(found)) => found,
        Err(_elapsed) => {
            let seconds = LONGEST.as_secs();
            Found::Unknown(format!("{}: no answer of DNS within {seconds} s", source.name))
        }
    }
}

/// What came of it; an error where there is nothing to go on with.
async fn found(source: &Source) -> Result<Found, Found> {
    let servers = servers(source)?;
    let name = &source.name;
    match source.record {
        Record::A(port) | Record::Aaaa(port) => {
            let v6 = matches!(source.record, Record::Aaaa(_));
            let Records { all, ttl } = addresses(&servers, name, v6).await?;
            let member = |address| member(name::of(SocketAddr::new(address, port)), address, port, WEIGHT);
            Ok(whole(name, all.into_iter().map(member).collect(), ttl, Vec::new()))
        }
        Record::Srv => by_places(&servers, name, false).await,
        Record::SrvAaaa => by_places(&servers, name, true).await,
    }
}

fn servers(source: &Source) -> Result<Vec<SocketAddr>, Found> {
    match &source.resolver {
        Resolver::At(server) => Ok(vec![*server]),
        Resolver::File(path) => resolv_conf::servers(path)
            .map_err(|error| Found::Unknown(format!("{} cannot be read: {error}", path.display()))),
    }
}

fn member(name: String, address: IpAddr, port: u16, weight: u16) -> Member {
    Member { name, address: SocketAddr::new(address, port), weight, draining: None }
}

async fn addresses(servers: &[SocketAddr], name: &DnsName, v6: bool) -> Result<Records<IpAddr>, Found> {
    let (kind, read): (_, fn(&Answer) -> _) = if v6 { (Rtype::AAAA, self::v6) } else { (Rtype::A, self::v4) };
    records(servers, name, kind, read).await
}

async fn records<T>(
    servers: &[SocketAddr],
    name: &DnsName,
    kind: Rtype,
    read: impl FnOnce(&Answer) -> Result<Records<T>, Without>,
) -> Result<Records<T>, Found> {
    let answer =
        ask(servers, name, kind).await.map_err(|error| Found::Unknown(format!("{name} {kind}: {error}")))?;
    read(&answer).map_err(|without| match without {
        Without::Name => Found::Nothing(format!("{name} does not exist (NXDOMAIN)")),
        Without::Record => Found::Nothing(format!("{name} has no {kind} record")),
        Without::Sense => Found::Unknown(format!("{name} {kind}: the answer cannot be read")),
    })
}

/// The set, without addresses that no server has.
fn whole(name: &DnsName, mut members: Vec<Member>, ttl: Duration, mut notes: Vec<String>) -> Found {
    let strange = members.iter().map(|member| member.address.ip()).find(|address| !is_host(*address));
    if let Some(strange) = strange {
        members.retain(|member| is_host(member.address.ip()));
        notes.push(format!("{name}: {strange} is no server's address"));
    }
    if members.is_empty() {
        return Found::Unknown(notes.join("; "));
    }
    name::settle(&mut members);
    if members.len() > MOST_MEMBERS {
        notes.push(format!("{name}: only {MOST_MEMBERS} of {} servers are taken", members.len()));
        members.truncate(MOST_MEMBERS);
    }
    Found::Members(members, ttl, (!notes.is_empty()).then(|| notes.join("; ")))
}

/// Members by SRV: those of the lowest priority (RFC 2782), each with all addresses of its target.
async fn by_places(servers: &[SocketAddr], name: &DnsName, v6: bool) -> Result<Found, Found> {
    let Records { all, mut ttl } = records(servers, name, Rtype::SRV, places).await?;
    let lowest = all.iter().map(|place| place.priority).min();
    let first: Vec<Place> = all.into_iter().filter(|place| Some(place.priority) == lowest).collect();
    if first.iter().all(|place| place.target.is_root()) {
        return Err(Found::Nothing(format!("{name} is not served at this domain (its SRV target is `.`)")));
    }
    let mut targets: BTreeMap<&DnsName, Option<Records<IpAddr>>> =
        first.iter().map(|place| (&place.target, None)).collect();
    let mut notes = Vec::new();
    if targets.len() > MOST_TARGETS {
        notes.push(format!("{name}: only {MOST_TARGETS} of {} SRV targets are taken", targets.len()));
    }
    let asked = targets.keys().take(MOST_TARGETS).map(|target| addresses(servers, target, v6));
    let answers = join_all(asked).await;
    for (records, answer) in targets.values_mut().zip(answers) {
        match answer {
            Ok(answer) => {
                ttl = ttl.min(answer.ttl);
                *records = Some(answer);
            }
            // One name less is an answer; a name of which nobody knows would make a smaller set than there is.
            Err(Found::Nothing(why)) => notes.push(why),
            Err(unknown) => return Err(unknown),
        }
    }
    let weights = weights(&first);
    let mut members = Vec::new();
    for (place, weight) in first.iter().zip(weights) {
        let Some(Some(records)) = targets.get(&place.target) else { continue };
        let text = place.target.to_string();
        for address in &records.all {
            let at = SocketAddr::new(*address, place.port);
            let name = name::given(&text).unwrap_or_else(|| name::of(at));
            members.push(member(name, *address, place.port, weight));
        }
    }
    if members.is_empty() {
        return Err(Found::Nothing(notes.join("; ")));
    }
    Ok(whole(name, members, ttl, notes))
}

/// Shares of 0 to 65535 as weights of 1 to 1000 in the same proportion. Without any, all are alike; beside others, a
/// share of 0 still has "a very small chance of being selected" (RFC 2782).
fn weights(places: &[Place]) -> Vec<u16> {
    let most = places.iter().map(|place| u32::from(place.weight)).max().unwrap_or(0);
    let weight = |place: &Place| match most {
        0 => WEIGHT,
        1..=MOST_WEIGHT => place.weight.max(1),
        _ => (u32::from(place.weight) * MOST_WEIGHT / most).max(1) as u16,
    };
    places.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_weights_in_the_same_proportion() {
        let table: [(&[u16], &[u16]); 5] = [
            (&[0, 0], &[100, 100]),
            (&[60, 40], &[60, 40]),
            (&[10, 0], &[10, 1]),
            (&[65_535, 32_768, 1, 0], &[1000, 500, 1, 1]),
            (&[1001, 1000], &[1000, 999]),
        ];
        let place = |weight: &u16| Place {
            priority: 1,
            weight: *weight,
            port: 80,
            target: "web1.internal".parse().unwrap(),
        };
        for (shares, wanted) in table {
            let places: Vec<Place> = shares.iter().map(place).collect();
            assert_eq!(weights(&places), wanted, "{shares:?}");
        }
    }
}
