//! The programs of the kernel object: the entry, and what it hands packets on to.
//!
//! Each is verified by itself, so what is rare costs the hot path neither instructions nor stack. The map `PROGRAMS`
//! of each loaded object holds them at these indices.

/// The program that is attached; the others are reached from it.
pub const ENTRY: &str = "lb";

/// A further stage of a packet's way; its number is the program's index.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// IPv6: what `lb` is for IPv4.
    Ipv6 = 0,
    /// IPv4 answers of backends that move a connection on, and all tagged packets.
    Hear,
    /// IPv6 answers of backends that move a connection on, and all tagged packets.
    HearIpv6,
    /// IPv4 packets of clients that move a connection on.
    Turn,
    /// IPv6 packets of clients that move a connection on.
    TurnIpv6,
    /// IPv4 packets that begin a connection, or that nothing is known of.
    Connect,
    /// IPv6 packets that begin a connection, or that nothing is known of.
    ConnectIpv6,
    /// An IPv4 packet whose backend has just been chosen.
    Send,
    /// An IPv6 packet whose backend has just been chosen.
    SendIpv6,
    /// A RST in answer to an IPv4 packet.
    Refuse,
    /// A RST in answer to an IPv6 packet.
    RefuseIpv6,
    /// ICMP: echo requests and errors.
    Icmp,
    /// ICMPv6: echo requests and errors.
    Icmpv6,
    /// A later part of a fragmented IPv4 packet.
    Fragment,
    /// A later part of a fragmented IPv6 packet.
    FragmentIpv6,
    /// An ICMP error in answer to a packet.
    Explain,
    /// An ICMPv6 error in answer to a packet.
    ExplainIpv6,
}

impl Stage {
    /// All stages, in the order of their indices.
    pub const ALL: [Self; 17] = [
        Self::Ipv6,
        Self::Hear,
        Self::HearIpv6,
        Self::Turn,
        Self::TurnIpv6,
        Self::Connect,
        Self::ConnectIpv6,
        Self::Send,
        Self::SendIpv6,
        Self::Refuse,
        Self::RefuseIpv6,
        Self::Icmp,
        Self::Icmpv6,
        Self::Fragment,
        Self::FragmentIpv6,
        Self::Explain,
        Self::ExplainIpv6,
    ];

    /// The program's name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv6 => "lb_ipv6",
            Self::Hear => "lb_hear",
            Self::HearIpv6 => "lb_hear_ipv6",
            Self::Turn => "lb_turn",
            Self::TurnIpv6 => "lb_turn_ipv6",
            Self::Connect => "lb_connect",
            Self::ConnectIpv6 => "lb_connect_ipv6",
            Self::Send => "lb_send",
            Self::SendIpv6 => "lb_send_ipv6",
            Self::Refuse => "lb_refuse",
            Self::RefuseIpv6 => "lb_refuse_ipv6",
            Self::Icmp => "lb_icmp",
            Self::Icmpv6 => "lb_icmpv6",
            Self::Fragment => "lb_fragment",
            Self::FragmentIpv6 => "lb_fragment_ipv6",
            Self::Explain => "lb_explain",
            Self::ExplainIpv6 => "lb_explain_ipv6",
        }
    }
}
