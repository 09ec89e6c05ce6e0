//! Tells which interfaces there are, each time that it may have changed.

use std::time::Duration;

use futures_util::StreamExt;
use log::warn;
use rtnetlink::MulticastGroup;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{Interface, Netlink, NetlinkError};

/// The interfaces are listed this often, whatever was announced.
const RESYNC_EVERY: Duration = Duration::from_secs(30);
/// An interface that is made is announced several times; one look at the world answers all of them.
const SETTLE: Duration = Duration::from_millis(20);
/// How long to wait after something has failed.
const RETRY: Duration = Duration::from_secs(1);

/// Watches the interfaces of a network namespace until it is dropped.
#[derive(Debug)]
pub struct LinkWatcher {
    task: JoinHandle<()>,
}

impl LinkWatcher {
    /// Opens the netlink sockets of this thread's network namespace. All interfaces are sent at once, and again
    /// whenever one has come, gone or changed.
    pub fn start(events: mpsc::Sender<Vec<Interface>>) -> Result<Self, NetlinkError> {
        // The first ones in this thread, whose namespace it is; a socket that closes is opened by the runtime's.
        let world = open()?;
        Ok(Self { task: tokio::spawn(run(world, events)) })
    }
}

impl Drop for LinkWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A socket for questions, and the stream of announcements, of which only that there was one is of interest.
type World = (Netlink, futures_util::stream::BoxStream<'static, ()>);

fn open() -> Result<World, NetlinkError> {
    let netlink = Netlink::open()?;
    let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])
        .map_err(|source| NetlinkError::Open { source })?;
    tokio::spawn(connection);
    Ok((netlink, messages.map(drop).boxed()))
}

async fn run(mut world: World, events: mpsc::Sender<Vec<Interface>>) {
    let mut told = None;
    loop {
        if !follow(&mut world, &mut told, &events).await {
            return;
        }
        warn!("the netlink socket for announcements of interfaces was closed; opening another one");
        world = loop {
            tokio::time::sleep(RETRY).await;
            match open() {
                Ok(world) => break world,
                Err(error) => warn!("{error}"),
            }
        };
    }
}

/// Follows one socket's announcements. `false`: nobody listens any more; `true`: the socket is closed.
async fn follow(
    (netlink, announcements): &mut World,
    told: &mut Option<Vec<Interface>>,
    events: &mpsc::Sender<Vec<Interface>>,
) -> bool {
    let mut look_at = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(look_at) => {
                look_at = Instant::now() + RESYNC_EVERY;
                match netlink.interfaces().await {
                    Ok(interfaces) if told.as_ref() == Some(&interfaces) => {}
                    Ok(interfaces) => {
                        if events.send(interfaces.clone()).await.is_err() {
                            return false;
                        }
                        *told = Some(interfaces);
                    }
                    Err(error) => {
                        warn!("the interfaces cannot be listed, trying again: {error}");
                        look_at = Instant::now() + RETRY;
                    }
                }
            }
            announcement = announcements.next() => match announcement {
                Some(()) => look_at = look_at.min(Instant::now() + SETTLE),
                None => return true,
            },
            () = events.closed() => return false,
        }
    }
}
