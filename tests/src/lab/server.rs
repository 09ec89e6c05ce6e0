//! A TCP server of a test: a thread for each connection, inside a host's network, all ended with it.

use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::error::Context;
use super::machine::join;
use super::{Host, Result};

/// What serves one connection: the connection, which ends with its last clone, and who made it.
type Service = Arc<dyn Fn(Arc<TcpStream>, SocketAddr) + Send + Sync>;
/// Connections that wait to be accepted; a burst is not to lose its SYNs here.
const BACKLOG: i32 = 4096;
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that runs. Dropping it closes its connections and waits for its threads.
pub struct TcpServer {
    shared: Arc<Shared>,
    host: Host,
    port: u16,
    acceptor: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    /// Weak, so that a connection is closed when its service is done with it.
    connections: Mutex<Vec<(Weak<TcpStream>, JoinHandle<()>)>>,
}

impl TcpServer {
    /// Serves `port` on all addresses of a host, IPv4 and IPv6; each connection gets a thread of its own.
    pub fn start(
        host: &Host,
        port: u16,
        service: impl Fn(Arc<TcpStream>, SocketAddr) + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = host.enter(|| listen(port))?.context(|| format!("cannot listen on port {port}"))?;
        let shared = Arc::new(Shared::default());
        let acceptor = {
            let (shared, service) = (shared.clone(), Arc::new(service) as Service);
            host.thread(move || shared.accept(&listener, &service))
        };
        Ok(Self { shared, host: host.clone(), port, acceptor: Some(acceptor) })
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }
}

impl std::fmt::Debug for TcpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpServer({}:{})", self.host.name(), self.port)
    }
}

impl Drop for TcpServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // The acceptor sits in accept(2); a connection that never leaves the host wakes it.
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let _ = self.host.enter(|| TcpStream::connect_timeout(&local, PATIENCE).map(drop));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for (stream, thread) in self.shared.take() {
            if let Some(stream) = stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
            join(thread);
        }
    }
}

impl Shared {
    fn accept(&self, listener: &TcpListener, service: &Service) {
        loop {
            let accepted = listener.accept();
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            // A client that gave up before it was accepted.
            let Ok((stream, peer)) = accepted else { continue };
            let stream = Arc::new(stream);
            let ours = Arc::downgrade(&stream);
            let (service, peer) = (service.clone(), unmapped(peer));
            let thread = thread::spawn(move || service(stream, peer));
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.retain(|(_, thread)| !thread.is_finished());
            connections.push((ours, thread));
        }
    }

    fn take(&self) -> Vec<(Weak<TcpStream>, JoinHandle<()>)> {
        std::mem::take(&mut self.connections.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn listen(port: u16) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// An IPv4 peer as such, not as the IPv6 socket sees it (`::ffff:10.77.1.1`).
fn unmapped(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}
