//! The HTTP probe: one request in HTTP/1.1 (RFC 9112) over a connection of its own, with TLS or without.
//!
//! Own framing over `httparse`, because the bounds are the point: at most [`LIMIT`] bytes, headers included, within one
//! time-out.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio_rustls::rustls::pki_types::ServerName;

use framing::{Body, Framing, Head, MAX_HEADERS, parse_head};

use super::peer::Peer;
use super::stream::Stream;
use super::tls::{Tls, server_name};
use super::{Failure, FailureKind, LIMIT, printable};

mod framing;

/// How a page is asked for. None of them changes anything at a server that keeps to RFC 9110.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    /// The whole page.
    #[default]
    Get,
    /// Its header only.
    Head,
    /// What can be done with it.
    Options,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        })
    }
}

/// Which answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The status lies in one of these.
    pub status: Vec<RangeInclusive<u16>>,
    /// There is a header of this name, in any case, whose value holds this text.
    pub header: Option<(String, String)>,
    /// The body, of which the first 64 KB are looked at, holds this text.
    pub body: Option<String>,
}

impl Expected {
    /// Any answer with one of these codes.
    pub fn status(codes: RangeInclusive<u16>) -> Self {
        Self { status: vec![codes], header: None, body: None }
    }
}

/// What to ask, and which answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    addr: SocketAddr,
    method: Method,
    path: String,
    host: String,
    tls: Option<(Tls, ServerName<'static>)>,
    expected: Expected,
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
    /// `path` with its query, `host` for the Host line (name, or name:port).
    pub fn new(
        addr: SocketAddr,
        path: impl Into<String>,
        host: impl Into<String>,
        expected: Expected,
    ) -> Result<Self, InvalidTarget> {
        let (path, host) = (path.into(), host.into());
        let printable = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if !path.starts_with('/') || !printable(&path) {
            return Err(InvalidTarget::Path { path });
        }
        if host.is_empty() || !printable(&host) {
            return Err(InvalidTarget::Host { host });
        }
        Ok(Self { addr, method: Method::Get, path, host, tls: None, expected })
    }

    /// The same target, asked for so.
    pub fn by(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// The same target over TLS; its host is what the certificate must be for.
    pub fn over(self, tls: Tls) -> Result<Self, InvalidTarget> {
        match server_name(&self.host) {
            Some(name) => Ok(Self { tls: Some((tls, name)), ..self }),
            None => Err(InvalidTarget::Host { host: self.host }),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same target with one more word in its query. `word` must be plain (`json`).
    pub(super) fn with_query(&self, word: &str) -> Self {
        Self { path: add_query(&self.path, word), ..self.clone() }
    }

    async fn connect(&self, peer: &Peer) -> Result<Stream, Failure> {
        let stream = peer.connect().await?;
        match &self.tls {
            Some((tls, name)) => tls.begin(peer, stream, name).await,
            None => Ok(Stream::Plain(stream)),
        }
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

/// Asks once; any answer that is as expected is one.
///
/// The answer must arrive whole. Of a page longer than [`LIMIT`] the beginning is enough, the rest is not read.
pub async fn probe(target: &Target, timeout: Duration) -> Result<Answer, Failure> {
    let peer = Peer::new(target.addr, timeout);
    let reply = exchange(&peer, target, Excess::Ignored).await?;
    let bad = |kind, what: String| Err(peer.failure(kind, format!("answered {} {what}", target.path)));
    let Expected { status: codes, header, body } = &target.expected;
    let status = reply.status;
    if !codes.iter().any(|range| range.contains(&status)) {
        let codes = spell(codes);
        return bad(FailureKind::BadStatus, format!("with HTTP status {status}, not {codes}"));
    }
    if let Some((name, text)) = header
        && !reply.has_header(name, text)
    {
        let wanted = if text.is_empty() { String::new() } else { format!(" that holds {text:?}") };
        return bad(FailureKind::BadStatus, format!("without a header {name}{wanted}"));
    }
    if let Some(text) = body
        && !contains(&reply.body, text)
    {
        let found = printable(&reply.body[..reply.body.len().min(60)]);
        return bad(FailureKind::BadStatus, format!("with a body that does not hold {text:?}: {found:?}"));
    }
    Ok(Answer { status, elapsed: peer.elapsed() })
}

/// The codes as people write them.
fn spell(codes: &[RangeInclusive<u16>]) -> String {
    let spelt = codes.iter().map(|range| match (range.start(), range.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first} to {last}"),
    });
    spelt.collect::<Vec<_>>().join(", ")
}

fn contains(bytes: &[u8], text: &str) -> bool {
    let wanted = text.as_bytes();
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Asks once and returns the page, whatever its status. A page longer than [`LIMIT`] is a failure.
pub async fn get(target: &Target, timeout: Duration) -> Result<Page, Failure> {
    let peer = Peer::new(target.addr, timeout);
    let Reply { status, body, .. } = exchange(&peer, target, Excess::Refused).await?;
    Ok(Page { status, body, elapsed: peer.elapsed() })
}

/// What to do with an answer that is longer than the limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Excess {
    Ignored,
    Refused,
}

/// An answer as it came.
struct Reply {
    status: u16,
    /// The header, as bytes.
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Reply {
    fn has_header(&self, name: &str, text: &str) -> bool {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        // It has been parsed before, as one in which more than the header stood.
        response.parse(&self.header).is_ok()
            && response
                .headers
                .iter()
                .any(|header| header.name.eq_ignore_ascii_case(name) && contains(header.value, text))
    }
}

async fn exchange(peer: &Peer, target: &Target, excess: Excess) -> Result<Reply, Failure> {
    let mut stream = target.connect(peer).await?;
    let request = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: lb/{}\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        target.method,
        target.path,
        target.host,
        env!("CARGO_PKG_VERSION")
    );
    peer.step("it did not take the request", stream.write_all(request.as_bytes())).await?;
    let mut raw = Vec::new();
    let mut head = read_head(peer, &mut stream, &mut raw).await?;
    if target.method == Method::Head {
        head.framing = Framing::Length(0);
    }
    let header = raw[head.start..head.end].to_vec();
    let reply = |body| Ok(Reply { status: head.status, header, body });
    let mut body = Body::new(head);
    loop {
        if body.advance(&raw).map_err(|what| bad_answer(peer, what))? {
            return reply(body.decoded);
        }
        if raw.len() >= LIMIT && excess == Excess::Ignored {
            body.take_rest(&raw);
            return reply(body.decoded);
        }
        if peer.read_some(&mut stream, &mut raw).await? == 0 {
            return match body.framing {
                Framing::UntilClose => reply(body.decoded),
                _ => Err(peer.closed("only a part of its answer had come")),
            };
        }
    }
}

/// Reads until the header is whole, passing over interim answers (1xx).
async fn read_head(peer: &Peer, stream: &mut Stream, raw: &mut Vec<u8>) -> Result<Head, Failure> {
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

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
