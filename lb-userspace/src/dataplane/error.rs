//! What can go wrong between the agent and the kernel.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use aya::{
    EbpfError,
    maps::MapError,
    programs::{ProgramError, links::LinkError},
};

use crate::listen::Listen;

/// What can go wrong between the agent and the kernel, each with what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The BPF file system is missing.
    #[error("there is no BPF file system at {path}: type `mount -t bpf bpf {path}`", path = path.display())]
    NoBpfFs {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not root, or the capabilities are missing.
    #[error(
        "the kernel does not let this process load programs: run `lb` as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted,
    /// The kernel lacks something.
    #[error("this kernel refuses the program ({reason}); `lb` needs Linux 6.1 or newer")]
    Kernel {
        /// The end of what the verifier says.
        reason: String,
    },
    /// Another layout's pins are there.
    #[error(
        "an agent with another layout ({found}, this one has abi-{ours}) holds the data path: type `lb detach` with that version first, which ends its connections"
    )]
    OtherLayout {
        /// The folder that was found.
        found: String,
        /// Our version.
        ours: u32,
    },
    /// A pinned map is not what it should be.
    #[error(
        "the pinned map {name} is not ours: key, value and entries are {found:?}, wanted {wanted:?}; type `lb detach`, which ends its connections"
    )]
    Shape {
        /// The map.
        name: &'static str,
        /// What it is.
        found: (usize, usize, u32),
        /// What it should be.
        wanted: (usize, usize, u32),
    },
    /// Another program is attached.
    #[error(
        "{interface} already has an XDP program of somebody else: `ip link show {interface}` names it, `ip link set {interface} xdp off` removes it"
    )]
    Occupied {
        /// The interface.
        interface: String,
    },
    /// The MTU is too large for the driver's XDP.
    #[error(
        "the MTU of {interface} is too large for its driver's XDP: lower it with `ip link set {interface} mtu 3498`, or set `xdp-mode = \"generic\"`"
    )]
    Mtu {
        /// The interface.
        interface: String,
    },
    /// The driver has no native XDP.
    #[error("{interface} cannot run the program natively: {reason}")]
    Unsupported {
        /// The interface.
        interface: String,
        /// Why.
        reason: String,
    },
    /// The object in this binary is broken.
    #[error("the kernel object in this binary has no program {name}")]
    Object {
        /// What is missing.
        name: &'static str,
    },
    /// Loading failed otherwise.
    #[error("loading the kernel object: {0}")]
    Load(#[source] Box<EbpfError>),
    /// The kernel refused something about a program.
    #[error("the kernel refused the program: {0}")]
    Program(#[source] Box<ProgramError>),
    /// What leaves by the kernel's stack cannot be sent on.
    #[error(
        "{interface}: the kernel refused the classifier: {source}; `tc filter show dev {interface} ingress` shows who has its place, and the kernel needs NET_SCH_INGRESS and NET_CLS_BPF"
    )]
    Classifier {
        /// The interface.
        interface: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A pin could not be made or removed.
    #[error("{path}: {source}", path = path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link could not be used.
    #[error("{path}: {source}", path = path.display())]
    Link {
        /// Where.
        path: PathBuf,
        /// Why.
        source: LinkError,
    },
    /// A map could not be read or written.
    #[error("map {name}: {source}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("map {name} cannot be shared: {source}")]
    Share {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An address of another family than it must be.
    #[error("{service}: {address} is of the other IP version, which no mode translates to")]
    Family {
        /// The service.
        service: Listen,
        /// The address.
        address: IpAddr,
    },
    /// Two ranges of an address that begin at one port.
    #[error(
        "{service}: another range of the address begins at the same port; let one of them begin elsewhere"
    )]
    RangesCollide {
        /// The service.
        service: Listen,
    },
    /// Many ports of a service to one of a `dnat` backend: its answers do not say which.
    #[error(
        "{service}: a `dnat` backend of a range of ports must keep the port, for its answers do not say which one the client used"
    )]
    ManyToOne {
        /// The service.
        service: Listen,
    },
    /// No source address.
    #[error("{backend}: no source address of its IP version is known")]
    NoSource {
        /// The backend.
        backend: SocketAddr,
    },
    /// The sources of a backend cannot change under its connections.
    #[error(
        "{backend}: its connections hold ports of other source addresses, in another order; it gets the new ones once they have ended"
    )]
    SourcesHeld {
        /// The backend.
        backend: SocketAddr,
    },
    /// A trace through an interface that has no program.
    #[error("{interface} is none of this instance's interfaces")]
    NotAttached {
        /// The interface.
        interface: String,
    },
    /// A ring buffer cannot be waited for.
    #[error("map {name} cannot be waited for: {source}")]
    Wait {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A limit of `lb-common`.
    #[error("too many {what} for one instance")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// No room for another ring.
    #[error("no room for another ring: too many backends in all")]
    RingsFull,
}

impl DataplaneError {
    pub(super) fn write(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source }
    }

    pub(super) fn pin(path: &Path, error: aya::pin::PinError) -> Self {
        Self::Pin { path: path.to_owned(), source: io::Error::other(error) }
    }

    pub(super) fn from_load(error: EbpfError) -> Self {
        let code = std::error::Error::source(&error).and_then(os_code);
        if matches!(code, Some(libc::EPERM | libc::EACCES)) {
            Self::NotPermitted
        } else {
            Self::Load(Box::new(error))
        }
    }

    pub(super) fn from_program(error: ProgramError) -> Self {
        match &error {
            ProgramError::LoadError { verifier_log, .. } => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().rev().take(40).collect();
                Self::Kernel { reason: lines.into_iter().rev().collect::<Vec<_>>().join(" | ") }
            }
            _ => Self::Program(Box::new(error)),
        }
    }
}

/// The number of the system's error at the root of `error`.
fn os_code(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(current) = error {
        if let Some(code) = current.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        error = current.source();
    }
    None
}
