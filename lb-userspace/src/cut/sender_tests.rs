//! Against real interfaces, in network namespaces that end with the test.

use std::process::Command;

use super::*;
use crate::cut::{
    segment::{Hop, Segment, Tuple},
    testing::{Namespace, skipped},
};

/// A namespace with the pair `v0` and `v1`, in which nobody but the test sends anything.
fn quiet() -> Namespace {
    let namespace = Namespace::new();
    namespace.inside(|| {
        for name in ["all", "default"] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").expect("IPv6 off");
        }
    });
    namespace.ip("link add v0 type veth peer name v1
                  link set v0 up
                  link set v1 up");
    namespace
}

fn frames(interface: u32, count: usize) -> Vec<Frame> {
    let hop = Hop { interface, source: [2; 6], destination: [2, 0, 0, 0, 0, 9], vlan: None, tunnel: None };
    let address = |text: &str| text.parse().expect("an address");
    let tuple = Tuple { from: address("203.0.113.10:80"), to: address("198.51.100.7:40000") };
    let segment = |n: usize| Segment::Syn { sequence: n as u32 };
    (0..count).map(|n| Frame::new(&hop, &tuple, segment(n)).expect("a frame")).collect()
}

/// How many packets have left by an interface.
fn left(namespace: &Namespace, interface: &str) -> u64 {
    let told = namespace.run("ip", &["-j", "-s", "link", "show", interface]);
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    told[0]["stats64"]["tx"]["packets"].as_u64().expect("a counter")
}

/// In the environment of the copy of this program that runs without the capability.
const WITHOUT: &str = "LB_TEST_WITHOUT_NET_RAW";

#[test]
fn without_the_capability_the_error_names_it() {
    let test = "cut::sender::tests::without_the_capability_the_error_names_it";
    if std::env::var_os(WITHOUT).is_some() {
        let error = Sender::open().expect_err("the kernel refuses").to_string();
        assert_eq!(
            error,
            "cutting silent connections needs a packet socket, which the kernel refuses: \
             run `lb` as root, or with CAP_NET_RAW"
        );
        return;
    }
    if skipped(test) {
        return;
    }
    let copy = Command::new("setpriv")
        .args(["--bounding-set=-net_raw", "--inh-caps=-net_raw"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", test])
        .env(WITHOUT, "1")
        .output()
        .expect("setpriv is part of util-linux");
    let said = String::from_utf8_lossy(&copy.stdout);
    assert!(copy.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_frame_for_a_missing_interface_is_refused_and_the_others_leave() {
    if skipped("a_frame_for_a_missing_interface_is_refused_and_the_others_leave") {
        return;
    }
    let namespace = quiet();
    let mut sender = namespace.inside(|| Sender::open().expect("a sender"));
    let mut mixed = frames(9_999, 1);
    mixed.extend(frames(namespace.index("v0"), 2));
    mixed.extend(frames(9_999, 1));
    let sent = namespace.inside(|| sender.send(&mixed).expect("sent"));
    assert_eq!(sent, Sent { done: 4, refused: vec![(0, Errno::ENODEV), (3, Errno::ENODEV)] });
    assert_eq!(left(&namespace, "v0"), 2);
}

#[test]
fn an_interface_made_later_is_found_and_one_that_goes_is_refused() {
    if skipped("an_interface_made_later_is_found_and_one_that_goes_is_refused") {
        return;
    }
    let namespace = quiet();
    let mut sender = namespace.inside(|| Sender::open().expect("a sender"));
    namespace.ip("link add w0 type veth peer name w1
                  link set w0 up
                  link set w1 up");
    let frames = frames(namespace.index("w0"), 3);
    let sent = namespace.inside(|| sender.send(&frames).expect("sent"));
    assert_eq!((sent, left(&namespace, "w0")), (Sent { done: 3, refused: vec![] }, 3));
    namespace.ip("link set w0 down");
    let sent = namespace.inside(|| sender.send(&frames[..1]).expect("refused"));
    assert_eq!(sent, Sent { done: 1, refused: vec![(0, Errno::ENETDOWN)] });
    namespace.ip("link del w0");
    let sent = namespace.inside(|| sender.send(&frames[..1]).expect("refused"));
    assert_eq!(sent, Sent { done: 1, refused: vec![(0, Errno::ENODEV)] });
}

#[test]
fn a_full_queue_holds_nobody_up_and_loses_nothing() {
    if skipped("a_full_queue_holds_nobody_up_and_loses_nothing") {
        return;
    }
    let namespace = quiet();
    // Some 50 frames find room in the queue, which lets two frames a millisecond through.
    namespace.run(
        "tc",
        &["qdisc", "add", "dev", "v0", "root", "tbf", "rate", "1mbit", "burst", "1600", "limit", "3000"],
    );
    let mut sender = namespace.inside(|| Sender::open().expect("a sender"));
    let frames = frames(namespace.index("v0"), 300);
    let (mut done, mut calls) = (0, 0);
    let begun = Instant::now();
    while done < frames.len() {
        let sent = namespace.inside(|| sender.send(&frames[done..]).expect("sent"));
        assert_eq!(sent.refused, []);
        done += sent.done;
        calls += 1;
        assert!(begun.elapsed() < Duration::from_secs(10), "{done} sent");
    }
    assert!(calls > 1, "the first call would have waited for all");
    while left(&namespace, "v0") < 300 {
        assert!(begun.elapsed() < Duration::from_secs(10), "lost");
    }
    assert_eq!(left(&namespace, "v0"), 300);
}

#[test]
fn ten_thousand_frames_leave_in_a_fraction_of_a_second() {
    if skipped("ten_thousand_frames_leave_in_a_fraction_of_a_second") {
        return;
    }
    let namespace = quiet();
    let mut sender = namespace.inside(|| Sender::open().expect("a sender"));
    let frames = frames(namespace.index("v0"), 10_000);
    let took = namespace.inside(|| {
        let begun = Instant::now();
        let mut done = 0;
        while done < frames.len() {
            let sent = sender.send(&frames[done..]).expect("sent");
            assert_eq!(sent.refused, []);
            done += sent.done;
        }
        begun.elapsed()
    });
    eprintln!("10,000 frames in {took:?}");
    assert_eq!(left(&namespace, "v0"), 10_000);
    assert!(took < Duration::from_secs(1), "took {took:?}");
}
