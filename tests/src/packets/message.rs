//! ICMP messages in the making: echo requests, and errors that quote a packet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use super::{
    checksum, kind,
    scene::{self, CLIENT, ROUTER, WEB},
    segment::Segment,
};

/// What an error complains of, in the words of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The hops have run out.
    TimeExceeded,
    /// Nobody serves that port.
    PortUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// Nothing longer than this fits.
    TooBig(u16),
    /// Something in the header is wrong: a pointer.
    Parameter,
}

impl Trouble {
    /// The first eight bytes of the message, its checksum not made.
    pub fn header(self, version: u8) -> [u8; 8] {
        let (kind, code, [high, low]) = match (self, version) {
            (Self::TimeExceeded, 4) => (11, 0, [0; 2]),
            (Self::TimeExceeded, _) => (3, 0, [0; 2]),
            (Self::PortUnreachable, 4) => (3, 3, [0; 2]),
            (Self::PortUnreachable, _) => (1, 4, [0; 2]),
            (Self::HostUnreachable, 4) => (3, 1, [0; 2]),
            (Self::HostUnreachable, _) => (1, 3, [0; 2]),
            (Self::TooBig(mtu), 4) => (3, 4, mtu.to_be_bytes()),
            (Self::TooBig(mtu), _) => (2, 0, mtu.to_be_bytes()),
            (Self::Parameter, 4) => (12, 0, [0; 2]),
            (Self::Parameter, _) => (4, 0, [0; 2]),
        };
        [kind, code, 0, 0, 0, 0, high, low]
    }
}

/// Which packet an error quotes: as the one who complains has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoted {
    /// A client's, after it had left us for a backend.
    Forwarded {
        /// The backend.
        backend: u16,
        /// The client.
        client: SocketAddrV4,
    },
    /// An answer, on its way to a client.
    Answered {
        /// The client.
        client: SocketAddrV4,
    },
    /// Any other.
    Foreign(SocketAddrV4, SocketAddrV4),
}

/// An ICMP error.
#[derive(Clone, Debug)]
pub struct Complaint {
    /// What is wrong.
    pub trouble: Trouble,
    /// Who says so.
    pub from: Ipv4Addr,
    /// About which packet.
    pub quoted: Quoted,
    /// What that packet said.
    pub segment: Segment,
    /// Bytes that are quoted of it behind its IP header and what belongs to that.
    pub bytes: usize,
    /// Hops that are left.
    pub ttl: u8,
    /// Tags.
    pub tags: Vec<[u16; 2]>,
    /// The ICMP checksum is wrong.
    pub damaged: bool,
}

/// An error about a client's packet that we had sent to a backend.
pub fn about_forwarded(trouble: Trouble, backend: u16, segment: Segment) -> Complaint {
    Complaint {
        trouble,
        from: ROUTER,
        quoted: Quoted::Forwarded { backend, client: CLIENT },
        segment,
        bytes: usize::MAX,
        ttl: 61,
        tags: Vec::new(),
        damaged: false,
    }
}

/// An error about an answer that a client was to get.
pub fn about_answer(trouble: Trouble, segment: Segment) -> Complaint {
    Complaint { quoted: Quoted::Answered { client: CLIENT }, ..about_forwarded(trouble, scene::A, segment) }
}

impl Complaint {
    /// With so few bytes quoted behind the IP header.
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// With so many hops left.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// Of another client's packet.
    pub fn of(self, client: SocketAddrV4) -> Self {
        let quoted = match self.quoted {
            Quoted::Forwarded { backend, .. } => Quoted::Forwarded { backend, client },
            Quoted::Answered { .. } => Quoted::Answered { client },
            foreign @ Quoted::Foreign(..) => foreign,
        };
        Self { quoted, ..self }
    }

    /// Of a packet that was never ours.
    pub fn foreign(self, from: SocketAddrV4, to: SocketAddrV4) -> Self {
        Self { quoted: Quoted::Foreign(from, to), ..self }
    }

    /// Behind a tag.
    pub fn tag(mut self, kind: u16, tci: u16) -> Self {
        self.tags.push([kind, tci]);
        self
    }

    /// The frame, where the quoted packet's ends are known; `tunnel`: and those of the tunnel that it was in.
    pub fn frame(&self, ends: (SocketAddr, SocketAddr), tunnel: Option<(IpAddr, IpAddr)>) -> Vec<u8> {
        let version = if ends.0.is_ipv4() { 4 } else { 6 };
        let whole = Segment { tags: Vec::new(), ..self.segment.clone() }.frame_between(ends.0, ends.1);
        let header = super::layout::Layout::of(&whole).transport - 14;
        let mut quote = whole[14..].to_vec();
        if self.bytes < quote.len() - header {
            quote.truncate(header + self.bytes);
        }
        if let Some((from, to)) = tunnel {
            let mut outer = header_of(version, if version == 4 { 4 } else { 41 }, quote.len(), 60, from, to);
            checksum::fill_ip(&mut outer, 0);
            quote = [outer, quote].concat();
        }
        let receiver = tunnel.map_or(ends.0.ip(), |(from, _)| from);
        let about_backend = matches!(self.quoted, Quoted::Forwarded { .. });
        let macs = if about_backend {
            [scene::BACK_MAC, scene::SERVER_A_MAC]
        } else {
            [scene::FRONT_MAC, scene::ROUTER_MAC]
        };
        let body = [&self.trouble.header(version)[..], &quote].concat();
        let from = kind::address(version, self.from);
        let mut frame = framed(macs, &self.tags, self.ttl, (from, receiver), body);
        if self.damaged {
            let last = frame.len() - 1;
            frame[last] ^= 0x40;
        }
        frame
    }
}

/// An echo request.
#[derive(Clone, Debug)]
pub struct Echo {
    /// Whom it is to.
    pub to: Ipv4Addr,
    /// Identifier.
    pub id: u16,
    /// Sequence number.
    pub seq: u16,
    /// Data.
    pub data: Vec<u8>,
    /// Its type, where it is no request.
    pub kind: Option<u8>,
    /// Hops that are left.
    pub ttl: u8,
    /// Tags.
    pub tags: Vec<[u16; 2]>,
}

/// An echo request of [`CLIENT`] to the address of [`WEB`].
pub fn echo(id: u16) -> Echo {
    let data = (0..56).collect();
    Echo { to: *WEB.ip(), id, seq: 1, data, kind: None, ttl: 57, tags: Vec::new() }
}

impl Echo {
    /// The frame.
    pub fn frame(&self, version: u8) -> Vec<u8> {
        let kind = self.kind.unwrap_or(if version == 4 { 8 } else { 128 });
        let mut body = vec![kind, 0, 0, 0];
        body.extend(self.id.to_be_bytes());
        body.extend(self.seq.to_be_bytes());
        body.extend(&self.data);
        let ends = (kind::address(version, *CLIENT.ip()), kind::address(version, self.to));
        framed([scene::FRONT_MAC, scene::ROUTER_MAC], &self.tags, self.ttl, ends, body)
    }
}

/// An IP header without options, the checksum not made; as senders of these cases have it.
fn header_of(version: u8, protocol: u8, body: usize, ttl: u8, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut bytes = if version == 4 {
        let [high, low] = ((20 + body) as u16).to_be_bytes();
        vec![0x45, 0xc0, high, low, 0x12, 0x34, 0, 0, ttl, protocol, 0, 0]
    } else {
        let [high, low] = (body as u16).to_be_bytes();
        vec![0x6c, 0, 0, 7, high, low, protocol, ttl]
    };
    bytes.extend(kind::octets(from));
    bytes.extend(kind::octets(to));
    bytes
}

/// An ICMP message in a frame, both checksums made.
fn framed(
    macs: [[u8; 6]; 2],
    tags: &[[u16; 2]],
    ttl: u8,
    (from, to): (IpAddr, IpAddr),
    mut body: Vec<u8>,
) -> Vec<u8> {
    let version = if from.is_ipv4() { 4 } else { 6 };
    let protocol = if version == 4 { 1 } else { 58 };
    fill_sum(&mut body, from, to);
    let mut frame = macs.concat();
    for [kind, tci] in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tci.to_be_bytes());
    }
    frame.extend(if version == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    let ip = frame.len();
    frame.extend(header_of(version, protocol, body.len(), ttl, from, to));
    frame.extend(body);
    checksum::fill_ip(&mut frame, ip);
    frame
}

/// Make the checksum of an ICMP message; ICMPv6's covers the addresses too (RFC 4443, 2.3).
pub fn fill_sum(message: &mut [u8], from: IpAddr, to: IpAddr) {
    message[2..4].fill(0);
    let mut sums = vec![checksum::sum(message)];
    if from.is_ipv6() {
        sums.push(checksum::pseudo_header(from, to, 58, message.len()));
    }
    let bytes: Vec<u8> = sums.into_iter().flat_map(u16::to_be_bytes).collect();
    let field = !checksum::sum(&bytes);
    message[2..4].copy_from_slice(&field.to_be_bytes());
}
