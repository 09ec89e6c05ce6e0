//! A program on an interface: loaded with the constants of that interface, held by a pinned link.

use aya::{
    Ebpf, EbpfLoader,
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use lb_common::{
    Ticks,
    abi::{Layout, ProgramConfig, checksums, exit},
};

use super::{
    DataplaneError,
    pins::{MAPS, Pins},
};

/// The kernel object, built by `build.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-xdp"));

/// Name of the program in the object.
const PROGRAM: &str = "lb";

/// How the program sits on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, after the skb was made: works everywhere, slower.
    Generic,
}

/// What kind of interface it is, as far as the data path must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A driver of a physical NIC.
    Physical,
    /// One end of a veth pair.
    Veth,
    /// Another virtual one that local senders' partial checksums can come in by: virtio, tap, bridge.
    Virtual,
}

/// An interface to attach to.
#[derive(Clone, Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its id in the map of interfaces.
    pub id: u16,
    /// What it is.
    pub kind: Kind,
    /// The only mode wanted; `None`: native, or generic where the driver cannot.
    pub mode: Option<Mode>,
    /// The program that it has now: id and mode.
    pub running: Option<(u32, Mode)>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The mode that the program runs in.
    pub mode: Mode,
    /// The program's id in the kernel.
    pub program: u32,
    /// Why it is not native, where native was tried.
    pub fallback: Option<String>,
    /// Whether a running program was replaced in place.
    pub adopted: bool,
}

impl Kind {
    /// How much the checksums that come in are worth (see `lb-ebpf/src/checksum.rs`).
    pub const fn checksums(self, mode: Mode) -> u8 {
        match (self, mode) {
            (Self::Physical, _) => checksums::COMPLETE,
            (_, Mode::Native) => checksums::MAKE_WHOLE,
            (_, Mode::Generic) => checksums::KEEP_PARTIAL,
        }
    }

    /// How packets leave it.
    pub const fn exit(self, mode: Mode) -> u8 {
        match (self, mode) {
            (Self::Veth, Mode::Native) => exit::REDIRECT,
            _ => exit::TX,
        }
    }
}

/// Load the program for `port` over the pinned maps. The maps are created by the first call.
pub fn load(pins: &Pins, layout: &Layout, port: &Port, mode: Mode) -> Result<Ebpf, DataplaneError> {
    let config = ProgramConfig {
        seed: layout.seed,
        ports: layout.ports,
        interface: port.id,
        checksums: port.kind.checksums(mode),
        pad: [0; 5],
    };
    let mut loader = EbpfLoader::new();
    loader.override_global("CONFIG", &config, true);
    loader.map_max_entries("FLOWS", layout.flows);
    loader.map_max_entries("CELLS", layout.blocks * layout.ports.count());
    for (name, ..) in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut object = loader.load(OBJECT).map_err(DataplaneError::from_load)?;
    program(&mut object)?.load().map_err(DataplaneError::from_program)?;
    Ok(object)
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, DataplaneError> {
    object
        .program_mut(PROGRAM)
        .and_then(|program| program.try_into().ok())
        .ok_or(DataplaneError::Object { name: PROGRAM })
}

/// Put the program on `port`: in place of the one that an earlier agent left there, or anew.
pub fn attach(pins: &Pins, layout: &Layout, port: &Port) -> Result<(Ebpf, Attached), DataplaneError> {
    if let Some(link) = pinned_link(pins, port)? {
        return replace(pins, layout, port, link);
    }
    match port.mode {
        Some(mode) => attach_in(pins, layout, port, mode, None),
        None => match attach_in(pins, layout, port, Mode::Native, None) {
            Err(DataplaneError::Unsupported { reason, .. }) => {
                attach_in(pins, layout, port, Mode::Generic, Some(reason))
            }
            other => other,
        },
    }
}

/// A pinned link that still holds the interface, with its mode; one whose interface has gone is removed.
fn pinned_link(pins: &Pins, port: &Port) -> Result<Option<(FdLink, Mode)>, DataplaneError> {
    let path = pins.link(&port.name);
    if !path.exists() {
        return Ok(None);
    }
    let failed = |source| DataplaneError::Link { path: path.clone(), source };
    let link = FdLink::from(PinnedLink::from_pin(&path).map_err(failed)?);
    let program = link.info().map_err(failed)?.program_id();
    match port.running {
        Some((running, mode)) if running == program => return Ok(Some((link, mode))),
        _ => {}
    }
    std::fs::remove_file(&path).map_err(|source| DataplaneError::Pin { path, source })?;
    Ok(None)
}

fn replace(
    pins: &Pins,
    layout: &Layout,
    port: &Port,
    (link, mode): (FdLink, Mode),
) -> Result<(Ebpf, Attached), DataplaneError> {
    let mut object = load(pins, layout, port, mode)?;
    let path = pins.link(&port.name);
    let program = program(&mut object)?;
    let link = link.try_into().map_err(|source| DataplaneError::Link { path, source })?;
    program.attach_to_link(link).map_err(DataplaneError::from_program)?;
    let id = program.info().map_err(DataplaneError::from_program)?.id();
    Ok((object, Attached { mode, program: id, fallback: None, adopted: true }))
}

fn attach_in(
    pins: &Pins,
    layout: &Layout,
    port: &Port,
    mode: Mode,
    fallback: Option<String>,
) -> Result<(Ebpf, Attached), DataplaneError> {
    let mut object = load(pins, layout, port, mode)?;
    let program = program(&mut object)?;
    let flags = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program.attach_to_if_index(port.index, flags).map_err(|error| refused(port, mode, error))?;
    let link = program.take_link(id).map_err(DataplaneError::from_program)?;
    let path = pins.link(&port.name);
    let link: FdLink =
        link.try_into().map_err(|source: LinkError| DataplaneError::Link { path: path.clone(), source })?;
    link.pin(&path).map_err(|error| DataplaneError::Pin { path, source: std::io::Error::other(error) })?;
    let id = program.info().map_err(DataplaneError::from_program)?.id();
    Ok((object, Attached { mode, program: id, fallback, adopted: false }))
}

/// Why the kernel would not attach, in an administrator's words.
fn refused(port: &Port, mode: Mode, error: ProgramError) -> DataplaneError {
    let code = match &error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    let interface = port.name.clone();
    match code {
        Some(libc::EBUSY | libc::EEXIST) => DataplaneError::Occupied { interface },
        Some(libc::EPERM) => DataplaneError::NotPermitted,
        // Drivers have many reasons (no XDP at all, the MTU, too few queues) and a number for each.
        Some(libc::EOPNOTSUPP) if mode == Mode::Native => {
            DataplaneError::Unsupported { interface, reason: "its driver has no XDP".to_owned() }
        }
        Some(libc::ERANGE) if mode == Mode::Native && port.mode.is_none() => DataplaneError::Unsupported {
            interface,
            reason: "its MTU is too large for its driver's XDP".to_owned(),
        },
        Some(libc::ERANGE) => DataplaneError::Mtu { interface },
        Some(code) if mode == Mode::Native => DataplaneError::Unsupported {
            interface,
            reason: format!("its driver refuses: {}", std::io::Error::from_raw_os_error(code)),
        },
        _ => DataplaneError::from_program(error),
    }
}

/// The moment, on the clock that the kernel's half stamps by.
pub fn now() -> Ticks {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // `clock_gettime` fails only for clocks that do not exist.
    let now = now.unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    Ticks::from_nanos(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
