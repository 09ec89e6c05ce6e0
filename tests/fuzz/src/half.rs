//! The tables of one family.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{PoisonError, RwLock},
};

use lb_common::{
    Address,
    abi::{
        Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Ranges, RangesKey, Service,
        ServiceKey,
    },
    flow::SLOTS,
};

use crate::memory::{BucketWords, CellWords};

/// A map of the kernel that only the agent writes, or whose elements are replaced whole.
#[derive(Debug)]
pub struct Shelf<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self(RwLock::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Copy> Shelf<K, V> {
    /// What stands at a key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Replace what stands there if it is still `before`, nothing being the default; whether it was.
    pub fn swap(&self, key: K, before: V, after: V) -> bool
    where
        V: Default + PartialEq,
    {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let value = map.entry(key).or_default();
        let still = *value == before;
        if still {
            *value = after;
        }
        still
    }

    /// Put something there.
    pub fn put(&self, key: K, value: V) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, value);
    }
}

/// The tables of one family.
pub struct Half<A: Address> {
    /// Services.
    pub services: Shelf<ServiceKey<A>, Service>,
    /// Ranges of ports.
    pub ranges: Shelf<RangesKey<A>, Ranges>,
    /// Backends by id.
    pub backends: Shelf<u16, Backend<A>>,
    /// Source addresses by number.
    pub sources: Shelf<u16, A>,
    /// Endpoints.
    pub endpoints: Shelf<EndpointKey<A>, Endpoint>,
    /// Port cells.
    pub cells: Vec<CellWords>,
    /// The flow table.
    pub flows: Vec<BucketWords>,
    /// Fragmented packets under way.
    pub fragments: Shelf<FragmentKey<A>, Fragment<A>>,
    /// Tokens for new connections.
    pub tokens: Shelf<BucketKey<A>, u64>,
}

impl<A: Address> Half<A> {
    /// Empty tables of so many cells and buckets.
    pub fn new(cells: usize, buckets: usize) -> Self {
        Self {
            services: Shelf::default(),
            ranges: Shelf::default(),
            backends: Shelf::default(),
            sources: Shelf::default(),
            endpoints: Shelf::default(),
            cells: std::iter::repeat_with(CellWords::default).take(cells).collect(),
            flows: std::iter::repeat_with(BucketWords::default).take(buckets).collect(),
            fragments: Shelf::default(),
            tokens: Shelf::default(),
        }
    }

    /// A bucket, and a slot's place in it.
    pub fn bucket(&self, slot: u32) -> Option<(&BucketWords, usize)> {
        Some((self.flows.get(slot as usize / SLOTS)?, slot as usize % SLOTS))
    }

    /// Slots of the flow table.
    pub fn slots(&self) -> u32 {
        (self.flows.len() * SLOTS) as u32
    }
}
