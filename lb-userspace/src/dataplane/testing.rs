//! Maps as the kernel's half declares them, made without it: what is tested here needs no program.

use std::{net::SocketAddr, os::fd::AsFd as _, path::Path, process::Command, thread, time::Duration};

use aya::maps::MapData;
use aya_obj::{
    EbpfSectionKind, Map,
    generated::bpf_map_type::{
        BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH, BPF_MAP_TYPE_PERCPU_ARRAY,
        BPF_MAP_TYPE_RINGBUF,
    },
    maps::{LegacyMap, bpf_map_def},
};
use lb_common::{
    Ticks,
    abi::{Layout, algorithm, mode, no_backend},
    ports::PortRanges,
};
use nix::sched::{CloneFlags, unshare};

use super::{
    Dataplane, Desired, DesiredBackend, DesiredService, Fate, Pins, Timeouts, Way,
    pins::{entries, maps},
};
use crate::listen::Listen;

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h).
const MMAPABLE: u32 = 1 << 10;

/// Room for 64 flows and 100 ports in each of 8 blocks, of either family.
pub(super) const LAYOUT: Layout = Layout {
    seed: 7,
    ports: PortRanges { low_first: 1024, low_count: 60, high_first: 61_000, high_count: 40 },
    buckets: [8; 2],
    blocks: [8; 2],
};

/// Run a test over fresh maps, on a BPF file system that ends with it.
pub(super) fn with_maps<R: Send>(layout: Layout, test: impl FnOnce(&Pins) -> R + Send) -> R {
    with_pins(|pins| {
        create(pins, &layout);
        test(pins)
    })
}

/// Run a test with a folder for pins, on a BPF file system that ends with it.
pub(super) fn with_pins<R: Send>(test: impl FnOnce(&Pins) -> R + Send) -> R {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("root may make a mount namespace");
            let folder = tempfile::tempdir().expect("a folder to mount on");
            mount(&["--make-rprivate", "/"]);
            mount(&["-t", "bpf", "bpf", folder.path().to_str().expect("a path of words")]);
            let pins = Pins::new(folder.path().join("lb"));
            let result = test(&pins);
            let unmounted = Command::new("umount").arg(folder.path()).status();
            assert!(unmounted.expect("umount is installed").success());
            result
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn mount(arguments: &[&str]) {
    assert!(Command::new("mount").args(arguments).status().expect("mount is installed").success());
}

fn create(pins: &Pins, layout: &Layout) {
    pins.prepare().expect("a BPF file system");
    for shape in maps() {
        let (name, key, value, _) = shape;
        let map = create_map(name, key as u32, value as u32, entries(shape, layout));
        map.pin(pins.map(name)).expect("a pin");
    }
    pins.check(layout).expect("the shapes that were asked for");
}

/// A map of the kind that its name stands for.
pub(super) fn create_map(name: &str, key_size: u32, value_size: u32, max_entries: u32) -> MapData {
    let family = name.trim_end_matches(['4', '6']);
    let map_type = match family {
        "SERVICES" | "RANGES" | "ENDPOINTS" => BPF_MAP_TYPE_HASH,
        "FRAGMENTS" | "RATES" => BPF_MAP_TYPE_LRU_HASH,
        "TRAFFIC" | "REASONS" => BPF_MAP_TYPE_PERCPU_ARRAY,
        "EVENTS" | "CAPTURE" => BPF_MAP_TYPE_RINGBUF,
        _ => BPF_MAP_TYPE_ARRAY,
    };
    let map_flags = if matches!(family, "CELLS" | "FLOWS" | "RING" | "ACCOUNTS") { MMAPABLE } else { 0 };
    let def = bpf_map_def {
        map_type: map_type as u32,
        key_size,
        value_size,
        max_entries,
        map_flags,
        ..bpf_map_def::default()
    };
    let map = Map::Legacy(LegacyMap {
        def,
        inner_def: None,
        section_index: 0,
        section_kind: EbpfSectionKind::Maps,
        symbol_index: None,
        data: Vec::new(),
    });
    MapData::create(map, name, None).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Bytes of kernel memory that a map costs, as the kernel says.
pub(super) fn memory_of(map: &MapData) -> u64 {
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(Path::new(&path)).expect("the kernel's account of a map");
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).expect("its memory");
    line.trim().parse().expect("a number")
}

/// Take up what stands under `pins`, without any interface.
pub(super) fn adopt(pins: &Pins, layout: Layout) -> Dataplane {
    Dataplane::adopt(pins, layout).expect("maps of the right shapes")
}

/// Short time-outs: two seconds for everything but handshakes, which get one.
pub(super) const TIMEOUTS: Timeouts = Timeouts {
    established: Ticks::from_millis(2_000),
    embryonic: Ticks::from_millis(1_000),
    closing: Ticks::from_millis(2_000),
    udp: Ticks::from_millis(2_000),
};

pub(super) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A backend with a way, at full weight.
pub(super) fn backend(at: &str, sources: &[&str]) -> DesiredBackend {
    DesiredBackend {
        address: address(at),
        weight: 1024,
        fate: Fate::Keep,
        max_connections: None,
        way: Some(Way {
            mac: [2, 0, 0, 0, 0, 9],
            interface: 3,
            interface_mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            exit: 0,
            sources: sources.iter().map(|source| source.parse().expect("an address")).collect(),
        }),
    }
}

/// A plain service in `snat`.
pub(super) fn service(at: &str, backends: Vec<DesiredBackend>) -> DesiredService {
    DesiredService {
        listen: Listen::tcp(address(at)),
        mode: mode::SNAT,
        algorithm: algorithm::LEAST_LOAD,
        on_change: false,
        no_backend: no_backend::RESET,
        hold: Duration::ZERO,
        pass_lost: false,
        timeouts: TIMEOUTS,
        max_connections: None,
        rate: None,
        backends,
    }
}

/// Publish, and nothing may go wrong.
pub(super) fn publish(dataplane: &mut Dataplane, services: &[DesiredService]) {
    let desired = Desired { services: services.to_vec(), ..Desired::default() };
    let errors = dataplane.publish(&desired);
    assert!(errors.is_empty(), "{errors:?}");
}

/// Sweep until everything has been seen once.
pub(super) fn sweep(dataplane: &mut Dataplane) -> super::Swept {
    loop {
        if let Some(swept) = dataplane.sweep().expect("maps that can be written") {
            return swept;
        }
    }
}
