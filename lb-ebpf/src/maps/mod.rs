//! All maps, and the data path's view of them: the only place that touches their memory.
//!
//! | map | key → value | writes | reads |
//! | --- | --- | --- | --- |
//! | `SERVICES4`, `SERVICES6` | address, port, protocol → service | agent | kernel |
//! | `RANGES4`, `RANGES6` | address, protocol → ranges of ports | agent | kernel |
//! | `RING` | slot → ids of its backend and its former one; mapped by the agent | agent | kernel |
//! | `TICKETS` | service id → next ticket of the round robin | kernel | kernel |
//! | `FULL_SINCE` | service id → since when no backend has had room | kernel | kernel |
//! | `HEARTBEAT` | 0 → until when the agent counts as there | agent | kernel |
//! | `NARROWED` | backend id → what fits into the tunnel to it | kernel | kernel |
//! | `BACKENDS4`, `BACKENDS6` | backend id → backend | agent | kernel |
//! | `SOURCES4`, `SOURCES6` | number → source address | agent | kernel |
//! | `INTERFACES` | interface id → interface | agent | kernel |
//! | `ENDPOINTS4`, `ENDPOINTS6` | backend address, source address, port → cells, services | agent | kernel |
//! | `CELLS4`, `CELLS6` | block × ports + place → port cell; mapped by the agent | both, by compare-and-swap | both |
//! | `FLOWS4`, `FLOWS6` | bucket → eight flows; mapped by the agent | both, by compare-and-swap | both |
//! | `FRAGMENTS4`, `FRAGMENTS6` | addresses, identification → the way of a packet's first part | kernel | kernel |
//! | `RATES4`, `RATES6` | client, service → tokens for new connections | kernel | kernel |
//! | `ACCOUNTS` | backend, server or service → account; mapped by the agent | each its words | both |
//! | `TRAFFIC` | backend id → packets and bytes, per CPU | kernel | agent |
//! | `REASONS` | service id × reasons → packets, per CPU | kernel | agent |
//! | `ERRORS` | trouble → tokens for ICMP errors | kernel | kernel |
//! | `HANDOVER` | 0 → what a stage tells the next, per CPU | kernel | kernel |
//! | `GATES` | backend id × kinds of events → when one was told last | kernel | kernel |
//! | `EVENTS` | events | kernel | agent |
//! | `MOMENT` | 0 → when the packet at hand came; 1 → looks that found no room; per CPU, one map per loaded object | kernel | both |
//! | `CAPTURE` | captured packets | kernel | agent |
//! | `TRACED` | 0 → what a trace has found | kernel | agent |
//! | `PROGRAMS` | stage → program; one map per loaded object | agent | kernel |
//! | `LAYOUT` | 0 → what must agree before these maps are adopted | agent, once | agent |
//!
//! `FLOWS` and `CELLS` get their sizes from the agent when they are created; the others have the limits of `lb-common`.
//! A program that traces (`purpose::TRACE`) writes nothing but `TRACED`: each writing method asks [`writes`] first.

mod family;
mod functions;

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    helpers::{
        bpf_get_prandom_u32,
        generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    },
    macros::map,
    maps::{Array, PerCpuArray, ProgramArray, RingBuf},
};
use lb_common::{
    MAX_BACKENDS, MAX_INTERFACES, MAX_SERVICES, RING_SLOTS, Reason, Ticks,
    abi::{ACCOUNTS as ROWS, Account, Interface, Layout, ProgramConfig, Stations, Traffic, purpose},
    cell::{Owner, Side, Signs},
    event::{Event, Traced, kind},
    flow::Way as FlowWay,
};
use lb_ebpf::{
    Complaint, Parcel, World,
    source_rate::taken,
    verdict::{Trouble, Way},
};

use crate::atomic::{compare_exchange, fetch_add};

#[map]
static RING: Array<u32> = Array::with_max_entries(RING_SLOTS, BPF_F_MMAPABLE);
#[map]
static TICKETS: Array<u64> = Array::with_max_entries(MAX_SERVICES, 0);
#[map]
static FULL_SINCE: Array<u32> = Array::with_max_entries(MAX_SERVICES, 0);
#[map]
static HEARTBEAT: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static NARROWED: Array<u64> = Array::with_max_entries(MAX_BACKENDS, 0);
#[map]
static INTERFACES: Array<Interface> = Array::with_max_entries(MAX_INTERFACES, 0);
#[map]
static ACCOUNTS: Array<Account> = Array::with_max_entries(ROWS, BPF_F_MMAPABLE);
#[map]
static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(MAX_BACKENDS, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_SERVICES * Reason::SLOTS, 0);
#[map]
static ERRORS: Array<u64> = Array::with_max_entries(4, 0);
#[map]
static HANDOVER: PerCpuArray<Handover> = PerCpuArray::with_max_entries(1, 0);
#[map]
static GATES: Array<u32> = Array::with_max_entries(MAX_BACKENDS * kind::COUNT, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);
#[map]
pub static MOMENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);
#[map]
pub static CAPTURE: RingBuf = RingBuf::with_byte_size(1024 * 1024, 0);
#[map]
pub static TRACED: Array<Traced> = Array::with_max_entries(1, 0);
#[map]
pub static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(32, 0);
#[map]
static LAYOUT: Array<Layout> = Array::with_max_entries(1, 0);

/// Constants of this program, set when it is loaded.
#[unsafe(no_mangle)]
static CONFIG: ProgramConfig = ProgramConfig {
    seed: 0,
    ports: lb_common::ports::PortRanges { low_first: 0, low_count: 0, high_first: 0, high_count: 0 },
    bucket_masks: [0; 2],
    interface: 0,
    checksums: 0,
    joined: 0,
    purpose: 0,
    pad: [0; 3],
};

/// Whom the interface takes frames for, set when the program is loaded.
#[unsafe(no_mangle)]
static STATIONS: Stations = Stations::ANY;

/// ICMP errors that are made a second, and at once after a rest, as Linux limits its own (`icmp_msgs_per_sec`,
/// `icmp_msgs_burst`).
const ERRORS_PER_SECOND: u32 = 1_000;
const ERRORS_AT_ONCE: u32 = 50;

/// Tries when other CPUs change the same word.
const TRIES: u32 = 4;

/// A [`Parcel`] in the map.
#[derive(Clone, Copy)]
struct Handover {
    words: [u32; 4],
    way: u64,
}

/// The maps of this instance.
#[derive(Clone, Copy)]
pub struct Maps;

/// Whether this program may write.
#[inline(always)]
fn writes() -> bool {
    // SAFETY: a static that the loader has filled; volatile, for the compiler knows only its zeros.
    unsafe { core::ptr::read_volatile(&raw const CONFIG.purpose) != purpose::TRACE }
}

/// Replace a word of a map if it is `before`; whether it was, or whether nothing is to be written.
#[inline(always)]
fn swap(word: *mut u64, before: u64, after: u64) -> bool {
    !writes() || compare_exchange(word, before, after) == before
}

impl Maps {
    /// Count a forwarded packet of `bytes` bytes of IP.
    #[inline(always)]
    pub fn forwarded(self, backend: u16, bytes: u64, way: Way) {
        let Some(traffic) = TRAFFIC.get_ptr_mut(backend.into()).filter(|_| writes()) else { return };
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

impl World for Maps {
    #[inline(always)]
    fn config(&self) -> ProgramConfig {
        // SAFETY: as in `writes`.
        unsafe { core::ptr::read_volatile(&raw const CONFIG) }
    }

    #[inline(always)]
    fn stations(&self) -> Stations {
        // SAFETY: as in `writes`.
        unsafe { core::ptr::read_volatile(&raw const STATIONS) }
    }

    #[inline(always)]
    fn now(&self) -> Ticks {
        // SAFETY: a helper without arguments.
        Ticks::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn heard_until(&self) -> Ticks {
        let until = HEARTBEAT.get_ptr(0);
        // SAFETY: the element exists as long as the map; one aligned word.
        Ticks::from_raw(until.map_or(0, |until| unsafe { core::ptr::read_volatile(until) }))
    }

    #[inline(always)]
    fn micros(&self) -> u32 {
        // SAFETY: a helper without arguments.
        (unsafe { bpf_ktime_get_ns() } / 1_000) as u32
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn vague(&self, offset: usize) -> usize {
        functions::lb_vague(offset as u32) as usize & 31
    }

    #[inline(always)]
    fn ticket(&self, service: u16) -> u32 {
        let Some(ticket) = TICKETS.get_ptr_mut(service.into()) else { return 0 };
        // SAFETY: the element exists as long as the map.
        if writes() { fetch_add(ticket, 1) as u32 } else { unsafe { *ticket as u32 } }
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        RING.get(index).copied()
    }

    #[inline(always)]
    fn interface(&self, id: u16) -> Option<Interface> {
        INTERFACES.get(u32::from(id)).copied().filter(|interface| interface.index != 0)
    }

    #[inline(always)]
    fn goes_by_stack(&self, id: u16) -> bool {
        crate::lb_by_stack(id.into()) != 0
    }

    #[inline(always)]
    fn account(&self, row: u32) -> Option<Account> {
        let account = ACCOUNTS.get_ptr(row)?;
        // SAFETY: the element exists as long as the map; other CPUs write it, so it is read once, word by word.
        Some(unsafe { core::ptr::read_volatile(account) })
    }

    #[inline(always)]
    fn open_account(&self, row: u32) {
        if let Some(account) = ACCOUNTS.get_ptr_mut(row).filter(|_| writes()) {
            // SAFETY: only the word's address is taken here.
            fetch_add(unsafe { &raw mut (*account).opened }, 1);
        }
    }

    #[inline(always)]
    fn try_open_account(&self, row: u32) -> bool {
        functions::lb_try_open(row) != 0
    }

    #[inline(always)]
    fn close_account(&self, row: u32) {
        if let Some(account) = ACCOUNTS.get_ptr_mut(row).filter(|_| writes()) {
            // SAFETY: only the word's address is taken here.
            fetch_add(unsafe { &raw mut (*account).closed }, 1);
        }
    }

    #[inline(always)]
    fn full_since(&self, service: u16) -> Ticks {
        let since = FULL_SINCE.get_ptr(service.into());
        // SAFETY: the element exists as long as the map; one aligned word.
        Ticks::from_raw(since.map_or(0, |since| unsafe { core::ptr::read_volatile(since) }))
    }

    #[inline(always)]
    fn set_full_since(&self, service: u16, since: Ticks) {
        if let Some(word) = FULL_SINCE.get_ptr_mut(service.into()).filter(|_| writes()) {
            // SAFETY: as above; the last writer wins, and all write the present or nothing.
            unsafe { core::ptr::write_volatile(word, since.raw()) };
        }
    }

    #[inline(always)]
    fn narrowed(&self, backend: u16) -> u64 {
        let word = NARROWED.get_ptr(backend.into());
        // SAFETY: the element exists as long as the map; one aligned word.
        word.map_or(0, |word| unsafe { core::ptr::read_volatile(word) })
    }

    #[inline(always)]
    fn narrow(&self, backend: u16, word: u64) {
        if let Some(place) = NARROWED.get_ptr_mut(backend.into()).filter(|_| writes()) {
            // SAFETY: as above; the last writer wins.
            unsafe { core::ptr::write_volatile(place, word) };
        }
    }

    #[inline(always)]
    fn after(&self, owner: Owner, side: Side, signs: Signs) -> Owner {
        functions::after(owner, side, signs)
    }

    #[inline(always)]
    fn spend_error(&self, trouble: Trouble) -> bool {
        let Some(word) = ERRORS.get_ptr_mut(trouble as u32) else { return false };
        for _ in 0..TRIES {
            // SAFETY: the element exists as long as the map; one aligned word.
            let before = unsafe { core::ptr::read_volatile(word) };
            let Some(after) = taken(before, self.now(), ERRORS_PER_SECOND, ERRORS_AT_ONCE) else {
                return false;
            };
            if swap(word, before, after) {
                return true;
            }
        }
        false
    }

    #[inline(always)]
    fn hand_over(&self, parcel: &Parcel) {
        if let Some(handover) = HANDOVER.get_ptr_mut(0) {
            let Parcel { service, backend, reason, complaint, way, otherwise, begins } = *parcel;
            let mtu = u32::from(complaint.mtu) << 16 | complaint.trouble as u32;
            let more = u32::from(otherwise) << 16 | u32::from(begins);
            let words = [u32::from(service) << 16 | u32::from(backend), reason as u32, mtu, more];
            // SAFETY: a per-CPU value.
            unsafe { *handover = Handover { words, way: way.0 } };
        }
    }

    #[inline(always)]
    fn handed_over(&self) -> Parcel {
        // SAFETY: a per-CPU value that the stage before has written.
        let Handover { words, way } =
            HANDOVER.get_ptr(0).map_or(Handover { words: [0; 4], way: 0 }, |it| unsafe { *it });
        let trouble = match words[2] as u16 {
            2 => Trouble::TooBig,
            1 => Trouble::PortUnreachable,
            _ => Trouble::TimeExceeded,
        };
        Parcel {
            service: (words[0] >> 16) as u16,
            backend: words[0] as u16,
            reason: Reason::from_number(words[1]),
            complaint: Complaint { trouble, mtu: (words[2] >> 16) as u16 },
            way: FlowWay(way),
            otherwise: (words[3] >> 16) as u16,
            begins: words[3] & 1 != 0,
        }
    }

    #[inline(always)]
    fn count(&self, service: u16, reason: Reason) {
        if !writes() {
            crate::show::would_count(reason);
            return;
        }
        if let Some(count) = REASONS.get_ptr_mut(reason.counter(service)) {
            // SAFETY: a per-CPU value.
            unsafe { *count += 1 };
        }
    }

    #[inline(always)]
    fn gate(&self, backend: u16, kind: u8) -> bool {
        let index = u32::from(backend) * lb_common::event::kind::COUNT + u32::from(kind);
        let Some(gate) = GATES.get_ptr_mut(index).filter(|_| writes()) else { return false };
        let now = self.now().raw();
        // SAFETY: one aligned word; two CPUs that pass at once tell twice, which is no harm.
        unsafe {
            if core::ptr::read_volatile(gate) == now {
                return false;
            }
            core::ptr::write_volatile(gate, now);
        }
        true
    }

    #[inline(always)]
    fn report(&self, event: &Event) {
        if !writes() {
            return;
        }
        if let Some(mut entry) = EVENTS.reserve::<Event>(0) {
            entry.write(*event);
            entry.submit(0);
        }
    }
}
