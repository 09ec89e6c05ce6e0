//! `check` and `load` of a service: how its backends are looked after.

use std::time::Duration;

use toml::de::DeTable;

use super::credentials::{LOGIN_KEYS, database_tls, password, web_trust};
use super::model::{Check, CheckKind, HttpCheck, Load, LoadKind, Login, StatusRange};
use super::report::Report;
use super::secret::SecretSource;
use super::table::{Marked, Section};
use super::value::{
    Fault, FpmUrl, expected_header, expected_text, fpm_url, host_header, request_path, spell, status_ranges,
    user,
};
use crate::probe::{http::Method, tls::Trust};

const INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_millis(250);
const RISE: u8 = 2;
const FALL: u8 = 3;
const MOST_CHILDREN: i64 = 65_535;
/// A database server's login takes more steps than a page.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(1);
/// For how long an agent that has fallen silent is still obeyed.
const LEASE: Duration = Duration::from_secs(30);
/// Threads that run at a time in a server of ordinary size, see [`LoadKind::Mysql`].
const CAPACITY: u32 = 16;
const MOST_THREADS: i64 = 65_535;

const URL: &str = r#""fcgi://:9001/status""#;
pub(super) const CHECK_EXAMPLE: &str = r#"{ type = "http", path = "/ping" }"#;
pub(super) const LOAD_EXAMPLE: &str = r#"{ type = "php-fpm", url = "fcgi://:9001/status" }"#;

/// The keys of a check differ by its type.
#[derive(Clone, Copy)]
enum Type {
    Tcp,
    Http,
    Https,
    PhpFpm,
    Mysql,
}

const TYPES: [(&str, Type); 5] = [
    ("tcp", Type::Tcp),
    ("http", Type::Http),
    ("https", Type::Https),
    ("php-fpm", Type::PhpFpm),
    ("mysql", Type::Mysql),
];

impl Type {
    /// What it is called, and its keys.
    fn keys(self) -> (&'static str, Vec<&'static str>) {
        let (what, own): (_, Vec<&[&str]>) = match self {
            Self::Tcp => ("a tcp check", vec![PORT_KEYS]),
            Self::Http => ("an http check", vec![HTTP_KEYS, PORT_KEYS]),
            Self::Https => ("an https check", vec![HTTP_KEYS, PORT_KEYS, HTTPS_KEYS]),
            Self::PhpFpm => ("a php-fpm check", vec![FPM_KEYS]),
            Self::Mysql => ("a mysql check", vec![LOGIN_KEYS]),
        };
        (what, [&["type"], own.concat().as_slice(), CHECK_KEYS].concat())
    }
}

const METHODS: [(&str, Method); 3] =
    [("GET", Method::Get), ("HEAD", Method::Head), ("OPTIONS", Method::Options)];

/// Of every check, behind its own.
pub(super) const CHECK_KEYS: &[&str] = &["interval", "timeout", "rise", "fall"];
pub(super) const PORT_KEYS: &[&str] = &["port"];
pub(super) const HTTP_KEYS: &[&str] = &["path", "host", "method", "status", "expect-header", "expect-body"];
pub(super) const HTTPS_KEYS: &[&str] = &["ca-file", "verify"];
pub(super) const FPM_KEYS: &[&str] = &["url"];
/// Of every load, before its own.
pub(super) const LOAD_KEYS: &[&str] = &["type"];
pub(super) const FPM_LOAD_KEYS: &[&str] = &["url", "max-children", "interval", "timeout"];
pub(super) const AGENT_KEYS: &[&str] = &["port", "lease", "interval", "timeout"];
pub(super) const MYSQL_LOAD_KEYS: &[&str] = &["capacity"];

impl Check {
    /// What a service gets that says nothing.
    pub(super) fn tcp() -> Self {
        let kind = CheckKind::Tcp { port: None };
        Self { kind, interval: INTERVAL, timeout: TIMEOUT, rise: RISE, fall: FALL }
    }
}

/// Reads `check = { … }`. `None` if it has been reported.
pub(super) fn read_check<'a>(
    report: &'a Report<'a>,
    table: Marked<&'a DeTable<'a>>,
    secrets: &dyn SecretSource,
) -> Option<Check> {
    let Marked { value: table, at } = table;
    // The type decides which keys are known, and says itself what is wrong with it.
    let known = named(table, &TYPES);
    let (what, mut keys) = match known {
        Some(known) => known.keys(),
        // With an unreadable type any check's key may be right.
        None => ("a check", each_once(TYPES.iter().map(|(_, kind)| kind.keys().1))),
    };
    if matches!(known, None | Some(Type::Mysql)) && table.contains_key("password") {
        keys.push("password");
    }
    let section = Section::new(report, what, at, table, &keys);
    let own = if matches!(known, Some(Type::Mysql)) { DATABASE_TIMEOUT } else { TIMEOUT };
    let (interval, timeout) = section.rhythm(INTERVAL, own);
    let rise = section.integer("rise", 1..=100).unwrap_or(RISE);
    let fall = section.integer("fall", 1..=100).unwrap_or(FALL);
    let kind = match section.required_choice("type", &TYPES)? {
        Type::Tcp => CheckKind::Tcp { port: port(&section) },
        Type::Http => CheckKind::Http(http(&section, None)),
        Type::Https => CheckKind::Http(http(&section, Some(web_trust(&section, secrets)))),
        Type::PhpFpm => CheckKind::PhpFpm { url: url(&section)? },
        Type::Mysql => CheckKind::Mysql(login(&section, secrets)?),
    };
    Some(Check { kind, interval, timeout, rise, fall })
}

/// What the `type` of a table stands for, if it does.
fn named<T: Copy>(table: &DeTable<'_>, types: &[(&str, T)]) -> Option<T> {
    let named = table.get("type").and_then(|value| value.get_ref().as_str());
    types.iter().find(|(name, _)| Some(*name) == named).map(|(_, kind)| *kind)
}

/// The keys of all types.
fn each_once(types: impl Iterator<Item = Vec<&'static str>>) -> Vec<&'static str> {
    let mut keys = Vec::new();
    for key in types.flatten() {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

fn http(section: &Section<'_>, tls: Option<Trust>) -> HttpCheck {
    let path = section.parsed("path", r#""/ping""#, request_path);
    let host = section.parsed("host", r#""www.example.org""#, host_header);
    let status = section.parsed("status", r#""200-399""#, status_ranges);
    let header = section.parsed("expect-header", r#""x-ready: yes""#, expected_header);
    let body = section.parsed("expect-body", r#""pong""#, expected_text);
    let method = section.choice("method", &METHODS).unwrap_or_default();
    if method == Method::Head && body.is_some() {
        let wrong = "expect-body: an answer to HEAD has no body";
        section.add("expect-body", Fault::new(wrong, "leave `method` out, or `expect-body`"));
    }
    HttpCheck {
        method,
        path: path.map_or_else(|| "/".to_owned(), |path| path.value),
        host: host.map(|host| host.value),
        status: status.map_or_else(|| vec![StatusRange { first: 200, last: 399 }], |status| status.value),
        expect_header: header.map(|header| header.value),
        expect_body: body.map(|body| body.value),
        port: port(section),
        tls,
    }
}

fn login(section: &Section<'_>, secrets: &dyn SecretSource) -> Option<Login> {
    let user = section.required("user", r#""lb""#, user);
    let password = password(section, secrets);
    let tls = database_tls(section, secrets);
    Some(Login { user: user?.value, password: password?, tls })
}

fn port(section: &Section<'_>) -> Option<u16> {
    section.integer("port", 1..=65_535)
}

fn url(section: &Section<'_>) -> Option<FpmUrl> {
    section.required("url", URL, fpm_url).map(|url| url.value)
}

#[derive(Clone, Copy)]
enum LoadType {
    PhpFpm,
    AgentCheck,
    Mysql,
}

const LOAD_TYPES: [(&str, LoadType); 3] =
    [("php-fpm", LoadType::PhpFpm), ("agent-check", LoadType::AgentCheck), ("mysql", LoadType::Mysql)];

impl LoadType {
    fn keys(self) -> (&'static str, Vec<&'static str>) {
        let (what, own) = match self {
            Self::PhpFpm => ("a php-fpm load", FPM_LOAD_KEYS),
            Self::AgentCheck => ("an agent-check", AGENT_KEYS),
            Self::Mysql => ("a mysql load", MYSQL_LOAD_KEYS),
        };
        (what, [LOAD_KEYS, own].concat())
    }
}

/// Reads `load = { … }`. `None` if it has been reported.
pub(super) fn read_load<'a>(report: &'a Report<'a>, table: Marked<&'a DeTable<'a>>) -> Option<Load> {
    let (what, keys) = match named(table.value, &LOAD_TYPES) {
        Some(known) => known.keys(),
        None => ("a load", each_once(LOAD_TYPES.iter().map(|(_, kind)| kind.keys().1))),
    };
    let section = Section::new(report, what, table.at, table.value, &keys);
    let (interval, timeout) = section.rhythm(INTERVAL, TIMEOUT);
    let kind = match section.required_choice("type", &LOAD_TYPES)? {
        LoadType::PhpFpm => {
            let max_children = section.integer("max-children", 1..=MOST_CHILDREN);
            LoadKind::PhpFpm { url: url(&section)?, max_children }
        }
        LoadType::AgentCheck => {
            section.require("port", "port = 9999");
            let lease = section.duration("lease", LEASE);
            if lease < interval {
                let wrong =
                    format!("lease: {} is shorter than the interval, {}", spell(lease), spell(interval));
                section.add("lease", Fault::new(wrong, format!("write {} or more", spell(3 * interval))));
            }
            LoadKind::AgentCheck { port: port(&section)?, lease }
        }
        LoadType::Mysql => {
            LoadKind::Mysql { capacity: section.integer("capacity", 1..=MOST_THREADS).unwrap_or(CAPACITY) }
        }
    };
    Some(Load { kind, interval, timeout })
}
