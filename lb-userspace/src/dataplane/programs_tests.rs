//! The real programs on a real interface: attached, replaced in place, run for a trace.

use std::process::Command;

use lb_common::{abi::purpose, event::outcome};
use nix::sched::{CloneFlags, unshare};

use super::{
    Dataplane, Kind, Mode, Pins, Port,
    testing::{LAYOUT, backend, publish, service, with_pins},
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A program's id and mode on an interface, as the kernel says.
fn running(interface: &str) -> Option<u32> {
    let shown = Command::new("ip").args(["-o", "link", "show", interface]).output().expect("iproute2");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let id = text.split("prog/xdp id ").nth(1)?.split_whitespace().next()?;
    id.parse().ok()
}

fn ip(line: &str) {
    let done = Command::new("ip").args(line.split_whitespace()).status().expect("iproute2");
    assert!(done.success(), "ip {line}");
}

fn port(name: &str, running: Option<(u32, Mode)>) -> (Port, [u8; 6]) {
    let index = nix::net::if_::if_nametoindex(name).expect("an interface");
    (Port { name: name.to_owned(), index, id: 0, kind: Kind::Veth, mode: None, mtu: 1500, running }, MAC)
}

/// An agent's data path on one end of a veth pair, in a network namespace of its own.
fn with_programs(test: impl FnOnce(Dataplane, &Pins) + Send) {
    with_pins(|pins| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may make a network namespace");
        ip("link add v.0 type veth peer name v1");
        ip("link set v.0 up");
        let (dataplane, attached) =
            Dataplane::open(pins, LAYOUT, &[port("v.0", None)]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((attached[0].mode, attached[0].adopted), (Mode::Native, false));
        assert_eq!(running("v.0"), Some(attached[0].program));
        test(dataplane, pins);
        pins.remove().expect("pins that can go");
        ip("link del v.0");
    });
}

#[test]
fn programs_are_replaced_in_place_and_taken_up_by_a_later_agent() {
    with_programs(|mut dataplane, pins| {
        let first = running("v.0");
        dataplane.swap_all(purpose::CAPTURE).expect("a program that shows packets");
        let second = running("v.0");
        assert!(second.is_some() && second != first);
        dataplane.unload_capture().expect("a program that serves");
        let third = running("v.0").expect("a program");
        drop(dataplane);
        assert_eq!(running("v.0"), Some(third), "it outlives its agent");
        let taken = [port("v.0", Some((third, Mode::Native)))];
        let (_, attached) = Dataplane::open(pins, LAYOUT, &taken).expect("what the first one left");
        assert!(attached[0].adopted);
        assert_eq!(pins.linked_interfaces(), ["v.0"]);
    });
}

#[test]
fn a_trace_says_whose_a_packet_would_be_and_leaves_nothing() {
    with_programs(|mut dataplane, _| {
        publish(&mut dataplane, &[service("10.0.0.1:80", vec![backend("10.1.0.1:80", &["10.0.0.9"])])]);
        let before = dataplane.common.accounts.get(1);
        let trace = dataplane.trace(&syn(), "v.0").expect("an answer");
        assert_eq!(trace.outcome, outcome::FORWARD, "{trace:?}");
        assert_eq!(trace.backend, Some("10.1.0.1:80".parse().expect("an address")));
        assert_eq!(trace.packet[30..34], [10, 1, 0, 1], "the destination");
        assert_eq!(dataplane.common.accounts.get(1), before);
        assert!(dataplane.trace(&syn(), "v1").is_err());
    });
}

/// A SYN of 10.77.1.1 to the service.
fn syn() -> Vec<u8> {
    let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    packet.extend([0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 77, 1, 1, 10, 0, 0, 1]);
    let sum: u32 = packet[14..34].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[24..26].copy_from_slice(&sum.to_be_bytes());
    packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}
