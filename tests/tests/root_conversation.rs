//! One conversation of real TCP stacks through `lb`, for any kernel: besides `ip` and `ethtool` it needs no program.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use lb_tests::lab::balancer::Look;
use lb_tests::lab::setup::{BALANCER, Service, WEB, web_address};
use lb_tests::lab::skip;
use lb_tests::{Balancer, Host, Lab, Setup};

/// What is sent and comes back: many segments each way, of every alignment.
const BYTES: usize = 300_001;
/// Emulated machines are slow, and a lost segment is sent again.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_tcp_conversation_comes_back_unchanged_in_native_and_generic_mode() {
    const NAME: &str = "a_tcp_conversation_comes_back_unchanged_in_native_and_generic_mode";
    if skip::require_root_and_bpf(NAME) {
        return;
    }
    for mode in ["native", "generic"] {
        let lab = Lab::new().unwrap();
        let (host, web, client) =
            (lab.balancer_host().unwrap(), lab.web_host(1).unwrap(), lab.client_host().unwrap());
        serve(&web);
        // A second is long enough for a handshake even where the processor is emulated.
        let service =
            Service { lines: "check = { type = \"tcp\", timeout = \"1s\" }", ..Service::web(&[100]) };
        let setup = Setup::new().service(&service).text();
        let balancer = Balancer::start(&host, &setup, &["--xdp-mode", mode]).unwrap();
        let before = balancer.status().unwrap();
        assert_eq!(before.interfaces[0].mode, mode);

        let sent: Vec<u8> = (0..BYTES).map(|index| (index % 251) as u8).collect();
        let (greeting, received) = client.enter(|| converse(&sent)).unwrap().unwrap();
        assert_eq!(greeting, SocketAddr::from((BALANCER, greeting.port())), "{mode}: whom the server sees");
        assert!(received == sent, "{mode}: {} of {BYTES} bytes came back, or others", received.len());

        // The balancer's own checks do not pass the data path: the one connection is the client's.
        let ended = |status: &lb_tests::lab::balancer::Status| status.service("web").live == 0;
        let after = balancer.wait(ended, "the end of the connection", PATIENCE).unwrap();
        assert_eq!(after.backend("web/web1").opened, 1, "{mode}");
        println!("{mode}: {BYTES} bytes went to {} and came back", web_address(1));
    }
}

/// Echoes every connection to the service's port, after a line that says who is there, as long as the test program runs.
fn serve(host: &Host) {
    let listener = host.enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, WEB.port()))).unwrap().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A check ends its connection at once, which is no fault of the server's.
            thread::spawn(move || echo(stream));
        }
    });
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let peer = stream.peer_addr()?;
    writeln!(stream, "{peer}")?;
    let mut from = stream.try_clone()?;
    io::copy(&mut from, &mut stream)?;
    stream.shutdown(Shutdown::Write)
}

/// Says all of `sent` to the service; whom the server saw, and what it said.
fn converse(sent: &[u8]) -> io::Result<(SocketAddr, Vec<u8>)> {
    let service = SocketAddr::new(IpAddr::V4(*WEB.ip()), WEB.port());
    let mut stream = TcpStream::connect_timeout(&service, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut received = Vec::new();
    thread::scope(|scope| {
        let writing = scope.spawn(move || {
            writer.write_all(sent)?;
            writer.shutdown(Shutdown::Write)
        });
        stream.read_to_end(&mut received)?;
        writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let end = received.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)?;
    let line = received.drain(..=end).take(end).map(char::from).collect::<String>();
    let peer = line.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, line))?;
    Ok((peer, received))
}
