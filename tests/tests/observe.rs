//! `lb capture` and `lb trace`: what an operator sees of packets, held against what really happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_tests::Result;
use lb_tests::lab::balanced::{Balanced, Wanted, service_address, service_name};
use lb_tests::lab::balancer::{Balancer, Status};
use lb_tests::lab::command::Output;
use lb_tests::lab::datagram::{DatagramServer, Datagrams};
use lb_tests::lab::held::{HeldClient, HeldServer};
use lb_tests::lab::pcapng::{self, Frame};
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::topology::Mode;
use lb_tests::lab::{Family, Host, Process};
use lb_tests::packets::checksum;
use lb_tests::wait_for;
use lb_userspace::api::{Traced, Verdict};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(10);
/// Programs of all interfaces are loaded, in a build without optimisation, beside other tests.
const BEGIN: Duration = Duration::from_mins(1);
const PORT: u16 = 8080;
const MODES: [Mode; 2] = [Mode::Snat, Mode::Dnat];

/// A capture that has begun.
struct Capture(Process);

impl Capture {
    /// `lb capture` with arguments; its output is in the log `name`.
    fn begin(balancer: &Balancer, name: &str, arguments: &[&str]) -> Self {
        let process = balancer.command(&["capture"]).args(arguments).spawn(name).unwrap();
        let begun = wait_for("packets to be captured", BEGIN, || {
            assert!(process.is_running() || process.log().contains("packets shown"), "{}", process.log());
            process.log().contains("packets are captured").then_some(())
        });
        begun.unwrap_or_else(|error| panic!("{error}: {}", process.log()));
        Self(process)
    }

    /// Ctrl-C; what it has printed.
    fn end(self) -> String {
        self.0.kill(Signal::SIGINT).unwrap();
        self.ended()
    }

    /// It ends by itself, and well; what it has printed.
    fn ended(mut self) -> String {
        assert!(self.0.wait_exit(LIMIT).unwrap().success(), "{}", self.0.log());
        self.0.log()
    }
}

/// A UDP server, and the TCP port that its check asks.
fn datagrams(host: &Host, services: &[IpAddr]) -> Result<(DatagramServer, HeldServer)> {
    Ok((DatagramServer::start_behind(host, services, PORT)?, HeldServer::start(host, PORT)?))
}

fn wanted(lines: &str) -> Wanted<'_> {
    Wanted { modes: &MODES, lines, port: PORT, ..Wanted::default() }
}

/// Frames by packet: the one that came in, the one that left.
fn packets(frames: &[Frame]) -> Vec<(&Frame, &Frame)> {
    let mut packets: BTreeMap<u64, Vec<&Frame>> = BTreeMap::new();
    for frame in frames {
        packets.entry(frame.identity).or_default().push(frame);
    }
    let pairs = packets.into_values().map(|frames| match frames[..] {
        [before, after] if before.inbound && !after.inbound => {
            assert_eq!((before.time_ns, &before.comment), (after.time_ns, &after.comment));
            (before, after)
        }
        _ => panic!("no pair: {frames:?}"),
    });
    pairs.collect()
}

/// Source and destination address of a frame without VLAN tags.
fn addresses(frame: &Frame) -> (IpAddr, IpAddr) {
    let ip = &frame.bytes[14..];
    let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).unwrap());
    let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).unwrap());
    if ip[0] >> 4 == 4 { (v4(12), v4(16)) } else { (v6(8), v6(24)) }
}

fn now_ns() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since.as_nanos() as u64
}

#[test]
fn a_capture_holds_every_datagram_as_it_came_and_as_it_left() {
    const NAME: &str = "a_capture_holds_every_datagram_as_it_came_and_as_it_left";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    const COUNT: u64 = 20;
    let wanted = Wanted { protocol: "udp", ..wanted("algorithm = \"round-robin\"") };
    let site = Balanced::start(&wanted, datagrams).unwrap();
    let file = site.balancer.host().directory().join("capture.pcapng");
    let client = &site.topology.client;
    for mode in MODES {
        for family in Family::BOTH {
            let name = service_name(mode, family);
            let log = format!("capture-{name}");
            let path = file.to_str().unwrap();
            let start = now_ns();
            let capture = Capture::begin(&site.balancer, &log, &["--service", &name, "-w", path]);
            let load =
                Datagrams { count: COUNT, sockets: 2, ..Datagrams::new(site.service(mode, family), &[100]) };
            assert_eq!(load.run(client).unwrap().answered(), COUNT);
            // Another service's packets are not wanted.
            let other = if mode == Mode::Snat { Mode::Dnat } else { Mode::Snat };
            assert_eq!(
                Datagrams::new(site.service(other, family), &[100]).run(client).unwrap().answered(),
                1
            );
            let said = format!("{} packets shown; 0 looks at packets lost", 2 * COUNT);
            let shown = capture.end();
            assert!(shown.contains(&said), "{shown}");

            let read = pcapng::read(&file);
            let packets = packets(&read.frames);
            assert_eq!((packets.len(), read.lost), (2 * COUNT as usize, Some(0)), "{mode} {family}");
            let (us, service) = (client.address_in(family), service_address(mode, family));
            let mut given: BTreeMap<String, u64> = BTreeMap::new();
            for (before, after) in packets {
                assert!(before.time_ns > start && before.time_ns < now_ns());
                assert_eq!((before.interface.as_str(), after.interface.as_str()), ("eth0", "eth0"));
                assert_eq!(before.bytes.len(), before.length as usize);
                assert_eq!(checksum::field(&after.bytes), checksum::whole(&after.bytes), "{after:?}");
                let backend = before.comment.strip_prefix(&format!("forward, {name}/")).unwrap();
                let backends = site.backends_of(mode);
                let backend = backends.iter().find(|known| known.host.name() == backend).unwrap();
                let server = backend.host.address_in(family);
                if addresses(before) == (us, service) {
                    let (seen, to) = addresses(after);
                    assert_eq!((seen == us, to), (mode == Mode::Dnat, server), "{mode} {family}: {seen}");
                    *given.entry(backend.host.name().to_owned()).or_default() += 1;
                } else {
                    assert_eq!((addresses(before).0, addresses(after)), (server, (service, us)));
                }
            }
            assert!(given.len() == 2 && given.values().all(|count| *count == COUNT / 2), "{given:?}");
        }
    }
}

#[test]
fn a_capture_shows_a_connection_from_syn_to_fin_and_a_refusal_with_its_reason() {
    const NAME: &str = "a_capture_shows_a_connection_from_syn_to_fin_and_a_refusal_with_its_reason";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let site = Balanced::start(&wanted(""), |host, _| HeldServer::start(host, PORT)).unwrap();
    let (balancer, client) = (&site.balancer, &site.topology.client);
    let us = client.address_in(Family::V4);
    let service = site.service(Mode::Snat, Family::V4);

    // A connection that is there when the programs are replaced.
    let held = HeldClient::connect(client, site.service(Mode::Dnat, Family::V4)).unwrap();
    let capture = Capture::begin(balancer, "text", &["--client", &us.to_string(), "--service", "snat-4"]);
    held.exchange(&[7; 1000], LIMIT).unwrap();
    let local = SocketAddr::new(us, 40_000);
    let seen = HeldClient::connect_from(client, local, service).unwrap();
    let name = seen.server().to_owned();
    seen.close().unwrap();
    let text = capture.end();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains(" | ")).collect();
    assert!(lines.iter().all(|line| line.contains(&format!("| forward, snat-4/{name} |"))), "{text}");
    for (opening, count) in [
        (format!(" eth0 {local} → {service} TCP SYN | "), 1),
        (format!(" → {local} TCP SYN,ACK via "), 1),
        ("FIN".to_owned(), 4),
    ] {
        let found: usize = lines.iter().map(|line| line.matches(opening.as_str()).count()).sum();
        assert_eq!(found, count, "{opening}: {text}");
    }
    held.exchange(&[7; 1000], LIMIT).unwrap();

    for backend in site.backends_of(Mode::Snat) {
        let drained = format!("snat-4/{}", backend.host.name());
        assert_eq!(balancer.run_lb(&["drain", &drained]).unwrap().status.code(), Some(0));
    }
    for (log, only) in [("reason", &["--reason", "no-backend-reset"][..]), ("dropped", &["--dropped"])] {
        let capture = Capture::begin(balancer, log, &[only, &["--count", "1"]].concat());
        held.exchange(&[7; 1000], LIMIT).unwrap();
        HeldClient::connect_from(client, SocketAddr::new(us, 40_001), service).unwrap_err();
        let text = capture.ended();
        let line = text.lines().find(|line| line.contains(" | ")).unwrap();
        let wanted = format!(
            " eth0 {us}:40001 → {service} TCP SYN | answer: no-backend-reset, snat-4 | eth0 {service} → {us}:40001 TCP RST,ACK via "
        );
        assert!(line.contains(&wanted), "{text}");
        assert!(text.contains("1 packets shown; 0 looks"), "{text}");
    }
    held.close().unwrap();
}

#[test]
fn a_capture_ends_with_its_client_or_its_time_and_there_is_one_at_a_time() {
    const NAME: &str = "a_capture_ends_with_its_client_or_its_time_and_there_is_one_at_a_time";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let site = Balanced::start(&wanted(""), |host, _| HeldServer::start(host, PORT)).unwrap();
    let balancer = &site.balancer;
    let first = Capture::begin(balancer, "first", &[]);
    let refused = |arguments: &[&str], code: i32, says: &str| {
        let Output { status, stderr, .. } = balancer.run_lb(arguments).unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    };
    refused(&["capture"], 1, "another capture is going on; it ends when its client goes away");
    refused(&["capture", "--service", "web"], 2, "there is no service web here; there are snat-4, ");
    refused(&["capture", "--reason", "bad-luck"], 2, "there is no reason bad-luck; there are malformed, ");
    first.0.kill(Signal::SIGKILL).unwrap();
    // Nothing is on the wire that could show the agent that nobody looks any more.
    let over = || balancer.log().contains("packets are not captured any more").then_some(());
    wait_for("the capture to end", LIMIT, over).unwrap();
    let second = Capture::begin(balancer, "second", &["--seconds", "1", "--all"]).ended();
    assert!(second.contains("0 looks at packets lost"), "{second}");
    HeldClient::connect(&site.topology.client, site.service(Mode::Snat, Family::V4))
        .unwrap()
        .close()
        .unwrap();
    assert_eq!(balancer.status().unwrap().alarms, [""; 0]);
    let absent = balancer.host().command(lb_tests::lab::balancer::program());
    let absent = absent.args(["--instance", "nobody", "capture"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(3), "{}", absent.stderr);
}

/// `lb trace … --json`.
fn trace(balancer: &Balancer, client: SocketAddr, service: &str, more: &[&str]) -> Traced {
    let client = client.to_string();
    let arguments = [&["trace", &client, service, "--json"], more].concat();
    let Output { status, stdout, stderr } = balancer.run_lb(&arguments).unwrap();
    assert_eq!(status.code(), Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// What counts packets and connections.
fn counts(status: &Status) -> (BTreeMap<String, u64>, Vec<(u64, u64)>) {
    let services = status.services.iter().flat_map(|service| &service.backends);
    (status.counters.clone(), services.map(|backend| (backend.live, backend.opened)).collect())
}

#[test]
fn a_trace_says_what_then_happens_where_a_hash_decides() {
    const NAME: &str = "a_trace_says_what_then_happens_where_a_hash_decides";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    for algorithm in ["maglev", "source-hash"] {
        let lines = format!("algorithm = \"{algorithm}\"\ntrack = \"always\"");
        let site = Balanced::start(&wanted(&lines), |host, _| HeldServer::start(host, PORT)).unwrap();
        let (balancer, client) = (&site.balancer, &site.topology.client);
        let mut served = BTreeSet::new();
        for mode in MODES {
            for family in Family::BOTH {
                let (name, service) = (service_name(mode, family), site.service(mode, family));
                for port in 40_000..40_004 {
                    let local = SocketAddr::new(client.address_in(family), port);
                    let before = counts(&balancer.status().unwrap());
                    let traced = trace(balancer, local, &name, &[]);
                    assert_eq!(counts(&balancer.status().unwrap()), before);
                    assert_eq!((traced.verdict, traced.known), (Verdict::Forward, false), "{traced:?}");
                    assert_eq!(traced.why, format!("chosen by {algorithm}"));
                    let held = HeldClient::connect_from(client, local, service).unwrap();
                    let backends = site.backends_of(mode);
                    let backend =
                        backends.iter().find(|backend| backend.host.name() == held.server()).unwrap();
                    assert_eq!(traced.backend.as_deref(), Some(held.server()), "{mode} {family} {port}");
                    let target = SocketAddr::new(backend.host.address_in(family), PORT);
                    let seen = traced.out.as_ref().map(|out| out.to.clone());
                    assert_eq!(seen, Some(target.to_string()), "{traced:?}");
                    let hop = traced.next_hop.as_ref().unwrap();
                    assert_eq!((hop.mac.clone(), hop.interface.as_str()), (backend.host.mac(), "eth0"));
                    served.insert(held.server().to_owned());

                    // Within the connection, a packet like the client's next one.
                    let known = trace(balancer, local, &name, &["--ack"]);
                    assert_eq!(known.backend, traced.backend, "{known:?}");
                    assert!(known.known, "{known:?}");
                    held.exchange(&[7; 100], LIMIT).unwrap();
                    held.close().unwrap();
                }
            }
        }
        assert!(served.len() >= 2, "{served:?}");
    }
}

#[test]
fn a_trace_says_why_a_packet_goes_nowhere_and_what_makes_no_sense() {
    const NAME: &str = "a_trace_says_why_a_packet_goes_nowhere_and_what_makes_no_sense";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let site = Balanced::start(&wanted("no-backend = \"hold\""), |host, _| HeldServer::start(host, PORT));
    let site = site.unwrap();
    let (balancer, us) =
        (&site.balancer, SocketAddr::new(site.topology.client.address_in(Family::V4), 40_000));
    let reason = lb_common::Reason::NoFlow;
    let stranger = trace(balancer, us, "snat-4", &["--ack"]);
    let wanted = (Verdict::Answer, Some("no-flow".to_owned()), format!("no-flow: {}", reason.meaning()));
    assert_eq!((stranger.verdict, stranger.reason, stranger.why), wanted);
    assert_eq!(stranger.out.map(|out| (out.to, out.what)), Some((us.to_string(), "TCP RST".to_owned())));

    for backend in site.backends_of(Mode::Snat) {
        let drained = format!("snat-4/{}", backend.host.name());
        assert_eq!(balancer.run_lb(&["drain", &drained]).unwrap().status.code(), Some(0));
    }
    let held = trace(balancer, us, "snat-4", &[]);
    let reason = lb_common::Reason::NoBackendHold;
    let wanted = (Verdict::Drop, format!("no-backend-hold: {}", reason.meaning()), None);
    assert_eq!((held.verdict, held.why, held.out), wanted);

    let client = us.to_string();
    let text = balancer.run_lb(&["trace", &client, "dnat-4", "--interface", "eth0", "--syn"]).unwrap();
    for begins in
        ["in        ", "verdict   forward to dnat-4/web", "why       a new connection", "next hop  02:"]
    {
        assert!(text.stdout.lines().any(|line| line.starts_with(begins)), "{text:?}");
    }
    for (arguments, says) in [
        (&[client.as_str(), "web"][..], "there is no service web here"),
        (&["[fd00::1]:7", "snat-4"], "are of different versions of IP"),
        (&[&client, "snat-4", "--interface", "eth7"], "lb is not attached to eth7; it is to eth0"),
        (&[&client, "snat-4", "--port", "81"], "snat-4 does not listen on port 81"),
        (&["10.0.0.1", "snat-4"], "invalid socket address"),
    ] {
        let output = balancer.run_lb(&[&["trace"], arguments].concat()).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(says), "{arguments:?}: {output:?}");
    }
    let nobody = balancer.host().command(lb_tests::lab::balancer::program());
    let nobody = nobody.args(["--instance", "nobody", "trace", &client, "snat-4"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(3), "{}", nobody.stderr);
}
