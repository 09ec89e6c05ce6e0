//! What a reload cannot change, in words that say what to type instead.

use std::collections::BTreeSet;

use lb_common::{MAX_BACKENDS, MAX_SERVICES, abi::Layout};

use crate::{
    agent::machine::addresses,
    config::{Config, Mode, Target},
};

/// What stands in the way of `wanted` in the place of `before`, a sentence each. `merged`: what would run, with those
/// that leave.
pub fn refusals(before: &Config, wanted: &Config, merged: &Config, layout: &Layout) -> Vec<String> {
    let mut refused = Vec::new();
    let mut fixed = |differs: bool, key: &str, instead: &str| {
        if differs {
            refused.push(format!("`{key}` cannot change while the agent runs; {instead}"));
        }
    };
    let restart = "restart it: `systemctl restart lb`, connections stay";
    let anew = "it needs a new data path: `lb detach`, which ends all connections, then `lb run`";
    let interfaces = |config: &Config| (config.interfaces.clone(), config.patterns.clone());
    fixed(interfaces(before) != interfaces(wanted), "interfaces", restart);
    fixed(before.xdp_mode != wanted.xdp_mode, "xdp-mode", anew);
    fixed(before.max_flows != wanted.max_flows, "max-flows", anew);
    fixed(before.source_ports != wanted.source_ports, "source-ports", anew);
    fixed(before.sources != wanted.sources, "sources", anew);
    for service in &wanted.services {
        let Some(old) = before.services.iter().find(|old| old.listen == service.listen) else { continue };
        let name = &service.name;
        if old.track != service.track {
            refused.push(format!(
                "{name}: `track` cannot change while connections are there, some of which are not recorded; remove the service, reload, and add it again when `lb status` shows it no more"
            ));
        }
        if owner(&old.target) != owner(&service.target) {
            refused.push(format!(
                "{name}: it cannot go over from {} to {} with its connections; remove the service, reload, and add it again when `lb status` shows it no more",
                describe(&old.target),
                describe(&service.target)
            ));
        }
    }
    refused.extend(too_many(merged, layout));
    refused
}

/// What finds no room in the maps.
fn too_many(merged: &Config, layout: &Layout) -> Vec<String> {
    let mut refused = Vec::new();
    let mut within = |count: usize, limit: usize, what: &str, instead: &str| {
        if count > limit {
            refused.push(format!("{count} {what} are too many: there is room for {limit}; {instead}"));
        }
    };
    let leave = "some may have been removed and have connections yet: `lb status` shows them";
    within(merged.services.len(), MAX_SERVICES as usize - 1, "services", leave);
    let pairs = merged.services.iter().map(|service| addresses(merged, &service.target).len()).sum();
    within(pairs, MAX_BACKENDS as usize - 1, "backends of services", leave);
    for (family, v4, version) in [(0, true, "IPv4"), (1, false, "IPv6")] {
        let snat = merged.services.iter().filter(|service| service.mode == Mode::Snat);
        let servers: BTreeSet<_> = snat
            .filter(|service| service.listen.address.is_ipv4() == v4)
            .flat_map(|service| {
                let protocol = service.listen.protocol;
                addresses(merged, &service.target).into_iter().map(move |server| (protocol, server))
            })
            .collect();
        let sources = merged.sources.iter().filter(|source| source.is_ipv4() == v4).count().max(1);
        let what = format!("{version} servers behind `snat`, each with {sources} source address(es),");
        let room = layout.blocks[family] as usize / sources;
        let instead = "that was settled when the data path was made: `lb detach`, which ends all connections, then `lb run` makes a larger one";
        within(servers.len(), room, &what, instead);
    }
    refused
}

fn owner(target: &Target) -> Option<&str> {
    match target {
        Target::Backends { .. } => None,
        Target::Cluster { cluster, .. } => Some(cluster),
    }
}

fn describe(target: &Target) -> String {
    match target {
        Target::Backends { .. } => "backends of its own".to_owned(),
        Target::Cluster { cluster, .. } => format!("the cluster {cluster}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::reload::testing::{config, web};

    fn layout(blocks: u32) -> Layout {
        Layout { blocks: [blocks; 2], ..Layout::default() }
    }

    #[test]
    fn what_cannot_change_is_refused_with_what_to_type() {
        let service = "[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80/tcp\"\nmode = \"dsr\"\nalgorithm = \"maglev\"\nbackends = [{ name = \"a\", address = \"10.0.0.1:80\" }]\n";
        let text = |top: &str, track: &str| format!("{top}\n{service}{track}");
        let before = config(&text("interfaces = [\"eth0\"]", ""));
        for (top, more, said) in [
            ("interfaces = [\"eth0\"]", "", vec![]),
            ("interfaces = [\"eth1\"]", "", vec!["`interfaces` cannot change", "systemctl restart lb"]),
            (
                "interfaces = [\"eth0\"]\nmax-flows = 100000",
                "",
                vec!["`max-flows` cannot change", "lb detach"],
            ),
            ("interfaces = [\"eth0\"]\nsources = [\"10.0.0.7\"]", "", vec!["`sources` cannot change"]),
            ("interfaces = [\"eth0\"]", "track = \"always\"\n", vec!["web: `track` cannot change"]),
        ] {
            let wanted = config(&text(top, more));
            let refused = refusals(&before, &wanted, &wanted, &layout(16));
            assert_eq!(refused.len(), usize::from(!said.is_empty()), "{refused:?}");
            for words in said {
                assert!(refused[0].contains(words), "{refused:?}");
            }
        }
    }

    #[test]
    fn what_has_no_room_in_the_maps_is_refused_before_anything_changes() {
        let few = web(&["a 10.0.0.1:80"]);
        let names: Vec<String> = (1..=17).map(|at| format!("b{at} 10.0.0.{at}:80")).collect();
        let many = web(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let refused = refusals(&few, &many, &many, &layout(16));
        assert_eq!(refused.len(), 1);
        assert!(refused[0].starts_with("17 IPv4 servers behind `snat`"), "{refused:?}");
        assert_eq!(refusals(&few, &many, &many, &layout(17)), Vec::<String>::new());
    }
}
