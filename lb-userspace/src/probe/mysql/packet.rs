//! The bytes of the MySQL/MariaDB client protocol: pure parsing, nothing here waits.
//!
//! Layouts after MySQL's "Client/Server Protocol" and MariaDB's "Clients & Utilities → Protocol" pages.

use super::super::printable;

/// The payload ends before the field does, or a field cannot be what it claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is malformed")]
pub(super) struct Malformed {
    pub what: &'static str,
}

/// Reads fields from the front of a payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub fn new(what: &'static str, payload: &'a [u8]) -> Self {
        Self { rest: payload, what }
    }

    pub fn malformed(&self) -> Malformed {
        Malformed { what: self.what }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn remaining(self) -> &'a [u8] {
        self.rest
    }

    pub fn bytes(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| self.malformed())?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or_else(|| self.malformed())?;
        self.rest = rest;
        Ok(taken)
    }

    /// An integer of up to eight bytes, little-endian.
    pub fn int(&mut self, width: u64) -> Result<u64, Malformed> {
        let bytes = self.bytes(width)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    pub fn until_nul(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.rest.iter().position(|&byte| byte == 0);
        let text = self.bytes(length.ok_or_else(|| self.malformed())? as u64)?;
        self.bytes(1)?;
        Ok(text)
    }

    /// A length-encoded integer; `None` stands for NULL.
    pub fn length(&mut self) -> Result<Option<u64>, Malformed> {
        match self.int(1)? {
            0xfb => Ok(None),
            0xfc => self.int(2).map(Some),
            0xfd => self.int(3).map(Some),
            0xfe => self.int(8).map(Some),
            0xff => Err(self.malformed()),
            short => Ok(Some(short)),
        }
    }

    /// A length-encoded string; `None` stands for NULL.
    pub fn string(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length()? {
            None => Ok(None),
            Some(length) => self.bytes(length).map(Some),
        }
    }
}

/// An ERR packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerError {
    pub code: u16,
    pub message: String,
}

/// Reads a payload that begins with 0xff.
///
/// Before the handshake a server does not know what the client can do and leaves the SQL state out; clients that skip
/// six bytes all the same show "ny connections" for "Too many connections".
pub(super) fn server_error(payload: &[u8]) -> Result<ServerError, Malformed> {
    let mut fields = Fields::new("an error packet", payload);
    fields.int(1)?;
    let code = fields.int(2)? as u16;
    let text = fields.remaining();
    let message = match text.split_at_checked(6) {
        Some((state, message)) if state[0] == b'#' && state[1..].iter().all(u8::is_ascii_alphanumeric) => {
            message
        }
        _ => text,
    };
    Ok(ServerError { code, message: printable(message) })
}

/// The server's greeting, protocol version 10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    pub version: String,
    pub capabilities: u32,
    /// The random bytes that the password is mixed with, and what the server put behind them.
    pub nonce: Vec<u8>,
    /// The server's default authentication plugin; `mysql_native_password` where it names none.
    pub plugin: String,
}

const PLUGIN_AUTH: u32 = 1 << 19;
const PROTOCOL_41: u32 = 1 << 9;
const SECURE_CONNECTION: u32 = 1 << 15;
const SSL: u32 = 1 << 11;
const TRANSACTIONS: u32 = 1 << 13;
const LONG_PASSWORD: u32 = 1;

/// What the monitor asks for: the 4.1 protocol, plugins, and nothing that changes the form of result sets.
const WANTED: u32 = LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;

pub(super) fn greeting(payload: &[u8]) -> Result<Greeting, Malformed> {
    let mut fields = Fields::new("the greeting", payload);
    if fields.int(1)? != 10 {
        return Err(fields.malformed());
    }
    let version = printable(fields.until_nul()?);
    fields.int(4)?; // the connection's number
    let mut nonce = fields.bytes(8)?.to_vec();
    fields.int(1)?;
    let low = fields.int(2)? as u32;
    fields.int(3)?; // character set and status
    let capabilities = low | (fields.int(2)? as u32) << 16;
    let nonce_length = fields.int(1)?;
    fields.bytes(10)?; // zeros; MariaDB keeps extended capabilities in the last four
    if capabilities & (PROTOCOL_41 | SECURE_CONNECTION) != PROTOCOL_41 | SECURE_CONNECTION {
        return Err(fields.malformed());
    }
    let second = fields.bytes(nonce_length.saturating_sub(8).max(13))?;
    nonce.extend_from_slice(second);
    let plugin = if capabilities & PLUGIN_AUTH != 0 && !fields.is_empty() {
        // Some old servers forget the NUL at the end.
        let rest = fields.remaining();
        printable(rest.split(|&byte| byte == 0).next().unwrap_or(rest))
    } else {
        "mysql_native_password".to_owned()
    };
    Ok(Greeting { version, capabilities, nonce, plugin })
}

impl Greeting {
    /// Whether the server speaks TLS.
    pub fn offers_tls(&self) -> bool {
        self.capabilities & SSL != 0
    }

    /// What the client asks of this server.
    fn asked(&self, encrypted: bool) -> u32 {
        // A client without LONG_PASSWORD announces MariaDB's extended capabilities, and this one has none.
        let plain = WANTED & self.capabilities | PROTOCOL_41 | SECURE_CONNECTION | LONG_PASSWORD;
        if encrypted { plain | SSL } else { plain }
    }
}

/// What the client says before TLS begins: the beginning of its answer to the greeting.
pub(super) fn tls_request(greeting: &Greeting) -> Vec<u8> {
    beginning(greeting.asked(true))
}

fn beginning(capabilities: u32) -> Vec<u8> {
    const UTF8_GENERAL_CI: u8 = 33;
    const MAX_PACKET: u32 = 64 * 1024;
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&capabilities.to_le_bytes());
    out.extend_from_slice(&MAX_PACKET.to_le_bytes());
    out.push(UTF8_GENERAL_CI);
    out.extend_from_slice(&[0; 23]);
    out
}

/// The client's answer to the greeting. `user` must hold no NUL and `response` at most 255 bytes.
pub(super) fn login(
    greeting: &Greeting,
    encrypted: bool,
    user: &str,
    plugin: &str,
    response: &[u8],
) -> Vec<u8> {
    let capabilities = greeting.asked(encrypted);
    let mut out = beginning(capabilities);
    out.extend_from_slice(user.as_bytes());
    out.push(0);
    out.push(response.len() as u8);
    out.extend_from_slice(response);
    if capabilities & PLUGIN_AUTH != 0 {
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
    }
    out
}

/// One step of the server during authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AuthStep {
    /// The login is complete.
    Accepted,
    /// The account wants another plugin, with new random bytes (and often a NUL behind them).
    Switch { plugin: String, nonce: Vec<u8> },
    /// A message of the plugin.
    More(Vec<u8>),
    /// The login failed.
    Refused(ServerError),
}

pub(super) fn auth_step(payload: &[u8]) -> Result<AuthStep, Malformed> {
    let mut fields = Fields::new("an answer to the login", payload);
    match fields.int(1)? {
        0x00 => Ok(AuthStep::Accepted),
        0x01 => Ok(AuthStep::More(fields.remaining().to_vec())),
        0xff => server_error(payload).map(AuthStep::Refused),
        // Without a plugin's name this asks for the password hash of MySQL 3.23.
        0xfe if fields.is_empty() => {
            Ok(AuthStep::Switch { plugin: "mysql_old_password".to_owned(), nonce: Vec::new() })
        }
        0xfe => {
            let plugin = printable(fields.until_nul()?);
            Ok(AuthStep::Switch { plugin, nonce: fields.remaining().to_vec() })
        }
        _ => Err(fields.malformed()),
    }
}

/// The first packet of an answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Head {
    /// Done, no rows.
    Done,
    /// So many columns follow.
    Columns(usize),
    Failed(ServerError),
}

/// More columns than any query of the monitor has.
const MAX_COLUMNS: u64 = 256;

pub(super) fn result_head(payload: &[u8]) -> Result<Head, Malformed> {
    let mut fields = Fields::new("an answer to a query", payload);
    match payload.first() {
        Some(0x00) => Ok(Head::Done),
        Some(0xff) => server_error(payload).map(Head::Failed),
        // NULL stands for LOAD DATA LOCAL: the server asks for a file of this host, and does not get it.
        _ => match fields.length()? {
            Some(count @ 1..=MAX_COLUMNS) if fields.is_empty() => Ok(Head::Columns(count as usize)),
            _ => Err(fields.malformed()),
        },
    }
}

/// The name of a column from its definition.
pub(super) fn column_name(payload: &[u8]) -> Result<String, Malformed> {
    let mut fields = Fields::new("a column's definition", payload);
    for _ in ["catalog", "schema", "table", "original table"] {
        fields.string()?;
    }
    let name = fields.string()?.ok_or_else(|| fields.malformed())?;
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// True for the packet that ends the columns and the rows.
pub(super) fn is_eof(payload: &[u8]) -> bool {
    payload.first() == Some(&0xfe) && payload.len() < 9
}

/// One row of text values; `None` stands for NULL.
pub(super) fn row(payload: &[u8], columns: usize) -> Result<Vec<Option<String>>, Malformed> {
    let mut fields = Fields::new("a row", payload);
    let row = (0..columns)
        .map(|_| {
            let value = fields.string()?;
            Ok(value.map(|text| String::from_utf8_lossy(text).into_owned()))
        })
        .collect::<Result<_, Malformed>>()?;
    if fields.is_empty() { Ok(row) } else { Err(fields.malformed()) }
}
