//! A service over backends of its own: their health, their load, their weights.

use std::{net::SocketAddr, time::Duration};

use super::{handshakes::Handshakes, leases::Orders};
use crate::{
    api::Timestamp,
    config::{self, LoadKind, Mode, Target},
    health::{Admin, Health, Judged, Moment, NextProbe, Probe, State, Step, Suspicion, Tuning, panic},
    probe::{Evidence, Failure, FailureKind, agent_check, php_fpm},
    weights::{Controller, Member},
};

/// The share of backends that must work for probes to be trusted.
const PANIC: f64 = 0.5;

/// How soon a suspected backend is probed again that did not answer its probe well.
const AGAIN: Duration = Duration::from_millis(250);

/// One backend.
pub struct Backend {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its weight in the configuration.
    pub configured: u16,
    /// Connections at most.
    pub max_connections: Option<u32>,
    /// What its probes say.
    pub health: Health,
    /// What the operator says.
    pub admin: Admin,
    /// What its agent says.
    pub orders: Orders,
    /// Whether its last probe lets it take new connections.
    pub takes_new: bool,
    /// What its own traffic says of it, see [`Backends::heard`].
    pub suspicion: Suspicion,
    /// When it was last suspected.
    pub suspected_at: Timestamp,
    /// How long its handshakes take.
    pub handshakes: Handshakes,
    /// Its weight by health and load, in steps of 1/1024 of a configured one; see [`Backends::offered`].
    pub weight: u32,
    /// Its last measured load; 1: all workers are busy.
    pub load: Option<f64>,
    /// When its state last changed.
    pub since: Timestamp,
}

/// A service over backends.
pub struct Backends {
    /// In the order of the configuration.
    pub members: Vec<Backend>,
    controller: Controller<usize>,
    max_children: Option<u32>,
    /// What is said of panic, and whether that is new.
    pub panic: String,
    panic_is_new: bool,
    /// Something has happened since this was last taken that the weights may follow from.
    stirred: bool,
    /// What is to be logged since this was last taken (suspicions, orders of agents, why a backend cannot be asked), a
    /// sentence each that begins with the backend's name.
    pub news: Vec<String>,
}

impl Backends {
    /// The backends of `service`, if it has backends of its own; `drained` says which names are, `served` which took
    /// connections when the last agent ended: these go on until probes say otherwise.
    pub fn new(
        service: &config::Service,
        drained: impl Fn(&str) -> bool,
        served: impl Fn(SocketAddr) -> bool,
        now: Moment,
    ) -> Option<Self> {
        let Target::Backends { backends, check, load } = &service.target else { return None };
        let tuning = Tuning { rise: u32::from(check.rise), fall: u32::from(check.fall), ..Tuning::default() };
        let lease = match load.as_ref().map(|load| &load.kind) {
            Some(LoadKind::AgentCheck { lease, .. }) => *lease,
            _ => Duration::ZERO,
        };
        // Where answers go straight to the client, nobody here sees whether there was one.
        let sees_answers = matches!(service.mode, Mode::Snat | Mode::Dnat);
        let members: Vec<Backend> = backends
            .iter()
            .map(|backend| Backend {
                name: backend.name.clone(),
                address: backend.address,
                configured: backend.weight,
                max_connections: backend.max_connections,
                health: if served(backend.address) {
                    Health::restored(tuning, State::Up, "it served before the restart".to_owned(), now)
                } else {
                    Health::new(tuning, now)
                },
                admin: if drained(&backend.name) { Admin::Drain } else { Admin::Ready },
                orders: Orders::new(lease),
                takes_new: served(backend.address),
                suspicion: Suspicion::new(check.interval, sees_answers),
                suspected_at: Timestamp::now(),
                handshakes: Handshakes::default(),
                weight: 0,
                load: None,
                since: Timestamp::now(),
            })
            .collect();
        let mut controller = Controller::new(crate::weights::Tuning::default());
        controller.set_members(&weighed(&members), now);
        let max_children = match load.as_ref().map(|load| &load.kind) {
            Some(LoadKind::PhpFpm { max_children, .. }) => *max_children,
            _ => None,
        };
        for (index, backend) in members.iter().enumerate() {
            controller.health(index, backend.usable(), now, true);
        }
        Some(Self {
            members,
            controller,
            max_children,
            panic: String::new(),
            panic_is_new: false,
            stirred: false,
            news: Vec::new(),
        })
    }

    /// The result of a probe that was sent at `begun`; what follows from it.
    pub fn checked(
        &mut self,
        index: usize,
        result: Result<(), Failure>,
        begun: Moment,
        now: Moment,
    ) -> Option<Step> {
        let last_usable = !self.members.iter().enumerate().any(|(at, other)| at != index && other.usable());
        let backend = self.members.get_mut(index)?;
        let slow = result.as_ref().is_err_and(|failure| failure.kind == FailureKind::TimedOut);
        let probe = match result {
            Ok(()) => Probe::Ok,
            Err(failure) => match failure.kind.evidence() {
                Evidence::Nothing => {
                    if backend.health.excuse(&failure.detail) {
                        self.news.push(format!("{}: cannot be asked: {failure}", backend.name));
                    }
                    return None;
                }
                evidence => {
                    Probe::Failure { certain: evidence == Evidence::Certain, text: failure.to_string() }
                }
            },
        };
        let judgement = |backend: &Backend| (Judged::from(&backend.health), backend.health.state());
        let before = judgement(backend);
        let succeeded = probe == Probe::Ok;
        let mut step = backend.health.observe(probe, last_usable, now);
        backend.takes_new = step.takes_new;
        if succeeded && backend.suspicion.contradict(begun) {
            self.news.push(format!("{}: its probe succeeded, so it is not suspected any more", backend.name));
        } else if !step.takes_new && backend.suspicion.end() {
            self.news.push(format!("{}: its probe failed too", backend.name));
        }
        hasten_suspected(&backend.suspicion, slow, &mut step);
        if step.changed.is_some() {
            backend.since = Timestamp::now();
        }
        // A thousand probes a second that find all as it was cost nothing more than that.
        if judgement(backend) != before {
            // The first judgement after the agent's start is no recovery: what served before serves on at full weight.
            self.tell(index, before.1 == State::Unknown, now);
        }
        self.stirred |= !self.news.is_empty();
        Some(step)
    }

    /// Whether anything has happened since this was last asked that the weights may follow from.
    pub fn stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// A sample of PHP-FPM's.
    pub fn loaded(&mut self, index: usize, status: &php_fpm::Status, now: Moment) {
        let learnt = status.total.max(status.max_active).max(1);
        self.utilised(index, status.utilisation(self.max_children.unwrap_or(learnt)), now);
    }

    /// A part of what a backend can do is in use.
    pub fn utilised(&mut self, index: usize, utilisation: f64, now: Moment) {
        if let Some(backend) = self.members.get_mut(index) {
            backend.load = Some(utilisation);
            self.controller.observe(index, utilisation, now);
        }
    }

    /// A backend's agent has spoken.
    pub fn ordered(&mut self, index: usize, said: agent_check::Orders, now: Moment) {
        let Some(backend) = self.members.get_mut(index) else { return };
        let was_down = backend.orders.down().is_some();
        let news = backend.orders.take(said, now);
        let name = &backend.name;
        self.news.extend(news.iter().map(|sentence| format!("{name}: {sentence}")));
        if !news.is_empty() {
            // Back from *down* is a recovery, back from *drain* is none.
            self.obey(index, !was_down, now);
        }
    }

    /// Let the weights follow from what agents have ordered.
    fn obey(&mut self, index: usize, restored: bool, now: Moment) {
        self.controller.set_members(&weighed(&self.members), now);
        self.tell(index, restored, now);
    }

    fn expire_orders(&mut self, now: Moment) {
        for index in 0..self.members.len() {
            let backend = &mut self.members[index];
            let was_down = backend.orders.down().is_some();
            if let Some(sentence) = backend.orders.expire(now) {
                self.news.push(format!("{}: {sentence}", backend.name));
                self.obey(index, !was_down, now);
            }
        }
    }

    /// The operator's wish for a backend.
    pub fn administer(&mut self, index: usize, admin: Admin, now: Moment) {
        if let Some(backend) = self.members.get_mut(index) {
            backend.admin = admin;
            self.tell(index, true, now);
        }
    }

    /// Tell the weights who is used, after something has changed at `index`. What one backend's probes say may bring
    /// others in or out, see [`panic`].
    fn tell(&mut self, index: usize, restored: bool, now: Moment) {
        self.stirred = true;
        // What takes no connections by somebody's will says nothing about probes.
        let wanted = Backend::wanted;
        let judged = self.members.iter().filter(|backend| backend.wanted()).map(|backend| {
            // An agent's word is no doubtful probe's.
            let down = Judged { takes_new: false, doubtful: false };
            if backend.orders.down().is_some() { down } else { Judged::from(&backend.health) }
        });
        let judged: Vec<Judged> = judged.collect();
        let mut used = panic(&judged, PANIC).into_iter();
        let mut overruled = 0;
        for (at, backend) in self.members.iter().enumerate() {
            let takes_new = backend.usable();
            let up = if wanted(backend) { used.next().unwrap_or(false) } else { takes_new };
            overruled += usize::from(up && !takes_new);
            // Those that panic brings in are no recoveries.
            self.controller.health(at, up, now, restored || at != index);
        }
        let sentence = match overruled {
            0 => String::new(),
            some => format!(
                "more than half of {} backends look dead; {some} of them only fail to answer well and are used all the same",
                judged.len()
            ),
        };
        self.panic_is_new |= sentence != self.panic;
        self.panic = sentence;
    }

    /// What is to be said of panic, if that has changed since it was last asked.
    pub fn panic_changed(&mut self) -> Option<&str> {
        let over = "the probes are trusted again";
        std::mem::take(&mut self.panic_is_new).then_some(if self.panic.is_empty() {
            over
        } else {
            &self.panic
        })
    }

    /// Let the controller step; whether any weight is to be published anew.
    pub fn step(&mut self, now: Moment) -> bool {
        self.expire_orders(now);
        let changed = self.controller.step(now);
        for (index, weight) in &changed {
            self.members[*index].weight = *weight;
        }
        self.expire_suspicions(now);
        !changed.is_empty()
    }

    /// The place of a backend by name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|backend| backend.name == name)
    }
}

impl Backend {
    /// Whether operator, agent and configuration want it to take new connections.
    fn wanted(&self) -> bool {
        self.admin.takes_new() && self.orders.takes_new() && self.orders.weight(self.configured) > 0
    }

    /// Whether it takes new connections, as far as its probes, its agent and the operator go.
    fn usable(&self) -> bool {
        self.takes_new && self.orders.down().is_none() && self.admin.takes_new() && self.orders.takes_new()
    }

    /// Connections at most, as configured or as its agent wants.
    pub fn limit(&self) -> Option<u32> {
        self.orders.limit(self.max_connections)
    }
}

/// The weights that backends are meant to have, load apart.
fn weighed(members: &[Backend]) -> Vec<Member<usize>> {
    let member = |(key, backend): (usize, &Backend)| Member {
        key,
        configured: backend.orders.weight(backend.configured),
    };
    members.iter().enumerate().map(member).collect()
}

/// A suspected backend whose probe has failed doubtfully is probed on and on until its health has decided. What timed out
/// has spent its time already.
fn hasten_suspected(suspicion: &Suspicion, slow: bool, step: &mut Step) {
    if suspicion.evidence().is_some() && step.next_probe == NextProbe::Normal {
        step.next_probe = NextProbe::Quick(if slow { Duration::ZERO } else { AGAIN });
    }
}

/// When to probe again, if sooner than usual.
pub fn hastened(step: &Step) -> Option<Duration> {
    match step.next_probe {
        NextProbe::Normal => None,
        NextProbe::Quick(after) => Some(after),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        config::{SystemSecrets, parse},
        probe::FailureKind,
    };

    const TIMED_OUT: FailureKind = FailureKind::TimedOut;
    const REFUSED: FailureKind = FailureKind::Refused;

    /// A service of so many backends, all up.
    pub fn service(backends: usize) -> Backends {
        let list: Vec<String> = (1..=backends)
            .map(|number| format!("{{ name = \"web{number}\", address = \"10.0.0.{number}:80\" }}"))
            .collect();
        let text = format!(
            "interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80/tcp\"\nbackends = [{}]",
            list.join(", ")
        );
        let config = parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap();
        let mut service = Backends::new(&config.services[0], |_| false, |_| false, Moment::START).unwrap();
        for index in 0..backends {
            service.checked(index, Ok(()), Moment::START, Moment::START);
        }
        service.step(Moment::START);
        service
    }

    /// Down by its probes: as many failures in a row as it takes.
    fn down(service: &mut Backends, index: usize, kind: FailureKind, now: Moment) {
        for _ in 0..3 {
            let failure = Failure { kind, detail: String::new() };
            service.checked(index, Err(failure), now, now);
        }
        assert_eq!(service.members[index].health.state(), State::Down);
    }

    /// Which backends have a weight, one letter each.
    fn used(service: &Backends) -> String {
        service.members.iter().map(|backend| if backend.weight > 0 { 'u' } else { '-' }).collect()
    }

    #[test]
    fn when_most_of_five_or_more_backends_fail_doubtfully_they_are_used_all_the_same() {
        let second = |seconds| Moment::at(Duration::from_secs(seconds));
        for (backends, failing, drained, wanted) in [
            (5, vec![TIMED_OUT; 2], 0, "--uuu"),
            (5, vec![TIMED_OUT; 3], 0, "uuuuu"),
            (5, vec![TIMED_OUT, TIMED_OUT, REFUSED], 0, "uu-uu"),
            (5, vec![REFUSED; 3], 0, "---uu"),
            (4, vec![TIMED_OUT; 3], 0, "---u"),
            // What the operator drains is neither dead nor counted.
            (6, vec![TIMED_OUT; 2], 2, "--uu--"),
            (7, vec![TIMED_OUT; 3], 2, "uuuuu--"),
        ] {
            let mut service = service(backends);
            for index in backends - drained..backends {
                service.administer(index, Admin::Drain, second(1));
            }
            for (index, kind) in failing.iter().enumerate() {
                down(&mut service, index, *kind, second(2));
            }
            service.step(second(5));
            assert_eq!(used(&service), wanted, "{backends}, {failing:?}, {drained} drained");
            assert_eq!(service.panic.is_empty(), !wanted.starts_with('u'), "{:?}", service.panic);
        }
    }

    fn say(service: &mut Backends, index: usize, line: &str, now: Moment) {
        service.ordered(index, agent_check::parse(line.as_bytes()), now);
        service.step(now);
    }

    #[test]
    fn an_agent_is_obeyed_until_its_lease_ends_and_the_operators_word_goes_before_its_own() {
        let second = |seconds| Moment::at(Duration::from_secs(seconds));
        // What the agent says, the operator's word, and the weights that follow, in hundredths of the configured one.
        for (lines, admin, wanted, limit) in [
            (&["up 50%"][..], Admin::Ready, [50, 100], None),
            (&["drain"], Admin::Ready, [0, 100], None),
            (&["drain", "ready"], Admin::Ready, [100, 100], None),
            (&["ready 100%"], Admin::Drain, [0, 100], None),
            (&["down#no disk"], Admin::Ready, [0, 100], None),
            (&["0%"], Admin::Ready, [0, 100], None),
            (&["maxconn:7"], Admin::Ready, [100, 100], Some(7)),
        ] {
            let mut service = service(2);
            for backend in &mut service.members {
                backend.orders = Orders::new(Duration::from_secs(30));
            }
            service.administer(0, admin, second(1));
            for (line, at) in lines.iter().zip(2..) {
                say(&mut service, 0, line, second(at));
            }
            service.step(second(10));
            let weights = |service: &Backends| {
                [0, 1].map(|index: usize| service.members[index].weight / UNIT_OF_WEIGHT)
            };
            assert_eq!(weights(&service), wanted, "{lines:?}");
            assert_eq!(service.members[0].limit(), limit, "{lines:?}");
            service.step(second(40));
            service.step(second(80));
            let then = if admin == Admin::Drain { [0, 100] } else { [100, 100] };
            assert_eq!((weights(&service), service.members[0].limit()), (then, None), "{lines:?}, later");
        }
    }

    /// Of a weight of 100, published in 1,024ths: one hundredth.
    const UNIT_OF_WEIGHT: u32 = 1_024;

    #[test]
    fn what_an_agent_has_ended_is_told_in_the_log_and_no_agent_brings_up_what_its_probes_call_down() {
        let second = |seconds| Moment::at(Duration::from_secs(seconds));
        let mut service = service(2);
        service.members[0].orders = Orders::new(Duration::from_secs(30));
        service.news.clear();
        say(&mut service, 0, "fail#no disk", second(1));
        assert_eq!(used(&service), "-u");
        assert!(service.members[0].reason().ends_with("its agent orders: fail: no disk"));
        service.step(second(31));
        assert_eq!(
            service.news,
            [
                "web1: its agent says fail: no disk",
                "web1: its agent has been silent for 30 s: its orders end (fail: no disk)",
            ]
        );
        down(&mut service, 0, REFUSED, second(40));
        say(&mut service, 0, "up ready 100%", second(41));
        assert_eq!(used(&service), "-u");
    }

    #[test]
    fn why_a_backend_cannot_be_asked_is_said_once_and_shown_while_nothing_else_is_known() {
        let mut service = service(1);
        service.members[0].health = Health::new(Tuning::default(), Moment::START);
        service.news.clear();
        for _ in 0..3 {
            let failure = Failure { kind: FailureKind::MonitorDenied, detail: "says error 1045".to_owned() };
            assert_eq!(service.checked(0, Err(failure), Moment::START, Moment::START), None);
        }
        assert_eq!(service.news, ["web1: cannot be asked: says error 1045"]);
        assert_eq!(service.members[0].reason(), "says error 1045");
    }

    #[test]
    fn probes_that_change_nothing_stir_nothing() {
        let mut service = service(3);
        assert!(service.stirred());
        for (result, stirs) in
            [(Ok(()), false), (Err(TIMED_OUT), false), (Err(REFUSED), true), (Ok(()), true)]
        {
            let result = result.map_err(|kind| Failure { kind, detail: String::new() });
            let said = format!("{result:?}");
            service.checked(1, result, Moment::START, Moment::START);
            assert_eq!(service.stirred(), stirs, "{said}");
        }
    }

    #[test]
    fn panic_is_told_when_it_begins_and_when_it_ends() {
        let second = |seconds| Moment::at(Duration::from_secs(seconds));
        let mut service = service(5);
        assert_eq!(service.panic_changed(), None);
        (0..3).for_each(|index| down(&mut service, index, TIMED_OUT, second(2)));
        let said = "more than half of 5 backends look dead; 3 of them only fail to answer well and are used all the same";
        assert_eq!(service.panic_changed(), Some(said));
        assert_eq!(service.panic_changed(), None);
        for _ in 0..2 {
            service.checked(0, Ok(()), second(3), second(3));
        }
        service.step(second(6));
        assert_eq!(service.panic_changed(), Some("the probes are trusted again"));
        assert_eq!(used(&service), "u--uu");
    }
}
