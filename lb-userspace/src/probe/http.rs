//! The HTTP probe: one GET in HTTP/1.1 (RFC 9112) over a connection of its own.
//!
//! Own framing over `httparse`, because the bounds are the point: at most [`LIMIT`] bytes, headers included, within one
//! time-out. HTTPS is not spoken yet.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::peer::Peer;
use super::{Failure, FailureKind, LIMIT};

/// More header lines than any status page sends.
const MAX_HEADERS: usize = 64;

/// What to ask, and which answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    addr: SocketAddr,
    path: String,
    host: String,
    status: RangeInclusive<u16>,
}

/// A path or host that cannot stand in a request line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    /// The path does not begin with a slash or holds blanks, control characters or non-ASCII.
    #[error("the path {path:?} must begin with '/' and hold printable ASCII without blanks")]
    Path {
        /// The path as given.
        path: String,
    },
    /// The host is empty or holds blanks, control characters or non-ASCII.
    #[error("the host {host:?} must be printable ASCII without blanks")]
    Host {
        /// The host as given.
        host: String,
    },
}

impl Target {
    /// `path` with its query, `host` for the Host line (name, or name:port), `status` the codes that mean *up*.
    pub fn new(
        addr: SocketAddr,
        path: impl Into<String>,
        host: impl Into<String>,
        status: RangeInclusive<u16>,
    ) -> Result<Self, InvalidTarget> {
        let (path, host) = (path.into(), host.into());
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || !printable(&path) {
            return Err(InvalidTarget::Path { path });
        }
        if host.is_empty() || !printable(&host) {
            return Err(InvalidTarget::Host { host });
        }
        Ok(Self { addr, path, host, status })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same target with one more word in its query. `word` must be plain (`json`).
    pub(super) fn with_query(&self, word: &str) -> Self {
        Self { path: add_query(&self.path, word), ..self.clone() }
    }
}

/// Adds `word` to the query of `path`.
pub(super) fn add_query(path: &str, word: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}{word}")
}

/// A good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// From the first packet to the end of the answer.
    pub elapsed: Duration,
}

/// An answer with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The status code, whatever it is.
    pub status: u16,
    /// The body, whole.
    pub body: Vec<u8>,
    /// From the first packet to the end of the answer.
    pub elapsed: Duration,
}

/// Asks once; any status within the target's range is an answer.
///
/// The answer must arrive whole. Of a page longer than [`LIMIT`] the beginning is enough, the rest is not read.
pub async fn probe(target: &Target, timeout: Duration) -> Result<Answer, Failure> {
    let peer = Peer::new(target.addr, timeout);
    let (status, _) = exchange(&peer, target, Excess::Ignored).await?;
    if !target.status.contains(&status) {
        let (from, to) = (target.status.start(), target.status.end());
        return Err(peer.failure(
            FailureKind::BadStatus,
            format!("answered {} with HTTP status {status}, not {from} to {to}", target.path),
        ));
    }
    Ok(Answer { status, elapsed: peer.elapsed() })
}

/// Asks once and returns the page, whatever its status. A page longer than [`LIMIT`] is a failure.
pub async fn get(target: &Target, timeout: Duration) -> Result<Page, Failure> {
    let peer = Peer::new(target.addr, timeout);
    let (status, body) = exchange(&peer, target, Excess::Refused).await?;
    Ok(Page { status, body, elapsed: peer.elapsed() })
}

/// What to do with an answer that is longer than the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excess {
    Ignored,
    Refused,
}

async fn exchange(peer: &Peer, target: &Target, excess: Excess) -> Result<(u16, Vec<u8>), Failure> {
    let mut stream = peer.connect().await?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: lb/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        target.path,
        target.host,
        env!("CARGO_PKG_VERSION")
    );
    peer.step("it did not take the request", stream.write_all(request.as_bytes())).await?;
    let mut raw = Vec::new();
    let head = read_head(peer, &mut stream, &mut raw).await?;
    let mut body = Body::new(head);
    loop {
        if body.advance(&raw).map_err(|what| bad_answer(peer, what))? {
            return Ok((head.status, body.decoded));
        }
        if raw.len() >= LIMIT && excess == Excess::Ignored {
            return Ok((head.status, body.decoded));
        }
        if peer.read_some(&mut stream, &mut raw).await? == 0 {
            return match body.framing {
                Framing::UntilClose => Ok((head.status, body.decoded)),
                _ => Err(peer.closed("only a part of its answer had come")),
            };
        }
    }
}

/// Reads until the header is whole, passing over interim answers (1xx).
async fn read_head(
    peer: &Peer,
    stream: &mut tokio::net::TcpStream,
    raw: &mut Vec<u8>,
) -> Result<Head, Failure> {
    let (mut start, mut seen) = (0, 0);
    loop {
        // A header can only become whole with a line's end; a server that drips bytes costs no parsing.
        if raw[seen..].contains(&b'\n') {
            while let Some(head) = parse_head(raw, start).map_err(|what| bad_answer(peer, what))? {
                if head.status >= 200 || head.status == 101 {
                    return Ok(head);
                }
                start = head.end;
            }
        }
        seen = raw.len();
        if peer.read_some(stream, raw).await? == 0 {
            return Err(peer.closed(if raw.is_empty() {
                "it sent no answer"
            } else {
                "the header of its answer was not complete"
            }));
        }
    }
}

fn bad_answer(peer: &Peer, what: impl AsRef<str>) -> Failure {
    peer.failure(FailureKind::BadAnswer, format!("does not speak HTTP: {}", what.as_ref()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    /// Where the body begins in the raw bytes.
    end: usize,
}

/// How the end of the body is found (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The header at `start` of `raw`, or `None` while it is not whole.
fn parse_head(raw: &[u8], start: usize) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(&raw[start..]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let status = response.code.ok_or("no status code")?;
    let mut framing = Framing::UntilClose;
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // Chunked overrides any length, and any other coding ends with the connection.
            framing = if value.trim().eq_ignore_ascii_case("chunked") {
                Framing::Chunked
            } else {
                Framing::UntilClose
            };
            break;
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let length = value.trim().parse();
            framing = Framing::Length(length.map_err(|_| "its content-length is no number")?);
        }
    }
    if status < 200 || status == 204 || status == 304 {
        framing = Framing::Length(0);
    }
    Ok(Some(Head { status, framing, end: start + length }))
}

/// Decodes a body as it arrives; each byte is looked at once.
struct Body {
    framing: Framing,
    /// Where it begins in the raw bytes.
    start: usize,
    /// How much of the raw bytes has been decoded.
    position: usize,
    decoded: Vec<u8>,
}

impl Body {
    fn new(head: Head) -> Self {
        Self { framing: head.framing, start: head.end, position: head.end, decoded: Vec::new() }
    }

    /// Takes in what is new in `raw`; true when the body is whole.
    fn advance(&mut self, raw: &[u8]) -> Result<bool, &'static str> {
        match self.framing {
            Framing::Chunked => self.advance_chunks(raw),
            Framing::UntilClose => {
                self.copy(raw, raw.len());
                Ok(false)
            }
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let end = self.start.saturating_add(length);
                self.copy(raw, end.min(raw.len()));
                Ok(self.position >= end)
            }
        }
    }

    fn copy(&mut self, raw: &[u8], end: usize) {
        self.decoded.extend_from_slice(&raw[self.position..end]);
        self.position = end;
    }

    /// Whole chunks only. What follows the last one (trailers) is of no interest.
    fn advance_chunks(&mut self, raw: &[u8]) -> Result<bool, &'static str> {
        loop {
            let rest = &raw[self.position..];
            let Ok(parsed) = httparse::parse_chunk_size(rest) else {
                return Err("a chunk's size is no number");
            };
            let httparse::Status::Complete((start, size)) = parsed else {
                return Ok(false);
            };
            if size == 0 {
                return Ok(true);
            }
            let Some(end) = usize::try_from(size).ok().and_then(|s| s.checked_add(start)) else {
                return Err("a chunk is longer than memory");
            };
            let Some(line_end) = rest.get(end..end.saturating_add(2)) else {
                return Ok(false);
            };
            if line_end != b"\r\n" {
                return Err("a chunk does not end where it said");
            }
            self.decoded.extend_from_slice(&rest[start..end]);
            self.position += end + 2;
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
