//! Probes: each asks one server one question and comes back in bounded time, having read a bounded number of bytes.
//!
//! A probe knows nothing of configuration, health or weights. It gets its world (address, credentials, time-out) as
//! arguments and answers with what it saw or with a [`Failure`]. What a failure *means* is decided elsewhere; here it
//! only gets its name, and a sentence for the administrator.
//!
//! No probe reads more than [`LIMIT`] bytes for one answer, whatever a server sends or announces.

#![expect(clippy::doc_markdown, reason = "MySQL, MariaDB and FastCGI are names of products, not of code")]

use std::fmt;

pub mod agent_check;
pub mod fastcgi;
pub mod galera;
pub mod handshake;
pub mod http;
pub mod mysql;
mod peer;
pub mod php_fpm;
mod stream;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod tls;

/// The most bytes that a probe reads for one answer.
pub const LIMIT: usize = 64 * 1024;

/// Why a probe failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Failure {
    /// The name of the failure, to decide by.
    pub kind: FailureKind,
    /// One sentence for an administrator: who did what. Text that came from the server is cleaned and cut.
    pub detail: String,
}

/// The names of what can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The host answered that nobody listens on the port.
    Refused,
    /// The network said that the host or its network cannot be reached.
    Unreachable,
    /// Nothing, or not the whole answer, within the time-out.
    TimedOut,
    /// The connection was accepted, then ended before the answer was whole.
    Closed,
    /// The answer is not in the protocol that was asked for.
    BadAnswer,
    /// The answer is longer than [`LIMIT`].
    TooLarge,
    /// A well-formed answer with a status that the check does not accept.
    BadStatus,
    /// The server works but had no figures to give this time (PHP-FPM's locked scoreboard).
    NoSample,
    /// The server works but takes no more connections (MySQL error 1040).
    Saturated,
    /// The monitor's account is not let in, or cannot be asked as this version asks (MySQL errors 1045, 1129, 1130, …).
    MonitorDenied,
    /// The server says that it cannot serve now (MySQL errors 1047 and 1053).
    NotReady,
    /// The server was taken off-line by its administrator (MySQL error 3032).
    Offline,
    /// Another error of the database server, by its number.
    Server(u16),
    /// This host could not even ask (no descriptors, no local address, forbidden by a local rule).
    Local,
}

/// How much a failure says about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The server certainly does not serve.
    Certain,
    /// It probably does not serve; a network or a slow moment could look the same.
    Doubtful,
    /// It says nothing against the server: the monitor or this host is at fault, or the server is alive but busy.
    Nothing,
}

impl FailureKind {
    /// What this failure proves about the server.
    pub fn evidence(self) -> Evidence {
        match self {
            Self::Refused | Self::Unreachable | Self::NotReady => Evidence::Certain,
            Self::TimedOut
            | Self::Closed
            | Self::BadAnswer
            | Self::TooLarge
            | Self::BadStatus
            | Self::Server(_) => Evidence::Doubtful,
            Self::NoSample | Self::Saturated | Self::MonitorDenied | Self::Offline | Self::Local => {
                Evidence::Nothing
            }
        }
    }

    /// The name as metrics and logs spell it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::BadAnswer => "bad_answer",
            Self::TooLarge => "too_large",
            Self::BadStatus => "bad_status",
            Self::NoSample => "no_sample",
            Self::Saturated => "saturated",
            Self::MonitorDenied => "monitor_denied",
            Self::NotReady => "not_ready",
            Self::Offline => "offline",
            Self::Server(_) => "server_error",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// True for a time-out, a broken connection or a bad answer: a panic threshold may overrule these, never the
    /// certain ones (refused, unreachable, not ready).
    pub fn doubtful(&self) -> bool {
        self.kind.evidence() == Evidence::Doubtful
    }
}

/// Text from a server, made safe for a log line: printable, one line, at most 200 characters.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MOST)]);
    let mut out: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_servers_is_one_short_printable_line() {
        let table: &[(&[u8], String)] = &[
            (b"Too many connections", "Too many connections".into()),
            (b"a\r\nINFO forged\x1b[31m", "a  INFO forged [31m".into()),
            (&[b'x'; 500], format!("{}…", "x".repeat(200))),
            (&[0xff, 0xfe], "\u{fffd}\u{fffd}".into()),
            (b"", String::new()),
        ];
        for (bytes, want) in table {
            assert_eq!(&printable(bytes), want);
        }
    }

    #[test]
    fn only_time_outs_and_bad_answers_are_doubtful() {
        use FailureKind as K;
        for kind in [K::TimedOut, K::Closed, K::BadAnswer, K::TooLarge, K::BadStatus] {
            assert!(Failure::new(kind, "").doubtful(), "{kind}");
        }
        for kind in
            [K::Refused, K::Unreachable, K::NotReady, K::Saturated, K::MonitorDenied, K::NoSample, K::Local]
        {
            assert!(!Failure::new(kind, "").doubtful(), "{kind}");
        }
    }
}
