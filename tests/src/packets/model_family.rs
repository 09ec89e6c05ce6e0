//! The model's tables of one family.

use std::{cell::RefCell, collections::HashMap};

use lb_common::{
    Address, Be32, Be128, Ticks,
    abi::{
        Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Ranges, RangesKey, Service,
        ServiceKey,
    },
    cell::{Owner, PortCell, Rights, Worth},
    flow::{Bucket, FlowKey, Record, SLOTS},
};
use lb_ebpf::{
    Tables,
    claim::{search, worth},
    flows::{Taken, find_slot, room, slot_worth, take_slot},
    seat,
    select::draw,
    tables::{Block, Ring},
};

use super::{model::Model, world::Store};

/// The tables of one family.
#[derive(Default)]
pub(super) struct Family<A: Address> {
    services: HashMap<ServiceKey<A>, Service>,
    ranges: HashMap<RangesKey<A>, Ranges>,
    backends: HashMap<u16, Backend<A>>,
    sources: HashMap<u16, A>,
    endpoints: HashMap<EndpointKey<A>, Endpoint>,
    cells: RefCell<Vec<PortCell<A>>>,
    buckets: RefCell<Vec<Bucket<A>>>,
    fragments: RefCell<HashMap<FragmentKey<A>, Fragment<A>>>,
    tokens: RefCell<HashMap<BucketKey<A>, u64>>,
}

impl<A: Address> Family<A> {
    pub(super) fn new(cells: u32, buckets: u32) -> Self {
        Self {
            cells: RefCell::new(vec![PortCell::default(); cells as usize]),
            buckets: RefCell::new(vec![Bucket::default(); buckets as usize]),
            ..Self::default()
        }
    }

    fn edit_slot<R>(&self, slot: u32, edit: impl FnOnce(&mut Owner, &mut Record<A>) -> R) -> Option<R> {
        let mut buckets = self.buckets.borrow_mut();
        let bucket = buckets.get_mut(slot as usize / SLOTS)?;
        let place = slot as usize % SLOTS;
        Some(edit(&mut bucket.owners[place], &mut bucket.records[place]))
    }
}

/// A family that the model has tables of.
pub(super) trait Modelled: Address {
    fn of(model: &Model) -> &Family<Self>;
    fn of_mut(model: &mut Model) -> &mut Family<Self>;
}

impl Modelled for Be32 {
    fn of(model: &Model) -> &Family<Self> {
        &model.ipv4
    }

    fn of_mut(model: &mut Model) -> &mut Family<Self> {
        &mut model.ipv4
    }
}

impl Modelled for Be128 {
    fn of(model: &Model) -> &Family<Self> {
        &model.ipv6
    }

    fn of_mut(model: &mut Model) -> &mut Family<Self> {
        &mut model.ipv6
    }
}

fn entries<K: Copy, V: Copy>(map: &HashMap<K, V>) -> Vec<(K, V)> {
    map.iter().map(|(key, value)| (*key, *value)).collect()
}

impl<A: Modelled> Store<A> for Model {
    fn set_service(&mut self, key: ServiceKey<A>, service: Service) {
        A::of_mut(self).services.insert(key, service);
    }

    fn remove_service(&mut self, key: ServiceKey<A>) {
        A::of_mut(self).services.remove(&key);
    }

    fn services(&self) -> Vec<(ServiceKey<A>, Service)> {
        entries(&A::of(self).services)
    }

    fn set_ranges(&mut self, key: RangesKey<A>, ranges: Ranges) {
        A::of_mut(self).ranges.insert(key, ranges);
    }

    fn set_backend(&mut self, id: u16, backend: Backend<A>) {
        A::of_mut(self).backends.insert(id, backend);
    }

    fn backend_at(&self, id: u16) -> Backend<A> {
        A::of(self).backends.get(&id).copied().unwrap_or_default()
    }

    fn set_source(&mut self, number: u16, address: A) {
        A::of_mut(self).sources.insert(number, address);
    }

    fn source_at(&self, number: u16) -> A {
        A::of(self).sources.get(&number).copied().unwrap_or_default()
    }

    fn set_endpoint(&mut self, key: EndpointKey<A>, endpoint: Endpoint) {
        A::of_mut(self).endpoints.insert(key, endpoint);
    }

    fn set_cell(&mut self, index: u32, cell: PortCell<A>) {
        A::of_mut(self).cells.get_mut()[index as usize] = cell;
    }

    fn cell_at(&self, index: u32) -> PortCell<A> {
        A::of(self).cells.borrow()[index as usize]
    }

    fn set_bucket(&mut self, index: u32, bucket: Bucket<A>) {
        A::of_mut(self).buckets.get_mut()[index as usize] = bucket;
    }

    fn bucket_at(&self, index: u32) -> Bucket<A> {
        A::of(self).buckets.borrow()[index as usize]
    }

    fn set_fragment(&mut self, key: FragmentKey<A>, fragment: Fragment<A>) {
        A::of_mut(self).fragments.get_mut().insert(key, fragment);
    }

    fn fragments(&self) -> Vec<(FragmentKey<A>, Fragment<A>)> {
        entries(&A::of(self).fragments.borrow())
    }

    fn set_tokens(&mut self, key: BucketKey<A>, word: u64) {
        A::of_mut(self).tokens.get_mut().insert(key, word);
    }

    fn all_tokens(&self) -> Vec<(BucketKey<A>, u64)> {
        entries(&A::of(self).tokens.borrow())
    }
}

impl<A: Modelled> Tables<A> for Model {
    fn service(&self, key: &ServiceKey<A>) -> Option<Service> {
        A::of(self).services.get(key).copied()
    }

    fn ranges(&self, key: &RangesKey<A>) -> Option<Ranges> {
        A::of(self).ranges.get(key).copied()
    }

    fn backend(&self, id: u16) -> Option<Backend<A>> {
        (u32::from(id) < lb_common::MAX_BACKENDS).then(|| self.backend_at(id))
    }

    fn source(&self, number: u16) -> Option<A> {
        (u32::from(number) < lb_common::MAX_SOURCES).then(|| self.source_at(number))
    }

    fn endpoint(&self, key: &EndpointKey<A>) -> Option<Endpoint> {
        A::of(self).endpoints.get(key).copied()
    }

    fn holder(&self, index: u32) -> Option<(Owner, Ticks)> {
        self.cell(index).map(|cell: PortCell<A>| (cell.owner, cell.seen()))
    }

    fn cell(&self, index: u32) -> Option<PortCell<A>> {
        A::of(self).cells.borrow().get(index as usize).copied()
    }

    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        let mut cells = A::of(self).cells.borrow_mut();
        let Some(cell) = cells.get_mut(index as usize).filter(|cell| cell.owner == before) else {
            return false;
        };
        cell.owner = after;
        true
    }

    fn fill_cell(&self, index: u32, busy: Owner, cell: &PortCell<A>) {
        let mut cells = A::of(self).cells.borrow_mut();
        if let Some(place) = cells.get_mut(index as usize).filter(|cell| cell.owner == busy) {
            *place = *cell;
        }
    }

    fn touch_cell(&self, index: u32, now: Ticks) {
        if let Some(cell) = A::of(self).cells.borrow_mut().get_mut(index as usize) {
            cell.seen = now.raw();
        }
    }

    fn answer_cell(&self, index: u32, server_isn: u32) {
        if let Some(cell) = A::of(self).cells.borrow_mut().get_mut(index as usize) {
            cell.word = server_isn;
        }
    }

    fn flow_owner(&self, slot: u32) -> Option<Owner> {
        A::of(self).edit_slot(slot, |owner, _| *owner)
    }

    fn flow_record(&self, slot: u32) -> Option<Record<A>> {
        A::of(self).edit_slot(slot, |_, record| *record)
    }

    fn swap_flow(&self, slot: u32, before: Owner, after: Owner) -> bool {
        let swapped = A::of(self).edit_slot(slot, |owner, _| {
            let equal = *owner == before;
            if equal {
                *owner = after;
            }
            equal
        });
        swapped.unwrap_or(false)
    }

    fn fill_flow(&self, slot: u32, busy: Owner, owner: Owner, record: &Record<A>) {
        A::of(self).edit_slot(slot, |held, body| {
            assert_eq!(*held, busy, "a record is written into a slot that is not busy");
            *body = *record;
            *held = owner;
        });
    }

    fn touch_flow(&self, slot: u32, now: Ticks) {
        A::of(self).edit_slot(slot, |_, record| record.seen = now.raw());
    }

    fn answer_flow(&self, slot: u32, word: u32) {
        A::of(self).edit_slot(slot, |_, record| record.word = word);
    }

    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment<A>> {
        A::of(self).fragments.borrow().get(key).copied()
    }

    fn keep_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) {
        A::of(self).fragments.borrow_mut().insert(*key, *fragment);
    }

    fn tokens(&self, key: &BucketKey<A>) -> u64 {
        A::of(self).tokens.borrow().get(key).copied().unwrap_or_default()
    }

    fn swap_tokens(&self, key: &BucketKey<A>, before: u64, after: u64) -> bool {
        let mut tokens = A::of(self).tokens.borrow_mut();
        let word = tokens.entry(*key).or_default();
        let equal = *word == before;
        if equal {
            *word = after;
        }
        equal
    }

    fn draw(&self, ring: Ring) -> u16 {
        draw::<A, _>(ring, self)
    }

    fn worth(&self, index: u32, now: Ticks) -> Worth {
        worth::<A, _>(index, now, self)
    }

    fn search(&self, block: Block, now: Ticks) -> Option<u32> {
        search::<A, _>(block, now, self)
    }

    fn open(&self, backend: u16) {
        seat::open::<A, _>(backend, self);
    }

    fn close(&self, backend: u16) {
        seat::close::<A, _>(backend, self);
    }

    fn room(&self, bucket: u32, now: Ticks, by: Rights) -> u64 {
        room::<A, _>(bucket, now, by, self)
    }

    fn find_slot(&self, key: &FlowKey<A>, except: u32) -> u32 {
        find_slot(key, except, self)
    }

    fn slot_worth(&self, slot: u32, now: Ticks, by: Rights) -> Worth {
        slot_worth::<A, _>(slot, now, by, self)
    }

    fn take_slot(&self, slot: u32, now: Ticks, by: Rights, key: &FlowKey<A>) -> Taken {
        take_slot::<A, _>(slot, now, by, (key.client.tag(), key.client_port), self)
    }
}
