//! The command line's side of a capture: packets come in, lines or a file go out.

use std::io::{self, IsTerminal as _, Write};

use jiff::tz::TimeZone;
use lb_common::event::SNAP;

use super::{
    pcapng::{Direction, Frame, Writer},
    text,
};
use crate::api::{Line, Look, Packet};

/// Where packets go.
pub enum Sink {
    /// Lines for people.
    Text(Box<dyn Write>),
    /// A file for Wireshark.
    File(Writer<Box<dyn Write>>),
}

/// What has been shown, and what was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Packets.
    pub packets: u64,
    /// Looks at packets that were lost.
    pub lost: u64,
    last_ns: u64,
}

impl Sink {
    /// Standard output for people, or a file; `-` is standard output.
    ///
    /// Errors: the file cannot be made, or a file would go to a terminal.
    pub fn open(file: Option<&str>) -> io::Result<Self> {
        let stdout = || -> Box<dyn Write> { Box::new(io::BufWriter::new(io::stdout())) };
        let out: Box<dyn Write> = match file {
            None => return Ok(Self::Text(stdout())),
            Some("-") if io::stdout().is_terminal() => {
                return Err(io::Error::other(
                    "standard output is a terminal; name a file, or pipe it somewhere",
                ));
            }
            Some("-") => stdout(),
            Some(path) => Box::new(io::BufWriter::new(std::fs::File::create(path)?)),
        };
        Writer::new(out, SNAP as u32).map(Self::File)
    }

    /// Take a line.
    pub fn take(&mut self, line: &Line, shown: &mut Shown, zone: &TimeZone) -> io::Result<()> {
        match line {
            Line::Packet(packet) => {
                let dropped = packet.lost.saturating_sub(shown.lost);
                match self {
                    Self::Text(out) => writeln!(out, "{}", text::line(packet, zone))?,
                    Self::File(writer) => write(writer, packet, dropped)?,
                }
                *shown = Shown { packets: shown.packets + 1, lost: packet.lost, last_ns: packet.time_ns };
            }
            Line::End { lost } => shown.lost = *lost,
        }
        Ok(())
    }

    /// Hand on what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Text(out) => out.flush(),
            Self::File(writer) => writer.flush(),
        }
    }

    /// Nothing comes any more.
    pub fn finish(mut self, shown: &Shown) -> io::Result<()> {
        if let Self::File(writer) = &mut self {
            writer.lost(shown.last_ns, shown.lost)?;
        }
        self.flush()
    }
}

/// A packet's one or two frames.
fn write<W: Write>(writer: &mut Writer<W>, packet: &Packet, mut dropped: u64) -> io::Result<()> {
    let comment = text::fate(packet);
    let came = packet.before.as_ref().map(|look| (look, packet.interface.as_str(), Direction::In));
    let left = packet.after.as_ref().zip(packet.leaving.as_deref());
    let left = left.map(|(look, interface)| (look, interface, Direction::Out));
    for (Look { length, bytes }, interface, direction) in came.into_iter().chain(left) {
        let (length, bytes, time_ns) = (*length, bytes.0.as_slice(), packet.time_ns);
        let identity = packet.number;
        let dropped = std::mem::take(&mut dropped);
        writer.frame(&Frame {
            interface,
            direction,
            time_ns,
            length,
            bytes,
            identity,
            dropped,
            comment: &comment,
        })?;
    }
    Ok(())
}
