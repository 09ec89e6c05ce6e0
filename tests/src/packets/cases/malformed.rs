//! Packets that are shorter than they say, or longer, or contradict themselves.

use lb_common::{
    Reason,
    abi::checksums::MAKE_WHOLE,
    cell::Phase::{Embryonic, Established},
};

use crate::packets::{
    Case, Expect, Fact, Life, Segment, Sum,
    expect::{to_backend, to_client, untouched},
    scene::{A, CLIENT, TRUSTS, WEB_ID},
    segment::{ACK, SYN, client, server},
};

/// Offset of the IPv4 header.
const IP: usize = 14;
/// Offset of the TCP header of a packet without IP options.
const TCP: usize = 34;

fn noted() -> Expect {
    untouched().counted(0, Reason::Malformed)
}

fn is_noted(what: &str, segments: impl IntoIterator<Item = Segment>) -> Case {
    segments.into_iter().fold(Case::new(what), |case, segment| case.send_frame(segment.frame(), noted(), &[]))
}

pub(super) fn cases() -> Vec<Case> {
    [truncated(), lying(), padded()].concat()
}

/// What is too short to be known as IPv4 is not counted either; from there on it is a packet that lies.
fn truncated() -> Vec<Case> {
    let whole = client(SYN).tcp_options(&[1; 12]).frame();
    let options = client(SYN).ip_options(&[1; 20]).frame();
    let cut = |what: &str, frame: &[u8], length: usize| {
        let expect = if length < 14 { untouched() } else { noted() };
        Case::new(format!("{what} cut to {length} bytes")).send_frame(frame[..length].to_vec(), expect, &[])
    };
    let mut cases: Vec<Case> = (0..whole.len()).map(|length| cut("a SYN", &whole, length)).collect();
    cases.extend([34, 38, 53, 54, 60, 73].map(|length| cut("a SYN with IP options", &options, length)));
    cases
}

fn lying() -> Vec<Case> {
    vec![
        is_noted(
            "an IP length shorter than the headers",
            (0..40u16).map(|length| client(SYN).edit(IP + 2, &length.to_be_bytes())),
        ),
        is_noted(
            "an IP header length below 5 words",
            (0..5).map(|words| client(SYN).edit(IP, &[0x40 | words])),
        ),
        is_noted(
            "another IP version in an IPv4 frame",
            [5, 6, 0, 15].map(|version| client(SYN).edit(IP, &[version << 4 | 5])),
        ),
        is_noted("an IP header that reaches over the packet's end", [client(SYN).edit(IP, &[0x4f])]),
        is_noted(
            "a TCP header length below 5 words",
            (0..5).map(|words| client(SYN).edit(TCP + 12, &[words << 4])),
        ),
        is_noted(
            "a TCP header longer than the segment",
            (6..16).map(|words| client(SYN).edit(TCP + 12, &[words << 4])),
        ),
        is_noted(
            "an IP length beyond the frame's end",
            [1, 10, 1_400].map(|more| client(SYN).claiming(more)),
        ),
        Case::new("a packet of a connection that IP says is longer than its frame changes nothing")
            .trust(MAKE_WHOLE)
            .given(Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 })
            .send(client(ACK).claiming(10).sum(Sum::Partial), noted(), &[Established])
            .send(server(A, ACK).claiming(10), noted(), &[Established]),
        Case::new("a reserved bit in the fragment's word is no fragment").only(4).send(
            client(SYN).edit(IP + 6, &[0xc0, 0]).edit(IP + 10, &reserved_sum()),
            to_backend(A).opens(A),
            &[Embryonic],
        ),
    ]
}

/// The header checksum of the scene's SYN with the reserved bit set: the sum grows by 0x8000.
fn reserved_sum() -> [u8; 2] {
    let frame = client(SYN).frame();
    let check = u16::from_be_bytes([frame[IP + 10], frame[IP + 11]]);
    let sum = u32::from(!check) + 0x8000;
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

fn padded() -> Vec<Case> {
    let held = Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 };
    TRUSTS
        .iter()
        .flat_map(|(name, trust)| {
            [1, 2, 6, 7, 46, 1000].map(|padding| {
                Case::new(format!(
                    "{padding} bytes of padding stay as they are and count for nothing ({name})"
                ))
                .trust(*trust)
                .given(held.clone())
                .send(client(ACK).padding(padding), to_backend(A), &[Established])
                .send(server(A, ACK).padding(padding).data(3), to_client(A), &[Established])
                .send(
                    client(ACK).padding(padding).data(5).sum(Sum::Partial),
                    made(*trust),
                    &[Established],
                )
            })
        })
        .collect()
}

fn made(trust: u8) -> Expect {
    let forwarded = to_backend(A);
    if trust == MAKE_WHOLE { forwarded.counted(WEB_ID, Reason::ChecksumCompleted) } else { forwarded }
}
