//! Server, client and socket over real sockets in a temporary folder.

use std::{os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::*;

/// An agent's server in a folder of its own, with a handler that answers as `reply` says.
struct Agent {
    folder: TempDir,
    socket: Option<Socket>,
    shutdown: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

impl Agent {
    fn start(reply: impl Fn(&Command) -> Option<Reply> + Send + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (socket, listener) = Socket::bind(&folder.path().join("run/lb.sock"), "lb").expect("a socket");
        let (sender, mut requests) = mpsc::channel::<Request>(8);
        tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                if let Some(reply) = reply(&request.command) {
                    let _the_client_may_be_gone = request.reply.send(reply);
                }
            }
        });
        let (shutdown, stopped) = oneshot::channel();
        let server = tokio::spawn(serve(listener, sender, async {
            let _ = stopped.await;
        }));
        Self { folder, socket: Some(socket), shutdown: Some(shutdown), server }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run/lb.sock")
    }

    /// Sends bytes as they are and returns all that comes back until the server closes.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).await.expect("the agent listens");
        // A server that refuses early closes while the rest is still being written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}

fn done(message: &str) -> Reply {
    Reply::Done { message: message.to_owned() }
}

#[tokio::test]
async fn every_command_arrives_whole_and_its_reply_comes_back() {
    let agent = Agent::start(|command| {
        Some(match command {
            Command::Status => Reply::Status(Box::new(full_status())),
            Command::Explain(_) => Reply::Explain(Box::new(explanation())),
            other => done(&format!("{other:?}")),
        })
    });
    let reply = call(&agent.path(), Command::Status).await.expect("a reply");
    assert_eq!(reply, Reply::Status(Box::new(full_status())));
    let commands = [
        Command::Drain(Drain { name: "web/web1".to_owned(), deadline_ms: Some(60_000), then: Then::Cut }),
        Command::Drain(Drain { name: "web/web1".to_owned(), deadline_ms: None, then: Then::Keep }),
        Command::Cut(Cut { name: "web/web1".to_owned() }),
        Command::Ready(Ready { name: "db/db1".to_owned() }),
        Command::Maint(Maint { name: "db/db1".to_owned() }),
        Command::Weight(SetWeight { name: "web/web1".to_owned(), weight: Some(Weight::Percent(50)) }),
        Command::Weight(SetWeight { name: "web/web1".to_owned(), weight: None }),
        Command::Switch(Switch { cluster: "db".to_owned(), node: Some("db2".to_owned()) }),
        Command::Switch(Switch { cluster: "db".to_owned(), node: None }),
        Command::Freeze(Freeze { cluster: "db".to_owned(), frozen: true }),
        Command::Accept(Accept { cluster: "db".to_owned(), node: "db2".to_owned() }),
        Command::Explain(Explain { name: "db".to_owned() }),
        Command::Confirm,
        Command::Detach,
    ];
    for command in commands {
        let expected = match command {
            Command::Explain(_) => Reply::Explain(Box::new(explanation())),
            _ => done(&format!("{command:?}")),
        };
        assert_eq!(call(&agent.path(), command).await.expect("a reply"), expected);
    }
}

#[tokio::test]
async fn changes_arrive_whole() {
    let change =
        Change { kind: ChangeKind::Removed, name: "web/web1".to_owned(), text: "drained".to_owned() };
    let changes = Changes { changes: vec![change], refused: vec!["`interfaces` cannot change".to_owned()] };
    let sent = Reply::Changes(Box::new(changes));
    let reply = sent.clone();
    let agent = Agent::start(move |_| Some(reply.clone()));
    let commands = [
        Command::Reload(Reload { deadline_ms: Some(60_000) }),
        Command::Reload(Reload::default()),
        Command::Diff(Diff { path: "/etc/lb/lb.toml".to_owned() }),
    ];
    for command in commands {
        assert_eq!(call(&agent.path(), command).await.expect("a reply"), sent);
    }
}

#[tokio::test]
async fn a_refusal_keeps_its_kind_its_error_and_its_hint() {
    for (kind, exit_code) in [
        (RefusalKind::BadInput, 2),
        (RefusalKind::NotFound, 2),
        (RefusalKind::Conflict, 1),
        (RefusalKind::Failed, 1),
        (RefusalKind::DeadlinePassed, 4),
    ] {
        let refusal = Refusal {
            kind,
            error: "no backend web/web9".to_owned(),
            hint: "there are web1, web2".to_owned(),
        };
        let sent = refusal.clone();
        let agent = Agent::start(move |_| Some(Reply::Refused(sent.clone())));
        let error = call(&agent.path(), Command::Confirm).await.expect_err("a refusal");
        assert_eq!(error.exit_code(), exit_code);
        assert_eq!(error.to_string(), "no backend web/web9; there are web1, web2");
        assert!(matches!(error, ApiError::Refused(received) if received == refusal));
    }
}

#[tokio::test]
async fn requests_that_are_not_understood_get_an_error_and_a_hint() {
    let agent = Agent::start(|_| Some(done("never")));
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: lb\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let table = [
        ("GET /statu HTTP/1.1\r\nHost: lb\r\n\r\n".to_owned(), "404", "there is no /statu"),
        ("GET /drain HTTP/1.1\r\nHost: lb\r\n\r\n".to_owned(), "405", "/drain does not take GET"),
        (post("/drain", "{"), "400", "EOF while parsing an object"),
        (post("/drain", r#"{"nam": "a"}"#), "400", "unknown field `nam`"),
        (post("/drain", r#"{"name": "a/b", "then": "kill"}"#), "400", "unknown variant `kill`"),
        (post("/cut", "{}"), "400", "missing field `name`"),
        (post("/weight", r#"{"name": "a/b", "weight": "half"}"#), "400", "`half` is no weight"),
        (post("/ready", r#"{"name": 7}"#), "400", "invalid type: integer `7`"),
        (post("/ready", &"x".repeat(REQUEST_LIMIT + 1)), "413", "longer than 65536 bytes"),
        ("\0\u{1}garbage\r\n\r\n".to_owned(), "400", ""),
        (format!("GET /status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(2 * REQUEST_LIMIT)), "431", ""),
    ];
    for (request, code, text) in table {
        let answer = agent.raw(request.as_bytes()).await;
        let start: String = request.chars().take(40).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{start:?}: {answer}");
        assert!(answer.contains(text), "{start:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn slow_clients_are_let_go_and_others_served_meanwhile() {
    let agent = Agent::start(|_| Some(done("confirmed")));
    let mut silent = Vec::new();
    for _ in 0..CONNECTION_LIMIT - 2 {
        silent.push(UnixStream::connect(agent.path()).await.expect("room"));
    }
    let half = agent.raw(b"POST /drain HTTP/1.1\r\nHost: lb\r\nContent-Length: 100\r\n\r\n{");
    let path = agent.path();
    let reply = call(&path, Command::Confirm);
    let (half, reply) = tokio::join!(half, reply);
    assert_eq!(reply.expect("a reply"), done("confirmed"));
    assert!(half.starts_with("HTTP/1.1 408 "), "{half}");
    for mut stream in silent {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(String::from_utf8_lossy(&answer), "");
    }
}

#[tokio::test(start_paused = true)]
async fn more_clients_than_the_limit_wait_for_their_turn() {
    let agent = Agent::start(|_| Some(done("confirmed")));
    let mut silent = Vec::new();
    for _ in 0..CONNECTION_LIMIT {
        silent.push(UnixStream::connect(agent.path()).await.expect("room"));
    }
    let reply = call(&agent.path(), Command::Confirm).await;
    assert_eq!(reply.expect("a reply once the silent ones are gone"), done("confirmed"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_stuck_says_so() {
    let agent = Agent::start(|_| None);
    let error = call(&agent.path(), Command::Confirm).await.expect_err("no reply");
    assert_eq!(
        error.to_string(),
        "the agent is ending and takes no more commands; try again when it is back"
    );

    let (stuck, requests) = mpsc::channel(1);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lb.sock");
    let (_socket, listener) = Socket::bind(&path, "lb").expect("a socket");
    tokio::spawn(serve(listener, stuck, std::future::pending()));
    let error = call(&path, Command::Confirm).await.expect_err("no reply");
    assert_eq!(
        error.to_string(),
        "the agent has not answered within 10 s; its log says what it is busy with"
    );
    drop(requests);
}

#[tokio::test]
async fn an_agent_that_is_not_there_is_told_from_one_that_refuses() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lb.sock");
    let error = call(&path, Command::Status).await.expect_err("nobody is there");
    assert!(matches!(error, ApiError::NotReached { .. }));
    assert_eq!(error.exit_code(), 3);
    assert_eq!(
        error.to_string(),
        format!(
            "no lb agent answers on {}: No such file or directory (os error 2); start it with `lb run`",
            path.display()
        )
    );
}

#[tokio::test]
async fn a_second_agent_is_refused_and_the_first_still_answers() {
    let agent = Agent::start(|_| Some(done("confirmed")));
    let refused = Socket::bind(&agent.path(), "lb").expect_err("the first one is there");
    let expected = format!(
        "another lb agent (instance lb) is running on {}; stop it or give this one another --instance",
        agent.path().display()
    );
    assert_eq!(refused.to_string(), expected);
    std::fs::remove_file(agent.path().with_extension("sock.lock")).expect("the lock");
    let refused = Socket::bind(&agent.path(), "lb").expect_err("it answers, lock or no lock");
    assert_eq!(refused.to_string(), expected);
    assert_eq!(call(&agent.path(), Command::Confirm).await.expect("a reply"), done("confirmed"));
}

#[tokio::test]
async fn the_socket_is_for_owner_and_group_and_goes_with_the_agent() {
    let mut agent = Agent::start(|_| Some(done("confirmed")));
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
    let folder = agent.folder.path().join("run");
    assert_eq!((mode(&agent.path()), mode(&folder)), (0o660, 0o755));
    agent.shutdown.take();
    tokio::time::timeout(Duration::from_secs(5), &mut agent.server).await.expect("it ends").expect("well");
    agent.socket.take();
    assert_eq!(std::fs::read_dir(folder).expect("the folder").count(), 0);
}

#[tokio::test]
async fn what_stands_at_the_sockets_path_decides() {
    let folder = tempfile::tempdir().expect("a folder");
    let stale = folder.path().join("stale.sock");
    // A listener that is closed leaves its file, as an agent that was killed does.
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("a socket"));
    let (_socket, _listener) = Socket::bind(&stale, "lb").expect("nobody answers there");
    UnixStream::connect(&stale).await.expect("now somebody listens");

    let file = folder.path().join("file.sock");
    std::fs::write(&file, "mine").expect("a file");
    let error = Socket::bind(&file, "lb").expect_err("it is no socket");
    assert_eq!(error.to_string(), format!("{} exists and is not a socket; move it away", file.display()));
    assert_eq!(std::fs::read_to_string(&file).expect("it is still there"), "mine");
}

#[tokio::test]
async fn events_come_one_by_one_until_the_agent_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, listener) = Socket::bind(&folder.path().join("lb.sock"), "lb").expect("a socket");
    let (sender, mut requests) = mpsc::channel::<Request>(8);
    let server = tokio::spawn(serve(listener, sender, std::future::pending()));
    let wanted = Events { name: Some("web".to_owned()), since_ms: Some(1_000), follow: true };
    let path = folder.path().join("lb.sock");
    let asking = events(&path, wanted.clone());
    let handler = async {
        let request = requests.recv().await.expect("a request");
        assert_eq!(request.command, Command::Events(wanted.clone()));
        let _ = request.reply.send(done(""));
        request.entries.expect("somebody to tell")
    };
    let (lines, entries) = tokio::join!(asking, handler);
    let mut lines = lines.expect("a stream");
    for what in ["up → down", "down → up"] {
        let entry = Entry::new(Topic::Health, "web/web1", what).because("refused");
        entries.send(entry.clone()).await.expect("a reader");
        assert_eq!(lines.next().await.expect("an entry"), [entry]);
    }
    drop(entries);
    assert_eq!(lines.next().await.expect("the end"), []);
    server.abort();
    drop(socket);
}

#[tokio::test]
async fn the_socket_is_shared_with_a_group_that_there_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("lb.sock");
    let (socket, _listener) = Socket::bind(&path, "lb").expect("a socket");
    let error = socket.share("nobody-has-it").expect_err("no such group");
    assert_eq!(
        error.to_string(),
        "there is no group nobody-has-it on this machine; `groupadd --system nobody-has-it` makes it"
    );
    // Only root may give files away.
    if nix::unistd::geteuid().is_root() {
        socket.share("daemon").expect("a group of every Debian");
        let found = std::fs::metadata(&path).expect("the socket");
        let group = nix::unistd::Group::from_name("daemon").expect("a look").expect("the group");
        assert_eq!(std::os::unix::fs::MetadataExt::gid(&found), group.gid.as_raw());
        assert_eq!(found.permissions().mode() & 0o7777, 0o660);
    }
}
