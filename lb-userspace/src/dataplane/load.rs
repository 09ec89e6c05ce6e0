//! The kernel object, loaded with the constants of one interface over the maps that all share.

use std::path::Path;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, PerCpuArray, ProgramArray},
    programs::Xdp,
};
use lb_common::{
    abi::{Layout, ProgramConfig, Stations},
    program::{ENTRY, Stage},
};

use super::{
    DataplaneError,
    attach::{Mode, Port},
    pins::{Pins, entries, maps},
};

/// The kernel object, built by `build.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-xdp"));

/// The array of programs that the entry hands packets on to; each loaded object has its own.
const PROGRAMS: &str = "PROGRAMS";

/// What a program that captures keeps for itself; each loaded object has its own.
const MOMENT: &str = "MOMENT";

/// A loaded object: its programs are in the kernel, and find each other.
pub(super) struct Loaded {
    pub(super) object: Ebpf,
    /// The id of the interface that it is for.
    pub(super) id: u16,
    /// Held here, for the kernel empties it with its last holder or pin.
    programs: Map,
}

impl Loaded {
    /// Load all programs for `port` over the pinned maps. The maps are created by the first call.
    pub(super) fn new(
        pins: &Pins,
        layout: &Layout,
        port: &Port,
        mode: Mode,
        purpose: u8,
    ) -> Result<Self, DataplaneError> {
        let config = ProgramConfig {
            seed: layout.seed,
            ports: layout.ports,
            bucket_masks: layout.buckets.map(|buckets| buckets.wrapping_sub(1)),
            interface: port.id,
            checksums: port.kind.checksums(mode),
            joined: u8::from(mode == Mode::Generic),
            purpose,
            pad: [0; 3],
        };
        let mut object = over_maps(pins, layout, &config, &port.stations)?;
        let programs = object.take_map(PROGRAMS).ok_or(DataplaneError::Object { name: PROGRAMS })?;
        let mut loaded = Self { object, id: port.id, programs };
        loaded.fill()?;
        Ok(loaded)
    }

    /// Load the further programs and the entry.
    fn fill(&mut self) -> Result<(), DataplaneError> {
        let failed = DataplaneError::write(PROGRAMS);
        let mut array = ProgramArray::try_from(&mut self.programs).map_err(&failed)?;
        for stage in Stage::ALL {
            let program = xdp(&mut self.object, stage.name())?;
            program.load().map_err(DataplaneError::from_program)?;
            let fd = program.fd().map_err(DataplaneError::from_program)?;
            array.set(stage as u32, fd, 0).map_err(&failed)?;
        }
        self.entry()?.load().map_err(DataplaneError::from_program)
    }

    /// The program that is attached.
    pub(super) fn entry(&mut self) -> Result<&mut Xdp, DataplaneError> {
        xdp(&mut self.object, ENTRY)
    }

    /// The map `MOMENT`. What is attached or pinned stays in the kernel.
    pub(super) fn into_moment(mut self) -> Result<PerCpuArray<MapData, u64>, DataplaneError> {
        let map = self.object.take_map(MOMENT).ok_or(DataplaneError::Object { name: MOMENT })?;
        PerCpuArray::try_from(map).map_err(DataplaneError::write(MOMENT))
    }

    /// Pin the array of further programs.
    pub(super) fn pin_programs(&self, path: &Path) -> Result<(), DataplaneError> {
        self.programs.pin(path).map_err(|error| DataplaneError::pin(path, error))
    }
}

/// The object over the pinned maps, its programs not loaded yet.
pub(super) fn over_maps(
    pins: &Pins,
    layout: &Layout,
    config: &ProgramConfig,
    stations: &Stations,
) -> Result<Ebpf, DataplaneError> {
    let mut loader = EbpfLoader::new();
    loader.override_global("CONFIG", config, true);
    loader.override_global("STATIONS", stations, true);
    for shape in maps() {
        let (name, .., fixed) = shape;
        if fixed.is_none() {
            loader.map_max_entries(name, entries(shape, layout));
        }
        loader.map_pin_path(name, pins.map(name));
    }
    loader.load(OBJECT).map_err(DataplaneError::from_load)
}

fn xdp<'a>(object: &'a mut Ebpf, name: &'static str) -> Result<&'a mut Xdp, DataplaneError> {
    object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Object { name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::testing::{LAYOUT, with_pins};

    #[test]
    fn the_kernel_object_declares_the_maps_that_are_adopted_and_all_stages() {
        with_pins(|pins| {
            pins.prepare().expect("a BPF file system");
            let mut object =
                over_maps(pins, &LAYOUT, &ProgramConfig::default(), &Stations::ANY).expect("an object");
            pins.check(&LAYOUT).expect("the shapes that this agent would adopt");
            assert!(object.take_map(PROGRAMS).is_some());
            for name in Stage::ALL.map(Stage::name).into_iter().chain([ENTRY]) {
                assert!(object.program(name).is_some(), "{name}");
            }
        });
    }
}
