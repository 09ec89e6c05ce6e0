//! Connections that are held open by a client blocked in a read, and by a server blocked in one too; both sides
//! know to the instant when and how each of them ended.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::error::{Context, Error};
use super::server::TcpServer;
use super::{Host, Result};

/// How long a connection may take to be made and greeted.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a connection ended for the side that was reading from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By a RST: the read failed with ECONNRESET.
    Reset,
    /// By a FIN: the read gave nothing.
    Closed,
    /// By something else.
    Failed(String),
}

/// The end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// When the read returned.
    pub at: Instant,
    /// Why.
    pub how: How,
}

/// What the thread in the read and the test share.
#[derive(Debug, Default)]
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone)]
struct State {
    /// Bytes that have come.
    read: u64,
    end: Option<End>,
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so a panic elsewhere leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits until `wanted` gives something.
    fn wait<T>(&self, what: &str, timeout: Duration, wanted: impl Fn(&State) -> Option<T>) -> Result<T> {
        let start = Instant::now();
        let waiting = |state: &mut State| wanted(state).is_none();
        let (state, _) = self
            .changed
            .wait_timeout_while(self.state(), timeout, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        wanted(&state).ok_or_else(|| Error::Timeout { what: what.to_owned(), waited: start.elapsed() })
    }

    /// Reads until the connection ends; `each` gets what comes.
    fn read_to_end(&self, mut stream: &TcpStream, mut each: impl FnMut(&[u8])) {
        let mut bytes = [0; 4096];
        let how = loop {
            match stream.read(&mut bytes) {
                Ok(0) => break How::Closed,
                Ok(length) => {
                    each(&bytes[..length]);
                    self.change(|state| state.read += length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break How::Reset,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break How::Failed(error.to_string()),
            }
        };
        let end = End { at: Instant::now(), how };
        self.change(|state| state.end = Some(end));
    }
}

/// A client whose thread is blocked in a read. Dropping it closes the connection.
#[derive(Debug)]
pub struct HeldClient {
    stream: Option<Arc<TcpStream>>,
    local: SocketAddr,
    server: String,
    watch: Arc<Watch>,
    reader: Option<JoinHandle<Result<()>>>,
}

impl HeldClient {
    /// Connects from a host to a [`HeldServer`], or to a service in front of some, and blocks in a read.
    pub fn connect(host: &Host, server: SocketAddr) -> Result<Self> {
        Self::connect_from(host, SocketAddr::new(unspecified(server.ip()), 0), server)
    }

    /// The same from a chosen address and port; also from one that has just been used (`SO_REUSEADDR`).
    pub fn connect_from(host: &Host, local: SocketAddr, server: SocketAddr) -> Result<Self> {
        let connected = host.enter(|| connect(local, server))?;
        let (stream, name) = connected.context(|| format!("cannot connect from {local} to {server}"))?;
        let local = stream.local_addr().context(|| "a connection without an end".to_owned())?;
        let (stream, watch) = (Arc::new(stream), Arc::new(Watch::default()));
        let reader = {
            let (stream, watch) = (stream.clone(), watch.clone());
            host.thread(move || watch.read_to_end(&stream, |_| {}))
        };
        Ok(Self { stream: Some(stream), local, server: name, watch, reader: Some(reader) })
    }

    /// The client's end of the connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The name of the host that serves it.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Sends bytes and waits until as many have come back.
    pub fn exchange(&self, bytes: &[u8], timeout: Duration) -> Result<()> {
        let wanted = self.watch.state().read + bytes.len() as u64;
        let stream = self.stream.as_ref().map(Arc::as_ref);
        if let Some(mut stream) = stream {
            stream.write_all(bytes).context(|| format!("cannot send on {}", self.local))?;
        }
        let what = format!("{} bytes to come back on {}", bytes.len(), self.local);
        self.watch.wait(&what, timeout, |state| (state.read >= wanted).then_some(()))
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.watch.state().end.clone()
    }

    /// Waits until the read returns.
    pub fn wait_end(&self, timeout: Duration) -> Result<End> {
        let what = format!("the end of the client's connection {}", self.local);
        self.watch.wait(&what, timeout, |state| state.end.clone())
    }

    /// Ends it with a FIN, and waits until the server has ended its half too.
    pub fn close(mut self) -> Result<()> {
        if let Some(stream) = &self.stream {
            // A connection that is gone already is as closed as can be.
            let _ = stream.shutdown(Shutdown::Write);
        }
        self.wait_end(PATIENCE)?;
        self.release();
        Ok(())
    }

    /// Ends it with a RST, which leaves nothing behind at the client: its port is free at once.
    pub fn reset(mut self) -> Result<()> {
        let Some(stream) = self.stream.take() else { return Ok(()) };
        SockRef::from(&*stream)
            .set_linger(Some(Duration::ZERO))
            .context(|| "cannot set SO_LINGER".to_owned())?;
        // The reader holds the connection as well and must let go of it first. A receiving half that is shut
        // down wakes it, and sends nothing.
        let _ = stream.shutdown(Shutdown::Read);
        self.release();
        drop(stream);
        Ok(())
    }

    fn release(&mut self) {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.stream = None;
    }
}

impl Drop for HeldClient {
    fn drop(&mut self) {
        if let Some(stream) = &self.stream {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.release();
    }
}

/// Connects and reads the server's greeting: its name in a line.
fn connect(local: SocketAddr, server: SocketAddr) -> io::Result<(TcpStream, String)> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local.into())?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut way = &stream;
    way.write_all(b"\n")?;
    let (mut name, mut byte) = (Vec::new(), [0]);
    loop {
        way.read_exact(&mut byte)?;
        if byte == *b"\n" {
            break;
        }
        name.push(byte[0]);
    }
    stream.set_read_timeout(None)?;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

const fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A server that greets each connection, then gives back what comes on it. Dropping it closes them all.
#[derive(Debug)]
pub struct HeldServer {
    held: Arc<Mutex<Vec<Held>>>,
    _server: TcpServer,
}

/// One connection of a server. Those that never said a word, such as health checks, are none.
#[derive(Debug, Clone)]
pub struct Held {
    peer: SocketAddr,
    stream: Arc<Mutex<Option<Arc<TcpStream>>>>,
    watch: Arc<Watch>,
}

impl HeldServer {
    /// Serves `port` on all addresses of a host.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let held: Arc<Mutex<Vec<Held>>> = Arc::default();
        let (list, name) = (held.clone(), format!("{}\n", host.name()));
        let serve = move |stream: Arc<TcpStream>, peer| {
            let mut way = &*stream;
            if way.read_exact(&mut [0]).is_err() {
                return;
            }
            let watch = Arc::new(Watch::default());
            let slot = Arc::new(Mutex::new(Some(stream.clone())));
            lock(&list).push(Held { peer, stream: slot.clone(), watch: watch.clone() });
            let _ = stream.set_nodelay(true);
            let _ = way.write_all(name.as_bytes());
            watch.read_to_end(&stream, |bytes| {
                let _ = (&*stream).write_all(bytes);
            });
            *lock(&slot) = None;
        };
        Ok(Self { held, _server: TcpServer::start(host, port, serve)? })
    }

    /// All connections so far, in the order in which they were greeted.
    pub fn connections(&self) -> Vec<Held> {
        lock(&self.held).clone()
    }

    /// Those that have not ended.
    pub fn live(&self) -> usize {
        self.connections().iter().filter(|held| held.end().is_none()).count()
    }

    /// The connection whose client's end the server sees as `peer`, the latest if there were several.
    pub fn of(&self, peer: SocketAddr) -> Option<Held> {
        lock(&self.held).iter().rev().find(|held| held.peer == peer).cloned()
    }
}

impl Held {
    /// The client's end, as the server sees it.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// How it has ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.watch.state().end.clone()
    }

    /// Waits until the server's read returns.
    pub fn wait_end(&self, timeout: Duration) -> Result<End> {
        let what = format!("the end of the server's connection with {}", self.peer);
        self.watch.wait(&what, timeout, |state| state.end.clone())
    }

    /// The server ends it with a FIN, and goes on to read.
    pub fn close(&self) {
        if let Some(stream) = &*lock(&self.stream) {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
