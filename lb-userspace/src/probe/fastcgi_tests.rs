//! The FastCGI client against constructed answers. Real ones: see the tests of `php_fpm`.

use proptest::prelude::*;

use super::super::testing::{Liar, SECOND, SHORT};
use super::*;

fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
    let mut out = Vec::new();
    put_record(&mut out, kind, content).unwrap();
    out[6] = padding;
    out.resize(out.len() + usize::from(padding), 0);
    out
}

fn end(status: u8) -> Vec<u8> {
    record(END_REQUEST, &[0, 0, 0, 0, status, 0, 0, 0], 0)
}

#[tokio::test]
async fn an_answer_in_pieces_is_put_together() {
    let words = [
        record(STDERR, b"a warning\n", 6),
        record(STDOUT, b"Status: 404 Not Found\r\nContent-type: te", 1),
        record(STDOUT, b"xt/plain\r\n\r\nFile not", 0),
        record(STDOUT, b" found", 255),
        record(STDOUT, b"", 0),
        end(0),
    ]
    .concat();
    let server = Liar::saying(&words, true).await;
    let answer = get(server.addr, "/status?json", SECOND).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(answer.body, b"File not found");
    assert_eq!(answer.errors, "a warning");
}

#[tokio::test]
async fn bad_answers_have_names() {
    use FailureKind as K;
    let hello = record(STDOUT, b"Content-type: text/plain\r\n\r\nhello", 0);
    let mut stranger = record(STDOUT, b"", 0);
    stranger[3] = 9;
    let table = [
        (Vec::new(), K::Closed),
        (hello[..5].to_vec(), K::Closed),
        (hello.clone(), K::Closed),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), K::BadAnswer),
        (stranger, K::BadAnswer),
        (record(PARAMS, b"", 0), K::BadAnswer),
        (end(2), K::BadAnswer),
        (end(0), K::BadAnswer),
        (record(END_REQUEST, b"", 0), K::BadAnswer),
        ([record(STDOUT, b"Status: x\r\n\r\n", 0), end(0)].concat(), K::BadAnswer),
        (hello.repeat(20_000), K::TooLarge),
    ];
    for (words, kind) in table {
        let server = Liar::saying(&words, true).await;
        let failure = get(server.addr, "/ping", SECOND).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
    }
    let server = Liar::silent().await;
    let failure = get(server.addr, "/ping", SHORT).await.unwrap_err();
    assert_eq!(failure.kind, K::TimedOut);
}

#[tokio::test]
async fn a_path_that_fits_no_record_is_not_sent() {
    let path = format!("/{}", "x".repeat(70_000));
    let failure = get("127.0.0.1:9".parse().unwrap(), &path, SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Local);
    assert!(request(&"x".repeat(200)).is_some(), "lengths above 127 take four bytes");
}

proptest! {
    #[test]
    fn no_sequence_of_bytes_panics_and_pieces_make_the_same_whole(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        contents in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..50), any::<u8>()), 0..5),
        cut in 0usize..400,
    ) {
        let mut raw: Vec<u8> = contents.iter().flat_map(|(content, padding)| record(STDOUT, content, *padding)).collect();
        raw.extend(bytes);
        let mut whole = Records::default();
        let all = whole.advance(&raw);
        let mut pieces = Records::default();
        if let Ok(false) = pieces.advance(&raw[..cut.min(raw.len())]) {
            prop_assert_eq!(pieces.advance(&raw), all);
            prop_assert_eq!(pieces.stdout, whole.stdout);
        }
        let _ = split_cgi(&raw);
    }
}
