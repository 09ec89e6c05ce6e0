//! A crowd of `MySQL` clients at once, each with one short query on a connection of its own, every failure counted
//! by the server's error number.
//!
//! The client's side of the protocol is spoken here, in little: the account has no password, so a login is one
//! packet, and five hundred clients are five hundred threads rather than processes.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use super::error::Context;
use super::galera::GaleraNode;
use super::{Host, Result};

/// The account that [`Crowd::admit`] makes: no password, no rights.
const USER: &str = "crowd";
/// A client needs little, and there are many.
const STACK: usize = 128 * 1024;
/// The largest packet that a client takes; all of them are short here.
const LARGEST: usize = 64 * 1024;

/// `CLIENT_PROTOCOL_41`, `CLIENT_SECURE_CONNECTION`, `CLIENT_PLUGIN_AUTH`, `CLIENT_LONG_PASSWORD`.
const CAPABILITIES: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000 | 0x0000_0001;
const COM_QUIT: u8 = 1;
const COM_QUERY: u8 = 3;
const OK: u8 = 0x00;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;

/// What is asked of the crowd.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// Where to.
    pub server: SocketAddr,
    /// How many clients.
    pub clients: usize,
    /// The query of each; it must give one row of one column.
    pub query: String,
    /// How long a client waits for its connection, and for each piece of an answer.
    pub patience: Duration,
}

/// What became of them: each client is in exactly one of the counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrowdReport {
    /// The answers, and how many clients got each.
    pub answers: BTreeMap<String, u64>,
    /// Errors of the server by number: 1040 is "too many connections".
    pub errors: BTreeMap<u16, u64>,
    /// Everything else by its words: refused, reset, timed out.
    pub broken: BTreeMap<String, u64>,
    /// From the start of all to the end of the last.
    pub elapsed: Duration,
    /// The client that took longest from its start to its answer.
    pub slowest: Duration,
}

impl CrowdReport {
    /// Clients that got their answer.
    pub fn answered(&self) -> u64 {
        self.answers.values().sum()
    }
}

/// Why a client got no answer.
#[derive(Debug)]
enum Failure {
    Server(u16),
    Broken(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".to_owned(),
            io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".to_owned(),
            io::ErrorKind::UnexpectedEof => "closed".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl Crowd {
    /// A crowd that asks each server for its name.
    pub fn new(server: SocketAddr, clients: usize) -> Self {
        let query = "SELECT @@wsrep_node_name".to_owned();
        Self { server, clients, query, patience: Duration::from_secs(30) }
    }

    /// Makes the crowd's account at a node, and with it in its whole cluster.
    pub fn admit(node: &GaleraNode) -> Result<()> {
        node.sql(&format!("CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY ''")).map(drop)
    }

    /// Lets all clients loose at once in a host, and waits for the last.
    pub fn run(&self, host: &Host) -> Result<CrowdReport> {
        let outcomes = host.enter(|| self.gather())?;
        let (outcomes, elapsed) = outcomes.context(|| "cannot start a crowd".to_owned())?;
        let mut report = CrowdReport { elapsed, ..CrowdReport::default() };
        for (outcome, took) in outcomes {
            match outcome {
                Ok(answer) => {
                    *report.answers.entry(answer).or_default() += 1;
                    report.slowest = report.slowest.max(took);
                }
                Err(Failure::Server(number)) => *report.errors.entry(number).or_default() += 1,
                Err(Failure::Broken(words)) => *report.broken.entry(words).or_default() += 1,
            }
        }
        Ok(report)
    }

    /// All outcomes, and how long it took. The threads are started from within the host's network.
    fn gather(&self) -> io::Result<(Vec<(Result<String, Failure>, Duration)>, Duration)> {
        let gate = RwLock::new(());
        thread::scope(|scope| {
            let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
            let client = || {
                drop(gate.read());
                let start = Instant::now();
                (self.ask(), start.elapsed())
            };
            let start_one = |_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, client);
            // Where one cannot be started, the gate opens as the error is returned.
            let threads = (0..self.clients).map(start_one).collect::<io::Result<Vec<_>>>()?;
            drop(closed);
            let start = Instant::now();
            let outcomes = threads.into_iter().map(|thread| super::machine::joined(thread.join())).collect();
            Ok((outcomes, start.elapsed()))
        })
    }

    fn ask(&self) -> Result<String, Failure> {
        let stream = TcpStream::connect_timeout(&self.server, self.patience)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        let mut wire = Wire { stream, sequence: 0 };
        wire.log_in()?;
        wire.sequence = 0;
        wire.send(&[&[COM_QUERY], self.query.as_bytes()].concat())?;
        let answer = wire.one_row()?;
        wire.sequence = 0;
        wire.send(&[COM_QUIT])?;
        Ok(answer)
    }
}

/// A connection in packets: a length of three bytes, a sequence number, the payload.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    sequence: u8,
}

impl Wire {
    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        let mut packet = (payload.len() as u32).to_le_bytes()[..3].to_vec();
        packet.push(self.sequence);
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet)
    }

    /// The next packet; an error of the server is one here.
    fn receive(&mut self) -> Result<Vec<u8>, Failure> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        if length > LARGEST {
            return Err(Failure::Broken(format!("a packet of {length} bytes")));
        }
        self.sequence = head[3].wrapping_add(1);
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload)?;
        match payload[..] {
            [ERROR, low, high, ..] => Err(Failure::Server(u16::from_le_bytes([low, high]))),
            _ => Ok(payload),
        }
    }

    /// Greeting, login without a password, and the switch to another plugin if the server asks for one.
    fn log_in(&mut self) -> Result<(), Failure> {
        self.receive()?;
        let mut login = CAPABILITIES.to_le_bytes().to_vec();
        login.extend((1_u32 << 24).to_le_bytes());
        // utf8mb4, and 23 bytes for nothing.
        login.push(45);
        login.extend([0; 23]);
        login.extend(USER.bytes());
        // The name's end, an answer of no bytes, the plugin.
        login.extend([0, 0]);
        login.extend(b"mysql_native_password\0");
        self.send(&login)?;
        let mut answer = self.receive()?;
        if answer.first() == Some(&SWITCH) {
            self.send(&[])?;
            answer = self.receive()?;
        }
        match answer.first() {
            Some(&OK) => Ok(()),
            other => Err(Failure::Broken(format!("the login was answered with {other:?}"))),
        }
    }

    /// Reads an answer of one column: its head, the column, an end, the rows, an end.
    fn one_row(&mut self) -> Result<String, Failure> {
        let odd = |payload: &[u8]| Failure::Broken(format!("an odd answer: {payload:?}"));
        let head = self.receive()?;
        if head[..] != [1] {
            return Err(odd(&head));
        }
        self.receive()?;
        self.receive()?;
        let row = self.receive()?;
        let text = match row.split_first() {
            Some((length, text)) if usize::from(*length) == text.len() => {
                String::from_utf8_lossy(text).into_owned()
            }
            _ => return Err(odd(&row)),
        };
        let end = self.receive()?;
        if end.first() == Some(&SWITCH) { Ok(text) } else { Err(odd(&end)) }
    }
}
