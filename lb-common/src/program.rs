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
    /// IPv4 packets of backends that move a connection on, and all tagged ones.
    Hear,
    /// IPv6 packets of backends that move a connection on, and all tagged ones.
    HearIpv6,
    /// IPv4 packets of clients that move a connection on.
    Turn,
    /// IPv6 packets of clients that move a connection on.
    TurnIpv6,
    /// IPv4 packets that begin a connection, or that nothing is known of.
    Connect,
    /// IPv6 packets that begin a connection, or that nothing is known of.
    ConnectIpv6,
    /// IPv4 packets whose connection needs a source port.
    Claim,
    /// IPv6 packets whose connection needs a source port.
    ClaimIpv6,
    /// IPv4 packets whose connection is to be recorded.
    Record,
    /// IPv6 packets whose connection is to be recorded.
    RecordIpv6,
    /// IPv4 packets whose backend is known.
    Send,
    /// IPv6 packets whose backend is known.
    SendIpv6,
    /// IPv4 packets back to their client.
    Return,
    /// IPv6 packets back to their client.
    ReturnIpv6,
    /// IPv4 packets that are answered with a RST.
    Refuse,
    /// IPv6 packets that are answered with a RST.
    RefuseIpv6,
    /// IPv4 ICMP: echo requests, and errors that quote a packet.
    Icmp,
    /// IPv6 ICMP: echo requests, and errors that quote a packet.
    IcmpIpv6,
    /// IPv4 ICMP errors that quote a packet of a connection.
    Quote,
    /// IPv6 ICMP errors that quote a packet of a connection.
    QuoteIpv6,
    /// IPv4 ICMP errors whose flow is known.
    Carry,
    /// IPv6 ICMP errors whose flow is known.
    CarryIpv6,
    /// IPv4 ICMP errors that quote a packet of a tunnel.
    Tunnel,
    /// IPv6 ICMP errors that quote a packet of a tunnel.
    TunnelIpv6,
    /// IPv4 later parts of fragmented packets.
    Fragment,
    /// IPv6 later parts of fragmented packets.
    FragmentIpv6,
    /// IPv4 packets that are answered with an ICMP error.
    Explain,
    /// IPv6 packets that are answered with an ICMP error.
    ExplainIpv6,
}

impl Stage {
    /// All stages, in the order of their indices.
    pub const ALL: [Self; 29] = [
        Self::Ipv6,
        Self::Hear,
        Self::HearIpv6,
        Self::Turn,
        Self::TurnIpv6,
        Self::Connect,
        Self::ConnectIpv6,
        Self::Claim,
        Self::ClaimIpv6,
        Self::Record,
        Self::RecordIpv6,
        Self::Send,
        Self::SendIpv6,
        Self::Return,
        Self::ReturnIpv6,
        Self::Refuse,
        Self::RefuseIpv6,
        Self::Icmp,
        Self::IcmpIpv6,
        Self::Quote,
        Self::QuoteIpv6,
        Self::Carry,
        Self::CarryIpv6,
        Self::Tunnel,
        Self::TunnelIpv6,
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
            Self::Claim => "lb_claim",
            Self::ClaimIpv6 => "lb_claim_ipv6",
            Self::Record => "lb_record",
            Self::RecordIpv6 => "lb_record_ipv6",
            Self::Send => "lb_send",
            Self::SendIpv6 => "lb_send_ipv6",
            Self::Return => "lb_return",
            Self::ReturnIpv6 => "lb_return_ipv6",
            Self::Refuse => "lb_refuse",
            Self::RefuseIpv6 => "lb_refuse_ipv6",
            Self::Icmp => "lb_icmp",
            Self::IcmpIpv6 => "lb_icmp_ipv6",
            Self::Quote => "lb_quote",
            Self::QuoteIpv6 => "lb_quote_ipv6",
            Self::Carry => "lb_carry",
            Self::CarryIpv6 => "lb_carry_ipv6",
            Self::Tunnel => "lb_tunnel",
            Self::TunnelIpv6 => "lb_tunnel_ipv6",
            Self::Fragment => "lb_fragment",
            Self::FragmentIpv6 => "lb_fragment_ipv6",
            Self::Explain => "lb_explain",
            Self::ExplainIpv6 => "lb_explain_ipv6",
        }
    }
}
