//! TLS against servers with certificates of all kinds, made by openssl. Who serves is a real nginx.

use std::net::SocketAddr;

use super::super::http::{Expected, Method, Target, probe};
use super::super::testing::{self, Liar, Pki, SECOND, SHORT, refusing_address};
use super::*;

fn target(addr: SocketAddr, host: &str, trust: &Trust) -> Target {
    let target = Target::new(addr, "/ping", host, Expected::status(200..=200)).unwrap();
    target.over(Tls::strict(trust).unwrap()).unwrap()
}

#[tokio::test]
async fn a_certificate_must_be_signed_by_whom_is_trusted_and_be_for_the_name() {
    let test = "a_certificate_must_be_signed_by_whom_is_trusted_and_be_for_the_name";
    let Some(pki) = Pki::new(test) else { return };
    let Some(server) = testing::nginx(test, &pki.serving("web.example", 365)).await else { return };
    let ours = Trust::Authorities(Authorities::from_pem(&pki.authority()).unwrap());
    let stranger = Pki::new(test).unwrap();
    let other = Trust::Authorities(Authorities::from_pem(&stranger.authority()).unwrap());
    for (host, trust, says) in [
        ("web.example", &ours, ""),
        ("web.example:8443", &ours, ""),
        ("127.0.0.1", &ours, ""),
        ("other.example", &ours, "showed a certificate that is not for other.example: say in `host`"),
        ("web.example", &other, "showed a certificate of an unknown authority: name the authority's file"),
        ("web.example", &Trust::System, "showed a certificate of an unknown authority"),
        ("other.example", &Trust::Anybody, ""),
    ] {
        // The second probe resumes the session of the first.
        let target = target(server.addr, host, trust);
        for _ in 0..2 {
            match probe(&target, 5 * SECOND).await {
                Ok(answer) => assert_eq!((answer.status, says), (200, ""), "{host}, {trust:?}"),
                Err(failure) => {
                    assert!(!says.is_empty() && failure.detail.contains(says), "{host}: {failure}");
                    assert_eq!(failure.kind, FailureKind::BadAnswer);
                }
            }
        }
    }
    // What was asked for is what the server was told (SNI and Host), and all other rules hold over TLS.
    let mut expected = Expected::status(200..=200);
    expected.body = Some("web.example, asked by HEAD or GET, over TLS".to_owned());
    let page = Target::new(server.addr, "/named", "web.example", expected.clone()).unwrap();
    probe(&page.over(Tls::strict(&ours).unwrap()).unwrap(), 5 * SECOND).await.unwrap();
    let plain = Target::new(server.addr, "/ping", "web.example", Expected::status(200..=200)).unwrap();
    let failure = probe(&plain.by(Method::Get), 5 * SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::BadStatus, "plain HTTP to the TLS port: {failure}");
}

#[tokio::test]
async fn an_expired_certificate_is_told_as_such() {
    let test = "an_expired_certificate_is_told_as_such";
    let Some(pki) = Pki::new(test) else { return };
    let Some(server) = testing::nginx(test, &pki.serving("web.example", 0)).await else { return };
    let ours = Trust::Authorities(Authorities::from_pem(&pki.authority()).unwrap());
    // One of no days is over when the second has passed in which it was made.
    let mut failure = None;
    let begun = std::time::Instant::now();
    while failure.is_none() && begun.elapsed() < 10 * SECOND {
        failure = probe(&target(server.addr, "web.example", &ours), 5 * SECOND).await.err();
    }
    let failure = failure.expect("it expires");
    assert!(failure.detail.ends_with("showed a certificate that has expired"), "{failure}");
}

#[tokio::test]
async fn whoever_speaks_no_tls_gets_a_name_in_bounded_time() {
    use FailureKind as K;
    let table: [(&[u8], FailureKind, &str); 4] = [
        (b"", K::Closed, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", K::BadAnswer, "does not speak TLS"),
        (b"\x15\x03\x03\x00\x02\x02\x28", K::BadAnswer, "HandshakeFailure"),
        (&[0x16, 3, 3, 0xff, 0xff], K::BadAnswer, "does not speak TLS"),
    ];
    for (words, kind, says) in table {
        let server = Liar::saying(words, true).await;
        let failure = probe(&target(server.addr, "web", &Trust::Anybody), SECOND).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.detail.contains(says), "{failure}");
    }
    let silent = Liar::silent().await;
    let failure = probe(&target(silent.addr, "web", &Trust::Anybody), SHORT).await.unwrap_err();
    assert_eq!(failure.kind, K::TimedOut);
    assert!(failure.detail.ends_with("the TLS handshake is not complete"), "{failure}");
    // A hundred megabytes of anything are read no further than the first record.
    let flood = Liar::flooding(b"", &[0x16, 3, 3, 0, 1, 2]).await;
    let failure = probe(&target(flood.addr, "web", &Trust::Anybody), SECOND).await.unwrap_err();
    assert_eq!(failure.kind, K::BadAnswer, "{failure}");
    assert_eq!(
        probe(&target(refusing_address(), "web", &Trust::Anybody), SECOND).await.unwrap_err().kind,
        K::Refused
    );
}

#[test]
fn a_server_is_named_without_its_port_and_an_address_stays_one() {
    for (host, name) in [
        ("www.example.org", "www.example.org"),
        ("www.example.org:8443", "www.example.org"),
        ("10.0.0.11:443", "10.0.0.11"),
        ("10.0.0.11", "10.0.0.11"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
    ] {
        assert_eq!(server_name(host).map(|name| name.to_str().into_owned()).as_deref(), Some(name));
    }
    assert_eq!(server_name("no host"), None);
}

#[test]
fn a_file_without_a_certificate_names_no_authority() {
    for text in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        assert_eq!(Authorities::from_pem(text), None, "{text}");
    }
}
