//! The neighbour table: which MAC an address on the link has, and how the kernel is asked to keep it resolved.
//!
//! The data path forwards by MAC without asking anybody, so the kernel never sees traffic to a backend and
//! would let its entry age. Entries of backends are therefore made *managed* (`NTF_EXT_MANAGED`, kernel 5.16):
//! the kernel itself probes them again before they go stale, one unicast ARP request or neighbour solicitation per `interval_probe_time`. On
//! older kernels the attribute is ignored, and the same message is a plain `NTF_USE`: as if one packet had
//! been sent there (`net/core/neighbour.c`, `neigh_add`).

use std::net::IpAddr;

use rtnetlink::packet_route::{
    AddressFamily,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::RouteProtocol,
};

use super::{Netlink, NetlinkError, collect, in_time};

/// Marks the neighbour entries that are managed on our behalf (`NDA_PROTOCOL`), so that they are let go of
/// again and those of other programs are not. Unassigned in `rtnetlink.h`.
const OURS: RouteProtocol = RouteProtocol::Other(108);

/// An entry's key: the interface's index and the address on its link, which may be link-local.
pub type NeighbourKey = (u32, IpAddr);

/// The families whose neighbours are known.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// An entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The MAC, as long as the state says that it can be used.
    pub mac: Option<[u8; 6]>,
    /// What the kernel thinks of it.
    pub state: NeighbourState,
    flags: NeighbourFlags,
    ext_flags: NeighbourExtFlags,
    ours: bool,
}

impl Neighbour {
    /// The key and the entry that a netlink message describes; `None` if it is not about an IP neighbour.
    pub(super) fn parse(message: &NeighbourMessage) -> Option<(NeighbourKey, Self)> {
        if !FAMILIES.contains(&message.header.family) || message.header.flags.contains(NeighbourFlags::Proxy)
        {
            return None;
        }
        let mut address = None;
        let mut neighbour = Self {
            mac: None,
            state: message.header.state,
            flags: message.header.flags,
            ext_flags: NeighbourExtFlags::empty(),
            ours: false,
        };
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(destination)) => {
                    address = Some(IpAddr::V4(*destination));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(destination)) => {
                    address = Some(IpAddr::V6(*destination));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) if usable(message.header.state) => {
                    neighbour.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
                }
                NeighbourAttribute::ExtFlags(flags) => neighbour.ext_flags = *flags,
                NeighbourAttribute::Protocol(protocol) => neighbour.ours = *protocol == OURS,
                _ => {}
            }
        }
        Some(((message.header.ifindex, address?), neighbour))
    }

    /// Whether the kernel gave up asking for it.
    pub(super) fn failed(&self) -> bool {
        self.state == NeighbourState::Failed
    }

    /// Whether the kernel keeps the entry resolved on behalf of this or an earlier agent.
    pub fn kept_for_us(&self) -> bool {
        self.ours && self.ext_flags.contains(NeighbourExtFlags::Managed)
    }

    /// Whether the kernel may have to be nudged. Permanent and NOARP entries never: `neigh_add` with `NTF_USE`
    /// would take their permanence away.
    pub(super) fn wants_nudge(&self) -> bool {
        match self.state {
            NeighbourState::Permanent | NeighbourState::Noarp | NeighbourState::Incomplete => false,
            NeighbourState::Failed | NeighbourState::Stale | NeighbourState::None => true,
            _ => !self.ext_flags.contains(NeighbourExtFlags::Managed),
        }
    }
}

/// The kernel's `NUD_VALID`: a stale entry still carries a usable MAC.
fn usable(state: NeighbourState) -> bool {
    matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    )
}

impl Netlink {
    /// All entries of the neighbour tables.
    pub async fn neighbours(&self) -> Result<Vec<(NeighbourKey, Neighbour)>, NetlinkError> {
        let mut neighbours = Vec::new();
        for family in FAMILIES {
            let request = self.handle.neighbours().get().set_address_family(family);
            let messages = collect("list the neighbours", request.execute()).await?;
            neighbours.extend(messages.iter().filter_map(Neighbour::parse));
        }
        Ok(neighbours)
    }

    /// Asks the kernel to resolve the address on that link, as if a packet had been sent there, and to keep it
    /// resolved. What other programs set on the entry stays.
    pub(super) async fn nudge(
        &self,
        key: NeighbourKey,
        known: Option<&Neighbour>,
    ) -> Result<(), NetlinkError> {
        let kept = known.map_or(NeighbourFlags::empty(), |known| known.flags & NeighbourFlags::ExtLearned);
        let managed_by_other =
            known.is_some_and(|known| !known.ours && known.ext_flags.contains(NeighbourExtFlags::Managed));
        let owner = if managed_by_other { None } else { Some(OURS) };
        self.touch(key, kept, NeighbourExtFlags::Managed, owner).await
    }

    /// Lets go of an entry that was kept resolved for us: it ages as any other from now on.
    pub(super) async fn let_go(&self, key: NeighbourKey, known: &Neighbour) -> Result<(), NetlinkError> {
        let kept = known.flags & NeighbourFlags::ExtLearned;
        self.touch(key, kept, NeighbourExtFlags::empty(), Some(RouteProtocol::Kernel)).await
    }

    /// Lets go of every neighbour entry that [`Watcher`](super::Watcher) of this or an earlier agent made the
    /// kernel keep resolved, except those in `keep`; for `lb detach`.
    pub async fn release_neighbours(&self, keep: &[NeighbourKey]) -> Result<(), NetlinkError> {
        for (key, neighbour) in self.neighbours().await? {
            if neighbour.kept_for_us() && !keep.contains(&key) {
                self.let_go(key, &neighbour).await?;
            }
        }
        Ok(())
    }

    async fn touch(
        &self,
        (interface, address): NeighbourKey,
        kept: NeighbourFlags,
        ext_flags: NeighbourExtFlags,
        owner: Option<RouteProtocol>,
    ) -> Result<(), NetlinkError> {
        const ACTION: &str = "resolve a neighbour";
        let mut request = self
            .handle
            .neighbours()
            .add(interface, address)
            .state(NeighbourState::None)
            .flags(kept | NeighbourFlags::Use)
            .replace();
        let attributes = &mut request.message_mut().attributes;
        attributes.push(NeighbourAttribute::ExtFlags(ext_flags));
        attributes.extend(owner.map(NeighbourAttribute::Protocol));
        in_time(ACTION, async {
            request.execute().await.map_err(|error| NetlinkError::from_rtnetlink(ACTION, error))
        })
        .await
    }
}
