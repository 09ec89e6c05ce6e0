//! All maps, and the data path's view of them: the only file that touches their memory.
//!
//! | map | key → value | writes | reads |
//! | --- | --- | --- | --- |
//! | `SERVICES` | address, port, protocol → service | agent | kernel |
//! | `RING` | slot → backend id; mapped by the agent | agent | kernel |
//! | `TICKETS` | service id → next ticket of the round robin | kernel | kernel |
//! | `BACKENDS` | backend id → backend | agent | kernel |
//! | `INTERFACES` | interface id → interface | agent | kernel |
//! | `ENDPOINTS` | backend address, source address, port → first cell | agent | kernel |
//! | `CELLS` | block × ports + place → port cell; mapped by the agent | both, by compare-and-swap | both |
//! | `FLOWS` | client, service → flow | kernel; removed by both | kernel |
//! | `ACCOUNTS` | backend id → account; mapped by the agent | each its words | both |
//! | `TRAFFIC` | backend id → packets and bytes, per CPU | kernel | agent |
//! | `REASONS` | service id × reasons → packets, per CPU | kernel | agent |
//! | `LAYOUT` | 0 → what must agree before these maps are adopted | agent, once | agent |
//!
//! `FLOWS` and `CELLS` get their sizes from the agent when they are created; the others have the limits of `lb-common`.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_NOEXIST},
    helpers::{bpf_get_prandom_u32, generated::bpf_ktime_get_coarse_ns},
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use lb_common::{
    MAX_BACKENDS, MAX_ENDPOINTS, MAX_INTERFACES, MAX_SERVICES, RING_SLOTS, Reason, Ticks,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Hop, Interface, Layout, ProgramConfig,
        Service, ServiceKey, Traffic,
    },
    cell::{Owner, PortCell, Worth},
};
use lb_ebpf::{
    Found, Tables,
    claim::{search, worth},
    select::draw,
    tables::{Block, Inserted, Ring},
    verdict::Way,
};

#[map]
static SERVICES: HashMap<ServiceKey, Service> = HashMap::with_max_entries(MAX_SERVICES, 0);
#[map]
static RING: Array<u32> = Array::with_max_entries(RING_SLOTS, BPF_F_MMAPABLE);
#[map]
static TICKETS: Array<u64> = Array::with_max_entries(MAX_SERVICES, 0);
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, 0);
#[map]
static INTERFACES: Array<Interface> = Array::with_max_entries(MAX_INTERFACES, 0);
#[map]
static ENDPOINTS: HashMap<EndpointKey, Endpoint> = HashMap::with_max_entries(MAX_ENDPOINTS, 0);
#[map]
static CELLS: Array<PortCell> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, 0);
#[map]
static ACCOUNTS: Array<Account> = Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);
#[map]
static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_BACKENDS, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_SERVICES * Reason::SLOTS, 0);
#[map]
static LAYOUT: Array<Layout> = Array::with_max_entries(1, 0);

/// Constants of this program, set when it is loaded.
#[unsafe(no_mangle)]
static CONFIG: ProgramConfig = ProgramConfig {
    seed: 0,
    ports: lb_common::ports::PortRanges { low_first: 0, low_count: 0, high_first: 0, high_count: 0 },
    interface: 0,
    checksums: 0,
    pad: [0; 5],
};

/// The maps of this instance.
#[derive(Clone, Copy)]
pub struct Maps;

impl Maps {
    /// Count a forwarded packet of `bytes` bytes of IP.
    #[inline(always)]
    pub fn forwarded(self, backend: u32, bytes: u64, way: Way) {
        let Some(traffic) = TRAFFIC.get_ptr_mut(backend) else { return };
        // SAFETY: a per-CPU value, and programs on one CPU do not interrupt each other in the receive path.
        unsafe {
            match way {
                Way::In => {
                    (*traffic).packets_in += 1;
                    (*traffic).bytes_in += bytes;
                }
                Way::Out => {
                    (*traffic).packets_out += 1;
                    (*traffic).bytes_out += bytes;
                }
            }
        }
    }
}

impl Tables for Maps {
    type Entry = *mut Flow;

    #[inline(always)]
    fn config(&self) -> ProgramConfig {
        // SAFETY: a static that the loader has filled; volatile, for the compiler knows only its zeros.
        unsafe { core::ptr::read_volatile(&raw const CONFIG) }
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        // SAFETY: a helper without arguments.
        Ticks::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn service(&self, key: &ServiceKey) -> Option<Service> {
        // SAFETY: copied at once; what could be torn by a replacement is checked where it is used (`select`).
        unsafe { SERVICES.get(key) }.copied()
    }

    #[inline(always)]
    fn ticket(&self, service: u32) -> u32 {
        TICKETS.get_ptr_mut(service).map_or(0, |ticket| fetch_add(ticket, 1) as u32)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        RING.get(index).copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend> {
        BACKENDS.get(id).copied()
    }

    #[inline(always)]
    fn interface(&self, id: u16) -> Option<Interface> {
        INTERFACES.get(u32::from(id)).copied().filter(|interface| interface.index != 0)
    }

    #[inline(always)]
    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint> {
        // SAFETY: copied at once; an endpoint's value never changes while it exists.
        unsafe { ENDPOINTS.get(key) }.copied()
    }

    #[inline(always)]
    fn holder(&self, index: u32) -> Option<(Owner, Ticks)> {
        let cell = CELLS.get_ptr(index)?;
        // SAFETY: the element exists as long as the map; other CPUs write it, so each word is read once.
        unsafe {
            let owner = core::ptr::read_volatile(&raw const (*cell).owner);
            let seen = core::ptr::read_volatile(&raw const (*cell).seen);
            Some((owner, Ticks::from_raw(seen)))
        }
    }

    #[inline(always)]
    fn draw(&self, ring: Ring) -> u32 {
        lb_draw(ring.service, ring.offset, ring.length, ring.algorithm)
    }

    #[inline(always)]
    fn worth(&self, index: u32, now: Ticks) -> Worth {
        Worth::from_raw(lb_worth(index, now.raw()))
    }

    #[inline(always)]
    fn search(&self, block: Block, now: Ticks) -> Option<u32> {
        let place = lb_search(block.cells, block.count, block.start, now.raw());
        if place == NO_PLACE { None } else { Some(place) }
    }

    #[inline(always)]
    fn cell(&self, index: u32) -> Option<PortCell> {
        let cell = CELLS.get_ptr(index)?;
        // SAFETY: as in `holder`; the hop is one aligned word, and any bytes are one.
        unsafe {
            let owner = core::ptr::read_volatile(&raw const (*cell).owner);
            let hop = core::ptr::read_volatile((&raw const (*cell).hop).cast::<u64>());
            Some(PortCell {
                owner,
                hop: core::mem::transmute::<u64, Hop>(hop),
                backend: core::ptr::read_volatile(&raw const (*cell).backend),
                seen: core::ptr::read_volatile(&raw const (*cell).seen),
                server_isn: core::ptr::read_volatile(&raw const (*cell).server_isn),
                service_port: core::ptr::read_volatile(&raw const (*cell).service_port),
                pad: 0,
            })
        }
    }

    #[inline(always)]
    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        let Some(cell) = CELLS.get_ptr_mut(index) else { return false };
        // SAFETY: the element exists as long as the map; only its address is taken here.
        let owner = unsafe { &raw mut (*cell).owner.0 };
        compare_exchange(owner, before.0, after.0) == before.0
    }

    #[inline(always)]
    fn fill_cell(&self, index: u32, busy: Owner, body: &PortCell) {
        let Some(cell) = CELLS.get_ptr_mut(index) else { return };
        // SAFETY: the caller has made the cell `Busy`, so that nobody else reads or writes its body.
        unsafe {
            (*cell).hop = body.hop;
            (*cell).backend = body.backend;
            (*cell).seen = body.seen;
            (*cell).server_isn = body.server_isn;
            (*cell).service_port = body.service_port;
            let owner = &raw mut (*cell).owner.0;
            // An exchange rather than a store: it orders the body before the owner on every architecture.
            compare_exchange(owner, busy.0, body.owner.0);
        }
    }

    #[inline(always)]
    fn touch_cell(&self, index: u32, now: Ticks) {
        if let Some(cell) = CELLS.get_ptr_mut(index) {
            // SAFETY: a word of its own; the last writer wins, and all write the present.
            unsafe { core::ptr::write_volatile(&raw mut (*cell).seen, now.raw()) };
        }
    }

    #[inline(always)]
    fn answer_cell(&self, index: u32, server_isn: u32) {
        if let Some(cell) = CELLS.get_ptr_mut(index) {
            // SAFETY: a word of its own, written before the phase that makes it count.
            unsafe { core::ptr::write_volatile(&raw mut (*cell).server_isn, server_isn) };
        }
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<Found<*mut Flow>> {
        let entry = FLOWS.get_ptr_mut(key)?;
        // SAFETY: the table is preallocated, so the memory stays; an element that was removed may be given to another
        // key at once, which is why a flow names its client and is compared with the key that was looked up.
        Some(Found { flow: unsafe { *entry }, entry })
    }

    #[inline(always)]
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted {
        const EEXIST: i32 = 17;
        match FLOWS.insert(key, flow, u64::from(BPF_NOEXIST)) {
            Ok(()) => Inserted::Done,
            Err(error) if error as i32 == -EEXIST => Inserted::Exists,
            Err(_) => Inserted::Full,
        }
    }

    #[inline(always)]
    fn remove_flow(&self, key: &FlowKey) {
        // Not there any more is what was wanted.
        let _ = FLOWS.remove(key);
    }

    #[inline(always)]
    fn touch_flow(&self, entry: *mut Flow, now: Ticks, marks: u16) {
        // SAFETY: as in `flow`. Should the element be another flow's by now, that one is stamped as seen, or taken for
        // proven or closing: neither changes where it goes.
        unsafe {
            core::ptr::write_volatile(&raw mut (*entry).seen, now.raw());
            core::ptr::write_volatile(&raw mut (*entry).marks, marks);
        }
    }

    #[inline(always)]
    fn account(&self, backend: u32) -> Option<Account> {
        let account = ACCOUNTS.get_ptr(backend)?;
        // SAFETY: the element exists as long as the map; other CPUs write it, so it is read once, word by word.
        Some(unsafe { core::ptr::read_volatile(account) })
    }

    #[inline(always)]
    fn open_account(&self, backend: u32) {
        if let Some(account) = ACCOUNTS.get_ptr_mut(backend) {
            // SAFETY: only the word's address is taken here.
            fetch_add(unsafe { &raw mut (*account).opened }, 1);
        }
    }

    #[inline(always)]
    fn close_account(&self, backend: u32) {
        if let Some(account) = ACCOUNTS.get_ptr_mut(backend) {
            // SAFETY: only the word's address is taken here.
            fetch_add(unsafe { &raw mut (*account).closed }, 1);
        }
    }

    #[inline(always)]
    fn count(&self, service: u32, reason: Reason) {
        if let Some(count) = REASONS.get_ptr_mut(reason.counter(service)) {
            // SAFETY: a per-CPU value.
            unsafe { *count += 1 };
        }
    }
}

/// The worth of a cell as a global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_worth(index: u32, now: u32) -> u32 {
    worth(index, Ticks::from_raw(now), &Maps).raw()
}

/// The choice of a backend as a global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_draw(service: u32, offset: u32, length: u32, algorithm: u32) -> u32 {
    draw(Ring { service, offset, length, algorithm }, &Maps)
}

/// What [`lb_search`] answers where no cell can be had.
const NO_PLACE: u32 = u32::MAX;

/// The search for a source port as a global function, which the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn lb_search(cells: u32, count: u32, start: u32, now: u32) -> u32 {
    search(Block { cells, count, start }, Ticks::from_raw(now), &Maps).unwrap_or(NO_PLACE)
}

/// Add to a word of a map and return what it was, in one step.
///
/// `core` has no atomics on the BPF target (`atomic_cas: false`), and the compiler's intrinsics change from release to
/// release; the instruction does not (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").
#[inline(always)]
fn fetch_add(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: `word` points into a map's element; the instruction is sequentially consistent.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({word} + 0), {value})", value = inout(reg) value, word = in(reg) word);
    }
    value
}

/// Replace a word of a map if it is `before`, in one step; what it was.
#[inline(always)]
fn compare_exchange(word: *mut u64, before: u64, after: u64) -> u64 {
    let was: u64;
    // SAFETY: `word` points into a map's element; the instruction is sequentially consistent.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {after})", word = in(reg) word, after = in(reg) after, inout("r0") before => was);
    }
    was
}
