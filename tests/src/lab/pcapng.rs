//! Reads the pcap-ng files that `lb capture` writes (draft-ietf-opsawg-pcapng), strictly: whatever is not as the draft
//! says is a panic.

use std::path::Path;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// A frame of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The interface's name.
    pub interface: String,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Whether it came in; it left otherwise.
    pub inbound: bool,
    /// The same for the sights of one packet.
    pub identity: u64,
    /// The comment.
    pub comment: String,
    /// Its length on the wire.
    pub length: u32,
    /// The bytes that were kept.
    pub bytes: Vec<u8>,
}

/// What stands in a file.
#[derive(Debug, Default)]
pub struct File {
    /// The frames in their order.
    pub frames: Vec<Frame>,
    /// What was lost, as the file's end says.
    pub lost: Option<u64>,
}

/// Reads a file.
pub fn read(path: &Path) -> File {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut file, mut interfaces, mut at) = (File::default(), Vec::new(), 0);
    while at < bytes.len() {
        let length = word(&bytes, at + 4) as usize;
        let block = &bytes[at..at + length];
        assert!(length.is_multiple_of(4) && word(block, length - 4) as usize == length, "a block at {at}");
        match word(block, 0) {
            SECTION_HEADER => {
                assert_eq!((at, word(block, 8), word(block, 12)), (0, 0x1a2b_3c4d, 1), "version 1.0, once");
            }
            INTERFACE_DESCRIPTION => {
                let options = options(&block[16..length - 4]);
                assert_eq!(
                    (word(block, 8), option(&options, 9)),
                    (1, Some(&[9][..])),
                    "Ethernet, nanoseconds"
                );
                interfaces.push(text(option(&options, 2)));
            }
            ENHANCED_PACKET => file.frames.push(frame(block, &interfaces)),
            INTERFACE_STATISTICS => {
                let options = options(&block[20..length - 4]);
                file.lost = option(&options, 7).map(|value| u64::from_le_bytes(value.try_into().unwrap()));
            }
            kind => panic!("a block of type {kind} at {at}"),
        }
        at += length;
    }
    file
}

fn frame(block: &[u8], interfaces: &[String]) -> Frame {
    let kept = word(block, 20) as usize;
    let options = options(&block[28 + kept.next_multiple_of(4)..block.len() - 4]);
    let flags = word(option(&options, 2).unwrap(), 0);
    assert!(flags == 1 || flags == 2, "{flags}: neither in nor out");
    Frame {
        interface: interfaces[word(block, 8) as usize].clone(),
        time_ns: u64::from(word(block, 12)) << 32 | u64::from(word(block, 16)),
        inbound: flags == 1,
        identity: u64::from_le_bytes(option(&options, 5).unwrap().try_into().unwrap()),
        comment: text(option(&options, 1)),
        length: word(block, 24),
        bytes: block[28..28 + kept].to_vec(),
    }
}

fn options(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut options = Vec::new();
    while !bytes.is_empty() {
        let head = word(bytes, 0);
        let (code, length) = (head as u16, (head >> 16) as usize);
        options.push((code, &bytes[4..4 + length]));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    assert_eq!(options.pop(), Some((0, &[][..])), "options end with their end");
    options
}

fn option<'a>(options: &[(u16, &'a [u8])], code: u16) -> Option<&'a [u8]> {
    options.iter().find(|(known, _)| *known == code).map(|(_, value)| *value)
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}
