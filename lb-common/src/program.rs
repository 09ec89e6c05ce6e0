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
    /// IPv4 behind VLAN tags.
    TaggedIpv4 = 0,
    /// IPv6.
    Ipv6,
    /// IPv6 behind VLAN tags.
    TaggedIpv6,
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
    pub const ALL: [Self; 9] = [
        Self::TaggedIpv4,
        Self::Ipv6,
        Self::TaggedIpv6,
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
            Self::TaggedIpv4 => "lb_tagged_ipv4",
            Self::Ipv6 => "lb_ipv6",
            Self::TaggedIpv6 => "lb_tagged_ipv6",
            Self::Icmp => "lb_icmp",
            Self::Icmpv6 => "lb_icmpv6",
            Self::Fragment => "lb_fragment",
            Self::FragmentIpv6 => "lb_fragment_ipv6",
            Self::Explain => "lb_explain",
            Self::ExplainIpv6 => "lb_explain_ipv6",
        }
    }
}
