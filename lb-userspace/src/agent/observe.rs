//! What operators look at packets with: captures and traces, in the words of the configuration.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::atomic::Ordering,
    time::Duration,
};

use lb_common::{Reason, event::outcome};
use nix::time::{ClockId, clock_gettime};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::controller::Controller;
use crate::{
    api::{self, Hex, Line, Look, Packet, Refusal, RefusalKind, Reply, Verdict},
    config::{Config, Target},
    dataplane::{Captured, DataplaneError, Lost},
    listen::Listen,
    observe::{
        Headers,
        pairs::{Pair, Pairs},
    },
};

/// Looks that wait until they are read; what is beyond is lost, and counted.
const QUEUE: usize = 8_192;

/// Names of what the data path knows by address.
#[derive(Debug)]
pub(super) struct Names {
    services: HashMap<Listen, String>,
    backends: HashMap<(Listen, SocketAddr), String>,
    interfaces: HashMap<u32, String>,
}

impl Names {
    fn new(config: &Config, interfaces: impl Iterator<Item = (u32, String)>) -> Self {
        let services = config.services.iter().map(|service| (service.listen, service.name.clone()));
        let members = |target: &Target| -> Vec<(SocketAddr, String)> {
            match target {
                Target::Backends { backends, .. } => {
                    backends.iter().map(|backend| (backend.address, backend.name.clone())).collect()
                }
                Target::Cluster { cluster, .. } => {
                    let known = config.clusters.iter().filter(|known| known.name == *cluster);
                    let nodes = known.flat_map(|known| &known.nodes);
                    nodes.map(|node| (node.address, node.name.clone())).collect()
                }
            }
        };
        let backends = config.services.iter().flat_map(|service| {
            let members = members(&service.target).into_iter();
            members.map(|(address, name)| ((service.listen, address), name))
        });
        Self { services: services.collect(), backends: backends.collect(), interfaces: interfaces.collect() }
    }

    /// The backend's name, or its address if the configuration does not know it any more.
    pub(super) fn backend(&self, service: Option<Listen>, backend: Option<SocketAddr>) -> Option<String> {
        let backend = backend?;
        let name = service.and_then(|service| self.backends.get(&(service, backend)));
        Some(name.cloned().unwrap_or_else(|| backend.to_string()))
    }

    pub(super) fn service(&self, service: Option<Listen>) -> Option<String> {
        let service = service?;
        Some(self.services.get(&service).cloned().unwrap_or_else(|| service.to_string()))
    }

    /// An interface's name; one that packets only leave by is asked for.
    pub(super) fn interface(&self, index: u32) -> String {
        let known = self.interfaces.get(&index).cloned();
        let asked = || nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
        known.or_else(asked).unwrap_or_else(|| format!("interface {index}"))
    }
}

/// What is wanted of a capture.
#[derive(Clone, Copy, Debug)]
struct Filter {
    service: Option<Listen>,
    client: Option<IpAddr>,
    reason: Option<Reason>,
    dropped: bool,
    all: bool,
}

impl Filter {
    fn wants(&self, pair: &Pair) -> bool {
        let Captured { service, outcome, reason, .. } = pair.after;
        let named = |look: &Captured, client| Headers::read(&look.bytes).names(client);
        (self.all || outcome != outcome::PASS || reason.is_some())
            && self.service.is_none_or(|wanted| service == Some(wanted))
            && self.reason.is_none_or(|wanted| reason == Some(wanted))
            && (!self.dropped || outcome == outcome::DROP || reason.is_some_and(Reason::is_refusal))
            && self.client.is_none_or(|client| {
                named(&pair.after, client) || pair.before.as_ref().is_some_and(|look| named(look, client))
            })
    }
}

pub(super) fn verdict(outcome: u8) -> Verdict {
    match outcome {
        outcome::DROP => Verdict::Drop,
        outcome::ANSWER => Verdict::Answer,
        outcome::FORWARD => Verdict::Forward,
        _ => Verdict::Pass,
    }
}

/// A capture that is going on: from the data path to whoever looks.
struct Pump {
    names: Names,
    filter: Filter,
    count: Option<u64>,
    looks: mpsc::Receiver<Captured>,
    lost: Lost,
    lines: mpsc::Sender<Line>,
    pairs: Pairs,
    shown: u64,
    /// From here on by `CLOCK_MONOTONIC`: what lies in the buffer of an earlier capture is not shown.
    since: u64,
    /// What the wall clock was ahead of it then.
    ahead: u64,
}

impl Pump {
    /// Until enough has been shown, the time is over, or nobody looks any more.
    async fn run(mut self, duration: Option<Duration>) {
        let over = async {
            match duration {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        while self.count.is_none_or(|count| self.shown < count) {
            tokio::select! {
                () = &mut over => break,
                () = self.lines.closed() => return,
                look = self.looks.recv() => match look {
                    Some(look) => self.take(look).await,
                    None => break,
                },
            }
        }
        // The data path stops showing before the last line is written.
        self.looks.close();
        let lost = self.lost.load(Ordering::Relaxed);
        let _ = self.lines.send(Line::End { lost }).await;
    }

    async fn take(&mut self, look: Captured) {
        if look.moment < self.since {
            return;
        }
        if let Some(pair) = self.pairs.take(look).filter(|pair| self.filter.wants(pair)) {
            self.shown += 1;
            let packet = self.packet(pair);
            // Whoever has gone is noticed by `run`.
            let _ = self.lines.send(Line::Packet(Box::new(packet))).await;
        }
    }

    fn packet(&self, Pair { before, after }: Pair) -> Packet {
        let Captured { service, backend, outcome, reason, cpu, moment, interface, leaving, .. } = after;
        let look = |look: Captured| Look { length: look.length, bytes: Hex(look.bytes) };
        let leaves = matches!(outcome, outcome::FORWARD | outcome::ANSWER);
        let (before, after) = if leaves { (before, Some(after)) } else { (before.or(Some(after)), None) };
        Packet {
            number: self.shown,
            time_ns: moment + self.ahead,
            cpu,
            interface: self.names.interface(interface),
            leaving: leaving.filter(|_| leaves).map(|index| self.names.interface(index)),
            verdict: verdict(outcome),
            reason: reason.map(|reason| reason.name().to_owned()),
            service: self.names.service(service),
            backend: self.names.backend(service, backend),
            before: before.map(look),
            after: after.map(look),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

impl Controller {
    pub(super) fn names(&self) -> Names {
        let attached = self.fixed.attached.iter();
        let interfaces = attached.map(|(interface, ..)| (interface.index, interface.name.clone()));
        Names::new(&self.config, interfaces)
    }

    /// Begin a capture, and answer when packets are shown.
    pub(super) fn capture(
        &mut self,
        wanted: &api::Capture,
        lines: Option<mpsc::Sender<Line>>,
        reply: oneshot::Sender<Reply>,
    ) {
        let (filter, lines) = match (self.filter(wanted), lines) {
            (Ok(filter), Some(lines)) => (filter, lines),
            (Err(refusal), _) => return refuse(reply, refusal),
            // The server makes the channel with the command.
            (_, None) => return,
        };
        if self.capturing.as_ref().is_some_and(|task| !task.is_finished()) {
            let error = "another capture is going on";
            return refuse(reply, refusal(RefusalKind::Conflict, error, "it ends when its client goes away"));
        }
        let (names, dataplane) = (self.names(), self.dataplane.clone());
        let (count, duration) = (wanted.count, wanted.duration_ms.map(Duration::from_millis));
        self.capturing = Some(tokio::spawn(async move {
            let (to, looks) = mpsc::channel(QUEUE);
            let lost = Lost::default();
            let (since, ahead) = clocks();
            let begun = dataplane.capture(to, lost.clone()).await;
            // The data path ends with the controller, though a capture is going on.
            drop(dataplane);
            match begun {
                Some(Ok(())) => {}
                Some(Err(error)) => return refuse(reply, failed(&error)),
                None => return,
            }
            log::info!("packets are captured");
            let message = "packets are captured".to_owned();
            if reply.send(Reply::Done { message }).is_ok() {
                let pairs = Pairs::default();
                let pump = Pump { names, filter, count, looks, lost, lines, pairs, shown: 0, since, ahead };
                pump.run(duration).await;
            }
            log::info!("packets are not captured any more");
        }));
    }

    fn filter(&self, wanted: &api::Capture) -> Result<Filter, Refusal> {
        let service = wanted.service.as_deref().map(|name| self.listen_of(name)).transpose()?;
        let reason = wanted.reason.as_deref().map(reason_by_name).transpose()?;
        Ok(Filter { service, client: wanted.client, reason, dropped: wanted.dropped, all: wanted.all })
    }

    /// Where a service listens.
    pub(super) fn listen_of(&self, name: &str) -> Result<Listen, Refusal> {
        let services = &self.config.services;
        let found = services.iter().find(|service| service.name == name);
        found.map(|service| service.listen).ok_or_else(|| {
            let known: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
            let hint = format!("there are {}", known.join(", "));
            refusal(RefusalKind::NotFound, &format!("there is no service {name} here"), &hint)
        })
    }
}

fn reason_by_name(name: &str) -> Result<Reason, Refusal> {
    Reason::ALL.into_iter().find(|reason| reason.name() == name).ok_or_else(|| {
        let known = Reason::ALL.map(Reason::name).join(", ");
        refusal(RefusalKind::BadInput, &format!("there is no reason {name}"), &format!("there are {known}"))
    })
}

/// `CLOCK_MONOTONIC`, and what the wall clock is ahead of it; in nanoseconds.
fn clocks() -> (u64, u64) {
    let read = |clock| {
        // `clock_gettime` fails only for clocks that do not exist.
        let now = clock_gettime(clock).unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    };
    let (monotonic, wall) = (read(ClockId::CLOCK_MONOTONIC), read(ClockId::CLOCK_REALTIME));
    (monotonic, wall.saturating_sub(monotonic))
}

pub(super) fn refusal(kind: RefusalKind, error: &str, hint: &str) -> Refusal {
    Refusal { kind, error: error.to_owned(), hint: hint.to_owned() }
}

pub(super) fn failed(error: &DataplaneError) -> Refusal {
    refusal(RefusalKind::Failed, &error.to_string(), "")
}

pub(super) fn refuse(reply: oneshot::Sender<Reply>, refusal: Refusal) {
    // A client that has gone needs no answer.
    let _ = reply.send(Reply::Refused(refusal));
}

#[cfg(test)]
mod tests {
    use lb_common::event::seen;

    use super::*;

    fn pair(outcome: u8, reason: Option<Reason>, service: Option<&str>) -> Pair {
        let service = service.map(|at| Listen::tcp(at.parse().expect("an address")));
        let after = Captured {
            moment: 1,
            cpu: 0,
            length: 54,
            bytes: Vec::new(),
            service,
            backend: None,
            interface: 1,
            leaving: None,
            look: seen::OUT,
            outcome,
            reason,
        };
        Pair { before: None, after }
    }

    #[test]
    fn a_filter_wants_what_was_asked_for() {
        let web = Listen::tcp("10.0.0.1:80".parse().expect("an address"));
        let any = Filter { service: None, client: None, reason: None, dropped: false, all: false };
        let (hold, echo) = (Some(Reason::NoBackendHold), Some(Reason::EchoAnswered));
        let held = pair(outcome::DROP, hold, Some("10.0.0.1:80"));
        let sent = pair(outcome::FORWARD, None, Some("10.0.0.2:80"));
        let passed = pair(outcome::PASS, None, None);
        let fragment = pair(outcome::PASS, Some(Reason::FragmentUnmatched), None);
        let pong = pair(outcome::ANSWER, echo, None);
        let reset = pair(outcome::ANSWER, Some(Reason::NoFlow), Some("10.0.0.1:80"));
        let all = [&held, &sent, &passed, &fragment, &pong, &reset];
        for (filter, wanted) in [
            (any, [true, true, false, true, true, true]),
            (Filter { all: true, ..any }, [true; 6]),
            (Filter { service: Some(web), ..any }, [true, false, false, false, false, true]),
            (Filter { reason: hold, ..any }, [true, false, false, false, false, false]),
            (Filter { dropped: true, ..any }, [true, false, false, false, false, true]),
        ] {
            assert_eq!(all.map(|pair| filter.wants(pair)), wanted, "{filter:?}");
        }
    }

    #[test]
    fn the_wall_clock_is_ahead_of_the_monotonic_one_by_the_time_of_the_start() {
        let (monotonic, ahead) = clocks();
        let wall = jiff::Timestamp::now().as_nanosecond();
        let difference = wall - i128::from(monotonic + ahead);
        assert!((0..1_000_000_000).contains(&difference), "{difference}");
    }
}
