//! Servers for the probes' tests: ones that lie, and real ones. All on 127.0.0.1, all gone when dropped.

use std::net::SocketAddr;
use std::time::Duration;

/// Long enough for any answer on loopback, on a busy machine too.
pub const SECOND: Duration = Duration::from_secs(1);

/// An address where nobody listens.
pub fn refusing_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
