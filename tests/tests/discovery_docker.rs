//! Members by Docker's labels, told by a real daemon.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_tests::lab::docker::Docker;
use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::{Host, Lab};
use lb_tests::wait_for;
use lb_userspace::discovery::{self, Members, docker::Source};
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(30);

/// A daemon on a host of its own. The fields are dropped in this order.
struct World {
    docker: Docker,
    host: Host,
    _lab: Lab,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let host = lab.host("docker", [10, 77, 0, 40].into()).unwrap();
        let docker = Docker::start(&host, &["sh", "sleep", "test", "rm"]).unwrap();
        Self { docker, host, _lab: lab }
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.docker.run(arguments).unwrap()
    }

    /// A container of the service `web` that needs half a second to end after SIGQUIT, and its address.
    fn start(&self, name: &str, more: &[&str]) -> String {
        let script = "trap 'sleep 0.5; exit 0' QUIT; trap : TERM; while :; do sleep 0.1; done";
        let first =
            ["run", "--detach", "--name", name, "--label", "lb.service=web", "--stop-signal", "SIGQUIT"];
        self.run(&[&first, more, &["box", "sh", "-c", script]].concat());
        self.docker.address(name).unwrap()
    }

    fn follow(&self) -> Follower {
        let source = Source {
            socket: self.docker.socket().to_owned(),
            service: "web".to_owned(),
            port: 80,
            network: None,
            ipv6: false,
        };
        Follower::new(discovery::Source::Docker(source))
    }
}

/// Runs a source; a Unix socket needs no network.
struct Follower {
    told: mpsc::Receiver<Members>,
    last: Members,
    /// How many sets were told.
    sets: usize,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    fn new(source: discovery::Source) -> Self {
        let (out, told) = mpsc::channel(1);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(source.run(None, out));
        });
        Self { told, last: Members::default(), sets: 0, thread: Some(thread) }
    }

    fn read(&mut self) {
        while let Ok(members) = self.told.try_recv() {
            self.last = members;
            self.sets += 1;
        }
    }

    /// Waits until a set is told that reads so, see [`shown`].
    fn wait(&mut self, wanted: &str) {
        let told = wait_for(wanted, LIMIT, || {
            self.read();
            (shown(&self.last) == wanted).then_some(())
        });
        assert!(told.is_ok(), "{} instead of {wanted}", shown(&self.last));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.told.close();
        while self.told.try_recv().is_ok() {}
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the source panicked");
        }
    }
}

/// `NAME ADDRESS WEIGHT (why it drains), …; TROUBLE`
fn shown(members: &Members) -> String {
    let member = |member: &discovery::Member| {
        let draining = member.draining.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        format!("{} {} {}{draining}", member.name, member.address, member.weight)
    };
    let list = members
        .list
        .as_ref()
        .map_or_else(|| "unknown".to_owned(), |list| list.iter().map(member).collect::<Vec<_>>().join(", "));
    members.trouble.iter().fold(list, |list, trouble| format!("{list}; {trouble}"))
}

const NEEDS: [Need; 4] =
    [Need::Lab, Need::Program("dockerd"), Need::Program("docker"), Need::Program("busybox")];

#[test]
fn a_container_serves_from_its_start_drains_when_told_to_stop_and_is_gone_when_it_dies() {
    const NAME: &str = "a_container_serves_from_its_start_drains_when_told_to_stop_and_is_gone_when_it_dies";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let docker = World::new();
    let mut web = docker.follow();
    web.wait("");
    let one = docker.start("web1", &[]);
    let first = format!("web1 {one}:80 100");
    web.wait(&first);
    let two =
        docker.start("web2", &["--label", "lb.port=9000", "--label", "lb.weight=50", "--label", "lb.name=b"]);
    web.wait(&format!("{first}, b {two}:9000 50"));
    docker.start("other", &["--label", "lb.service=api"]);
    // Signals that are not the container's own mean nothing, not even SIGTERM.
    docker.run(&["kill", "--signal", "TERM", "web2"]);
    docker.run(&["kill", "--signal", "WINCH", "web2"]);
    let sets = web.sets;
    docker.run(&["stop", "web2"]);
    let draining = format!("{first}, b {two}:9000 50 (it has been told to stop)");
    // Both sets were told while it ended; the first of them is this one.
    let told = web.told.blocking_recv().map(|members| shown(&members));
    assert_eq!((told, web.sets), (Some(draining), sets));
    web.wait(&first);
    docker.run(&["kill", "web1"]);
    web.wait("");
    docker.run(&["start", "web2"]);
    let two = docker.docker.address("web2").unwrap();
    web.wait(&format!("b {two}:9000 50"));
    docker.run(&["pause", "web2"]);
    web.wait(&format!("b {two}:9000 50 (it is paused)"));
    docker.run(&["unpause", "web2"]);
    web.wait(&format!("b {two}:9000 50"));
}

#[test]
fn health_is_honoured() {
    const NAME: &str = "health_is_honoured";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let docker = World::new();
    let mut web = docker.follow();
    web.wait("");
    let check = ["--health-cmd", "test -e /ok", "--health-interval", "500ms", "--health-retries", "2"];
    let address = docker.start("web1", &check);
    // Its health is unknown at first, and then bad: it drains, though it has nothing to drain.
    web.wait(&format!("web1 {address}:80 100 (its health check says unhealthy)"));
    assert_eq!(web.sets, 2, "while it started it was no member");
    docker.run(&["exec", "web1", "sh", "-c", ": > /ok"]);
    web.wait(&format!("web1 {address}:80 100"));
    docker.run(&["exec", "web1", "rm", "/ok"]);
    web.wait(&format!("web1 {address}:80 100 (its health check says unhealthy)"));
}

#[test]
fn the_last_set_outlives_the_daemon_and_is_compared_when_it_returns() {
    const NAME: &str = "the_last_set_outlives_the_daemon_and_is_compared_when_it_returns";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let mut docker = World::new();
    let one = docker.start("web1", &["--restart", "always"]);
    let mut web = docker.follow();
    web.wait(&format!("web1 {one}:80 100"));
    // Killed, it has no time to say anything of its containers, which run on.
    docker.docker.kill().unwrap();
    wait_for("the loss", LIMIT, || {
        web.read();
        web.last.trouble.is_some().then_some(())
    })
    .unwrap();
    let lost = shown(&web.last);
    assert!(lost.starts_with(&format!("web1 {one}:80 100; the Docker daemon")), "{lost}");
    assert!(lost.ends_with("; its last member is kept"), "{lost}");
    docker.docker.restart().unwrap();
    // The new one ends what it finds and starts it again.
    let address = wait_for("the container", LIMIT, || {
        let address = docker.docker.address("web1").unwrap();
        (!address.is_empty()).then_some(address)
    });
    web.wait(&format!("web1 {}:80 100", address.unwrap()));
    docker.run(&["rm", "--force", "web1"]);
    web.wait("");
    docker.docker.stop().unwrap();
    wait_for("the loss", LIMIT, || {
        web.read();
        web.last.trouble.is_some().then_some(())
    })
    .unwrap();
    let lost = shown(&web.last);
    assert!(
        lost.starts_with("; the Docker daemon") && lost.ends_with("; its last 0 members are kept"),
        "{lost}"
    );
}

#[test]
fn a_flood_of_events_is_answered_by_a_few_looks() {
    const NAME: &str = "a_flood_of_events_is_answered_by_a_few_looks";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let docker = World::new();
    let address = docker.start("web1", &[]);
    let mut web = docker.follow();
    web.wait(&format!("web1 {address}:80 100"));
    let begun = Instant::now();
    let script = "for i in $(seq 100); do docker rename web1 web2; docker rename web2 web1; done; docker rename web1 last";
    // In one shell, so that they come as fast as the daemon takes them.
    let at = format!("unix://{}", docker.docker.socket().display());
    docker.host.command("sh").env("DOCKER_HOST", at).args(["-c", script]).run().unwrap();
    web.wait(&format!("last {address}:80 100"));
    let most = begun.elapsed().as_secs() as usize + 3;
    assert!(web.sets <= most, "{} sets in {:?}", web.sets, begun.elapsed());
}
