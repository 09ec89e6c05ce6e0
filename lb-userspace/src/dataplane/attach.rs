//! A program on an interface, held by a pinned link.

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
};
use lb_common::{
    Ticks,
    abi::{Layout, Stations, checksums, exit, purpose},
};

use super::{DataplaneError, load::Loaded, pins::Pins};

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
    /// Whom it takes frames for.
    pub stations: Stations,
    /// Its MTU: the largest IP packet that leaves by it; 0: not known.
    pub mtu: u16,
    /// The only mode wanted; `None`: native, or generic where the driver cannot.
    pub mode: Option<Mode>,
    /// The program that it has now: id and mode.
    pub running: Option<(u32, Mode)>,
    /// Whether what is at its other end is as its owner made it, such as a container: of a veth, nobody vouches then
    /// that frames are taken there.
    pub untouched: bool,
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
}

impl Port {
    /// Whether the interface is still there, under the same name and index.
    pub fn exists(&self) -> bool {
        nix::net::if_::if_nametoindex(self.name.as_str()).is_ok_and(|index| index == self.index)
    }

    /// How packets leave it.
    pub const fn exit(&self, mode: Mode) -> u8 {
        match (self.kind, mode) {
            (Kind::Veth, Mode::Native) if self.untouched => exit::STACK,
            (Kind::Veth, Mode::Native) => exit::REDIRECT,
            (_, Mode::Native) => exit::TX,
            // Its driver may take no frames of others.
            (_, Mode::Generic) => exit::TX_OR_STACK,
        }
    }
}

/// Put the program on `port`: in place of the one that an earlier agent left there, or anew.
pub(super) fn attach(
    pins: &Pins,
    layout: &Layout,
    port: &Port,
) -> Result<(Loaded, Attached), DataplaneError> {
    if let Some((link, mode)) = pinned_link(pins, port)? {
        let mut loaded = Loaded::new(pins, layout, port, mode, purpose::SERVE)?;
        let program = put_behind(pins, port, &mut loaded, link)?;
        return Ok((loaded, Attached { mode, program, fallback: None, adopted: true }));
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

/// Have an attached interface's program replaced in place by one that is loaded for it; packets meet the one or the
/// other.
pub(super) fn swap(pins: &Pins, port: &Port, loaded: &mut Loaded) -> Result<(), DataplaneError> {
    let path = pins.link(&port.name);
    let link = PinnedLink::from_pin(&path).map_err(|source| DataplaneError::Link { path, source })?;
    put_behind(pins, port, loaded, FdLink::from(link)).map(drop)
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

/// Put a program that is loaded behind a link; its id. Its array of further programs is pinned before it runs, and takes
/// the place of the former one's only after: a running program never meets an empty array.
fn put_behind(pins: &Pins, port: &Port, loaded: &mut Loaded, link: FdLink) -> Result<u32, DataplaneError> {
    let next = pins.next_programs(&port.name);
    loaded.pin_programs(&next)?;
    let path = pins.link(&port.name);
    let link = link.try_into().map_err(|source| DataplaneError::Link { path, source })?;
    let program = loaded.entry()?;
    if let Err(error) = program.attach_to_link(link) {
        let _ = std::fs::remove_file(&next);
        return Err(DataplaneError::from_program(error));
    }
    let id = program.info().map_err(DataplaneError::from_program)?.id();
    pins.settle_programs(&port.name, &next)?;
    Ok(id)
}

fn attach_in(
    pins: &Pins,
    layout: &Layout,
    port: &Port,
    mode: Mode,
    fallback: Option<String>,
) -> Result<(Loaded, Attached), DataplaneError> {
    let mut loaded = Loaded::new(pins, layout, port, mode, purpose::SERVE)?;
    let next = pins.next_programs(&port.name);
    loaded.pin_programs(&next)?;
    let attached = attach_link(pins, loaded.entry()?, port, mode);
    let program = attached.inspect_err(|_| {
        let _ = std::fs::remove_file(&next);
    })?;
    pins.settle_programs(&port.name, &next)?;
    Ok((loaded, Attached { mode, program, fallback, adopted: false }))
}

/// Attach a program and pin its link; the program's id.
fn attach_link(pins: &Pins, program: &mut Xdp, port: &Port, mode: Mode) -> Result<u32, DataplaneError> {
    let flags = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = program.attach_to_if_index(port.index, flags).map_err(|error| refused(port, mode, error))?;
    let link = program.take_link(id).map_err(DataplaneError::from_program)?;
    let path = pins.link(&port.name);
    let link: FdLink =
        link.try_into().map_err(|source: LinkError| DataplaneError::Link { path: path.clone(), source })?;
    link.pin(&path).map_err(|error| DataplaneError::pin(&path, error))?;
    Ok(program.info().map_err(DataplaneError::from_program)?.id())
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
