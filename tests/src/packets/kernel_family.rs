//! The kernel's maps of one family; their names end in its version.

use aya::Pod;
use lb_common::{
    Address, Be32, Be128,
    abi::{
        Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Ranges, RangesKey, Service,
        ServiceKey,
    },
    cell::PortCell,
    flow::Bucket,
};

use super::{
    kernel::Kernel,
    scene::{LAST_ID, SOURCES},
    world::{Store, World as _, buckets},
};

fn map<A: Address>(name: &str) -> String {
    format!("{name}{}", A::VERSION)
}

impl Kernel {
    pub(super) fn clear_family<A: Address + Pod>(&mut self)
    where
        Self: Store<A>,
        ServiceKey<A>: Pod,
        RangesKey<A>: Pod,
        EndpointKey<A>: Pod,
        FragmentKey<A>: Pod,
        Fragment<A>: Pod,
        BucketKey<A>: Pod,
    {
        self.empty::<ServiceKey<A>, Service>(&map::<A>("SERVICES"));
        self.empty::<RangesKey<A>, Ranges>(&map::<A>("RANGES"));
        self.empty::<EndpointKey<A>, Endpoint>(&map::<A>("ENDPOINTS"));
        self.empty::<FragmentKey<A>, Fragment<A>>(&map::<A>("FRAGMENTS"));
        self.empty::<BucketKey<A>, u64>(&map::<A>("RATES"));
        for index in 0..self.cell_count() {
            Store::<A>::set_cell(self, index, PortCell::default());
        }
        for index in 0..buckets::<A>(&self.config()) {
            Store::<A>::set_bucket(self, index, Bucket::default());
        }
        for id in 0..=LAST_ID {
            Store::<A>::set_backend(self, id, Backend::default());
        }
        for number in 0..=SOURCES {
            Store::<A>::set_source(self, number, A::default());
        }
    }
}

macro_rules! store {
    ($address:ty) => {
        impl Store<$address> for Kernel {
            fn set_service(&mut self, key: ServiceKey<$address>, service: Service) {
                self.insert(&map::<$address>("SERVICES"), key, service);
            }

            fn remove_service(&mut self, key: ServiceKey<$address>) {
                let mut map = self.hash_mut::<ServiceKey<$address>, Service>(&map::<$address>("SERVICES"));
                map.remove(&key).expect("the service was there");
            }

            fn services(&self) -> Vec<(ServiceKey<$address>, Service)> {
                self.entries(&map::<$address>("SERVICES"))
            }

            fn set_ranges(&mut self, key: RangesKey<$address>, ranges: Ranges) {
                self.insert(&map::<$address>("RANGES"), key, ranges);
            }

            fn set_backend(&mut self, id: u16, backend: Backend<$address>) {
                self.set(&map::<$address>("BACKENDS"), id.into(), backend);
            }

            fn backend_at(&self, id: u16) -> Backend<$address> {
                self.get(&map::<$address>("BACKENDS"), id.into())
            }

            fn set_source(&mut self, number: u16, address: $address) {
                self.set(&map::<$address>("SOURCES"), number.into(), address);
            }

            fn source_at(&self, number: u16) -> $address {
                self.get(&map::<$address>("SOURCES"), number.into())
            }

            fn set_endpoint(&mut self, key: EndpointKey<$address>, endpoint: Endpoint) {
                self.insert(&map::<$address>("ENDPOINTS"), key, endpoint);
            }

            fn set_cell(&mut self, index: u32, cell: PortCell<$address>) {
                self.set(&map::<$address>("CELLS"), index, cell);
            }

            fn cell_at(&self, index: u32) -> PortCell<$address> {
                self.get(&map::<$address>("CELLS"), index)
            }

            fn set_bucket(&mut self, index: u32, bucket: Bucket<$address>) {
                self.set(&map::<$address>("FLOWS"), index, bucket);
            }

            fn bucket_at(&self, index: u32) -> Bucket<$address> {
                self.get(&map::<$address>("FLOWS"), index)
            }

            fn set_fragment(&mut self, key: FragmentKey<$address>, fragment: Fragment<$address>) {
                self.insert(&map::<$address>("FRAGMENTS"), key, fragment);
            }

            fn fragments(&self) -> Vec<(FragmentKey<$address>, Fragment<$address>)> {
                self.entries(&map::<$address>("FRAGMENTS"))
            }

            fn set_tokens(&mut self, key: BucketKey<$address>, word: u64) {
                self.insert(&map::<$address>("RATES"), key, word);
            }

            fn all_tokens(&self) -> Vec<(BucketKey<$address>, u64)> {
                self.entries(&map::<$address>("RATES"))
            }
        }
    };
}
store!(Be32);
store!(Be128);
