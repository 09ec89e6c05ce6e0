//! `check` and `load` of a service: how its backends are looked after.

use std::time::Duration;

use toml::de::DeTable;

use super::model::{Check, CheckKind, Load, LoadKind, StatusRange};
use super::report::Report;
use super::table::{Marked, Section};
use super::value::{FpmUrl, fpm_url, host_header, request_path, status_range};

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(250);
const RISE: u8 = 2;
const FALL: u8 = 3;
const MOST_CHILDREN: i64 = 65_535;

const URL: &str = r#""fcgi://:9001/status""#;
pub(super) const CHECK_EXAMPLE: &str = r#"{ type = "http", path = "/ping" }"#;
pub(super) const LOAD_EXAMPLE: &str = r#"{ type = "php-fpm", url = "fcgi://:9001/status" }"#;

/// The keys of a check differ by its type.
#[derive(Clone, Copy)]
enum Type {
    Tcp,
    Http,
    PhpFpm,
}

const TYPES: [(&str, Type); 3] = [("tcp", Type::Tcp), ("http", Type::Http), ("php-fpm", Type::PhpFpm)];

pub(super) const TCP_KEYS: &[&str] = &["type", "port", "interval", "timeout", "rise", "fall"];
pub(super) const HTTP_KEYS: &[&str] =
    &["type", "path", "host", "status", "port", "interval", "timeout", "rise", "fall"];
pub(super) const FPM_KEYS: &[&str] = &["type", "url", "interval", "timeout", "rise", "fall"];
/// With an unreadable type any check's key may be right.
const ANY_KEYS: &[&str] =
    &["type", "path", "host", "status", "port", "url", "interval", "timeout", "rise", "fall"];
pub(super) const LOAD_KEYS: &[&str] = &["type", "url", "max-children", "interval", "timeout"];

impl Check {
    /// What a service gets that says nothing.
    pub(super) fn tcp() -> Self {
        let kind = CheckKind::Tcp { port: None };
        Self { kind, interval: INTERVAL, timeout: TIMEOUT, rise: RISE, fall: FALL }
    }
}

/// Reads `check = { … }`. `None` if it has been reported.
pub(super) fn read_check<'a>(report: &'a Report<'a>, table: Marked<&'a DeTable<'a>>) -> Option<Check> {
    let Marked { value: table, at } = table;
    // The type decides which keys are known, and says itself what is wrong with it.
    let named = table.get("type").and_then(|value| value.get_ref().as_str());
    let known = TYPES.iter().find(|(name, _)| Some(*name) == named).map(|(_, kind)| *kind);
    let (what, keys) = match known {
        Some(Type::Tcp) => ("a tcp check", TCP_KEYS),
        Some(Type::Http) => ("an http check", HTTP_KEYS),
        Some(Type::PhpFpm) => ("a php-fpm check", FPM_KEYS),
        None => ("a check", ANY_KEYS),
    };
    let section = Section::new(report, what, at, table, keys);
    let (interval, timeout) = section.rhythm(INTERVAL, TIMEOUT);
    let rise = section.integer("rise", 1..=100).unwrap_or(RISE);
    let fall = section.integer("fall", 1..=100).unwrap_or(FALL);
    let kind = match section.required_choice("type", &TYPES)? {
        Type::Tcp => CheckKind::Tcp { port: port(&section) },
        Type::Http => http(&section),
        Type::PhpFpm => CheckKind::PhpFpm { url: url(&section)? },
    };
    Some(Check { kind, interval, timeout, rise, fall })
}

fn http(section: &Section<'_>) -> CheckKind {
    let path = section.parsed("path", r#""/ping""#, request_path);
    let host = section.parsed("host", r#""www.example.org""#, host_header);
    let status = section.parsed("status", r#""200-399""#, status_range);
    CheckKind::Http {
        path: path.map_or_else(|| "/".to_owned(), |path| path.value),
        host: host.map(|host| host.value),
        status: status.map_or(StatusRange { first: 200, last: 399 }, |status| status.value),
        port: port(section),
    }
}

fn port(section: &Section<'_>) -> Option<u16> {
    section.integer("port", 1..=65_535)
}

fn url(section: &Section<'_>) -> Option<FpmUrl> {
    section.required("url", URL, fpm_url).map(|url| url.value)
}

/// Reads `load = { … }`. `None` if it has been reported.
pub(super) fn read_load<'a>(report: &'a Report<'a>, table: Marked<&'a DeTable<'a>>) -> Option<Load> {
    let section = Section::new(report, "a load", table.at, table.value, LOAD_KEYS);
    let (interval, timeout) = section.rhythm(INTERVAL, TIMEOUT);
    let kind = section.required_choice("type", &[("php-fpm", ())]);
    let max_children = section.integer("max-children", 1..=MOST_CHILDREN);
    let url = url(&section)?;
    kind.map(|()| Load { kind: LoadKind::PhpFpm { url, max_children }, interval, timeout })
}
