//! The tasks that ask: one for each probe of a backend, one for each database node. They know their target, their
//! interval and where to send what they saw; what it means is decided elsewhere.

use std::{net::SocketAddr, time::Duration};

use rand::Rng as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{Event, keys::Key};
use crate::{
    config::{self, CheckKind, FpmScheme, FpmUrl, LoadKind},
    probe::{Failure, FailureKind, galera, http, php_fpm, tcp},
};

/// A probe's time may differ from its interval by this part, so that probes do not march in step.
const JITTER: f64 = 0.1;

/// How often, and in which rhythm, a database node is asked whose connection has broken.
const FOLLOW_UPS: u32 = 20;
const FOLLOW_UP_PAUSE: Duration = Duration::from_millis(5);

/// Holds one task and hastens its next probe. The task ends, after the probe that is under way, when the last of these
/// is dropped.
#[derive(Clone, Debug)]
#[must_use]
pub struct Hasten(mpsc::UnboundedSender<Duration>);

impl Hasten {
    /// The next probe comes after `delay` at the latest, counted from now.
    pub fn after(&self, delay: Duration) {
        // The task ends when nobody can hasten it any more, and this does.
        let _ = self.0.send(delay);
    }
}

/// Where a task's rhythm comes from.
struct Rhythm {
    interval: Duration,
    hasten: mpsc::UnboundedReceiver<Duration>,
}

impl Rhythm {
    fn new(interval: Duration) -> (Self, Hasten) {
        let (sender, hasten) = mpsc::unbounded_channel();
        (Self { interval, hasten }, Hasten(sender))
    }

    /// Wait for the next turn; `false`: there is none, for nobody holds the task any more.
    async fn turn(&mut self) -> bool {
        let spread = rand::rng().random_range(1.0 - JITTER..=1.0 + JITTER);
        let mut due = Instant::now() + self.interval.mul_f64(spread);
        loop {
            tokio::select! {
                () = sleep_until(due) => return true,
                delay = self.hasten.recv() => match delay {
                    Some(delay) => due = due.min(Instant::now() + delay),
                    None => return false,
                },
            }
        }
    }
}

/// Which backend of which service, by numbers that no other gets in this agent's life: what is on its way from a task that
/// has ended finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendAt {
    /// The service.
    pub service: Key,
    /// The backend.
    pub backend: Key,
}

/// Probe a backend's health for as long as events are taken.
pub fn check(
    at: BackendAt,
    address: SocketAddr,
    check: &config::Check,
    events: mpsc::UnboundedSender<Event>,
) -> Hasten {
    let (mut rhythm, hasten) = Rhythm::new(check.interval);
    let check = check.clone();
    tokio::spawn(async move {
        loop {
            let begun = std::time::Instant::now();
            let result = check_once(address, &check).await;
            if events.send(Event::Checked { at, begun, result }).is_err() {
                return;
            }
            if !rhythm.turn().await {
                return;
            }
        }
    });
    hasten
}

async fn check_once(address: SocketAddr, check: &config::Check) -> Result<(), Failure> {
    let to = |port: Option<u16>| SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
    match &check.kind {
        CheckKind::Tcp { port } => tcp::probe(to(*port), check.timeout).await.map(|_| ()),
        CheckKind::Http { path, host, status, port } => {
            let address = to(*port);
            let host = host.clone().unwrap_or_else(|| address.to_string());
            let target = http::Target::new(address, path, &host, status.first..=status.last)
                .map_err(|error| unfit(&error))?;
            http::probe(&target, check.timeout).await.map(|_| ())
        }
        CheckKind::PhpFpm { url } => {
            let url = fpm_url(url, address, true)?;
            match php_fpm::status(&url, check.timeout).await {
                // A locked scoreboard says that FPM is there and busy.
                Ok(_) | Err(Failure { kind: FailureKind::NoSample, .. }) => Ok(()),
                Err(failure) => Err(failure),
            }
        }
    }
}

fn unfit(error: &http::InvalidTarget) -> Failure {
    Failure { kind: FailureKind::Local, detail: error.to_string() }
}

fn fpm_url(url: &FpmUrl, backend: SocketAddr, through_pool: bool) -> Result<php_fpm::Url, Failure> {
    let address = url.endpoint(backend.ip());
    Ok(match url.scheme {
        FpmScheme::Fcgi => php_fpm::Url::Fcgi { addr: address, path: url.path.clone(), through_pool },
        FpmScheme::Http => php_fpm::Url::Http {
            target: http::Target::new(address, &url.path, address.to_string(), 200..=200)
                .map_err(|error| unfit(&error))?,
            through_pool,
        },
    })
}

/// Sample a backend's load for as long as events are taken.
pub fn load(
    at: BackendAt,
    address: SocketAddr,
    load: &config::Load,
    events: mpsc::UnboundedSender<Event>,
) -> Hasten {
    let (mut rhythm, hasten) = Rhythm::new(load.interval);
    let load = load.clone();
    tokio::spawn(async move {
        let LoadKind::PhpFpm { url, .. } = &load.kind;
        // A status page that the pool itself serves never shows fewer than one active worker, the one that serves it.
        let mut through_pool = true;
        loop {
            let result = match fpm_url(url, address, through_pool) {
                Ok(url) => php_fpm::status(&url, load.timeout).await,
                Err(failure) => Err(failure),
            };
            if result.as_ref().is_ok_and(|status| status.active == 0) {
                through_pool = false;
            }
            if events.send(Event::Loaded { at, result }).is_err() {
                return;
            }
            if !rhythm.turn().await {
                return;
            }
        }
    });
    hasten
}

/// Which node of which cluster, by numbers as in [`BackendAt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeAt {
    /// The cluster.
    pub cluster: Key,
    /// The node.
    pub node: Key,
}

/// Ask a database node about itself over one persistent connection, for as long as events are taken.
///
/// A connection that breaks is followed up at once, see [`follow_up`].
pub fn node(
    at: NodeAt,
    node: &config::Node,
    cluster: &config::Cluster,
    events: mpsc::UnboundedSender<Event>,
) -> Hasten {
    let monitor = &cluster.monitor;
    let (mut rhythm, hasten) = Rhythm::new(monitor.interval);
    let mut session =
        galera::Monitor::new(node.address, &monitor.user, monitor.password.expose(), monitor.timeout)
            .with_extra_port(node.extra_port)
            .with_replication(cluster.kind == config::ClusterKind::Mysql);
    tokio::spawn(async move {
        loop {
            let result = session.sample().await.map(Box::new);
            if events.send(Event::Sampled { at, result }).is_err() {
                return;
            }
            tokio::select! {
                again = rhythm.turn() => if !again { return },
                () = session.broken() => follow_up(&mut session, at, &events).await,
            }
        }
    });
    hasten
}

/// Find out what a broken connection means, without waiting for the next turn: a server that was killed is known to be
/// gone after some milliseconds, not after an interval.
///
/// Two refusals are what the election wants. They may follow each other quickly, for the broken connection has already
/// said that this is no passing trouble. A dying process closes its connections before or after its listener, so for a
/// moment a new connection may be taken and closed again, which says nothing yet.
async fn follow_up(session: &mut galera::Monitor, at: NodeAt, events: &mpsc::UnboundedSender<Event>) {
    let mut refusals = 0;
    for _ in 0..FOLLOW_UPS {
        match session.sample().await.map(Box::new) {
            Err(failure) if failure.kind == FailureKind::Closed => {}
            Err(failure) if failure.kind == FailureKind::Refused => {
                refusals += 1;
                if events.send(Event::Sampled { at, result: Err(failure) }).is_err() || refusals == 2 {
                    return;
                }
            }
            // The loop's next sample says it; one that came in time is as good as this one.
            _ => return,
        }
        sleep(FOLLOW_UP_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rhythm_goes_on_when_nobody_hastens_it_and_ends_when_nobody_holds_it() {
        let (mut rhythm, hasten) = Rhythm::new(Duration::from_secs(10));
        let begun = Instant::now();
        for turn in 1..=3_u32 {
            assert!(rhythm.turn().await);
            let least = Duration::from_secs(10).mul_f64(f64::from(turn) * (1.0 - JITTER));
            assert!(begun.elapsed() >= least, "turn {turn} after {:?}", begun.elapsed());
        }
        let held = begun.elapsed();
        drop(hasten);
        assert!(!rhythm.turn().await);
        assert_eq!(begun.elapsed(), held, "it does not wait for its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hastened_turn_comes_at_its_time_and_the_rhythm_returns() {
        let (mut rhythm, hasten) = Rhythm::new(Duration::from_secs(10));
        let begun = Instant::now();
        hasten.after(Duration::from_millis(250));
        assert!(rhythm.turn().await);
        assert_eq!(begun.elapsed().as_millis(), 250);
        assert!(rhythm.turn().await);
        assert!(begun.elapsed() >= Duration::from_secs(9));
    }
}
