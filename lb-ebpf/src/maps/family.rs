//! The tables of each family: its maps, and how the data path reaches their memory.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use lb_common::{
    Be32, Be128, MAX_BACKENDS, MAX_BUCKETS, MAX_ENDPOINTS, MAX_FRAGMENTS, MAX_SERVICES, MAX_SOURCES, Ticks,
    abi::{
        Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Hop, Ranges, RangesKey, Service,
        ServiceKey,
    },
    cell::{Owner, PortCell, Rights, Worth},
    flow::{Bucket, FlowKey, Record, SLOTS, Way as FlowWay},
};
use lb_ebpf::{
    Tables,
    flows::Taken,
    tables::{Block, NOWHERE, Ring},
};

use super::{Maps, functions, swap, writes};
use crate::atomic::compare_exchange;

/// The tables of one family.
macro_rules! family {
    (
        $address:ty, $services:ident, $ranges:ident, $backends:ident, $sources:ident, $endpoints:ident, $cells:ident,
        $flows:ident, $fragments:ident, $rates:ident, $draw:ident, $worth:ident, $search:ident, $find:ident,
        $slot_worth:ident, $room:ident, $take:ident, $open:ident, $close:ident
    ) => {
        #[map]
        static $services: HashMap<ServiceKey<$address>, Service> =
            HashMap::with_max_entries(2 * MAX_SERVICES, 0);
        #[map]
        static $ranges: HashMap<RangesKey<$address>, Ranges> = HashMap::with_max_entries(MAX_SERVICES, 0);
        #[map]
        static $backends: Array<Backend<$address>> = Array::with_max_entries(MAX_BACKENDS, 0);
        #[map]
        static $sources: Array<$address> = Array::with_max_entries(MAX_SOURCES, 0);
        #[map]
        static $endpoints: HashMap<EndpointKey<$address>, Endpoint> =
            HashMap::with_max_entries(MAX_ENDPOINTS, 0);
        #[map]
        static $cells: Array<PortCell<$address>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
        #[map]
        static $flows: Array<Bucket<$address>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
        #[map]
        static $fragments: LruHashMap<FragmentKey<$address>, Fragment<$address>> =
            LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);
        #[map]
        static $rates: LruHashMap<BucketKey<$address>, u64> = LruHashMap::with_max_entries(MAX_BUCKETS, 0);

        impl Tables<$address> for Maps {
            #[inline(always)]
            fn service(&self, key: &ServiceKey<$address>) -> Option<Service> {
                // SAFETY: copied at once; what could be torn by a replacement is checked where it is used (`select`).
                unsafe { $services.get(key) }.copied()
            }

            #[inline(always)]
            fn ranges(&self, key: &RangesKey<$address>) -> Option<Ranges> {
                // SAFETY: copied at once; a torn range leads to a service that is looked up by itself.
                unsafe { $ranges.get(key) }.copied()
            }

            #[inline(always)]
            fn backend(&self, id: u16) -> Option<Backend<$address>> {
                $backends.get(id.into()).copied()
            }

            #[inline(always)]
            fn source(&self, number: u16) -> Option<$address> {
                $sources.get(number.into()).copied()
            }

            #[inline(always)]
            fn endpoint(&self, key: &EndpointKey<$address>) -> Option<Endpoint> {
                // SAFETY: copied at once; its cells never change while it exists, its services are checked by their flows.
                unsafe { $endpoints.get(key) }.copied()
            }

            #[inline(always)]
            fn holder(&self, index: u32) -> Option<(Owner, Ticks)> {
                let cell = $cells.get_ptr(index)?;
                // SAFETY: the element exists as long as the map; other CPUs write it, so each word is read once.
                unsafe {
                    let owner = core::ptr::read_volatile(&raw const (*cell).owner);
                    let seen = core::ptr::read_volatile(&raw const (*cell).seen);
                    Some((owner, Ticks::from_raw(seen)))
                }
            }

            #[inline(always)]
            fn cell(&self, index: u32) -> Option<PortCell<$address>> {
                let cell = $cells.get_ptr(index)?;
                // SAFETY: as in `holder`; the owner is read before the body, and the hop is one aligned word.
                unsafe {
                    let owner = core::ptr::read_volatile(&raw const (*cell).owner);
                    let hop = core::ptr::read_volatile((&raw const (*cell).hop).cast::<u64>());
                    Some(PortCell {
                        owner,
                        hop: Hop::from_word(hop),
                        seen: core::ptr::read_volatile(&raw const (*cell).seen),
                        word: core::ptr::read_volatile(&raw const (*cell).word),
                        backend: core::ptr::read_volatile(&raw const (*cell).backend),
                        service_port: core::ptr::read_volatile(&raw const (*cell).service_port),
                        vlan: core::ptr::read_volatile(&raw const (*cell).vlan),
                        pad: 0,
                        client: core::ptr::read_volatile(&raw const (*cell).client),
                    })
                }
            }

            #[inline(always)]
            fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
                let Some(cell) = $cells.get_ptr_mut(index) else { return false };
                // SAFETY: the element exists as long as the map; only its address is taken here.
                swap(unsafe { &raw mut (*cell).owner.0 }, before.0, after.0)
            }

            #[inline(always)]
            fn fill_cell(&self, index: u32, busy: Owner, body: &PortCell<$address>) {
                let Some(cell) = $cells.get_ptr_mut(index).filter(|_| writes()) else { return };
                // SAFETY: the caller has made the cell `Busy`, so that nobody else reads or writes its body.
                unsafe {
                    (*cell).hop = body.hop;
                    (*cell).seen = body.seen;
                    (*cell).word = body.word;
                    (*cell).backend = body.backend;
                    (*cell).service_port = body.service_port;
                    (*cell).vlan = body.vlan;
                    (*cell).client = body.client;
                    // An exchange rather than a store: it orders the body before the owner on every architecture.
                    compare_exchange(&raw mut (*cell).owner.0, busy.0, body.owner.0);
                }
            }

            #[inline(always)]
            fn touch_cell(&self, index: u32, now: Ticks) {
                if let Some(cell) = $cells.get_ptr_mut(index).filter(|_| writes()) {
                    // SAFETY: a word of its own; the last writer wins, and all write the present.
                    unsafe { core::ptr::write_volatile(&raw mut (*cell).seen, now.raw()) };
                }
            }

            #[inline(always)]
            fn answer_cell(&self, index: u32, server_isn: u32) {
                if let Some(cell) = $cells.get_ptr_mut(index).filter(|_| writes()) {
                    // SAFETY: a word of its own, written before the phase that makes it count.
                    unsafe { core::ptr::write_volatile(&raw mut (*cell).word, server_isn) };
                }
            }

            #[inline(always)]
            fn flow_owner(&self, slot: u32) -> Option<Owner> {
                let (bucket, place) = split(slot);
                let bucket = $flows.get_ptr(bucket)?;
                // SAFETY: the element exists as long as the map, and `place` is below its slots.
                Some(unsafe {
                    core::ptr::read_volatile((&raw const (*bucket).owners).cast::<Owner>().add(place))
                })
            }

            #[inline(always)]
            fn flow_record(&self, slot: u32) -> Option<Record<$address>> {
                let (bucket, place) = split(slot);
                let bucket = $flows.get_ptr(bucket)?;
                // SAFETY: as above; the way is one aligned word.
                unsafe {
                    let record = (&raw const (*bucket).records).cast::<Record<$address>>().add(place);
                    Some(Record {
                        way: FlowWay(core::ptr::read_volatile((&raw const (*record).way).cast::<u64>())),
                        seen: core::ptr::read_volatile(&raw const (*record).seen),
                        word: core::ptr::read_volatile(&raw const (*record).word),
                        backend: core::ptr::read_volatile(&raw const (*record).backend),
                        service: core::ptr::read_volatile(&raw const (*record).service),
                        service_port: core::ptr::read_volatile(&raw const (*record).service_port),
                        vlan: core::ptr::read_volatile(&raw const (*record).vlan),
                        client: core::ptr::read_volatile(&raw const (*record).client),
                    })
                }
            }

            #[inline(always)]
            fn swap_flow(&self, slot: u32, before: Owner, after: Owner) -> bool {
                let (bucket, place) = split(slot);
                let Some(bucket) = $flows.get_ptr_mut(bucket) else { return false };
                // SAFETY: as above; only an address is taken here.
                let owner = unsafe { (&raw mut (*bucket).owners).cast::<u64>().add(place) };
                swap(owner, before.0, after.0)
            }

            #[inline(always)]
            fn fill_flow(&self, slot: u32, busy: Owner, owner: Owner, record: &Record<$address>) {
                let (bucket, place) = split(slot);
                let Some(bucket) = $flows.get_ptr_mut(bucket).filter(|_| writes()) else { return };
                // SAFETY: the caller has made the slot `Busy`, so that nobody else reads or writes its record.
                unsafe {
                    *(&raw mut (*bucket).records).cast::<Record<$address>>().add(place) = *record;
                    let word = (&raw mut (*bucket).owners).cast::<u64>().add(place);
                    compare_exchange(word, busy.0, owner.0);
                }
            }

            #[inline(always)]
            fn touch_flow(&self, slot: u32, now: Ticks) {
                let (bucket, place) = split(slot);
                if let Some(bucket) = $flows.get_ptr_mut(bucket).filter(|_| writes()) {
                    // SAFETY: as above; a word of its own. Should the slot be another flow's by now, that one is stamped.
                    unsafe {
                        let record = (&raw mut (*bucket).records).cast::<Record<$address>>().add(place);
                        core::ptr::write_volatile(&raw mut (*record).seen, now.raw());
                    }
                }
            }

            #[inline(always)]
            fn answer_flow(&self, slot: u32, word: u32) {
                let (bucket, place) = split(slot);
                if let Some(bucket) = $flows.get_ptr_mut(bucket).filter(|_| writes()) {
                    // SAFETY: as above; a word of its own, written before the phase that makes it count.
                    unsafe {
                        let record = (&raw mut (*bucket).records).cast::<Record<$address>>().add(place);
                        core::ptr::write_volatile(&raw mut (*record).word, word);
                    }
                }
            }

            #[inline(always)]
            fn fragment(&self, key: &FragmentKey<$address>) -> Option<Fragment<$address>> {
                // SAFETY: copied at once; an element that was given to another packet meanwhile misleads a part of one.
                unsafe { $fragments.get(key) }.copied()
            }

            #[inline(always)]
            fn keep_fragment(&self, key: &FragmentKey<$address>, fragment: &Fragment<$address>) {
                if writes() {
                    // A table that is full forgets its oldest entry; what fails otherwise loses a packet's parts.
                    let _ = $fragments.insert(key, fragment, 0);
                }
            }

            #[inline(always)]
            fn tokens(&self, key: &BucketKey<$address>) -> u64 {
                let word = $rates.get_ptr(key);
                // SAFETY: one aligned word of an element that the kernel frees only after a grace period.
                word.map_or(0, |word| unsafe { core::ptr::read_volatile(word) })
            }

            #[inline(always)]
            fn swap_tokens(&self, key: &BucketKey<$address>, before: u64, after: u64) -> bool {
                if !writes() {
                    return true;
                }
                match $rates.get_ptr_mut(key) {
                    Some(word) => compare_exchange(word, before, after) == before,
                    None => $rates.insert(key, &after, 0).is_ok(),
                }
            }

            #[inline(always)]
            fn draw(&self, ring: Ring) -> u16 {
                let kinds = u32::from(ring.service) << 16 | u32::from(ring.algorithm);
                functions::$draw(ring.offset, ring.length, kinds, ring.members.into(), ring.hash) as u16
            }

            #[inline(always)]
            fn worth(&self, index: u32, now: Ticks) -> Worth {
                Worth::from_raw(functions::$worth(index, now.raw()))
            }

            #[inline(always)]
            fn search(&self, block: Block, now: Ticks) -> Option<u32> {
                let place = functions::$search(block.cells, block.count, block.start, now.raw());
                if place == NOWHERE { None } else { Some(place) }
            }

            #[inline(always)]
            fn open(&self, backend: u16) {
                functions::$open(backend.into());
            }

            #[inline(always)]
            fn close(&self, backend: u16) {
                functions::$close(backend.into());
            }

            #[inline(always)]
            fn room(&self, bucket: u32, now: Ticks, by: Rights) -> u64 {
                functions::$room(bucket, now.raw(), by.0)
            }

            #[inline(always)]
            fn find_slot(&self, key: &FlowKey<$address>, except: u32) -> u32 {
                let (low, high) = lb_common::Address::words(key.client);
                functions::$find(low, high, ports_of(key), except)
            }

            #[inline(always)]
            fn slot_worth(&self, slot: u32, now: Ticks, by: Rights) -> Worth {
                Worth::from_raw(functions::$slot_worth(slot, now.raw(), by.0))
            }

            #[inline(always)]
            fn take_slot(&self, slot: u32, now: Ticks, by: Rights, key: &FlowKey<$address>) -> Taken {
                let tag = lb_common::Address::tag(key.client);
                let port = key.client_port.wire().into();
                Taken::from_raw(functions::$take(slot, now.raw(), by.0, tag, port))
            }
        }
    };
}

family!(
    Be32,
    SERVICES4,
    RANGES4,
    BACKENDS4,
    SOURCES4,
    ENDPOINTS4,
    CELLS4,
    FLOWS4,
    FRAGMENTS4,
    RATES4,
    lb_draw4,
    lb_worth4,
    lb_search4,
    lb_find4,
    lb_slot_worth4,
    lb_room4,
    lb_take4,
    lb_open4,
    lb_close4
);
family!(
    Be128,
    SERVICES6,
    RANGES6,
    BACKENDS6,
    SOURCES6,
    ENDPOINTS6,
    CELLS6,
    FLOWS6,
    FRAGMENTS6,
    RATES6,
    lb_draw6,
    lb_worth6,
    lb_search6,
    lb_find6,
    lb_slot_worth6,
    lb_room6,
    lb_take6,
    lb_open6,
    lb_close6
);

/// Ports and service of a flow as one number.
#[inline(always)]
fn ports_of<A>(key: &FlowKey<A>) -> u64 {
    u64::from(key.client_port.wire()) << 32
        | u64::from(key.service_port.wire()) << 16
        | u64::from(key.service)
}

/// A slot's bucket and its place there.
#[inline(always)]
const fn split(slot: u32) -> (u32, usize) {
    (slot / SLOTS as u32, slot as usize % SLOTS)
}
