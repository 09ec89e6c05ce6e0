//! The agent stays away: what lives goes on, and new connections go where the service says.

use std::collections::BTreeMap;
use std::time::Duration;

use lb_tests::lab::balancer::{Look, Status};
use lb_tests::lab::http::Client;
use lb_tests::lab::load::{Load, LoadReport, Running};
use lb_tests::lab::php::{PhpNode, PhpOptions};
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the service is that keeps its backends.
const KEPT: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(10, 77, 0, 102), 80);
const LIMIT: Duration = Duration::from_secs(20);
/// What the balancer's own server calls itself.
const OWN: &str = "lb";

/// How an agent goes away, and comes back.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Absence {
    Killed,
    Ended,
    Frozen,
}

impl Absence {
    fn begin(self, site: &mut Site) {
        match self {
            Self::Killed => drop(site.balancer.kill().unwrap()),
            Self::Ended => drop(site.balancer.terminate().unwrap()),
            Self::Frozen => send(site, Signal::SIGSTOP),
        }
    }

    fn end(self, site: &mut Site) {
        match self {
            Self::Killed | Self::Ended => site.balancer.restart().unwrap(),
            Self::Frozen => send(site, Signal::SIGCONT),
        }
    }
}

fn send(site: &Site, signal: Signal) {
    let pid = site.balancer.pid().expect("the agent runs");
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// `web` passes, `kept` keeps, over the same servers.
fn configuration() -> String {
    let check = "check = { type = \"http\", path = \"/ping\" }\n";
    let pass = format!("{check}agent-lost = \"pass\"");
    let web = Service { lines: &pass, ..Service::web(&[100, 100]) };
    let kept =
        Service { name: "kept", address: format!("{KEPT}/tcp"), lines: check, ..Service::web(&[100, 100]) };
    Setup::new().top("agent-lost-after = \"5s\"").service(&web).service(&kept).text()
}

fn short() -> Load {
    Load { per_second: Some(50.0), ..Load::new(WEB, "/static") }
}

fn own(report: &LoadReport) -> u64 {
    report.bodies.get(OWN).copied().unwrap_or_default()
}

fn answered(load: &Running, more: u64) {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || (load.so_far().succeeded() >= before + more).then_some(())).unwrap();
}

fn page(site: &Site, client: &mut Client) -> (bool, String) {
    let answer = site.client.enter(|| client.get(WEB, "/static")).unwrap().unwrap();
    (answer.connect_time.is_some(), answer.body.trim().to_owned())
}

/// How many packets a reason has counted.
fn counted(status: &Status, reason: &str) -> u64 {
    status.counters.get(reason).copied().unwrap_or_default()
}

#[test]
fn while_the_agent_is_lost_what_lives_goes_on_and_what_is_new_is_the_hosts() {
    const NAME: &str = "while_the_agent_is_lost_what_lives_goes_on_and_what_is_new_is_the_hosts";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = Site::start(2, 0, &configuration(), &[]).unwrap();
    let own_server = PhpNode::start(site.balancer.host(), &PhpOptions::default()).unwrap();
    let bystanders = site.watch().unwrap();
    // Its connections are made once, and must outlast every absence.
    let lasting = Load { keep_alive: true, threads: 4, ..short() }.start(&site.client);
    answered(&lasting, 20);
    let (mut passed, mut forwarded) = (0, 4);

    for absence in [Absence::Killed, Absence::Ended, Absence::Frozen] {
        // The host's own server is there all the time, and gets nothing.
        let load = short().start(&site.client);
        answered(&load, 20);
        assert_eq!(own(&load.so_far()), 0, "{absence:?}");
        absence.begin(&mut site);
        answered(&lasting, 20);
        wait_for("an answer of the host itself", LIMIT, || (own(&load.so_far()) > 0).then_some(())).unwrap();
        let report = load.stop().unwrap();
        assert_eq!(report.failures, BTreeMap::new(), "{absence:?}");
        passed += own(&report);
        forwarded += report.succeeded() - own(&report);

        // From now on all that is new is the host's, and another service's is not.
        let report = Load { requests: Some(50), ..short() }.run(&site.client).unwrap();
        assert_eq!(
            report.bodies,
            BTreeMap::from([(OWN.to_owned(), 50)]),
            "{absence:?}: {:?}",
            report.failures
        );
        let others = Load { requests: Some(20), ..Load::new(KEPT, "/static") }.run(&site.client).unwrap();
        assert_eq!((others.succeeded(), own(&others)), (20, 0), "{absence:?}: {:?}", others.failures);
        let mut accepted = Client::keep_alive();
        assert_eq!(page(&site, &mut accepted), (true, OWN.to_owned()), "{absence:?}");
        passed += 51;

        // Back again: what the host has accepted goes on, what is new has a backend.
        answered(&lasting, 20);
        absence.end(&mut site);
        let mut waited = 0;
        wait_for("an answer of a backend", LIMIT, || {
            let (_, name) = page(&site, &mut Client::keep_alive());
            waited += u64::from(name == OWN);
            (name != OWN).then_some(())
        })
        .unwrap();
        let report = Load { requests: Some(50), ..short() }.run(&site.client).unwrap();
        assert_eq!((report.succeeded(), own(&report)), (50, 0), "{absence:?}: {:?}", report.failures);
        assert_eq!(page(&site, &mut accepted), (false, OWN.to_owned()), "{absence:?}");
        passed += waited;
        forwarded += 51;
        answered(&lasting, 20);
    }

    let report = lasting.stop().unwrap();
    assert_eq!((report.failures.clone(), report.connections, own(&report)), (BTreeMap::new(), 4, 0));
    // The status shows what the maps held a second ago at most.
    let exact = |status: &Status| {
        let opened = status.service("web").opened;
        (counted(status, "agent-lost-passed"), opened) == (passed, forwarded)
    };
    let what = format!("{passed} passed and {forwarded} forwarded connections");
    let status = site.balancer.wait(exact, &what, LIMIT).unwrap();
    assert!(counted(&status, "no-flow-passed") > passed, "{:?}", status.counters);
    assert_eq!(counted(&status, "no-flow"), 0, "{:?}", status.counters);
    assert_eq!((&*status.service("web").agent_lost, &*status.service("kept").agent_lost), ("pass", "keep"));
    assert_eq!(site.balancer.log().matches("this host itself got new connections to").count(), 3);
    bystanders.assert_undisturbed();
    drop(own_server);
}
