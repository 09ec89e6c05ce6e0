//! The server: one request a connection, bounded in size, time and number.

use std::{
    convert::Infallible,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Response, StatusCode,
    body::{Frame, Incoming},
    header,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{debug, warn};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{
    CONNECTION_LIMIT, Command, DoneBody, Entry, ErrorBody, LOADED_WITHIN, Line, REQUEST_LIMIT,
    REQUEST_WITHIN, Refusal, RefusalKind, Reload, Reply, Request,
};

/// How long answers under way may take once the agent ends: the one to `detach` is among them.
const LAST_ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// A pause after a failed `accept`, which fails again at once when file descriptors are short.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Packets of a capture that wait for a client who reads slowly; beyond that the agent loses some, and says so.
const LINES: usize = 256;
/// Lines that are written at once.
const LINES_AT_ONCE: usize = 64;

/// Entries of the history that wait; all that is remembered has room.
const ENTRIES: usize = 1_024;

/// An answer's body: known as a whole, or as long as a stream goes on.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Serves clients until `shutdown` completes, then lets the answers under way finish for a second.
pub async fn serve(
    listener: UnixListener,
    handler: mpsc::Sender<Request>,
    shutdown: impl Future<Output = ()>,
) {
    let permits = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits) => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, permit)) => {
                let handler = handler.clone();
                connections.spawn(async move {
                    answer(stream, handler).await;
                    drop(permit);
                });
            }
            Err(error) => {
                warn!("cannot accept a client on the agent's socket: {error}");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    let _ended_or_late = timeout(LAST_ANSWERS_WITHIN, connections.join_all()).await;
}

/// The next client, as soon as there is room for it.
async fn accept(
    listener: &UnixListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn answer(stream: UnixStream, handler: mpsc::Sender<Request>) {
    let streams = Arc::new(AtomicBool::new(false));
    let service = service_fn({
        let streams = Arc::clone(&streams);
        move |request| {
            let (handler, streams) = (handler.clone(), Arc::clone(&streams));
            async move {
                let response = match handle(request, &handler).await {
                    Ok(Answer::Reply(reply)) => response(Ok(reply)),
                    Ok(stream) => {
                        streams.store(true, Ordering::Relaxed);
                        stream.into_stream()
                    }
                    Err(rejection) => response(Err(rejection)),
                };
                Ok::<_, Infallible>(response)
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_WITHIN)
        .max_buf_size(REQUEST_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Whatever the client does not do, such as reading its answer, ends here, unless it is sent a stream.
    let ended = match timeout(2 * REQUEST_WITHIN + LOADED_WITHIN, &mut connection).await {
        Ok(ended) => ended,
        Err(_elapsed) if streams.load(Ordering::Relaxed) => connection.await,
        Err(_elapsed) => return debug!("a client of the agent's socket took too long"),
    };
    if let Err(error) = ended {
        debug!("a client of the agent's socket went wrong: {error}");
    }
}

/// A refusal with the status code that HTTP has for it.
struct Rejection {
    code: StatusCode,
    body: ErrorBody,
}

impl Rejection {
    fn new(code: StatusCode, error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, body: ErrorBody { error: error.into(), hint: hint.into() } }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let code = StatusCode::from_u16(refusal.kind.status_code());
        Self::new(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal.error, refusal.hint)
    }
}

/// What a request gets: one value, or a stream of them.
enum Answer {
    Reply(Reply),
    Lines(mpsc::Receiver<Line>),
    Entries(mpsc::Receiver<Entry>),
}

impl Answer {
    fn into_stream(self) -> Response<Body> {
        match self {
            Self::Reply(reply) => response(Ok(reply)),
            Self::Lines(lines) => stream_of(lines),
            Self::Entries(entries) => stream_of(entries),
        }
    }
}

async fn handle(
    request: hyper::Request<Incoming>,
    handler: &mpsc::Sender<Request>,
) -> Result<Answer, Rejection> {
    let command = command_of(request).await?;
    let within = command.patience();
    let (reply, answer) = oneshot::channel();
    let (lines, captured) = match command {
        Command::Capture(_) => Some(mpsc::channel(LINES)).unzip(),
        _ => (None, None),
    };
    let (entries, told) = match command {
        Command::Events(_) => Some(mpsc::channel(ENTRIES)).unzip(),
        _ => (None, None),
    };
    let ending = || {
        let code = StatusCode::SERVICE_UNAVAILABLE;
        Rejection::new(code, "the agent is ending and takes no more commands", "try again when it is back")
    };
    let asked = async {
        handler.send(Request { command, reply, lines, entries }).await.map_err(|_closed| ending())?;
        answer.await.map_err(|_dropped| ending())
    };
    match timeout(within, asked).await {
        Ok(Ok(Reply::Refused(refusal))) => Err(refusal.into()),
        Ok(result) => result.map(|reply| match (captured, told) {
            (Some(lines), _) => Answer::Lines(lines),
            (None, Some(entries)) => Answer::Entries(entries),
            (None, None) => Answer::Reply(reply),
        }),
        Err(_elapsed) => Err(Rejection::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the agent has not answered within {} s", within.as_secs()),
            "its log says what it is busy with",
        )),
    }
}

pub(super) const ROUTES: [(&str, Method); 17] = [
    ("/status", Method::GET),
    ("/drain", Method::POST),
    ("/cut", Method::POST),
    ("/ready", Method::POST),
    ("/maint", Method::POST),
    ("/weight", Method::POST),
    ("/reload", Method::POST),
    ("/diff", Method::POST),
    ("/capture", Method::POST),
    ("/trace", Method::POST),
    ("/galera/switch", Method::POST),
    ("/galera/freeze", Method::POST),
    ("/galera/accept", Method::POST),
    ("/events", Method::POST),
    ("/explain", Method::POST),
    ("/confirm", Method::POST),
    ("/detach", Method::POST),
];

async fn command_of(request: hyper::Request<Incoming>) -> Result<Command, Rejection> {
    let path = request.uri().path().to_owned();
    let Some((_, method)) = ROUTES.iter().find(|(route, _)| *route == path) else {
        let known = ROUTES.map(|(route, _)| route).join(", ");
        return Err(Refusal {
            kind: RefusalKind::NotFound,
            error: format!("there is no {path}"),
            hint: format!("there are {known}"),
        }
        .into());
    };
    if request.method() != method {
        let error = format!("{path} does not take {}", request.method());
        return Err(Rejection::new(StatusCode::METHOD_NOT_ALLOWED, error, format!("use {method}")));
    }
    let body = body_of(request.into_body()).await?;
    match path.as_str() {
        "/status" => Ok(Command::Status),
        "/drain" => Ok(Command::Drain(parse(&body, r#"{"name": "web/web1", "deadline_ms": 60000}"#)?)),
        "/cut" => Ok(Command::Cut(parse(&body, r#"{"name": "web/web1"}"#)?)),
        "/ready" => Ok(Command::Ready(parse(&body, r#"{"name": "web/web1"}"#)?)),
        "/maint" => Ok(Command::Maint(parse(&body, r#"{"name": "web/web1"}"#)?)),
        "/weight" => Ok(Command::Weight(parse(&body, r#"{"name": "web/web1", "weight": "50%"}"#)?)),
        "/reload" if body.is_empty() => Ok(Command::Reload(Reload::default())),
        "/reload" => Ok(Command::Reload(parse(&body, r#"{"deadline_ms": 60000}"#)?)),
        "/diff" => Ok(Command::Diff(parse(&body, r#"{"path": "/etc/lb/lb.toml"}"#)?)),
        "/capture" => Ok(Command::Capture(parse(&body, r#"{"service": "web", "count": 10}"#)?)),
        "/trace" => {
            Ok(Command::Trace(parse(&body, r#"{"client": "198.51.100.7:40000", "service": "web"}"#)?))
        }
        "/galera/switch" => Ok(Command::Switch(parse(&body, r#"{"cluster": "db", "node": "db2"}"#)?)),
        "/galera/freeze" => Ok(Command::Freeze(parse(&body, r#"{"cluster": "db", "frozen": true}"#)?)),
        "/galera/accept" => Ok(Command::Accept(parse(&body, r#"{"cluster": "db", "node": "db2"}"#)?)),
        "/events" => {
            Ok(Command::Events(parse(&body, r#"{"name": "web", "since_ms": 600000, "follow": true}"#)?))
        }
        "/explain" => Ok(Command::Explain(parse(&body, r#"{"name": "web/web1"}"#)?)),
        "/confirm" => Ok(Command::Confirm),
        _ => Ok(Command::Detach),
    }
}

async fn body_of(body: Incoming) -> Result<Bytes, Rejection> {
    match timeout(REQUEST_WITHIN, Limited::new(body, REQUEST_LIMIT).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Rejection::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body is longer than {REQUEST_LIMIT} bytes"),
            "no command needs that much",
        )),
        Ok(Err(error)) => {
            let error = format!("the request's body cannot be read: {error}");
            Err(Rejection::new(StatusCode::BAD_REQUEST, error, ""))
        }
        Err(_elapsed) => Err(Rejection::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request was not complete within {} s", REQUEST_WITHIN.as_secs()),
            "send it in one piece",
        )),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8], example: &str) -> Result<T, Rejection> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal {
            kind: RefusalKind::BadInput,
            error: format!("the request's body is not what is expected here: {error}"),
            hint: format!("send {example}"),
        }
        .into()
    })
}

/// Values as they come, one a line.
fn stream_of<T: Serialize + Send + 'static>(lines: mpsc::Receiver<T>) -> Response<Body> {
    let chunks = stream::unfold(lines, |mut lines| async move {
        let mut taken = Vec::new();
        if lines.recv_many(&mut taken, LINES_AT_ONCE).await == 0 {
            return None;
        }
        let mut text = Vec::new();
        for line in &taken {
            // Writing to memory cannot fail, and all in a line can be written.
            let _ = serde_json::to_writer(&mut text, line);
            text.push(b'\n');
        }
        Some((Ok(Frame::data(Bytes::from(text))), lines))
    });
    answer_of("application/x-ndjson", StreamBody::new(chunks).boxed_unsync())
}

fn answer_of(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn response(result: Result<Reply, Rejection>) -> Response<Body> {
    match result {
        Ok(Reply::Status(status)) => json(StatusCode::OK, &status),
        Ok(Reply::Trace(traced)) => json(StatusCode::OK, &traced),
        Ok(Reply::Changes(changes)) => json(StatusCode::OK, &changes),
        Ok(Reply::Explain(explanation)) => json(StatusCode::OK, &explanation),
        Ok(Reply::Done { message }) => json(StatusCode::OK, &DoneBody { message }),
        Ok(Reply::Refused(refusal)) => response(Err(refusal.into())),
        Err(Rejection { code, body }) => json(code, &body),
    }
}

fn json(code: StatusCode, body: &impl Serialize) -> Response<Body> {
    let (code, text) = match serde_json::to_vec(body) {
        Ok(text) => (code, text),
        Err(error) => {
            warn!("an answer cannot be written as JSON: {error}");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                br#"{"error":"the answer cannot be written as JSON"}"#.to_vec(),
            )
        }
    };
    let mut response = answer_of("application/json", Full::new(Bytes::from(text)).boxed_unsync());
    *response.status_mut() = code;
    response
}
