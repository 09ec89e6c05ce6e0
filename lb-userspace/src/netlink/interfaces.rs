//! The interfaces of this network namespace and the IPv4 addresses on them.

use std::{collections::HashMap, fmt, net::IpAddr, net::Ipv4Addr, path::Path};

use rtnetlink::packet_route::{
    AddressFamily,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
};

use super::{Netlink, NetlinkError, collect};

/// An IPv4 address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// The address itself, host bits included.
    pub address: Ipv4Addr,
    /// How many leading bits are the network, 0 to 32.
    pub length: u8,
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// An IPv4 address of this host and where it sits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalAddress {
    /// The address and its prefix.
    pub prefix: Prefix,
    /// Index of the interface that has it.
    pub interface: u32,
    /// Name of the interface that has it.
    pub interface_name: String,
}

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
    /// The kind of a software device (`veth`, `bridge`, `tun`, …); `None` for hardware, virtual hardware and
    /// loopback.
    pub kind: Option<String>,
    /// The kernel module that drives it (`virtio_net`, `ixgbe`, …); for a software device its kind.
    pub driver: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its IPv4 addresses, in the kernel's order.
    pub addresses: Vec<Prefix>,
    /// The XDP program on it, if any.
    pub xdp: Option<AttachedXdp>,
}

impl Netlink {
    /// All interfaces of this network namespace, by index.
    pub async fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        let links = collect("list the interfaces", self.handle.link().get().execute()).await?;
        let mut addresses: HashMap<u32, Vec<Prefix>> = HashMap::new();
        for message in self.address_messages().await? {
            if let Some(prefix) = prefix_of(&message) {
                addresses.entry(message.header.index).or_default().push(prefix);
            }
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

    /// All IPv4 addresses of this host, by address.
    pub async fn local_addresses(&self) -> Result<Vec<LocalAddress>, NetlinkError> {
        let mut locals: Vec<LocalAddress> = Vec::new();
        for interface in self.interfaces().await? {
            locals.extend(interface.addresses.iter().map(|&prefix| LocalAddress {
                prefix,
                interface: interface.index,
                interface_name: interface.name.clone(),
            }));
        }
        locals.sort();
        Ok(locals)
    }

    /// Where a service address sits; if nowhere, the error prints the `ip addr add` line that puts it on
    /// `suggestion`, the interface that clients come in by.
    pub async fn require_local(
        &self,
        address: Ipv4Addr,
        suggestion: &str,
    ) -> Result<LocalAddress, NetlinkError> {
        let locals = self.local_addresses().await?;
        locals
            .into_iter()
            .find(|local| local.prefix.address == address)
            .ok_or_else(|| NetlinkError::AddressNotLocal { address, suggestion: suggestion.to_owned() })
    }

    async fn address_messages(&self) -> Result<Vec<AddressMessage>, NetlinkError> {
        let mut messages = collect("list the addresses", self.handle.address().get().execute()).await?;
        messages.retain(|message| message.header.family == AddressFamily::Inet);
        Ok(messages)
    }
}

/// `IFA_LOCAL` is the own address; on a point-to-point link `IFA_ADDRESS` is the peer's.
fn prefix_of(message: &AddressMessage) -> Option<Prefix> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => {
            Some(Prefix { address: *address, length: message.header.prefix_len })
        }
        _ => None,
    })
}

fn interface_of(link: &LinkMessage, addresses: &mut HashMap<u32, Vec<Prefix>>) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        index: link.header.index,
        mac: None,
        mtu: 0,
        kind: None,
        driver: None,
        up: link.header.flags.contains(LinkFlags::Up),
        addresses: addresses.remove(&link.header.index).unwrap_or_default(),
        xdp: None,
    };
    let (mut bus, mut device) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) => interface.mac = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
            LinkAttribute::LinkInfo(infos) => interface.kind = kind_of(infos),
            LinkAttribute::Xdp(attributes) => interface.xdp = xdp_of(attributes),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name),
            LinkAttribute::ParentDevName(name) => device = Some(name),
            _ => {}
        }
    }
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
