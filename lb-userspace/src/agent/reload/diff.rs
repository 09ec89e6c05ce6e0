//! What one configuration changes in another, for the log, `lb reload` and `lb check --diff`.

use std::fmt::Display;

use crate::{
    api::{Change, ChangeKind},
    config::{Backend, Cluster, Config, NoBackend, Service, Target, Track, spell},
    listen,
};

/// The changes from `before` to `after`, in the order of the file; what is removed comes after what stays.
pub fn changes(before: &Config, after: &Config) -> Vec<Change> {
    let mut said = Said::default();
    let after_silence = [&before.agent_lost_after, &after.agent_lost_after];
    said.value("agent", "agent-lost-after", after_silence, |silence| spell(*silence));
    let renamed = |service: &Service| {
        let same = before.services.iter().find(|old| old.listen == service.listen);
        same.filter(|old| !after.services.iter().any(|new| new.name == old.name))
    };
    for service in &after.services {
        match (before.services.iter().find(|old| old.name == service.name), renamed(service)) {
            (Some(old), _) => changed_service(&mut said, old, service),
            (None, Some(old)) => {
                said.add(ChangeKind::Changed, &service.name, format!("was called {}", old.name));
                changed_service(&mut said, old, service);
            }
            (None, None) => {
                let with = match &service.target {
                    Target::Backends { backends, .. } => format!("{} backend(s)", backends.len()),
                    Target::Cluster { cluster, .. } => format!("the cluster {cluster}"),
                };
                said.add(
                    ChangeKind::Added,
                    &service.name,
                    format!("opens at {} with {with}", service.listen),
                );
            }
        }
    }
    let gone_services = gone(&before.services, &after.services, |service| &service.name);
    let at = |listen| after.services.iter().any(|service| service.listen == listen);
    for old in gone_services.into_iter().filter(|old| !at(old.listen)) {
        let text = "takes no new connections; those that it has may finish";
        said.add(ChangeKind::Removed, &old.name, text.to_owned());
    }
    for cluster in &after.clusters {
        match before.clusters.iter().find(|old| old.name == cluster.name) {
            Some(old) => changed_cluster(&mut said, old, cluster),
            None => said.add(ChangeKind::Added, &cluster.name, format!("{} node(s)", cluster.nodes.len())),
        }
    }
    for old in gone(&before.clusters, &after.clusters, |cluster| &cluster.name) {
        said.add(ChangeKind::Removed, &old.name, "is watched no more".to_owned());
    }
    said.0
}

/// Those of `before` whose name is not in `after`.
fn gone<'a, T>(before: &'a [T], after: &'a [T], name: impl Fn(&T) -> &str) -> Vec<&'a T> {
    before.iter().filter(|old| !after.iter().any(|new| name(new) == name(old))).collect()
}

#[derive(Default)]
struct Said(Vec<Change>);

impl Said {
    fn add(&mut self, kind: ChangeKind, name: &str, text: String) {
        self.0.push(Change { kind, name: name.to_owned(), text });
    }

    /// A setting with both its values.
    fn value<T: PartialEq>(
        &mut self,
        name: &str,
        key: &str,
        [old, new]: [&T; 2],
        show: impl Fn(&T) -> String,
    ) {
        if old != new {
            self.add(ChangeKind::Changed, name, format!("{key} {} → {}", show(old), show(new)));
        }
    }

    /// A setting whose values are too long for a line.
    fn whole<T: PartialEq>(&mut self, name: &str, key: &str, [old, new]: [&T; 2]) {
        if old != new {
            self.add(ChangeKind::Changed, name, format!("{key} changes"));
        }
    }
}

fn shown(value: &impl Display) -> String {
    value.to_string()
}

fn limit(value: Option<u32>) -> String {
    value.map_or_else(|| "none".to_owned(), |limit| limit.to_string())
}

fn changed_service(said: &mut Said, old: &Service, new: &Service) {
    let name = &new.name;
    let before = said.0.len();
    if old.listen != new.listen {
        let text = format!(
            "address {} → {}: the new one opens, connections at the old one may finish",
            old.listen, new.listen
        );
        said.add(ChangeKind::Changed, name, text);
    }
    if old.mode != new.mode {
        let text = format!("mode {} → {}: connections that there are stay as they are", old.mode, new.mode);
        said.add(ChangeKind::Changed, name, text);
    }
    said.value(name, "algorithm", [&old.algorithm, &new.algorithm], shown);
    said.value(name, "track", [&old.track, &new.track], |track| match track {
        Track::Always => "always".to_owned(),
        Track::OnChange => "on-change".to_owned(),
    });
    said.value(name, "no-backend", [&old.no_backend, &new.no_backend], |no_backend| match no_backend {
        NoBackend::Reset => "reset".to_owned(),
        NoBackend::Hold(hold) => format!("hold for {hold:?}"),
        NoBackend::Drop => "drop".to_owned(),
    });
    said.value(name, "agent-lost", [&old.agent_lost, &new.agent_lost], shown);
    said.whole(name, "timeouts", [&old.timeouts, &new.timeouts]);
    said.value(name, "max-connections", [&old.max_connections, &new.max_connections], |value| limit(*value));
    said.whole(name, "rate-limit", [&old.rate_limit, &new.rate_limit]);
    said.value(name, "echo", [&old.echo, &new.echo], shown);
    match (&old.target, &new.target) {
        (
            Target::Backends { backends: old, discover: old_discover, check: old_check, load: old_load },
            Target::Backends { backends: new, discover, check, load },
        ) => {
            said.whole(name, "discover", [old_discover, discover]);
            said.whole(name, "check", [old_check, check]);
            said.whole(name, "load", [old_load, load]);
            changed_backends(said, name, old, new);
        }
        (old, new) => said.whole(name, "who serves", [old, new]),
    }
    // Whatever has no words of its own yet.
    if said.0.len() == before && old.name == new.name {
        said.whole(name, "it", [old, new]);
    }
}

fn changed_backends(said: &mut Said, service: &str, before: &[Backend], after: &[Backend]) {
    for new in after {
        let name = format!("{service}/{}", new.name);
        let address = listen::server(new.address);
        let Some(old) = before.iter().find(|old| old.name == new.name) else {
            let renamed = before
                .iter()
                .find(|old| old.address == new.address && !after.iter().any(|new| new.name == old.name));
            match renamed {
                Some(old) => {
                    said.add(ChangeKind::Changed, &name, format!("was called {service}/{}", old.name));
                }
                None => {
                    said.add(ChangeKind::Added, &name, format!("at {address}, weight {}", new.weight));
                }
            }
            continue;
        };
        if old.address != new.address {
            let text = format!(
                "address {} → {address}: the old one is drained, its connections may finish",
                listen::server(old.address)
            );
            said.add(ChangeKind::Changed, &name, text);
        }
        said.value(&name, "weight", [&old.weight, &new.weight], shown);
        said.value(&name, "max-connections", [&old.max_connections, &new.max_connections], |value| {
            limit(*value)
        });
    }
    for old in gone(before, after, |backend| &backend.name) {
        if !after.iter().any(|new| new.address == old.address) {
            let name = format!("{service}/{}", old.name);
            said.add(ChangeKind::Removed, &name, "drained: its connections may finish".to_owned());
        }
    }
}

fn changed_cluster(said: &mut Said, old: &Cluster, new: &Cluster) {
    let before = said.0.len();
    let name = &new.name;
    said.whole(name, "monitor", [&old.monitor, &new.monitor]);
    said.whole(name, "donor", [&old.donor, &new.donor]);
    for node in &new.nodes {
        let name = format!("{}/{}", new.name, node.name);
        let Some(known) = old.nodes.iter().find(|known| known.name == node.name) else {
            let text = format!("at {}, priority {}", node.address, node.priority);
            said.add(ChangeKind::Added, &name, text);
            continue;
        };
        said.value(&name, "address", [&known.address, &node.address], shown);
        said.value(&name, "priority", [&known.priority, &node.priority], shown);
        said.value(&name, "max-connections", [&known.max_connections, &node.max_connections], |value| {
            limit(*value)
        });
    }
    for node in gone(&old.nodes, &new.nodes, |node| &node.name) {
        let text = "hands its role over as soon as another node can take it, and goes".to_owned();
        said.add(ChangeKind::Removed, &format!("{}/{}", new.name, node.name), text);
    }
    if said.0.len() == before {
        said.whole(name, "it", [old, new]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::reload::testing::{config, web};

    fn lines(before: &Config, after: &Config) -> Vec<String> {
        changes(before, after).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_of_backends_are_told_one_by_one() {
        let (a, b) = ("web1 10.0.0.1:80", "web2 10.0.0.2:80");
        for (before, after, said) in [
            (vec![a], vec![a], vec![]),
            (vec![a, b], vec![b, a], vec!["web: it changes"]),
            (vec![a], vec![a, b], vec!["web/web2: added: at 10.0.0.2:80, weight 100"]),
            (vec![a, b], vec![a], vec!["web/web2: removed: drained: its connections may finish"]),
            (vec![a], vec!["web9 10.0.0.1:80"], vec!["web/web9: was called web/web1"]),
            (
                vec![a],
                vec!["web1 10.0.0.9:80"],
                vec![
                    "web/web1: address 10.0.0.1:80 → 10.0.0.9:80: the old one is drained, its connections may finish",
                ],
            ),
            (vec![a], vec!["web1 10.0.0.1:80 7"], vec!["web/web1: weight 100 → 7"]),
        ] {
            assert_eq!(lines(&web(&before), &web(&after)), said, "{before:?} {after:?}");
        }
    }

    #[test]
    fn changes_of_services_are_told_one_by_one() {
        let text = |lines: &str| {
            let backends = "backends = [{ name = \"a\", address = \"10.0.0.1:80\" }]";
            let address = if lines.contains("address") { "" } else { "address = \"203.0.113.10:80/tcp\"\n" };
            format!("interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\n{address}{lines}\n{backends}\n")
        };
        for (lines_after, said) in [
            ("", vec![]),
            ("algorithm = \"round-robin\"", vec!["web: algorithm least-load → round-robin"]),
            ("mode = \"dnat\"", vec!["web: mode snat → dnat: connections that there are stay as they are"]),
            ("no-backend = \"drop\"", vec!["web: no-backend reset → drop"]),
            ("agent-lost = \"pass\"", vec!["web: agent-lost keep → pass"]),
            ("max-connections = 7", vec!["web: max-connections none → 7"]),
            ("check = { type = \"http\", path = \"/ping\" }", vec!["web: check changes"]),
            (
                "address = \"203.0.113.11:80/tcp\"",
                vec![
                    "web: address 203.0.113.10:80/tcp → 203.0.113.11:80/tcp: the new one opens, connections at the old one may finish",
                ],
            ),
        ] {
            assert_eq!(lines(&config(&text("")), &config(&text(lines_after))), said, "{lines_after}");
        }
        let one = config(&text(""));
        let mut other = one.clone();
        other.agent_lost_after *= 2;
        assert_eq!(lines(&one, &other), ["agent: agent-lost-after 30s → 1m"]);
        other.agent_lost_after = one.agent_lost_after;
        other.services[0].name = "shop".to_owned();
        assert_eq!(lines(&one, &other), ["shop: was called web"]);
        other.services[0].listen.address = [203, 0, 113, 11].into();
        assert_eq!(
            lines(&one, &other),
            [
                "shop: added: opens at 203.0.113.11:80/tcp with 1 backend(s)",
                "web: removed: takes no new connections; those that it has may finish",
            ]
        );
    }
}
