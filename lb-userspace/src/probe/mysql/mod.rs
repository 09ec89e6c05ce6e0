//! A monitor's session with a MySQL or MariaDB server, in its own client protocol.
//!
//! Own code instead of a client crate because the failures are the point: a monitor must see error 1040 in both its
//! forms (before the handshake without a SQL state, after it with one), must tell its own misconfiguration from the
//! server's state, must read a bounded number of bytes, and must always finish the handshake: a server counts an
//! unfinished one against this host and in the end blocks it (error 1129).
//!
//! For the same reason no trouble with TLS ends a handshake half-way, if it can be helped: what does not find its
//! server's certificate good logs in as nobody, and then says so.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::peer::{Peer, say_at_once};
use super::stream::Stream;
use super::tls::Tls;
use super::{Failure, FailureKind};

mod auth;
mod failure;
mod login;
mod packet;
mod rsa;
mod wire;

use packet::Head;
use wire::{Wire, malformed};

const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;
const COM_PING: u8 = 14;
/// More rows than any query of a monitor returns.
const MAX_ROWS: usize = 4096;

/// The answer to a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows {
    /// The columns' names; none for a statement without a result.
    pub columns: Vec<String>,
    /// The rows as text; `None` stands for NULL.
    pub rows: Vec<Vec<Option<String>>>,
}

/// Whether a session is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Never.
    #[default]
    Off,
    /// Where the server speaks TLS that this host understands.
    Preferred(Tls),
    /// Always, or there is no session.
    Required(Tls),
}

/// A logged-in connection. Ends with `COM_QUIT`, on [`Session::quit`] or when dropped.
///
/// After any failure but [`FailureKind::Server`] the session is of no more use.
#[derive(Debug)]
pub struct Session {
    wire: Wire<Stream>,
    addr: SocketAddr,
    version: String,
}

impl Session {
    /// Connects and logs in within `timeout`. No database is chosen, the account needs USAGE only.
    pub async fn connect(
        addr: SocketAddr,
        user: &str,
        password: &str,
        encryption: &Encryption,
        timeout: Duration,
    ) -> Result<Self, Failure> {
        Self::connect_by(&Peer::new(addr, timeout), user, password, encryption).await
    }

    /// [`Session::connect`] with a deadline that goes on to other steps.
    pub(super) async fn connect_by(
        peer: &Peer,
        user: &str,
        password: &str,
        encryption: &Encryption,
    ) -> Result<Self, Failure> {
        match Self::connect_once(peer, user, password, encryption).await {
            // What preferred TLS and cannot have it goes on without.
            Err(Unsuccessful { before_login: true, .. })
                if matches!(encryption, Encryption::Preferred(_)) =>
            {
                let plain = Self::connect_once(peer, user, password, &Encryption::Off).await;
                plain.map_err(|unsuccessful| unsuccessful.failure)
            }
            answer => answer.map_err(|unsuccessful| unsuccessful.failure),
        }
    }

    async fn connect_once(
        peer: &Peer,
        user: &str,
        password: &str,
        encryption: &Encryption,
    ) -> Result<Self, Unsuccessful> {
        let stream = peer.connect().await?;
        say_at_once(&stream);
        let host = stream.local_addr().map_or_else(|_| "%".to_owned(), |local| local.ip().to_string());
        let account = login::Account { user, password, host: &host };
        let mut wire = Wire::new(stream);
        let greeting = login::greet(&mut wire, peer, &account).await?;
        let (mut wire, encrypted) = match encryption {
            Encryption::Preferred(tls) | Encryption::Required(tls) if greeting.offers_tls() => {
                (encrypt(wire, peer, tls, &greeting).await?, true)
            }
            Encryption::Required(_) => {
                login::log_nobody_in(&mut wire, peer, &greeting, false).await;
                let what = r#"speaks no TLS: turn it on there, or write tls = "preferred" for its monitor"#;
                return Err(login::denied(peer, what).into());
            }
            _ => {
                let (stream, wire) = wire.part();
                (wire.over(Stream::Plain(stream)), false)
            }
        };
        let in_or_not = login::log_in(&mut wire, peer, &account, &greeting, encrypted).await;
        in_or_not.map_err(|failure| match failure.kind {
            // Servers say "access denied" as well where only the encryption is missing.
            FailureKind::MonitorDenied if !encrypted && greeting.offers_tls() => Failure {
                detail: format!(
                    "{}; if it wants TLS, write tls = \"required\" for the monitor",
                    failure.detail
                ),
                ..failure
            },
            _ => failure,
        })?;
        Ok(Self { wire, addr: peer.addr, version: greeting.version })
    }

    /// The server's version as it says it, for instance `5.5.5-10.11.19-MariaDB`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Runs one statement and reads its whole answer within `timeout`.
    pub async fn query(&mut self, sql: &str, timeout: Duration) -> Result<Rows, Failure> {
        self.query_by(&Peer::new(self.addr, timeout), sql).await
    }

    /// [`Session::query`] with a deadline that goes on to other steps.
    pub(super) async fn query_by(&mut self, peer: &Peer, sql: &str) -> Result<Rows, Failure> {
        query(&mut self.wire, peer, sql).await
    }

    /// Asks whether the server is alive; runs no query.
    pub async fn ping(&mut self, timeout: Duration) -> Result<(), Failure> {
        let peer = Peer::new(self.addr, timeout);
        self.wire.begin();
        self.wire.send(&peer, &[COM_PING]).await?;
        let answer = self.wire.receive(&peer, "no answer to the ping").await?;
        match packet::result_head(&answer).map_err(|error| malformed(&peer, error))? {
            Head::Done => Ok(()),
            Head::Failed(error) => Err(failure::of_server(&peer, &error)),
            Head::Columns(_) => Err(wire::bad_answer(&peer, "a ping has no columns")),
        }
    }

    /// Waits until the server breaks the silence between two questions. It has nothing to say then but that it closes
    /// the connection, or its kernel that the process is gone.
    pub async fn broken(&self) {
        // The byte stays where it is, and an error says the same as an end.
        let _ = self.wire.stream.tcp().peek(&mut [0]).await;
    }

    /// Says goodbye, so that the server does not count an aborted connection.
    pub fn quit(self) {
        drop(self);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Five bytes fit into any socket buffer that is not stuck, and to a stuck server there is nothing to say.
        self.wire.stream.part(&[1, 0, 0, 0, COM_QUIT]);
    }
}

/// Why there is no session.
struct Unsuccessful {
    failure: Failure,
    /// It was TLS itself that failed.
    before_login: bool,
}

impl From<Failure> for Unsuccessful {
    fn from(failure: Failure) -> Self {
        Self { failure, before_login: false }
    }
}

/// Goes on over TLS. A certificate that is not believed ends the login in good order.
async fn encrypt(
    mut wire: Wire<TcpStream>,
    peer: &Peer,
    tls: &Tls,
    greeting: &packet::Greeting,
) -> Result<Wire<Stream>, Unsuccessful> {
    wire.send(peer, &packet::tls_request(greeting)).await?;
    let (stream, wire) = wire.part();
    let name = ServerName::from(peer.addr.ip());
    let stream = tls.begin(peer, stream, &name).await.map_err(|failure| match failure.kind {
        FailureKind::TimedOut => failure.into(),
        _ => Unsuccessful {
            failure: Failure { kind: FailureKind::MonitorDenied, ..failure },
            before_login: true,
        },
    })?;
    let judged = tls.judge(peer, &stream, &name);
    let mut wire = wire.over(stream);
    if let Err(failure) = judged {
        login::log_nobody_in(&mut wire, peer, greeting, true).await;
        return Err(failure.into());
    }
    Ok(wire)
}

/// Runs one statement over any stream.
async fn query<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    peer: &Peer,
    sql: &str,
) -> Result<Rows, Failure> {
    wire.begin();
    let mut request = vec![COM_QUERY];
    request.extend_from_slice(sql.as_bytes());
    wire.send(peer, &request).await?;
    let waiting = "no whole answer to a query";
    let head = wire.receive(peer, waiting).await?;
    let count = match packet::result_head(&head).map_err(|error| malformed(peer, error))? {
        Head::Done => return Ok(Rows::default()),
        Head::Failed(error) => return Err(failure::of_server(peer, &error)),
        Head::Columns(count) => count,
    };
    let mut answer = Rows::default();
    for _ in 0..count {
        let definition = wire.receive(peer, waiting).await?;
        let name = packet::column_name(&definition).map_err(|error| malformed(peer, error))?;
        answer.columns.push(name);
    }
    if !packet::is_eof(&wire.receive(peer, waiting).await?) {
        return Err(wire::bad_answer(peer, "the columns do not end"));
    }
    while answer.rows.len() < MAX_ROWS {
        let payload = wire.receive(peer, waiting).await?;
        if packet::is_eof(&payload) {
            return Ok(answer);
        }
        if payload.first() == Some(&0xff) {
            let error = packet::server_error(&payload).map_err(|error| malformed(peer, error))?;
            return Err(failure::of_server(peer, &error));
        }
        let row = packet::row(&payload, count).map_err(|error| malformed(peer, error))?;
        answer.rows.push(row);
    }
    Err(peer.failure(FailureKind::TooLarge, "sent more rows than a monitor reads"))
}

#[cfg(test)]
mod tests;
