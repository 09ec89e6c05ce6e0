//! What `lb capture` and `lb trace` ask for, and what they are told.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which packets to show, and for how long. All conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Capture {
    /// Of this service only.
    pub service: Option<String>,
    /// From or to this address only, before or after the rewrite.
    pub client: Option<IpAddr>,
    /// Counted under this reason only.
    pub reason: Option<String>,
    /// Only what did not go where its sender wanted.
    pub dropped: bool,
    /// Also what was passed to the host untouched and uncounted.
    pub all: bool,
    /// End after so many packets.
    pub count: Option<u64>,
    /// End after so many milliseconds.
    pub duration_ms: Option<u64>,
}

/// One line of a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A packet.
    Packet(Box<Packet>),
    /// The capture ends, by its own limits or with the agent.
    End {
        /// Looks at packets that were lost since it began, those at packets that were not wanted included.
        lost: u64,
    },
}

/// A packet as it came in and as it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// Its number in the capture, from 1 on.
    pub number: u64,
    /// When, in nanoseconds since 1970. The distances between packets are exact; the whole is as exact as the clock
    /// was when the capture began.
    pub time_ns: u64,
    /// The CPU.
    pub cpu: u32,
    /// The interface that it came in by.
    pub interface: String,
    /// The interface that it left by.
    pub leaving: Option<String>,
    /// What became of it.
    pub verdict: Verdict,
    /// Why, where it was counted.
    pub reason: Option<String>,
    /// The service.
    pub service: Option<String>,
    /// The backend's name within the service.
    pub backend: Option<String>,
    /// As it came in; `None` if that look was lost.
    pub before: Option<Look>,
    /// As it left, where it did.
    pub after: Option<Look>,
    /// Looks that were lost so far.
    pub lost: u64,
}

/// The bytes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Its length on the wire.
    pub length: u32,
    /// Its first bytes, from the Ethernet header on.
    pub bytes: Hex,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The host gets it.
    Pass,
    /// Nobody gets it.
    Drop,
    /// It is turned into an answer to its sender.
    Answer,
    /// It goes on.
    Forward,
}

impl Verdict {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Answer => "answer",
            Self::Forward => "forward",
        }
    }
}

/// Bytes, two hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hex(pub Vec<u8>);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digits = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let text: String = digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect();
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
        let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        });
        let bytes: Option<Vec<u8>> = bytes.collect();
        bytes.map(Self).ok_or_else(|| de::Error::custom("bytes want two hexadecimal digits each"))
    }
}

/// The packet to follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// Whom it comes from.
    pub client: SocketAddr,
    /// The service that it goes to.
    pub service: String,
    /// The port of the service; its first one unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The interface that it comes in by; the first of the configuration unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// What it is, where the service is over TCP.
    #[serde(default)]
    pub segment: Segment,
}

/// A TCP segment without data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Segment {
    /// One that opens a connection.
    #[default]
    Syn,
    /// One within a connection.
    Ack,
}

/// What would become of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// The service that was asked for.
    pub service: String,
    /// Its mode.
    pub mode: String,
    /// Its algorithm.
    pub algorithm: String,
    /// The interface that the packet comes in by.
    pub interface: String,
    /// The packet.
    pub packet: Followed,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The backend's name within the service.
    pub backend: Option<String>,
    /// The backend's address.
    pub address: Option<String>,
    /// The counter's name, where it would be counted.
    pub reason: Option<String>,
    /// Why, in words.
    pub why: String,
    /// Whether its connection is known.
    pub known: bool,
    /// The packet that leaves.
    pub out: Option<Followed>,
    /// Where that goes.
    pub next_hop: Option<NextHop>,
}

/// A packet, in and out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// Address and port that it comes from.
    pub from: String,
    /// Address and port that it goes to.
    pub to: String,
    /// What it is: `TCP SYN`, `UDP`, …
    pub what: String,
    /// The tunnel that it travels in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// The whole packet, from the Ethernet header on.
    pub bytes: Hex,
}

/// The ends of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The near one.
    pub from: IpAddr,
    /// The far one.
    pub to: IpAddr,
}

/// Where a packet leaves to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// The next host's MAC address.
    pub mac: String,
    /// The interface.
    pub interface: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_two_digits_each() {
        let hex = Hex(vec![0, 0x7f, 0xa5]);
        assert_eq!(serde_json::to_string(&hex).expect("JSON"), r#""007fa5""#);
        for (text, bytes) in [
            (r#""007FA5""#, Some(hex)),
            (r#""""#, Some(Hex(Vec::new()))),
            (r#""007""#, None),
            (r#""0g""#, None),
            ("7", None),
        ] {
            assert_eq!(serde_json::from_str::<Hex>(text).ok(), bytes, "{text}");
        }
    }
}
