//! PHP-FPM's status and ping pages (`sapi/fpm/fpm/fpm_status.c`), over FastCGI or through an HTTP server.

use std::net::SocketAddr;
use std::time::Duration;

use super::http::{self, Target};
use super::{Failure, FailureKind, fastcgi, printable};

/// The body of the 503 that FPM sends while another process holds the scoreboard. A 503 of the web server in front of
/// it has another body and is a bad status.
const SCOREBOARD_LOCKED: &[u8] = b"Server busy.";

/// Where the page is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Url {
    /// PHP-FPM itself.
    Fcgi {
        /// Its TCP address: the pool's `listen` or `pm.status_listen`.
        addr: SocketAddr,
        /// `pm.status_path` or `ping.path`.
        path: String,
        /// True if the request is served by a worker of the measured pool, false with `pm.status_listen`.
        through_pool: bool,
    },
    /// A web server that passes the page on.
    Http {
        /// What to ask it.
        target: Target,
        /// True if the request is served by a worker of the measured pool, false with `pm.status_listen`.
        through_pool: bool,
    },
}

impl Url {
    fn through_pool(&self) -> bool {
        match self {
            Self::Fcgi { through_pool, .. } | Self::Http { through_pool, .. } => *through_pool,
        }
    }
}

/// One sample of a pool. Counters that race in FPM are clamped: none is negative, and active never exceeds total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// Workers that serve a request, the one of this probe included where it goes through the pool.
    pub active: u32,
    /// Workers that wait.
    pub idle: u32,
    /// Workers.
    pub total: u32,
    /// Connections that wait for a worker. Always 0 where the pool listens on a Unix socket.
    pub listen_queue: u32,
    /// The largest `active` since FPM's start.
    pub max_active: u32,
    /// How often `pm.max_children` was reached since FPM's start.
    pub max_children_reached: u64,
    /// Requests beyond `request_slowlog_timeout` since FPM's start.
    pub slow: u64,
    /// Requests since FPM's start.
    pub accepted: u64,
    /// Whether one of `active` is this probe itself.
    pub counts_itself: bool,
}

impl Status {
    /// (active − this probe + listen queue) / `max_children`; above 1 when requests wait. 0 children count as 1.
    pub fn utilisation(&self, max_children: u32) -> f64 {
        let others = self.active.saturating_sub(u32::from(self.counts_itself));
        (f64::from(others) + f64::from(self.listen_queue)) / f64::from(max_children.max(1))
    }
}

/// Asks for one sample.
///
/// [`FailureKind::NoSample`] means that FPM lives but its scoreboard was locked.
pub async fn status(url: &Url, timeout: Duration) -> Result<Status, Failure> {
    let page = fetch(url, Some("json"), timeout).await?;
    if page.status == 503 && page.body.starts_with(SCOREBOARD_LOCKED) {
        return Err(page.failure(FailureKind::NoSample, "is alive, its scoreboard was locked"));
    }
    page.expect_ok()?;
    let mut status = parse(&page.body).map_err(|what| {
        page.failure(FailureKind::BadAnswer, format!("answered with no PHP-FPM status page: {what}"))
    })?;
    status.counts_itself = url.through_pool();
    Ok(status)
}

/// Asks for the ping page and wants `expected` (FPM's `ping.response`, "pong" unless configured) as its body, so that
/// a web server that answers while PHP is dead is not believed.
pub async fn ping(url: &Url, expected: &str, timeout: Duration) -> Result<Duration, Failure> {
    let page = fetch(url, None, timeout).await?;
    page.expect_ok()?;
    if page.body.trim_ascii() != expected.as_bytes() {
        let body = printable(&page.body);
        return Err(
            page.failure(FailureKind::BadAnswer, format!("answered {body:?} to the ping, not {expected:?}"))
        );
    }
    Ok(page.elapsed)
}

/// A page by either way.
struct Page {
    addr: SocketAddr,
    status: u16,
    body: Vec<u8>,
    errors: String,
    elapsed: Duration,
}

impl Page {
    fn failure(&self, kind: FailureKind, what: impl AsRef<str>) -> Failure {
        Failure::new(kind, format!("{} {}", self.addr, what.as_ref()))
    }

    fn expect_ok(&self) -> Result<(), Failure> {
        if self.status == 200 {
            return Ok(());
        }
        let said = match self.errors.as_str() {
            "" => printable(&self.body),
            errors => errors.to_owned(),
        };
        Err(self.failure(FailureKind::BadStatus, format!("answered with status {}: {said}", self.status)))
    }
}

async fn fetch(url: &Url, query: Option<&str>, timeout: Duration) -> Result<Page, Failure> {
    match url {
        Url::Fcgi { addr, path, .. } => {
            let path = query.map_or_else(|| path.clone(), |word| http::add_query(path, word));
            let answer = fastcgi::get(*addr, &path, timeout).await?;
            Ok(Page {
                addr: *addr,
                status: answer.status,
                body: answer.body,
                errors: answer.errors,
                elapsed: answer.elapsed,
            })
        }
        Url::Http { target, .. } => {
            let target = query.map_or_else(|| target.clone(), |word| target.with_query(word));
            let page = http::get(&target, timeout).await?;
            Ok(Page {
                addr: target.addr(),
                status: page.status,
                body: page.body,
                errors: String::new(),
                elapsed: page.elapsed,
            })
        }
    }
}

/// The page as FPM spells it. Its counters are read without a lock and may be off by one, even below zero.
#[derive(serde::Deserialize)]
struct Raw {
    #[serde(rename = "active processes")]
    active: i64,
    #[serde(rename = "idle processes")]
    idle: i64,
    #[serde(rename = "total processes")]
    total: i64,
    #[serde(rename = "listen queue")]
    listen_queue: i64,
    #[serde(rename = "max active processes", default)]
    max_active: i64,
    #[serde(rename = "max children reached", default)]
    max_children_reached: i64,
    #[serde(rename = "slow requests", default)]
    slow: i64,
    #[serde(rename = "accepted conn", default)]
    accepted: i64,
}

fn parse(body: &[u8]) -> Result<Status, String> {
    let raw: Raw = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let small = |value: i64| value.clamp(0, i64::from(u32::MAX)) as u32;
    let large = |value: i64| value.max(0) as u64;
    let total = small(raw.total);
    Ok(Status {
        active: small(raw.active).min(total),
        idle: small(raw.idle).min(total),
        total,
        listen_queue: small(raw.listen_queue),
        max_active: small(raw.max_active),
        max_children_reached: large(raw.max_children_reached),
        slow: large(raw.slow),
        accepted: large(raw.accepted),
        counts_itself: false,
    })
}

#[cfg(test)]
#[path = "php_fpm_tests.rs"]
mod tests;
