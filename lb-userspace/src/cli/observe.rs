//! `lb capture` and `lb trace`.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use crate::api;

/// `lb capture`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct Capture {
    /// Only packets of this service, and of its backends to it
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only packets from or to this address
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
    /// Only packets that were counted under this reason, as `lb status` names it
    #[arg(long, value_name = "NAME", conflicts_with = "dropped")]
    pub reason: Option<String>,
    /// Only packets that did not go where their sender wanted
    #[arg(long)]
    pub dropped: bool,
    /// Also packets that are nobody's and that the host gets untouched
    #[arg(long)]
    pub all: bool,
    /// End after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: Option<u64>,
    /// Write a pcap-ng file, for Wireshark; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<String>,
}

impl From<&Capture> for api::Capture {
    fn from(capture: &Capture) -> Self {
        Self {
            service: capture.service.clone(),
            client: capture.client,
            reason: capture.reason.clone(),
            dropped: capture.dropped,
            all: capture.all,
            count: capture.count,
            duration_ms: capture.seconds.map(|seconds| seconds * 1_000),
        }
    }
}

/// `lb trace`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Trace {
    /// Whom the packet comes from: 198.51.100.7:40000, [2001:db8::7]:40000
    #[arg(value_name = "CLIENT:PORT")]
    pub client: SocketAddr,
    /// The service that it goes to
    pub service: String,
    /// The service's port, where it has several; else the first
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// The interface that it comes in by; else the first of the configuration
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// A TCP SYN, which opens a connection; so it is unless said
    #[arg(long, conflicts_with = "ack")]
    pub syn: bool,
    /// A TCP ACK, as within a connection
    #[arg(long)]
    pub ack: bool,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

impl From<&Trace> for api::Trace {
    fn from(trace: &Trace) -> Self {
        Self {
            client: trace.client,
            service: trace.service.clone(),
            port: trace.port,
            interface: trace.interface.clone(),
            segment: if trace.ack { api::Segment::Ack } else { api::Segment::Syn },
        }
    }
}
