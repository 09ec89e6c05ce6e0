//! The session against recorded and constructed packets, servers that lie, and a real MariaDB.

use std::net::SocketAddr;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::testing::{self, Liar, SECOND, SHORT};
use super::super::tls::{Authorities, Trust};
use super::packet::{AuthStep, ServerError};
use super::*;

fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    wire::frame(payload, sequence).unwrap()
}

/// The greeting of a MariaDB 10.11, with another plugin and random bytes.
fn greeting(plugin: &str, nonce: &[u8; 20]) -> Vec<u8> {
    let mut out = b"\x0a5.5.5-10.11.19-MariaDB\0\x2a\0\0\0".to_vec();
    out.extend_from_slice(&nonce[..8]);
    out.extend_from_slice(&[0, 0xfe, 0xf7, 0x2d, 0x02, 0x00, 0xff, 0x81, 21]);
    out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0x1d, 0, 0, 0]);
    out.extend_from_slice(&nonce[8..]);
    out.push(0);
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    out
}

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];

#[test]
fn error_packets_are_read_with_and_without_a_sql_state() {
    let table: &[(&[u8], u16, &str)] = &[
        (b"\xff\x10\x04Too many connections", 1040, "Too many connections"),
        (b"\xff\x10\x04#08004Too many connections", 1040, "Too many connections"),
        (b"\xff\x69\x04Host '10.77.1.1' is blocked", 1129, "Host '10.77.1.1' is blocked"),
        (b"\xff\x15\x04#28000Access denied", 1045, "Access denied"),
        (b"\xff\x15\x04#28", 1045, "#28"),
        (b"\xff\x15\x04", 1045, ""),
    ];
    for (payload, code, message) in table {
        let want = ServerError { code: *code, message: (*message).to_owned() };
        assert_eq!(packet::server_error(payload).unwrap(), want);
    }
    assert!(packet::server_error(b"\xff\x10").is_err());
}

#[test]
fn the_greeting_is_read_whole_or_not_at_all() {
    let whole = greeting("caching_sha2_password", NONCE);
    let read = packet::greeting(&whole).unwrap();
    assert_eq!(read.nonce, [&NONCE[..], b"\0"].concat());
    assert_eq!(read.plugin, "caching_sha2_password");
    assert_eq!(read.version, "5.5.5-10.11.19-MariaDB");
    let plugin_starts = whole.len() - "caching_sha2_password".len() - 1;
    for length in 0..plugin_starts {
        assert!(packet::greeting(&whole[..length]).is_err(), "{length}");
    }
    // Old servers: no plugin at all, or no NUL at its end.
    let read = packet::greeting(&whole[..plugin_starts]).unwrap();
    assert_eq!(read.plugin, "mysql_native_password");
    let read = packet::greeting(&whole[..whole.len() - 1]).unwrap();
    assert_eq!(read.plugin, "caching_sha2_password");
    let mut version_9 = whole;
    version_9[0] = 9;
    assert!(packet::greeting(&version_9).is_err());
}

#[test]
fn the_steps_of_a_login_are_told_apart() {
    let switch =
        |plugin: &str, nonce: &[u8]| AuthStep::Switch { plugin: plugin.to_owned(), nonce: nonce.to_vec() };
    let table: &[(&[u8], AuthStep)] = &[
        (OK, AuthStep::Accepted),
        (b"\x01\x03", AuthStep::More(vec![3])),
        (b"\xfeclient_ed25519\x00nonce", switch("client_ed25519", b"nonce")),
        (b"\xfemysql_native_password\0abc\0", switch("mysql_native_password", b"abc\0")),
        (b"\xfe", switch("mysql_old_password", b"")),
    ];
    for (payload, want) in table {
        assert_eq!(&packet::auth_step(payload).unwrap(), want);
    }
    for payload in [&b""[..], b"\x05", b"\xfeno end"] {
        assert!(packet::auth_step(payload).is_err());
    }
}

#[test]
fn error_numbers_have_kinds() {
    use FailureKind as K;
    let account = login::Account { user: "l'b", password: "", host: "10.0.0.9" };
    let peer = Peer::new("10.0.0.1:3306".parse().unwrap(), SECOND);
    let table = [
        (1040, K::Saturated, ""),
        (1045, K::MonitorDenied, "CREATE USER 'l''b'@'10.0.0.9' IDENTIFIED BY"),
        (1129, K::MonitorDenied, "flush-hosts"),
        (1130, K::MonitorDenied, "CREATE USER"),
        (1049, K::MonitorDenied, ""),
        (1047, K::NotReady, ""),
        (1053, K::NotReady, ""),
        (3032, K::Offline, ""),
        (3159, K::MonitorDenied, "TLS"),
        (4031, K::Closed, ""),
        (1193, K::Server(1193), ""),
    ];
    for (code, kind, words) in table {
        let error = ServerError { code, message: "as it says".to_owned() };
        let failure = failure::of_login(&peer, &error, &account);
        assert_eq!(failure.kind, kind);
        assert!(failure.detail.contains(words), "{failure}");
        assert!(failure.detail.starts_with(&format!("10.0.0.1:3306 says error {code}: as it says")));
    }
}

/// What a constructed server says, and what becomes of the login.
#[tokio::test]
async fn constructed_logins_end_as_they_should() {
    use FailureKind as K;
    let native = packet(0, &greeting("mysql_native_password", NONCE));
    let sha2 = packet(0, &greeting("caching_sha2_password", NONCE));
    let denied = packet(2, b"\xff\x15\x04#28000Access denied");
    let unknown = packet(2, b"\xfeauth_gssapi_client\0x");
    let table = [
        (packet(0, b"\xff\x10\x04Too many connections"), Err(K::Saturated)),
        (packet(0, b"\xff\x69\x04Host is blocked"), Err(K::MonitorDenied)),
        ([native.clone(), packet(2, b"\xff\x10\x04#08004Too many")].concat(), Err(K::Saturated)),
        ([native.clone(), denied].concat(), Err(K::MonitorDenied)),
        ([native.clone(), packet(2, OK)].concat(), Ok(())),
        ([native.clone(), packet(7, OK)].concat(), Err(K::BadAnswer)),
        ([native.clone(), unknown, packet(4, b"\xff\x15\x04#28000No")].concat(), Err(K::MonitorDenied)),
        ([native.clone(), packet(2, b"\x01\x04")].concat(), Err(K::BadAnswer)),
        ([sha2.clone(), packet(2, b"\x01\x03"), packet(3, OK)].concat(), Ok(())),
        ([sha2.clone(), packet(2, b"\x01\x04"), packet(4, b"\x01no key")].concat(), Err(K::MonitorDenied)),
        ([sha2, packet(2, b"\x01\x03").repeat(20)].concat(), Err(K::BadAnswer)),
        (native[..30].to_vec(), Err(K::Closed)),
        (native, Err(K::Closed)),
        (b"\xff\xff\xff\x00aaaa".to_vec(), Err(K::BadAnswer)),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), Err(K::BadAnswer)),
        (packet(0, b""), Err(K::BadAnswer)),
        (Vec::new(), Err(K::Closed)),
    ];
    for (words, want) in table {
        let server = Liar::saying(&words, false).await;
        let answer = Session::connect(server.addr, "lb", "secret", &Encryption::Off, SECOND).await;
        assert_eq!(answer.map(drop).map_err(|failure| failure.kind), want, "{words:?}");
    }
}

/// The server's side of `caching_sha2_password` with a cold cache, with openssl for its key.
#[tokio::test]
async fn a_cold_password_cache_gets_the_password_for_its_own_key_only() {
    let test = "a_cold_password_cache_gets_the_password_for_its_own_key_only";
    let dir = tempfile::tempdir().unwrap();
    let Some((key, pem)) = rsa::tests::generate(&dir.path().join("key")) else {
        println!("SKIPPED: {test}: no openssl on this machine");
        return;
    };
    let (heard, mut passwords) = tokio::sync::mpsc::unbounded_channel();
    let server = Liar::new(move |mut stream| {
        let (key, pem, heard) = (key.clone(), pem.clone(), heard.clone());
        async move {
            let greeting = packet(0, &greeting("caching_sha2_password", NONCE));
            stream.write_all(&greeting).await.unwrap();
            assert_eq!(read_packet(&mut stream).await.0, 1, "login");
            stream.write_all(&packet(2, &[1, 4])).await.unwrap();
            assert_eq!(read_packet(&mut stream).await, (3, vec![2]), "asks for the key");
            stream.write_all(&packet(4, &[b"\x01", pem.as_slice()].concat())).await.unwrap();
            let (sequence, cipher) = read_packet(&mut stream).await;
            assert_eq!(sequence, 5);
            let mixed = rsa::tests::decrypt(&key, &cipher);
            heard.send(auth::xor(&mixed, &NONCE.repeat(4))).unwrap();
            stream.write_all(&packet(6, OK)).await.unwrap();
            assert_eq!(read_packet(&mut stream).await, (0, vec![COM_QUIT]));
            heard.send(b"quit".to_vec()).unwrap();
        }
    })
    .await;
    let password = "longer than the twenty random bytes";
    let session = Session::connect(server.addr, "lb", password, &Encryption::Off, 10 * SECOND).await.unwrap();
    session.quit();
    assert_eq!(passwords.recv().await.unwrap(), format!("{password}\0").as_bytes());
    assert_eq!(passwords.recv().await.unwrap(), b"quit");
}

async fn read_packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 4];
    stream.read_exact(&mut header).await.unwrap();
    let mut payload = vec![0; usize::from(u16::from_le_bytes([header[0], header[1]]))];
    stream.read_exact(&mut payload).await.unwrap();
    (header[3], payload)
}

#[tokio::test]
async fn random_bytes_are_counted_even_if_the_last_is_zero() {
    let table: [(&str, &[u8], auth::Plugin, usize); 3] = [
        ("client_ed25519", &[[7; 31].as_slice(), &[0]].concat(), auth::Plugin::Ed25519, 32),
        ("caching_sha2_password", &[[7; 20].as_slice(), &[0]].concat(), auth::Plugin::CachingSha2, 20),
        ("mysql_native_password", &[7; 20], auth::Plugin::Native, 20),
    ];
    for (name, sent, plugin, length) in table {
        let switch = packet(2, &[b"\xfe", name.as_bytes(), b"\0", sent].concat());
        let (heard, mut proofs) = tokio::sync::mpsc::unbounded_channel();
        let server = Liar::new(move |mut stream| {
            let (switch, heard) = (switch.clone(), heard.clone());
            async move {
                stream.write_all(&packet(0, &greeting("unknown", NONCE))).await.unwrap();
                read_packet(&mut stream).await;
                stream.write_all(&switch).await.unwrap();
                heard.send(read_packet(&mut stream).await.1).unwrap();
                stream.write_all(&packet(4, OK)).await.unwrap();
            }
        })
        .await;
        Session::connect(server.addr, "lb", "secret", &Encryption::Off, SECOND).await.unwrap();
        assert_eq!(proofs.recv().await.unwrap(), plugin.response("secret", &sent[..length]), "{name}");
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_times_out() {
    let server = Liar::silent().await;
    let failure = Session::connect(server.addr, "lb", "", &Encryption::Off, SHORT).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(failure.detail.contains("no greeting"), "{failure}");
}

async fn answer_to_query(words: &[u8]) -> Result<Rows, Failure> {
    let mut wire = Wire::new(tokio::io::join(words, tokio::io::sink()));
    let peer = Peer::new("192.0.2.1:3306".parse().unwrap(), SECOND);
    query(&mut wire, &peer, "SELECT 1").await
}

#[tokio::test]
async fn answers_are_bounded_and_their_ends_are_checked() {
    use FailureKind as K;
    let column = packet(2, b"\x03def\x00\x00\x00\x01a\x00\x0c\x3f\0\x01\0\0\0\x03\x81\0\0\0\0");
    let eof = |sequence| packet(sequence, &[0xfe, 0, 0, 2, 0]);
    let head = [packet(1, &[1]), column.clone(), eof(3)].concat();
    let whole = [head.clone(), packet(4, b"\x011"), packet(5, b"\xfb"), eof(6)].concat();
    let rows = answer_to_query(&whole).await.unwrap();
    assert_eq!(rows.columns, ["a"]);
    assert_eq!(rows.rows, [vec![Some("1".to_owned())], vec![None]]);
    for length in 0..whole.len() {
        let failure = answer_to_query(&whole[..length]).await.unwrap_err();
        assert_eq!(failure.kind, K::Closed, "{length}");
    }
    let many_rows: Vec<u8> =
        (0..u8::MAX).cycle().skip(4).take(60_000).flat_map(|sequence| packet(sequence, b"\x011")).collect();
    let table = [
        (packet(1, b"\xff\xa9\x04#HY000Unknown system variable"), K::Server(1193)),
        (packet(1, b"\xff\x17\x04#08S01WSREP has not yet prepared node"), K::NotReady),
        (packet(1, b"\xfb/etc/passwd"), K::BadAnswer),
        (packet(1, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff"), K::BadAnswer),
        ([packet(1, &[2]), column, eof(3)].concat(), K::BadAnswer),
        ([head.clone(), packet(4, b"\x051")].concat(), K::BadAnswer),
        ([head.clone(), packet(4, b"\x0112")].concat(), K::BadAnswer),
        ([head.clone(), packet(4, b"\xff\x25\x05#70100interrupted")].concat(), K::Closed),
        ([head.clone(), b"\xff\xff\x00\x04".to_vec(), vec![b'x'; 70_000]].concat(), K::TooLarge),
        ([head, many_rows].concat(), K::BadAnswer),
    ];
    for (words, kind) in table {
        let failure = answer_to_query(&words).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
    }
}

proptest! {
    #[test]
    fn no_sequence_of_bytes_panics_or_is_read_without_bound(
        prefix in 0usize..3,
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        for payload in &payloads {
            let _ = packet::greeting(payload);
            let _ = packet::auth_step(payload);
            let _ = packet::result_head(payload);
            let _ = packet::column_name(payload);
            let _ = packet::row(payload, 3);
            let _ = packet::server_error(payload);
        }
        let mut words = Vec::new();
        if prefix > 0 {
            words = packet(0, &greeting(["", "mysql_native_password", "caching_sha2_password"][prefix], NONCE));
        }
        for (payload, sequence) in payloads.iter().zip(2u8..) {
            words.extend(packet(sequence, payload));
        }
        words.extend(tail);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let _ = answer_to_query(&words).await;
            let mut wire = Wire::new(tokio::io::join(words.as_slice(), tokio::io::sink()));
            let peer = Peer::new("192.0.2.1:3306".parse().unwrap(), SECOND);
            let account = login::Account { user: "lb", password: "secret", host: "192.0.2.2" };
            if let Ok(greeting) = login::greet(&mut wire, &peer, &account).await {
                let _ = login::log_in(&mut wire, &peer, &account, &greeting, false).await;
            }
        });
    }
}

#[tokio::test]
async fn a_real_mariadb_lets_in_by_each_plugin_and_refuses_by_name() {
    use FailureKind as K;
    let test = "a_real_mariadb_lets_in_by_each_plugin_and_refuses_by_name";
    let options = ["--max-connections=10", "--plugin-load-add=auth_ed25519"];
    let Some(server) = testing::mariadb(test, &options).await else {
        return;
    };
    testing::sql(
        &server,
        &[
            "CREATE USER lb@127.0.0.1 IDENTIFIED BY 's3cret'",
            "CREATE USER ed@127.0.0.1 IDENTIFIED VIA ed25519 USING PASSWORD('s3cret')",
            "CREATE USER tls@127.0.0.1 IDENTIFIED BY 's3cret' REQUIRE SSL",
            "CREATE USER unix@127.0.0.1 IDENTIFIED VIA unix_socket",
        ],
    )
    .await;
    let table = [
        ("lb", "s3cret", Ok(())),
        ("ed", "s3cret", Ok(())),
        ("root", "", Ok(())),
        ("lb", "wrong", Err(K::MonitorDenied)),
        ("lb", "", Err(K::MonitorDenied)),
        ("ed", "wrong", Err(K::MonitorDenied)),
        ("nobody", "s3cret", Err(K::MonitorDenied)),
        ("tls", "s3cret", Err(K::MonitorDenied)),
        ("unix", "s3cret", Err(K::MonitorDenied)),
    ];
    for (user, password, want) in table {
        let answer = Session::connect(server.addr, user, password, &Encryption::Off, 5 * SECOND).await;
        let answer = answer.map(Session::quit).map_err(|failure| {
            assert!(failure.detail.contains("CREATE USER"), "{failure}");
            failure.kind
        });
        assert_eq!(answer, want, "{user}");
    }
    a_session_asks_more_than_once(server.addr).await;
    goodbyes_are_not_counted_as_aborted(server.addr).await;
    saturation_has_two_forms(server.addr).await;
}

async fn connect(addr: SocketAddr) -> Result<Session, Failure> {
    Session::connect(addr, "lb", "s3cret", &Encryption::Off, 5 * SECOND).await
}

async fn a_session_asks_more_than_once(addr: SocketAddr) {
    let mut session = connect(addr).await.unwrap();
    assert!(session.version().contains("MariaDB"), "{}", session.version());
    session.ping(5 * SECOND).await.unwrap();
    let rows = session.query("SELECT 1 AS one, NULL, 'zwei'", 5 * SECOND).await.unwrap();
    assert_eq!(rows.columns, ["one", "NULL", "zwei"]);
    assert_eq!(rows.rows, [vec![Some("1".to_owned()), None, Some("zwei".to_owned())]]);
    let failure = session.query("SELECT @@global.nonsense", 5 * SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Server(1193), "{failure}");
    // An error of a query leaves the session usable.
    let rows = session.query("SET SESSION wait_timeout=60", 5 * SECOND).await.unwrap();
    assert_eq!(rows, Rows::default());
    let failure = session.query("SELECT REPEAT('x', 100000)", 5 * SECOND).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge);
}

async fn goodbyes_are_not_counted_as_aborted(addr: SocketAddr) {
    let counters = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Aborted_clients', 'Connections')";
    let mut watch = connect(addr).await.unwrap();
    alone(&mut watch).await;
    let before = watch.query(counters, 5 * SECOND).await.unwrap().rows;
    for _ in 0..20 {
        connect(addr).await.unwrap().quit();
    }
    alone(&mut watch).await;
    let after = watch.query(counters, 5 * SECOND).await.unwrap().rows;
    let number =
        |rows: &[Vec<Option<String>>], row: usize| -> u64 { rows[row][1].as_ref().unwrap().parse().unwrap() };
    assert_eq!(number(&after, 0), number(&before, 0), "aborted");
    assert_eq!(number(&after, 1), number(&before, 1) + 20, "connections");
}

/// Waits until the server has judged the end of all connections but the watcher's.
async fn alone(watch: &mut Session) {
    let running = "SELECT COUNT(*) FROM information_schema.processlist WHERE user <> 'system user'";
    while watch.query(running, 5 * SECOND).await.unwrap().rows != [vec![Some("1".to_owned())]] {}
}

/// One over `max_connections` is refused after the login, one more (beside the spare slot) instead of the greeting.
async fn saturation_has_two_forms(addr: SocketAddr) {
    let mut held = Vec::new();
    let failure = loop {
        match connect(addr).await {
            Ok(session) => held.push(session),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.kind, FailureKind::Saturated, "{failure}");
    assert!(!failure.doubtful());
    assert!(held.len() >= 9, "{}", held.len());
    assert!(failure.detail.ends_with("Too many connections"), "{failure}");

    let mut spare = TcpStream::connect(addr).await.unwrap();
    assert!(spare.read(&mut [0; 512]).await.unwrap() > 4, "a greeting");
    let failure = connect(addr).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Saturated, "{failure}");
    assert!(failure.detail.ends_with("Too many connections"), "{failure}");
}

/// What the server says of this session's encryption.
async fn cipher(session: &mut Session) -> String {
    let rows = session.query("SHOW STATUS LIKE 'Ssl_version'", 5 * SECOND).await.unwrap().rows;
    rows[0][1].clone().unwrap()
}

#[tokio::test]
async fn a_server_that_wants_tls_gets_it_and_no_handshake_ends_half_way() {
    use FailureKind as K;
    let test = "a_server_that_wants_tls_gets_it_and_no_handshake_ends_half_way";
    let Some(pki) = testing::Pki::new(test) else { return };
    let (certificate, key) = pki.certificate("db.example", 2);
    let options = [
        format!("--ssl-cert={}", certificate.display()),
        format!("--ssl-key={}", key.display()),
        "--require-secure-transport=ON".to_owned(),
        "--max-connect-errors=3".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let Some(server) = testing::mariadb(test, &options).await else { return };
    testing::sql(
        &server,
        &[
            "CREATE USER lb@127.0.0.1 IDENTIFIED BY 's3cret'",
            "CREATE USER tls@127.0.0.1 IDENTIFIED BY 's3cret' REQUIRE SSL",
        ],
    )
    .await;
    let trusting = |trust: &Trust| Tls::patient(trust).unwrap();
    let ours = trusting(&Trust::Authorities(Authorities::from_pem(&pki.authority()).unwrap()));
    let stranger = testing::Pki::new(test).unwrap();
    let other = trusting(&Trust::Authorities(Authorities::from_pem(&stranger.authority()).unwrap()));
    let anybody = trusting(&Trust::Anybody);
    for (encryption, user, password, want) in [
        (Encryption::Off, "lb", "s3cret", Err(K::MonitorDenied)),
        (Encryption::Preferred(anybody.clone()), "lb", "s3cret", Ok("TLSv1.3")),
        (Encryption::Required(anybody.clone()), "tls", "s3cret", Ok("TLSv1.3")),
        (Encryption::Required(ours.clone()), "lb", "s3cret", Ok("TLSv1.3")),
        (Encryption::Required(ours), "lb", "wrong", Err(K::MonitorDenied)),
        (Encryption::Required(other.clone()), "lb", "s3cret", Err(K::MonitorDenied)),
        (Encryption::Preferred(other.clone()), "lb", "s3cret", Err(K::MonitorDenied)),
    ] {
        let answer = Session::connect(server.addr, user, password, &encryption, 5 * SECOND).await;
        match (answer, want) {
            (Ok(mut session), Ok(version)) => assert_eq!(cipher(&mut session).await, version),
            (Err(failure), Err(kind)) => {
                assert_eq!(failure.kind, kind, "{failure}");
                match &encryption {
                    Encryption::Off => {
                        assert!(failure.detail.contains(r#"write tls = "required""#), "{failure}");
                    }
                    Encryption::Preferred(_) => assert!(failure.detail.contains("`ca-file`"), "{failure}"),
                    Encryption::Required(_) => {}
                }
            }
            (answer, _) => panic!("{user}, {encryption:?}: {answer:?}"),
        }
    }
    // Three unfinished handshakes would have this host blocked.
    let strange = Encryption::Required(other);
    for _ in 0..6 {
        let refused = Session::connect(server.addr, "lb", "s3cret", &strange, 5 * SECOND);
        assert_eq!(refused.await.unwrap_err().kind, K::MonitorDenied);
    }
    let preferred = Encryption::Preferred(anybody);
    let mut session = Session::connect(server.addr, "lb", "s3cret", &preferred, 5 * SECOND).await.unwrap();
    // Between two questions nothing comes, TLS's own messages neither.
    let quiet = tokio::time::timeout(SHORT, session.broken()).await;
    assert!(quiet.is_err(), "the connection is whole");
    farewells_over_tls_are_heard(&server, &mut session, &preferred).await;
}

async fn farewells_over_tls_are_heard(
    server: &testing::Server,
    watch: &mut Session,
    encryption: &Encryption,
) {
    let aborted = "SHOW GLOBAL STATUS LIKE 'Aborted_clients'";
    alone(watch).await;
    let before = watch.query(aborted, 5 * SECOND).await.unwrap();
    for _ in 0..10 {
        Session::connect(server.addr, "lb", "s3cret", encryption, 5 * SECOND).await.unwrap().quit();
    }
    alone(watch).await;
    assert_eq!(watch.query(aborted, 5 * SECOND).await.unwrap(), before);
}

/// Without TLS at the server: preferred goes on without, required logs nobody in, and says why.
#[tokio::test]
async fn a_server_without_tls_is_told_apart_and_never_hears_the_password() {
    let tls = Tls::patient(&Trust::Anybody).unwrap();
    let (heard, mut logins) = tokio::sync::mpsc::unbounded_channel();
    let server = Liar::new(move |mut stream| {
        let heard = heard.clone();
        async move {
            let mut plain = greeting("mysql_native_password", NONCE);
            // The bit of CLIENT_SSL.
            plain["\x0a5.5.5-10.11.19-MariaDB\0\x2a\0\0\0".len() + 9 + 1] &= !0x08;
            stream.write_all(&packet(0, &plain)).await.unwrap();
            heard.send(read_packet(&mut stream).await.1).unwrap();
            stream.write_all(&packet(2, b"\xff\x15\x04#28000Access denied")).await.unwrap();
        }
    })
    .await;
    let login = |encryption: Encryption| async move {
        Session::connect(server.addr, "lb", "secret", &encryption, SECOND).await.unwrap_err()
    };
    let failure = login(Encryption::Required(tls)).await;
    assert_eq!(failure.kind, FailureKind::MonitorDenied);
    assert!(failure.detail.contains("speaks no TLS"), "{failure}");
    let said = logins.recv().await.unwrap();
    assert_eq!(&said[32..34], b"\0\0", "nobody, with no proof of anything");
}
