//! A small blocking HTTP/1.1 client that tells exactly what happened.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
    /// How long the connection took; nothing if it was there already.
    pub connect_time: Option<Duration>,
    /// From the start of the request, or of its connection, to the end of the answer.
    pub total_time: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The connection was answered with a RST.
    #[error("refused")]
    Refused,
    /// No answer to the connection in time.
    #[error("connecting timed out")]
    ConnectTimedOut,
    /// The connection stood and got a RST.
    #[error("reset {stage}")]
    Reset {
        /// What was going on.
        stage: &'static str,
    },
    /// The connection stood and its peer said nothing in time.
    #[error("timed out {stage}")]
    TimedOut {
        /// What was going on.
        stage: &'static str,
    },
    /// The connection was closed before the answer was complete.
    #[error("closed {stage}")]
    Closed {
        /// What was going on.
        stage: &'static str,
    },
    /// Bytes came that are no HTTP.
    #[error("malformed answer: {text}")]
    Malformed {
        /// The offending text.
        text: String,
    },
    /// Something else, such as an unreachable network.
    #[error("{stage}: {text}")]
    Other {
        /// What was going on.
        stage: &'static str,
        /// The system's words.
        text: String,
    },
}

/// How a client asks.
#[derive(Debug, Clone)]
pub struct Options {
    /// The local address, where the host has several; for IPv4 servers.
    pub source: Option<Ipv4Addr>,
    /// Whether a connection serves many requests or one.
    pub keep_alive: bool,
    /// How long to wait for a connection.
    pub connect_timeout: Duration,
    /// How long to wait for each piece of an answer.
    pub read_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            source: None,
            keep_alive: false,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
        }
    }
}

/// A client; with `keep_alive` it asks again on the connection it has.
#[derive(Debug, Default)]
pub struct Client {
    /// How it asks, from the next connection on.
    pub options: Options,
    connection: Option<(SocketAddr, BufReader<TcpStream>)>,
}

impl Client {
    /// A client without a connection.
    pub fn new(options: Options) -> Self {
        Self { options, connection: None }
    }

    /// A client that keeps its connection.
    pub fn keep_alive() -> Self {
        Self::new(Options { keep_alive: true, ..Options::default() })
    }

    /// Asks for a page. After an error the next request makes a new connection; nothing is tried twice.
    pub fn get(&mut self, server: impl Into<SocketAddr>, path: &str) -> Result<Response, HttpError> {
        let server = server.into();
        let start = Instant::now();
        let kept = self.connection.take().filter(|(peer, _)| *peer == server);
        let (connect_time, mut stream) = if let Some((_, stream)) = kept {
            (None, stream)
        } else {
            let stream = self.connect(server)?;
            (Some(start.elapsed()), BufReader::new(stream))
        };
        let connection = if self.options.keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: {connection}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).map_err(|error| named(&error, "sending"))?;
        let (status, body, reusable) = read_answer(&mut stream)?;
        if self.options.keep_alive && reusable {
            self.connection = Some((server, stream));
        }
        let body = String::from_utf8_lossy(&body).into_owned();
        Ok(Response { status, body, connect_time, total_time: start.elapsed() })
    }

    /// Whether a connection is kept for the next request.
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    fn connect(&self, server: SocketAddr) -> Result<TcpStream, HttpError> {
        let connect = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
            if let Some(source) = self.options.source {
                socket.bind(&SocketAddrV4::new(source, 0).into())?;
            }
            socket.set_tcp_nodelay(true)?;
            socket.connect_timeout(&server.into(), self.options.connect_timeout)?;
            socket.set_read_timeout(Some(self.options.read_timeout))?;
            Ok(socket)
        };
        connect().map(TcpStream::from).map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => HttpError::Refused,
            io::ErrorKind::TimedOut => HttpError::ConnectTimedOut,
            _ => named(&error, "connecting"),
        })
    }
}

fn named(error: &io::Error, stage: &'static str) -> HttpError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => HttpError::Reset { stage },
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpError::TimedOut { stage },
        io::ErrorKind::UnexpectedEof => HttpError::Closed { stage },
        _ => HttpError::Other { stage, text: error.to_string() },
    }
}

/// Status, body, and whether the connection can serve another request (RFC 9112).
pub(crate) fn read_answer(stream: &mut impl BufRead) -> Result<(u16, Vec<u8>, bool), HttpError> {
    const STAGE: &str = "waiting for the answer";
    const BODY: &str = "within the body";
    let first = read_line(stream, STAGE)?;
    let malformed = || HttpError::Malformed { text: first.clone() };
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    let (mut length, mut chunked, mut reusable) = (None, false, first.starts_with("HTTP/1.1"));
    loop {
        let line = read_line(stream, "within the header")?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        match line.split_once(':').map(|(name, value)| (name, value.trim())) {
            Some(("content-length", value)) => length = Some(value.parse::<u64>().map_err(|_| malformed())?),
            Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
            Some(("connection", "close")) => reusable = false,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        read_chunks(stream, &mut body, BODY)?;
    } else if let Some(length) = length {
        read_exactly(stream, length, &mut body, BODY)?;
    } else if !matches!(status, 204 | 304) {
        stream.read_to_end(&mut body).map_err(|error| named(&error, BODY))?;
        reusable = false;
    }
    Ok((status, body, reusable))
}

fn read_chunks(stream: &mut impl BufRead, body: &mut Vec<u8>, stage: &'static str) -> Result<(), HttpError> {
    loop {
        let line = read_line(stream, stage)?;
        let size = line.split(';').next().and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or(HttpError::Malformed { text: line })?;
        read_exactly(stream, size, body, stage)?;
        // The end of a chunk; after the last one there may be trailers first.
        while !read_line(stream, stage)?.is_empty() {}
        if size == 0 {
            return Ok(());
        }
    }
}

fn read_exactly(
    stream: &mut impl BufRead,
    length: u64,
    body: &mut Vec<u8>,
    stage: &'static str,
) -> Result<(), HttpError> {
    let read = stream.take(length).read_to_end(body).map_err(|error| named(&error, stage))?;
    if (read as u64) < length { Err(HttpError::Closed { stage }) } else { Ok(()) }
}

fn read_line(stream: &mut impl BufRead, stage: &'static str) -> Result<String, HttpError> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).map_err(|error| named(&error, stage))?;
    if line.pop() != Some(b'\n') {
        return Err(HttpError::Closed { stage });
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|error| HttpError::Malformed { text: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        for (bytes, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokX", (200, "ok", true)),
            ("HTTP/1.1 503 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", (503, "", false)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nX",
                (200, "abcde", true),
            ),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", (200, "to the end", false)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", (200, "a", false)),
            ("HTTP/1.1 204 No Content\r\n\r\n", (204, "", true)),
        ] {
            let (status, body, reusable) = read_answer(&mut bytes.as_bytes()).unwrap();
            assert_eq!((status, &*String::from_utf8(body).unwrap(), reusable), expected, "{bytes}");
        }
    }

    #[test]
    fn an_incomplete_answer_is_an_error_that_says_where_it_broke() {
        for (bytes, stage) in [
            ("", "waiting for the answer"),
            ("HTTP/1.1 200 OK\r\nContent-Le", "within the header"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "within the body"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", "within the body"),
        ] {
            assert_eq!(
                read_answer(&mut bytes.as_bytes()).unwrap_err(),
                HttpError::Closed { stage },
                "{bytes}"
            );
        }
    }
}
