//! Members by DNS, asked of a real server (dnsmasq) and of one that lies.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lb_tests::lab::skip::{self, Need};
use lb_tests::lab::{Host, Lab, Process};
use lb_tests::wait_for;
use lb_userspace::discovery::dns::{Record, Resolver, Source};
use lb_userspace::discovery::{self, Members};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;

const LIMIT: Duration = Duration::from_secs(20);
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 53);

/// A balancer's host, and a DNS server on another one.
struct World {
    balancer: Host,
    server: Host,
    dnsmasq: Process,
    records: PathBuf,
    _lab: Lab,
}

impl World {
    /// `hosts`: lines of a hosts file, with a time to live of a second; `more`: lines of dnsmasq.conf(8).
    fn new(hosts: &str, more: &str) -> Self {
        let lab = Lab::new().unwrap();
        let balancer = lab.host("lb", BALANCER).unwrap();
        let server = lab.host("dns", SERVER).unwrap();
        let records = server.directory().join("hosts");
        fs::write(&records, hosts).unwrap();
        let configuration = server.directory().join("dnsmasq.conf");
        let text = format!(
            "no-resolv\nno-hosts\nuser=root\npid-file\nlocal=/internal/\nlocal-ttl=1\naddn-hosts={}\n{more}\n",
            records.display()
        );
        fs::write(&configuration, text).unwrap();
        let command = server.command("dnsmasq").arg("--keep-in-foreground").arg("--log-facility=-");
        let dnsmasq =
            command.arg(format!("--conf-file={}", configuration.display())).spawn("dnsmasq").unwrap();
        Self { balancer, server, dnsmasq, records, _lab: lab }
    }

    fn follow(&self, name: &str, record: Record, keep: Duration) -> Follower {
        let resolver = Resolver::At(SocketAddr::from((SERVER, 53)));
        let ttl = (Duration::from_millis(500), Duration::from_mins(1));
        let source = Source { name: name.parse().unwrap(), record, resolver, ttl, keep };
        Follower::new(&self.balancer, discovery::Source::Dns(source))
    }

    /// Another hosts file, which the server reads at once.
    fn publish(&self, hosts: &str) {
        fs::write(&self.records, hosts).unwrap();
        self.dnsmasq.kill(Signal::SIGHUP).unwrap();
    }
}

/// Runs a source in a host's network.
struct Follower {
    told: mpsc::Receiver<Members>,
    last: Members,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    fn new(host: &Host, source: discovery::Source) -> Self {
        let (out, told) = mpsc::channel(1);
        let thread = host.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(source.run(None, out));
        });
        let thread = std::thread::spawn(move || thread.join().unwrap().unwrap());
        Self { told, last: Members::default(), thread: Some(thread) }
    }

    /// Waits until a set is told that reads so, see [`shown`].
    fn wait(&mut self, wanted: &str) {
        let told = wait_for(wanted, LIMIT, || {
            while let Ok(members) = self.told.try_recv() {
                self.last = members;
            }
            (shown(&self.last) == wanted).then_some(())
        });
        assert!(told.is_ok(), "{} instead of {wanted}", shown(&self.last));
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.told.close();
        while self.told.try_recv().is_ok() {}
        // A source ends when nobody listens any more.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the source panicked");
        }
    }
}

/// `NAME ADDRESS WEIGHT, …; TROUBLE`
fn shown(members: &Members) -> String {
    let list = members.list.as_ref().map_or_else(
        || "unknown".to_owned(),
        |list| {
            let member = |member: &discovery::Member| {
                assert_eq!(member.draining, None);
                format!("{} {} {}", member.name, member.address, member.weight)
            };
            list.iter().map(member).collect::<Vec<_>>().join(", ")
        },
    );
    members.trouble.iter().fold(list, |list, trouble| format!("{list}; {trouble}"))
}

const KEEP: Duration = Duration::from_mins(10);
const NEEDS: [Need; 2] = [Need::Lab, Need::Program("dnsmasq")];

#[test]
fn addresses_are_followed_within_their_time_to_live() {
    const NAME: &str = "addresses_are_followed_within_their_time_to_live";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let two = "10.0.0.12 web.internal\n10.0.0.11 web.internal\nfd00::11 web.internal\n";
    let world = World::new(two, "cname=www.internal,web.internal");
    let mut v4 = world.follow("web.internal", Record::A(80), KEEP);
    let mut v6 = world.follow("web.internal.", Record::Aaaa(0), KEEP);
    let mut alias = world.follow("www.internal", Record::A(8080), KEEP);
    v4.wait("10.0.0.11 10.0.0.11:80 100, 10.0.0.12 10.0.0.12:80 100");
    v6.wait("fd00--11 [fd00::11]:0 100");
    alias.wait("10.0.0.11 10.0.0.11:8080 100, 10.0.0.12 10.0.0.12:8080 100");
    let changed = Instant::now();
    world.publish("10.0.0.12 web.internal\n10.0.0.13 web.internal\nfd00::11 web.internal\n");
    v4.wait("10.0.0.12 10.0.0.12:80 100, 10.0.0.13 10.0.0.13:80 100");
    assert!(changed.elapsed() < Duration::from_secs(4), "a TTL of 1 s, not {:?}", changed.elapsed());
    alias.wait("10.0.0.12 10.0.0.12:8080 100, 10.0.0.13 10.0.0.13:8080 100");
    assert!(v6.told.try_recv().is_err(), "what has not changed is not told again");
}

#[test]
fn services_name_ports_weights_and_priorities() {
    const NAME: &str = "services_name_ports_weights_and_priorities";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let hosts = "10.0.0.11 web1.internal\n10.0.0.12 web2.internal\n10.0.0.13 web3.internal\n";
    let services = "srv-host=_http._tcp.internal,web1.internal,8081,10,60\n\
                    srv-host=_http._tcp.internal,web2.internal,8082,10,30\n\
                    srv-host=_http._tcp.internal,gone.internal,8083,10,10\n\
                    srv-host=_http._tcp.internal,web3.internal,8083,20,100\n\
                    srv-host=_none._tcp.internal\n";
    let world = World::new(hosts, services);
    let mut served = world.follow("_http._tcp.internal", Record::Srv, KEEP);
    served.wait(
        "web1.internal 10.0.0.11:8081 60, web2.internal 10.0.0.12:8082 30; \
         gone.internal does not exist (NXDOMAIN)",
    );
    let mut none = world.follow("_none._tcp.internal", Record::Srv, KEEP);
    none.wait(
        "; _none._tcp.internal is not served at this domain (its SRV target is `.`); no members are left",
    );
}

#[test]
fn an_answer_too_long_for_a_datagram_comes_whole() {
    const NAME: &str = "an_answer_too_long_for_a_datagram_comes_whole";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let mut hosts = String::new();
    for last in 1..=200 {
        writeln!(hosts, "10.0.1.{last} big.internal").unwrap();
    }
    let world = World::new(&hosts, "");
    let mut big = world.follow("big.internal", Record::A(80), KEEP);
    let list = wait_for("addresses", LIMIT, || big.told.try_recv().ok()?.list).unwrap();
    let last = list.iter().map(|member| match member.address.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(address) => panic!("{address}"),
    });
    let last: Vec<u8> = last.collect();
    assert_eq!(last, (1..=200).collect::<Vec<u8>>());
}

#[test]
fn the_last_set_outlives_silence_refusal_and_for_a_while_the_name() {
    const NAME: &str = "the_last_set_outlives_silence_refusal_and_for_a_while_the_name";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let one = "10.0.0.11 web.internal\n";
    let mut world = World::new(one, "");
    let mut web = world.follow("web.internal", Record::A(80), Duration::from_secs(2));
    web.wait("10.0.0.11 10.0.0.11:80 100");
    world.dnsmasq.kill(Signal::SIGSTOP).unwrap();
    let silent = "the DNS server 10.77.0.53:53 does not answer";
    web.wait(&format!("10.0.0.11 10.0.0.11:80 100; web.internal A: {silent}; its last member is kept"));
    world.dnsmasq.kill(Signal::SIGCONT).unwrap();
    web.wait("10.0.0.11 10.0.0.11:80 100");
    world.publish("10.0.0.12 other.internal\n");
    let gone = "web.internal does not exist (NXDOMAIN)";
    web.wait(&format!("10.0.0.11 10.0.0.11:80 100; {gone}; its last member is kept for 2s"));
    web.wait(&format!("; {gone}; no members are left"));
    world.publish(one);
    web.wait("10.0.0.11 10.0.0.11:80 100");
    world.dnsmasq.stop(LIMIT).unwrap();
    let refused = "the DNS server 10.77.0.53:53 is not reached: connection refused";
    web.wait(&format!("10.0.0.11 10.0.0.11:80 100; web.internal A: {refused}; its last member is kept"));
    drop(web);
    // Nothing was ever known of this one.
    let mut other = world.follow("other.internal", Record::A(80), KEEP);
    other.wait(&format!("unknown; other.internal A: {refused}; no members are known yet"));
}

#[test]
fn a_question_that_the_server_may_not_answer_changes_nothing() {
    const NAME: &str = "a_question_that_the_server_may_not_answer_changes_nothing";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let world = World::new("10.0.0.11 web.internal\n", "");
    let mut foreign = world.follow("www.example.org", Record::A(80), KEEP);
    foreign.wait(
        "unknown; www.example.org A: the DNS server 10.77.0.53:53 answers REFUSED; no members are known yet",
    );
    let mut without = world.follow("web.internal", Record::Aaaa(80), KEEP);
    without.wait("; web.internal has no AAAA record; no members are left");
}

/// The question of a query, and an answer with these addresses that it gets.
fn answer(query: &[u8], id: [u8; 2], addresses: &[Ipv4Addr]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).unwrap() + 12;
    let count = (addresses.len() as u16).to_be_bytes();
    let header = [&id[..], &[0x81, 0x80, 0, 1], &count, &[0, 0, 0, 0]].concat();
    let mut message = [&header[..], &query[12..name + 5]].concat();
    for address in addresses {
        // A pointer to the question's name, type A, class IN, ten seconds, four bytes.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 10, 0, 4]);
        message.extend(address.octets());
    }
    message
}

#[test]
fn lies_are_passed_over_and_the_true_answer_is_waited_for() {
    const NAME: &str = "lies_are_passed_over_and_the_true_answer_is_waited_for";
    if skip::cannot_run(NAME, &NEEDS) {
        return;
    }
    let mut world = World::new("", "");
    world.dnsmasq.stop(LIMIT).unwrap();
    let socket = world.server.enter(|| UdpSocket::bind((SERVER, 53))).unwrap().unwrap();
    let liar = std::thread::spawn(move || {
        let evil = [Ipv4Addr::new(10, 66, 6, 6)];
        let mut query = [0; 2048];
        let (length, from) = socket.recv_from(&mut query).unwrap();
        let query = &query[..length];
        let id = [query[0], query[1]];
        let other = [query[0] ^ 1, query[1]];
        let mut other_name = query.to_vec();
        other_name[13] ^= 1;
        for lie in [
            answer(query, other, &evil),
            answer(&other_name, id, &evil),
            query.to_vec(),
            vec![0; 11],
            vec![0xff; 512],
        ] {
            socket.send_to(&lie, from).unwrap();
        }
        // The question is asked again with another number if this comes too late; it does not.
        std::thread::sleep(Duration::from_millis(300));
        let truth = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 11)];
        socket.send_to(&answer(query, id, &truth), from).unwrap();
    });
    let mut web = world.follow("web.internal", Record::A(80), KEEP);
    web.wait("10.0.0.11 10.0.0.11:80 100; web.internal: 0.0.0.0 is no server's address");
    liar.join().unwrap();
}
