//! The interfaces of this network namespace.

use std::{collections::HashMap, net::IpAddr, path::Path};

use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp,
    VlanProtocol, XdpAttached,
};

use super::{Netlink, NetlinkError, Prefix, collect};

/// How an XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// By the driver, before a socket buffer exists.
    Native,
    /// By the kernel's stack, on a socket buffer.
    Generic,
    /// On the network card.
    Offloaded,
    /// In several of these places at once.
    Several,
}

/// An XDP program that an interface already has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    /// The kernel's id of the program, 0 if it did not say.
    pub program_id: u32,
    /// How it is attached.
    pub mode: XdpMode,
}

/// What a VLAN interface does to the packets of the interface below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// The VLAN's id, 1 to 4094.
    pub id: u16,
    /// Whether its tag is a service tag (802.1ad, 0x88a8) rather than 802.1Q's.
    pub service_tag: bool,
    /// Index of the interface below it.
    pub below: u32,
}

/// A network interface as the data path sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The name, such as `eth0`.
    pub name: String,
    /// The kernel's index, never 0.
    pub index: u32,
    /// The Ethernet address; `None` where there is none (`tun` and other layer-3 devices).
    pub mac: Option<[u8; 6]>,
    /// The largest IP packet in bytes.
    pub mtu: u32,
    /// The largest IPv6 packet in bytes: less than `mtu` where a router advertises so (RFC 4861, section 4.6.4).
    pub ipv6_mtu: u32,
    /// The kind of a software device (`veth`, `bridge`, `tun`, …); `None` for hardware, virtual hardware and
    /// loopback.
    pub kind: Option<String>,
    /// Its tag, if it is a VLAN interface.
    pub vlan: Option<Vlan>,
    /// Index of the bridge, bond or other interface that it is a port of.
    pub master: Option<u32>,
    /// Index of the interface that it stands on, if it is a macvlan or VLAN interface.
    pub below: Option<u32>,
    /// Whether what it is linked to, such as a veth's other end, is in another network namespace.
    pub peer_elsewhere: bool,
    /// The kernel module that drives it (`virtio_net`, `ixgbe`, …); for a software device its kind.
    pub driver: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its addresses of both families, in the kernel's order.
    pub addresses: Vec<Prefix>,
    /// The XDP program on it, if any.
    pub xdp: Option<AttachedXdp>,
}

impl Interface {
    /// The MAC addresses that frames for this host have here: its own; those of the bridge or bond that it is a port of, of
    /// the ports of a bond, and of what stands on it. None for a bridge, which hands itself only what is for this host, and
    /// takes over the address of a port that comes later. `all`: the interfaces of this network namespace.
    pub fn stations(&self, all: &[Self]) -> Vec<[u8; 6]> {
        if self.kind.as_deref() == Some("bridge") {
            return Vec::new();
        }
        let related = all.iter().filter(|other| {
            self.master == Some(other.index)
                || other.master == Some(self.index)
                || other.below == Some(self.index)
        });
        let mut macs: Vec<[u8; 6]> = std::iter::once(self).chain(related).filter_map(|one| one.mac).collect();
        macs.sort_unstable();
        macs.dedup();
        macs
    }

    /// The largest packet of the address's family that fits, in bytes.
    pub(super) fn mtu_for(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(_) => self.mtu,
            IpAddr::V6(_) => self.mtu.min(self.ipv6_mtu),
        }
    }
}

impl Netlink {
    /// All interfaces of this network namespace, by index.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        let links = collect("list the interfaces", self.handle.link().get().execute()).await?;
        let mut addresses: HashMap<u32, Vec<Prefix>> = HashMap::new();
        for listed in self.listed_addresses().await? {
            addresses.entry(listed.interface).or_default().push(listed.prefix);
        }
        let mut interfaces: Vec<Interface> =
            links.iter().map(|link| interface_of(link, &mut addresses)).collect();
        interfaces.sort_by_key(|interface| interface.index);
        Ok(interfaces)
    }

    /// The interface of that name; if there is none, the error lists those that exist.
    pub async fn interface(&self, name: &str) -> Result<Interface, NetlinkError> {
        let mut interfaces = self.interfaces().await?;
        match interfaces.iter().position(|interface| interface.name == name) {
            Some(position) => Ok(interfaces.swap_remove(position)),
            None => Err(NetlinkError::NoSuchInterface {
                name: name.to_owned(),
                existing: interfaces.into_iter().map(|interface| interface.name).collect(),
            }),
        }
    }
}

pub(super) fn interface_of(link: &LinkMessage, addresses: &mut HashMap<u32, Vec<Prefix>>) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        index: link.header.index,
        mac: None,
        mtu: 0,
        ipv6_mtu: u32::MAX,
        kind: None,
        vlan: None,
        master: None,
        below: None,
        peer_elsewhere: false,
        driver: None,
        up: link.header.flags.contains(LinkFlags::Up),
        addresses: addresses.remove(&link.header.index).unwrap_or_default(),
        xdp: None,
    };
    let (mut bus, mut device, mut below) = (None, None, 0);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) => interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::AfSpecUnspec(families) => interface.ipv6_mtu = ipv6_mtu_of(families),
            LinkAttribute::Link(index) => below = *index,
            LinkAttribute::Controller(index) => interface.master = Some(*index),
            LinkAttribute::LinkNetNsId(_) => interface.peer_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                interface.kind = kind_of(infos);
                interface.vlan = vlan_of(infos);
            }
            LinkAttribute::Xdp(attributes) => interface.xdp = xdp_of(attributes),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name),
            LinkAttribute::ParentDevName(name) => device = Some(name),
            _ => {}
        }
    }
    interface.ipv6_mtu = interface.ipv6_mtu.min(interface.mtu);
    if let Some(vlan) = &mut interface.vlan {
        vlan.below = below;
    }
    // The same attribute names a veth's other end, and what is above belongs to a guest where it is a macvtap.
    let stacked = matches!(interface.kind.as_deref(), Some("macvlan" | "vlan"));
    interface.below = (stacked && below != 0).then_some(below);
    interface.driver = match (bus, device) {
        (Some(bus), Some(device)) => bus_driver(bus, device),
        _ => interface.kind.clone(),
    };
    interface
}

fn kind_of(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// The tag; the interface below is an attribute of its own.
fn vlan_of(infos: &[LinkInfo]) -> Option<Vlan> {
    let tag = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(tag)) => Some(tag),
        _ => None,
    })?;
    let id = tag.iter().find_map(|part| match part {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let service_tag = tag.contains(&InfoVlan::Protocol(VlanProtocol::Ieee8021Ad));
    Some(Vlan { id, service_tag, below: 0 })
}

/// What the kernel's IPv6 has for the interface; no limit where it does not serve it.
fn ipv6_mtu_of(families: &[AfSpecUnspec]) -> u32 {
    let settings = families.iter().filter_map(|family| match family {
        AfSpecUnspec::Inet6(settings) => Some(settings),
        _ => None,
    });
    let mtu = settings.flatten().find_map(|setting| match setting {
        AfSpecInet6::DevConf(settings) => u32::try_from(settings.mtu6).ok(),
        _ => None,
    });
    mtu.filter(|&mtu| mtu > 0).unwrap_or(u32::MAX)
}

/// `/sys/class/net` shows the interfaces of the namespace that *mounted* it, which may not be ours; the parent
/// device that the kernel names over netlink (`IFLA_PARENT_DEV_NAME`, from 5.14 on) is looked up on its bus,
/// which is the same for everybody.
fn bus_driver(bus: &str, device: &str) -> Option<String> {
    let link = Path::new("/sys/bus").join(bus).join("devices").join(device).join("driver");
    let target = std::fs::read_link(link).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

fn xdp_of(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let mode = attributes.iter().find_map(|attribute| match attribute {
        LinkXdp::Attached(XdpAttached::Driver) => Some(XdpMode::Native),
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some(XdpMode::Generic),
        LinkXdp::Attached(XdpAttached::Hardware) => Some(XdpMode::Offloaded),
        LinkXdp::Attached(XdpAttached::Multiple) => Some(XdpMode::Several),
        _ => None,
    })?;
    let id = |attribute: &LinkXdp| match attribute {
        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
            Some(*id)
        }
        _ => None,
    };
    Some(AttachedXdp { program_id: attributes.iter().find_map(id).unwrap_or(0), mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, kind: Option<&str>, master: Option<u32>, below: Option<u32>) -> Interface {
        Interface {
            name: format!("if{index}"),
            index,
            mac: Some([2, 0, 0, 0, 0, index as u8]),
            mtu: 1_500,
            ipv6_mtu: 1_500,
            kind: kind.map(str::to_owned),
            vlan: None,
            master,
            below,
            driver: None,
            peer_elsewhere: false,
            up: true,
            addresses: Vec::new(),
            xdp: None,
        }
    }

    #[test]
    fn an_interfaces_stations_are_its_own_and_those_of_what_it_is_tied_to() {
        let all = [
            interface(1, None, None, None),
            interface(2, None, Some(4), None),
            interface(3, None, Some(4), None),
            interface(4, Some("bond"), None, None),
            interface(5, Some("macvlan"), None, Some(1)),
            interface(6, Some("vlan"), None, Some(4)),
            interface(7, Some("bridge"), None, None),
            interface(8, Some("veth"), Some(7), None),
            interface(9, Some("veth"), None, None),
        ];
        for (what, index, stations) in [
            ("a NIC with a macvlan on it", 1, &[1, 5][..]),
            ("a port of a bond", 2, &[2, 4]),
            ("a bond with a VLAN on it", 4, &[2, 3, 4, 6]),
            ("a bridge", 7, &[]),
            ("a port of a bridge", 8, &[7, 8]),
            ("one for itself", 9, &[9]),
        ] {
            let found = all[index - 1].stations(&all);
            let ends: Vec<usize> = found.iter().map(|mac| usize::from(mac[5])).collect();
            assert_eq!(ends, stations, "{what}");
        }
    }
}
