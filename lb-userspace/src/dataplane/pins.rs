//! Where programs, links and maps stay when the agent goes: a folder of the BPF file system named after the layout.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use lb_common::{
    ABI_VERSION, Be32, Be128, MAX_BACKENDS, MAX_BUCKETS, MAX_ENDPOINTS, MAX_FRAGMENTS, MAX_INTERFACES,
    MAX_SERVICES, MAX_SOURCES, RING_SLOTS, Reason,
    abi::{
        ACCOUNTS, Account, Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Interface,
        Layout, Ranges, RangesKey, Service, ServiceKey, Traffic,
    },
    cell::PortCell,
    event::{Traced, kind},
    flow::Bucket,
};

use super::{DataplaneError, onward};

/// `statfs` magic of the BPF file system (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    instance: PathBuf,
}

/// A map's name with what it must look like: key size, value size, entries (`None`: from the layout).
type Shape = (&'static str, usize, usize, Option<u32>);

/// The shapes of a family's maps.
macro_rules! shapes {
    ($address:ty, $services:literal, $ranges:literal, $backends:literal, $endpoints:literal, $sources:literal,
     $cells:literal, $flows:literal, $fragments:literal, $rates:literal) => {
        [
            ($services, size_of::<ServiceKey<$address>>(), size_of::<Service>(), Some(2 * MAX_SERVICES)),
            ($ranges, size_of::<RangesKey<$address>>(), size_of::<Ranges>(), Some(MAX_SERVICES)),
            ($backends, 4, size_of::<Backend<$address>>(), Some(MAX_BACKENDS)),
            ($endpoints, size_of::<EndpointKey<$address>>(), size_of::<Endpoint>(), Some(MAX_ENDPOINTS)),
            ($sources, 4, size_of::<$address>(), Some(MAX_SOURCES)),
            ($cells, 4, size_of::<PortCell<$address>>(), None),
            ($flows, 4, size_of::<Bucket<$address>>(), None),
            (
                $fragments,
                size_of::<FragmentKey<$address>>(),
                size_of::<Fragment<$address>>(),
                Some(MAX_FRAGMENTS),
            ),
            ($rates, size_of::<BucketKey<$address>>(), 8, Some(MAX_BUCKETS)),
        ]
    };
}

/// The maps of IPv4.
const IPV4: [Shape; 9] = shapes!(
    Be32,
    "SERVICES4",
    "RANGES4",
    "BACKENDS4",
    "ENDPOINTS4",
    "SOURCES4",
    "CELLS4",
    "FLOWS4",
    "FRAGMENTS4",
    "RATES4"
);

/// The maps of IPv6.
const IPV6: [Shape; 9] = shapes!(
    Be128,
    "SERVICES6",
    "RANGES6",
    "BACKENDS6",
    "ENDPOINTS6",
    "SOURCES6",
    "CELLS6",
    "FLOWS6",
    "FRAGMENTS6",
    "RATES6"
);

/// The maps of both.
const COMMON: [Shape; 15] = [
    ("RING", 4, 4, Some(RING_SLOTS)),
    ("TICKETS", 4, 8, Some(MAX_SERVICES)),
    ("FULL_SINCE", 4, 4, Some(MAX_SERVICES)),
    ("INTERFACES", 4, size_of::<Interface>(), Some(MAX_INTERFACES)),
    ("ACCOUNTS", 4, size_of::<Account>(), Some(ACCOUNTS)),
    ("TRAFFIC", 4, size_of::<Traffic>(), Some(MAX_BACKENDS)),
    ("REASONS", 4, 8, Some(MAX_SERVICES * Reason::SLOTS)),
    ("LAYOUT", 4, size_of::<Layout>(), Some(1)),
    ("EVENTS", 0, 0, Some(256 << 10)),
    ("CAPTURE", 0, 0, Some(1 << 20)),
    ("GATES", 4, 4, Some(MAX_BACKENDS * kind::COUNT)),
    ("TRACED", 4, size_of::<Traced>(), Some(1)),
    ("ERRORS", 4, 8, Some(4)),
    ("HEARTBEAT", 4, 4, Some(1)),
    ("NARROWED", 4, 8, Some(MAX_BACKENDS)),
];

/// All maps that the programs of all interfaces share, as `lb-ebpf/src/maps` declares them.
pub fn maps() -> impl Iterator<Item = Shape> {
    IPV4.into_iter().chain(IPV6).chain(COMMON)
}

/// How many entries a map has.
pub(super) fn entries((name, .., fixed): Shape, layout: &Layout) -> u32 {
    fixed.unwrap_or_else(|| match name {
        "FLOWS4" => layout.buckets[0],
        "FLOWS6" => layout.buckets[1],
        "CELLS4" => layout.blocks[0] * layout.ports.count(),
        _ => layout.blocks[1] * layout.ports.count(),
    })
}

impl Pins {
    /// The pins of the instance whose folder is `instance`, such as `/sys/fs/bpf/lb`.
    pub fn new(instance: impl Into<PathBuf>) -> Self {
        Self { instance: instance.into() }
    }

    /// The folder of this layout.
    fn folder(&self) -> PathBuf {
        self.instance.join(format!("abi-{ABI_VERSION}"))
    }

    /// Where a map is pinned.
    pub fn map(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Where the link that holds the program on an interface is pinned.
    pub fn link(&self, interface: &str) -> PathBuf {
        self.links().join(file_name(interface))
    }

    fn links(&self) -> PathBuf {
        self.folder().join("links")
    }

    /// Where the array of an interface's further programs is pinned: the kernel empties it when its last pin goes and
    /// no process holds it, whatever program runs by it (kernel/bpf/arraymap.c, `prog_array_map_clear`).
    fn programs(&self, interface: &str) -> PathBuf {
        self.folder().join("programs").join(file_name(interface))
    }

    /// Where such an array waits for its program to be attached.
    fn next(&self) -> PathBuf {
        self.folder().join("next")
    }

    /// A free place for the array of a program that is about to take an interface. What an agent left there that died
    /// half-way stays: that program may be the one that runs.
    pub(super) fn next_programs(&self, interface: &str) -> PathBuf {
        let place = |number: u32| self.next().join(format!("{number}:{}", file_name(interface)));
        // Each number is left behind by one death; there is always a free one.
        (0..u32::MAX).map(place).find(|path| !path.exists()).unwrap_or_else(|| place(u32::MAX))
    }

    /// The program of the array at `next` runs: its pin takes the place of the one before.
    pub(super) fn settle_programs(&self, interface: &str, next: &Path) -> Result<(), DataplaneError> {
        let path = self.programs(interface);
        fs::rename(next, &path).map_err(|source| DataplaneError::Pin { path, source })?;
        let ours = file_name(interface);
        for entry in fs::read_dir(self.next()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().split_once(':').is_some_and(|(_, of)| of == ours) {
                let path = entry.path();
                fs::remove_file(&path).map_err(|source| DataplaneError::Pin { path, source })?;
            }
        }
        Ok(())
    }

    /// Take the program off an interface, which may be gone.
    pub(super) fn unlink(&self, interface: &str) -> Result<(), DataplaneError> {
        onward::detach(interface);
        for path in [self.link(interface), self.programs(interface)] {
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DataplaneError::Pin { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The interfaces that a pinned link exists for.
    pub fn linked_interfaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.links()) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.map(|name| name.replace(':', ".")).collect()
    }

    /// Make the folders. Fails with words where there is no BPF file system, or where another layout is in use.
    pub fn prepare(&self) -> Result<(), DataplaneError> {
        let parent = self.instance.parent().unwrap_or(Path::new("/"));
        match nix::sys::statfs::statfs(parent) {
            Ok(stat) if stat.filesystem_type().0 == BPF_FS_MAGIC => {}
            _ => return Err(DataplaneError::NoBpfFs { path: parent.to_owned() }),
        }
        if let Some(found) = self.foreign_layout() {
            return Err(DataplaneError::OtherLayout { found, ours: ABI_VERSION });
        }
        for path in [self.links(), self.folder().join("programs"), self.next()] {
            fs::create_dir_all(&path).map_err(|source| DataplaneError::Pin { path, source })?;
        }
        Ok(())
    }

    /// The name of another layout's folder, if there is one.
    fn foreign_layout(&self) -> Option<String> {
        let ours = self.folder();
        fs::read_dir(&self.instance)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| *path != ours)
            .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
    }

    /// Whether maps of an earlier agent are there.
    pub fn exist(&self) -> bool {
        self.map("LAYOUT").exists()
    }

    /// Check every pinned map against what this agent would create: aya adopts whatever lies there.
    pub fn check(&self, layout: &Layout) -> Result<(), DataplaneError> {
        for shape in maps() {
            let (name, key, value, _) = shape;
            let path = self.map(name);
            let info = MapInfo::from_pin(&path).map_err(|source| DataplaneError::Map { name, source })?;
            let entries = entries(shape, layout);
            let found = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
            if found != (key, value, entries) {
                return Err(DataplaneError::Shape { name, found, wanted: (key, value, entries) });
            }
        }
        Ok(())
    }

    /// Remove everything of this instance: links first, so that no program runs without its maps being known.
    pub fn remove(&self) -> io::Result<()> {
        let interfaces = self.linked_interfaces();
        for folder in fs::read_dir(&self.instance).into_iter().flatten().flatten() {
            let _ = remove_all(&folder.path().join("links"));
        }
        // After the programs, for they leave packets to them.
        for interface in interfaces {
            onward::detach(&interface);
        }
        match remove_all(&self.instance) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// `remove_dir_all` for bpffs, which lists entries while they are unlinked.
fn remove_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()? {
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// An interface's name as a file of the BPF file system, which has no dots (kernel/bpf/inode.c, `bpf_lookup`); no
/// interface's name has a colon (net/core/dev.c, `dev_valid_name`).
fn file_name(interface: &str) -> String {
    interface.replace('.', ":")
}
