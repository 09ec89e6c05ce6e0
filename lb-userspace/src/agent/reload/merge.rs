//! What is to run: what the file says, whom discovery has found, and who leaves.
//!
//! Nothing that has connections disappears at once. A service, backend or node that the configuration names no more
//! becomes a *leaver*: it takes no new connections, and stays in what runs until those that it has have ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use super::super::members::Found;
use crate::{
    config::{Backend, Cluster, Config, Service, Target},
    listen::Listen,
};

/// Who is in what runs and in the configuration no more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaver {
    /// A service, with all its backends.
    Service(Listen),
    /// A backend of a service that stays.
    Backend(Listen, SocketAddr),
    /// A node of a cluster that stays.
    Node(String, SocketAddr),
}

/// Whom each source has found, by service and source.
pub type Discovered = BTreeMap<String, BTreeMap<String, Vec<Found>>>;

/// What the file says, with whom discovery has found. A name or an address that a service has already is left out.
pub fn with_discovered(file: &Config, discovered: &Discovered) -> Config {
    let mut wanted = file.clone();
    for service in &mut wanted.services {
        let Target::Backends { backends, .. } = &mut service.target else { continue };
        for found in discovered.get(&service.name).into_iter().flat_map(BTreeMap::values).flatten() {
            let fits = found.address.is_ipv4() == service.listen.address.is_ipv4();
            let known =
                backends.iter().any(|backend| backend.name == found.name || backend.address == found.address);
            if fits && !known {
                backends.push(Backend {
                    name: found.name.clone(),
                    address: found.address,
                    weight: found.weight,
                    max_connections: found.max_connections,
                });
            }
        }
    }
    wanted
}

/// `wanted`, and those of `before` that leave; who they are. Those in `gone` have left.
pub fn merge(mut wanted: Config, before: &Config, gone: &BTreeSet<Leaver>) -> (Config, BTreeSet<Leaver>) {
    let mut leavers = BTreeSet::new();
    let mut leaves = |leaver: Leaver| {
        let stays = !gone.contains(&leaver);
        if stays {
            leavers.insert(leaver);
        }
        stays
    };
    for old in &before.services {
        match wanted.services.iter_mut().find(|service| service.listen == old.listen) {
            Some(service) => backends(service, old, &mut leaves),
            None if leaves(Leaver::Service(old.listen)) => wanted.services.push(old.clone()),
            None => {}
        }
    }
    for old in &before.clusters {
        match wanted.clusters.iter_mut().find(|cluster| cluster.name == old.name) {
            Some(cluster) => nodes(cluster, old, &mut leaves),
            // Without a service that leaves, nobody has connections to its nodes.
            None if wanted.services.iter().any(|service| uses(service, &old.name)) => {
                wanted.clusters.push(old.clone());
            }
            None => {}
        }
    }
    (wanted, leavers)
}

fn backends(service: &mut Service, old: &Service, leaves: &mut impl FnMut(Leaver) -> bool) {
    let (Target::Backends { backends, .. }, Target::Backends { backends: old, .. }) =
        (&mut service.target, &old.target)
    else {
        return;
    };
    for backend in old {
        if !backends.iter().any(|known| known.address == backend.address)
            && leaves(Leaver::Backend(service.listen, backend.address))
        {
            backends.push(backend.clone());
        }
    }
}

fn nodes(cluster: &mut Cluster, old: &Cluster, leaves: &mut impl FnMut(Leaver) -> bool) {
    for node in &old.nodes {
        if !cluster.nodes.iter().any(|known| known.address == node.address)
            && leaves(Leaver::Node(cluster.name.clone(), node.address))
        {
            cluster.nodes.push(node.clone());
        }
    }
}

fn uses(service: &Service, name: &str) -> bool {
    matches!(&service.target, Target::Cluster { cluster, .. } if cluster == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::reload::testing::{config, web};

    fn backend(address: &str) -> Leaver {
        Leaver::Backend(web(&["a 10.0.0.1:80"]).services[0].listen, address.parse().unwrap())
    }

    fn addresses(config: &Config) -> Vec<String> {
        let backends = config.services.iter().flat_map(|service| match &service.target {
            Target::Backends { backends, .. } => backends.as_slice(),
            Target::Cluster { .. } => &[],
        });
        backends.map(|backend| format!("{} {}", backend.name, backend.address)).collect()
    }

    #[test]
    fn who_is_not_named_any_more_leaves_and_stays_until_he_has_gone() {
        let (a, b) = ("web1 10.0.0.1:80", "web2 10.0.0.2:80");
        for (before, wanted, gone, runs, leavers) in [
            (vec![], vec![a], vec![], vec![a], vec![]),
            (vec![a, b], vec![a], vec![], vec![a, b], vec!["10.0.0.2:80"]),
            (vec![a, b], vec![a], vec!["10.0.0.2:80"], vec![a], vec![]),
            // Come back while leaving.
            (vec![a, b], vec![b, a], vec![], vec![b, a], vec![]),
            // Another name, the same server.
            (vec![a], vec!["other 10.0.0.1:80"], vec![], vec!["other 10.0.0.1:80"], vec![]),
            // The same name, another server.
            (vec![a], vec!["web1 10.0.0.9:80"], vec![], vec!["web1 10.0.0.9:80", a], vec!["10.0.0.1:80"]),
        ] {
            let before =
                if before.is_empty() { Config { services: vec![], ..web(&[a]) } } else { web(&before) };
            let gone = gone.into_iter().map(backend).collect();
            let (merged, left) = merge(web(&wanted), &before, &gone);
            assert_eq!(addresses(&merged), runs, "{wanted:?}");
            assert_eq!(left, leavers.into_iter().map(backend).collect(), "{wanted:?}");
        }
    }

    #[test]
    fn a_service_that_leaves_keeps_its_cluster() {
        let text = "interfaces = [\"eth0\"]\n\
            [[service]]\nname = \"db\"\naddress = \"203.0.113.20:3306/tcp\"\ncluster = \"c\"\nrole = \"writer\"\n\
            [[cluster]]\nname = \"c\"\ntype = \"galera\"\nmonitor = { user = \"u\", password-file = \"pw\" }\n\
            nodes = [{ name = \"db1\", address = \"10.0.1.1:3306\" }, { name = \"db2\", address = \"10.0.1.2:3306\" }]\n";
        let before = config(text);
        let empty = Config { services: vec![], clusters: vec![], ..before.clone() };
        let service = Leaver::Service(before.services[0].listen);
        let (merged, leavers) = merge(empty.clone(), &before, &BTreeSet::new());
        assert_eq!((merged, &leavers), (before.clone(), &[service.clone()].into()));
        assert_eq!(merge(empty.clone(), &before, &[service].into()), (empty, BTreeSet::new()));
        // A node.
        let mut one = before.clone();
        one.clusters[0].nodes.remove(0);
        let (merged, leavers) = merge(one, &before, &BTreeSet::new());
        let names: Vec<&str> = merged.clusters[0].nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["db2", "db1"]);
        assert_eq!(leavers, [Leaver::Node("c".to_owned(), "10.0.1.1:3306".parse().unwrap())].into());
    }

    #[test]
    fn configured_backends_come_before_discovered_ones_and_nobody_twice() {
        let found = |name: &str, address: &str| Found {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            weight: 7,
            max_connections: None,
        };
        let list = vec![
            found("web1", "10.0.0.8:80"),
            found("again", "10.0.0.1:80"),
            found("six", "[2001:db8::1]:80"),
            found("new", "10.0.0.9:80"),
        ];
        let other = vec![found("new2", "10.0.0.9:80"), found("more", "10.0.0.10:80")];
        let sources = [("a".to_owned(), list), ("b".to_owned(), other)].into();
        let discovered = [("web".to_owned(), sources)].into();
        let merged = with_discovered(&web(&["web1 10.0.0.1:80"]), &discovered);
        assert_eq!(addresses(&merged), ["web1 10.0.0.1:80", "new 10.0.0.9:80", "more 10.0.0.10:80"]);
    }
}
