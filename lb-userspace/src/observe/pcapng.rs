//! A capture as a file for Wireshark: pcap-ng (draft-ietf-opsawg-pcapng), of which four blocks are written.
//!
//! Written by hand, for it is little: the one library that writes options of packets (`pcap-file`) has had no stable
//! release since 2022. Numbers are little-endian, which the section header says.

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// How a reader finds out about the byte order.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// `LINKTYPE_ETHERNET`.
const ETHERNET: u16 = 1;

const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;
/// Of a section header: the program that wrote it.
const APPLICATION: u16 = 4;
/// Of an interface: its name.
const NAME: u16 = 2;
/// Of an interface: the negative power of ten of the time stamps' unit.
const RESOLUTION: u16 = 9;
/// Of a packet: link-layer flags, whose lowest two bits are the direction.
const FLAGS: u16 = 2;
/// Of a packet: packets lost since the one before it.
const DROPPED: u16 = 4;
/// Of a packet: the same number for all sights of one packet.
const IDENTITY: u16 = 5;
/// Of statistics: packets that the operating system dropped.
const DROPPED_IN_ALL: u16 = 7;

/// Which way a frame goes, seen from the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It comes in.
    In = 1,
    /// It leaves.
    Out = 2,
}

/// A frame to be written.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The interface that it came in or left by.
    pub interface: &'a str,
    /// Which of both.
    pub direction: Direction,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// Its length on the wire.
    pub length: u32,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// The same for the packet that came in and the one that left.
    pub identity: u64,
    /// Looks lost since the frame before it.
    pub dropped: u64,
    /// What became of it.
    pub comment: &'a str,
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    snap: u32,
    /// By their numbers in the file.
    interfaces: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Begin a file whose frames have `snap` bytes at most.
    pub fn new(out: W, snap: u32) -> io::Result<Self> {
        let mut writer = Self { out, snap, interfaces: Vec::new() };
        let mut header = Block::new(SECTION_HEADER);
        // Version 1.0, of a length that is not known yet.
        header.words(&[BYTE_ORDER, 1, u32::MAX, u32::MAX]);
        header.option(APPLICATION, concat!("lb ", env!("CARGO_PKG_VERSION")).as_bytes());
        writer.write(header)?;
        Ok(writer)
    }

    /// Write a frame.
    pub fn frame(&mut self, frame: &Frame<'_>) -> io::Result<()> {
        let interface = self.interface(frame.interface)?;
        let mut block = Block::new(ENHANCED_PACKET);
        block.words(&[interface, (frame.time_ns >> 32) as u32, frame.time_ns as u32]);
        block.words(&[frame.bytes.len() as u32, frame.length]);
        block.padded(frame.bytes);
        block.option(FLAGS, &(frame.direction as u32).to_le_bytes());
        block.option(IDENTITY, &frame.identity.to_le_bytes());
        if frame.dropped > 0 {
            block.option(DROPPED, &frame.dropped.to_le_bytes());
        }
        block.option(COMMENT, frame.comment.as_bytes());
        self.write(block)
    }

    /// Say what was lost in all, at the end. Which interface lost it is not known; it stands with the first.
    pub fn lost(&mut self, time_ns: u64, lost: u64) -> io::Result<()> {
        if self.interfaces.is_empty() {
            return Ok(());
        }
        let mut block = Block::new(INTERFACE_STATISTICS);
        block.words(&[0, (time_ns >> 32) as u32, time_ns as u32]);
        block.option(DROPPED_IN_ALL, &lost.to_le_bytes());
        block.option(COMMENT, b"what was lost on all interfaces");
        self.write(block)
    }

    /// Hand on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// The number of an interface, which is described when it is first seen.
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some(known) = self.interfaces.iter().position(|known| known == name) {
            return Ok(known as u32);
        }
        let mut block = Block::new(INTERFACE_DESCRIPTION);
        block.words(&[u32::from(ETHERNET), self.snap]);
        block.option(NAME, name.as_bytes());
        block.option(RESOLUTION, &[9]);
        self.write(block)?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }

    fn write(&mut self, block: Block) -> io::Result<()> {
        self.out.write_all(&block.finish())
    }
}

/// A block: its type, its length, what is in it, its length once more.
struct Block(Vec<u8>);

impl Block {
    fn new(kind: u32) -> Self {
        let mut block = Self(Vec::with_capacity(512));
        block.words(&[kind, 0]);
        block
    }

    fn words(&mut self, words: &[u32]) {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }

    /// Bytes, with zeros up to the next word.
    fn padded(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let value = &value[..value.len().min(u16::MAX.into())];
        self.0.extend(code.to_le_bytes());
        self.0.extend((value.len() as u16).to_le_bytes());
        self.padded(value);
    }

    fn finish(mut self) -> Vec<u8> {
        self.option(END_OF_OPTIONS, &[]);
        let length = self.0.len() as u32 + 4;
        self.words(&[length]);
        self.0[4..8].copy_from_slice(&length.to_le_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_blocks_whose_lengths_agree_and_whose_options_end() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, 192).expect("room");
        let frame = Frame {
            interface: "eth0",
            direction: Direction::In,
            time_ns: 0x1_0000_0002,
            length: 1500,
            bytes: &[7; 5],
            identity: 9,
            dropped: 3,
            comment: "drop",
        };
        writer.frame(&frame).expect("room");
        writer.frame(&Frame { direction: Direction::Out, dropped: 0, ..frame }).expect("room");
        writer.lost(5, 4).expect("room");

        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let mut blocks = Vec::new();
        let mut at = 0;
        while at < file.len() {
            let length = word(at + 4) as usize;
            assert_eq!((word(at + length - 8), word(at + length - 4)), (0, length as u32), "at {at}");
            blocks.push((word(at), at));
            at += length;
        }
        let kinds: Vec<u32> = blocks.iter().map(|(kind, _)| *kind).collect();
        let wanted =
            [SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET, ENHANCED_PACKET, INTERFACE_STATISTICS];
        assert_eq!(kinds, wanted);
        let packet = blocks[2].1;
        let fields: Vec<u32> = (2..7).map(|place| word(packet + 4 * place)).collect();
        assert_eq!(fields, [0, 1, 2, 5, 1500]);
        // Five bytes take eight; the flags come first.
        assert_eq!((word(packet + 36), word(packet + 40)), (4 << 16 | u32::from(FLAGS), 1));
        assert_eq!(word(blocks[3].1 + 40), 2);
        assert!(file.windows(4).any(|bytes| bytes == b"drop"));
    }
}
