//! Packets and traces as lines for a terminal.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::Headers;
use crate::api::{Followed, Look, Packet, Traced, Verdict};

/// What became of a packet: `forward, web/web1`, `drop: no-backend-hold, db`.
pub fn fate(packet: &Packet) -> String {
    let mut text = packet.verdict.name().to_owned();
    if let Some(reason) = &packet.reason {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {reason}");
    }
    match (&packet.service, &packet.backend) {
        (Some(service), Some(backend)) => text + ", " + service + "/" + backend,
        (Some(service), None) => text + ", " + service,
        (None, _) => text,
    }
}

/// One line of a capture: when, in, what became of it, out.
pub fn line(packet: &Packet, zone: &TimeZone) -> String {
    let headers = |look: &Look| Headers::read(&look.bytes.0);
    let came =
        packet.before.as_ref().map_or_else(|| "(look lost)".to_owned(), |look| headers(look).to_string());
    let mut text = format!("{} {} {came} | {}", clock(packet.time_ns, zone), packet.interface, fate(packet));
    if let (Some(after), Some(leaving)) = (&packet.after, &packet.leaving) {
        let headers = headers(after);
        let _ = write!(text, " | {leaving} {headers} via {}", super::mac(headers.macs.1));
    }
    text
}

/// What would become of a packet, in a few lines.
pub fn traced(traced: &Traced) -> String {
    let Traced { service, mode, interface, packet, verdict, backend, address, why, out, next_hop, .. } =
        traced;
    let target = match (verdict, backend, address) {
        (Verdict::Forward, Some(backend), Some(address)) => format!(" to {service}/{backend} at {address}"),
        _ => String::new(),
    };
    let mut text = format!(
        "in        {}, by {interface}\nverdict   {}{target}\nwhy       {why}\n",
        followed(packet),
        verdict.name()
    );
    if let Some(out) = out {
        let _ = writeln!(text, "out       {} ({mode})", followed(out));
    }
    if let Some(hop) = next_hop {
        let _ = writeln!(text, "next hop  {} via {}", hop.mac, hop.interface);
    }
    text
}

fn followed(packet: &Followed) -> String {
    let Followed { from, to, what, tunnel, .. } = packet;
    match tunnel {
        Some(tunnel) => format!("{from} → {to} {what} in {} → {}", tunnel.from, tunnel.to),
        None => format!("{from} → {to} {what}"),
    }
}

/// The time of day, to the microsecond.
fn clock(time_ns: u64, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_nanosecond(time_ns.into()) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%H:%M:%S%.6f").to_string(),
        Err(_) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Hex, NextHop};

    fn packet() -> Packet {
        let mut frame = Vec::new();
        let link = etherparse::PacketBuilder::ethernet2([2; 6], [2, 0, 0, 0, 0, 9]);
        let syn = link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).tcp(40_000, 80, 1, 1000).syn();
        syn.write(&mut frame, &[]).expect("room");
        let look = Look { length: 54, bytes: Hex(frame) };
        Packet {
            number: 1,
            time_ns: 3_661_000_002_000,
            cpu: 0,
            interface: "eth0".to_owned(),
            leaving: Some("eth1".to_owned()),
            verdict: Verdict::Forward,
            reason: None,
            service: Some("web".to_owned()),
            backend: Some("web1".to_owned()),
            before: Some(look.clone()),
            after: Some(look),
            lost: 0,
        }
    }

    #[test]
    fn a_packet_is_a_line() {
        let tuple = "10.0.0.1:40000 → 10.0.0.2:80 TCP SYN";
        let forward =
            format!("01:01:01.000002 eth0 {tuple} | forward, web/web1 | eth1 {tuple} via 02:00:00:00:00:09");
        let drop = format!("01:01:01.000002 eth0 {tuple} | drop: no-backend-hold, web");
        let dropped = Packet {
            verdict: Verdict::Drop,
            reason: Some("no-backend-hold".to_owned()),
            backend: None,
            leaving: None,
            after: None,
            ..packet()
        };
        for (packet, wanted) in [
            (packet(), forward),
            (dropped, drop),
            (
                Packet { before: None, after: None, service: None, ..packet() },
                "01:01:01.000002 eth0 (look lost) | forward".to_owned(),
            ),
        ] {
            assert_eq!(line(&packet, &TimeZone::UTC), wanted);
        }
    }

    #[test]
    fn a_trace_says_packet_verdict_reason_packet_and_next_hop() {
        let followed = |from: &str, to: &str| Followed {
            from: from.to_owned(),
            to: to.to_owned(),
            what: "TCP SYN".to_owned(),
            tunnel: None,
            bytes: Hex(Vec::new()),
        };
        let answer = Traced {
            service: "web".to_owned(),
            mode: "snat".to_owned(),
            algorithm: "least-load".to_owned(),
            interface: "eth0".to_owned(),
            packet: followed("198.51.100.7:40000", "203.0.113.10:80"),
            verdict: Verdict::Forward,
            backend: Some("web1".to_owned()),
            address: Some("10.0.0.11:80".to_owned()),
            reason: None,
            why: "a new connection".to_owned(),
            known: false,
            out: Some(followed("10.0.0.10:1030", "10.0.0.11:80")),
            next_hop: Some(NextHop { mac: "02:00:00:00:00:0b".to_owned(), interface: "eth0".to_owned() }),
        };
        let wanted = "in        198.51.100.7:40000 → 203.0.113.10:80 TCP SYN, by eth0\n\
                      verdict   forward to web/web1 at 10.0.0.11:80\n\
                      why       a new connection\n\
                      out       10.0.0.10:1030 → 10.0.0.11:80 TCP SYN (snat)\n\
                      next hop  02:00:00:00:00:0b via eth0\n";
        assert_eq!(traced(&answer), wanted);
    }
}
