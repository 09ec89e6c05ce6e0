//! Greeting, login, and the switch to the plugin that the account wants.

use tokio::io::{AsyncRead, AsyncWrite};

use super::super::peer::Peer;
use super::super::{Failure, FailureKind};
use super::auth::{Plugin, xor};
use super::packet::{self, AuthStep, ServerError};
use super::rsa::PublicKey;
use super::wire::{Wire, bad_answer, malformed};
use super::{failure, packet::Greeting};

const WAITING: &str = "the login is not complete";
/// A login takes at most greeting, switch, key and verdict; a server that goes on for longer is not one.
const MAX_STEPS: usize = 8;
/// `caching_sha2_password`: the cache knew the password.
const FAST_OK: &[u8] = &[3];
/// `caching_sha2_password`: the cache is cold, the password itself is wanted.
const FULL: &[u8] = &[4];
/// `caching_sha2_password`: asks for the server's public key.
const GET_KEY: &[u8] = &[2];

/// Who logs in.
pub(super) struct Account<'a> {
    pub user: &'a str,
    pub password: &'a str,
    /// This host, as the server sees it unless addresses are translated on the way.
    pub host: &'a str,
}

/// Logs in after the greeting; `encrypted` says whether that happens over TLS.
pub(super) async fn log_in<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    peer: &Peer,
    account: &Account<'_>,
    greeting: &Greeting,
    encrypted: bool,
) -> Result<(), Failure> {
    // With a default plugin that is not known here the account may still have one that is: it will be asked for.
    let plugin = Plugin::named(&greeting.plugin).unwrap_or(Plugin::Native);
    let mut nonce = greeting.nonce.clone();
    nonce.truncate(plugin.nonce_length());
    let response = plugin.response(account.password, &nonce);
    let login = packet::login(greeting, encrypted, account.user, plugin.name(), &response);
    wire.send(peer, &login).await?;
    let plugin_name = plugin.name().to_owned();
    let mut talk = Talk { wire, peer, account, encrypted, plugin: Some(plugin), plugin_name, nonce };
    for _ in 0..MAX_STEPS {
        let answer = talk.wire.receive(peer, WAITING).await?;
        match packet::auth_step(&answer).map_err(|error| malformed(peer, error))? {
            AuthStep::Accepted => return Ok(()),
            AuthStep::Refused(error) => return Err(talk.refused(&error)),
            AuthStep::Switch { plugin, nonce } => talk.switch(plugin, nonce).await?,
            AuthStep::More(message) => talk.more(&message).await?,
        }
    }
    Err(bad_answer(peer, "the login does not end"))
}

/// Ends a handshake as a server wants it ended, without saying who asks: nobody is let in, or somebody without rights
/// who leaves at once. A connection that just ended here would count as an aborted one, and in the end the server would
/// block this host.
pub(super) async fn log_nobody_in<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    peer: &Peer,
    greeting: &Greeting,
    encrypted: bool,
) {
    let account = Account { user: "", password: "", host: "" };
    // What comes of it is of no interest: the caller has the failure that counts.
    let _ = log_in(wire, peer, &account, greeting, encrypted).await;
}

/// The greeting, or the error that a server sends in its stead.
pub(super) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    peer: &Peer,
    account: &Account<'_>,
) -> Result<Greeting, Failure> {
    if account.user.contains('\0') || account.password.contains('\0') {
        return Err(denied(peer, "was not asked: user or password hold a NUL"));
    }
    let waiting = "it accepted the connection but sent no greeting";
    let payload = wire.receive(peer, waiting).await.map_err(|failure| match failure.kind {
        // Greetings are short: these were the first bytes of another protocol.
        FailureKind::TooLarge => bad_answer(peer, "its first packet is no greeting"),
        _ => failure,
    })?;
    if payload.first() == Some(&0xff) {
        let error = packet::server_error(&payload).map_err(|error| malformed(peer, error))?;
        return Err(failure::of_login(peer, &error, account));
    }
    packet::greeting(&payload).map_err(|error| malformed(peer, error))
}

pub(super) fn denied(peer: &Peer, what: impl AsRef<str>) -> Failure {
    peer.failure(FailureKind::MonitorDenied, what)
}

/// The conversation after the first response.
struct Talk<'a, S> {
    wire: &'a mut Wire<S>,
    peer: &'a Peer,
    account: &'a Account<'a>,
    /// The server hears this over TLS.
    encrypted: bool,
    /// `None` while the server insists on a plugin that is not known here.
    plugin: Option<Plugin>,
    plugin_name: String,
    nonce: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<'_, S> {
    async fn switch(&mut self, name: String, nonce: Vec<u8>) -> Result<(), Failure> {
        self.plugin = Plugin::named(&name);
        self.plugin_name = name;
        self.nonce = nonce;
        self.nonce.truncate(self.plugin.map_or(0, Plugin::nonce_length));
        // To an unknown plugin an empty answer is sent, for the server's refusal: hanging up instead would count as an
        // unfinished handshake.
        let response =
            self.plugin.map(|plugin| plugin.response(self.account.password, &self.nonce)).unwrap_or_default();
        self.wire.send(self.peer, &response).await
    }

    async fn more(&mut self, message: &[u8]) -> Result<(), Failure> {
        match (self.plugin, message) {
            (Some(Plugin::CachingSha2), FAST_OK) => Ok(()),
            (Some(Plugin::CachingSha2), FULL) if self.encrypted => self.send_password().await,
            (Some(Plugin::CachingSha2), FULL) => self.send_encrypted_password().await,
            (None, _) => Err(self.unsupported()),
            _ => Err(bad_answer(self.peer, "its authentication plugin sends what it should not")),
        }
    }

    /// Full authentication over TLS: the password as it is.
    async fn send_password(&mut self) -> Result<(), Failure> {
        let password = [self.account.password.as_bytes(), b"\0"].concat();
        self.wire.send(self.peer, &password).await
    }

    /// Full authentication without TLS: the password, mixed with the random bytes, for the server's public key.
    async fn send_encrypted_password(&mut self) -> Result<(), Failure> {
        self.wire.send(self.peer, GET_KEY).await?;
        let answer = self.wire.receive(self.peer, WAITING).await?;
        let pem = match packet::auth_step(&answer).map_err(|error| malformed(self.peer, error))? {
            AuthStep::More(pem) => pem,
            AuthStep::Refused(error) => return Err(self.refused(&error)),
            _ => return Err(bad_answer(self.peer, "it sent no public key")),
        };
        let password = [self.account.password.as_bytes(), b"\0"].concat();
        if self.nonce.is_empty() {
            return Err(bad_answer(self.peer, "it sent no random bytes"));
        }
        let nonce: Vec<u8> = self.nonce.iter().copied().cycle().take(password.len()).collect();
        let mixed = xor(&password, &nonce);
        let cipher = PublicKey::from_pem(&pem)
            .and_then(|key| key.encrypt(&mixed))
            .ok_or_else(|| {
                denied(
                    self.peer,
                    "wants the password encrypted with a public key that cannot be used; write tls = \"required\"",
                )
            })?;
        self.wire.send(self.peer, &cipher).await
    }

    fn refused(&self, error: &ServerError) -> Failure {
        if self.plugin.is_none() {
            return self.unsupported();
        }
        failure::of_login(self.peer, error, self.account)
    }

    fn unsupported(&self) -> Failure {
        denied(
            self.peer,
            format!(
                "wants the authentication plugin {:?} for the monitor's account, which this version does not support; \
                 use mysql_native_password, caching_sha2_password or ed25519: {}",
                self.plugin_name,
                failure::create_user(self.account)
            ),
        )
    }
}
