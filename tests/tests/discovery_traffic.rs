//! Discovered servers under traffic: new ones get their share, those that leave lose nothing.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use lb_tests::lab::balancer::{BackendState, Status};
use lb_tests::lab::docker::Docker;
use lb_tests::lab::http::Client;
use lb_tests::lab::load::{Load, Running};
use lb_tests::lab::php::{PhpNode, PhpOptions};
use lb_tests::lab::setup::{WEB, web_address};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Balancer, Lab, Setup, wait_for};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_secs(20);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);

fn answered(load: &Running, more: u64) {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || (load.so_far().succeeded() >= before + more).then_some(())).unwrap();
}

/// Lines of a hosts file for these of `web1`, `web2`, …
fn hosts(numbers: &[u8]) -> String {
    let lines = numbers.iter().map(|number| format!("{} web.internal", web_address(*number)));
    lines.chain([String::new()]).collect::<Vec<_>>().join("\n")
}

fn up(status: &Status) -> Vec<String> {
    let service = status.services.iter().find(|service| service.name == "web").unwrap();
    let up = service.backends.iter().filter(|backend| backend.state == BackendState::Up);
    up.map(|backend| backend.name.clone()).collect()
}

#[test]
fn a_name_that_changes_moves_traffic_and_fails_no_request() {
    const NAME: &str = "a_name_that_changes_moves_traffic_and_fails_no_request";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Program("dnsmasq")]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let (host, client) = (lab.balancer_host().unwrap(), lab.client_host().unwrap());
    let webs: Vec<PhpNode> = (1..=3)
        .map(|number| PhpNode::start(&lab.web_host(number).unwrap(), &PhpOptions::default()).unwrap())
        .collect();
    let dns = lab.host("dns", SERVER).unwrap();
    let records = dns.directory().join("hosts");
    fs::write(&records, hosts(&[1, 2])).unwrap();
    let configuration = dns.directory().join("dnsmasq.conf");
    let text = format!(
        "no-resolv\nno-hosts\nuser=root\npid-file\nlocal=/internal/\nlocal-ttl=1\naddn-hosts={}\n",
        records.display()
    );
    fs::write(&configuration, text).unwrap();
    let dnsmasq = dns
        .command("dnsmasq")
        .arg("--keep-in-foreground")
        .arg(format!("--conf-file={}", configuration.display()));
    let mut dnsmasq = dnsmasq.spawn("dnsmasq").unwrap();
    let service = format!(
        "[[service]]\nname = \"web\"\naddress = \"{WEB}/tcp\"\nalgorithm = \"round-robin\"\n\
         check = {{ type = \"http\", path = \"/ping\" }}\n\
         discover = {{ type = \"dns\", name = \"web.internal\", resolver = \"{SERVER}:53\" }}\n"
    );
    let mut balancer = Balancer::launch(&host, &Setup::new().toml(&service).text(), &[]).unwrap();
    let named =
        |numbers: &[u8]| numbers.iter().map(|number| web_address(*number).to_string()).collect::<Vec<_>>();
    balancer.wait(|status| up(status) == named(&[1, 2]), "two servers", LIMIT).unwrap();

    let short = Load { threads: 4, per_second: Some(200.0), ..Load::new(WEB, "/id.php") }.start(&client);
    answered(&short, 100);
    let mut held = Client::keep_alive();
    while client.enter(|| held.get(WEB, "/id.php")).unwrap().unwrap().body.trim() != "web1" {
        held = Client::keep_alive();
    }
    let publish = |numbers: &[u8]| {
        fs::write(&records, hosts(numbers)).unwrap();
        dnsmasq.kill(Signal::SIGHUP).unwrap();
    };
    publish(&[1, 2, 3]);
    balancer.wait(|status| up(status) == named(&[1, 2, 3]), "the third server", LIMIT).unwrap();
    let before = short.so_far();
    answered(&short, 300);
    let share = |report: &BTreeMap<String, u64>, name: &str| report.get(name).copied().unwrap_or(0);
    let third = short.so_far().bodies["web3"] - share(&before.bodies, "web3");
    assert!((50..=150).contains(&third), "a third of 300 or so, not {third}");

    publish(&[2, 3]);
    let leaving = |status: &Status| up(status) == named(&[2, 3]);
    balancer.wait(leaving, "the first server to leave", LIMIT).unwrap();
    answered(&short, 50);
    let before = short.so_far();
    answered(&short, 200);
    assert_eq!(
        share(&short.so_far().bodies, "web1"),
        share(&before.bodies, "web1"),
        "it gets no new connections"
    );
    let answer = client.enter(|| held.get(WEB, "/id.php")).unwrap().unwrap();
    assert_eq!((answer.body.trim(), answer.connect_time), ("web1", None), "it keeps those that it has");

    // Without DNS, and with an agent that has never heard of it, everything stays.
    dnsmasq.kill(Signal::SIGSTOP).unwrap();
    balancer.restart().unwrap();
    balancer.wait(leaving, "the same servers after a restart", LIMIT).unwrap();
    answered(&short, 100);
    dnsmasq.kill(Signal::SIGCONT).unwrap();
    let report = short.stop().unwrap();
    assert_eq!(report.failures, BTreeMap::new());
    drop(held);
    dnsmasq.stop(LIMIT).unwrap();
    drop(webs);
}

/// Starts a web server that says its name, and serves on for a second after it is told to stop.
fn container(docker: &Docker, name: &str) {
    let script = format!(
        "busybox mkdir /www; echo {name} > /www/index.html; httpd -p 8080 -h /www; \
         trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"
    );
    let labels = ["--label", "lb.service=web", "--label", "lb.port=8080"];
    let run = ["run", "--detach", "--name", name];
    docker.run(&[&run[..], &labels, &["box", "sh", "-c", &script]].concat()).unwrap();
}

#[test]
fn containers_serve_while_they_run_and_lose_no_request_when_they_are_stopped() {
    const NAME: &str = "containers_serve_while_they_run_and_lose_no_request_when_they_are_stopped";
    let needs =
        [Need::Lab, Need::Bpf, Need::Program("dockerd"), Need::Program("docker"), Need::Program("busybox")];
    if skip::cannot_run(NAME, &needs) {
        return;
    }
    let lab = Lab::new().unwrap();
    let (host, client) = (lab.balancer_host().unwrap(), lab.client_host().unwrap());
    // On the balancer's own host, whose bridge the balancer serves too.
    let docker = Docker::start(&host, &["sh", "httpd", "sleep"]).unwrap();
    container(&docker, "web1");
    container(&docker, "web2");
    let service = format!(
        "xdp-mode = \"generic\"\n[[service]]\nname = \"web\"\naddress = \"{WEB}/tcp\"\nalgorithm = \"round-robin\"\n\
         discover = {{ type = \"docker\", socket = \"{}\" }}\n",
        docker.socket().display()
    );
    let setup = Setup::on("\"eth0\", \"docker0\"").toml(&service);
    let balancer = Balancer::launch(&host, &setup.text(), &[]).unwrap();
    balancer.wait(|status| up(status) == ["web1", "web2"], "two containers", LIMIT).unwrap();
    let load = Load { threads: 4, per_second: Some(100.0), ..Load::new(WEB, "/index.html") }.start(&client);
    answered(&load, 100);
    container(&docker, "web3");
    balancer.wait(|status| up(status) == ["web1", "web2", "web3"], "the third", LIMIT).unwrap();
    answered(&load, 100);
    assert!(load.so_far().bodies.contains_key("web3"));
    docker.run(&["stop", "web1"]).unwrap();
    balancer.wait(|status| up(status) == ["web2", "web3"], "the first to go", LIMIT).unwrap();
    answered(&load, 100);
    let report = load.stop().unwrap();
    assert_eq!(report.failures, BTreeMap::new());
}
