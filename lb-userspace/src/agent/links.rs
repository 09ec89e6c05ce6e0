//! Interfaces that come and go: what matches a pattern of the configuration is attached to when it appears, and
//! forgotten when it goes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{controller::Controller, machine};
use crate::{
    config::{Config, Pattern, XdpMode},
    dataplane::{Appeared, Attached, Mode, Way},
    netlink::{Interface, NextHop, NextHopChanged},
};

/// What is known of interfaces, beyond those that are attached to from the start.
#[derive(Debug, Default)]
pub struct Links {
    patterns: Vec<Pattern>,
    mode: XdpMode,
    /// Those that the configuration names in full: whatever becomes of them is not a matter of patterns.
    named: Vec<String>,
    /// Those that are being attached to, or are attached, or refused; by index.
    taken: BTreeMap<u32, Interface>,
    /// Those of them that are being attached to.
    attaching: BTreeSet<u32>,
    /// Whether the interfaces have been heard of at all.
    told: bool,
    /// The bridges: what is behind one is reached through it, though no program is on it.
    bridges: HashMap<u32, Interface>,
    /// What was last heard of each backend's next hop: an interface may come to be ours after it.
    hops: BTreeMap<IpAddr, NextHopChanged>,
}

impl Links {
    /// Nothing is known yet but the interfaces that are `attached` already.
    pub fn new(config: &Config, mode: XdpMode, attached: &[(Interface, Attached, u8)]) -> Self {
        let taken = attached.iter().map(|(interface, ..)| (interface.index, interface.clone())).collect();
        let (patterns, named) = (config.patterns.clone(), config.interfaces.clone());
        Self { patterns, mode, named, taken, ..Self::default() }
    }

    /// Whether an interface is to be attached to. A container engine makes both ends of a veth in this namespace, under
    /// like names, and then moves the container's: until then neither is, and never that one.
    fn matches(&self, interface: &Interface) -> bool {
        let in_place = interface.kind.as_deref() != Some("veth") || interface.peer_elsewhere;
        in_place
            && !self.named.contains(&interface.name)
            && self.patterns.iter().any(|pattern| pattern.matches(&interface.name))
    }
}

impl Controller {
    /// The interfaces are these now.
    pub(super) fn links(&mut self, interfaces: Vec<Interface>) {
        let living: BTreeSet<u32> = interfaces.iter().map(|interface| interface.index).collect();
        self.links.told = true;
        self.forget_gone(&living);
        let bridge = |interface: &Interface| interface.kind.as_deref() == Some("bridge");
        self.links.bridges = interfaces
            .iter()
            .filter(|interface| bridge(interface))
            .map(|interface| (interface.index, interface.clone()))
            .collect();
        for interface in interfaces {
            if self.links.matches(&interface) && !self.links.taken.contains_key(&interface.index) {
                self.take_interface(interface);
            }
        }
        self.hops_again();
    }

    /// What is gone is neither in the status any more nor in the data path.
    fn forget_gone(&mut self, living: &BTreeSet<u32>) {
        let named = self.links.named.clone();
        let gone =
            |interface: &Interface| !living.contains(&interface.index) && !named.contains(&interface.name);
        for (interface, ..) in self.fixed.attached.extract_if(.., |(interface, ..)| gone(interface)) {
            log::info!("{}: gone", interface.name);
        }
        self.links.taken.retain(|index, _| living.contains(index));
        self.links.attaching.retain(|index| living.contains(index));
        // An interface of the configuration that is away for a moment keeps its place.
        let kept = self.fixed.attached.iter().map(|(interface, ..)| interface.index);
        self.dataplane.keep_interfaces(living.iter().copied().chain(kept).collect());
    }

    fn take_interface(&mut self, interface: Interface) {
        match machine::appeared(&interface, self.links.mode) {
            Ok((port, mac)) => {
                self.links.attaching.insert(interface.index);
                self.dataplane.attach(port, mac);
            }
            Err(error) => log::warn!("{}: not attached: {error}", interface.name),
        }
        self.links.taken.insert(interface.index, interface);
    }

    /// What became of an interface that had appeared.
    pub(super) fn appeared(&mut self, Appeared { name, index, result }: &Appeared) {
        self.links.attaching.remove(index);
        let Some(interface) = self.links.taken.get(index).cloned() else {
            log::debug!("{name}: gone before it was attached");
            return;
        };
        match result {
            Ok((attached, exit)) => {
                say(name, attached);
                self.fixed.attached.retain(|(known, ..)| known.index != *index && known.name != *name);
                self.fixed.attached.push((interface, attached.clone(), *exit));
            }
            Err(error) => log::error!("{name}: not attached: {error}"),
        }
        self.hops_again();
    }

    /// A way by a bridge that interfaces of a pattern may be ports of: answers come in by the ports.
    pub(super) fn way_by_bridge(&self, hop: &NextHop, sources: Vec<IpAddr>) -> Option<Way> {
        let bridge = self.links.bridges.get(&hop.interface).filter(|_| !self.links.patterns.is_empty())?;
        Some(Way {
            mac: hop.mac?,
            interface: hop.interface,
            interface_mac: bridge.mac?,
            mtu: hop.mtu,
            exit: lb_common::abi::exit::STACK,
            sources,
        })
    }

    /// Whether an interface is still to be judged, by its kind or by an attempt to attach to it. So is a bridge while one
    /// that may be a port of it is being attached to: a container's answers would not be seen before.
    pub(super) fn may_come_to_be_ours(&self, index: u32) -> bool {
        let links = &self.links;
        let attaching = links.attaching.contains(&index)
            || links.bridges.contains_key(&index) && !links.attaching.is_empty();
        !links.patterns.is_empty() && (!links.told || attaching)
    }

    /// The name of an interface that backends are reached by.
    pub(super) fn interface_name(&self, index: u32) -> &str {
        let attached = self.fixed.attached.iter().find(|(known, ..)| known.index == index);
        let known = attached.map(|(known, ..)| known).or_else(|| self.links.bridges.get(&index));
        known.map_or("?", |known| known.name.as_str())
    }

    /// Remember what was heard of a next hop.
    pub(super) fn remember_hop(&mut self, changed: &NextHopChanged) {
        if !self.links.patterns.is_empty() {
            self.links.hops.insert(changed.backend, changed.clone());
        }
    }

    /// Judge all next hops again, by the interfaces of now.
    fn hops_again(&mut self) {
        for changed in std::mem::take(&mut self.links.hops).into_values() {
            self.hop(&changed);
        }
    }
}

/// One line for an interface that is attached.
pub(super) fn say(name: &str, attached: &Attached) {
    let mode = match attached.mode {
        Mode::Native => "native",
        Mode::Generic => "generic",
    };
    let how = if attached.adopted { "taken up" } else { "attached" };
    match &attached.fallback {
        Some(why) => log::warn!("{name}: {how}, generic and so slower: {why}"),
        None => log::info!("{name}: {how}, {mode}, program {}", attached.program),
    }
}
