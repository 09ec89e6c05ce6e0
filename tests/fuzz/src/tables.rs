//! What the data path asks of one family's tables: the words in memory, and its own functions, called at once.

use lb_common::{
    Address, MAX_BACKENDS, Ticks,
    abi::{
        Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Ranges, RangesKey, Service,
        ServiceKey,
    },
    cell::{Owner, PortCell, Rights, Worth},
    flow::{FlowKey, Record},
};
use lb_ebpf::{
    Tables, claim, flows, seat, select,
    tables::{Block, Ring},
};

use crate::{
    memory::CellWords,
    world::{Has, World},
};

impl<A: Address> Tables<A> for World
where
    Self: Has<A>,
{
    fn service(&self, key: &ServiceKey<A>) -> Option<Service> {
        self.half().services.get(key)
    }

    fn ranges(&self, key: &RangesKey<A>) -> Option<Ranges> {
        self.half().ranges.get(key)
    }

    fn backend(&self, id: u16) -> Option<Backend<A>> {
        // An array in the kernel: every id has an element.
        self.half().backends.get(&id).or((u32::from(id) < MAX_BACKENDS).then(Backend::default))
    }

    fn source(&self, number: u16) -> Option<A> {
        self.half().sources.get(&number)
    }

    fn endpoint(&self, key: &EndpointKey<A>) -> Option<Endpoint> {
        self.half().endpoints.get(key)
    }

    fn holder(&self, index: u32) -> Option<(Owner, Ticks)> {
        let cell = self.half().cells.get(index as usize)?;
        let owner = cell.owner();
        Some((owner, Ticks::from_raw(cell.seen())))
    }

    fn cell(&self, index: u32) -> Option<PortCell<A>> {
        self.half().cells.get(index as usize).map(CellWords::load::<A>)
    }

    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool {
        self.half().cells.get(index as usize).is_some_and(|cell| cell.swap(before, after))
    }

    fn fill_cell(&self, index: u32, busy: Owner, body: &PortCell<A>) {
        if let Some(cell) = self.half().cells.get(index as usize) {
            if let Some(claims) = &self.claims {
                claims.give(index, body);
            }
            cell.fill(busy, body);
        }
    }

    fn touch_cell(&self, index: u32, now: Ticks) {
        if let Some(cell) = self.half().cells.get(index as usize) {
            cell.touch(now.raw());
        }
    }

    fn answer_cell(&self, index: u32, server_isn: u32) {
        if let Some(cell) = self.half().cells.get(index as usize) {
            cell.answer(server_isn);
        }
    }

    fn flow_owner(&self, slot: u32) -> Option<Owner> {
        self.half().bucket(slot).map(|(bucket, place)| bucket.owner(place))
    }

    fn flow_record(&self, slot: u32) -> Option<Record<A>> {
        self.half().bucket(slot).map(|(bucket, place)| bucket.record::<A>(place))
    }

    fn swap_flow(&self, slot: u32, before: Owner, after: Owner) -> bool {
        self.half().bucket(slot).is_some_and(|(bucket, place)| bucket.swap(place, before, after))
    }

    fn fill_flow(&self, slot: u32, busy: Owner, owner: Owner, record: &Record<A>) {
        if let Some((bucket, place)) = self.half().bucket(slot) {
            bucket.fill(place, busy, owner, record);
        }
    }

    fn touch_flow(&self, slot: u32, now: Ticks) {
        if let Some((bucket, place)) = self.half().bucket(slot) {
            bucket.touch(place, now.raw());
        }
    }

    fn answer_flow(&self, slot: u32, word: u32) {
        if let Some((bucket, place)) = self.half().bucket(slot) {
            bucket.answer(place, word);
        }
    }

    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment<A>> {
        self.half().fragments.get(key)
    }

    fn keep_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment<A>) {
        self.half().fragments.put(*key, *fragment);
    }

    fn tokens(&self, key: &BucketKey<A>) -> u64 {
        self.half().tokens.get(key).unwrap_or(0)
    }

    fn swap_tokens(&self, key: &BucketKey<A>, before: u64, after: u64) -> bool {
        self.half().tokens.swap(*key, before, after)
    }

    fn draw(&self, ring: Ring) -> u16 {
        select::draw::<A, _>(ring, self)
    }

    fn worth(&self, index: u32, now: Ticks) -> Worth {
        claim::worth::<A, _>(index, now, self)
    }

    fn search(&self, block: Block, now: Ticks) -> Option<u32> {
        claim::search::<A, _>(block, now, self)
    }

    fn open(&self, backend: u16) {
        seat::open::<A, _>(backend, self);
    }

    fn close(&self, backend: u16) {
        seat::close::<A, _>(backend, self);
    }

    fn room(&self, bucket: u32, now: Ticks, by: Rights) -> u64 {
        flows::room::<A, _>(bucket, now, by, self)
    }

    fn find_slot(&self, key: &FlowKey<A>, except: u32) -> u32 {
        flows::find_slot(key, except, self)
    }

    fn slot_worth(&self, slot: u32, now: Ticks, by: Rights) -> Worth {
        assert!(slot < self.half().slots(), "a slot beyond the table");
        flows::slot_worth::<A, _>(slot, now, by, self)
    }

    fn take_slot(&self, slot: u32, now: Ticks, by: Rights, key: &FlowKey<A>) -> flows::Taken {
        flows::take_slot::<A, _>(slot, now, by, (key.client.tag(), key.client_port), self)
    }
}
