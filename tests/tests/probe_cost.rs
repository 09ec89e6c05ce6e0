//! What a thousand backends cost that are probed each second: processor time and memory of the agent as it runs, beside
//! what the same exchanges cost a program that does nothing else.
//!
//! The far side's kernel works on the same machine, and what a veth hands over is worked on in the time of who sent it: so
//! each figure holds the servers' half of TCP too, as no balancer with a network card pays it.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use lb_tests::lab::balancer::BackendState;
use lb_tests::lab::setup::Setup;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Balancer, Host, Lab, Process, wait_for};

const SERVICES: u16 = 10;
const EACH: u16 = 100;
const BACKENDS: u16 = SERVICES * EACH;
const LIMIT: Duration = Duration::from_secs(20);
/// The parts of a core, with the servers' half, and the memory that an agent on a busy machine stays within.
const MOST_CPU: f64 = 0.3;
const MOST_MEMORY_KB: u64 = 60 * 1024;
/// The unit of processor times in /proc, on all machines that `lb` runs on.
const TICK: Duration = Duration::from_millis(10);
/// How many probes come together, of a thousand a second.
const TOGETHER: u16 = 20;

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(20);

/// The backends stand behind a router: one neighbour, a thousand addresses.
fn backend(number: u16) -> SocketAddr {
    let [high, low] = (number + 1).to_be_bytes();
    SocketAddr::new(Ipv4Addr::new(10, 78, high, low).into(), 80)
}

fn text(check: &str) -> String {
    // Few ports, or a thousand backends would need half a gigabyte of port cells.
    let mut setup = Setup::new().top("source-ports = \"20000-20063\"\nmax-flows = 4096");
    for service in 0..SERVICES {
        let mut text = format!(
            "[[service]]\nname = \"s{service}\"\naddress = \"10.77.0.{}:80/tcp\"\ncheck = {{ {check} }}\nbackends = [\n",
            100 + service
        );
        for number in 0..EACH {
            let address = backend(service * EACH + number);
            writeln!(text, "  {{ name = \"b{number}\", address = \"{address}\" }},").unwrap();
        }
        setup = setup.toml(&(text + "]"));
    }
    setup.text()
}

/// One process for all, which ends with the test.
fn nginx(host: &Host) -> Process {
    let directory = host.directory();
    let text = "daemon off; master_process off; worker_rlimit_nofile 8192; error_log stderr; pid nginx.pid;\n\
        events { worker_connections 4096; }\n\
        http { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f;\n\
        uwsgi_temp_path u; scgi_temp_path s;\n\
        server { listen 80 backlog=4096; location = /ping { return 200 pong; } } }\n";
    fs::write(directory.join("nginx.conf"), text).unwrap();
    let nginx = host.command("nginx").arg("-p").arg(directory).args(["-c", "nginx.conf"]).spawn("nginx");
    nginx.unwrap()
}

/// Connections that a host has accepted.
fn accepted(host: &Host) -> u64 {
    let text = host.run(&["cat", "/proc/net/snmp"]).unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let place = names.split(' ').position(|name| name == "PassiveOpens").unwrap();
    values.split(' ').nth(place).unwrap().parse().unwrap()
}

/// User and system time of a process on all cores.
fn used(pid: u32) -> [Duration; 2] {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may hold blanks; it ends with the last parenthesis, and the state follows as the third field.
    let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split(' ').collect();
    [11, 12].map(|field| TICK * fields[field].parse::<u32>().unwrap())
}

/// Memory that is in use now, in KB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

struct Cost {
    /// Probes a second.
    rate: f64,
    /// Parts of a core.
    user: f64,
    system: f64,
    memory: u64,
}

impl Cost {
    /// Of the agent from now on, whose backends a host bears.
    fn measure(balancer: &Balancer, web: &Host) -> Self {
        let pid = balancer.pid().unwrap();
        let (begun, times, connections) = (Instant::now(), used(pid), accepted(web));
        sleep(MEASURED);
        let (times_now, connections_now, passed) = (used(pid), accepted(web), begun.elapsed().as_secs_f64());
        let part = |kind: usize| times_now[kind].saturating_sub(times[kind]).as_secs_f64() / passed;
        let rate = (connections_now - connections) as f64 / passed;
        Self { rate, user: part(0), system: part(1), memory: memory(pid) }
    }

    fn total(&self) -> f64 {
        self.user + self.system
    }

    fn print(&self, what: &str) {
        let Self { rate, user, system, memory } = self;
        let total = self.total() * 100.0;
        println!(
            "{what}: {rate:.0} probes a second, {total:.1} % of a core ({:.1} user, {:.1} system), {memory} KB",
            user * 100.0,
            system * 100.0
        );
    }
}

/// What the system calls of the same exchanges cost alone, and the kernel's work behind them, as a part of a core: connect,
/// send, receive and close, by one thread that blocks, as many together as probes come together.
fn floor(host: &Host, asks: bool) -> f64 {
    const ROUNDS: u16 = 4 * BACKENDS / TOGETHER;
    let exchange = move || {
        let now =
            || Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let before = now();
        for round in 0..ROUNDS {
            let addresses = (0..TOGETHER).map(|number| backend((round * TOGETHER + number) % BACKENDS));
            let mut streams: Vec<TcpStream> =
                addresses.map(|address| TcpStream::connect(address).unwrap()).collect();
            if asks {
                for stream in &mut streams {
                    stream.write_all(b"GET /ping HTTP/1.1\r\nHost: lb\r\nConnection: close\r\n\r\n").unwrap();
                }
                for stream in &mut streams {
                    assert!(stream.read(&mut [0; 2048]).unwrap() > 0);
                }
            }
            drop(streams);
            sleep(Duration::from_millis(5));
        }
        now().saturating_sub(before)
    };
    let took: Duration = host.enter(exchange).unwrap();
    // A thousand of them are a second's.
    took.as_secs_f64() / f64::from(ROUNDS * TOGETHER) * 1000.0
}

fn all_up(balancer: &Balancer) {
    let up = |status: &lb_tests::lab::balancer::Status| {
        let mut backends = status.services.iter().flat_map(|service| &service.backends);
        backends.all(|backend| backend.state == BackendState::Up)
    };
    balancer.wait(up, "all backends to be up", LIMIT).unwrap();
}

/// To be run by itself, optimised, on a machine that does nothing else:
/// `LB_BIN=target/release/lb cargo test -p lb-tests --test probe_cost -- --ignored --nocapture`
#[test]
#[ignore = "measures an optimised agent, on a machine that does nothing else"]
fn a_thousand_backends_probed_each_second_cost_a_small_part_of_a_core() {
    const NAME: &str = "a_thousand_backends_probed_each_second_cost_a_small_part_of_a_core";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Program("nginx")]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    let web = lab.web_host(1).unwrap();
    let router = web.address().to_string();
    web.run(&["ip", "route", "add", "local", "10.78.0.0/16", "dev", "lo"]).unwrap();
    host.run(&["ip", "route", "add", "10.78.0.0/16", "via", &router]).unwrap();
    let _nginx = nginx(&web);
    let listens = || host.enter(|| TcpStream::connect(backend(0)).ok()).unwrap().map(drop);
    wait_for("nginx", LIMIT, listens).unwrap();

    let [exchanges, connections] = [true, false].map(|asks| floor(&host, asks));
    println!(
        "the floor: a thousand exchanges a second {:.1} % of a core, connections {:.1} %",
        exchanges * 100.0,
        connections * 100.0
    );
    let http = "type = \"http\", path = \"/ping\", expect-body = \"pong\"";
    let balancer = Balancer::start(&host, &text(http), &[]).unwrap();
    for (what, check, wanted) in [
        ("HTTP", http, f64::from(BACKENDS)),
        ("TCP", "type = \"tcp\"", f64::from(BACKENDS)),
        ("each minute", "type = \"tcp\", interval = \"60s\"", 0.0),
    ] {
        fs::write(balancer.configuration(), text(check)).unwrap();
        assert_eq!(balancer.run_lb(&["reload"]).unwrap().status.code(), Some(0));
        all_up(&balancer);
        // The first probes of all come within a second.
        let (before, begun) = (accepted(&web), Instant::now());
        wait_for("the first probes", LIMIT, || {
            (accepted(&web) >= before + u64::from(BACKENDS) || begun.elapsed() > Duration::from_secs(2))
                .then_some(())
        })
        .unwrap();
        let cost = Cost::measure(&balancer, &web);
        cost.print(what);
        assert!((cost.rate - wanted).abs() < 0.1 * f64::from(BACKENDS), "{} probes a second", cost.rate);
        assert!(cost.total() < MOST_CPU, "{} of a core", cost.total());
        assert!(cost.memory < MOST_MEMORY_KB, "{} KB", cost.memory);
    }
    all_up(&balancer);
}
