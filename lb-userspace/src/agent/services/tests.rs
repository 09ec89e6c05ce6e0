//! A service's backends over probes, panic and other configurations.

use super::*;
use crate::{
    config::{SystemSecrets, parse},
    probe::FailureKind,
};

const TIMED_OUT: FailureKind = FailureKind::TimedOut;
const REFUSED: FailureKind = FailureKind::Refused;

/// A service of so many backends, all up.
pub fn service(backends: usize) -> Backends {
    let list: Vec<String> = (1..=backends)
        .map(|number| format!("{{ name = \"web{number}\", address = \"10.0.0.{number}:80\" }}"))
        .collect();
    let text = format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80/tcp\"\nbackends = [{}]",
        list.join(", ")
    );
    let config = parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap();
    let mut service = configured(&config.services[0]);
    for index in 0..backends {
        service.checked(index, Ok(()), Moment::START, Moment::START);
    }
    service.step(Moment::START);
    service
}

/// A service of which nothing is said elsewhere.
pub fn configured(service: &config::Service) -> Backends {
    let (wish, nobody) = (|_: &str| Wish::default(), |_| false);
    let said = Said { wish: &wish, leaves: &nobody, served: &nobody };
    Backends::new(service, &said, &mut Keys::default(), Moment::START).unwrap()
}

/// Down by its probes: as many failures in a row as it takes.
fn down(service: &mut Backends, index: usize, kind: FailureKind, now: Moment) {
    for _ in 0..3 {
        let failure = Failure { kind, detail: String::new() };
        service.checked(index, Err(failure), now, now);
    }
    assert_eq!(service.members[index].health.state(), State::Down);
}

/// Which backends have a weight, one letter each.
fn used(service: &Backends) -> String {
    service.members.iter().map(|backend| if backend.weight > 0 { 'u' } else { '-' }).collect()
}

#[test]
fn when_most_of_five_or_more_backends_fail_doubtfully_they_are_used_all_the_same() {
    let second = |seconds| Moment::at(Duration::from_secs(seconds));
    for (backends, failing, drained, wanted) in [
        (5, vec![TIMED_OUT; 2], 0, "--uuu"),
        (5, vec![TIMED_OUT; 3], 0, "uuuuu"),
        (5, vec![TIMED_OUT, TIMED_OUT, REFUSED], 0, "uu-uu"),
        (5, vec![REFUSED; 3], 0, "---uu"),
        (4, vec![TIMED_OUT; 3], 0, "---u"),
        // What the operator drains is neither dead nor counted.
        (6, vec![TIMED_OUT; 2], 2, "--uu--"),
        (7, vec![TIMED_OUT; 3], 2, "uuuuu--"),
    ] {
        let mut service = service(backends);
        for index in backends - drained..backends {
            service.administer(index, Admin::Drain, second(1));
        }
        for (index, kind) in failing.iter().enumerate() {
            down(&mut service, index, *kind, second(2));
        }
        service.step(second(5));
        assert_eq!(used(&service), wanted, "{backends}, {failing:?}, {drained} drained");
        assert_eq!(service.panic.is_empty(), !wanted.starts_with('u'), "{:?}", service.panic);
    }
}

#[test]
fn panic_is_told_when_it_begins_and_when_it_ends() {
    let second = |seconds| Moment::at(Duration::from_secs(seconds));
    let mut service = service(5);
    assert_eq!(service.panic_changed(), None);
    (0..3).for_each(|index| down(&mut service, index, TIMED_OUT, second(2)));
    let said = "more than half of 5 backends look dead; 3 of them only fail to answer well and are used all the same";
    assert_eq!(service.panic_changed(), Some(said));
    assert_eq!(service.panic_changed(), None);
    for _ in 0..2 {
        service.checked(0, Ok(()), second(3), second(3));
    }
    service.step(second(6));
    assert_eq!(service.panic_changed(), Some("the probes are trusted again"));
    assert_eq!(used(&service), "u--uu");
}

/// The same service over other backends: name, last byte of the address, weight.
fn reconfigure(
    service: &mut Backends,
    backends: &[(&str, u8, u16)],
    leaves: &[u8],
    weight: Option<Weight>,
    now: Moment,
) {
    let list: Vec<String> = backends
        .iter()
        .map(|(name, at, weight)| {
            format!("{{ name = \"{name}\", address = \"10.0.0.{at}:80\", weight = {weight} }}")
        })
        .collect();
    let text = format!(
        "interfaces = [\"eth0\"]\n[[service]]\nname = \"web\"\naddress = \"203.0.113.10:80/tcp\"\nbackends = [{}]",
        list.join(", ")
    );
    let config = parse(&text, "lb.toml", &SystemSecrets { folder: "/".into() }).unwrap();
    let wish = |name: &str| Wish { weight: weight.filter(|_| name == "web1"), ..Wish::default() };
    let leaves =
        |address: SocketAddr| leaves.iter().any(|at| address == SocketAddr::from(([10, 0, 0, *at], 80)));
    let said = Said { wish: &wish, leaves: &leaves, served: &|_| false };
    let mut keys = Keys::default();
    // Beyond those that the service has given.
    for _ in 0..100 {
        let _ = keys.next();
    }
    service.reconfigure(&config.services[0], &said, &mut keys, now);
    service.step(now);
}

#[test]
fn what_is_known_of_backends_that_stay_is_kept_over_another_configuration() {
    // Weights are published once a second at most.
    let second = |seconds| Moment::at(Duration::from_secs(seconds));
    let mut service = service(2);
    let keys: Vec<Key> = service.members.iter().map(|backend| backend.key).collect();
    // In another order, one with another name and weight, and a new one that has to prove itself first.
    reconfigure(&mut service, &[("new", 9, 100), ("renamed", 2, 50), ("web1", 1, 100)], &[], None, second(2));
    assert_eq!(used(&service), "-uu");
    assert_eq!([service.members[2].key, service.members[1].key], keys[..]);
    assert_eq!((service.members[1].weight, service.members[2].weight), (50 * 1024, 100 * 1024));
    service.checked(0, Ok(()), second(4), second(4));
    service.step(second(4));
    assert_eq!(service.members[0].weight, 100 * 1024, "it begins with its whole weight");
    // One leaves: it keeps its place at the end, takes nothing new, and stands in until another can serve.
    reconfigure(
        &mut service,
        &[("new", 9, 100), ("web1", 1, 100), ("renamed", 2, 50)],
        &[2],
        None,
        second(6),
    );
    assert_eq!(used(&service), "uu-");
    assert!(service.members[2].stands_in && service.members[2].leaves);
    // It comes back.
    reconfigure(&mut service, &[("renamed", 2, 50), ("web1", 1, 100)], &[], None, second(8));
    assert_eq!((&*used(&service), service.members[0].key), ("uu", keys[1]));
    assert!(!service.members[0].stands_in);
}

#[test]
fn a_weight_that_is_set_comes_before_the_configured_one_and_a_part_follows_it() {
    let mut service = service(2);
    for (seconds, (configured, set, weight)) in (2..).step_by(2).zip([
        (100, None, 100),
        (100, Some(Weight::Percent(50)), 50),
        (300, Some(Weight::Percent(50)), 150),
        (300, Some(Weight::Absolute(7)), 7),
        (300, Some(Weight::Absolute(0)), 0),
        (300, None, 300),
    ]) {
        let now = Moment::at(Duration::from_secs(seconds));
        reconfigure(&mut service, &[("web1", 1, configured), ("web2", 2, 100)], &[], set, now);
        assert_eq!(service.members[0].weight, weight * 1024, "{configured} {set:?}");
        assert_eq!(service.members[1].weight, 100 * 1024);
    }
}

fn say(service: &mut Backends, index: usize, line: &str, now: Moment) {
    service.ordered(index, agent_check::parse(line.as_bytes()), now);
    service.step(now);
}

#[test]
fn an_agent_is_obeyed_until_its_lease_ends_and_the_operators_word_goes_before_its_own() {
    let second = |seconds| Moment::at(Duration::from_secs(seconds));
    // What the agent says, the operator's word, and the weights that follow, in hundredths of the configured one.
    for (lines, admin, wanted, limit) in [
        (&["up 50%"][..], Admin::Ready, [50, 100], None),
        (&["drain"], Admin::Ready, [0, 100], None),
        (&["drain", "ready"], Admin::Ready, [100, 100], None),
        (&["ready 100%"], Admin::Drain, [0, 100], None),
        (&["down#no disk"], Admin::Ready, [0, 100], None),
        (&["0%"], Admin::Ready, [0, 100], None),
        (&["maxconn:7"], Admin::Ready, [100, 100], Some(7)),
    ] {
        let mut service = service(2);
        for backend in &mut service.members {
            backend.orders = Orders::new(Duration::from_secs(30));
        }
        service.administer(0, admin, second(1));
        for (line, at) in lines.iter().zip(2..) {
            say(&mut service, 0, line, second(at));
        }
        service.step(second(10));
        let weights =
            |service: &Backends| [0, 1].map(|index: usize| service.members[index].weight / UNIT_OF_WEIGHT);
        assert_eq!(weights(&service), wanted, "{lines:?}");
        assert_eq!(service.members[0].limit(), limit, "{lines:?}");
        service.step(second(40));
        service.step(second(80));
        let then = if admin == Admin::Drain { [0, 100] } else { [100, 100] };
        assert_eq!((weights(&service), service.members[0].limit()), (then, None), "{lines:?}, later");
    }
}

/// Of a weight of 100, published in 1,024ths: one hundredth.
const UNIT_OF_WEIGHT: u32 = 1_024;

#[test]
fn what_an_agent_has_ended_is_told_in_the_log_and_no_agent_brings_up_what_its_probes_call_down() {
    let second = |seconds| Moment::at(Duration::from_secs(seconds));
    let mut service = service(2);
    service.members[0].orders = Orders::new(Duration::from_secs(30));
    service.news.clear();
    say(&mut service, 0, "fail#no disk", second(1));
    assert_eq!(used(&service), "-u");
    assert!(service.members[0].reason().ends_with("its agent orders: fail: no disk"));
    service.step(second(31));
    assert_eq!(
        service.news,
        [
            "web1: its agent says fail: no disk",
            "web1: its agent has been silent for 30 s: its orders end (fail: no disk)",
        ]
    );
    down(&mut service, 0, REFUSED, second(40));
    say(&mut service, 0, "up ready 100%", second(41));
    assert_eq!(used(&service), "-u");
}

#[test]
fn why_a_backend_cannot_be_asked_is_said_once_and_shown_while_nothing_else_is_known() {
    let mut service = service(1);
    service.members[0].health = Health::new(Tuning::default(), Moment::START);
    service.news.clear();
    for _ in 0..3 {
        let failure = Failure { kind: FailureKind::MonitorDenied, detail: "says error 1045".to_owned() };
        assert_eq!(service.checked(0, Err(failure), Moment::START, Moment::START), None);
    }
    assert_eq!(service.news, ["web1: cannot be asked: says error 1045"]);
    assert_eq!(service.members[0].reason(), "says error 1045");
}

#[test]
fn probes_that_change_nothing_stir_nothing() {
    let mut service = service(3);
    assert!(service.stirred());
    for (result, stirs) in [(Ok(()), false), (Err(TIMED_OUT), false), (Err(REFUSED), true), (Ok(()), true)] {
        let result = result.map_err(|kind| Failure { kind, detail: String::new() });
        let said = format!("{result:?}");
        service.checked(1, result, Moment::START, Moment::START);
        assert_eq!(service.stirred(), stirs, "{said}");
    }
}
