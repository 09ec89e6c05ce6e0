//! What a server says of its own replication, and what a monitor needs to be told it.

use super::super::mysql::{Rows, Session};
use super::super::peer::Peer;
use super::super::{Failure, FailureKind};

/// Error 1064: an older or another server does not know the statement.
const UNKNOWN_STATEMENT: FailureKind = FailureKind::Server(1064);
/// Names of the one column, by `MariaDB` and older `MySQL`, and by newer `MySQL`.
const LAG: [&str; 2] = ["Seconds_Behind_Master", "Seconds_Behind_Source"];

/// A server without Galera may be a replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Replication {
    /// Nobody asked.
    #[default]
    NotAsked,
    /// It copies from nobody.
    Source,
    /// It copies from one or more servers.
    Replica {
        /// Seconds behind the one that it is furthest behind of; `None` while one of them is not replicated from.
        lag: Option<u64>,
    },
    /// The monitor may not know; the sentence says what to type.
    Forbidden(String),
}

/// What is learnt once for a session.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Which of the statements this server knows.
    statement: usize,
    /// The account may not ask: what to type.
    grant: Option<String>,
    refused: u32,
}

/// A session keeps the privileges that it began with, so after so many refusals a new one is worth a try.
const PATIENCE: u32 = 10;

impl Asked {
    /// Whether the answer may be another one in a new session.
    pub(super) fn wants_new_session(&self) -> bool {
        self.refused >= PATIENCE
    }

    /// One look at it.
    pub(super) async fn look(&mut self, session: &mut Session, peer: &Peer) -> Result<Replication, Failure> {
        let statements: &[&str] = if is_mariadb(session.version()) {
            &["SHOW ALL SLAVES STATUS"]
        } else {
            &["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]
        };
        loop {
            let statement = statements[self.statement.min(statements.len() - 1)];
            match session.query_by(peer, statement).await {
                Ok(rows) => return read(&rows).map_err(|what| Failure::new(FailureKind::BadAnswer, what)),
                Err(failure)
                    if failure.kind == UNKNOWN_STATEMENT && self.statement + 1 < statements.len() =>
                {
                    self.statement += 1;
                }
                // Error 1227: the session lives, and so does the server.
                Err(failure) if failure.kind == FailureKind::MonitorDenied => {
                    return self.forbidden(session, peer).await;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn forbidden(&mut self, session: &mut Session, peer: &Peer) -> Result<Replication, Failure> {
        self.refused += 1;
        if let Some(grant) = &self.grant {
            return Ok(Replication::Forbidden(grant.clone()));
        }
        let privilege = privilege(session.version());
        let rows = session.query_by(peer, "SELECT CURRENT_USER()").await?;
        let account = rows.rows.into_iter().flatten().next().flatten().unwrap_or_default();
        let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        let grant = format!("GRANT {privilege} ON *.* TO '{user}'@'{host}'");
        self.grant = Some(grant.clone());
        Ok(Replication::Forbidden(grant))
    }
}

fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB")
}

/// `MariaDB` took this out of REPLICATION CLIENT in 10.5.
fn privilege(version: &str) -> &'static str {
    let version = version.strip_prefix("5.5.5-").unwrap_or(version);
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version_of = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if is_mariadb(version) && version_of >= (10, 5) { "REPLICA MONITOR" } else { "REPLICATION CLIENT" }
}

fn read(rows: &Rows) -> Result<Replication, String> {
    if rows.rows.is_empty() {
        return Ok(Replication::Source);
    }
    let place = rows.columns.iter().position(|name| LAG.contains(&name.as_str()));
    let place = place.ok_or("lists replicas without saying how far behind they are")?;
    let lag = |row: &Vec<Option<String>>| row.get(place)?.as_ref()?.parse::<u64>().ok();
    let lags: Option<Vec<u64>> = rows.rows.iter().map(lag).collect();
    Ok(Replication::Replica { lag: lags.and_then(|lags| lags.into_iter().max()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_that_a_replica_is_furthest_behind_of_counts() {
        let row = |lag: Option<&str>| vec![Some("10.0.0.1".to_owned()), lag.map(str::to_owned)];
        for (name, lags, found) in [
            (LAG[0], vec![], Replication::Source),
            (LAG[0], vec![Some("0")], Replication::Replica { lag: Some(0) }),
            (LAG[1], vec![Some("3"), Some("12")], Replication::Replica { lag: Some(12) }),
            (LAG[0], vec![Some("3"), None], Replication::Replica { lag: None }),
        ] {
            let columns = vec!["Master_Host".to_owned(), name.to_owned()];
            let rows = Rows { columns, rows: lags.into_iter().map(row).collect() };
            assert_eq!(read(&rows), Ok(found));
        }
        let rows = Rows { columns: vec!["Master_Host".to_owned()], rows: vec![vec![None]] };
        assert!(read(&rows).is_err());
    }

    #[test]
    fn the_privilege_to_ask_depends_on_the_server() {
        for (version, wanted) in [
            ("5.5.5-10.11.19-MariaDB-0+deb12u1", "REPLICA MONITOR"),
            ("11.4.2-MariaDB", "REPLICA MONITOR"),
            ("5.5.5-10.4.34-MariaDB", "REPLICATION CLIENT"),
            ("8.4.3", "REPLICATION CLIENT"),
            ("5.7.44-log", "REPLICATION CLIENT"),
        ] {
            assert_eq!(privilege(version), wanted, "{version}");
        }
    }
}
