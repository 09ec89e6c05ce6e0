//! The handshake probe: a backend answers for the *service's* address, by the way that the service's packets take.
//!
//! In modes whose backends answer clients directly, a probe of a backend's own address proves little: it succeeds while
//! the backend drops everything that the balancer sends it, for it lacks the service's address, or does not take tunnels
//! apart. A socket cannot ask through that way (its packets would go to this host, which has that address itself), so
//! this sends a SYN as a frame of its own: to the backend's next hop, in a tunnel where there is one, for the service's
//! address, from an address of this host and a port that no socket holds. The backend's SYN with ACK comes back to this
//! host, where its kernel drops it (its source is an address of this host) or answers it with a RST; a packet socket sees
//! it before that. A RST ends the handshake, so that the backend never sees a connection to accept.

mod filter;
mod reply;

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use super::{Failure, FailureKind};
use crate::cut::{Frame, Hop, Segment, SendError, Sender, Tuple};
use reply::{Answer, Reply};

/// The ports that handshakes come from: below those that Linux gives its own sockets, which so never meet an answer.
const PORTS: std::ops::Range<u16> = 28_000..32_000;
/// A SYN that may have been lost is sent once more after this part of the time.
const AGAIN_AFTER: u32 = 2;
/// How often the thread that reads looks whether anybody can still wait.
const LOOK_UP: Duration = Duration::from_secs(1);
/// After an error of the socket.
const PAUSE: Duration = Duration::from_millis(10);
/// A few headers are all that is read of an answer.
const SNAP: usize = 128;

/// Why no handshakes can be made.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Frames cannot be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Answers cannot be seen.
    #[error("a packet socket for answers cannot be opened: {source}")]
    Receive {
        /// Why.
        #[from]
        source: std::io::Error,
    },
}

/// The way to one backend of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// How frames leave for it.
    pub hop: Hop,
    /// The address of this host that is to be answered; not the service's.
    pub source: IpAddr,
    /// What clients connect to.
    pub service: SocketAddr,
}

/// Makes handshakes; one for all backends. Cheap to clone; the last one to go takes the sockets with it.
#[derive(Debug, Clone)]
pub struct Handshakes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sender: Mutex<Sender>,
    waiting: Arc<Waiting>,
    next: AtomicU16,
}

/// Who waits for an answer, by the port that it must come to.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<u16, (Expected, oneshot::Sender<Answer>)>>);

/// The answer that a handshake waits for.
#[derive(Debug, Clone, Copy)]
struct Expected {
    service: SocketAddr,
    source: IpAddr,
    /// The number of the SYN.
    sequence: u32,
}

impl Handshakes {
    /// Opens the sockets in the network namespace of the calling thread. Needs `CAP_NET_RAW`.
    pub fn open() -> Result<Self, HandshakeError> {
        let sender = Mutex::new(Sender::open()?);
        let everything = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM.cloexec(), Some(everything))?;
        // What came before the filter stood is looked at as all else is, and found to answer nothing.
        socket.attach_filter(&filter::answers_to(&PORTS))?;
        socket.set_read_timeout(Some(LOOK_UP))?;
        let waiting = Arc::new(Waiting::default());
        let heard = Arc::downgrade(&waiting);
        thread::Builder::new().name("handshakes".to_owned()).spawn(move || receive(&socket, &heard))?;
        let next = AtomicU16::new(rand::random_range(0..PORTS.len() as u16));
        Ok(Self(Arc::new(Shared { sender, waiting, next })))
    }

    /// Makes one handshake and ends it; the answer is how long the backend took.
    ///
    /// [`FailureKind::TimedOut`]: no answer. [`FailureKind::Refused`]: a RST. The details complete a sentence that begins
    /// with the backend.
    pub async fn probe(&self, path: &Path, timeout: Duration) -> Result<Duration, Failure> {
        let expected = Expected { service: path.service, source: path.source, sequence: rand::random() };
        let (port, answer) = self.expect(expected);
        let seat = Seat { waiting: &self.0.waiting, port };
        let begun = Instant::now();
        let syn = Segment::Syn { sequence: expected.sequence };
        self.send(path, port, syn)?;
        let mut answer = answer;
        let mut heard = tokio::time::timeout(timeout / AGAIN_AFTER, &mut answer).await;
        if heard.is_err() {
            self.send(path, port, syn)?;
            heard = tokio::time::timeout(timeout.saturating_sub(timeout / AGAIN_AFTER), &mut answer).await;
        }
        drop(seat);
        match heard {
            Ok(Ok(Answer::Accepted { next })) => {
                self.send(path, port, Segment::Rst { sequence: next })?;
                Ok(begun.elapsed())
            }
            Ok(Ok(Answer::Refused)) => {
                let detail = format!("refuses connections to {}: nothing listens there", path.service);
                Err(Failure::new(FailureKind::Refused, detail))
            }
            _ => {
                let detail = format!("does not answer for {}", path.service);
                Err(Failure::new(FailureKind::TimedOut, detail))
            }
        }
    }

    /// A free port, and where its answer comes.
    fn expect(&self, expected: Expected) -> (u16, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let turn = self.0.next.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u16;
        let port = PORTS.start + turn;
        // Of so many ports one that is still waited for is never the next: whoever waited would hear nothing more.
        self.0.waiting.lock().insert(port, (expected, sender));
        (port, receiver)
    }

    fn send(&self, path: &Path, port: u16, segment: Segment) -> Result<(), Failure> {
        let failed = |why: String| Failure::new(FailureKind::Local, format!("cannot be asked: {why}"));
        let tuple = Tuple { from: SocketAddr::new(path.source, port), to: path.service };
        let frame = Frame::new(&path.hop, &tuple, segment)
            .ok_or_else(|| failed("its way and the service are of different families".to_owned()))?;
        let mut sender = self.0.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = sender.send(&[frame]).map_err(|error| failed(error.to_string()))?;
        match sent.refused.first() {
            Some((_, reason)) => Err(failed(reason.to_string())),
            None if sent.done == 0 => Err(failed("the interface's queue is full".to_owned())),
            None => Ok(()),
        }
    }
}

/// A place among those that wait, for as long as somebody does.
struct Seat<'a> {
    waiting: &'a Waiting,
    port: u16,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.port);
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u16, (Expected, oneshot::Sender<Answer>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an answer to whom it is for; others' are nobody's business.
    fn hear(&self, packet: &[u8]) {
        let Some(reply) = Reply::read(packet) else { return };
        let mut waiting = self.lock();
        let port = reply.to.port();
        let answers = |(expected, _): &(Expected, _)| {
            reply.from == expected.service
                && reply.to.ip() == expected.source
                && reply.acknowledgement == expected.sequence.wrapping_add(1)
        };
        if waiting.get(&port).is_some_and(answers)
            && let Some((_, sender)) = waiting.remove(&port)
        {
            // Who has just stopped waiting has what it needs.
            let _ = sender.send(reply.answer());
        }
    }
}

/// Reads until nobody can wait any more. A thread of its own, for what a runtime watches must be owned in ways that only
/// unsafe code can promise.
fn receive(mut socket: &Socket, waiting: &Weak<Waiting>) {
    let mut packet = [0; SNAP];
    loop {
        // An error is that time is up, or that an interface has gone down, which the socket says once.
        let read = socket.read(&mut packet);
        let Some(waiting) = waiting.upgrade() else { return };
        match read {
            Ok(length) => waiting.hear(&packet[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
