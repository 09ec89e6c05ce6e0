//! What a host's kernel has counted, by the names that `nstat` uses.

use std::fs;

use super::Host;
use super::error::{Context, Error, Result};

impl Host {
    /// One of the kernel's counters since the host was made: `IpReasmOKs`, `TcpInSegs`, `UdpInDatagrams`,
    /// `Ip6ReasmOKs`, … IPv6 has files of its own, and no TCP counters: those of IPv4 count both.
    pub fn kernel_counter(&self, name: &str) -> Result<u64> {
        let files =
            ["/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6", "/proc/thread-self/net/netstat"];
        let texts = self.enter(|| files.map(fs::read_to_string))?;
        for text in texts {
            let text = text.context(|| "cannot read the kernel's counters".to_owned())?;
            if let Some(value) = in_pairs(&text, name).or_else(|| in_lines(&text, name)) {
                return Ok(value);
            }
        }
        Err(Error::Unreadable { what: format!("the counter {name}"), text: files.join(", ") })
    }
}

/// `snmp` and `netstat`: a line of names, then a line of values, both after the same prefix.
fn in_pairs(text: &str, wanted: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks_exact(2).find_map(|pair| {
        let (prefix, names) = pair[0].split_once(": ")?;
        let (_, values) = pair[1].split_once(": ")?;
        let suffix = wanted.strip_prefix(prefix)?;
        let place = names.split(' ').position(|name| name == suffix)?;
        values.split(' ').nth(place)?.parse().ok()
    })
}

/// `snmp6`: a name and a value in each line.
fn in_lines(text: &str, wanted: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == wanted).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names_in_both_forms() {
        let snmp = "Ip: Forwarding ReasmOKs\nIp: 1 7\nTcp: InSegs\nTcp: 9\n";
        assert_eq!((in_pairs(snmp, "IpReasmOKs"), in_pairs(snmp, "TcpInSegs")), (Some(7), Some(9)));
        assert_eq!((in_pairs(snmp, "IpAbsent"), in_pairs(snmp, "UdpInSegs")), (None, None));
        let snmp6 = "Ip6InReceives   \t3\nIp6ReasmOKs  \t12\n";
        assert_eq!((in_lines(snmp6, "Ip6ReasmOKs"), in_lines(snmp6, "Ip6")), (Some(12), None));
    }
}
