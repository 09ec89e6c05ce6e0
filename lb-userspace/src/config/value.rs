//! The values that stand in quotes: each has one parser, which says what would be right.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::address::any_host;
use super::model::{SourcePorts, StatusRange};

/// What is wrong with a value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}; {right}")]
pub struct Fault {
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl Fault {
    pub(super) fn new(wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self { wrong: wrong.into(), right: right.into() }
    }
}

/// The longest time that a configuration may name: it still fits the kernel half's clock with room to spare.
const LONGEST: Duration = Duration::from_hours(30 * 24);

const NAME_LENGTH: usize = 32;
const DURATION_FORM: &str = r#"write a number and a unit: "250ms", "1s", "5m" or "9h""#;

/// A time such as `250ms`, `1s`, `5m`, `9h` or `1d`; from 1 ms to 30 days.
pub fn parse_duration(text: &str) -> Result<Duration, Fault> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if unit.is_empty() && digits > 0 {
        return Err(Fault::new(format!("`{}` has no unit", text.escape_debug()), DURATION_FORM));
    }
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    if digits == 0 || millis_per_unit == 0 {
        return Err(Fault::new(format!("`{}` is no time", text.escape_debug()), DURATION_FORM));
    }
    // Digits that do not fit 64 bits are as much too long as those that do and exceed the limit.
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis_per_unit));
    match millis.map(Duration::from_millis) {
        Some(Duration::ZERO) => Err(Fault::new(
            format!("`{}` is no time at all", text.escape_debug()),
            r#"the shortest is "1ms""#,
        )),
        Some(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(Fault::new(format!("`{}` is too long", text.escape_debug()), r#"the longest is "30d""#)),
    }
}

/// How long an agent may be silent: longer than it takes to be started again, and not for ever.
pub(super) fn absence(text: &str) -> Result<Duration, Fault> {
    let (shortest, longest) = (Duration::from_secs(5), Duration::from_hours(1));
    let after = parse_duration(text)?;
    if after < shortest || after > longest {
        let wrong = format!("`{}` is out of range", text.escape_debug());
        return Err(Fault::new(wrong, r#"write "5s" to "1h""#));
    }
    Ok(after)
}

/// A duration in the unit that needs the fewest digits, as it would stand in the file.
pub fn spell(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(length, _)| millis >= *length && millis.is_multiple_of(*length)) {
        Some((length, unit)) => format!("{}{unit}", millis / length),
        None => format!("{millis}ms"),
    }
}

/// A name that becomes a label and a path: `a` to `z`, digits, `.`, `_`, `-`; at most 32, a letter or digit first.
pub fn parse_name(text: &str) -> Result<String, Fault> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let good = text.starts_with(plain)
        && text.len() <= NAME_LENGTH
        && text.chars().all(|c| plain(c) || matches!(c, '.' | '_' | '-'));
    if good {
        return Ok(text.to_owned());
    }
    let right = "use a-z, 0-9, `.`, `_` and `-`, a letter or digit first, at most 32 characters";
    Err(Fault::new(format!("`{}` is no name", text.escape_debug()), right))
}

/// The name of a network interface, by the kernel's rules (`dev_valid_name`, net/core/dev.c).
pub(super) fn interface(text: &str) -> Result<String, Fault> {
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
        let right = "write it as `ip link` shows it, at most 15 bytes";
        return Err(Fault::new(format!("`{}` is no name of an interface", text.escape_debug()), right));
    }
    Ok(text.to_owned())
}

/// A group of this machine, by the characters that group(5) leaves it.
pub(super) fn group(text: &str) -> Result<String, Fault> {
    let bad = |c: char| c == ':' || c == ',' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 32 || text.contains(bad) {
        let right = "write it as /etc/group has it";
        return Err(Fault::new(format!("`{}` is no name of a group", text.escape_debug()), right));
    }
    Ok(text.to_owned())
}

pub(super) fn parse_port(text: &str) -> Result<u16, Fault> {
    match text.parse::<u16>() {
        // `parse` would take a leading plus sign.
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(Fault::new(format!("`{}` is no port", text.escape_debug()), "ports are 1 to 65535")),
    }
}

/// `FIRST-LAST` of the ports that `snat` uses.
pub(super) fn source_ports(text: &str) -> Result<SourcePorts, Fault> {
    const FORM: &str = r#"write the first and the last, from 1024 on: "1024-65535""#;
    let (first, last) = text
        .split_once('-')
        .and_then(|(first, last)| Some((parse_port(first).ok()?, parse_port(last).ok()?)))
        .ok_or_else(|| Fault::new(format!("`{}` is no range of ports", text.escape_debug()), FORM))?;
    if first < 1024 || first > last {
        return Err(Fault::new(format!("the range {first} to {last} cannot be used"), FORM));
    }
    Ok(SourcePorts { first, last })
}

/// `CODE` or `FIRST-LAST` of good HTTP answers, several of them between commas.
pub(super) fn status_ranges(text: &str) -> Result<Vec<StatusRange>, Fault> {
    let code = |text: &str| {
        let three = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|code| three && (100..=599).contains(code))
    };
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (code(first), code(last)) {
            (Some(first), Some(last)) if first <= last => Some(StatusRange { first, last }),
            _ => None,
        }
    };
    let ranges: Option<Vec<StatusRange>> = text.split(',').map(|part| range(part.trim())).collect();
    ranges.ok_or_else(|| {
        let right = r#"write codes or ranges within 100 to 599: "200", "200-399", "200-299, 401""#;
        Fault::new(format!("`{}` is no range of status codes", text.escape_debug()), right)
    })
}

/// `NAME` or `NAME: TEXT`: a header that an answer must have, and a text that its value must hold.
pub(super) fn expected_header(text: &str) -> Result<(String, String), Fault> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    // A token of RFC 9110, 5.6.2.
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(good) || value.chars().any(char::is_control) {
        let wrong = format!("`{}` is no header", text.escape_debug());
        return Err(Fault::new(wrong, r#"write its name, and what its value must hold: "x-ready: yes""#));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// A text that a body must hold.
pub(super) fn expected_text(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.len() > 1024 {
        return Err(Fault::new("every body holds nothing", "write 1 to 1024 bytes of what it must hold"));
    }
    Ok(text.to_owned())
}

/// A path that goes into a request line as it stands.
pub(super) fn request_path(text: &str) -> Result<String, Fault> {
    if text.starts_with('/') && text.len() <= 1024 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    let right = r#"begin with `/`, without spaces or other than ASCII: "/ping""#;
    Err(Fault::new(format!("`{}` is no path", text.escape_debug()), right))
}

/// The value of a `Host` header.
pub(super) fn host_header(text: &str) -> Result<String, Fault> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    if !text.is_empty() && text.len() <= 255 && text.bytes().all(good) {
        return Ok(text.to_owned());
    }
    let right = r#"write a name, with a port if need be: "www.example.org""#;
    Err(Fault::new(format!("`{}` is no host", text.escape_debug()), right))
}

/// The name of a database user; MariaDB allows 80 characters, MySQL 32.
pub(super) fn user(text: &str) -> Result<String, Fault> {
    if text.is_empty() || text.chars().count() > 80 || text.chars().any(char::is_control) {
        let wrong = format!("`{}` is no database user", text.escape_debug());
        return Err(Fault::new(wrong, "write a name of 1 to 80 characters"));
    }
    Ok(text.to_owned())
}

/// How PHP-FPM's status page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FpmScheme {
    /// FastCGI, straight to the pool.
    Fcgi,
    /// HTTP, through a web server.
    Http,
}

/// Where PHP-FPM's status page is: `fcgi://[HOST]:PORT/PATH` or `http://[HOST]:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FpmUrl {
    /// How it is asked for.
    pub scheme: FpmScheme,
    /// `None`: the host of the backend in question.
    pub host: Option<IpAddr>,
    /// 9000 for `fcgi` and 80 for `http` unless said.
    pub port: u16,
    /// Begins with `/`, without a query: whoever asks adds the format it wants.
    pub path: String,
}

impl FpmUrl {
    /// Where to connect to for a backend at `backend`.
    pub fn endpoint(&self, backend: IpAddr) -> SocketAddr {
        SocketAddr::new(self.host.unwrap_or(backend), self.port)
    }
}

impl fmt::Display for FpmUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            FpmScheme::Fcgi => "fcgi://",
            FpmScheme::Http => "http://",
        })?;
        match self.host {
            Some(IpAddr::V4(host)) => write!(f, "{host}")?,
            Some(IpAddr::V6(host)) => write!(f, "[{host}]")?,
            None => {}
        }
        write!(f, ":{}{}", self.port, self.path)
    }
}

/// The URL of a status page.
pub(super) fn fpm_url(text: &str) -> Result<FpmUrl, Fault> {
    const FORM: &str =
        r#"write "fcgi://:9001/status" or "http://:8080/status" (no host: the backend's own address)"#;
    let (scheme, default_port, rest) = if let Some(rest) = text.strip_prefix("fcgi://") {
        (FpmScheme::Fcgi, 9000, rest)
    } else if let Some(rest) = text.strip_prefix("http://") {
        (FpmScheme::Http, 80, rest)
    } else {
        return Err(Fault::new(format!("`{}` is no URL of a status page", text.escape_debug()), FORM));
    };
    let Some(slash) = rest.find('/') else {
        return Err(Fault::new(format!("`{}` names no path", text.escape_debug()), FORM));
    };
    let (authority, path) = rest.split_at(slash);
    if path.contains(['?', '#']) {
        let right = "end it before `?` or `#`: the agent asks for the format that it wants";
        return Err(Fault::new(format!("`{}` has a query", text.escape_debug()), right));
    }
    // A colon within brackets belongs to the address.
    let colon = authority.rfind(':').filter(|at| authority.rfind(']').is_none_or(|end| end < *at));
    let (host, port) = colon.map_or((authority, ""), |at| (&authority[..at], &authority[at + 1..]));
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(FpmUrl {
        scheme,
        host: if host.is_empty() { None } else { Some(any_host(bare)?) },
        port: if port.is_empty() { default_port } else { parse_port(port)? },
        path: request_path(path)?,
    })
}
