//! A TCP segment in the making: what it says, whom it is from, and how its checksums stand.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::{checksum, scene};

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
    /// This value.
    Raw(u16),
}

/// Whom a segment is from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Known from the start.
    Fixed(SocketAddrV4, SocketAddrV4),
    /// From a backend to whatever port the client's flow to that backend's service has.
    ToPortOf {
        /// The backend.
        backend: u32,
        /// The client.
        client: SocketAddrV4,
    },
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
    /// Flags.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// The data.
    pub data: Vec<u8>,
    /// Time to live.
    pub ttl: u8,
    /// Options of the IPv4 header, a multiple of four bytes.
    pub ip_options: Vec<u8>,
    /// Options of the TCP header, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
    /// Bytes after the end of the IP packet.
    pub padding: usize,
    /// Bytes that the IPv4 header claims to be there and that are not.
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
        flags,
        seq: if flags & SYN == 0 { CLIENT_ISN.wrapping_add(1) } else { CLIENT_ISN },
        ack: if flags & ACK == 0 { 0 } else { SERVER_ISN.wrapping_add(1) },
        data: Vec::new(),
        ttl: 57,
        ip_options: Vec::new(),
        tcp_options: Vec::new(),
        padding: 0,
        claimed: 0,
        sum: Sum::Whole,
        edits: Vec::new(),
    }
}

/// A segment of a backend to the port that [`scene::CLIENT`] has there.
pub fn server(backend: u32, flags: u8) -> Segment {
    Segment {
        ends: Ends::ToPortOf { backend, client: scene::CLIENT },
        sender: scene::server_of(backend).1,
        receiver: scene::BACK_MAC,
        seq: if flags & SYN == 0 { SERVER_ISN.wrapping_add(1) } else { SERVER_ISN },
        ack: CLIENT_ISN.wrapping_add(1),
        ttl: 64,
        ..client(flags)
    }
}

impl Segment {
    /// From another client; for a server's segment: to it.
    pub fn of(mut self, client: SocketAddrV4) -> Self {
        self.ends = match self.ends {
            Ends::Fixed(_, to) => Ends::Fixed(client, to),
            Ends::ToPortOf { backend, .. } => Ends::ToPortOf { backend, client },
        };
        self
    }

    /// To another service, or from a server to a port that nobody asked about.
    pub fn to(mut self, receiver: SocketAddrV4) -> Self {
        self.ends = match self.ends {
            Ends::Fixed(from, _) => Ends::Fixed(from, receiver),
            Ends::ToPortOf { backend, .. } => Ends::Fixed(scene::server_of(backend).0, receiver),
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

    /// With options in the IPv4 header.
    pub fn ip_options(self, options: &[u8]) -> Self {
        Self { ip_options: options.to_vec(), ..self }
    }

    /// With options in the TCP header.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        Self { tcp_options: options.to_vec(), ..self }
    }

    /// With bytes after the end of the IP packet.
    pub fn padding(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// With an IPv4 header that claims more bytes than there are.
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

    /// The frame, where the ends are known; panics where they are not.
    pub fn frame(&self) -> Vec<u8> {
        let Ends::Fixed(from, to) = self.ends else { panic!("the ends of {self:?} are found out by a case") };
        self.frame_between(from, to)
    }

    /// The frame.
    pub fn frame_between(&self, from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
        let mut frame = [&self.receiver[..], &self.sender, &[0x08, 0x00]].concat();
        let ip_header = 20 + self.ip_options.len();
        let tcp_header = 20 + self.tcp_options.len();
        let length = (ip_header + tcp_header + self.data.len()) as u16 + self.claimed;
        frame.extend([0x40 | (ip_header / 4) as u8, 0x10]);
        frame.extend(length.to_be_bytes());
        frame.extend([0xbe, 0xef, 0x40, 0x00, self.ttl, 6, 0, 0]);
        frame.extend(from.ip().octets());
        frame.extend(to.ip().octets());
        frame.extend(&self.ip_options);
        checksum::fill_ip(&mut frame);
        frame.extend(from.port().to_be_bytes());
        frame.extend(to.port().to_be_bytes());
        frame.extend(self.seq.to_be_bytes());
        frame.extend(self.ack.to_be_bytes());
        frame.extend([((tcp_header / 4) << 4) as u8, self.flags, 0xfa, 0xf0, 0, 0, 0, 0]);
        frame.extend(&self.tcp_options);
        let data = frame.len();
        frame.extend(&self.data);
        self.fill_sum(&mut frame, data);
        // Not zeros: a sum that ran over the packet's end would notice.
        frame.extend(std::iter::repeat_n(0xdb, self.padding));
        for (at, bytes) in &self.edits {
            frame[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        frame
    }

    fn fill_sum(&self, frame: &mut [u8], data: usize) {
        let field = match self.sum {
            Sum::Whole => checksum::whole_tcp(frame),
            Sum::Partial => checksum::partial_tcp(frame),
            Sum::Raw(field) => field,
            Sum::LooksPartial => {
                let partial = checksum::partial_tcp(frame);
                let mut fits = |word: u16| {
                    frame[data..data + 2].copy_from_slice(&word.to_be_bytes());
                    checksum::whole_tcp(frame) == partial
                };
                assert!((0..=u16::MAX).any(&mut fits), "no two bytes make the sum look partial");
                partial
            }
        };
        checksum::set_tcp(frame, field);
    }
}

/// What a forwarded packet should look like: the packet that came in with new ends and MAC addresses, one hop less to
/// live and both checksums from scratch.
pub fn forwarded(
    packet: &[u8],
    macs: [[u8; 6]; 2],
    (from, to): (SocketAddrV4, SocketAddrV4),
    trust: u8,
) -> Vec<u8> {
    use lb_common::abi::checksums::{COMPLETE, KEEP_PARTIAL};

    let field = checksum::tcp_field(packet);
    let (whole, partial) = (checksum::whole_tcp(packet), checksum::partial_tcp(packet));
    let mut out = packet.to_vec();
    let tcp = 14 + usize::from(out[14] & 0x0f) * 4;
    out[0..12].copy_from_slice(&macs.concat());
    out[22] -= 1;
    out[26..30].copy_from_slice(&from.ip().octets());
    out[30..34].copy_from_slice(&to.ip().octets());
    out[tcp..tcp + 2].copy_from_slice(&from.port().to_be_bytes());
    out[tcp + 2..tcp + 4].copy_from_slice(&to.port().to_be_bytes());
    checksum::fill_ip(&mut out);
    let right = checksum::whole_tcp(&out);
    let field = if field == partial && trust != COMPLETE {
        if trust == KEEP_PARTIAL { checksum::partial_tcp(&out) } else { right }
    } else if field == whole {
        right
    } else {
        // A wrong sum stays wrong by as much: damage on the wire must not be repaired here.
        checksum::sum(&[field, !whole, right].map(u16::to_be_bytes).concat())
    };
    checksum::set_tcp(&mut out, field);
    out
}

/// The RST that a packet's sender should get.
pub fn reset(packet: &[u8], seq: u32, ack: Option<u32>, trust: u8) -> Vec<u8> {
    let tcp = 14 + usize::from(packet[14] & 0x0f) * 4;
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let end = |address: Ipv4Addr, port: u16| SocketAddrV4::new(address, port);
    let sender = end(checksum::address(packet, 26), port(tcp));
    let receiver = end(checksum::address(packet, 30), port(tcp + 2));
    let was_partial = checksum::tcp_field(packet) == checksum::partial_tcp(packet);
    let stays_partial = trust == lb_common::abi::checksums::KEEP_PARTIAL && was_partial;
    let mut sender_mac = [0; 6];
    sender_mac.copy_from_slice(&packet[6..12]);
    let mut receiver_mac = [0; 6];
    receiver_mac.copy_from_slice(&packet[0..6]);
    let segment = Segment {
        ends: Ends::Fixed(receiver, sender),
        sender: receiver_mac,
        receiver: sender_mac,
        flags: if ack.is_some() { RST | ACK } else { RST },
        seq,
        ack: ack.unwrap_or_default(),
        ttl: 64,
        ..client(RST)
    };
    let mut out = segment.frame();
    // No service class, no identification (RFC 6864: a datagram that is not to be fragmented needs none), no window.
    out[15] = 0;
    out[18..20].fill(0);
    out[48..50].fill(0);
    checksum::fill_ip(&mut out);
    let field = if stays_partial { checksum::partial_tcp(&out) } else { checksum::whole_tcp(&out) };
    checksum::set_tcp(&mut out, field);
    out
}
