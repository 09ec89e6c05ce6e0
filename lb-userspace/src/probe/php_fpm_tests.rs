//! Status and ping pages: recorded, constructed, and those of a real PHP-FPM.

use proptest::prelude::*;

use super::super::testing::{self, Liar, SECOND};
use super::*;

/// PHP 8.2.
const RECORDED: &str = r#"{"pool":"www","process manager":"static","start time":1700000000,"start since":12,"accepted conn":7,"listen queue":3,"max listen queue":4,"listen queue len":128,"idle processes":1,"active processes":2,"total processes":3,"max active processes":3,"max children reached":5,"slow requests":6}"#;

fn through_web_server(addr: SocketAddr) -> Url {
    Url::Http {
        target: Target::new(addr, "/status", "web", super::http::Expected::status(200..=200)).unwrap(),
        through_pool: true,
    }
}

#[test]
fn a_recorded_page_is_read() {
    let want = Status {
        active: 2,
        idle: 1,
        total: 3,
        listen_queue: 3,
        max_active: 3,
        max_children_reached: 5,
        slow: 6,
        accepted: 7,
        counts_itself: false,
    };
    assert_eq!(parse(RECORDED.as_bytes()).unwrap(), want);
}

#[test]
fn racing_counters_are_clamped() {
    let page = RECORDED
        .replace(r#""active processes":2"#, r#""active processes":9"#)
        .replace(r#""idle processes":1"#, r#""idle processes":-1"#);
    let status = parse(page.as_bytes()).unwrap();
    assert_eq!((status.active, status.idle, status.total), (3, 0, 3));
}

#[test]
fn utilisation_leaves_the_probe_out_and_counts_the_queue() {
    let table = [
        (2, 0, true, 4, 0.25),
        (2, 0, false, 4, 0.5),
        (0, 0, true, 4, 0.0),
        (4, 6, false, 4, 2.5),
        (1, 0, false, 0, 1.0),
    ];
    for (active, listen_queue, counts_itself, max_children, want) in table {
        let status = Status { active, listen_queue, counts_itself, ..Status::default() };
        let got = status.utilisation(max_children);
        assert!((got - want).abs() < 1e-9, "{status:?}: {got}");
    }
}

#[tokio::test]
async fn a_locked_scoreboard_is_no_sample_and_a_web_servers_503_is_a_bad_status() {
    use FailureKind as K;
    let table = [
        ("HTTP/1.1 503 x\r\n\r\nServer busy.  Please try again later.", K::NoSample),
        ("HTTP/1.1 503 x\r\n\r\n<html>503 Service Temporarily Unavailable", K::BadStatus),
        ("HTTP/1.1 404 x\r\n\r\nFile not found.", K::BadStatus),
        ("HTTP/1.1 200 OK\r\n\r\n<html>Welcome to nginx!", K::BadAnswer),
        ("HTTP/1.1 200 OK\r\n\r\n{\"active processes\":1}", K::BadAnswer),
    ];
    for (words, kind) in table {
        let server = Liar::saying(words.as_bytes(), true).await;
        let failure = status(&through_web_server(server.addr), SECOND).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
    }
}

#[tokio::test]
async fn a_web_server_that_answers_for_a_dead_php_is_not_believed() {
    let server = Liar::saying(b"HTTP/1.1 200 OK\r\n\r\n<html>Hello", true).await;
    let failure = ping(&through_web_server(server.addr), "pong", SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadAnswer);
}

#[tokio::test]
async fn a_status_page_behind_a_web_server_is_read_through_its_chunks() {
    let words = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{RECORDED}\r\n0\r\n\r\n",
        RECORDED.len()
    );
    let server = Liar::saying(words.as_bytes(), true).await;
    let status = status(&through_web_server(server.addr), SECOND).await.unwrap();
    assert!(status.counts_itself);
    assert!((status.utilisation(4) - 1.0).abs() < 1e-9);
}

#[tokio::test]
async fn a_real_pool_reports_its_idle_workers_and_the_probe_among_the_active() {
    let test = "a_real_pool_reports_its_idle_workers_and_the_probe_among_the_active";
    let Some((mut server, status_listen)) = testing::php_fpm(test).await else {
        return;
    };
    let fcgi = |addr, path: &str, through_pool| Url::Fcgi { addr, path: path.to_owned(), through_pool };
    let pool = fcgi(server.addr, "/status", true);
    // The start has left a connection behind that a worker still has to close.
    let sample = status_when(&pool, |sample| (sample.active, sample.idle, sample.total) == (1, 1, 2)).await;
    assert!(sample.utilisation(2).abs() < 1e-9, "{sample:?}");

    let beside = fcgi(status_listen, "/status", false);
    // FPM counts a worker as active until it has closed the connection, a moment after the answer.
    status_when(&beside, |sample| {
        (sample.active, sample.idle, sample.total, sample.listen_queue) == (0, 2, 2, 0)
    })
    .await;

    ping(&fcgi(server.addr, "/ping", true), "pong", 5 * SECOND).await.unwrap();
    let failure = status(&fcgi(server.addr, "/none", true), 5 * SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadStatus, "{failure}");

    queueing_connections_are_seen(&server, &beside).await;

    server.kill();
    let deadline = tokio::time::Instant::now() + 10 * SECOND;
    // The workers die a moment after their namespace's keeper.
    while status(&beside, 5 * SECOND).await.map_err(|failure| failure.kind) != Err(FailureKind::Refused) {
        assert!(tokio::time::Instant::now() < deadline, "still not refused");
    }
}

/// Two silent connections hold both workers, three more wait.
async fn queueing_connections_are_seen(server: &testing::Server, beside: &Url) {
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(tokio::net::TcpStream::connect(server.addr).await.unwrap());
    }
    let sample = status_when(beside, |sample| sample.listen_queue == 3).await;
    assert!(sample.utilisation(2) >= 1.5, "{sample:?}");
}

/// The first sample as wanted. A worker that is just counting holds the scoreboard: then there is none.
async fn status_when(url: &Url, wanted: impl Fn(&Status) -> bool) -> Status {
    let deadline = tokio::time::Instant::now() + 10 * SECOND;
    loop {
        let sample = status(url, 5 * SECOND).await;
        match sample {
            Ok(sample) if wanted(&sample) => return sample,
            Ok(_) => {}
            Err(ref failure) => assert_eq!(failure.kind, FailureKind::NoSample, "{failure}"),
        }
        assert!(tokio::time::Instant::now() < deadline, "{sample:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

proptest! {
    #[test]
    fn no_page_panics_and_active_never_exceeds_total(active in any::<i64>(), total in any::<i64>(), text in ".{0,80}") {
        let _ = parse(text.as_bytes());
        let page = RECORDED
            .replace(r#""active processes":2"#, &format!(r#""active processes":{active}"#))
            .replace(r#""total processes":3"#, &format!(r#""total processes":{total}"#));
        let status = parse(page.as_bytes()).unwrap();
        prop_assert!(status.active <= status.total);
        prop_assert!(status.utilisation(4).is_finite());
    }
}
