//! The other end of a probe: its address, the moment by which it must have answered, and the names of its failures.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Failure, FailureKind, LIMIT};

/// Room for what most answers are no longer than.
const ANSWER: usize = 2048;

/// Says what is written at once, also while something before it has not been acknowledged, where several things are said.
pub(super) fn say_at_once(stream: &TcpStream) {
    // Only a delay is at stake, and a socket that died meanwhile says so at its first read.
    let _ = stream.set_nodelay(true);
}

/// Who is asked, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub addr: SocketAddr,
    started: Instant,
    timeout: Duration,
}

impl Peer {
    pub fn new(addr: SocketAddr, timeout: Duration) -> Self {
        Self { addr, started: Instant::now(), timeout }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Runs one step before the deadline. `waiting` completes the sentence "… did not answer within 1s: …".
    pub async fn step<T>(
        &self,
        waiting: &str,
        step: impl Future<Output = io::Result<T>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout_at(self.started + self.timeout, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.io_failure(waiting, &error)),
            Err(_) => Err(self.timed_out(waiting)),
        }
    }

    /// A TCP connection for one request, which leaves at once, for nothing is on its way before it.
    pub async fn connect(&self) -> Result<TcpStream, Failure> {
        self.step("no connection was established", TcpStream::connect(self.addr)).await
    }

    /// Reads once into `buffer`, which never grows beyond [`LIMIT`]; 0 means that the peer has ended.
    pub async fn read_some(
        &self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut Vec<u8>,
    ) -> Result<usize, Failure> {
        let room = LIMIT.saturating_sub(buffer.len());
        if room == 0 {
            return Err(
                self.failure(FailureKind::TooLarge, format!("sent more than {LIMIT} bytes for one answer"))
            );
        }
        // A vector that is read into would grow by 64 bytes otherwise, with a system call for each.
        buffer.reserve(room.min(ANSWER));
        let mut chunk = stream.take(room.min(8192) as u64);
        self.step("its answer is not complete", chunk.read_buf(buffer)).await
    }

    /// `what` completes the sentence that begins with the address.
    pub fn failure(&self, kind: FailureKind, what: impl AsRef<str>) -> Failure {
        Failure::new(kind, format!("{} {}", self.addr, what.as_ref()))
    }

    pub fn closed(&self, waiting: &str) -> Failure {
        self.failure(FailureKind::Closed, format!("closed the connection: {waiting}"))
    }

    fn timed_out(&self, waiting: &str) -> Failure {
        self.failure(FailureKind::TimedOut, format!("did not answer within {:?}: {waiting}", self.timeout))
    }

    fn io_failure(&self, waiting: &str, error: &io::Error) -> Failure {
        match error.kind() {
            ErrorKind::ConnectionRefused => self.failure(
                FailureKind::Refused,
                "refused the connection: nothing listens there, or a firewall rejects it",
            ),
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                self.failure(FailureKind::Unreachable, format!("cannot be reached: {error}"))
            }
            ErrorKind::TimedOut => self.timed_out(waiting),
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof => self.closed(waiting),
            _ if error.raw_os_error() == Some(libc::EHOSTDOWN) => {
                self.failure(FailureKind::Unreachable, format!("cannot be reached: {error}"))
            }
            _ => self.failure(FailureKind::Local, format!("could not be asked from this host: {error}")),
        }
    }
}
