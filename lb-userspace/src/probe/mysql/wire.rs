//! Packets over a stream: 3 bytes of length, 1 of sequence, the payload. Each answer is read within a budget.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::peer::Peer;
use super::super::{Failure, FailureKind, LIMIT};
use super::packet::Malformed;

const HEADER: usize = 4;

/// A stream of packets, and what is left of the current answer's budget.
#[derive(Debug)]
pub(super) struct Wire<S> {
    pub stream: S,
    sequence: u8,
    budget: usize,
}

impl<S> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, sequence: 0, budget: LIMIT }
    }

    /// The stream by itself, and a wire that goes on where this one stands as soon as it has another.
    pub fn part(self) -> (S, Wire<()>) {
        (self.stream, Wire { stream: (), sequence: self.sequence, budget: self.budget })
    }

    /// The same conversation over another stream.
    pub fn over<T>(self, stream: T) -> Wire<T> {
        Wire { stream, sequence: self.sequence, budget: self.budget }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Begins a new command: the sequence starts anew, and so does the budget.
    pub fn begin(&mut self) {
        self.sequence = 0;
        self.budget = LIMIT;
    }

    pub async fn send(&mut self, peer: &Peer, payload: &[u8]) -> Result<(), Failure> {
        let Some(packet) = frame(payload, self.sequence) else {
            return Err(peer.failure(FailureKind::Local, "was not asked: the query is too long"));
        };
        self.sequence = self.sequence.wrapping_add(1);
        let written = async {
            self.stream.write_all(&packet).await?;
            self.stream.flush().await
        };
        peer.step("it did not take the request", written).await
    }

    /// The payload of the next packet. `waiting` says what for.
    pub async fn receive(&mut self, peer: &Peer, waiting: &str) -> Result<Vec<u8>, Failure> {
        let mut header = [0; HEADER];
        peer.step(waiting, self.stream.read_exact(&mut header)).await?;
        let [low, middle, high, sequence] = header;
        let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
        let Some(budget) = self.budget.checked_sub(HEADER + length) else {
            return Err(peer.failure(
                FailureKind::TooLarge,
                format!("announced a packet of {length} bytes, more than a monitor reads"),
            ));
        };
        self.budget = budget;
        let mut payload = vec![0; length];
        peer.step(waiting, self.stream.read_exact(&mut payload)).await?;
        // An idle connection that the server closes gets an unasked error, whose sequence fits nothing.
        if sequence != self.sequence && payload.first() != Some(&0xff) {
            return Err(bad_answer(peer, "a packet is out of sequence"));
        }
        self.sequence = sequence.wrapping_add(1);
        Ok(payload)
    }
}

pub(super) fn bad_answer(peer: &Peer, what: &str) -> Failure {
    peer.failure(FailureKind::BadAnswer, format!("does not speak MySQL as expected: {what}"))
}

pub(super) fn malformed(peer: &Peer, error: Malformed) -> Failure {
    bad_answer(peer, &error.to_string())
}

/// One packet as bytes; `None` if the payload needs more than one.
pub(super) fn frame(payload: &[u8], sequence: u8) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|&length| length < 0xff_ffff)?;
    let [low, middle, high, _] = length.to_le_bytes();
    Some([&[low, middle, high, sequence], payload].concat())
}
