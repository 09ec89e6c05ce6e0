//! The containers of a service between two looks at the list: what events say of them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{MOST_MEMBERS, Member, name},
    Source,
    container::{Container, Part},
    event::Event,
    signal,
};

/// The containers of a service.
#[derive(Debug)]
pub struct Fleet {
    source: Source,
    containers: BTreeMap<String, Container>,
    /// Those that have been told to stop and have not ended yet. The daemon does not remember that.
    stopping: BTreeSet<String>,
}

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// The set is another one.
    Changed,
    /// The list is to be looked at.
    Look,
}

impl Fleet {
    /// A fleet of which nothing is known.
    pub const fn new(source: Source) -> Self {
        Self { source, containers: BTreeMap::new(), stopping: BTreeSet::new() }
    }

    /// These are all containers that run.
    pub fn listed(&mut self, containers: Vec<Container>) {
        self.containers = containers.into_iter().map(|container| (container.id.clone(), container)).collect();
        self.stopping.retain(|id| self.containers.contains_key(id));
    }

    /// Something has happened.
    pub fn hear(&mut self, event: &Event) -> Heard {
        let id = &event.actor.id;
        let known = self.containers.contains_key(id);
        let labelled = event.actor.attributes.get("lb.service") == Some(&self.source.service);
        match (event.kind.as_str(), event.action.as_str()) {
            ("container", "kill") if known => self.killed(id, event),
            // `stop` and `destroy` come later, and a container that is started again by its policy dies first.
            ("container", "die") if known => {
                self.containers.remove(id);
                self.stopping.remove(id);
                Heard::Changed
            }
            ("container", "kill" | "die" | "stop" | "destroy" | "oom") => Heard::Nothing,
            ("container", _) if known || labelled => Heard::Look,
            // Which of its networks a container has left says the list; the event names the container only.
            ("network", _)
                if event
                    .actor
                    .attributes
                    .get("container")
                    .is_some_and(|id| self.containers.contains_key(id)) =>
            {
                Heard::Look
            }
            _ => Heard::Nothing,
        }
    }

    /// The signal by which `docker stop` asks a container to end is the last moment to drain it: its connections have
    /// until the time-out of the stop. Any other signal means what the container makes of it.
    fn killed(&mut self, id: &str, event: &Event) -> Heard {
        let sent = event.actor.attributes.get("signal").and_then(|signal| signal::number(signal));
        let stop = self.containers.get(id).map(Container::stop_signal);
        if sent.is_some() && sent == stop && self.stopping.insert(id.to_owned()) {
            return Heard::Changed;
        }
        Heard::Nothing
    }

    /// The set, and what is wrong with containers that should be in it.
    pub fn members(&self) -> (Vec<Member>, Option<String>) {
        let (mut members, mut wrongs) = (Vec::new(), Vec::new());
        for (id, container) in &self.containers {
            match container.part(&self.source, self.stopping.contains(id)) {
                Part::Member(member, wrong) => {
                    members.push(member);
                    wrongs.extend(wrong);
                }
                Part::Unfit(wrong) => wrongs.push(wrong),
                Part::None => {}
            }
        }
        name::settle(&mut members);
        if members.len() > MOST_MEMBERS {
            wrongs.push(format!("only {MOST_MEMBERS} of {} containers are taken", members.len()));
            members.truncate(MOST_MEMBERS);
        }
        wrongs.sort();
        let first = wrongs.first().cloned();
        let trouble = first.map(|first| match wrongs.len() - 1 {
            0 => first,
            more => format!("{first}; {more} more like this"),
        });
        (members, trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, address: &str) -> Container {
        serde_json::from_value(serde_json::json!({
            "Id": id, "Name": format!("/{id}"), "State": { "Running": true },
            "Config": { "Labels": { "lb.service": "web" }, "StopSignal": "SIGQUIT" },
            "NetworkSettings": { "Networks": { "n": { "IPAddress": address } } },
        }))
        .unwrap()
    }

    fn fleet() -> Fleet {
        let source = Source {
            socket: "/run/docker.sock".into(),
            service: "web".to_owned(),
            port: 80,
            network: None,
            ipv6: false,
        };
        let mut fleet = Fleet::new(source);
        fleet.listed(vec![container("a", "172.18.0.2"), container("b", "172.18.0.3")]);
        fleet
    }

    fn event(kind: &str, action: &str, id: &str, attributes: &[(&str, &str)]) -> Event {
        let attributes: BTreeMap<_, _> = attributes.iter().copied().collect();
        let actor = serde_json::json!({ "ID": id, "Attributes": attributes });
        let event = serde_json::json!({ "Type": kind, "Action": action, "Actor": actor, "time": 1 });
        serde_json::from_value(event).unwrap()
    }

    /// `a b!`: a serves, b drains.
    fn shown(fleet: &Fleet) -> String {
        let word =
            |member: &Member| format!("{}{}", member.name, if member.draining.is_some() { "!" } else { "" });
        fleet.members().0.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_event_means_what_docker_means_by_it() {
        let ours = ("lb.service", "web");
        let table = [
            (event("container", "kill", "a", &[ours, ("signal", "3")]), Heard::Changed, "a! b"),
            (event("container", "kill", "a", &[ours, ("signal", "SIGQUIT")]), Heard::Changed, "a! b"),
            (event("container", "kill", "a", &[ours, ("signal", "15")]), Heard::Nothing, "a b"),
            (event("container", "kill", "a", &[ours, ("signal", "1")]), Heard::Nothing, "a b"),
            (event("container", "kill", "a", &[ours, ("signal", "9")]), Heard::Nothing, "a b"),
            (event("container", "kill", "a", &[ours]), Heard::Nothing, "a b"),
            (event("container", "kill", "z", &[ours, ("signal", "3")]), Heard::Nothing, "a b"),
            (event("container", "die", "b", &[ours]), Heard::Changed, "a"),
            (event("container", "die", "z", &[ours]), Heard::Nothing, "a b"),
            (event("container", "stop", "b", &[ours]), Heard::Nothing, "a b"),
            (event("container", "start", "z", &[ours]), Heard::Look, "a b"),
            (event("container", "start", "z", &[("lb.service", "api")]), Heard::Nothing, "a b"),
            (event("container", "start", "z", &[]), Heard::Nothing, "a b"),
            (event("container", "health_status: unhealthy", "a", &[ours]), Heard::Look, "a b"),
            (event("container", "pause", "a", &[ours]), Heard::Look, "a b"),
            (event("network", "disconnect", "n", &[("container", "a")]), Heard::Look, "a b"),
            (event("network", "connect", "n", &[("container", "z")]), Heard::Nothing, "a b"),
            (Event::default(), Heard::Nothing, "a b"),
        ];
        for (event, heard, wanted) in table {
            let mut fleet = fleet();
            assert_eq!((fleet.hear(&event), shown(&fleet).as_str()), (heard, wanted), "{event:?}");
        }
    }

    #[test]
    fn a_container_that_was_told_to_stop_drains_until_it_ends_whatever_lists_say() {
        let mut fleet = fleet();
        let kill = event("container", "kill", "a", &[("signal", "3")]);
        assert_eq!(fleet.hear(&kill), Heard::Changed);
        assert_eq!(fleet.hear(&kill), Heard::Nothing, "the second is no news");
        fleet.listed(vec![container("a", "172.18.0.2"), container("b", "172.18.0.3")]);
        assert_eq!(shown(&fleet), "a! b");
        assert_eq!(fleet.hear(&event("container", "die", "a", &[])), Heard::Changed);
        assert_eq!(shown(&fleet), "b");
        fleet.listed(vec![container("a", "172.18.0.2"), container("b", "172.18.0.3")]);
        assert_eq!(shown(&fleet), "a b", "it was started again");
    }

    #[test]
    fn what_is_wrong_with_many_containers_is_said_of_the_first() {
        let mut fleet = fleet();
        fleet.listed(vec![container("c", ""), container("d", ""), container("e", "172.18.0.4")]);
        let (members, trouble) = fleet.members();
        assert_eq!(members.len(), 1);
        let wanted = "container c: it has no IPv4 address of its own; 1 more like this";
        assert_eq!(trouble.as_deref(), Some(wanted));
    }
}
