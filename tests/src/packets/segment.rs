//! A TCP segment or a datagram in the making: what it says, whom it is from, and how its checksums stand.

use std::net::{SocketAddr, SocketAddrV4};

use lb_common::abi::{TCP, UDP};

use super::{checksum, kind, scene};

/// FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// PSH.
pub const PSH: u8 = 0x08;
/// ACK.
pub const ACK: u8 = 0x10;

/// The client's initial sequence number in all cases.
pub const CLIENT_ISN: u32 = 0x1122_3344;
/// The server's initial sequence number in all cases: its successor carries into the upper half.
pub const SERVER_ISN: u32 = 0x5566_ffff;

/// How a segment's checksum field is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Complete and right.
    Whole,
    /// The pseudo-header's sum: the rest was left to hardware.
    Partial,
    /// Complete, and the first two bytes of the data are such that it equals the pseudo-header's sum.
    LooksPartial,
    /// Complete, and the first two bytes of the data are such that it is this value.
    Exactly(u16),
    /// Complete, and the first two bytes of the data are such that it is zero, written as 0xffff.
    OtherZero,
    /// This value.
    Raw(u16),
}

/// Whom a segment is from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Known from the start.
    Fixed(SocketAddrV4, SocketAddrV4),
    /// From a backend to the client, as that backend knows it: by whatever port its flow has, or by its own.
    Answer {
        /// The backend.
        backend: u16,
        /// The client.
        client: SocketAddrV4,
    },
}

/// Which part of its packet a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Bytes of the whole before it; a multiple of eight.
    pub offset: usize,
    /// Bytes of it; what is beyond the whole is not there.
    pub length: usize,
    /// More follow.
    pub more: bool,
}

/// A segment, and the frame around it.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Whom it is from and to.
    pub ends: Ends,
    /// The sender's MAC address.
    pub sender: [u8; 6],
    /// Our MAC address on that side.
    pub receiver: [u8; 6],
    /// TCP or UDP.
    pub protocol: u8,
    /// Flags (TCP).
    pub flags: u8,
    /// Sequence number (TCP).
    pub seq: u32,
    /// Acknowledgement number (TCP).
    pub ack: u32,
    /// The data.
    pub data: Vec<u8>,
    /// Hops that are left.
    pub ttl: u8,
    /// Tags: type and TCI, the outermost first.
    pub tags: Vec<[u16; 2]>,
    /// Options of the IPv4 header, a multiple of four bytes; in IPv6 nothing.
    pub ip_options: Vec<u8>,
    /// Extension headers of IPv6: type, and units of eight bytes beyond the first; in IPv4 nothing.
    pub extensions: Vec<(u8, u8)>,
    /// Options of the TCP header, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
    /// The packet's identification.
    pub id: u32,
    /// Which part of the packet it is; `None`: all of it.
    pub part: Option<Part>,
    /// Routers may cut it into parts (IPv4): there is no "don't fragment".
    pub divisible: bool,
    /// Bytes after the end of the IP packet.
    pub padding: usize,
    /// Bytes that the IP header claims to be there and that are not.
    pub claimed: u16,
    /// How the checksum field is filled.
    pub sum: Sum,
    /// Bytes overwritten at the very end, after the checksums were made.
    pub edits: Vec<(usize, Vec<u8>)>,
}

/// A segment of [`scene::CLIENT`] to [`scene::WEB`].
pub fn client(flags: u8) -> Segment {
    Segment {
        ends: Ends::Fixed(scene::CLIENT, scene::WEB),
        sender: scene::ROUTER_MAC,
        receiver: scene::FRONT_MAC,
        protocol: TCP,
        flags,
        seq: if flags & SYN == 0 { CLIENT_ISN.wrapping_add(1) } else { CLIENT_ISN },
        ack: if flags & ACK == 0 { 0 } else { SERVER_ISN.wrapping_add(1) },
        data: Vec::new(),
        ttl: 57,
        tags: Vec::new(),
        ip_options: Vec::new(),
        extensions: Vec::new(),
        tcp_options: Vec::new(),
        id: 0xbeef,
        part: None,
        divisible: false,
        padding: 0,
        claimed: 0,
        sum: Sum::Whole,
        edits: Vec::new(),
    }
}

/// A segment of a backend to the client, as that backend knows it.
pub fn server(backend: u16, flags: u8) -> Segment {
    Segment {
        ends: Ends::Answer { backend, client: scene::CLIENT },
        sender: scene::server_of(backend).1,
        receiver: scene::BACK_MAC,
        seq: if flags & SYN == 0 { SERVER_ISN.wrapping_add(1) } else { SERVER_ISN },
        ack: CLIENT_ISN.wrapping_add(1),
        ttl: 64,
        ..client(flags)
    }
}

/// A datagram of [`scene::CLIENT`] to [`scene::WEB`].
pub fn datagram(length: usize) -> Segment {
    Segment { protocol: UDP, ..client(0).data(length) }
}

/// A datagram of a backend to the client, as that backend knows it.
pub fn answer(backend: u16, length: usize) -> Segment {
    Segment { protocol: UDP, ..server(backend, 0).data(length) }
}

impl Segment {
    /// From another client; for a server's segment: to it.
    pub fn of(mut self, client: SocketAddrV4) -> Self {
        self.ends = match self.ends {
            Ends::Fixed(_, to) => Ends::Fixed(client, to),
            Ends::Answer { backend, .. } => Ends::Answer { backend, client },
        };
        self
    }

    /// To another service, or from a server to a port that nobody asked about.
    pub fn to(mut self, receiver: SocketAddrV4) -> Self {
        self.ends = match self.ends {
            Ends::Fixed(from, _) => Ends::Fixed(from, receiver),
            Ends::Answer { backend, .. } => Ends::Fixed(scene::server_of(backend).0, receiver),
        };
        self
    }

    /// With a sequence number.
    pub fn seq(self, seq: u32) -> Self {
        Self { seq, ..self }
    }

    /// With an acknowledgement number.
    pub fn ack(self, ack: u32) -> Self {
        Self { ack, ..self }
    }

    /// With so many bytes of data, none of them like its neighbours.
    pub fn data(self, length: usize) -> Self {
        Self { data: (0..length).map(|at| (at * 29 + 0xa5) as u8).collect(), ..self }
    }

    /// With a time to live.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// Behind a tag (type, TCI), inside of those that it has.
    pub fn tag(mut self, kind: u16, tci: u16) -> Self {
        self.tags.push([kind, tci]);
        self
    }

    /// With options in the IPv4 header.
    pub fn ip_options(self, options: &[u8]) -> Self {
        Self { ip_options: options.to_vec(), ..self }
    }

    /// With extension headers in front, where it is IPv6.
    pub fn extensions(self, extensions: &[(u8, u8)]) -> Self {
        Self { extensions: extensions.to_vec(), ..self }
    }

    /// With options in the TCP header.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        Self { tcp_options: options.to_vec(), ..self }
    }

    /// Only a part of it.
    pub fn part(self, offset: usize, length: usize, more: bool) -> Self {
        Self { part: Some(Part { offset, length, more }), ..self }
    }

    /// Without "don't fragment".
    pub fn divisible(self) -> Self {
        Self { divisible: true, ..self }
    }

    /// With another identification.
    pub fn id(self, id: u32) -> Self {
        Self { id, ..self }
    }

    /// With bytes after the end of the IP packet.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// With an IP header that claims more bytes than there are.
    pub fn claiming(self, claimed: u16) -> Self {
        Self { claimed, ..self }
    }

    /// With another checksum.
    pub fn sum(self, sum: Sum) -> Self {
        Self { sum, ..self }
    }

    /// With bytes of the frame overwritten, checksums left as they were.
    pub fn edit(mut self, at: usize, bytes: &[u8]) -> Self {
        self.edits.push((at, bytes.to_vec()));
        self
    }

    /// The IPv4 frame, where the ends are known; panics where they are not.
    pub fn frame(&self) -> Vec<u8> {
        self.frame_of(4)
    }

    /// The frame in a family, where the ends are known; panics where they are not.
    pub fn frame_of(&self, version: u8) -> Vec<u8> {
        let Ends::Fixed(from, to) = self.ends else { panic!("the ends of {self:?} are found out by a case") };
        let end = |of: SocketAddrV4| SocketAddr::new(kind::address(version, *of.ip()), of.port());
        self.frame_between(end(from), end(to))
    }

    /// The frame.
    pub fn frame_between(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let mut frame = [self.receiver, self.sender].concat();
        for [kind, tci] in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        let transport = self.transport(from, to);
        let body = match self.part {
            Some(Part { offset, length, .. }) => &transport[offset..(offset + length).min(transport.len())],
            None => &transport,
        };
        let ip = frame.len() + 2;
        frame.extend(self.headers(from, to, body.len()));
        frame.extend(body);
        checksum::fill_ip(&mut frame, ip);
        // Not zeros: a sum that ran over the packet's end would notice.
        frame.extend(std::iter::repeat_n(0xdb, self.padding));
        for (at, bytes) in &self.edits {
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }

    /// Transport header and data, with the checksum.
    fn transport(&self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let mut bytes = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        if self.protocol == UDP {
            bytes.extend(((8 + self.data.len()) as u16).to_be_bytes());
            bytes.extend([0, 0]);
        } else {
            bytes.extend(self.seq.to_be_bytes());
            bytes.extend(self.ack.to_be_bytes());
            let header = 20 + self.tcp_options.len();
            bytes.extend([((header / 4) << 4) as u8, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
            bytes.extend(&self.tcp_options);
        }
        let data = bytes.len();
        bytes.extend(&self.data);
        let length = bytes.len() + usize::from(self.claimed);
        let partial = checksum::pseudo_header(from.ip(), to.ip(), self.protocol, length);
        let at = if self.protocol == UDP { 6 } else { 16 };
        let whole = |bytes: &[u8]| {
            let sum = !checksum::sum(&[checksum::sum(bytes), partial].map(u16::to_be_bytes).concat());
            if self.protocol == UDP && sum == 0 { 0xffff } else { sum }
        };
        let mut searched = |wanted: u16| {
            let mut fits = |word: u16| {
                bytes[data..data + 2].copy_from_slice(&word.to_be_bytes());
                whole(&bytes) == wanted
            };
            assert!((0..=u16::MAX).any(&mut fits), "no two bytes make the sum {wanted:#x}");
            wanted
        };
        let field = match self.sum {
            Sum::Whole => whole(&bytes),
            Sum::Partial => partial,
            Sum::Raw(field) => field,
            Sum::LooksPartial => searched(partial),
            Sum::Exactly(field) => searched(field),
            Sum::OtherZero => !searched(0),
        };
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    /// From the type of the packet on: the IP header and what stands between it and the transport's.
    fn headers(&self, from: SocketAddr, to: SocketAddr, body: usize) -> Vec<u8> {
        if from.is_ipv4() { self.ipv4(from, to, body) } else { self.ipv6(from, to, body) }
    }

    fn ipv4(&self, from: SocketAddr, to: SocketAddr, body: usize) -> Vec<u8> {
        let header = 20 + self.ip_options.len();
        let length = (header + body) as u16 + self.claimed;
        let mut bytes = vec![0x08, 0x00, 0x40 | (header / 4) as u8, 0x10];
        bytes.extend(length.to_be_bytes());
        bytes.extend((self.id as u16).to_be_bytes());
        let place = match self.part {
            Some(Part { offset, more, .. }) => (offset / 8) as u16 | u16::from(more) << 13,
            None if self.divisible => 0,
            None => 0x4000,
        };
        bytes.extend(place.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(kind::octets(from.ip()));
        bytes.extend(kind::octets(to.ip()));
        bytes.extend(&self.ip_options);
        bytes
    }

    fn ipv6(&self, from: SocketAddr, to: SocketAddr, body: usize) -> Vec<u8> {
        let mut between: Vec<(u8, Vec<u8>)> = Vec::new();
        for (kind, more) in &self.extensions {
            let mut header = vec![0, *more];
            header.extend(std::iter::repeat_n(0x01, 6 + 8 * usize::from(*more)));
            between.push((*kind, header));
        }
        if let Some(Part { offset, more, .. }) = self.part {
            let place = (offset as u16 | u16::from(more)).to_be_bytes();
            between.push((44, [&[0, 0], &place[..], &self.id.to_be_bytes()].concat()));
        }
        let kinds: Vec<u8> = between.iter().map(|(kind, _)| *kind).chain([self.protocol]).collect();
        for (place, (_, header)) in between.iter_mut().enumerate() {
            header[0] = kinds[place + 1];
        }
        let extensions: Vec<u8> = between.into_iter().flat_map(|(_, header)| header).collect();
        let length = (extensions.len() + body) as u16 + self.claimed;
        let mut bytes = vec![0x86, 0xdd, 0x61, 0x02, 0x03, 0x04];
        bytes.extend(length.to_be_bytes());
        bytes.extend([kinds[0], self.ttl]);
        bytes.extend(kind::octets(from.ip()));
        bytes.extend(kind::octets(to.ip()));
        bytes.extend(extensions);
        bytes
    }
}
