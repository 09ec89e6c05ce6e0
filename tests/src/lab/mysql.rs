//! `MySQL` clients: one statement by one process, or a session that stays.

use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::net::SocketAddrV4;
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Context, Error};
use super::{Host, HostCommand, Result};

/// Who logs in where.
#[derive(Debug, Clone)]
pub struct Login {
    /// The server, or the balancer in front of it.
    pub server: SocketAddrV4,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The database, or an empty text for none.
    pub database: String,
    /// How long to wait for the connection and the greeting; whole seconds.
    pub connect_timeout: Duration,
}

impl Login {
    /// The application's user of the lab's clusters, with the database `t`.
    pub fn app(server: SocketAddrV4) -> Self {
        let (user, database) = ("app".to_owned(), "t".to_owned());
        let password = user.clone();
        Self { server, user, password, database, connect_timeout: Duration::from_secs(5) }
    }

    fn command(&self, host: &Host) -> HostCommand {
        host.command("mariadb")
            .args(["--no-defaults", "--protocol=tcp", "--skip-reconnect", "-N", "-B"])
            .arg(format!("--host={}", self.server.ip()))
            .arg(format!("--port={}", self.server.port()))
            .arg(format!("--user={}", self.user))
            .arg(format!("--database={}", self.database))
            .arg(format!("--connect-timeout={}", self.connect_timeout.as_secs().max(1)))
            .env("MYSQL_PWD", &self.password)
    }
}

/// Runs statements on a connection of their own: columns parted by tabs, no header.
pub fn query(host: &Host, login: &Login, statements: &str) -> Result<String> {
    login.command(host).args(["-e", statements]).run()
}

/// Why a statement of a session gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The server refused the statement; the session lives.
    #[error("error {code}: {text}")]
    Refused {
        /// The server's error number.
        code: u32,
        /// The whole message.
        text: String,
    },
    /// The connection is gone.
    #[error("the connection is lost: {text}")]
    Lost {
        /// The client's message.
        text: String,
    },
    /// No answer in time. The answer may still come, so the session cannot be used any more.
    #[error("no answer within {} ms", waited.as_millis())]
    TimedOut {
        /// How long was waited.
        waited: Duration,
    },
}

/// One connection to a server, held by a `mariadb` client. Dropping it kills the client.
#[derive(Debug)]
pub struct Session {
    client: Child,
    statements: ChildStdin,
    lines: Receiver<String>,
    asked: u64,
    broken: bool,
    /// Dropped after the client has been waited for: a host does not end before its processes.
    _host: Host,
}

impl Session {
    /// Connects and asks a first question, so that a server that cannot be reached is an error here.
    pub fn open(host: &Host, login: &Login) -> Result<Self> {
        let (output, input) = pipe().context(|| "cannot make a pipe".to_owned())?;
        // Output and errors share the pipe, so that they keep their order.
        let errors = input.try_clone().context(|| "cannot make a pipe".to_owned())?;
        let command = login.command(host).args(["--force", "--unbuffered"]);
        let mut client = command.spawn_piped(input.into(), errors.into())?;
        let Some(statements) = client.stdin.take() else {
            return Err(Error::Missing { program: "the standard input of mariadb".to_owned() });
        };
        let mut session = Self {
            client,
            statements,
            lines: read_lines(output),
            asked: 0,
            broken: false,
            _host: host.clone(),
        };
        session.query("SELECT 1", login.connect_timeout + Duration::from_secs(1)).map_err(|error| {
            Error::Command {
                command: format!("mariadb, to {}", login.server),
                status: "no session".to_owned(),
                stderr: error.to_string(),
            }
        })?;
        Ok(session)
    }

    /// Runs one statement (without its semicolon); its rows, columns parted by tabs.
    pub fn query(&mut self, statement: &str, timeout: Duration) -> Result<Vec<String>, SessionError> {
        self.asked += 1;
        // The client answers this one itself or not at all, after everything about the statement.
        let marker = format!("answered-{}", self.asked);
        let sent = writeln!(self.statements, "{statement};\nSELECT '{marker}';");
        let outcome = match sent {
            Ok(()) => self.answer(&marker, timeout),
            Err(error) => Err(SessionError::Lost { text: error.to_string() }),
        };
        self.broken |= matches!(outcome, Err(SessionError::Lost { .. } | SessionError::TimedOut { .. }));
        outcome
    }

    /// Whether the connection broke or timed out in some statement.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// The node that serves this session.
    pub fn node(&mut self) -> Result<String, SessionError> {
        self.query("SELECT @@wsrep_node_name", Duration::from_secs(10)).map(|rows| rows.concat())
    }

    fn answer(&mut self, marker: &str, timeout: Duration) -> Result<Vec<String>, SessionError> {
        let start = Instant::now();
        let (mut rows, mut refusal) = (Vec::new(), None);
        loop {
            let line =
                self.lines.recv_timeout(timeout.saturating_sub(start.elapsed())).map_err(
                    |error| match error {
                        RecvTimeoutError::Timeout => SessionError::TimedOut { waited: start.elapsed() },
                        RecvTimeoutError::Disconnected => {
                            SessionError::Lost { text: "the client ended".to_owned() }
                        }
                    },
                )?;
            if line == marker {
                return refusal.map_or(Ok(rows), Err);
            }
            match error_code(&line) {
                Some(code) if is_loss(code) => return Err(SessionError::Lost { text: line }),
                Some(code) => refusal = Some(SessionError::Refused { code, text: line }),
                None => rows.push(line),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn read_lines(output: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        for line in lines {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// The number in "ERROR 1062 (23000) at line 3: Duplicate entry …".
fn error_code(line: &str) -> Option<u32> {
    line.strip_prefix("ERROR ")?.split([' ', ':']).next()?.parse().ok()
}

/// The client's own errors (2000 to 2999): no connection, gone away, lost during the query, bad packet.
fn is_loss(code: u32) -> bool {
    (2000..3000).contains(&code)
}
