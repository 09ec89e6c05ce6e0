//! Passive evidence: a backend's own traffic shows that it is dead, long before its next check would.
//!
//! Checks come once in ten seconds here, so what happens within one or two is the work of the data path's events.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lb_common::event::{Event, kind};
use lb_common::{Be32, Reason};
use lb_tests::lab::balancer::{BackendState, Look, Status};
use lb_tests::lab::http::{Client, HttpError};
use lb_tests::lab::load::{Load, LoadReport, Running};
use lb_tests::lab::server::TcpServer;
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::packets::segment::{ACK, client};
use lb_tests::packets::{Fact, Kernel, Life, World, scene};
use lb_tests::{Balancer, Host, Lab, Setup, wait_for};

const LIMIT: Duration = Duration::from_secs(15);
/// The probe that a refusal triggers has decided within this time.
const AT_ONCE: Duration = Duration::from_millis(100);
/// Bytes of the map `EVENTS`, and of a record with its header (kernel/bpf/ringbuf.c, `BPF_RINGBUF_HDR_SZ`).
const RING: usize = 256 * 1024;
const RECORD: usize = size_of::<Event>() + 8;
/// Events that there is room for.
const ROOM: usize = (RING - 1) / RECORD;
/// New connections a second of the crowd.
const PER_SECOND: f64 = 300.0;
/// The probe that evidence triggers is far ahead of the next one by this rhythm.
const CHECKED: &str =
    "check = { type = \"http\", path = \"/ping\", interval = \"10s\", timeout = \"250ms\" }";

/// A web server that says its name and counts its checks.
struct Web {
    host: Host,
    server: Option<TcpServer>,
    checks: Arc<AtomicU64>,
}

impl Web {
    fn start(host: Host) -> Self {
        let mut web = Self { host, server: None, checks: Arc::default() };
        web.listen();
        web
    }

    fn listen(&mut self) {
        let (name, checks) = (self.host.name().to_owned(), self.checks.clone());
        let serve = move |stream: Arc<TcpStream>, _| answer(&stream, &name, &checks);
        self.server = Some(TcpServer::start(&self.host, WEB.port(), serve).unwrap());
    }

    /// From now on its kernel answers each SYN with a RST.
    fn close(&mut self) {
        self.server = None;
    }

    fn checks(&self) -> u64 {
        self.checks.load(Ordering::Relaxed)
    }

    /// Adds a rule for what comes to its port from elsewhere.
    fn filter(&self, rule: &str) {
        let text = format!(
            "table inet test {{\nchain input {{\ntype filter hook input priority 0\niifname != lo tcp dport {} {rule}\n}}\n}}\n",
            WEB.port()
        );
        let path = self.host.directory().join("test.nft");
        std::fs::write(&path, text).unwrap();
        self.host.run(&["nft", "-f", path.to_str().unwrap()]).unwrap();
    }

    /// Its next connection through the balancer is refused, and no other.
    fn refuse_once(&self) {
        self.filter("tcp sport 20000-20999 limit rate 1/day burst 1 packets reject with tcp reset");
    }
}

fn answer(stream: &TcpStream, name: &str, checks: &AtomicU64) {
    let mut lines = BufReader::new(stream).lines();
    // A connection without a request is a port scan at most.
    let Some(Ok(request)) = lines.next() else { return };
    checks.fetch_add(u64::from(request.contains("/ping")), Ordering::Relaxed);
    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
    let length = name.len();
    let mut way = stream;
    // A client that has gone needs no answer.
    let _ = write!(way, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{name}");
}

/// The balancer in front of web servers. The fields are dropped in this order.
struct Scene {
    balancer: Balancer,
    webs: Vec<Web>,
    client: Host,
    _lab: Lab,
}

impl Scene {
    fn start(webs: u8) -> Self {
        let lab = Lab::new().unwrap();
        let (host, client) = (lab.balancer_host().unwrap(), lab.client_host().unwrap());
        let list = (1..=webs).map(|number| Web::start(lab.web_host(number).unwrap())).collect();
        let lines = format!("{CHECKED}\nalgorithm = \"round-robin\"\nno-backend = \"reset\"");
        let service = Service { lines: &lines, ..Service::web(&vec![100; webs.into()]) };
        let text = Setup::new().top("source-ports = \"20000-20999\"").service(&service).text();
        let balancer = Balancer::start(&host, &text, &[]).unwrap();
        Self { balancer, webs: list, client, _lab: lab }
    }

    /// A request on a connection of its own: who answered.
    fn ask(&self) -> Result<String, HttpError> {
        let asked = self.client.enter(|| Client::default().get(WEB, "/")).unwrap();
        asked.map(|response| response.body)
    }

    /// Asks until one request is refused; when that was.
    fn ask_until_refused(&self) -> Instant {
        for _ in 0..=self.webs.len() {
            match self.ask() {
                Ok(_) => {}
                Err(HttpError::Refused) => return Instant::now(),
                Err(other) => panic!("{other}"),
            }
        }
        panic!("round robin came by without a refusal");
    }

    fn wait_logged(&self, words: &str, timeout: Duration) {
        let logged = || self.balancer.log().contains(words).then_some(());
        wait_for(words, timeout, logged).unwrap_or_else(|error| panic!("{error}\n{}", self.balancer.log()));
    }

    fn opened(&self, name: &str) -> u64 {
        self.balancer.status().unwrap().backend(name).opened
    }
}

fn is_out(status: &Status, name: &str) -> bool {
    status.backend(name).weight_effective == 0.0
}

fn answered(load: &Running, more: u64) -> LoadReport {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || {
        let report = load.so_far();
        (report.succeeded() >= before + more).then_some(report)
    })
    .unwrap()
}

#[test]
fn after_one_refused_connection_a_dead_backend_gets_no_other_and_is_probed_at_once() {
    const NAME: &str = "after_one_refused_connection_a_dead_backend_gets_no_other_and_is_probed_at_once";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let mut scene = Scene::start(3);
    assert_eq!(scene.webs.iter().map(Web::checks).collect::<Vec<_>>(), [1, 1, 1]);
    let fresh = scene.opened("web/web1");
    scene.webs[0].close();
    let refused = scene.ask_until_refused();
    scene.wait_logged("web/web1: its probe failed too", AT_ONCE);
    println!("the probe had failed {:?} after the refusal", refused.elapsed());
    scene.wait_logged("web/web1: suspected: refused a connection", Duration::ZERO);
    let status = scene.balancer.status().unwrap();
    assert!(is_out(&status, "web/web1"), "{status:#?}");
    let frozen = status.backend("web/web1").opened;
    for _ in 0..200 {
        assert_ne!(scene.ask().unwrap(), "web1");
    }
    let status = scene.balancer.status().unwrap();
    assert_eq!(status.backend("web/web1").opened, frozen);
    assert!(frozen - fresh <= 2, "the refused one, and perhaps one before the server closed: {frozen}");
    // A second probe confirms it, a quarter of a second later.
    let down = |status: &Status| status.backend("web/web1").state == BackendState::Down;
    let status = scene.balancer.wait(down, "web1 to be down", LIMIT).unwrap();
    assert!(status.backend("web/web1").reason.contains("refused"), "{status:#?}");
    assert!(refused.elapsed() < Duration::from_secs(5), "all that before the next check was due");
    assert_eq!(scene.webs[1].checks() + scene.webs[2].checks(), 2, "nobody else was probed");
}

#[test]
fn a_crowd_loses_only_what_was_under_way_when_the_first_was_refused() {
    const NAME: &str = "a_crowd_loses_only_what_was_under_way_when_the_first_was_refused";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let mut scene = Scene::start(3);
    let load = Load { threads: 8, per_second: Some(PER_SECOND), ..Load::new(WEB, "/") }.start(&scene.client);
    answered(&load, 100);
    assert_eq!(load.so_far().failures, BTreeMap::new());
    scene.webs[0].close();
    scene.balancer.wait(|status| is_out(status, "web/web1"), "web1 to be out", LIMIT).unwrap();
    // Asked again, because a SYN may have been under way while the first answer was made.
    let frozen = scene.opened("web/web1");
    let so_far = answered(&load, 10);
    let later = answered(&load, 600);
    assert_eq!(later.failures, so_far.failures, "no request fails any more");
    assert_eq!(scene.opened("web/web1"), frozen);
    let report = load.stop().unwrap();
    // Each connection to web1 is an answer of web1 or a failure.
    assert_eq!(scene.opened("web/web1"), report.bodies["web1"] + report.failed(), "{report:?}");
    println!("{} of {PER_SECOND} connections a second failed: {:?}", report.failed(), report.failures);
    // A third of what comes in a tenth of a second, and those that were open when the listener closed.
    let most = (PER_SECOND * AT_ONCE.as_secs_f64() / 3.0) as u64 + 8;
    assert!((1..=most).contains(&report.failed()), "{report:?}");
}

#[test]
fn a_silent_backend_is_suspected_after_a_second_and_nobody_fails() {
    const NAME: &str = "a_silent_backend_is_suspected_after_a_second_and_nobody_fails";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Program("nft")]) {
        return;
    }
    let scene = Scene::start(3);
    // A SYN that meets silence holds its thread for three seconds.
    let load = Load { threads: 64, per_second: Some(60.0), ..Load::new(WEB, "/") }.start(&scene.client);
    answered(&load, 30);
    let silent = Instant::now();
    scene.webs[0].filter("drop");
    scene.balancer.wait(|status| is_out(status, "web/web1"), "web1 to be out", LIMIT).unwrap();
    let took = silent.elapsed();
    println!("suspected {took:?} after the silence began");
    assert!((900..2_000).contains(&took.as_millis()), "{took:?}");
    scene.wait_logged("web/web1: suspected: did not answer a connection", Duration::ZERO);
    let frozen = scene.opened("web/web1");
    // Probes that time out have to add up, and do so at once.
    let down = |status: &Status| status.backend("web/web1").state == BackendState::Down;
    scene.balancer.wait(down, "web1 to be down", Duration::from_secs(3)).unwrap();
    answered(&load, 240);
    assert_eq!(scene.opened("web/web1"), frozen);
    let report = load.stop().unwrap();
    assert_eq!(report.failures, BTreeMap::new());
    // The SYNs that met silence were sent again after one second, and found another backend with the next try after the
    // suspicion: two seconds (Linux 6.5, `tcp_syn_linear_timeouts`) or three after the first.
    let slowest = report.slowest_connect;
    assert!((1_900..4_000).contains(&slowest.as_millis()), "{slowest:?}");
}

#[test]
fn a_backend_that_refuses_one_connection_comes_back_with_its_probe() {
    const NAME: &str = "a_backend_that_refuses_one_connection_comes_back_with_its_probe";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Program("nft")]) {
        return;
    }
    let scene = Scene::start(3);
    scene.webs[0].refuse_once();
    let refused = scene.ask_until_refused();
    scene.wait_logged("web/web1: its probe succeeded, so it is not suspected any more", AT_ONCE);
    scene.wait_logged("web/web1: suspected: refused a connection", Duration::ZERO);
    // No slow start: round robin comes by at every third request at once.
    let whole = |status: &Status| status.backend("web/web1").weight_effective >= 100.0;
    scene.balancer.wait(whole, "the whole weight", Duration::from_secs(1)).unwrap();
    let mut bodies: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..30 {
        *bodies.entry(scene.ask().unwrap()).or_default() += 1;
    }
    assert_eq!(bodies["web1"], 10, "{bodies:?}");
    assert!(refused.elapsed() < Duration::from_secs(1), "{:?}", refused.elapsed());
    assert_eq!(scene.webs.iter().map(Web::checks).collect::<Vec<_>>(), [2, 1, 1]);
}

#[test]
fn the_last_usable_backend_is_probed_and_goes_on_being_used() {
    const NAME: &str = "the_last_usable_backend_is_probed_and_goes_on_being_used";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Program("nft")]) {
        return;
    }
    let scene = Scene::start(2);
    scene.balancer.command(&["drain", "web/web2"]).run().unwrap();
    scene.webs[0].refuse_once();
    scene.ask_until_refused();
    for _ in 0..20 {
        assert_eq!(scene.ask().unwrap(), "web1");
    }
    let probed = || (scene.webs[0].checks() == 2).then_some(());
    wait_for("the probe", AT_ONCE, probed).unwrap();
    let status = scene.balancer.status().unwrap();
    assert!(!is_out(&status, "web/web1"), "{status:#?}");
    assert!(!scene.balancer.log().contains("suspected"), "{}", scene.balancer.log());
}

#[test]
fn handshake_times_are_shown_for_each_backend() {
    const NAME: &str = "handshake_times_are_shown_for_each_backend";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf]) {
        return;
    }
    let scene = Scene::start(2);
    let fresh = scene.balancer.status().unwrap();
    assert!(fresh.service("web").backends.iter().all(|backend| backend.handshake_ms.is_none()), "{fresh:?}");
    for _ in 0..10 {
        scene.ask().unwrap();
    }
    let known =
        |status: &Status| status.service("web").backends.iter().all(|backend| backend.handshake_ms.is_some());
    let status = scene.balancer.wait(known, "handshake times", LIMIT).unwrap();
    for backend in &status.service("web").backends {
        let handshake = backend.handshake_ms.unwrap();
        println!("{}: {handshake:?}", backend.name);
        // More than nothing, and on a machine that is not busy far less than a second.
        assert!(handshake.mean > 0.0 && handshake.mean <= handshake.max, "{handshake:?}");
        assert!(handshake.max < 1_000.0, "{handshake:?}");
    }
}

/// What the agent does not read, for it is away: a full ring buffer costs events, and nothing else.
#[test]
fn a_full_ring_of_events_loses_events_and_no_packet() {
    const NAME: &str = "a_full_ring_of_events_loses_events_and_no_packet";
    if skip::cannot_run(NAME, &[Need::Bpf]) {
        return;
    }
    let packets = ROOM + 500;
    let setting = scene::Setting::DEFAULT;
    let mut kernel = Kernel::new(setting.config());
    kernel.clear();
    scene::set::<Be32>(&mut kernel, &setting);
    let (client_end, backend) = (scene::CLIENT, scene::A);
    let held = Fact::Connection { client: client_end, backend, place: 0, life: Life::Established, age: 0 };
    held.apply::<Be32>(&mut kernel);
    Fact::Cut(client_end).apply::<Be32>(&mut kernel);
    // Each packet of a cut connection is told of, and answered with the same RST.
    let packet = client(ACK).frame();
    let first = kernel.run(&packet);
    for number in 1..packets {
        assert_eq!(kernel.run(&packet), first, "packet {number}");
    }
    assert_eq!(kernel.reason(scene::WEB_ID, Reason::Cut), packets as u64);
    let told = kernel.events();
    assert_eq!(told.len(), ROOM);
    assert!(told.iter().all(|event| event.kind == kind::CUT), "{:?}", told[0]);
    // Somebody reads again.
    assert_eq!((kernel.run(&packet), kernel.events().len()), (first, 1));
}
