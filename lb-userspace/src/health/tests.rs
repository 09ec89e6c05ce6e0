//! The rules of health, as tables of probe results: `+` succeeds, `-` fails doubtfully, `!` fails for certain.

use proptest::prelude::*;

use super::*;

fn probe(letter: char) -> Probe {
    match letter {
        '+' => Probe::Ok,
        '-' => Probe::Failure { certain: false, text: "timed out".to_owned() },
        _ => Probe::Failure { certain: true, text: "refused".to_owned() },
    }
}

/// Runs the results a second apart; what comes out is one letter each: `u`p, `d`own, `s`uspect, `?` unknown.
fn run(health: &mut Health, results: &str, last_usable: bool, start: u64) -> String {
    let step = |(second, letter)| {
        let now = Moment::at(Duration::from_secs(start + second));
        let step = health.observe(probe(letter), last_usable, now);
        match step.state {
            State::Unknown => '?',
            State::Up if step.takes_new => 'u',
            State::Up => 's',
            State::Down => 'd',
        }
    };
    (0..).zip(results.chars()).map(step).collect()
}

fn unknown() -> Health {
    Health::new(Tuning::default(), Moment::START)
}

#[test]
fn states_follow_the_results() {
    for (results, states) in [
        // Never up before: one success is enough, and nothing is a candidate until then.
        ("+", "u"),
        ("--+", "??u"),
        ("---+", "??du"),
        ("!!+", "?du"),
        // Three in a row.
        ("+--+--+", "uuuuuuu"),
        ("+---", "uuud"),
        // Five of the last ten.
        ("+-+--+-+-", "uuuuuuuud"),
        ("+-+-++-+++--+", "uuuuuuuuuuuuu"),
        // A certain failure stops new connections at once and is confirmed by any other.
        ("+!!", "usd"),
        ("+!-", "usd"),
        ("+!+!+", "ususu"),
        // Back after two in a row.
        ("+---+-++", "uuuddddu"),
    ] {
        assert_eq!(run(&mut unknown(), results, false, 0), states, "{results}");
    }
}

#[test]
fn rise_and_fall_are_configurable() {
    let tuning = Tuning { rise: 3, fall: 6, ..Tuning::default() };
    let mut health = Health::new(tuning, Moment::START);
    assert_eq!(run(&mut health, "+------+++", false, 0), "uuuuuudddu");
}

#[test]
fn a_certain_failure_is_probed_again_after_a_quarter_of_a_second() {
    let mut health = unknown();
    run(&mut health, "+", false, 0);
    let at = |millis| Moment::at(Duration::from_millis(millis));
    let first = health.observe(probe('!'), false, at(1_000));
    assert_eq!(first.next_probe, NextProbe::Quick(Duration::from_millis(250)));
    assert_eq!((first.state, first.takes_new, first.changed), (State::Up, false, None));
    let second = health.observe(probe('!'), false, at(1_250));
    let reason = "refused, confirmed".to_owned();
    assert_eq!(second.changed, Some(Change { from: State::Up, to: State::Down, reason }));
    assert_eq!(second.next_probe, NextProbe::Normal);
    assert!(health.certainly_down());
    assert_eq!(health.since(), at(1_250));
}

#[test]
fn a_change_says_why() {
    for (results, reason) in [
        ("+---", "timed out, 3 in a row"),
        ("+-+--+-+-", "timed out, 5 of the last 10"),
        ("+!!", "refused, confirmed"),
        ("+---++", "2 successful probes in a row"),
        ("+", "probe succeeded"),
    ] {
        let mut health = unknown();
        run(&mut health, results, false, 0);
        assert_eq!(health.reason(), reason, "{results}");
    }
}

#[test]
fn what_a_former_agent_saw_counts() {
    let restored = |state| Health::restored(Tuning::default(), state, "as before".to_owned(), Moment::START);
    assert!(restored(State::Up).takes_new());
    assert_eq!(run(&mut restored(State::Up), "--+", false, 0), "uuu");
    assert_eq!(run(&mut restored(State::Down), "++", false, 0), "du");
}

/// Falls and rises `times` times, seven seconds each, and returns the second after the last result.
fn flap(health: &mut Health, times: u64, start: u64) -> u64 {
    for round in 0..times {
        run(health, "---++", false, start + 7 * round);
    }
    start + 7 * times
}

#[test]
fn the_fifth_change_in_five_minutes_holds_down_and_each_further_one_twice_as_long() {
    let mut health = unknown();
    run(&mut health, "+", false, 0);
    let mut now = flap(&mut health, 2, 1);
    for hold in [30, 60, 120, 240, 300, 300] {
        assert_eq!(health.state(), State::Up);
        // Enough changes in the last five minutes again, however long the hold before was.
        while health.held_until().is_none() {
            now = flap(&mut health, 1, now);
        }
        let fell = health.since();
        let until = fell + Duration::from_secs(hold);
        assert_eq!(health.held_until(), Some(until));
        let just_before = Moment::at(until.since_start().saturating_sub(Duration::from_millis(1)));
        assert_eq!(health.observe(Probe::Ok, false, just_before).state, State::Down);
        assert_eq!(health.observe(Probe::Ok, false, until).state, State::Up);
        now = until.since_start().as_secs() + 1;
    }
}

#[test]
fn the_last_usable_backend_is_never_held_down() {
    let mut health = unknown();
    run(&mut health, "+", false, 0);
    let now = flap(&mut health, 3, 1);
    assert_eq!(health.state(), State::Down);
    assert!(health.held_until().is_some());
    assert_eq!(health.observe(Probe::Ok, true, Moment::at(Duration::from_secs(now))).state, State::Up);
    assert_eq!(health.held_until(), None);
}

#[test]
fn a_hold_is_said_as_long_as_it_lasts() {
    let mut health = unknown();
    run(&mut health, "+", false, 0);
    // The fifth change is the third fall.
    run(&mut health, "---++---++---", false, 1);
    assert_eq!(health.reason(), "timed out, 3 in a row; held down for 30 s because it flaps");
    health.observe(probe('-'), false, Moment::at(Duration::from_secs(20)));
    assert_eq!(health.reason(), "timed out; held down for 30 s because it flaps");
    health.observe(probe('-'), false, Moment::at(Duration::from_mins(1)));
    assert_eq!(health.reason(), "timed out");
}

#[test]
fn what_keeps_a_probe_from_asking_is_the_reason_of_unknown_and_of_nothing_else() {
    let mut health = unknown();
    assert!(health.excuse("access denied"));
    assert!(!health.excuse("access denied"), "no news");
    assert_eq!((health.state(), health.reason()), (State::Unknown, "access denied"));
    run(&mut health, "+", false, 0);
    assert!(!health.excuse("access denied"));
    assert_eq!(health.reason(), "probe succeeded");
}

#[test]
fn five_quiet_minutes_forgive() {
    let mut health = unknown();
    run(&mut health, "+", false, 0);
    flap(&mut health, 3, 1);
    run(&mut health, "++", false, 100);
    let now = flap(&mut health, 2, 1_000);
    assert_eq!(health.state(), State::Up);
    flap(&mut health, 1, now);
    let hold = health.held_until().unwrap().since(health.since());
    assert_eq!(hold, Duration::from_secs(30));
}

proptest! {
    #[test]
    fn whatever_happens_only_a_success_makes_it_a_candidate(
        results in proptest::collection::vec((prop_oneof![Just('+'), Just('-'), Just('!')], 0_u64..90_000), 0..200)
    ) {
        let mut health = unknown();
        let mut now = Moment::START;
        for (letter, pause) in results {
            now += Duration::from_millis(pause);
            let before = health.state();
            let step = health.observe(probe(letter), false, now);
            prop_assert_eq!(step.changed.as_ref().map_or(before, |change| change.to), step.state);
            prop_assert!(step.changed.is_none_or(|change| change.from == before && change.from != change.to));
            prop_assert!(!step.takes_new || letter == '+' || before == State::Up);
            prop_assert!(letter != '!' || !step.takes_new);
        }
    }
}
