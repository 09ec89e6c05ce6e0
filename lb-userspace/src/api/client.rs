//! The client's side: one command, one answer, or a stream of lines.

use std::{
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

use super::{
    ApiError, Capture, Command, DoneBody, Entry, ErrorBody, Events, Line, Refusal, RefusalKind, Reply,
};

/// The longest answer that is read, in bytes: a status of ten thousand backends fits.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;
/// Longer than the agent takes to say that it is busy, by so much.
const GRACE: Duration = Duration::from_secs(5);

/// Sends a command to the agent on that socket and waits for the answer, at most 15 s, or 65 s where programs are
/// loaded for it.
///
/// A [`Reply::Refused`] comes as [`ApiError::Refused`], so that a reply is always good news.
pub async fn call(socket: &Path, command: Command) -> Result<Reply, ApiError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ApiError::NotReached { socket: socket.to_owned(), source })?;
    let within = command.patience() + GRACE;
    let answered = timeout(within, exchange(stream, &command)).await;
    let reason = match answered {
        Ok(Ok((code, body))) => match reply_of(&command, code, &body) {
            Ok(Reply::Refused(refusal)) => return Err(refusal.into()),
            Ok(reply) => return Ok(reply),
            Err(error) => format!("its answer is not understood: {error}"),
        },
        Ok(Err(reason)) => reason,
        Err(_elapsed) => format!("nothing within {} s", within.as_secs()),
    };
    Err(ApiError::NoAnswer { socket: socket.to_owned(), reason })
}

/// One request over a fresh connection: the answer's code and body, or what went wrong.
async fn exchange(stream: UnixStream, command: &Command) -> Result<(u16, Bytes), String> {
    let request = request_of(command)?;
    let text = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let whole = async {
        let response = sender.send_request(request).await.map_err(text)?;
        let code = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        Ok((code, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    let mut whole = std::pin::pin!(whole);
    tokio::select! {
        answered = &mut whole => answered,
        // The connection ends once the answer is in its buffers, which may be before it was read from them.
        _ended = connection => whole.await,
    }
}

fn request_of(command: &Command) -> Result<hyper::Request<Full<Bytes>>, String> {
    let (method, path, body) = match command {
        Command::Status => (Method::GET, "/status", Ok(Vec::new())),
        Command::Drain(drain) => (Method::POST, "/drain", serde_json::to_vec(drain)),
        Command::Cut(cut) => (Method::POST, "/cut", serde_json::to_vec(cut)),
        Command::Ready(ready) => (Method::POST, "/ready", serde_json::to_vec(ready)),
        Command::Maint(maint) => (Method::POST, "/maint", serde_json::to_vec(maint)),
        Command::Weight(weight) => (Method::POST, "/weight", serde_json::to_vec(weight)),
        Command::Reload(reload) => (Method::POST, "/reload", serde_json::to_vec(reload)),
        Command::Diff(diff) => (Method::POST, "/diff", serde_json::to_vec(diff)),
        Command::Capture(capture) => (Method::POST, "/capture", serde_json::to_vec(capture)),
        Command::Trace(trace) => (Method::POST, "/trace", serde_json::to_vec(trace)),
        Command::Switch(switch) => (Method::POST, "/galera/switch", serde_json::to_vec(switch)),
        Command::Freeze(freeze) => (Method::POST, "/galera/freeze", serde_json::to_vec(freeze)),
        Command::Accept(accept) => (Method::POST, "/galera/accept", serde_json::to_vec(accept)),
        Command::Events(events) => (Method::POST, "/events", serde_json::to_vec(events)),
        Command::Explain(explain) => (Method::POST, "/explain", serde_json::to_vec(explain)),
        Command::Confirm => (Method::POST, "/confirm", Ok(Vec::new())),
        Command::Detach => (Method::POST, "/detach", Ok(Vec::new())),
    };
    let body = body.map_err(|error| error.to_string())?;
    hyper::Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "lb")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| error.to_string())
}

fn reply_of(command: &Command, code: u16, body: &[u8]) -> Result<Reply, serde_json::Error> {
    if code != 200 {
        let ErrorBody { error, hint } = serde_json::from_slice(body)?;
        return Ok(Reply::Refused(Refusal { kind: RefusalKind::from_status_code(code), error, hint }));
    }
    match command {
        Command::Status => return Ok(Reply::Status(Box::new(serde_json::from_slice(body)?))),
        Command::Reload(_) | Command::Diff(_) => {
            return Ok(Reply::Changes(Box::new(serde_json::from_slice(body)?)));
        }
        Command::Trace(_) => return Ok(Reply::Trace(Box::new(serde_json::from_slice(body)?))),
        Command::Explain(_) => return Ok(Reply::Explain(Box::new(serde_json::from_slice(body)?))),
        _ => {}
    }
    let DoneBody { message } = serde_json::from_slice(body)?;
    Ok(Reply::Done { message })
}

/// What the agent says as it comes, a JSON value a line: the packets of a capture, or changes. The agent ends it when
/// this is dropped.
#[derive(Debug)]
pub struct Lines<T = Line> {
    body: Incoming,
    /// What has come of the next line.
    rest: Vec<u8>,
    socket: PathBuf,
    connection: JoinHandle<()>,
    of: PhantomData<T>,
}

impl<T> Drop for Lines<T> {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Begins a capture: returns when packets are shown.
pub async fn capture(socket: &Path, wanted: Capture) -> Result<Lines, ApiError> {
    begin(socket, Command::Capture(wanted)).await
}

/// What has changed, and what changes, if that is wanted.
pub async fn events(socket: &Path, wanted: Events) -> Result<Lines<Entry>, ApiError> {
    begin(socket, Command::Events(wanted)).await
}

async fn begin<T>(socket: &Path, command: Command) -> Result<Lines<T>, ApiError> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ApiError::NotReached { socket: socket.to_owned(), source })?;
    let no_answer = |reason| ApiError::NoAnswer { socket: socket.to_owned(), reason };
    let within = command.patience() + GRACE;
    let begun = async {
        let request = request_of(&command)?;
        let text = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let connection = tokio::spawn(async move {
            // What goes wrong is seen by whoever reads the body.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(text)?;
        let (code, body) = (response.status().as_u16(), response.into_body());
        let socket = socket.to_owned();
        Ok((code, Lines { body, rest: Vec::new(), socket, connection, of: PhantomData }))
    };
    let begun = timeout(within, begun).await;
    let late = || format!("nothing within {} s", within.as_secs());
    let (code, mut lines) = begun.map_err(|_elapsed| no_answer(late()))?.map_err(no_answer)?;
    if code == 200 {
        return Ok(lines);
    }
    let body = Limited::new(&mut lines.body, ANSWER_LIMIT).collect().await;
    let body = body.map_err(|error| no_answer(error.to_string()))?.to_bytes();
    match reply_of(&command, code, &body) {
        Ok(Reply::Refused(refusal)) => Err(refusal.into()),
        Ok(_) | Err(_) => Err(no_answer(format!("it answers with status {code}"))),
    }
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next lines, one or more; none: the agent has ended.
    pub async fn next(&mut self) -> Result<Vec<T>, ApiError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| self.broken(error.to_string()))?;
            self.rest.extend(frame.into_data().unwrap_or_default());
            let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else { continue };
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let lines: Result<Vec<T>, _> = lines.map(serde_json::from_slice).collect();
            return lines.map_err(|error| self.broken(error.to_string()));
        }
        Ok(Vec::new())
    }

    fn broken(&self, reason: String) -> ApiError {
        ApiError::NoAnswer { socket: self.socket.clone(), reason }
    }
}
