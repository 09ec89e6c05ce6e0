//! The body of a port cell.

use super::Owner;
#[cfg(doc)]
use super::Phase;
use crate::{Address, Be16, Be32, Be128, Ticks, abi::Hop};

/// One port of one endpoint and source address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCell<A: Address> {
    /// Who holds it, and how far it has come.
    pub owner: Owner,
    /// The way back to the client: the MAC address and interface that its packets came in by.
    pub hop: Hop,
    /// When the server last sent something, or when the connection ended, in [`Ticks`].
    pub seen: u32,
    /// The server's initial sequence number, host order. Before the answer: when the client's SYN was forwarded, in
    /// microseconds of the precise clock, modulo 2^32.
    pub word: u32,
    /// Id of the (service, backend) pair.
    pub backend: u16,
    /// The port that the client connected to.
    pub service_port: Be16,
    /// The VLAN tag (TCI, host order) that the client's packets carry; 0: none.
    pub vlan: u16,
    /// Zero.
    pub pad: u16,
    /// What the owner word does not hold of the client's address.
    pub client: A::Rest,
}

const _: () = assert!(size_of::<PortCell<Be32>>() == 32 && size_of::<PortCell<Be128>>() == 48);

impl<A: Address> PortCell<A> {
    /// When the server last sent something, or when the connection ended.
    #[inline(always)]
    pub const fn seen(&self) -> Ticks {
        Ticks::from_raw(self.seen)
    }

    /// The client's address.
    #[inline(always)]
    pub fn client(&self) -> A {
        A::whole(self.owner.tag(), self.client)
    }

    /// Whether this is the client's hold.
    #[inline(always)]
    pub fn belongs_to(&self, client: A, port: Be16) -> bool {
        self.owner.has(client.tag(), port) && self.client == client.rest()
    }
}
