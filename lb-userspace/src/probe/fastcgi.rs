//! A minimal FastCGI client (FastCGI Specification 1.0): one GET request over a connection of its own.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::peer::Peer;
use super::{Failure, FailureKind, printable};

const VERSION: u8 = 1;
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
/// The only request on its connection.
const REQUEST_ID: u16 = 1;
const HEADER: usize = 8;
const MAX_HEADERS: usize = 64;

/// What the application answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The CGI `Status`, 200 if the application named none.
    pub status: u16,
    /// The body without its CGI header.
    pub body: Vec<u8>,
    /// What the application wrote to its error stream, for messages.
    pub errors: String,
    /// From the first packet to the end of the answer.
    pub elapsed: Duration,
}

/// Asks for `path` (with its query, if any) and reads the whole answer.
pub async fn get(addr: SocketAddr, path: &str, timeout: Duration) -> Result<Answer, Failure> {
    let peer = Peer::new(addr, timeout);
    let request = request(path)
        .ok_or_else(|| peer.failure(FailureKind::Local, "was not asked: the path is too long"))?;
    let mut stream = peer.connect().await?;
    peer.step("it did not take the request", stream.write_all(&request)).await?;
    let mut raw = Vec::new();
    let mut records = Records::default();
    loop {
        let done = records.advance(&raw).map_err(|what| bad_answer(&peer, what))?;
        if done {
            break;
        }
        if peer.read_some(&mut stream, &mut raw).await? == 0 {
            return Err(peer.closed(if raw.is_empty() {
                "it sent no answer"
            } else {
                "only a part of its answer had come"
            }));
        }
    }
    let (status, body) = split_cgi(&records.stdout).map_err(|what| bad_answer(&peer, what))?;
    Ok(Answer { status, body, errors: printable(&records.stderr), elapsed: peer.elapsed() })
}

fn bad_answer(peer: &Peer, what: &str) -> Failure {
    peer.failure(FailureKind::BadAnswer, format!("does not speak FastCGI as expected: {what}"))
}

/// The whole request as bytes; `None` if the path does not fit into one record.
fn request(path: &str) -> Option<Vec<u8>> {
    let (script, query) = path.split_once('?').unwrap_or((path, ""));
    let params = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", "lb"),
        ("SERVER_NAME", "lb"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_URI", path),
        ("SCRIPT_NAME", script),
        ("SCRIPT_FILENAME", script),
        ("QUERY_STRING", query),
        ("CONTENT_LENGTH", "0"),
    ];
    let mut pairs = Vec::new();
    for (name, value) in params {
        put_length(&mut pairs, name.len());
        put_length(&mut pairs, value.len());
        pairs.extend_from_slice(name.as_bytes());
        pairs.extend_from_slice(value.as_bytes());
    }
    let mut out = Vec::new();
    // Role 1 is the responder; without the flag 1 the application closes the connection at the end.
    put_record(&mut out, BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0])?;
    put_record(&mut out, PARAMS, &pairs)?;
    put_record(&mut out, PARAMS, &[])?;
    put_record(&mut out, STDIN, &[])?;
    Some(out)
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => out.extend_from_slice(&(length as u32 | 0x8000_0000).to_be_bytes()),
    }
}

fn put_record(out: &mut Vec<u8>, kind: u8, content: &[u8]) -> Option<()> {
    let length = u16::try_from(content.len()).ok()?.to_be_bytes();
    let id = REQUEST_ID.to_be_bytes();
    out.extend_from_slice(&[VERSION, kind, id[0], id[1], length[0], length[1], 0, 0]);
    out.extend_from_slice(content);
    Some(())
}

/// Takes records apart as they arrive.
#[derive(Default)]
struct Records {
    position: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Records {
    /// Takes in what is new in `raw`; true when the request has ended.
    fn advance(&mut self, raw: &[u8]) -> Result<bool, &'static str> {
        loop {
            let rest = &raw[self.position..];
            // The version is checked with the first byte: a server that speaks something else is not waited for.
            if rest.first().is_some_and(|&version| version != VERSION) {
                return Err("a record does not begin with version 1");
            }
            let Some(&[_, kind, id_high, id_low, high, low, padding, _]) = rest.first_chunk() else {
                return Ok(false);
            };
            if u16::from_be_bytes([id_high, id_low]) != REQUEST_ID {
                return Err("a record belongs to a request that was not made");
            }
            let end = HEADER + usize::from(u16::from_be_bytes([high, low]));
            // Nobody waits for the padding of the last record.
            let padding = if kind == END_REQUEST { 0 } else { usize::from(padding) };
            if rest.len() < end + padding {
                return Ok(false);
            }
            let content = &rest[HEADER..end];
            match kind {
                STDOUT => self.stdout.extend_from_slice(content),
                STDERR => self.stderr.extend_from_slice(content),
                END_REQUEST => return end_of_request(content).map(|()| true),
                _ => return Err("a record is of a type that answers do not have"),
            }
            self.position += end + padding;
        }
    }
}

fn end_of_request(content: &[u8]) -> Result<(), &'static str> {
    match content.get(4) {
        Some(0) => Ok(()),
        Some(1) => Err("it cannot serve this connection's request"),
        Some(2) => Err("it is overloaded"),
        Some(3) => Err("it is no responder"),
        _ => Err("the end of the request is malformed"),
    }
}

/// Splits the CGI header (RFC 3875, 6) off.
fn split_cgi(stdout: &[u8]) -> Result<(u16, Vec<u8>), &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let Ok(httparse::Status::Complete((length, headers))) = httparse::parse_headers(stdout, &mut headers)
    else {
        return Err("its answer has no CGI header");
    };
    let status = headers.iter().find(|header| header.name.eq_ignore_ascii_case("status"));
    let code = match status {
        None => 200,
        Some(header) => std::str::from_utf8(header.value)
            .ok()
            .and_then(|value| value.split_whitespace().next())
            .and_then(|code| code.parse().ok())
            .ok_or("its CGI status is no number")?,
    };
    Ok((code, stdout[length..].to_vec()))
}

#[cfg(test)]
#[path = "fastcgi_tests.rs"]
mod tests;
