//! The filter of the packet socket, so that the host's own traffic costs nothing: the kernel runs it before it copies a
//! packet. Classic BPF (Documentation/networking/filter.rst), over packets that begin with their IP header.

use std::ops::Range;

use socket2::SockFilter;

const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF_AT_X: u16 = 0x48;
const LOAD_BYTE_AT_X: u16 = 0x50;
const X_FROM_IPV4_HEADER: u16 = 0xb1;
const X_IMMEDIATE: u16 = 0x01;
const SHIFT_RIGHT: u16 = 0x74;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_SET: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE` (linux/filter.h): which way a packet goes.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const OUTGOING: u32 = 4;
const TCP: u32 = 6;
const SYN_OR_RST: u32 = 0x06;
const IPV6_HEADER: u32 = 40;
const WHOLE: u32 = 0x4_0000;

/// Lets incoming TCP segments pass that go to one of these ports and are a SYN or a RST, of both families.
pub fn answers_to(ports: &Range<u16>) -> [SockFilter; 18] {
    let (first, end) = (u32::from(ports.start), u32::from(ports.end));
    let instruction = SockFilter::new;
    // A jump counts instructions behind the next one; the last one drops.
    [
        instruction(LOAD_BYTE, 0, 0, PACKET_TYPE),
        instruction(JUMP_EQUAL, 15, 0, OUTGOING),
        instruction(LOAD_BYTE, 0, 0, 0),
        instruction(SHIFT_RIGHT, 0, 0, 4),
        instruction(JUMP_EQUAL, 3, 0, 6),
        // IPv4
        instruction(LOAD_BYTE, 0, 0, 9),
        instruction(X_FROM_IPV4_HEADER, 0, 0, 0),
        instruction(JUMP_EQUAL, 3, 9, TCP),
        // IPv6
        instruction(LOAD_BYTE, 0, 0, 6),
        instruction(X_IMMEDIATE, 0, 0, IPV6_HEADER),
        instruction(JUMP_EQUAL, 0, 6, TCP),
        // TCP
        instruction(LOAD_HALF_AT_X, 0, 0, 2),
        instruction(JUMP_GREATER_OR_EQUAL, 0, 4, first),
        instruction(JUMP_GREATER_OR_EQUAL, 3, 0, end),
        instruction(LOAD_BYTE_AT_X, 0, 0, 13),
        instruction(JUMP_SET, 0, 1, SYN_OR_RST),
        instruction(RETURN, 0, 0, WHOLE),
        instruction(RETURN, 0, 0, 0),
    ]
}
