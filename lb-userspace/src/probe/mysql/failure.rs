//! What a server's error number means to a monitor. Numbers after MySQL's `messages_to_clients.txt` and MariaDB's
//! `errmsg-utf8.txt`.

use super::super::peer::Peer;
use super::super::{Failure, FailureKind};
use super::login::Account;
use super::packet::ServerError;

/// The failure that an error packet stands for.
pub(super) fn of_server(peer: &Peer, error: &ServerError) -> Failure {
    let ServerError { code, message } = error;
    peer.failure(kind(*code), format!("says error {code}: {message}"))
}

/// The same during the login, with what the administrator can do about it.
pub(super) fn of_login(peer: &Peer, error: &ServerError, account: &Account<'_>) -> Failure {
    let mut failure = of_server(peer, error);
    if let Some(advice) = advice(error.code, account) {
        failure.detail = format!("{}; {advice}", failure.detail);
    }
    failure
}

fn kind(code: u16) -> FailureKind {
    match code {
        1040 => FailureKind::Saturated,
        // Unknown command: what Galera says while a node is not prepared for queries. 1053: shutting down.
        1047 | 1053 => FailureKind::NotReady,
        3032 => FailureKind::Offline,
        // The server ended this connection: killed, or idle for too long.
        1152 | 1184 | 1317 | 1927 | 3169 | 4031 => FailureKind::Closed,
        1044 | 1045 | 1049 | 1129 | 1130 | 1131 | 1133 | 1142 | 1143 | 1203 | 1226 | 1227 | 1251 | 1275
        | 1524 | 1698 | 1820 | 1862 | 2061 | 3118 | 3159 | 4151 => FailureKind::MonitorDenied,
        other => FailureKind::Server(other),
    }
}

fn advice(code: u16, account: &Account<'_>) -> Option<String> {
    match code {
        1044 | 1045 | 1130 | 1131 | 1698 => Some(format!(
            "check the monitor's user and password, or create it: {}",
            create_user(account)
        )),
        1129 => Some(
            "the server has blocked this host after unfinished handshakes: run `mariadb-admin flush-hosts` there, and \
             let no plain TCP check connect to it"
                .to_owned(),
        ),
        3159 | 4151 => Some("this server wants TLS: write tls = \"required\" for its monitor".to_owned()),
        _ => None,
    }
}

/// The statement that makes the monitor's account; the host is the one that the server sees.
pub(super) fn create_user(account: &Account<'_>) -> String {
    let quoted = account.user.replace('\\', "\\\\").replace('\'', "''");
    format!("CREATE USER '{quoted}'@'{}' IDENTIFIED BY '…'", account.host)
}
