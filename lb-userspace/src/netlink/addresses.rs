//! The IP addresses of this network namespace, of both families, and whose an address is.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::{Netlink, NetlinkError, collect};

/// An IP address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address itself; of an interface's address with its host bits.
    pub address: IpAddr,
    /// How many leading bits are the network: 0 to 32, or to 128.
    pub length: u8,
}

impl Prefix {
    /// Whether the address lies in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }

    /// The same without host bits.
    #[must_use]
    pub fn network(self) -> Self {
        let length = u32::from(self.length);
        let address = match self.address {
            IpAddr::V4(own) => {
                IpAddr::V4((own.to_bits() & u32::MAX.checked_shl(32 - length.min(32)).unwrap_or(0)).into())
            }
            IpAddr::V6(own) => {
                IpAddr::V6((own.to_bits() & u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0)).into())
            }
        };
        Self { address, length: self.length }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// How far the check for duplicates of an address is (RFC 4862, section 5.4; IPv4 addresses have none).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressState {
    /// It is used.
    Ready,
    /// The check runs: it is not answered for yet, which takes a second or two.
    Tentative,
    /// Somebody else on the link has it: this host never uses it.
    Duplicate,
}

/// An IP address of this host and where it sits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address and its prefix.
    pub prefix: Prefix,
    /// Index of the interface that has it.
    pub interface: u32,
    /// Name of the interface that has it.
    pub interface_name: String,
    /// Whether it is in use.
    pub state: AddressState,
}

/// Whose an address is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// It is on an interface of this host.
    OnInterface(LocalAddress),
    /// A route of type `local` gives it to this host without an interface having it. ARP is answered for such an address,
    /// neighbour discovery is not: an IPv6 address of this sort must be routed here.
    Routed,
    /// It is not this host's.
    Foreign,
}

/// An address as the kernel lists it.
pub(super) struct Listed {
    pub(super) interface: u32,
    pub(super) prefix: Prefix,
    pub(super) state: AddressState,
}

impl Netlink {
    /// All addresses of this host, by address.
    pub async fn local_addresses(&self) -> Result<Vec<LocalAddress>, NetlinkError> {
        let interfaces = self.interfaces().await?;
        let listed = self.listed_addresses().await?;
        // An interface that came between the two questions has no name yet; the next question finds it.
        let named = listed.into_iter().filter_map(|listed| {
            let interface = interfaces.iter().find(|interface| interface.index == listed.interface)?;
            Some(LocalAddress {
                prefix: listed.prefix,
                interface: listed.interface,
                interface_name: interface.name.clone(),
                state: listed.state,
            })
        });
        let mut locals: Vec<LocalAddress> = named.collect();
        locals.sort();
        Ok(locals)
    }

    /// Whose an address is, as of now.
    pub async fn ownership(&self, address: IpAddr) -> Result<Ownership, NetlinkError> {
        let locals = self.local_addresses().await?;
        let having = locals.into_iter().filter(|local| local.prefix.address == address);
        if let Some(local) = having.min_by_key(|local| local.state) {
            return Ok(Ownership::OnInterface(local));
        }
        let routed = self.is_routed_here(address).await?;
        Ok(if routed { Ownership::Routed } else { Ownership::Foreign })
    }

    /// Whether packets to the address are this host's: whether it may be one of a pool of source addresses.
    pub async fn is_local(&self, address: IpAddr) -> Result<bool, NetlinkError> {
        Ok(match self.ownership(address).await? {
            Ownership::OnInterface(local) => local.state != AddressState::Duplicate,
            Ownership::Routed => true,
            Ownership::Foreign => false,
        })
    }

    /// Where a service address sits; if nowhere, the error prints the `ip addr add` line that puts it on
    /// `suggestion`, the interface that clients come in by.
    pub async fn require_local(&self, address: IpAddr, suggestion: &str) -> Result<Ownership, NetlinkError> {
        match self.ownership(address).await? {
            Ownership::Foreign => {
                Err(NetlinkError::AddressNotLocal { address, suggestion: suggestion.to_owned() })
            }
            Ownership::OnInterface(LocalAddress {
                state: AddressState::Duplicate, interface_name, ..
            }) => Err(NetlinkError::AddressDuplicate { address, interface: interface_name }),
            ours => Ok(ours),
        }
    }

    /// The addresses of both families, in the kernel's order.
    pub(super) async fn listed_addresses(&self) -> Result<Vec<Listed>, NetlinkError> {
        let messages = collect("list the addresses", self.handle.address().get().execute()).await?;
        Ok(messages.iter().filter_map(listed).collect())
    }
}

/// `IFA_LOCAL` is the own address; on a point-to-point link `IFA_ADDRESS` is the peer's. IPv6 gives the former only
/// where there is a peer.
fn listed(message: &AddressMessage) -> Option<Listed> {
    let (mut own, mut address, mut flags) = (None, None, AddressFlags::empty());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(local) => own = Some(*local),
            AddressAttribute::Address(any @ IpAddr::V6(_)) => address = Some(*any),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let state = if flags.contains(AddressFlags::Dadfailed) {
        AddressState::Duplicate
    } else if flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic) {
        AddressState::Tentative
    } else {
        AddressState::Ready
    };
    let prefix = Prefix { address: own.or(address)?, length: message.header.prefix_len };
    Some(Listed { interface: message.header.index, prefix, state })
}

/// Whether an address means something on one link only (RFC 4291, section 2.5.6).
pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if Ipv6Addr::is_unicast_link_local(&address))
}

/// The command that puts a service's address on an interface. Of several IPv6 addresses the kernel sends from the one
/// most like the destination, and a service's may well be that; of those without preferred lifetime only where there
/// is no other (RFC 6724, section 5, rule 3).
pub(super) fn line_that_adds(address: IpAddr, interface: &str) -> String {
    match address {
        IpAddr::V4(_) => format!("ip addr add {address}/32 dev {interface}"),
        IpAddr::V6(_) => format!("ip -6 addr add {address}/128 dev {interface} preferred_lft 0"),
    }
}
