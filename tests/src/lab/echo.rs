//! A session like a person's over SSH: one long-lived connection with a byte to and fro every 50 ms, to see
//! whether anything disturbs it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::Context;
use super::machine::join;
use super::{Host, Result};

/// The pause between two bytes.
const PAUSE: Duration = Duration::from_millis(50);
/// A byte that has not come back after this time has broken the session.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session that runs. Dropping it ends it.
#[derive(Debug)]
pub struct EchoSession {
    stopped: Arc<AtomicBool>,
    server: Option<JoinHandle<Result<()>>>,
    client: Option<JoinHandle<Result<EchoReport>>>,
}

/// What the client saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EchoReport {
    /// Bytes that came back.
    pub echoes: u64,
    /// The longest time from one echo to the next, the pause of 50 ms included.
    pub largest_gap: Duration,
    /// Why the session broke, if it did.
    pub broken: Option<String>,
}

impl EchoSession {
    /// A server on `port` of `server`'s first address, and a client on another host.
    pub fn start(server: &Host, client: &Host, port: u16) -> Result<Self> {
        Self::start_at(server, client, SocketAddrV4::new(server.address(), port))
    }

    /// The same with an address of its own for the client, such as that of a service in front of the server.
    pub fn start_at(server: &Host, client: &Host, address: SocketAddrV4) -> Result<Self> {
        let listener = server
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())))?
            .context(|| format!("cannot listen on port {}", address.port()))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let stream = client.enter(|| TcpStream::connect_timeout(&SocketAddr::V4(address), PATIENCE));
        let stream = stream?.context(|| format!("cannot connect to {address}"))?;
        let server = server.thread(move || echo(&listener));
        let client = {
            let stopped = stopped.clone();
            client.thread(move || converse(stream, &stopped))
        };
        Ok(Self { stopped, server: Some(server), client: Some(client) })
    }

    /// Ends the session and tells how it was.
    pub fn finish(mut self) -> Result<EchoReport> {
        self.end().unwrap_or_else(|| Ok(EchoReport::default()))
    }

    fn end(&mut self) -> Option<Result<EchoReport>> {
        self.stopped.store(true, Ordering::Relaxed);
        let report = self.client.take().map(join);
        if let Some(server) = self.server.take() {
            let _ = join(server);
        }
        report
    }
}

impl Drop for EchoSession {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Serves one connection to its end. The client's connection is in the queue already, so this accepts it.
fn echo(listener: &TcpListener) {
    let Ok((mut stream, _)) = listener.accept() else { return };
    let _ = stream.set_nodelay(true);
    // A connection whose end gets lost on the way must not hold the test for ever.
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let mut byte = [0];
    while matches!(stream.read(&mut byte), Ok(1)) && stream.write_all(&byte).is_ok() {}
}

fn converse(mut stream: TcpStream, stopped: &AtomicBool) -> EchoReport {
    let mut report = EchoReport::default();
    let ready = || -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))
    };
    let mut outcome = ready();
    let mut last = Instant::now();
    while outcome.is_ok() && !stopped.load(Ordering::Relaxed) {
        outcome = exchange(&mut stream, report.echoes as u8);
        if outcome.is_ok() {
            report.echoes += 1;
            report.largest_gap = report.largest_gap.max(last.elapsed());
            last = Instant::now();
            thread::sleep(PAUSE);
        }
    }
    report.broken = outcome.err().map(|error| error.to_string());
    report
}

fn exchange(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    stream.write_all(&[byte])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    if answer == [byte] { Ok(()) } else { Err(io::Error::other("another byte came back")) }
}
