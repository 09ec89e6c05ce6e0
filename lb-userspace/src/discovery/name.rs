//! Names of members that operators can type, made of what the world calls them.

use std::{collections::HashMap, net::SocketAddr};

use super::Member;
use crate::config::parse_name;

/// As long as [`parse_name`] allows.
const LONGEST: usize = 32;

/// What the world calls a server, if that can be a member's name: in small letters, without the root's dot.
pub fn given(text: &str) -> Option<String> {
    parse_name(&text.trim_end_matches('.').to_ascii_lowercase()).ok()
}

/// A name for a server that has none: its address. Colons become dashes, and an IPv6 address that is still too long is
/// written as its 32 digits.
pub fn of(address: SocketAddr) -> String {
    let text = address.ip().to_string().replace(':', "-");
    match (address, given(&text)) {
        (_, Some(name)) => name,
        (SocketAddr::V6(v6), None) => format!("{:032x}", v6.ip().to_bits()),
        (SocketAddr::V4(_), None) => text,
    }
}

/// Sorts a set by addresses, leaves out what stands twice, and tells those apart who have the same name.
pub fn settle(members: &mut Vec<Member>) {
    members.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
    members.dedup_by_key(|member| member.address);
    let mut bearers: HashMap<String, usize> = HashMap::new();
    for member in members.iter() {
        *bearers.entry(member.name.clone()).or_default() += 1;
    }
    for member in members.iter_mut().filter(|member| bearers[&member.name] > 1) {
        member.name = apart(member.address);
    }
}

/// A name by address and port, which no two members of a set share.
fn apart(address: SocketAddr) -> String {
    let plain = format!("{}-{}", of(address), address.port());
    if plain.len() <= LONGEST {
        return plain;
    }
    // Servers of one service share their network; what differs stands at the end.
    let port = format!("-{:04x}", address.port());
    let digits = match address {
        SocketAddr::V6(v6) => format!("{:032x}", v6.ip().to_bits()),
        SocketAddr::V4(v4) => format!("{:08x}", v4.ip().to_bits()),
    };
    format!("{}{port}", &digits[digits.len().saturating_sub(LONGEST - port.len())..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_has_a_name_that_can_be_typed() {
        let table = [
            ("10.0.0.11:80", "10.0.0.11"),
            ("[2001:db8::11]:80", "2001-db8--11"),
            ("[::1:2]:80", "00000000000000000000000000010002"),
            ("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:80", "20010db8aaaabbbbccccddddeeeeffff"),
        ];
        for (address, name) in table {
            let given = of(address.parse().unwrap());
            assert_eq!(given, name);
            assert!(parse_name(&given).is_ok(), "{given}");
        }
    }

    #[test]
    fn members_of_one_name_are_told_apart_by_address_and_port() {
        let member = |name: &str, at: &str| Member {
            name: name.to_owned(),
            address: at.parse().unwrap(),
            weight: 100,
            draining: None,
        };
        let mut set = vec![
            member("web", "10.0.0.12:80"),
            member("web", "10.0.0.11:8080"),
            member("web", "10.0.0.11:80"),
            member("web", "10.0.0.11:80"),
            member("api", "10.0.0.9:80"),
            member("web", "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:9000"),
        ];
        settle(&mut set);
        let names: Vec<&str> = set.iter().map(|member| member.name.as_str()).collect();
        let long = "b8aaaabbbbccccddddeeeeffff-2328";
        assert_eq!(names[..4], ["api", "10.0.0.11-80", "10.0.0.11-8080", "10.0.0.12-80"]);
        assert!(names[4].ends_with(long), "{}", names[4]);
        assert!(names.iter().all(|name| parse_name(name).is_ok()), "{names:?}");
    }
}
