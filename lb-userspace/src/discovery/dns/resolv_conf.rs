//! The servers of a file in the form of resolv.conf(5).

use std::{
    fs::File,
    io::{self, Read},
    net::{IpAddr, SocketAddr},
    path::Path,
};

/// More than the C library uses (`MAXNS` is 3), fewer than would take long to ask.
const MOST: usize = 4;
/// Bytes that are read of the file.
const LONGEST: u64 = 64 * 1024;
const PORT: u16 = 53;

/// Reads the servers.
pub fn servers(path: &Path) -> io::Result<Vec<SocketAddr>> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(parse(&text))
}

fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver")?.strip_prefix([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, PORT))
        .take(MOST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_the_c_library_reads_them() {
        let text = "# a comment\nsearch example.org\nnameserver 10.0.0.2\n\tnameserver\t2001:db8::53 # two\n\
                    nameserver fe80::1%eth0\nnameservers 10.0.0.3\nnameserver\noptions edns0\n";
        let wanted: Vec<SocketAddr> =
            ["10.0.0.2:53", "[2001:db8::53]:53"].map(|server| server.parse().unwrap()).into();
        assert_eq!(parse(text), wanted);
        assert_eq!(parse(&"nameserver 10.0.0.2\n".repeat(9)).len(), 4);
        assert_eq!(parse(""), []);
    }
}
