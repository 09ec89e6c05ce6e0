//! The Docker Engine API over its Unix socket: what is asked, bounded in time and bytes.
//!
//! The paths name no version, so every daemon answers with its own newest; what is read of the answers has been the
//! same since API 1.24. Podman's socket speaks the same API.

use std::{io, path::Path, path::PathBuf, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use super::{container::Container, event::Event};

/// How long a single answer may take. A daemon that is busy with an image may take some seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a look at all containers may take.
const LONG_PATIENCE: Duration = Duration::from_secs(30);
/// A list of ten thousand containers fits.
const LONGEST_LIST: usize = 32 * 1024 * 1024;
const LONGEST_CONTAINER: usize = 4 * 1024 * 1024;
/// Labels make events long, but not that long.
const LONGEST_EVENT: usize = 1024 * 1024;
/// Of an error's words.
const LONGEST_WORDS: usize = 200;

/// Why the daemon says nothing useful.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or nobody may be asked.
    #[error("the Docker daemon is not reached at {}: {source}", socket.display())]
    Unreached {
        /// Where.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It takes the question and keeps silent.
    #[error("the Docker daemon at {} does not answer", socket.display())]
    Silent {
        /// Where.
        socket: PathBuf,
    },
    /// It has ended the connection, or what comes is no answer.
    #[error("the Docker daemon at {} has gone: {reason}", socket.display())]
    Broken {
        /// Where.
        socket: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// It says no.
    #[error("the Docker daemon at {} answers {status}: {words}", socket.display())]
    Refused {
        /// Where.
        socket: PathBuf,
        /// The HTTP status.
        status: StatusCode,
        /// What it says of it.
        words: String,
    },
}

/// One connection to the daemon.
struct Connection {
    socket: PathBuf,
    sender: SendRequest<Empty<Bytes>>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    async fn new(socket: &Path, until: Instant) -> Result<Self, ClientError> {
        let silent = |_elapsed| ClientError::Silent { socket: socket.to_owned() };
        let stream = timeout_at(until, UnixStream::connect(socket))
            .await
            .map_err(silent)?
            .map_err(|source| ClientError::Unreached { socket: socket.to_owned(), source })?;
        let (sender, connection) = timeout_at(until, http1::handshake(TokioIo::new(stream)))
            .await
            .map_err(silent)?
            .map_err(|error| broken(socket, error))?;
        let task = tokio::spawn(async move {
            // What goes wrong is seen by whoever waits for the answer.
            let _ = connection.await;
        });
        Ok(Self { socket: socket.to_owned(), sender, task })
    }

    /// The answer's body, once its head says that it is a good one.
    async fn get(&mut self, path: &str, until: Instant) -> Result<Incoming, ClientError> {
        let request = Request::get(path)
            .header(header::HOST, "docker")
            .body(Empty::new())
            .map_err(|error| broken(&self.socket, error))?;
        let answered = async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        };
        let silent = |_elapsed| ClientError::Silent { socket: self.socket.clone() };
        let response = timeout_at(until, answered).await.map_err(silent)?;
        let response = response.map_err(|error| broken(&self.socket, error))?;
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::OK {
            return Ok(body);
        }
        let body = whole(&self.socket, body, LONGEST_CONTAINER, until).await?;
        let words =
            serde_json::from_slice::<Words>(&body).map_or_else(|_| String::new(), |words| words.message);
        let words = words.chars().filter(|c| !c.is_control()).take(LONGEST_WORDS).collect();
        Err(ClientError::Refused { socket: self.socket.clone(), status, words })
    }

    async fn json<T: DeserializeOwned>(
        &mut self,
        path: &str,
        longest: usize,
        until: Instant,
    ) -> Result<T, ClientError> {
        let body = self.get(path, until).await?;
        let body = whole(&self.socket, body, longest, until).await?;
        serde_json::from_slice(&body).map_err(|error| broken(&self.socket, error))
    }
}

/// What the daemon says of an error.
#[derive(Deserialize)]
struct Words {
    message: String,
}

async fn whole(socket: &Path, body: Incoming, longest: usize, until: Instant) -> Result<Bytes, ClientError> {
    let body = timeout_at(until, Limited::new(body, longest).collect())
        .await
        .map_err(|_elapsed| ClientError::Silent { socket: socket.to_owned() })?;
    Ok(body.map_err(|error| broken(socket, error))?.to_bytes())
}

fn broken(socket: &Path, error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken { socket: socket.to_owned(), reason: error.to_string() }
}

/// A line of the list of containers.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "Id")]
    id: String,
}

/// All containers that run for a service, paused ones included, each with its state.
pub async fn containers(socket: &Path, service: &str) -> Result<Vec<Container>, ClientError> {
    let until = Instant::now() + LONG_PATIENCE;
    let mut connection = Connection::new(socket, Instant::now() + PATIENCE).await?;
    let filters = serde_json::json!({ "label": [format!("lb.service={service}")] });
    let path = format!("/containers/json?filters={}", encoded(&filters.to_string()));
    let list: Vec<Line> = connection.json(&path, LONGEST_LIST, until).await?;
    let mut containers = Vec::with_capacity(list.len());
    for Line { id } in list {
        let until = until.min(Instant::now() + PATIENCE);
        let path = format!("/containers/{}/json", encoded(&id));
        match connection.json(&path, LONGEST_CONTAINER, until).await {
            Ok(container) => containers.push(container),
            // It has gone since the list was made.
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(containers)
}

/// Events that may change who serves. The daemon leaves out the others, above all the `exec_…` of health checks.
const ACTIONS: [&str; 14] = [
    "start",
    "restart",
    "kill",
    "die",
    "oom",
    "stop",
    "pause",
    "unpause",
    "health_status",
    "rename",
    "update",
    "destroy",
    "connect",
    "disconnect",
];

/// Subscribes to the daemon's events.
pub async fn events(socket: &Path) -> Result<Events, ClientError> {
    let until = Instant::now() + PATIENCE;
    let mut connection = Connection::new(socket, until).await?;
    let filters = serde_json::json!({ "type": ["container", "network"], "event": ACTIONS });
    let path = format!("/events?filters={}", encoded(&filters.to_string()));
    let body = connection.get(&path, until).await?;
    Ok(Events { body, rest: BytesMut::new(), connection })
}

/// The daemon's events as they come.
pub struct Events {
    body: Incoming,
    /// What has come and was not read yet.
    rest: BytesMut,
    connection: Connection,
}

impl Events {
    /// The next one. May be dropped while it waits, and loses nothing by that.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line = self.rest.split_to(end + 1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return serde_json::from_slice(&line).map_err(|error| self.broken(error));
            }
            if self.rest.len() > LONGEST_EVENT {
                return Err(self.broken(format!("an event of more than {LONGEST_EVENT} bytes")));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend_from_slice(&frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(self.broken(error)),
                None => return Err(self.broken("it has ended the stream of events")),
            }
        }
    }

    fn broken(&self, error: impl std::fmt::Display) -> ClientError {
        broken(&self.connection.socket, error)
    }
}

/// A value within a path or query (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
