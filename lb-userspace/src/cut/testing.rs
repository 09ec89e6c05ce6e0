//! For tests against real TCP stacks: a client's and a server's host, joined by a bridge whose host plays the balancer.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        socket::{
            AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
        },
        time::{TimeVal, TimeValLike},
    },
};

use super::{Connection, Frame, Hop, Numbers, Order, Segment, Sender, Sent, Side, Target, Towards, Tuple};

/// A network namespace without a name: the kernel removes it, and all in it, when the file is closed.
pub(super) struct Namespace(File);

impl Namespace {
    pub(super) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
            File::open("/proc/thread-self/ns/net").expect("the new namespace's file")
        });
        Self(made.join().expect("the namespace's thread"))
    }

    /// Runs a function on a thread inside the namespace.
    pub(super) fn inside<R: Send>(&self, run: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("root may enter a network namespace");
                run()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside the namespace and returns what it prints.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let done = self.inside(|| Command::new(program).args(arguments).output());
        let done = done.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Runs `ip` inside the namespace, one command a line.
    pub(super) fn ip(&self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.run("ip", &line.split_whitespace().collect::<Vec<_>>());
        }
    }

    /// A path by which `ip link set … netns` finds the namespace.
    pub(super) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// One of the TCP stack's counters in `/proc/net/netstat`.
    pub(super) fn counter(&self, name: &str) -> u64 {
        let read = || std::fs::read_to_string("/proc/thread-self/net/netstat").expect("the counters");
        let lines = self.inside(read);
        let of = |lines: &str| lines.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let mut lines = lines.lines().filter(|line| line.starts_with("TcpExt:")).map(of);
        let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
        let place = names.iter().position(|known| known == name).expect("a counter of this kernel");
        values[place].parse().expect("a number")
    }

    pub(super) fn index(&self, interface: &str) -> u32 {
        let told = self.run("ip", &["-o", "link", "show", interface]);
        told.split(':').next().and_then(|index| index.parse().ok()).expect("an index")
    }
}

/// Says why a test does not run here; the runner collects these lines.
pub(super) fn skipped(test: &str) -> bool {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        eprintln!("SKIPPED: {test}: making network namespaces needs root");
    }
    !root
}

/// Everything that passes the balancer's host.
pub(super) struct Spy(OwnedFd);

/// A segment that passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    tuple: Tuple,
    numbers: Numbers,
    syn: bool,
    ack: bool,
    rst: bool,
}

impl Spy {
    pub(super) fn new() -> Self {
        let opened =
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
        let opened = opened.expect("root may open a packet socket");
        setsockopt(&opened, sockopt::ReceiveTimeout, &TimeVal::milliseconds(5_000)).expect("a time-out");
        Self(opened)
    }

    pub(super) fn read(frame: &[u8]) -> Option<Seen> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (from, to): (IpAddr, IpAddr) = match packet.net? {
            NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            NetSlice::Arp(_) => return None,
        };
        let TransportSlice::Tcp(tcp) = packet.transport? else { return None };
        let numbers =
            Numbers { sequence: tcp.sequence_number(), acknowledgement: tcp.acknowledgment_number() };
        let tuple = Tuple {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
        };
        Some(Seen { tuple, numbers, syn: tcp.syn(), ack: tcp.ack(), rst: tcp.rst() })
    }

    /// The next segment that comes in and satisfies the condition; fails after five silent seconds.
    pub(super) fn wait_for(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok(received) => received,
                Err(error) => panic!("waited in vain for {what}: {error}"),
            };
            // What the bridge sends on, and what we send, is seen as it leaves, too.
            let leaves = from.is_none_or(|from| from.pkttype() == libc::PACKET_OUTGOING);
            match Self::read(&buffer[..length]) {
                Some(seen) if !leaves && wanted(&seen) => return seen,
                _ => {}
            }
        }
    }

    /// A bare ACK of `tuple.to`, as which a challenge is answered.
    pub(super) fn challenge_ack(&self, tuple: Tuple) -> Numbers {
        let answers = |seen: &Seen| {
            (seen.tuple.from, seen.tuple.to) == (tuple.to, tuple.from) && seen.ack && !seen.syn && !seen.rst
        };
        self.wait_for("a challenge ACK", answers).numbers
    }

    /// The next bare ACK of anybody, and from whom to whom it goes.
    pub(super) fn any_challenge_ack(&self) -> (Tuple, Numbers) {
        let seen = self.wait_for("a challenge ACK", |seen| seen.ack && !seen.syn && !seen.rst);
        (seen.tuple, seen.numbers)
    }
}

pub(super) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// The three hosts: `client` behind port `c0` of the balancer's bridge, `server` behind `s0`.
pub(super) struct Rig {
    pub(super) client: Namespace,
    balancer: Namespace,
    pub(super) server: Namespace,
    hops: [Hop; 2],
    sender: Sender,
    pub(super) spy: Spy,
}

/// An established connection that is silent, and the numbers that its ends stand at.
pub(super) struct Silent {
    pub(super) connection: Connection,
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    client_stands: Numbers,
}

impl Silent {
    /// What an end says of itself when it is asked.
    pub(super) fn stands(&self, side: Side) -> Numbers {
        let Numbers { sequence, acknowledgement } = self.client_stands;
        match side {
            Side::Client => self.client_stands,
            Side::Backend => Numbers { sequence: acknowledgement, acknowledgement: sequence },
        }
    }

    pub(super) fn end(&self, side: Side) -> TcpStream {
        let end = match side {
            Side::Client => &self.client,
            Side::Backend => &self.server,
        };
        end.try_clone().expect("another descriptor")
    }

    /// The tuple of what is sent to a side.
    pub(super) fn towards(&self, side: Side) -> Tuple {
        let Connection { client, service } = self.connection;
        match side {
            Side::Client => Tuple { from: service, to: client },
            Side::Backend => Tuple { from: client, to: service },
        }
    }
}

/// A thread that is blocked in a read of one end.
pub(super) struct Reader(mpsc::Receiver<(std::io::Result<usize>, Instant)>);

impl Reader {
    pub(super) fn blocked(mut end: TcpStream) -> Self {
        let (tell, told) = mpsc::channel();
        let (name, named) = mpsc::channel();
        thread::spawn(move || {
            name.send(std::fs::read_link("/proc/thread-self").expect("its name")).expect("a waiting test");
            let outcome = end.read(&mut [0; 64]);
            drop(tell.send((outcome, Instant::now())));
        });
        let own = named.recv().expect("the reader's name");
        // It has nothing left to do but to read, so once it sleeps, it sleeps in there.
        let asleep = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", own.display())).expect("its state");
            stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
        };
        while !asleep() {
            thread::yield_now();
        }
        Self(told)
    }

    pub(super) fn is_still_blocked(&self) -> bool {
        self.0.try_recv().is_err()
    }

    /// That the read has ended by ECONNRESET, less than 100 ms after `since`.
    pub(super) fn is_reset(&self, since: Instant) {
        let (outcome, at) = self.0.recv_timeout(Duration::from_secs(5)).expect("the read to end");
        assert_eq!(outcome.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        let took = at - since;
        eprintln!("ECONNRESET after {took:?}");
        assert!(took < Duration::from_millis(100), "took {took:?}");
    }
}

impl Rig {
    pub(super) fn new() -> Self {
        let (client, balancer, server) = (Namespace::new(), Namespace::new(), Namespace::new());
        balancer.ip(&format!(
            "link add br0 type bridge forward_delay 0
             link add c0 type veth peer name c1 address 02:00:00:00:00:02 netns {}
             link add s0 type veth peer name s1 address 02:00:00:00:00:03 netns {}
             link set c0 master br0
             link set s0 master br0
             link set br0 up
             link set c0 up
             link set s0 up",
            client.path(),
            server.path()
        ));
        client.ip("address add 10.9.0.2/24 dev c1
                   address add fd09::2/64 dev c1 nodad
                   link set c1 up");
        server.ip("address add 10.9.0.3/24 dev s1
                   address add fd09::3/64 dev s1 nodad
                   link set s1 up");
        let (sender, spy) = balancer.inside(|| (Sender::open().expect("a sender"), Spy::new()));
        let hops = [("c0", SERVER_MAC, CLIENT_MAC), ("s0", CLIENT_MAC, SERVER_MAC)].map(
            |(port, source, destination)| Hop {
                interface: balancer.index(port),
                source,
                destination,
                vlan: None,
                tunnel: None,
            },
        );
        Self { client, balancer, server, hops, sender, spy }
    }

    /// Establishes a connection to an address of the server, has both ends speak, and lets them fall silent.
    pub(super) fn connect(&self, server: &str) -> Silent {
        let server: IpAddr = server.parse().expect("an address");
        let listener = self.server.inside(|| TcpListener::bind((server, 0)).expect("a listener"));
        let service = listener.local_addr().expect("its address");
        let mut client = self.client.inside(|| TcpStream::connect(service).expect("a connection"));
        let (mut accepted, from) = listener.accept().expect("the same connection");
        let syn_ack =
            self.spy.wait_for("the handshake", |seen| seen.syn && seen.ack && seen.tuple.to == from);
        let mut buffer = [0; 5];
        client.write_all(b"hello").expect("sent");
        accepted.read_exact(&mut buffer).expect("received");
        accepted.write_all(b"hi").expect("sent");
        client.read_exact(&mut buffer[..2]).expect("received");
        let client_stands = Numbers {
            sequence: syn_ack.numbers.acknowledgement.wrapping_add(5),
            acknowledgement: syn_ack.numbers.sequence.wrapping_add(3),
        };
        let connection = Connection { client: from, service };
        // The client acknowledges "hi" by a bare ACK, now or some time later: it would be taken for a challenge ACK.
        let tuple = Tuple { from: service, to: from };
        while self.spy.challenge_ack(tuple) != client_stands {}
        Silent { connection, client, server: accepted, client_stands }
    }

    pub(super) fn hop(&self, side: Side) -> Hop {
        match side {
            Side::Client => self.hops[0],
            Side::Backend => self.hops[1],
        }
    }

    /// A cut of a connection that only asks the given sides.
    pub(super) fn target(&self, silent: &Silent, sides: &[Side], order: Order) -> Target {
        let hop = |side| sides.contains(&side).then(|| self.hop(side));
        let backend = Towards { tuple: silent.towards(Side::Backend), hop: hop(Side::Backend) };
        Target { connection: silent.connection, client_hop: hop(Side::Client), backend, order }
    }

    pub(super) fn send(&mut self, frames: &[Frame]) {
        let (balancer, sender) = (&self.balancer, &mut self.sender);
        let sent = balancer.inside(|| sender.send(frames).expect("sent"));
        assert_eq!(sent, Sent { done: frames.len(), refused: Vec::new() });
    }

    /// Sends a segment to a side as if it came from the other one.
    pub(super) fn spoof(&mut self, silent: &Silent, side: Side, segment: Segment) {
        let frame = Frame::new(&self.hop(side), &silent.towards(side), segment).expect("a frame");
        self.send(&[frame]);
    }

    /// Has both hosts drop what their connection tracking calls invalid, and count it.
    pub(super) fn drop_invalid(&self) {
        for host in [&self.client, &self.server] {
            host.run("nft", &["add", "table", "inet", "t"]);
            host.run("nft", &["add chain inet t in { type filter hook input priority 0; }"]);
            host.run("nft", &["add rule inet t in ct state invalid counter drop"]);
        }
    }
}
