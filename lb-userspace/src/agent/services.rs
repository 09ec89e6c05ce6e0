//! A service over backends of its own: their health, their load, their weights.

use std::{net::SocketAddr, time::Duration};

use super::{
    handshakes::Handshakes,
    keys::{Key, Keys},
    leases::Orders,
    probers::Hasten,
    wishes::Wish,
};
use crate::{
    api::{Timestamp, Weight},
    config::{self, LoadKind, Mode, Target},
    health::{Admin, Health, Judged, Moment, NextProbe, Probe, State, Step, Suspicion, Tuning, panic},
    probe::{Evidence, Failure, FailureKind, agent_check, php_fpm},
    weights::{Controller, Factors, Member},
};

/// The share of backends that must work for probes to be trusted.
const PANIC: f64 = 0.5;

/// How soon a suspected backend is probed again that did not answer its probe well.
const AGAIN: Duration = Duration::from_millis(250);

/// One backend.
pub struct Backend {
    /// What its probes call it.
    pub key: Key,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its weight in the configuration.
    pub configured: u16,
    /// Its weight as the operator has set it.
    pub set: Option<Weight>,
    /// Nobody names it any more: it goes when its connections have ended.
    pub leaves: bool,
    /// It could serve when it began to leave, and does so until one that stays can.
    pub stands_in: bool,
    /// Who asks for its health and its load.
    pub prober: Option<Hasten>,
    /// Its load could not be read when it was last asked, which has been said.
    pub quiet: Option<bool>,
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
    /// What its backends' probes call it.
    pub key: Key,
    /// In the order of the configuration; those that leave come last.
    pub members: Vec<Backend>,
    controller: Controller<Key>,
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

/// What is said of a service's backends elsewhere than in the configuration.
pub struct Said<'a> {
    /// What the operator wants of a backend, by its name.
    pub wish: &'a dyn Fn(&str) -> Wish,
    /// Which backends, by their addresses, nobody names any more.
    pub leaves: &'a dyn Fn(SocketAddr) -> bool,
    /// Which took connections when the last agent ended: they go on until probes say otherwise.
    pub served: &'a dyn Fn(SocketAddr) -> bool,
}

impl Backends {
    /// The backends of `service`, if it has backends of its own.
    pub fn new(service: &config::Service, said: &Said<'_>, keys: &mut Keys, now: Moment) -> Option<Self> {
        let Target::Backends { .. } = &service.target else { return None };
        let mut backends = Self {
            key: keys.next(),
            members: Vec::new(),
            controller: Controller::new(crate::weights::Tuning::default()),
            max_children: None,
            panic: String::new(),
            panic_is_new: false,
            stirred: false,
            news: Vec::new(),
        };
        backends.reconfigure(service, said, keys, now);
        Some(backends)
    }

    /// Take up another configuration. Backends are who they were by their addresses: what is known of those that stay is
    /// kept, whatever else changes about them.
    pub fn reconfigure(&mut self, service: &config::Service, said: &Said<'_>, keys: &mut Keys, now: Moment) {
        let Target::Backends { backends, check, load, .. } = &service.target else { return };
        let tuning = Tuning { rise: u32::from(check.rise), fall: u32::from(check.fall), ..Tuning::default() };
        // Where answers go straight to the client, nobody here sees whether there was one.
        let sees_answers = matches!(service.mode, Mode::Snat | Mode::Dnat);
        let suspicion = Suspicion::new(check.interval, sees_answers);
        let lease = match load.as_ref().map(|load| &load.kind) {
            Some(LoadKind::AgentCheck { lease, .. }) => *lease,
            _ => Duration::ZERO,
        };
        let mut before = std::mem::take(&mut self.members);
        for backend in backends {
            let known = before.iter().position(|known| known.address == backend.address);
            let mut member = match known {
                Some(at) => before.swap_remove(at),
                None => Backend::new(
                    backend,
                    keys.next(),
                    &suspicion,
                    (said.served)(backend.address),
                    tuning,
                    now,
                ),
            };
            member.name.clone_from(&backend.name);
            member.configured = backend.weight;
            member.max_connections = backend.max_connections;
            let leaves = (said.leaves)(backend.address);
            if leaves != member.leaves {
                member.stands_in = leaves && member.takes_new && member.admin.takes_new();
            }
            member.leaves = leaves;
            member.health.retune(tuning);
            if member.orders.lease() != lease {
                member.orders = Orders::new(lease);
            }
            if !member.suspicion.is_like(&suspicion) {
                member.suspicion = suspicion.clone();
            }
            let wish = (said.wish)(&backend.name);
            member.admin = if member.leaves { Admin::Drain } else { wish.admin };
            member.set = wish.weight;
            self.members.push(member);
        }
        self.max_children = match load.as_ref().map(|load| &load.kind) {
            Some(LoadKind::PhpFpm { max_children, .. }) => *max_children,
            _ => None,
        };
        self.weigh(now);
        self.tell(None, true, now);
    }

    /// Tell the weights what each backend is to weigh.
    fn weigh(&mut self, now: Moment) {
        let members = self.members.iter();
        let asked: Vec<Member<Key>> = members
            .map(|backend| Member { key: backend.key, configured: backend.orders.weight(backend.asked()) })
            .collect();
        self.controller.set_members(&asked, now);
    }

    /// The operator has set a backend's weight, or taken that back.
    pub fn set_weight(&mut self, index: usize, weight: Option<Weight>, now: Moment) {
        if let Some(backend) = self.members.get_mut(index) {
            backend.set = weight;
            self.weigh(now);
            self.tell(None, true, now);
        }
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
                        self.stirred = true;
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
            self.tell(Some(index), before.1 == State::Unknown, now);
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

    /// A backend's agent has spoken.
    pub fn ordered(&mut self, index: usize, said: agent_check::Orders, now: Moment) {
        let Some(backend) = self.members.get_mut(index) else { return };
        let was_down = backend.orders.down().is_some();
        let news = backend.orders.take(said, now);
        let name = &backend.name;
        self.news.extend(news.iter().map(|sentence| format!("{name}: {sentence}")));
        if !news.is_empty() {
            // Back from *down* is a recovery, back from *drain* is none.
            self.weigh(now);
            self.tell(Some(index), !was_down, now);
        }
    }

    fn expire_orders(&mut self, now: Moment) {
        for index in 0..self.members.len() {
            let backend = &mut self.members[index];
            let was_down = backend.orders.down().is_some();
            if let Some(sentence) = backend.orders.expire(now) {
                self.news.push(format!("{}: {sentence}", backend.name));
                self.weigh(now);
                self.tell(Some(index), !was_down, now);
            }
        }
    }

    /// A part of what a backend can do is in use.
    pub fn utilised(&mut self, index: usize, utilisation: f64, now: Moment) {
        if let Some(backend) = self.members.get_mut(index) {
            backend.load = Some(utilisation);
            self.controller.observe(backend.key, utilisation, now);
        }
    }

    /// The operator's wish for a backend.
    pub fn administer(&mut self, index: usize, admin: Admin, now: Moment) {
        if let Some(backend) = self.members.get_mut(index) {
            backend.admin = admin;
            self.tell(Some(index), true, now);
        }
    }

    /// Tell the weights who is used, after something has changed at `index`. What one backend's probes say may bring
    /// others in or out, see [`panic`].
    fn tell(&mut self, index: Option<usize>, restored: bool, now: Moment) {
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
            self.controller.health(backend.key, up, now, restored || Some(at) != index);
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
        for (key, weight) in &changed {
            if let Some(backend) = self.members.iter_mut().find(|backend| backend.key == *key) {
                backend.weight = *weight;
            }
        }
        self.expire_suspicions(now);
        !changed.is_empty()
    }

    /// What the weight of a backend is made of.
    pub fn factors(&self, index: usize, now: Moment) -> Option<Factors> {
        self.controller.explain(self.members.get(index)?.key, now)
    }

    /// The place of a backend by name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|backend| backend.name == name)
    }

    /// The place of a backend by what its probes call it.
    pub fn place(&self, key: Key) -> Option<usize> {
        self.members.iter().position(|backend| backend.key == key)
    }
}

impl Backend {
    fn new(
        config: &config::Backend,
        key: Key,
        suspicion: &Suspicion,
        served: bool,
        tuning: Tuning,
        now: Moment,
    ) -> Self {
        Self {
            key,
            name: config.name.clone(),
            address: config.address,
            configured: config.weight,
            set: None,
            leaves: false,
            stands_in: false,
            prober: None,
            quiet: None,
            max_connections: config.max_connections,
            health: if served {
                Health::restored(tuning, State::Up, "it served before the restart".to_owned(), now)
            } else {
                Health::new(tuning, now)
            },
            admin: Admin::Ready,
            orders: Orders::new(Duration::ZERO),
            takes_new: served,
            suspicion: suspicion.clone(),
            suspected_at: Timestamp::now(),
            handshakes: Handshakes::default(),
            weight: 0,
            load: None,
            since: Timestamp::now(),
        }
    }

    /// The weight that is asked for: the operator's word comes before the configuration's.
    pub fn asked(&self) -> u16 {
        self.set.map_or(self.configured, |weight| weight.of(self.configured))
    }

    /// Have its health probed after `delay` at the latest.
    pub fn hasten(&self, delay: Duration) {
        if let Some(prober) = &self.prober {
            prober.after(delay);
        }
    }

    /// Whether operator, agent and configuration want it to take new connections.
    fn wanted(&self) -> bool {
        self.admin.takes_new() && self.orders.takes_new() && self.orders.weight(self.asked()) > 0
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
pub(super) mod tests;
