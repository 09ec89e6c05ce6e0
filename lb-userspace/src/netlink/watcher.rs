//! Keeps the next hops of a set of backends true, and says what changes.
//!
//! One task listens to what the kernel announces about neighbours, routes, links and addresses. A neighbour's
//! change is applied at once (a backend that moves to another MAC is followed within milliseconds of its
//! gratuitous ARP or unsolicited advertisement); anything else, and a lost announcement (`ENOBUFS`), is answered by asking for everything
//! again. That also happens every [`RESYNC_EVERY`], so that no error lasts longer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use futures_util::StreamExt;
use log::{debug, warn};
use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{RouteNetlinkMessage, neighbour::NeighbourMessage},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use super::{Neighbour, NeighbourKey, Netlink, NetlinkError, NextHop, Obstacle, Resolution};

/// Everything is asked for again this often, whatever was announced.
const RESYNC_EVERY: Duration = Duration::from_secs(30);
/// Route and link announcements come in bursts; one look at the world answers all of a burst.
const SETTLE: Duration = Duration::from_millis(50);
/// How often entries are looked through for ones to nudge.
const TICK: Duration = Duration::from_secs(1);
/// An entry that exists (stale or failed) is nudged at most this often.
const NUDGE_EVERY: Duration = Duration::from_secs(5);
/// An entry that is missing is asked for at most this often.
const CREATE_EVERY: Duration = Duration::from_millis(200);

/// `Link` tells of an interface's MTU, `Ipv6Ifinfo` of the one that a router advertises. Nobody announces path MTU
/// exceptions: they are seen every [`RESYNC_EVERY`].
const SUBSCRIPTIONS: [MulticastGroup; 9] = [
    MulticastGroup::Neigh,
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Ifinfo,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];

/// The way to a backend is another one than before; sent once for every backend when it is first watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHopChanged {
    /// The backend's address, as given to [`Watcher::watch`].
    pub backend: IpAddr,
    /// The way there. Without MAC while the neighbour is not resolved; `None` without a route.
    pub hop: Option<NextHop>,
    /// What is in the way; `None` if the hop has a MAC and a source.
    pub obstacle: Option<Obstacle>,
}

/// Watches the next hops of a set of backends until it is dropped.
///
/// The kernel goes on keeping their neighbour entries resolved after that, so that a data path which outlives
/// its agent stays on a warm table; [`Netlink::release_neighbours`] ends it.
#[derive(Debug)]
pub struct Watcher {
    backends: watch::Sender<BTreeSet<IpAddr>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Opens the netlink sockets of this thread's network namespace and starts to watch no backend.
    pub fn start(events: mpsc::Sender<NextHopChanged>) -> Result<Self, NetlinkError> {
        let (backends, wanted) = watch::channel(BTreeSet::new());
        let world = World::open()?;
        let task = tokio::spawn(run(world, wanted, events));
        Ok(Self { backends, task })
    }

    /// Watches exactly these backends from now on.
    pub fn watch(&self, backends: impl IntoIterator<Item = IpAddr>) {
        self.backends.send_replace(backends.into_iter().collect());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The socket for questions and the stream of announcements; apart, so that a flood of announcements never
/// costs an answer.
struct World {
    netlink: Netlink,
    announcements: Announcements,
}

type Announcements = futures_util::stream::BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

impl World {
    fn open() -> Result<Self, NetlinkError> {
        let netlink = Netlink::open()?;
        let (connection, _handle, messages) = rtnetlink::new_multicast_connection(&SUBSCRIPTIONS)
            .map_err(|source| NetlinkError::Open { source })?;
        tokio::spawn(connection);
        Ok(Self { netlink, announcements: messages.map(|(message, _from)| message).boxed() })
    }
}

/// Why the loop asks again for everything, or ends.
enum Ended {
    /// Nobody listens or nobody wants anything any more.
    Done,
    /// The announcements' socket is closed.
    SocketClosed,
}

async fn run(
    mut world: World,
    mut wanted: watch::Receiver<BTreeSet<IpAddr>>,
    events: mpsc::Sender<NextHopChanged>,
) {
    let mut table = Table::new(events);
    while let Ended::SocketClosed = follow(&mut table, &mut world, &mut wanted).await {
        warn!("the netlink socket for announcements was closed; opening another one");
        world = loop {
            tokio::time::sleep(TICK).await;
            match World::open() {
                Ok(world) => break world,
                Err(error) => warn!("{error}"),
            }
        };
    }
}

/// Follows one socket's announcements until it closes or nobody cares.
async fn follow(
    table: &mut Table,
    world: &mut World,
    wanted: &mut watch::Receiver<BTreeSet<IpAddr>>,
) -> Ended {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut resync_at = Instant::now();
    loop {
        let went = tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => {
                    resync_at = Instant::now();
                    Ok(())
                }
                Err(_closed) => return Ended::Done,
            },
            () = tokio::time::sleep_until(resync_at) => {
                resync_at = Instant::now() + RESYNC_EVERY;
                let backends = wanted.borrow_and_update().clone();
                match table.resync(&world.netlink, &backends).await {
                    Err(Stop::Failed(error)) => {
                        warn!("cannot bring the next hops up to date, trying again: {error}");
                        resync_at = Instant::now() + TICK;
                        Ok(())
                    }
                    other => other,
                }
            }
            announcement = world.announcements.next() => match announcement.map(classify) {
                Some(Announcement::Neighbour { message, gone }) => table.apply(&message, gone).await,
                Some(Announcement::Other) => {
                    resync_at = resync_at.min(Instant::now() + SETTLE);
                    Ok(())
                }
                None => return Ended::SocketClosed,
            },
            _ = tick.tick() => Ok(()),
            () = table.events.closed() => return Ended::Done,
        };
        if let Err(Stop::NobodyListens) = went {
            return Ended::Done;
        }
        table.nudge(&world.netlink).await;
    }
}

enum Announcement {
    Neighbour { message: NeighbourMessage, gone: bool },
    Other,
}

/// Whatever is not a neighbour, a lost announcement included, means: look at everything.
fn classify(message: NetlinkMessage<RouteNetlinkMessage>) -> Announcement {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
            Announcement::Neighbour { message, gone: false }
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
            Announcement::Neighbour { message, gone: true }
        }
        _ => Announcement::Other,
    }
}

enum Stop {
    NobodyListens,
    Failed(NetlinkError),
}

impl From<NetlinkError> for Stop {
    fn from(error: NetlinkError) -> Self {
        Self::Failed(error)
    }
}

/// What is known: routes of the backends, the neighbour table, and what was last told.
struct Table {
    events: mpsc::Sender<NextHopChanged>,
    routes: BTreeMap<IpAddr, Resolution>,
    neighbours: HashMap<NeighbourKey, Neighbour>,
    told: BTreeMap<IpAddr, Resolution>,
    nudged: HashMap<NeighbourKey, Instant>,
}

impl Table {
    fn new(events: mpsc::Sender<NextHopChanged>) -> Self {
        Self {
            events,
            routes: BTreeMap::new(),
            neighbours: HashMap::new(),
            told: BTreeMap::new(),
            nudged: HashMap::new(),
        }
    }

    /// Asks for everything and tells what is different.
    async fn resync(&mut self, netlink: &Netlink, backends: &BTreeSet<IpAddr>) -> Result<(), Stop> {
        let neighbours = netlink.neighbours().await?.into_iter().collect();
        let interfaces = netlink.interfaces().await?;
        let mut routes = BTreeMap::new();
        for &backend in backends {
            routes.insert(backend, netlink.route(backend, &interfaces).await?);
        }
        let before = self.keys();
        self.neighbours = neighbours;
        self.routes = routes;
        self.told.retain(|backend, _| backends.contains(backend));
        self.let_go(netlink, &before).await;
        self.tell().await
    }

    /// The neighbour entries that the watched backends need.
    fn keys(&self) -> BTreeSet<NeighbourKey> {
        self.routes.iter().filter_map(|(&backend, route)| route.key(backend)).collect()
    }

    /// Entries that no backend needs any more age as any other from now on.
    async fn let_go(&mut self, netlink: &Netlink, before: &BTreeSet<NeighbourKey>) {
        for key in before.difference(&self.keys()) {
            self.nudged.remove(key);
            if let Some(neighbour) = self.neighbours.get(key).filter(|known| known.kept_for_us())
                && let Err(error) = netlink.let_go(*key, neighbour).await
            {
                debug!("neighbour {} stays managed: {error}", key.1);
            }
        }
    }

    /// Takes over what the kernel announces about one neighbour.
    async fn apply(&mut self, message: &NeighbourMessage, gone: bool) -> Result<(), Stop> {
        let Some((key, neighbour)) = Neighbour::parse(message) else { return Ok(()) };
        if gone {
            self.neighbours.remove(&key);
        } else {
            self.neighbours.insert(key, neighbour);
        }
        self.tell().await
    }

    /// Sends an event for each backend whose way differs from what was last told.
    async fn tell(&mut self) -> Result<(), Stop> {
        for (&backend, route) in &self.routes {
            let neighbour = route.key(backend).and_then(|key| self.neighbours.get(&key));
            let now = route.clone().with(backend, neighbour);
            if self.told.get(&backend) == Some(&now) {
                continue;
            }
            self.told.insert(backend, now.clone());
            let event = NextHopChanged { backend, hop: now.hop, obstacle: now.obstacle };
            self.events.send(event).await.map_err(|_closed| Stop::NobodyListens)?;
        }
        Ok(())
    }

    /// Has the kernel resolve what is missing and refresh what is stale, each entry at its own pace.
    async fn nudge(&mut self, netlink: &Netlink) {
        for key in self.keys() {
            let known = self.neighbours.get(&key);
            let pace = match known {
                Some(neighbour) if !neighbour.wants_nudge() => continue,
                Some(_) => NUDGE_EVERY,
                None => CREATE_EVERY,
            };
            if self.nudged.get(&key).is_some_and(|last| last.elapsed() < pace) {
                continue;
            }
            self.nudged.insert(key, Instant::now());
            if let Err(error) = netlink.nudge(key, known).await {
                // An interface that is down or gone refuses; its announcement brings the next look.
                debug!("neighbour {} on interface {} cannot be asked for: {error}", key.1, key.0);
            }
        }
    }
}
