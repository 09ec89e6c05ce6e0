//! The lab, shown against the real servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use lb_tests::lab::echo::EchoSession;
use lb_tests::lab::http::{Client, HttpError, Options};
use lb_tests::lab::load::Load;
use lb_tests::lab::php::{PhpNode, PhpOptions, STATUS_PORT};
use lb_tests::lab::ping::Ping;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::wrk::{self, Wrk};
use lb_tests::{Lab, wait_for};
use nix::sys::signal::Signal;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const WEB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 21);

#[test]
fn hosts_ping_each_other_until_the_cable_is_pulled() {
    if skip::cannot_run("hosts_ping_each_other_until_the_cable_is_pulled", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let a = lab.host("a", CLIENT).unwrap();
    let b = lab.host("b", WEB).unwrap();
    b.add_address(Ipv4Addr::new(10, 77, 9, 9), "lo").unwrap();
    b.add_address(Ipv4Addr::new(10, 77, 0, 22), "eth0").unwrap();
    b.gro_on_peer().unwrap();

    let ping = Ping::start(&a, WEB).unwrap();
    let other = Ping::start(&a, Ipv4Addr::new(10, 77, 0, 22)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (report, other) = (ping.finish().unwrap(), other.finish().unwrap());
    assert!(report.sent >= 4, "{report:?}");
    assert_eq!((report.lost, other.lost), (0, 0));

    b.link_down().unwrap();
    let ping = Ping::start(&a, WEB).unwrap();
    assert_eq!(ping.finish().unwrap().lost, 1);
    b.link_up().unwrap();
    let answered = || a.run(&["ping", "-c1", "-W1", &WEB.to_string()]).ok();
    wait_for("an echo after the cable is back", Duration::from_secs(10), answered).unwrap();
}

#[test]
fn a_host_is_a_machine_of_its_own() {
    if skip::cannot_run("a_host_is_a_machine_of_its_own", &[Need::Lab]) {
        return;
    }
    // Two labs, the same names and addresses.
    let labs = [Lab::new().unwrap(), Lab::new().unwrap()];
    let hosts = labs.each_ref().map(|lab| lab.host("same", WEB).unwrap());
    let interfaces = "eth0\nlo\n";
    for host in &hosts {
        let listed = host.run(&["sh", "-c", "ls /sys/class/net; uname -n; cat /sys/class/net/eth0/address"]);
        assert_eq!(listed.unwrap(), format!("{interfaces}same\n{}\n", host.mac()));
    }
    hosts[0].run(&["sh", "-c", "mkdir /sys/fs/bpf/lb /var/lib/lb-lab-test; echo x > /run/lb.sock"]).unwrap();
    assert!(hosts[0].root().join("sys/fs/bpf/lb").is_dir());
    assert!(hosts[0].root().join("run/lb.sock").is_file());
    assert!(!hosts[1].root().join("sys/fs/bpf/lb").exists());
    assert!(!hosts[1].root().join("run/lb.sock").exists());
    assert!(!std::path::Path::new("/var/lib/lb-lab-test").exists());
    let error = hosts[0].run(&["sh", "-c", "echo broken >&2; exit 3"]).unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("broken"), "{error}");
    let slow = hosts[0].command("sleep").arg("60").limit(Duration::from_millis(100)).run();
    assert!(slow.unwrap_err().to_string().contains("waited 100 ms in vain"));
}

#[test]
fn a_process_is_known_by_its_own_number_and_ends_as_told() {
    if skip::cannot_run("a_process_is_known_by_its_own_number_and_ends_as_told", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.host("a", CLIENT).unwrap();
    let script = "trap 'echo told; exit 7' TERM; echo started; while :; do sleep 0.01; done";
    let mut process = host.spawn(host.command("sh").args(["-c", script]), "script").unwrap();
    let started = || process.log().contains("started").then_some(());
    wait_for("the script", Duration::from_secs(5), started).unwrap();
    assert!(std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid())).unwrap().contains("trap"));
    process.kill(Signal::SIGTERM).unwrap();
    assert_eq!(process.wait_exit(Duration::from_secs(5)).unwrap().code(), Some(7));
    assert_eq!(process.log(), "started\ntold\n");

    let mut process = host.command("sleep").arg("60").spawn("sleep").unwrap();
    process.kill(Signal::SIGKILL).unwrap();
    // Nobody has waited for it: it is a zombie now, and counts as ended.
    wait_for("its end", Duration::from_secs(5), || (!process.is_running()).then_some(())).unwrap();
    assert!(process.wait_exit(Duration::from_secs(5)).unwrap().code().is_none());
}

#[test]
fn php_nodes_serve_their_pages_and_die_as_told() {
    if skip::cannot_run("php_nodes_serve_their_pages_and_die_as_told", &[Need::Lab, Need::Php]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", CLIENT).unwrap();
    let web = lab.host("web1", WEB).unwrap();
    let mut node = PhpNode::start(&web, &PhpOptions::default()).unwrap();
    let get = |path: &str| client.enter(|| Client::default().get(SocketAddrV4::new(WEB, 80), path)).unwrap();

    for (path, body) in
        [("/static", "web1\n"), ("/id.php", "web1\n"), ("/ping", "pong"), ("/sleep.php?s=0.01", "slept\n")]
    {
        let answer = get(path).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, body), "{path}");
    }
    assert!(get("/status").unwrap().body.contains("process manager:      static"));
    let status = client.enter(|| TcpStream::connect((WEB, STATUS_PORT))).unwrap();
    assert!(status.is_ok());

    for work in [150, 20].map(Duration::from_millis) {
        node.set_work(work).unwrap();
        let answer = get("/work.php").unwrap();
        assert!(answer.total_time >= work, "{answer:?}");
    }

    assert_eq!(node.pids().len(), 2 + 1 + 4 + 1, "masters, nginx worker, FPM workers, FPM's status process");
    node.kill_fpm().unwrap();
    assert_eq!(get("/id.php").unwrap().status, 502);
    assert_eq!(get("/static").unwrap().status, 200);
    node.kill_all().unwrap();
    assert_eq!(get("/static").unwrap_err(), HttpError::Refused);
    assert!(node.pids().is_empty());
    node.restart().unwrap();
    assert_eq!(get("/id.php").unwrap().body, "web1\n");
}

#[test]
fn every_request_of_a_load_is_accounted_for() {
    if skip::cannot_run("every_request_of_a_load_is_accounted_for", &[Need::Lab, Need::Php]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", CLIENT).unwrap();
    let web = lab.host("web1", WEB).unwrap();
    let mut node = PhpNode::start(&web, &PhpOptions::default()).unwrap();
    let sources: Vec<_> = (100..150).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect();
    for source in &sources {
        client.add_address(*source, "eth0").unwrap();
    }

    let mut load = Load { requests: Some(1000), ..Load::new(node.address(), "/static?{n}") };
    load.sources.clone_from(&sources);
    let report = load.clone().run(&client).unwrap();
    assert_eq!(report.bodies.into_iter().collect::<Vec<_>>(), [("web1".to_owned(), 1000)]);
    assert_eq!((report.connections, report.failures.len()), (1000, 0));
    assert!(report.slowest_connect > Duration::ZERO && report.slowest_request >= report.slowest_connect);

    let report = Load { keep_alive: true, ..load.clone() }.run(&client).unwrap();
    assert_eq!((report.succeeded(), report.connections), (1000, 4));

    let paced = Load { requests: Some(50), per_second: Some(100.0), ..load.clone() };
    let report = paced.run(&client).unwrap();
    assert_eq!(report.succeeded(), 50);
    assert!(report.elapsed >= Duration::from_millis(490), "{report:?}");

    let endless = Load { requests: None, per_second: Some(200.0), ..load }.start(&client);
    wait_for("some answers", Duration::from_secs(5), || (endless.so_far().succeeded() >= 20).then_some(()))
        .unwrap();
    node.kill_all().unwrap();
    wait_for("refusals", Duration::from_secs(5), || endless.so_far().failures.get("refused").copied())
        .unwrap();
    assert!(endless.stop().unwrap().failed() > 0);
}

#[test]
fn wrk_counts_requests_and_failures() {
    if skip::cannot_run("wrk_counts_requests_and_failures", &[Need::Lab, Need::Php, Need::Program("wrk")]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", CLIENT).unwrap();
    let web = lab.host("web1", WEB).unwrap();
    let node = PhpNode::start(&web, &PhpOptions::default()).unwrap();
    let second = Wrk { duration: Duration::from_secs(1), ..Wrk::default() };
    for keep_alive in [true, false] {
        let wrk = Wrk { keep_alive, ..second.clone() };
        let report = wrk::run(&client, &format!("http://{}/static", node.address()), &wrk).unwrap();
        assert!(report.requests > 100 && report.p99 >= report.p50, "{report:?}");
        assert_eq!(report.failures(), 0, "{report:?}");
    }
    let report = wrk::run(&client, &format!("http://{}/absent", node.address()), &second).unwrap();
    assert_eq!(report.non_2xx, report.requests);
}

#[test]
fn http_errors_tell_refused_reset_closed_and_silent_apart() {
    if skip::cannot_run("http_errors_tell_refused_reset_closed_and_silent_apart", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let client = lab.host("client", CLIENT).unwrap();
    let server = lab.host("server", WEB).unwrap();
    let listener = server.enter(|| TcpListener::bind((WEB, 80)).unwrap()).unwrap();
    let limit = Duration::from_millis(200);
    let get = |address| {
        let options = Options { connect_timeout: limit, read_timeout: limit, ..Options::default() };
        client.enter(|| Client::new(options).get(address, "/"))
    };
    let stage = "waiting for the answer";
    // A socket that is closed with bytes unread resets its connection; one that has read them closes it.
    for (reads, expected) in [(false, HttpError::Reset { stage }), (true, HttpError::Closed { stage })] {
        let listener = listener.try_clone().unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.peek(&mut request).unwrap();
            if reads {
                stream.read_exact(&mut request[..length]).unwrap();
            }
        });
        assert_eq!(get(SocketAddrV4::new(WEB, 80)).unwrap().unwrap_err(), expected);
        serving.join().unwrap();
    }
    assert_eq!(get(SocketAddrV4::new(WEB, 80)).unwrap().unwrap_err(), HttpError::TimedOut { stage });
    assert_eq!(get(SocketAddrV4::new(WEB, 81)).unwrap().unwrap_err(), HttpError::Refused);
    server.link_down().unwrap();
    assert_eq!(get(SocketAddrV4::new(WEB, 80)).unwrap().unwrap_err(), HttpError::ConnectTimedOut);
}

#[test]
fn an_echo_session_feels_a_pause_and_a_break() {
    if skip::cannot_run("an_echo_session_feels_a_pause_and_a_break", &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let a = lab.host("a", CLIENT).unwrap();
    let b = lab.host("b", WEB).unwrap();
    let session = EchoSession::start(&b, &a, 22).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let report = session.finish().unwrap();
    assert!(report.echoes >= 4 && report.broken.is_none(), "{report:?}");

    let session = EchoSession::start(&b, &a, 22).unwrap();
    b.link_down().unwrap();
    std::thread::sleep(Duration::from_millis(400));
    b.link_up().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let report = session.finish().unwrap();
    assert!(report.largest_gap >= Duration::from_millis(400) && report.broken.is_none(), "{report:?}");

    let session = EchoSession::start(&b, &a, 22).unwrap();
    // The peer's kernel forgets the connection, and answers the next byte with a RST.
    b.run(&["ss", "-K", "sport", "=", ":22"]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let report = session.finish().unwrap();
    assert!(report.broken.is_some(), "{report:?}");
}

/// The process that is killed: it builds a lab, says what is in it, and waits.
#[test]
#[ignore = "is started by nothing_remains_of_a_lab_whose_process_is_killed"]
fn a_lab_that_waits_to_be_killed() {
    let lab = Lab::new().unwrap();
    let web = lab.host("web1", WEB).unwrap();
    let node = PhpNode::start(&web, &PhpOptions::default()).unwrap();
    let pid = node.pids()[0];
    println!("LAB {} {pid}", lab.directory().display());
    std::io::stdout().flush().unwrap();
    std::thread::sleep(Duration::from_mins(10));
}

#[test]
fn nothing_remains_of_a_lab_whose_process_is_killed() {
    if skip::cannot_run("nothing_remains_of_a_lab_whose_process_is_killed", &[Need::Lab, Need::Php]) {
        return;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_lab_that_waits_to_be_killed", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find_map(|line| line.split_once("LAB ").map(|(_, rest)| rest.to_owned()));
    let line = line.expect("the child says what is in its lab");
    let (directory, pid) = line.split_once(' ').unwrap();
    let namespaces =
        ["net", "mnt", "pid"].map(|kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap());
    let before = processes_in(&namespaces);
    assert!(before.len() >= 9, "init, nginx and FPM with their workers: {before:?}");

    child.kill().unwrap();
    child.wait().unwrap();
    let start = Instant::now();
    wait_for("the end of all its processes", Duration::from_secs(5), || {
        (processes_in(&namespaces).is_empty()
            && !before.iter().any(|pid| lb_tests::lab::process::is_running(*pid)))
        .then_some(())
    })
    .unwrap();
    println!("all processes and namespaces gone after {:?}", start.elapsed());
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(directory));
    let _next = Lab::new().unwrap();
    wait_for("the removal of its directory", Duration::from_secs(5), || {
        let _another = Lab::new().unwrap();
        (!std::path::Path::new(directory).exists()).then_some(())
    })
    .unwrap();
}

#[test]
fn a_panic_leaves_nothing_behind() {
    if skip::cannot_run("a_panic_leaves_nothing_behind", &[Need::Lab]) {
        return;
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    let outcome = std::panic::catch_unwind(move || {
        let lab = Lab::new().unwrap();
        let host = lab.host("a", CLIENT).unwrap();
        let process = host.command("sleep").arg("600").spawn("sleep").unwrap();
        sender.send((lab.directory().to_owned(), process.pid(), host.root())).unwrap();
        panic!("on purpose");
    });
    assert!(outcome.is_err());
    let (directory, pid, root) = receiver.recv().unwrap();
    assert!(!directory.exists() && !lb_tests::lab::process::is_running(pid) && !root.exists());
}

/// All processes that are in any of these namespaces.
fn processes_in(namespaces: &[std::path::PathBuf]) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| {
            ["net", "mnt", "pid"].iter().any(|kind| {
                std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))
                    .is_ok_and(|link| namespaces.contains(&link))
            })
        })
        .collect()
}
