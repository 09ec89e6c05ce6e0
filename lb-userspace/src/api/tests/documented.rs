//! README's examples of the API, sent to the server and compared with what comes back.

use serde_json::Value;
use tokio::net::UnixListener;

use super::*;
use crate::api::server::ROUTES;

/// One example.
struct Example {
    method: String,
    path: String,
    request: String,
    code: u16,
    answer: String,
}

/// The blocks of README's section: a request, an empty line, the answer.
fn examples() -> Vec<Example> {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("README");
    let section = readme.split("\n## The API\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let blocks = section.expect("README has a section on the API").split("```http\n").skip(1);
    let example = |block: &str| {
        let block = block.split("```").next().expect("a block");
        let (request, answer) = block.split_once("\n\n").expect("request and answer");
        let (line, body) = request.split_once('\n').unwrap_or((request, ""));
        let (method, path) = line.split_once(' ').expect("method and path");
        let (code, answer) = answer.split_once('\n').expect("code and answer");
        Example {
            method: method.to_owned(),
            path: path.to_owned(),
            request: body.to_owned(),
            code: code.parse().expect("a code"),
            answer: answer.to_owned(),
        }
    };
    blocks.map(example).collect()
}

fn typed<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// An agent that answers as the example says.
async fn answers(example: &Example, request: Request) {
    let lines = || example.answer.lines();
    if example.code != 200 {
        let ErrorBody { error, hint } = typed(&example.answer);
        let kind = RefusalKind::from_status_code(example.code);
        let _ = request.reply.send(Reply::Refused(Refusal { kind, error, hint }));
        return;
    }
    let reply = match &request.command {
        Command::Status => Reply::Status(typed(&example.answer)),
        Command::Trace(_) => Reply::Trace(typed(&example.answer)),
        Command::Reload(_) | Command::Diff(_) => Reply::Changes(typed(&example.answer)),
        Command::Explain(_) => Reply::Explain(typed(&example.answer)),
        Command::Events(_) | Command::Capture(_) => Reply::Done { message: String::new() },
        _ => {
            let DoneBody { message } = typed(&example.answer);
            Reply::Done { message }
        }
    };
    for line in lines() {
        match (&request.entries, &request.lines) {
            (Some(entries), _) => entries.send(typed(line)).await.expect("a reader"),
            (_, Some(packets)) => packets.send(typed(line)).await.expect("a reader"),
            (None, None) => {}
        }
    }
    let _ = request.reply.send(reply);
}

/// What the server says to the example's request: the code and the body.
async fn asked(example: &Example, path: &std::path::Path) -> (u16, Vec<u8>) {
    let stream = tokio::net::UnixStream::connect(path).await.expect("the agent listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from(example.request.clone()));
    let request = hyper::Request::builder().method(&*example.method).uri(&*example.path);
    let request = request.header(hyper::header::HOST, "lb").body(body).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let code = response.status().as_u16();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.expect("a body").to_bytes();
    connection.abort();
    (code, body.to_vec())
}

/// Whether everything that `shown` has is in `found`, which may have more.
fn holds(found: &Value, shown: &Value) -> bool {
    match (found, shown) {
        (Value::Object(found), Value::Object(shown)) => shown
            .iter()
            .all(|(key, shown)| found.get(key).map_or(shown.is_null(), |found| holds(found, shown))),
        (Value::Array(found), Value::Array(shown)) => {
            found.len() == shown.len() && found.iter().zip(shown).all(|(found, shown)| holds(found, shown))
        }
        _ => found == shown,
    }
}

#[tokio::test]
async fn every_example_of_the_readme_is_understood_and_answered_as_shown() {
    for example in examples() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lb.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let (sender, mut requests) = mpsc::channel(1);
        let server = tokio::spawn(serve(listener, sender, std::future::pending()));
        let handler = async {
            let request = requests.recv().await.expect("a request that is understood");
            answers(&example, request).await;
        };
        let asking = asked(&example, &path);
        let ((code, body), ()) = tokio::join!(asking, handler);
        server.abort();
        let what = format!("{} {}", example.method, example.path);
        assert_eq!(code, example.code, "{what}: {}", String::from_utf8_lossy(&body));
        let values = |text: &[u8]| {
            let values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
            values.collect::<Result<Vec<Value>, _>>().expect("JSON")
        };
        let (found, shown) = (values(&body), values(example.answer.as_bytes()));
        assert_eq!(found.len(), shown.len(), "{what}");
        for (found, shown) in found.iter().zip(&shown) {
            assert!(holds(found, shown), "{what}\nshown: {shown}\nfound: {found}");
        }
    }
}

#[test]
fn the_readme_shows_every_request() {
    let shown: Vec<(String, String)> =
        examples().into_iter().map(|example| (example.path, example.method)).collect();
    for (path, method) in ROUTES {
        assert!(shown.contains(&(path.to_owned(), method.to_string())), "{method} {path} is not shown");
    }
}
