//! Where programs, links and maps stay when the agent goes: a folder of the BPF file system named after the layout.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::MapInfo;
use lb_common::{
    ABI_VERSION, MAX_BACKENDS, MAX_ENDPOINTS, MAX_INTERFACES, MAX_SERVICES, RING_SLOTS, Reason,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, Layout, Service, ServiceKey,
        Traffic,
    },
    cell::PortCell,
};

use super::DataplaneError;

/// `statfs` magic of the BPF file system (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one instance.
#[derive(Clone, Debug)]
pub struct Pins {
    instance: PathBuf,
}

/// A map's name with what it must look like: key size, value size, entries (`None`: from the layout).
type Shape = (&'static str, usize, usize, Option<u32>);

/// All maps, as `lb-ebpf/src/maps.rs` declares them.
pub const MAPS: [Shape; 12] = [
    ("SERVICES", size_of::<ServiceKey>(), size_of::<Service>(), Some(MAX_SERVICES)),
    ("RING", 4, 4, Some(RING_SLOTS)),
    ("TICKETS", 4, 8, Some(MAX_SERVICES)),
    ("BACKENDS", 4, size_of::<Backend>(), Some(MAX_BACKENDS)),
    ("INTERFACES", 4, size_of::<Interface>(), Some(MAX_INTERFACES)),
    ("ENDPOINTS", size_of::<EndpointKey>(), size_of::<Endpoint>(), Some(MAX_ENDPOINTS)),
    ("CELLS", 4, size_of::<PortCell>(), None),
    ("FLOWS", size_of::<FlowKey>(), size_of::<Flow>(), None),
    ("ACCOUNTS", 4, size_of::<Account>(), Some(MAX_BACKENDS)),
    ("TRAFFIC", 4, size_of::<Traffic>(), Some(MAX_BACKENDS)),
    ("REASONS", 4, 8, Some(MAX_SERVICES * Reason::SLOTS)),
    ("LAYOUT", 4, size_of::<Layout>(), Some(1)),
];

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
        self.links().join(interface)
    }

    fn links(&self) -> PathBuf {
        self.folder().join("links")
    }

    /// The interfaces that a pinned link exists for.
    pub fn linked_interfaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.links()) else { return Vec::new() };
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
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
        fs::create_dir_all(self.links()).map_err(|source| DataplaneError::Pin { path: self.links(), source })
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
        for (name, key, value, entries) in MAPS {
            let path = self.map(name);
            let info = MapInfo::from_pin(&path).map_err(|source| DataplaneError::Map { name, source })?;
            let entries = entries.unwrap_or(match name {
                "FLOWS" => layout.flows,
                _ => layout.blocks * layout.ports.count(),
            });
            let found = (info.key_size() as usize, info.value_size() as usize, info.max_entries());
            if found != (key, value, entries) {
                return Err(DataplaneError::Shape { name, found, wanted: (key, value, entries) });
            }
        }
        Ok(())
    }

    /// Remove everything of this instance: links first, so that no program runs without its maps being known.
    pub fn remove(&self) -> io::Result<()> {
        for folder in fs::read_dir(&self.instance).into_iter().flatten().flatten() {
            let _ = remove_all(&folder.path().join("links"));
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
