//! The kernel's half as the agent holds it: programs, links, maps. Nothing else of the agent touches a BPF descriptor.
//!
//! Everything is pinned, so the data path runs on when the agent goes, and a later agent takes up what it finds: ids of
//! services, backends, interfaces and port blocks are read back from the maps, by the addresses that they stand for.
//!
//! IPv4 and IPv6 have maps of their own, behind one generic [`family`]; a service and its backends are of one family.
//! [`common`] is what both share. [`publish`] makes the maps say what is wanted, [`sweep`] ends what has run out.

mod appear;
pub mod attach;
mod backend;
mod capture;
mod capturing;
mod common;
mod counts;
mod cuts;
pub mod desired;
mod error;
mod events;
mod family;
mod heartbeat;
mod load;
mod onward;
pub mod pins;
#[cfg(test)]
mod programs_tests;
mod publish;
#[cfg(test)]
mod publish_tests;
mod rings;
mod service;
pub mod shared;
mod sweep;
pub mod task;
#[cfg(test)]
mod testing;
mod trace;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aya::maps::{Array, MapData};
use aya_log::EbpfLogger;
use lb_common::{
    Be32, Be128,
    abi::{Layout, ProgramConfig, Stations, backend_state},
};

pub use appear::Appeared;
pub use attach::{Attached, Kind, Mode, Port, now};
pub use capture::{Captured, Lost};
pub use counts::BackendCounts;
pub use desired::{Desired, DesiredBackend, DesiredService, Fate, Rate, Timeouts, Way};
pub use error::DataplaneError;
pub use events::{Event, What};
pub use load::OBJECT;
pub use pins::Pins;
pub use sweep::{Fault, Swept};
pub use trace::{Question, Trace};

use crate::listen::Listen;
use common::{Common, typed};
use family::{Family, Ip};
use load::{Loaded, over_maps};
use onward::Onward;
use service::KnownService;
use sweep::Sweep;

/// The data path of one instance.
pub struct Dataplane {
    pins: Pins,
    common: Common,
    v4: Family<Be32>,
    v6: Family<Be128>,
    /// The interfaces that a program of ours is on.
    attached: Vec<(Port, Mode)>,
    /// What the programs log, by interface.
    loggers: Vec<(String, EbpfLogger<&'static dyn log::Log>)>,
    /// A publication that waits for the rings' next change.
    waiting: Option<Desired>,
    /// Services of an earlier agent that are wanted no more and have connections; `None` before the first publication.
    retired: Option<BTreeSet<Listen>>,
    sweep: Sweep,
    /// The program of the last trace, kept for the next one.
    tracer: Option<trace::Tracer>,
    /// What sends on what leaves by the kernel's stack; `None` where nothing does.
    onward: Option<Onward>,
}

impl Dataplane {
    /// Take up what an earlier agent left under `pins`, or begin with `fresh`, and attach to `ports`.
    ///
    /// `ports` lists each interface with its MAC; their ids are given here. Those of the names in
    /// `coming` are left as they are, for their turn comes later. `crossing`: packets may leave by another interface than
    /// they came in by. `silence`: how long this agent may be silent before it counts as lost. Returns what became of each,
    /// in order.
    pub fn open(
        pins: &Pins,
        fresh: Layout,
        ports: &[(Port, [u8; 6])],
        coming: &[String],
        crossing: bool,
        silence: Duration,
    ) -> Result<(Self, Vec<Attached>), DataplaneError> {
        pins.prepare()?;
        let layout = adopted_layout(pins)?.unwrap_or(fresh);
        let adopting = pins.exist();
        if !adopting {
            // The first load creates and pins the maps; the layout is what says that they are complete.
            over_maps(pins, &layout, &ProgramConfig::default(), &Stations::ANY)?;
            let mut map: Array<MapData, Layout> = typed(pins, "LAYOUT")?;
            map.set(0, layout, 0).map_err(DataplaneError::write("LAYOUT"))?;
        }
        pins.check(&layout)?;
        let mut dataplane = Self::adopt(pins, layout)?;
        dataplane.common.heartbeat.allow(silence);
        dataplane.beat()?;
        if crossing {
            dataplane.onward = Some(Onward::load(pins, dataplane.layout())?);
        }
        match dataplane.attach_all(ports, coming) {
            Ok(attached) => Ok((dataplane, attached)),
            Err(error) => {
                // What was not there before shall not be there after a refusal.
                if !adopting {
                    let _ = pins.remove();
                }
                Err(error)
            }
        }
    }

    /// Read back what the maps hold.
    fn adopt(pins: &Pins, layout: Layout) -> Result<Self, DataplaneError> {
        let mut common = Common::adopt(pins, layout)?;
        let v4 = Family::adopt(pins, &mut common)?;
        let v6 = Family::adopt(pins, &mut common)?;
        let last = |numbers: Option<&u16>| numbers.copied().unwrap_or(0);
        common.last_backend = last(v4.backends.keys().next_back()).max(last(v6.backends.keys().next_back()));
        Ok(Self {
            pins: pins.clone(),
            common,
            v4,
            v6,
            attached: Vec::new(),
            loggers: Vec::new(),
            waiting: None,
            retired: None,
            sweep: Sweep::default(),
            tracer: None,
            onward: None,
        })
    }

    /// Attach to all, and to no other any more.
    fn attach_all(
        &mut self,
        ports: &[(Port, [u8; 6])],
        coming: &[String],
    ) -> Result<Vec<Attached>, DataplaneError> {
        let mut attached = Vec::with_capacity(ports.len());
        for (port, mac) in ports {
            let port = self.prepare(port.clone(), *mac)?;
            let (loaded, what) = attach::attach(&self.pins, &self.common.layout, &port)?;
            attached.push(self.settle(port, loaded, what)?);
            // Loading takes a second for each interface, and longer on a busy machine.
            self.beat()?;
        }
        for name in self.pins.linked_interfaces() {
            if !coming.contains(&name) && !ports.iter().any(|(port, _)| port.name == name) {
                self.pins.unlink(&name)?;
                let there = nix::net::if_::if_nametoindex(name.as_str()).is_ok();
                let why = if there { "the configuration does not name it any more" } else { "it is gone" };
                log::info!("{name}: detached, for {why}");
            }
        }
        Ok(attached)
    }

    /// Give an interface its id, and whatever must stand before a program runs there.
    fn prepare(&mut self, mut port: Port, mac: [u8; 6]) -> Result<Port, DataplaneError> {
        // The exit is settled once the mode is known.
        port.id = self.interface(&port, mac, self.exit_of(port.index))?;
        if let Some(onward) = &mut self.onward {
            onward.attach(&port.name)?;
        }
        Ok(port)
    }

    /// A program runs on a prepared interface.
    fn settle(
        &mut self,
        port: Port,
        mut loaded: Loaded,
        attached: Attached,
    ) -> Result<Attached, DataplaneError> {
        self.listen_to(&mut loaded, &port.name);
        let mac = self.common.interfaces.get(usize::from(port.id)).map_or([0; 6], |known| known.mac);
        self.interface(&port, mac, port.exit(attached.mode))?;
        self.attached.retain(|(known, _)| known.name != port.name);
        self.attached.push((port, attached.mode));
        Ok(attached)
    }

    /// The id of an interface of ours.
    fn interface(&mut self, port: &Port, mac: [u8; 6], exit: u8) -> Result<u16, DataplaneError> {
        let (interface, mtu) = (port.index, port.mtu);
        let way = Way { mac, interface, interface_mac: mac, exit, mtu, sources: Vec::new() };
        self.common.interface_id(&way, Some(mtu))
    }

    /// Forget the interfaces whose indices are not among these any more, with what is pinned for them.
    fn keep_interfaces(&mut self, living: &BTreeSet<u32>) -> Result<(), DataplaneError> {
        let gone: Vec<String> = self
            .attached
            .extract_if(.., |(port, _)| !living.contains(&port.index))
            .map(|(port, _)| port.name)
            .collect();
        self.common.keep_interfaces(living)?;
        self.loggers.retain(|(name, _)| !gone.contains(name));
        for name in gone {
            // Another one may have come under its name, and be attached.
            if !self.attached.iter().any(|(port, _)| port.name == name) {
                self.pins.unlink(&name)?;
            }
        }
        Ok(())
    }

    /// Hear what a program logs, in place of the one that was there before.
    fn listen_to(&mut self, loaded: &mut Loaded, interface: &str) {
        self.loggers.retain(|(name, _)| name != interface);
        match EbpfLogger::init(&mut loaded.object) {
            Ok(logger) => self.loggers.push((interface.to_owned(), logger)),
            Err(error) => log::warn!("{interface}: what the program logs will not be seen: {error}"),
        }
    }

    /// What took new connections when it was taken up: (service, backend).
    pub fn active(&self) -> Vec<(Listen, SocketAddr)> {
        active(&self.v4).chain(active(&self.v6)).collect()
    }

    /// How packets leave an interface that this instance is attached to or has sent through; one of `abi::exit`.
    pub fn exit_of(&self, interface: u32) -> u8 {
        let known = self.common.interfaces.iter().find(|known| known.index == interface);
        known.map_or(lb_common::abi::exit::REDIRECT, |known| known.exit)
    }

    /// Pass on what the programs have logged: rare diagnostics only.
    pub fn relay_logs(&mut self) {
        for (_, logger) in &mut self.loggers {
            logger.flush();
        }
    }

    /// The layout in use: an adopted one may differ from the configuration.
    pub fn layout(&self) -> &Layout {
        &self.common.layout
    }

    /// Name a backend (by id) by its service's and its own address, for messages.
    pub fn name_of(&self, number: u16) -> Option<(Listen, SocketAddr)> {
        self.v4.name_of(number).or_else(|| self.v6.name_of(number))
    }

    /// Name a service by its id.
    pub fn service_name(&self, id: u16) -> Option<Listen> {
        let known = self.v4.service_by_id(id).or_else(|| self.v6.service_by_id(id));
        known.map(|(listen, _)| *listen)
    }

    /// The index of the interface with an id.
    fn interface_index(&self, id: u16) -> Option<u32> {
        let known = self.common.interfaces.get(usize::from(id))?;
        (known.index != 0).then_some(known.index)
    }

    /// The address that clients of a backend (by id) connect to.
    fn service_address(&self, number: u16) -> Option<IpAddr> {
        let v4 = self.v4.backends.get(&number).map(|backend| backend.service_address.ip());
        v4.or_else(|| self.v6.backends.get(&number).map(|backend| backend.service_address.ip()))
    }

    fn known(&self, listen: &Listen) -> Option<&KnownService> {
        self.v4.services.get(listen).or_else(|| self.v6.services.get(listen))
    }
}

fn active<A: Ip>(family: &Family<A>) -> impl Iterator<Item = (Listen, SocketAddr)> + '_ {
    let active = family.backends.iter().filter(|(_, known)| known.state == backend_state::ACTIVE);
    active.filter_map(|(number, _)| family.name_of(*number))
}

/// The layout of pinned maps; what was left half made is removed.
fn adopted_layout(pins: &Pins) -> Result<Option<Layout>, DataplaneError> {
    if !pins.exist() {
        return Ok(None);
    }
    let map: Array<MapData, Layout> = typed(pins, "LAYOUT")?;
    let layout = map.get(&0, 0).map_err(DataplaneError::write("LAYOUT"))?;
    if layout.blocks != [0; 2] {
        return Ok(Some(layout));
    }
    pins.remove().map_err(|source| DataplaneError::Pin { path: pins.map("LAYOUT"), source })?;
    pins.prepare()?;
    Ok(None)
}
