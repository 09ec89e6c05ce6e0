//! Bring an agent up: look at the machine, open the data path, start the tasks, and run until the end.

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use lb_common::{
    Be32, Be128,
    cell::PortCell,
    flow::{Bucket, SLOTS},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    Event,
    controller::{Controller, Ended, Fixed, Tools},
    links::{Links, say},
    machine::{addresses, interfaces, kernel_is_new_enough, layout, matching, may_load_programs, port},
    reload::files,
    state::StateFile,
};
use crate::{
    api::{self, ApiError, Reply, Timestamp},
    config::{Config, XdpMode},
    dataplane::{Attached, Dataplane, DataplaneError, Mode, Pins, task},
    listen::Listen,
    netlink::{Interface, LinkWatcher, Netlink, NetlinkError, Watcher},
};

/// Where one instance lives.
#[derive(Clone, Debug)]
pub struct World {
    /// Name of the instance.
    pub instance: String,
    /// The Unix socket to answer on.
    pub socket: PathBuf,
    /// The folder of the pins.
    pub pins: PathBuf,
    /// The file for what must survive.
    pub state: PathBuf,
    /// The configuration's file, to be read again when it changes.
    pub config: PathBuf,
}

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The network.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The data path.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The kernel is too old.
    #[error("this is Linux {found}; `lb` needs 6.1 or newer")]
    Kernel {
        /// Its release.
        found: String,
    },
    /// No source ports are left.
    #[error("no source port is left: `source-ports` lies within net.ipv4.ip_local_port_range ({}-{}); choose others", local.0, local.1)]
    NoPorts {
        /// The host's own range.
        local: (u16, u16),
    },
    /// The interface has no MAC address.
    #[error(
        "interface {name} has no MAC address, so it cannot carry balanced packets; name an Ethernet interface"
    )]
    NotEthernet {
        /// Its name.
        name: String,
    },
    /// The state file.
    #[error("{path} cannot be read: {source}; move it away to start without it (what it holds is forgotten)", path = path.display())]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Detaching.
    #[error("not detached: {source}; `ip link set IFACE xdp off` removes the program by hand")]
    Detach {
        /// Why.
        source: std::io::Error,
    },
    /// A signal handler.
    #[error("signals cannot be awaited: {0}")]
    Signals(#[source] std::io::Error),
}

/// Run an agent until it is told to stop.
///
/// Everything that can be wrong with the machine is found before the data path is touched.
pub async fn start(
    world: &World,
    config: Config,
    mode: XdpMode,
    confirm: Option<Duration>,
) -> Result<(), StartError> {
    kernel_is_new_enough()?;
    may_load_programs()?;
    let (socket, listener) = api::Socket::bind(&world.socket, &world.instance)?;
    if let Some(group) = &config.api_group {
        socket.share(group)?;
    }
    let netlink = Netlink::open()?;
    let interfaces = interfaces(&netlink, &config).await?;
    let file = StateFile::new(&world.state);
    let state = file.load().map_err(|source| StartError::State { path: world.state.clone(), source })?;
    let fresh = layout(&config)?;
    let all = netlink.interfaces().await?;
    let ports =
        interfaces.iter().map(|interface| port(interface, &all, mode)).collect::<Result<Vec<_>, _>>()?;
    let coming = matching(&all, &config);

    let (events, inbox) = mpsc::unbounded_channel();
    let watcher = watch(&events)?;
    let link_watcher = watch_links(&config, &events)?;
    clock_and_signals(&events)?;
    files::watch(world.config.clone(), events.clone());

    let pins = Pins::new(&world.pins);
    let crossing = config.interfaces.len() > 1 || !config.patterns.is_empty();
    let silence = config.agent_lost_after;
    let (dataplane, attached) = Dataplane::open(&pins, fresh, &ports, &coming, crossing, silence)?;
    say_what_happened(&interfaces, &attached, &dataplane, mode);
    let adopted = attached.iter().any(|attached| attached.adopted);
    let exits: Vec<u8> = interfaces.iter().map(|interface| dataplane.exit_of(interface.index)).collect();
    let attached = interfaces.into_iter().zip(attached).zip(exits);
    let fixed = Fixed {
        instance: world.instance.clone(),
        file: world.config.clone(),
        layout: *dataplane.layout(),
        attached: attached.map(|((interface, attached), exit)| (interface, attached, exit)).collect(),
        adopted,
        since: Timestamp::now(),
        origin: Instant::now(),
    };
    let active = dataplane.active();
    let (handle, task) = task::spawn(dataplane, watched(&config), forward(&events, Event::Notice));
    let links = Links::new(&config, mode, &fixed.attached);
    let requests = requests(&events);
    let tools = Tools { dataplane: handle, watcher, events, state: file };
    let controller = Controller::new(fixed, tools, state, config, active, confirm, links);

    let (stop_api, stopped) = tokio::sync::oneshot::channel::<()>();
    let api = tokio::spawn(api::serve(listener, requests, async move {
        let _ = stopped.await;
    }));

    let ended = controller.run(inbox).await;
    drop(link_watcher);
    let mut done = Ok(());
    if let Ended::Detach(asked) = ended {
        // The task holds the maps; once it has ended, as it does without a controller, removing the pins removes them.
        let _ = task.await;
        let removed = remove(&pins, &netlink).await;
        if let Some(asked) = asked {
            let _ = asked.send(detached(&removed));
        }
        match removed {
            Ok(()) => log::info!("detached: program, maps and pins are removed"),
            Err(source) => done = Err(StartError::Detach { source }),
        }
    }
    let _ = stop_api.send(());
    let _ = api.await;
    drop(socket);
    done
}

/// The answer to who asked for it.
fn detached(removed: &std::io::Result<()>) -> Reply {
    match removed {
        Ok(()) => Reply::Done { message: "detached: program, maps and pins are removed".to_owned() },
        Err(error) => Reply::Refused(api::Refusal {
            kind: api::RefusalKind::Failed,
            error: format!("not detached: {error}"),
            hint: "`ip link set IFACE xdp off` removes the program by hand".to_owned(),
        }),
    }
}

/// Remove what an instance left behind, with or without an agent.
///
/// Errors: a pin that cannot be removed.
pub async fn remove(pins: &Pins, netlink: &Netlink) -> std::io::Result<()> {
    pins.remove()?;
    if let Err(error) = netlink.release_neighbours(&[]).await {
        log::warn!("neighbours stay managed: {error}");
    }
    Ok(())
}

fn say_what_happened(
    interfaces: &[Interface],
    attached: &[Attached],
    dataplane: &Dataplane,
    wanted: XdpMode,
) {
    for (interface, attached) in interfaces.iter().zip(attached) {
        let other = matches!(
            (wanted, attached.mode),
            (XdpMode::Native, Mode::Generic) | (XdpMode::Generic, Mode::Native)
        );
        if other {
            log::warn!(
                "{}: its mode stays while it is taken up; `lb detach` first to change it",
                interface.name
            );
        }
        say(&interface.name, attached);
    }
    if attached.len() > 1 && attached.iter().any(|attached| attached.mode == Mode::Generic) {
        log::warn!(
            "nothing longer than the MTU passes from an interface in generic mode to another, and local senders such as containers make such segments: turn that off in each of them, `ethtool -K IFACE tso off`, or name their host-side veths in place of their bridge"
        );
    }
    let layout = dataplane.layout();
    let ports = u64::from(layout.ports.count());
    let cells = [size_of::<PortCell<Be32>>(), size_of::<PortCell<Be128>>()];
    let cells: u64 =
        (0..2).map(|family| u64::from(layout.blocks[family]) * ports * cells[family] as u64).sum();
    let tables = [size_of::<Bucket<Be32>>(), size_of::<Bucket<Be128>>()];
    let tables: u64 = (0..2).map(|family| u64::from(layout.buckets[family]) * tables[family] as u64).sum();
    let flows = layout.buckets.map(|buckets| u64::from(buckets) * SLOTS as u64 * 3 / 4);
    log::info!(
        "{} IPv4 and {} IPv6 flows at most ({} MB), {} MB of port cells, {ports} source ports for each backend and address ({} new connections a second each, for good)",
        flows[0],
        flows[1],
        tables / 1_000_000,
        cells / 1_000_000,
        layout.ports.sustainable(),
    );
}

/// What the counters are wanted of.
fn watched(config: &Config) -> Vec<(Listen, Vec<SocketAddr>)> {
    config.services.iter().map(|service| (service.listen, addresses(config, &service.target))).collect()
}

/// A channel of another type that ends in the controller's.
fn forward<T: Send + 'static>(
    events: &mpsc::UnboundedSender<Event>,
    wrap: impl Fn(T) -> Event + Send + 'static,
) -> mpsc::UnboundedSender<T> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(value) = receiver.recv().await {
            if events.send(wrap(value)).is_err() {
                return;
            }
        }
    });
    sender
}

/// A bounded channel for requests, so that a flood of them waits rather than piles up.
fn requests(events: &mpsc::UnboundedSender<Event>) -> mpsc::Sender<api::Request> {
    let (sender, mut receiver) = mpsc::channel(16);
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(request) = receiver.recv().await {
            if events.send(Event::Request(request)).is_err() {
                return;
            }
        }
    });
    sender
}

fn watch(events: &mpsc::UnboundedSender<Event>) -> Result<Watcher, NetlinkError> {
    let (sender, mut receiver) = mpsc::channel(64);
    let watcher = Watcher::start(sender)?;
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(changed) = receiver.recv().await {
            if events.send(Event::Hop(changed)).is_err() {
                return;
            }
        }
    });
    Ok(watcher)
}

/// Hears of interfaces, if some may come and go.
fn watch_links(
    config: &Config,
    events: &mpsc::UnboundedSender<Event>,
) -> Result<Option<LinkWatcher>, NetlinkError> {
    if config.patterns.is_empty() {
        return Ok(None);
    }
    let (sender, mut receiver) = mpsc::channel(4);
    let watcher = LinkWatcher::start(sender)?;
    let events = events.clone();
    tokio::spawn(async move {
        while let Some(interfaces) = receiver.recv().await {
            if events.send(Event::Links(interfaces)).is_err() {
                return;
            }
        }
    });
    Ok(Some(watcher))
}

/// A tick each second, a stop for SIGTERM and SIGINT, and SIGHUP.
fn clock_and_signals(events: &mpsc::UnboundedSender<Event>) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(StartError::Signals)?;
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let events = events.clone();
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                _ = seconds.tick() => Event::Tick,
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Hangup,
            };
            if events.send(event).is_err() {
                return;
            }
        }
    });
    Ok(())
}
