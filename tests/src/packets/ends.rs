//! Packets whose ends the tables know: where a client's port is, and how each mode shows a packet to others.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use lb_common::{Be16, abi::mode};

use super::{
    kind::{self, Kind},
    message::{Complaint, Echo, Quoted},
    scene::{self, SOURCE, Setting, WEB},
    segment::{Ends, Segment},
    world::{Slot, Store, slots},
};

/// What comes in.
#[derive(Clone, Debug)]
pub enum Packet {
    /// A segment or a datagram.
    Segment(Segment),
    /// An ICMP error.
    Complaint(Complaint),
    /// An echo request.
    Echo(Echo),
    /// Any bytes.
    Bytes(Vec<u8>),
}

impl From<Segment> for Packet {
    fn from(segment: Segment) -> Self {
        Self::Segment(segment)
    }
}

impl From<Complaint> for Packet {
    fn from(complaint: Complaint) -> Self {
        Self::Complaint(complaint)
    }
}

impl From<Echo> for Packet {
    fn from(echo: Echo) -> Self {
        Self::Echo(echo)
    }
}

impl Packet {
    /// The bytes that come in.
    pub(super) fn frame<A: Kind>(&self, world: &impl Store<A>, setting: &Setting) -> Result<Vec<u8>, String> {
        Ok(match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Echo(echo) => echo.frame(setting.version),
            Self::Segment(segment) => {
                let (from, to) = match segment.ends {
                    Ends::Fixed(from, to) => (end::<A>(from), end::<A>(to)),
                    Ends::Answer { backend, client } => {
                        let (at_us, server) = towards_backend(world, setting, backend, end::<A>(client))?;
                        (server, at_us)
                    }
                };
                segment.frame_between(from, to)
            }
            Self::Complaint(complaint) => match complaint.quoted {
                Quoted::Foreign(from, to) => {
                    let tunnel = (setting.mode == mode::IPIP).then(|| tunnel(world, scene::A));
                    complaint.frame((end::<A>(from), end::<A>(to)), tunnel)
                }
                Quoted::Answered { client } => complaint.frame((end::<A>(WEB), end::<A>(client)), None),
                Quoted::Forwarded { client, .. } if setting.mode == mode::DSR => {
                    complaint.frame((end::<A>(client), end::<A>(WEB)), None)
                }
                Quoted::Forwarded { backend, client } if setting.mode == mode::IPIP => {
                    let tunnel = tunnel(world, backend);
                    complaint.frame((end::<A>(client), end::<A>(WEB)), Some(tunnel))
                }
                Quoted::Forwarded { backend, client } => {
                    complaint.frame(towards_backend(world, setting, backend, end::<A>(client))?, None)
                }
            },
        })
    }
}

/// A case's end in a family.
pub(super) fn end<A: Kind>(of: SocketAddrV4) -> SocketAddr {
    end_in(A::VERSION, of)
}

/// The same by the family's version.
pub(super) fn end_in(version: u8, of: SocketAddrV4) -> SocketAddr {
    SocketAddr::new(kind::address(version, *of.ip()), of.port())
}

/// The ends of a client's connection behind us: the one that the backend sees, and the backend's own.
pub(super) fn towards_backend<A: Kind>(
    world: &impl Store<A>,
    setting: &Setting,
    backend: u16,
    client: SocketAddr,
) -> Result<(SocketAddr, SocketAddr), String> {
    let entry = world.backend_at(backend);
    let (service, address) = scene::service_of(backend);
    let found = slot_of(world, client, service);
    let connected = found.map_or(address.port(), |slot| slot.record.service_port.host());
    let port = if entry.port == Be16::default() { connected } else { entry.port.host() };
    let server = SocketAddr::new(entry.address.ip(), port);
    if setting.mode != mode::SNAT {
        return Ok((client, server));
    }
    let way = found.ok_or_else(|| format!("{client} has no flow"))?.record.way;
    Ok((SocketAddr::new(world.source_at(way.source()).ip(), way.source_port().host()), server))
}

/// The addresses of a tunnel to a backend.
pub(super) fn tunnel<A: Kind>(world: &impl Store<A>, backend: u16) -> (IpAddr, IpAddr) {
    (A::of(SOURCE).ip(), world.backend_at(backend).address.ip())
}

/// The flow of a client to a service; a client whose port is zero stands for any of that address.
pub(super) fn slot_of<A: Kind>(world: &impl Store<A>, client: SocketAddr, service: u16) -> Option<Slot<A>> {
    let held = |slot: &Slot<A>| {
        let key = slot.key();
        slot.owner.is_held()
            && key.client.ip() == client.ip()
            && (client.port() == 0 || key.client_port.host() == client.port())
            && key.service == service
    };
    slots(world).into_iter().find(held)
}
