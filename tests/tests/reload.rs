//! Another configuration under traffic: all or nothing, and no connection is lost for it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use lb_tests::lab::balancer::{BackendState, Look, Status, write_configuration};
use lb_tests::lab::http::Client;
use lb_tests::lab::load::{Load, Running};
use lb_tests::lab::setup::{Service, WEB};
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Setup, Site, wait_for};

const LIMIT: Duration = Duration::from_secs(15);

/// Slots of the ring of three backends and fewer.
const SLOTS: f64 = 1021.0;

/// `web` over these backends by number, with these weights.
fn over(backends: &[(u8, u32)]) -> Setup {
    let lines =
        "algorithm = \"round-robin\"\ncheck = { type = \"http\", path = \"/ping\", interval = \"500ms\" }";
    let all = Service::web(&[0; 4]);
    let backends = backends.iter().map(|(number, weight)| {
        let (name, address, _) = all.backends[usize::from(*number) - 1].clone();
        (name, address, *weight)
    });
    Setup::new().service(&Service { lines, backends: backends.collect(), ..all.clone() })
}

/// Writes the configuration and has it taken up by the command, whose words come back.
fn reload(site: &Site, text: &str) -> String {
    write_configuration(site.balancer.host(), text).unwrap();
    let output = site.balancer.run_lb(&["reload"]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

fn answered(load: &Running, more: u64) {
    let before = load.so_far().succeeded();
    wait_for("more answers", LIMIT, || (load.so_far().succeeded() >= before + more).then_some(())).unwrap();
}

/// New connections are shared as these weights promise: within any run of n connections a backend with q of the ring's
/// slots is chosen n·q/1021 times, give or take less than two. Another load runs beside it and takes turns too, so the
/// balancer's counts are looked at.
fn are_shared(site: &Site, weights: &[(&str, u32)]) {
    let opened = |status: &Status| -> BTreeMap<String, u64> {
        let backends = &status.service("web").backends;
        backends.iter().map(|backend| (backend.name.clone(), backend.opened)).collect()
    };
    let before = opened(&site.balancer.status().unwrap());
    let more = |status: &Status| opened(status).values().sum::<u64>() >= before.values().sum::<u64>() + 300;
    let after = opened(&site.balancer.wait(more, "300 connections", LIMIT).unwrap());
    let given = |name: &str| after[name] - before[name];
    let all: u64 = weights.iter().map(|(name, _)| given(name)).sum();
    let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
    for (name, weight) in weights {
        let slots = (SLOTS * f64::from(*weight) / f64::from(total)).round();
        let promised = all as f64 * slots / SLOTS;
        // The backends' counters are read one after the other, while connections come.
        assert!((given(name) as f64 - promised).abs() < 6.0, "{name}: {} for {promised}", given(name));
    }
}

/// Kept connections, until one is on each of `webs` backends.
fn one_on_each(site: &Site, webs: usize) -> BTreeMap<String, Client> {
    let mut found = BTreeMap::new();
    while found.len() < webs {
        let mut client = Client::keep_alive();
        let answer = site.client.enter(|| client.get(WEB, "/static")).unwrap().unwrap();
        found.entry(answer.body.trim().to_owned()).or_insert(client);
    }
    found
}

fn assert_answers(site: &Site, client: &mut Client, name: &str) {
    let answer = site.client.enter(|| client.get(WEB, "/static")).unwrap().unwrap();
    assert_eq!((answer.body.trim(), answer.connect_time), (name, None));
}

fn names(status: &Status) -> Vec<String> {
    status.service("web").backends.iter().map(|backend| backend.name.clone()).collect()
}

#[test]
fn backends_come_go_and_change_under_traffic_without_one_failed_request() {
    const NAME: &str = "backends_come_go_and_change_under_traffic_without_one_failed_request";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let site = Site::start(3, 0, &over(&[(1, 100), (2, 100)]).text(), &[]).unwrap();
    let short = Load { threads: 4, per_second: Some(150.0), ..Load::new(WEB, "/static?{n}") };
    let kept = Load { keep_alive: true, threads: 4, per_second: Some(50.0), ..short.clone() };
    let loads = [short, kept].map(|load| load.start(&site.client));
    let mut held = one_on_each(&site, 2);
    are_shared(&site, &[("web1", 100), ("web2", 100)]);

    // One comes.
    let said = reload(&site, &over(&[(1, 100), (2, 100), (3, 100)]).text());
    assert_eq!(said, "web/web3: added: at 10.77.0.23:80, weight 100\n");
    let serves = |status: &Status| status.backend("web/web3").weight_effective > 0.0;
    site.balancer.wait(serves, "web3 to serve", LIMIT).unwrap();
    are_shared(&site, &[("web1", 100), ("web2", 100), ("web3", 100)]);

    // Weights change, and move no connection.
    let said = reload(&site, &over(&[(1, 100), (2, 300), (3, 100)]).text());
    assert_eq!(said, "web/web2: weight 100 → 300\n");
    let heavier = |status: &Status| (status.backend("web/web2").weight_effective - 300.0).abs() < 1.0;
    site.balancer.wait(heavier, "web2 to weigh 300", LIMIT).unwrap();
    are_shared(&site, &[("web1", 100), ("web2", 300), ("web3", 100)]);
    for (name, client) in &mut held {
        assert_answers(&site, client, name);
    }

    // One goes: its connections go on, and it goes with the last of them.
    let said = reload(&site, &over(&[(2, 300), (3, 100)]).text());
    assert_eq!(said, "web/web1: removed: drained: its connections may finish\n");
    let leaves = |status: &Status| status.backend("web/web1").state == BackendState::Draining;
    let leaving = site.balancer.wait(leaves, "web1 to leave", LIMIT).unwrap();
    let opened = leaving.backend("web/web1").opened;
    assert!(leaving.backend("web/web1").reason.contains("removed from the configuration"));
    for load in &loads {
        answered(load, 100);
    }
    for (name, client) in &mut held {
        assert_answers(&site, client, name);
    }
    let status = site.balancer.status().unwrap();
    assert_eq!(status.backend("web/web1").opened, opened, "it takes no new connections");

    let [short, kept] = loads;
    let reports = [short.stop().unwrap(), kept.stop().unwrap()];
    assert_answers(&site, held.get_mut("web1").unwrap(), "web1");
    assert_eq!(names(&site.balancer.status().unwrap()), ["web2", "web3", "web1"]);
    drop(held);
    site.balancer.wait(|status| names(status) == ["web2", "web3"], "web1 to be gone", LIMIT).unwrap();
    for report in reports {
        assert_eq!(report.failures, BTreeMap::new());
    }
}

#[test]
fn an_address_that_moves_under_the_same_name_drains_the_old_server() {
    const NAME: &str = "an_address_that_moves_under_the_same_name_drains_the_old_server";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let before = over(&[(1, 100), (2, 100)]).text();
    let site = Site::start(3, 0, &before, &[]).unwrap();
    let load = Load { per_second: Some(150.0), ..Load::new(WEB, "/static?{n}") }.start(&site.client);
    let mut held = one_on_each(&site, 2);
    // `web2` is now the server that calls itself web3.
    let after = before.replace("10.77.0.22:80", "10.77.0.23:80");
    let said = reload(&site, &after);
    let words = "web/web2: address 10.77.0.22:80 → 10.77.0.23:80: the old one is drained";
    assert!(said.starts_with(words), "{said}");
    let new = |status: &Status| {
        let moved = status.service("web").backends.iter().find(|backend| backend.address == "10.77.0.23:80");
        moved.is_some_and(|moved| moved.name == "web2" && moved.weight_effective > 0.0)
    };
    site.balancer.wait(new, "the new web2 to serve", LIMIT).unwrap();
    answered(&load, 100);
    assert!(load.so_far().bodies.contains_key("web3"));
    for (name, client) in &mut held {
        assert_answers(&site, client, name);
    }
    drop(held);
    let gone = |status: &Status| status.service("web").backends.len() == 2;
    site.balancer.wait(gone, "the old web2 to be gone", LIMIT).unwrap();
    assert_eq!(load.stop().unwrap().failures, BTreeMap::new());
}

#[test]
fn a_bad_file_changes_nothing_and_is_named_with_line_and_column() {
    const NAME: &str = "a_bad_file_changes_nothing_and_is_named_with_line_and_column";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let good = over(&[(1, 100), (2, 100)]).text();
    let site = Site::start(2, 0, &good, &[]).unwrap();
    let load = Load { per_second: Some(100.0), ..Load::new(WEB, "/static?{n}") }.start(&site.client);
    let shop = Service { lines: "algoritm = \"maglev\"", name: "shop", ..Service::web(&[100]) };
    let text =
        over(&[(1, 100), (2, 100)]).service(&shop).text().replace("80/tcp\"\nalgoritm", "81/tcp\"\nalgoritm");
    let line = text.lines().position(|line| line.starts_with("algoritm")).unwrap() + 1;
    let file = write_configuration(site.balancer.host(), &text).unwrap();
    let place = format!("{}:{line}:1", file.display());
    let refused = |arguments: &[&str]| {
        let output = site.balancer.run_lb(arguments).unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stderr.contains(&place), "{output:?}");
    };
    refused(&["reload"]);
    refused(&["check", "--diff", &file.display().to_string()]);
    let status = site.balancer.status().unwrap();
    assert_eq!(status.services.len(), 1);
    let said = format!("{} is not what runs: {place}", file.display());
    assert!(status.alarms.iter().any(|alarm| alarm.starts_with(&said)), "{:?}", status.alarms);

    // What cannot change is refused too, and says what to type; nothing else of the file is taken up.
    let text = format!("max-flows = 5000\n{}", over(&[(1, 100)]).text());
    write_configuration(site.balancer.host(), &text).unwrap();
    let output = site.balancer.run_lb(&["reload"]).unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("`max-flows` cannot change") && output.stderr.contains("lb detach"));
    let output = site.balancer.run_lb(&["check", "--diff", &file.display().to_string(), "--json"]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let compared: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(compared["changes"][0]["name"], "web/web2", "{compared}");
    assert_eq!(compared["changes"][0]["kind"], "removed", "{compared}");
    assert!(compared["refused"][0].as_str().unwrap().contains("max-flows"), "{compared}");
    assert_eq!(names(&site.balancer.status().unwrap()), ["web1", "web2"]);

    // The file is mended, and nobody types anything.
    write_configuration(site.balancer.host(), &good).unwrap();
    site.balancer.wait(|status| status.alarms.is_empty(), "the alarm to end", LIMIT).unwrap();
    assert_eq!(load.stop().unwrap().failures, BTreeMap::new());
}

#[test]
fn a_service_comes_by_a_change_of_the_file_and_goes_by_a_signal_with_its_last_connection() {
    const NAME: &str =
        "a_service_comes_by_a_change_of_the_file_and_goes_by_a_signal_with_its_last_connection";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let web = over(&[(1, 100)]);
    let shop =
        Service { name: "shop", address: "10.77.0.100:81/tcp".to_owned(), ..Service::web(&[100, 100]) };
    let site = Site::start(2, 0, &web.text(), &[]).unwrap();
    write_configuration(site.balancer.host(), &web.clone().service(&shop).text()).unwrap();
    let serves = |status: &Status| {
        let shop = status.services.iter().find(|service| service.name == "shop");
        shop.is_some_and(|shop| shop.backends.iter().all(|backend| backend.weight_effective > 0.0))
    };
    site.balancer.wait(serves, "the shop to open", LIMIT).unwrap();
    let address = "10.77.0.100:81".parse::<std::net::SocketAddr>().unwrap();
    let mut client = Client::keep_alive();
    site.client.enter(|| client.get(address, "/static")).unwrap().unwrap();

    write_configuration(site.balancer.host(), &web.text()).unwrap();
    let pid = nix::unistd::Pid::from_raw(site.balancer.pid().unwrap() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    let leaves = |status: &Status| status.service("shop").state.starts_with("removed from the configuration");
    site.balancer.wait(leaves, "the shop to close", LIMIT).unwrap();
    let answer = site.client.enter(|| client.get(address, "/static")).unwrap().unwrap();
    assert_eq!((answer.status, answer.connect_time), (200, None));
    let load = Load { requests: Some(5), ..Load::new(address, "/static") };
    let report = load.run(&site.client).unwrap();
    assert_eq!(report.failures, BTreeMap::from([("refused".to_owned(), 5)]));
    drop(client);
    let gone = |status: &Status| status.services.len() == 1;
    site.balancer.wait(gone, "the shop to be gone", LIMIT).unwrap();
    assert!(site.balancer.is_running());
}

#[test]
fn what_is_set_at_run_time_survives_reload_and_restart_and_goes_with_its_name() {
    const NAME: &str = "what_is_set_at_run_time_survives_reload_and_restart_and_goes_with_its_name";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let mut site = Site::start(3, 0, &over(&[(1, 100), (2, 100), (3, 100)]).text(), &[]).unwrap();
    let load = Load { per_second: Some(100.0), ..Load::new(WEB, "/static?{n}") }.start(&site.client);
    for (arguments, said) in [
        (vec!["weight", "web/web1", "50%"], "web/web1 weighs 50 (set at run time; configured 100)"),
        (vec!["weight", "web/web2", "7"], "web/web2 weighs 7 (set at run time; configured 100)"),
        (vec!["maint", "web/web3"], "web/web3 is in maintenance: no new connections"),
    ] {
        let output = site.balancer.run_lb(&arguments).unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.starts_with(said), "{output:?}");
    }
    let assert_holds = |site: &Site, weights: [u32; 2]| {
        let holds = |status: &Status| {
            let weighs = |name: &str, weight: u32| {
                (status.backend(name).weight_effective - f64::from(weight)).abs() < 0.1
            };
            weighs("web/web1", weights[0])
                && weighs("web/web2", weights[1])
                && status.backend("web/web3").state == BackendState::Maintenance
                && weighs("web/web3", 0)
        };
        site.balancer.wait(holds, "what was set to hold", LIMIT).unwrap();
    };
    assert_holds(&site, [50, 7]);
    let output = site.balancer.run_lb(&["status"]).unwrap();
    assert!(output.stdout.contains("50 (set at run time; configured 100)"), "{}", output.stdout);
    reload(&site, &over(&[(1, 200), (2, 200), (3, 100)]).text());
    assert_holds(&site, [100, 7]);
    site.balancer.kill().unwrap();
    site.balancer.restart().unwrap();
    assert_holds(&site, [100, 7]);

    // A name that is gone takes with it what was set for it.
    reload(&site, &over(&[(1, 200), (3, 100)]).text());
    reload(&site, &over(&[(1, 200), (2, 200), (3, 100)]).text());
    let state = site.balancer.host().directory();
    let log = fs::read_to_string(state.join("lb.log")).unwrap();
    assert!(log.contains("web/web2: the configuration knows it no more"), "{log}");
    assert_holds(&site, [100, 200]);
    for arguments in [["weight", "web/web1", "reset"].as_slice(), &["ready", "web/web3"]] {
        let output = site.balancer.run_lb(arguments).unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let as_configured = |status: &Status| {
        let weighs = |name: &str| status.backend(name).weight_effective;
        weighs("web/web1") > 199.0
            && weighs("web/web3") > 99.0
            && status.backend("web/web1").weight_set.is_none()
    };
    site.balancer.wait(as_configured, "the configured weights", Duration::from_secs(45)).unwrap();
    assert_eq!(load.stop().unwrap().failures, BTreeMap::new());
}

/// Entries of the maps that services and backends stand in; of arrays those that say something.
fn entries(site: &Site) -> BTreeMap<&'static str, usize> {
    let host = site.balancer.host();
    let count = |name: &'static str| {
        let path = host.run(&["find", "/sys/fs/bpf/lb", "-name", name]).unwrap();
        let dump = host.run(&["bpftool", "--json", "map", "dump", "pinned", path.trim()]).unwrap();
        let dump: Vec<serde_json::Value> = serde_json::from_str(&dump).unwrap();
        let says = |entry: &&serde_json::Value| {
            let bytes = entry["value"].as_array();
            name.starts_with("SERVICES") || bytes.is_none_or(|bytes| bytes.iter().any(|byte| byte != "0x00"))
        };
        (name, dump.iter().filter(says).count())
    };
    ["SERVICES4", "BACKENDS4", "ENDPOINTS4"].into_iter().map(count).collect()
}

#[test]
fn random_kills_and_reloads_under_traffic_lose_no_request_and_leak_no_map_entry() {
    random_kills("random_kills_and_reloads_under_traffic_lose_no_request_and_leak_no_map_entry", 20);
}

/// Some minutes long, so for itself: `cargo test -p lb-tests --test reload -- --ignored a_hundred`.
#[test]
#[ignore = "takes minutes; run by name"]
fn random_kills_and_reloads_a_hundred_times() {
    random_kills("random_kills_and_reloads_a_hundred_times", 100);
}

fn random_kills(name: &str, rounds: u32) {
    if skip::cannot_run(name, &[Need::Lab, Need::Bpf, Need::Php, Need::Program("bpftool")]) {
        return;
    }
    let whole = over(&[(1, 100), (2, 100), (3, 100)]).text();
    let mut site = Site::start(3, 0, &whole, &[]).unwrap();
    let before = entries(&site);
    let short = Load { threads: 4, per_second: Some(100.0), ..Load::new(WEB, "/static?{n}") };
    let kept = Load { keep_alive: true, per_second: Some(50.0), ..short.clone() };
    let loads = [short, kept].map(|load| load.start(&site.client));
    // A generator with a seed that is told, so that a failure can be had again.
    let seed = u64::from(std::process::id());
    let mut state = seed;
    let mut below = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    for round in 0..rounds {
        let chosen = below(7) + 1;
        let weight = below(300) as u32 + 1;
        let backends: Vec<(u8, u32)> =
            (1..=3).filter(|number| chosen & 1 << (number - 1) != 0).map(|number| (number, weight)).collect();
        let text = over(&backends).text();
        eprintln!("seed {seed}, round {round}: {backends:?}");
        write_configuration(site.balancer.host(), &text).unwrap();
        match below(3) {
            0 => {
                // Killed at any moment of a reload, and started with the new file.
                let asked = site.balancer.command(&["reload"]).spawn("reload").unwrap();
                std::thread::sleep(Duration::from_millis(below(30)));
                site.balancer.kill().unwrap();
                drop(asked);
                site.balancer.restart().unwrap();
            }
            1 => {
                site.balancer.kill().unwrap();
                site.balancer.restart().unwrap();
            }
            _ => {
                reload(&site, &text);
            }
        }
        for load in &loads {
            answered(load, 10);
        }
    }
    reload(&site, &whole);
    let serve = |status: &Status| {
        let backends = &status.service("web").backends;
        backends.len() == 3 && backends.iter().all(|backend| backend.weight_effective > 0.0)
    };
    site.balancer.wait(serve, "all three to serve", LIMIT).unwrap();
    for load in loads {
        assert_eq!(load.stop().unwrap().failures, BTreeMap::new(), "seed {seed}");
    }
    // A connection of which one end has spoken last is closed by the time-out of closing ones, after a minute.
    let closed = |status: &Status| status.service("web").live == 0;
    site.balancer.wait(closed, "all to be closed", Duration::from_secs(15)).unwrap();
    wait_for("the maps to be as before", LIMIT, || (entries(&site) == before).then_some(()))
        .unwrap_or_else(|_| panic!("seed {seed}: {:?} before, {:?} now", before, entries(&site)));
}
