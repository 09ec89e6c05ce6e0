//! What a thousand backends cost that are probed each second.

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::io::AsyncReadExt as _;

use super::*;
use crate::{
    agent::{
        keys::Keys,
        services::{Backends, tests::configured},
    },
    config::{Config, SystemSecrets, Target, parse},
    health::{Moment, State},
};

const BACKENDS: usize = 1_000;
/// Of one core.
const MOST_CPU: f64 = 0.05;
const MOST_MEMORY_KB: u64 = 60 * 1024;
const MEASURED: Duration = Duration::from_secs(20);

fn address(number: usize, port: u16) -> SocketAddr {
    let [high, low] = (number as u16 + 1).to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(127, 77, high, low).into(), port)
}

/// As many addresses on loopback, one nginx behind all of them; a single process, for workers outlive a killed master.
fn nginx(dir: &std::path::Path, port: u16) -> std::process::Child {
    let mut config = String::from(
        "daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 8192; error_log stderr; pid nginx.pid;\n\
         events { worker_connections 4096; }\n\
         http { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;\n\
         uwsgi_temp_path u; scgi_temp_path s; server { location = /ping { return 200 pong; }\n",
    );
    for number in 0..BACKENDS {
        writeln!(config, "listen {};", address(number, port)).unwrap();
    }
    config.push_str("} }\n");
    fs::write(dir.join("nginx.conf"), config).unwrap();
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "nginx", "-p"])
        .arg(dir)
        .args(["-c", "nginx.conf"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Ten services of a hundred backends.
fn config(port: u16) -> Config {
    let mut text = String::from("interfaces = [\"eth0\"]\n");
    for service in 0..10 {
        writeln!(text, "[[service]]\nname = \"s{service}\"\naddress = \"203.0.113.{service}:80/tcp\"")
            .unwrap();
        text.push_str(
            "check = { type = \"http\", path = \"/ping\", expect-body = \"pong\" }\nbackends = [\n",
        );
        for backend in 0..BACKENDS / 10 {
            let address = address(service * BACKENDS / 10 + backend, port);
            writeln!(text, "{{ name = \"b{backend}\", address = \"{address}\" }},").unwrap();
        }
        text.push_str("]\n");
    }
    parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap()
}

/// Time that this process has used on all cores.
fn used() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64)
    };
    of(usage.user_time()) + of(usage.system_time())
}

/// The most memory that this process has had, in KB.
fn most_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// To be run by itself, optimised, on a machine that does nothing else:
/// `cargo test --release -p lb-userspace --lib -- --ignored --nocapture a_thousand_backends`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures this process, so it must be alone in it, and optimised"]
async fn a_thousand_backends_probed_each_second_cost_five_percent_of_a_core_and_sixty_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = nginx(dir.path(), port);
    while std::net::TcpStream::connect(address(0, port)).is_err() {
        assert!(server.try_wait().unwrap().is_none(), "nginx has ended");
        sleep(Duration::from_millis(20)).await;
    }
    let config = config(port);
    let origin = std::time::Instant::now();
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut probers = Probers::new(events);
    let (mut services, mut tasks) = (Vec::<Backends>::new(), Vec::new());
    let mut places = std::collections::BTreeMap::new();
    let mut keys = Keys::default();
    for (service, known) in config.services.iter().enumerate() {
        let Target::Backends { backends, check, load, .. } = &known.target else { unreachable!() };
        services.push(configured(known));
        for (backend, target) in backends.iter().enumerate() {
            let at = BackendAt { service: keys.next(), backend: keys.next() };
            places.insert(at, (service, backend));
            tasks.push(probers.backend(at, target.address, check, load.as_ref(), None));
        }
    }
    let mut begun = None;
    let mut probes = 0_usize;
    loop {
        let Some(Event::Checked { at, begun: asked, result }) = inbox.recv().await else { unreachable!() };
        let now = Moment::at(origin.elapsed());
        let asked = Moment::at(asked.saturating_duration_since(origin));
        let (service, backend) = places[&at];
        let backends = &mut services[service];
        backends.checked(backend, result, asked, now);
        if backends.stirred() {
            backends.step(now);
        }
        probes += 1;
        match begun {
            // The first seconds, in which all begins at once, are not the steady state.
            None if origin.elapsed() > Duration::from_secs(3) => {
                (begun, probes) = (Some((std::time::Instant::now(), used())), 0);
            }
            Some((since, before)) if since.elapsed() >= MEASURED => {
                let share = used().saturating_sub(before).as_secs_f64() / since.elapsed().as_secs_f64();
                let rate = probes as f64 / since.elapsed().as_secs_f64();
                let memory = most_memory();
                println!("{rate:.0} probes a second: {:.1} % of a core, {memory} KB", share * 100.0);
                let up = services.iter().flat_map(|service| &service.members);
                assert_eq!(up.filter(|backend| backend.health.state() == State::Up).count(), BACKENDS);
                assert!(rate > 0.95 * BACKENDS as f64, "{rate}");
                assert!(share <= MOST_CPU && memory <= MOST_MEMORY_KB, "{share}, {memory}");
                break;
            }
            _ => {}
        }
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Everything falls silent at once: no more probes are under way than there may be, and each gets its turn.
#[tokio::test]
async fn probes_that_wait_for_silence_are_bounded_and_none_starves() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (events, mut inbox) = mpsc::unbounded_channel();
    let mut probers = Probers::new(events);
    probers.turns = Arc::new(Semaphore::new(3));
    let text = format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"s\"\naddress = \"203.0.113.1:80/tcp\"\n\
         check = {{ type = \"http\", interval = \"200ms\", timeout = \"100ms\" }}\n\
         backends = [{{ name = \"b\", address = \"127.0.0.1:{port}\" }}]"
    );
    let config = parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap();
    let Target::Backends { backends, check, .. } = &config.services[0].target else { unreachable!() };
    let mut keys = Keys::default();
    let tasks: Vec<Hasten> = (0..12)
        .map(|_| {
            probers.backend(
                BackendAt { service: keys.next(), backend: keys.next() },
                backends[0].address,
                check,
                None,
                None,
            )
        })
        .collect();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (open.clone(), most.clone());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (open, most) = (counted.0.clone(), counted.1.clone());
            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::spawn(async move {
                // Says nothing until the probe has gone.
                while stream.read(&mut [0; 512]).await.is_ok_and(|read| read > 0) {}
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    let mut seen = std::collections::BTreeMap::<Key, usize>::new();
    while seen.len() < 12 || seen.values().any(|times| *times < 2) {
        let Some(Event::Checked { at, result, .. }) = inbox.recv().await else { unreachable!() };
        assert_eq!(result.unwrap_err().kind, FailureKind::TimedOut);
        *seen.entry(at.backend).or_default() += 1;
    }
    // The server hears of an end when the next probe may have come already.
    let most = most.load(Ordering::SeqCst);
    assert!((3..=6).contains(&most), "{most} at once");
    server.abort();
    // And what is dropped is probed no more, but for what was on its way.
    drop(tasks);
    let mut late = 0;
    while tokio::time::timeout(Duration::from_millis(400), inbox.recv()).await.is_ok() {
        late += 1;
        assert!(late <= 12, "probes go on");
    }
}
