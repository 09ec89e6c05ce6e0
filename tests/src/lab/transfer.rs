//! Bytes to and fro, every one of them checked, and the path MTU that both ends have learned on the way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};

use super::error::Context;
use super::server::TcpServer;
use super::{Host, Result};

/// A transfer that has stalled for so long is broken. Linux needs three unanswered retransmissions (0.2 + 0.4 +
/// 0.8 s) before it probes for a path MTU that no router has told, so a black hole ends in this.
const PATIENCE: Duration = Duration::from_secs(5);
const PIECE: usize = 16 * 1024;
/// The pattern's period, prime to every segment size.
const PERIOD: usize = 251;

/// How many bytes go each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// From the client to the server.
    pub up: u64,
    /// From the server to the client.
    pub down: u64,
}

/// What the client saw of a transfer in which each byte was as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferReport {
    /// The client's end.
    pub local: SocketAddr,
    /// The server's name.
    pub server: String,
    /// The largest segment that the client sent by the end: its `TCP_MAXSEG`.
    pub client_segment: u32,
    /// The same of the server.
    pub server_segment: u32,
    /// From the connection to the last byte.
    pub elapsed: Duration,
}

/// The server's side. Dropping it ends it.
#[derive(Debug)]
pub struct TransferServer {
    _server: TcpServer,
}

impl TransferServer {
    /// Serves transfers on `port` of all addresses of a host.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let name = host.name().to_owned();
        let serve = move |stream: std::sync::Arc<TcpStream>, _| {
            // A client that goes away, such as a health check, ends its transfer; it says so itself.
            let _ = answer(&stream, &name);
        };
        Ok(Self { _server: TcpServer::start(host, port, serve)? })
    }
}

impl Transfer {
    /// Transfers from a host to a [`TransferServer`], or to a service in front of some.
    pub fn run(self, host: &Host, server: SocketAddr) -> Result<TransferReport> {
        let outcome = host.enter(|| self.ask(server))?;
        outcome.context(|| format!("a transfer from {} to {server}", host.name()))
    }

    fn ask(self, server: SocketAddr) -> io::Result<TransferReport> {
        let start = Instant::now();
        let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        prepare(&stream)?;
        let mut way = &stream;
        way.write_all(&[self.up.to_be_bytes(), self.down.to_be_bytes()].concat())?;
        send_pattern(way, self.up)?;
        expect_pattern(way, self.down)?;
        let server_segment = u32::from_be_bytes(read_array(way)?);
        let mut name = String::new();
        way.read_to_string(&mut name)?;
        Ok(TransferReport {
            local: stream.local_addr()?,
            server: name,
            client_segment: segment(&stream)?,
            server_segment,
            elapsed: start.elapsed(),
        })
    }
}

fn answer(stream: &TcpStream, name: &str) -> io::Result<()> {
    prepare(stream)?;
    let mut way = stream;
    let up = u64::from_be_bytes(read_array(way)?);
    let down = u64::from_be_bytes(read_array(way)?);
    expect_pattern(way, up)?;
    send_pattern(way, down)?;
    way.write_all(&segment(stream)?.to_be_bytes())?;
    way.write_all(name.as_bytes())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn segment(stream: &TcpStream) -> io::Result<u32> {
    Ok(getsockopt(&stream.as_fd(), sockopt::TcpMaxSeg)?)
}

fn read_array<const N: usize>(mut way: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    way.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn send_pattern(mut way: &TcpStream, count: u64) -> io::Result<()> {
    let mut sent = 0;
    while sent < count {
        let length = (count - sent).min(PIECE as u64) as usize;
        way.write_all(&pattern(sent, length))?;
        sent += length as u64;
    }
    Ok(())
}

fn expect_pattern(mut way: &TcpStream, count: u64) -> io::Result<()> {
    let mut received = 0;
    let mut piece = vec![0; PIECE];
    while received < count {
        let length = (count - received).min(PIECE as u64) as usize;
        way.read_exact(&mut piece[..length])?;
        if piece[..length] != *pattern(received, length) {
            return Err(io::Error::other(format!("other bytes came after {received}")));
        }
        received += length as u64;
    }
    Ok(())
}

/// `length` bytes from that place of the pattern on.
pub(super) fn pattern(place: u64, length: usize) -> Vec<u8> {
    let first = (place % PERIOD as u64) as usize;
    (first..first + length).map(|place| (place % PERIOD) as u8).collect()
}
