//! The HTTP probe against servers that keep the rules, break them, or lie.

use proptest::prelude::*;

use super::super::testing::{self, Liar, SECOND, SHORT, refusing_address};
use super::*;

fn target(addr: SocketAddr) -> Target {
    Target::new(addr, "/ping", "web.example", Expected::status(200..=399)).unwrap()
}

const HUNDRED_MEGABYTES: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";

#[tokio::test]
async fn whole_answers_are_read_in_every_framing() {
    let table: &[(&str, u16, &str)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npongrest", 200, "pong"),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\npong", 200, "pong"),
        ("HTTP/1.0 302 Found\r\n\r\n", 302, ""),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 204, ""),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2;x=y\r\npo\r\n2\r\nng\r\n0\r\n\r\n",
            200,
            "pong",
        ),
    ];
    for (words, status, body) in table {
        let server = Liar::saying(words.as_bytes(), true).await;
        let page = get(&target(server.addr), SECOND).await.unwrap();
        assert_eq!((page.status, page.body.as_slice()), (*status, body.as_bytes()), "{words}");
        assert_eq!(probe(&target(server.addr), SECOND).await.unwrap().status, *status);
    }
}

#[tokio::test]
async fn bad_answers_have_names() {
    use FailureKind as K;
    let table: &[(&[u8], FailureKind)] = &[
        (b"", K::Closed),
        (b"HTTP/1.1 200 OK\r\nContent-Le", K::Closed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", K::Closed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", K::Closed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", K::BadAnswer),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", K::BadAnswer),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", K::BadAnswer),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", K::BadAnswer),
        (b"\x15\x03\x01\x00\x02\x02\x0a\n", K::BadAnswer),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", K::BadStatus),
    ];
    for (words, kind) in table {
        let server = Liar::saying(words, true).await;
        let failure = probe(&target(server.addr), SECOND).await.unwrap_err();
        assert_eq!(failure.kind, *kind, "{failure}");
        assert!(failure.doubtful());
        assert!(failure.to_string().starts_with(&server.addr.to_string()));
    }
}

#[tokio::test]
async fn silence_times_out_and_a_closed_port_is_refused() {
    let server = Liar::silent().await;
    let failure = probe(&target(server.addr), SHORT).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(failure.to_string().contains("within 100ms"), "{failure}");
    let failure = probe(&target(refusing_address()), SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
}

#[tokio::test]
async fn a_hundred_megabytes_are_a_status_to_the_probe_and_too_large_as_a_page() {
    let server = Liar::flooding(HUNDRED_MEGABYTES, b"x").await;
    assert_eq!(probe(&target(server.addr), SECOND).await.unwrap().status, 200);
    let failure = get(&target(server.addr), SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge);
    let floods: [(&[u8], &'static [u8]); 2] =
        [(b"HTTP/1.1 200 OK\r\nx: ", b"x"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n")];
    for (words, filler) in floods {
        let server = Liar::flooding(words, filler).await;
        let failure = probe(&target(server.addr), SECOND).await.unwrap_err();
        assert!(matches!(failure.kind, FailureKind::TooLarge | FailureKind::BadAnswer), "{failure}");
    }
}

#[tokio::test]
async fn a_real_server_is_judged_by_status_header_and_body() {
    let test = "a_real_server_is_judged_by_status_header_and_body";
    let Some(server) = testing::nginx(test, "").await else { return };
    let good = || Expected::status(200..=399);
    let header =
        |name: &str, text: &str| Expected { header: Some((name.to_owned(), text.to_owned())), ..good() };
    let body = |text: &str| Expected { body: Some(text.to_owned()), ..good() };
    let codes = |status: &[RangeInclusive<u16>]| Expected { status: status.to_vec(), ..good() };
    for (path, method, expected, says) in [
        ("/ping", Method::Get, good(), ""),
        ("/ping", Method::Head, good(), ""),
        ("/", Method::Get, good(), "answered / with HTTP status 404, not 200 to 399"),
        ("/", Method::Get, codes(&[200..=299, 404..=404]), ""),
        ("/", Method::Get, codes(&[200..=299, 401..=401]), "with HTTP status 404, not 200 to 299, 401"),
        ("/ping", Method::Options, good(), ""),
        ("/ping", Method::Get, header("x-ready", "all of it"), ""),
        ("/ping", Method::Head, header("X-READY", ""), ""),
        ("/ping", Method::Get, header("x-ready", "no"), r#"without a header x-ready that holds "no""#),
        ("/ping", Method::Get, header("x-other", ""), "answered /ping without a header x-other"),
        ("/ping", Method::Get, body("on"), ""),
        ("/ping", Method::Get, body("pongg"), r#"a body that does not hold "pongg": "pong""#),
        ("/named", Method::Get, body("web.example, asked by GET"), ""),
    ] {
        let target = Target::new(server.addr, path, "web.example", expected.clone()).unwrap().by(method);
        match probe(&target, 5 * SECOND).await {
            Ok(_) => assert_eq!(says, "", "{path}, {expected:?}"),
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::BadStatus, "{failure}");
                assert!(!says.is_empty() && failure.detail.ends_with(says), "{failure}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_is_searched_in_its_first_64_kilobytes_however_it_is_framed() {
    let long = |framing: &str, lead: usize| {
        let mut words = format!("HTTP/1.1 200 OK\r\n{framing}").into_bytes();
        words.extend(vec![b'x'; lead]);
        words.extend_from_slice(b"pong");
        words
    };
    let chunked = "Transfer-Encoding: chunked\r\n\r\n5f5e100\r\n";
    let length = "Content-Length: 100000000\r\n\r\n";
    for framing in [chunked, length, "\r\n"] {
        for (lead, found) in [(60_000, true), (70_000, false)] {
            let server = Liar::flooding(&long(framing, lead), b"y").await;
            let expected = Expected { body: Some("pong".to_owned()), ..Expected::status(200..=200) };
            let target = Target::new(server.addr, "/", "web", expected).unwrap();
            assert_eq!(probe(&target, SECOND).await.is_ok(), found, "{framing:?} after {lead}");
        }
    }
}

/// One byte every few milliseconds, for ever: a header, a body, a chunk.
#[tokio::test]
async fn a_server_that_drips_gets_no_more_than_the_time_of_one_probe() {
    for words in [
        "HTTP/1.1 200 OK\r\nx: ",
        "HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n",
        "",
    ] {
        let server = Liar::new(move |mut stream| async move {
            let mut sent = stream.write_all(words.as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
                sent = stream.write_all(b"H").await;
            }
        })
        .await;
        let begun = std::time::Instant::now();
        let failure = probe(&target(server.addr), SHORT).await.unwrap_err();
        assert!(matches!(failure.kind, FailureKind::TimedOut | FailureKind::BadAnswer), "{failure}");
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    }
}

/// The network is gone in the middle of an answer: no FIN, no RST.
#[tokio::test]
async fn a_half_open_connection_ends_with_the_time_of_one_probe() {
    let server = Liar::new(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npo").await;
        tokio::time::sleep(60 * SECOND).await;
    })
    .await;
    let failure = probe(&target(server.addr), SHORT).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
}

#[test]
fn targets_that_would_forge_a_request_are_refused() {
    let addr = refusing_address();
    for (path, host) in
        [("ping", "h"), ("/a b", "h"), ("/a\r\nX: y", "h"), ("/", ""), ("/", "a\r\nb"), ("/ä", "h")]
    {
        assert!(Target::new(addr, path, host, Expected::status(200..=299)).is_err(), "{path:?} {host:?}");
    }
    let target = target(addr);
    assert_eq!(target.with_query("json").path, "/ping?json");
    assert_eq!(target.with_query("json").with_query("full").path, "/ping?json&full");
}

proptest! {
    #[test]
    fn no_answer_panics_and_pieces_make_the_same_whole(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        chunked in any::<bool>(),
        cut in 0usize..300,
    ) {
        let head: &[u8] = if chunked {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        } else {
            b"HTTP/1.1 200 OK\r\n"
        };
        let _ = parse_head(&bytes, 0);
        bytes.splice(0..0, head.iter().copied());
        if let Ok(Some(head)) = parse_head(&bytes, 0) {
            let mut whole = Body::new(head);
            let all = whole.advance(&bytes);
            let mut pieces = Body::new(head);
            let cut = cut.clamp(head.end, bytes.len().max(head.end));
            let first = pieces.advance(&bytes[..cut]);
            let last = match first {
                Ok(false) => pieces.advance(&bytes),
                done => done,
            };
            if all.is_ok() && last.is_ok() {
                prop_assert_eq!(all, last);
                prop_assert_eq!(whole.decoded, pieces.decoded);
            }
        }
    }
}
