//! The door: a first configuration, what has changed, why something is as it is, and who may ask.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use lb_tests::lab::balancer::{BackendState, Look, Status, lb, program};
use lb_tests::lab::command::Output;
use lb_tests::lab::galera::Galera;
use lb_tests::lab::http::Client;
use lb_tests::lab::mysql::{Login, query};
use lb_tests::lab::php::{PhpNode, PhpOptions};
use lb_tests::lab::process;
use lb_tests::lab::setup::BALANCER;
use lb_tests::lab::skip::{self, Need};
use lb_tests::{Host, Lab, Process, Setup, Site, wait_for};
use lb_userspace::api::{Entry, Explanation, Topic};
use nix::unistd::Group;

/// Generous, for the databases start beside everything else.
const LIMIT: Duration = Duration::from_mins(1);

/// The output of a command that must succeed.
fn well(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout
}

/// The agent's status, once it is as wanted.
fn wait_status(host: &Host, agent: &Process, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let mut last = String::new();
    let found = wait_for(what, LIMIT, || {
        let output = lb(host, &["status", "--json"]).output().ok()?;
        last = format!("{}{}", output.stdout, output.stderr);
        serde_json::from_str::<Status>(&output.stdout).ok().filter(&wanted)
    });
    found.unwrap_or_else(|error| panic!("{error}: {last}\n{}", process::last_lines(&agent.log(), 30)))
}

#[test]
fn a_first_configuration_serves_once_what_it_says_has_been_typed() {
    const NAME: &str = "a_first_configuration_serves_once_what_it_says_has_been_typed";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php, Need::Galera]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let (host, client) = (lab.balancer_host().unwrap(), lab.client_host().unwrap());
    let php = |number| PhpNode::start(&lab.web_host(number).unwrap(), &PhpOptions::default()).unwrap();
    let _webs = [php(1), php(2)];
    let galera = Galera::start(&[&lab.database_host(1).unwrap()]).unwrap();
    let file = host.directory().join("etc/lb.toml");
    let path = file.to_str().unwrap();
    let servers = ["init", "--php", "10.77.0.21,10.77.0.22", "--galera", "10.77.0.31"];

    // Without a file to write, the same goes to standard output, and nothing is made.
    let shown = lb(&host, &servers).output().unwrap();
    assert!(shown.stderr.contains("CREATE USER") && shown.stderr.contains("umask 077"), "{shown:?}");
    assert!(!file.exists());
    let said = well(lb(&host, &[&servers[..], &["--output", path]].concat()).output().unwrap());
    let text = fs::read_to_string(&file).unwrap();
    let secret = file.with_file_name("db.pw");
    assert_eq!(text, well(shown).replace("/etc/lb/db.pw", secret.to_str().unwrap()));
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o600);
    let again = lb(&host, &[&servers[..], &["--output", path]].concat()).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "{again:?}");
    assert!(again.stderr.contains("is there already"), "{again:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    // What it says is typed as it stands.
    let account = said.lines().find(|line| line.trim().starts_with("CREATE USER")).expect("an account");
    galera.nodes()[0].sql(account.trim()).unwrap();
    well(lb(&host, &["check", "--config", path]).output().unwrap());
    let agent = host.command(program()).args(["run", "--config", path]).env("RUST_LOG", "trace");
    let agent = agent.spawn("lb").unwrap();
    let judged = |status: &Status| {
        let up = |backend: &lb_tests::lab::balancer::BackendStatus| {
            backend.state == BackendState::Up
                && backend.weight_effective > 0.0
                && backend.next_hop.contains(" via ")
        };
        let serves = |service| status.service(service).backends.iter().all(up);
        serves("web") && status.clusters[0].writer.is_some()
    };
    let status = wait_status(&host, &agent, "two servers and a writer", judged);
    assert_eq!(status.clusters[0].writer.as_deref(), Some("db1"));

    let web = SocketAddrV4::new(BALANCER, 80);
    let page = || client.enter(|| Client::keep_alive().get(web, "/id.php")).unwrap().unwrap();
    let served: BTreeSet<String> = (0..30).map(|_| page().body.trim().to_owned()).collect();
    assert_eq!(served.into_iter().collect::<Vec<_>>(), ["web1", "web2"]);
    let login = Login::app(SocketAddrV4::new(BALANCER, 3306));
    assert_eq!(query(&client, &login, "SELECT 6 * 7").unwrap().trim(), "42");

    // The password is in its file, and in nothing that the agent says, however much it says.
    let password = fs::read_to_string(&secret).unwrap();
    let mut all = agent.log();
    for arguments in [&["status"][..], &["status", "--json"], &["events"], &["explain", "db/db1"]] {
        all += &well(lb(&host, arguments).output().unwrap());
    }
    all += &well(lb(&host, &["explain", "db", "--json"]).output().unwrap());
    assert!(all.contains("TRACE") && all.contains("db1"), "{all}");
    assert!(!all.contains(password.trim()), "the password is shown");
    lb(&host, &["detach"]).run().unwrap();
    drop(agent);
}

#[test]
fn a_host_that_a_first_configuration_does_not_fit_is_told_why() {
    const NAME: &str = "a_host_that_a_first_configuration_does_not_fit_is_told_why";
    if skip::cannot_run(NAME, &[Need::Lab]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let host = lab.balancer_host().unwrap();
    host.plug("eth1", Ipv4Addr::new(10, 78, 0, 10)).unwrap();
    for (arguments, code, says) in [
        ("--php 10.77.0.10", 2, "10.77.0.10:80 is this host itself"),
        ("--php 192.0.2.9", 2, "192.0.2.9:80 cannot be reached: no route"),
        ("--php 10.77.0.21 --interface eth7", 2, "there is no interface \"eth7\" here; there are: "),
        ("--php 10.77.0.21 --address fd00:77::a", 2, "are of different versions of IP"),
        ("--php 10.77.0.21,[fd00:77::15]:80", 2, "are of different versions of IP"),
        ("--php 10.77.0.21 --address 203.0.113.9", 0, "ip addr add 203.0.113.9/32 dev eth0"),
        ("--php 10.78.0.21 --interface eth0", 0, "warning: 10.78.0.21:80 is reached by eth1"),
        ("--php 10.77.0.21,10.78.0.21", 0, "interfaces = [\"eth0\", \"eth1\"]"),
        ("--php 10.78.0.21", 0, "address = \"10.78.0.10:80/tcp\""),
        ("--galera fd00:77::31", 0, "CREATE USER 'lb'@'fd00:77::"),
    ] {
        let typed: Vec<&str> = ["init"].into_iter().chain(arguments.split(' ')).collect();
        let output = lb(&host, &typed).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
        let said = output.stdout + &output.stderr;
        assert!(said.contains(says), "{arguments}: {said}");
    }
    // A default route says where clients come in, whichever way leads to the servers.
    host.run(&["ip", "route", "add", "default", "via", "10.77.0.1"]).unwrap();
    let output = well(lb(&host, &["init", "--php", "10.78.0.21"]).output().unwrap());
    assert!(output.contains("interfaces = [\"eth0\", \"eth1\"]"), "{output}");
    assert!(output.contains("address = \"10.77.0.10:80/tcp\""), "{output}");
}

/// The entries that `lb events` prints as JSON.
fn entries(site: &Site, arguments: &[&str]) -> Vec<Entry> {
    let typed = [&["events", "--json"][..], arguments].concat();
    let text = well(site.balancer.run_lb(&typed).unwrap());
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_has_changed_is_told_and_each_name_is_explained() {
    const NAME: &str = "what_has_changed_is_told_and_each_name_is_explained";
    if skip::cannot_run(NAME, &[Need::Lab, Need::Bpf, Need::Php]) {
        return;
    }
    let text = Setup::new().top("api = { group = \"daemon\" }").web(2).text();
    let mut site = Site::start(2, 0, &text, &[]).unwrap();
    let socket = fs::metadata(site.balancer.host().root().join("run/lb/lb.sock")).unwrap();
    let group = Group::from_name("daemon").unwrap().unwrap();
    assert_eq!((socket.mode() & 0o7777, socket.uid(), socket.gid()), (0o660, 0, group.gid.as_raw()));

    let first = entries(&site, &[]);
    assert_eq!((first[0].topic, first[0].number), (Topic::Agent, 1));
    let up: BTreeSet<&str> =
        first.iter().filter(|entry| entry.what == "unknown → up").map(|entry| &*entry.name).collect();
    assert_eq!(up.into_iter().collect::<Vec<_>>(), ["web/web1", "web/web2"]);

    let follow = site.balancer.command(&["events", "web/web2", "-f"]).spawn("events").unwrap();
    let told = |what: &str| {
        let line = || follow.log().lines().find(|line| line.contains(what)).map(str::to_owned);
        wait_for(what, LIMIT, line).unwrap_or_else(|error| panic!("{error}: {}", follow.log()))
    };
    told("web/web2: unknown → up");
    site.webs[1].kill_all().unwrap();
    let line = told("web/web2: up → down: ");
    assert!(line.contains("[last probe: "), "{line}");
    let dead = well(site.balancer.run_lb(&["explain", "web/web2"]).unwrap());
    for part in
        ["web/web2  backend  10.77.0.22:80", "state        down for ", "× 0 health", "curl -i http://"]
    {
        assert!(dead.contains(part), "{part}: {dead}");
    }
    assert!(dead.lines().count() <= 24, "one screen: {dead}");
    let status = well(site.balancer.run_lb(&["status"]).unwrap());
    assert!(status.lines().next().unwrap().ends_with("type `lb explain web`"), "{status}");

    well(site.balancer.run_lb(&["drain", "web/web1"]).unwrap());
    well(site.balancer.run_lb(&["ready", "web/web1"]).unwrap());
    let one = entries(&site, &["web/web1", "--since", "1m"]);
    assert!(one.iter().all(|entry| entry.name == "web/web1"), "{one:?}");
    let orders = one.iter().filter(|entry| entry.topic == Topic::Operator).map(|entry| entry.what.clone());
    assert_eq!(
        orders.collect::<Vec<_>>(),
        ["takes no new connections; 0 are left", "takes new connections when it is healthy"]
    );
    let json = well(site.balancer.run_lb(&["explain", "web/web1", "--json"]).unwrap());
    let explained: Explanation = serde_json::from_str(&json).unwrap();
    assert_eq!(explained.state, "up");
    assert!(explained.probe.unwrap().last.unwrap().good);
    let whole = well(site.balancer.run_lb(&["explain", "web"]).unwrap());
    assert!(whole.contains("1 of 2 backends up") && whole.contains("web/web2 down: "), "{whole}");
    let nobody = site.balancer.run_lb(&["explain", "web/web9"]).unwrap();
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    assert!(nobody.stderr.contains("there is no web/web9 here; there are web"), "{nobody:?}");
}

#[test]
fn shells_take_what_is_printed_for_them() {
    let lab_free = |shell: &str| {
        let output = std::process::Command::new(program()).args(["completions", shell]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let script = lab_free(shell);
        for word in ["explain", "events", "follow", "deadline"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.bash");
    fs::write(&path, lab_free("bash")).unwrap();
    let typed = "source \"$1\"; COMP_WORDS=(lb exp); COMP_CWORD=1; _lb lb exp lb; echo \"${COMPREPLY[@]}\"";
    let output = std::process::Command::new("bash")
        .args(["-c", typed, "bash"])
        .arg(Path::new(&path))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "explain", "{output:?}");
}
