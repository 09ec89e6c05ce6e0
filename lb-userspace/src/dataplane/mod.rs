//! The kernel's half as the agent holds it: programs, links, maps. Nothing else of the agent touches a BPF descriptor.
//!
//! Everything is pinned, so the data path runs on when the agent goes, and a later agent takes up what it finds: ids of
//! services, backends, interfaces and port blocks are read back from the maps, by the addresses that they stand for.
//!
//! IPv4 and IPv6 have maps of their own, behind one generic [`family`]; a service and its backends are of one family.
//! [`common`] is what both share. [`publish`] makes the maps say what is wanted, [`sweep`] ends what has run out.

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
mod load;
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

use std::net::{IpAddr, SocketAddr};

use aya::maps::{Array, MapData};
use aya_log::EbpfLogger;
use lb_common::{
    Be32, Be128,
    abi::{Layout, backend_state, purpose},
};

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
use load::Loaded;
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
    sweep: Sweep,
    /// The program of the last trace, kept for the next one.
    tracer: Option<trace::Tracer>,
}

impl Dataplane {
    /// Take up what an earlier agent left under `pins`, or begin with `fresh`, and attach to `ports`.
    ///
    /// `ports` lists each interface with its MAC; their ids are given here. Returns what became of each, in order.
    pub fn open(
        pins: &Pins,
        fresh: Layout,
        ports: &[(Port, [u8; 6])],
    ) -> Result<(Self, Vec<Attached>), DataplaneError> {
        pins.prepare()?;
        let layout = adopted_layout(pins)?.unwrap_or(fresh);
        let adopting = pins.exist();
        if !adopting {
            // The first load creates and pins the maps; the layout is what says that they are complete.
            let Some((port, _)) = ports.first() else {
                return Err(DataplaneError::TooMany { what: "no interfaces" });
            };
            Loaded::new(pins, &layout, port, Mode::Generic, purpose::SERVE)?;
            let mut map: Array<MapData, Layout> = typed(pins, "LAYOUT")?;
            map.set(0, layout, 0).map_err(DataplaneError::write("LAYOUT"))?;
        }
        pins.check(&layout)?;
        let mut dataplane = Self::adopt(pins, layout)?;
        match dataplane.attach_all(ports) {
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
            sweep: Sweep::default(),
            tracer: None,
        })
    }

    /// Attach to all, in one mode: a frame that came in natively cannot leave by an interface whose driver has no XDP, and
    /// would be lost in silence there (`ndo_xdp_xmit`).
    fn attach_all(&mut self, ports: &[(Port, [u8; 6])]) -> Result<Vec<Attached>, DataplaneError> {
        let mut attached = Vec::with_capacity(ports.len());
        for (port, mac) in ports {
            attached.push(self.attach(port.clone(), *mac)?);
        }
        let generic = |attached: &Attached| attached.mode == Mode::Generic;
        if attached.iter().any(generic) && !attached.iter().all(generic) {
            for ((port, mac), attached) in ports.iter().zip(&mut attached).filter(|(_, was)| !generic(was)) {
                self.pins.unlink(&port.name)?;
                let port = Port { mode: Some(Mode::Generic), running: None, ..port.clone() };
                let why = "another interface of this instance can only be generic, and frames must pass between them";
                *attached = Attached { fallback: Some(why.to_owned()), ..self.attach(port, *mac)? };
            }
        }
        for name in self.pins.linked_interfaces() {
            if !ports.iter().any(|(port, _)| port.name == name) {
                self.pins.unlink(&name)?;
                log::info!("{name}: detached, for the configuration does not name it any more");
            }
        }
        Ok(attached)
    }

    fn attach(&mut self, mut port: Port, mac: [u8; 6]) -> Result<Attached, DataplaneError> {
        // The id must stand before the program runs; the exit is settled once the mode is known.
        let mut way = Way {
            mac,
            interface: port.index,
            interface_mac: mac,
            exit: self.exit_of(port.index),
            mtu: port.mtu,
            sources: Vec::new(),
        };
        port.id = self.common.interface_id(&way, Some(port.mtu))?;
        let (mut loaded, attached) = attach::attach(&self.pins, &self.common.layout, &port)?;
        self.listen_to(&mut loaded, &port.name);
        way.exit = port.kind.exit(attached.mode);
        self.common.interface_id(&way, Some(port.mtu))?;
        self.attached.retain(|(known, _)| known.name != port.name);
        self.attached.push((port, attached.mode));
        Ok(attached)
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
