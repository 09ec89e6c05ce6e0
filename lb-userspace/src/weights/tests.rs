//! The controller's promises one by one.

use proptest::prelude::*;

use super::*;

fn at(seconds: f64) -> Moment {
    Moment::at(Duration::from_secs_f64(seconds))
}

/// A load over time: which member, which second, what it measures.
type Shape = fn(usize, u64) -> Option<f64>;

const SHAPES: [(&str, Shape); 9] = [
    ("step", |key, second| Some(if key == 0 && second >= 60 { 1.4 } else { 0.6 })),
    ("ramp", |key, second| Some(if key == 0 { second as f64 / 100.0 } else { 0.5 })),
    ("square wave of 2 s", |key, second| Some(if key == 0 && second % 2 == 0 { 1.5 } else { 0.3 })),
    ("square wave of 10 s", |key, second| Some(if key == 0 && second / 5 % 2 == 0 { 1.5 } else { 0.3 })),
    ("square wave of 60 s", |key, second| Some(if key == 0 && second / 30 % 2 == 0 { 1.5 } else { 0.3 })),
    ("samples lost", |key, second| (second * 7 % 10 >= 3).then_some(key as f64 / 3.0)),
    ("all above 1", |key, _| Some(1.1 + key as f64)),
    ("one without a metric", |key, _| (key > 0).then_some(key as f64 / 4.0)),
    ("nonsense", |key, second| {
        let values = [f64::NAN, f64::INFINITY, -1.0, 1e308, f64::MIN_POSITIVE, 0.5];
        Some(values[(key + second as usize) % 6])
    }),
];

/// Five members of weight 100, up from the start without slow start.
fn five() -> Controller<usize> {
    let mut controller = Controller::new(Tuning::default());
    let members: Vec<_> = (0..5).map(|key| Member { key, configured: 100 }).collect();
    controller.set_members(&members, Moment::START);
    (0..5).for_each(|key| controller.health(key, true, Moment::START, true));
    controller
}

#[test]
fn whatever_the_load_every_weight_stays_within_bounds_and_the_map_is_written_seldom() {
    for (name, shape) in SHAPES {
        let mut controller = five();
        let mut published = Vec::new();
        // Four steps a second: the rhythm of publications does not depend on the caller's.
        for quarter in 0..960_u64 {
            let now = at(quarter as f64 / 4.0);
            for key in 0..5 {
                if let Some(load) = shape(key, quarter / 4).filter(|_| quarter % 4 == 0) {
                    controller.observe(key, load, now);
                }
            }
            published.extend(controller.step(now).into_iter().map(|(key, weight)| (quarter, key, weight)));
        }
        for (quarter, key, weight) in &published {
            assert!((2_048..=204_800).contains(weight), "{name}: {weight}");
            let minute = *quarter..quarter + 240;
            let count = published.iter().filter(|(q, k, _)| k == key && minute.contains(q)).count();
            assert!(count <= 60, "{name}: {count} publications in a minute");
        }
        assert!(controller.members.values().all(|member| member.integral.is_finite()), "{name}");
    }
}

#[test]
fn a_backend_without_a_metric_has_its_configured_weight() {
    let (_, shape) = SHAPES[7];
    let mut controller = five();
    let mut of_the_first = Vec::new();
    for second in 0..120 {
        for key in 0..5 {
            if let Some(load) = shape(key, second) {
                controller.observe(key, load, at(second as f64));
            }
        }
        of_the_first.extend(controller.step(at(second as f64)).into_iter().filter(|(key, _)| *key == 0));
    }
    assert_eq!(of_the_first, [(0, 102_400)]);
}

#[test]
fn old_samples_are_not_used_and_then_forgotten() {
    let mut controller = five();
    for second in 0..60 {
        (0..5)
            .for_each(|key| controller.observe(key, if key == 0 { 1.2 } else { 0.4 }, at(f64::from(second))));
        controller.step(at(f64::from(second)));
    }
    let weight = |controller: &Controller<usize>| controller.published().next().unwrap().1;
    let learnt = weight(&controller);
    assert!(learnt < 40_000, "{learnt}");
    // Four seconds without samples: what was learnt stays, the proportional part goes.
    for second in 60..64 {
        controller.step(at(f64::from(second)));
    }
    let held = controller.members[&0].integral;
    controller.step(at(88.0));
    assert!(weight(&controller) > learnt && (controller.members[&0].integral - held).abs() < 1e-12);
    controller.step(at(90.0));
    assert_eq!(weight(&controller), 102_400);
    assert!(controller.published().all(|(_, weight)| weight == 102_400));
}

#[test]
fn slow_start_follows_recovery_and_addition_but_not_the_agents_own_start() {
    let mut controller = five();
    controller.step(at(0.0));
    let mut joined: Vec<_> = (0..6).map(|key| Member { key, configured: 100 }).collect();
    controller.set_members(&joined, at(10.0));
    assert_eq!(controller.step(at(10.0)), [(5, 0)], "not a candidate before it is up");
    controller.health(5, true, at(11.0), false);
    for (seconds, expected) in [
        (11.0, Some(10_240)),
        (11.5, None),
        (14.0, None),
        (15.0, Some(13_653)),
        (26.0, Some(51_200)),
        (40.9, Some(102_059)),
        (42.0, None),
    ] {
        let published = controller.step(at(seconds));
        assert_eq!(published.first().copied(), expected.map(|weight| (5, weight)), "at {seconds}");
        assert!(published.len() <= 1, "the others' weights do not move");
    }
    controller.health(5, false, at(50.0), false);
    assert_eq!(controller.step(at(50.0)), [(5, 0)]);
    controller.health(5, true, at(60.0), false);
    assert_eq!(controller.step(at(60.0)), [(5, 10_240)]);
    joined.truncate(5);
    controller.set_members(&joined, at(61.0));
    assert_eq!(controller.step(at(62.0)), []);
}

#[test]
fn whoever_comes_back_where_nobody_serves_comes_at_once() {
    let mut controller = five();
    controller.step(at(0.0));
    (0..5).for_each(|key| controller.health(key, false, at(0.1), false));
    assert_eq!(controller.step(at(0.1)).len(), 5);
    // Two return together; the third finds that somebody serves again.
    (0..2).for_each(|key| controller.health(key, true, at(0.2), false));
    let back = controller.step(at(0.2));
    assert_eq!(back, [(0, 10_240), (1, 10_240)]);
    controller.health(2, true, at(0.3), false);
    assert_eq!(controller.step(at(0.3)), []);
}

#[test]
fn a_dead_backend_is_published_at_once_and_its_return_waits_its_turn() {
    let mut controller = five();
    controller.step(at(0.0));
    controller.health(2, false, at(0.1), false);
    assert_eq!(controller.step(at(0.1)), [(2, 0)]);
    assert_eq!(controller.step(at(0.2)), []);
    controller.health(2, true, at(0.5), true);
    assert_eq!(controller.step(at(1.9)), []);
    assert_eq!(controller.step(at(2.0)), [(2, 102_400)]);
}

#[test]
fn configured_weights_are_followed_exactly() {
    let mut controller = five();
    controller.step(at(0.0));
    let weights = [0, 1, 99, 102, 1_000];
    let members: Vec<_> = (0..5).map(|key| Member { key, configured: weights[key] }).collect();
    controller.set_members(&members, at(5.0));
    let expected: Vec<_> = (0..5).map(|key| (key, weights[key] * UNIT)).collect();
    assert_eq!(controller.step(at(5.0)), expected);
    controller.observe(0, 0.1, at(6.0));
    assert_eq!(controller.step(at(6.0)), [], "0 stays 0");
}

#[test]
fn a_clock_that_jumps_moves_no_weight_by_more_than_three_steps_and_blocks_nothing() {
    for jump in [0.0, 200.0, 86_400.0] {
        let mut controller = five();
        for second in 100..130 {
            (0..5).for_each(|key| controller.observe(key, key as f64 / 4.0, at(f64::from(second))));
            controller.step(at(f64::from(second)));
        }
        let before = controller.members[&4].integral;
        (0..5).for_each(|key| controller.observe(key, key as f64 / 4.0, at(jump)));
        controller.step(at(jump));
        let after = controller.members[&4].integral;
        assert!(after >= before * 0.80, "{before} became {after}");
        controller.health(0, false, at(jump + 1.0), false);
        assert_eq!(controller.step(at(jump + 1.0)).iter().find(|(key, _)| *key == 0), Some(&(0, 0)));
        controller.health(0, true, at(jump + 1.0), true);
        assert!(controller.step(at(jump + 3.1)).iter().any(|(key, weight)| *key == 0 && *weight > 0));
    }
}

/// The weights that the controller would publish without a dead band and a rhythm.
fn targets(controller: &Controller<usize>, now: Moment) -> Vec<u32> {
    let factors = controller.factors(now);
    controller
        .members
        .values()
        .zip(factors)
        .map(|(m, factor)| m.weight(factor, &controller.tuning, now))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn of_two_backends_the_one_with_more_load_never_weighs_more(
        loads in proptest::collection::vec(proptest::collection::vec(0.0_f64..3.0, 5), 1..60), more in 0.0_f64..2.0
    ) {
        let mut controller = five();
        let mut published = [102_400_u32; 5];
        for (second, loads) in (0_u32..).zip(&loads) {
            let now = at(f64::from(second));
            for (key, load) in loads.iter().enumerate() {
                let load = if key == 1 { loads[0] + more } else { *load };
                controller.observe(key, load, now);
            }
            for (key, weight) in controller.step(now) {
                published[key] = weight;
            }
            let target = targets(&controller, now);
            prop_assert!(target[1] <= target[0], "{:?}", target);
            // What is published may lag behind by the dead band on either side.
            prop_assert!(f64::from(published[1]) * 0.95 <= f64::from(published[0]) * 1.05 + 1.0);
        }
    }

    #[test]
    fn a_higher_sample_never_gives_a_higher_weight(
        history in proptest::collection::vec(proptest::collection::vec(0.0_f64..2.0, 5), 0..20),
        sample in 0.0_f64..3.0, more in 0.0_f64..3.0
    ) {
        let mut one = five();
        for (second, loads) in (0_u32..).zip(&history) {
            (0..5).for_each(|key| one.observe(key, loads[key], at(f64::from(second))));
            one.step(at(f64::from(second)));
        }
        let now = at(history.len() as f64);
        let mut other = one.clone();
        one.observe(0, sample, now);
        other.observe(0, sample + more, now);
        one.step(now);
        other.step(now);
        prop_assert!(targets(&other, now)[0] <= targets(&one, now)[0]);
    }

    #[test]
    fn zero_means_down_or_configured_so_and_somebody_always_serves(
        steps in proptest::collection::vec((0_usize..5, 0_u8..4, 0.0_f64..5.0, 1_u64..5_000), 1..150)
    ) {
        let mut controller = five();
        let mut up = [true; 5];
        let mut now = Moment::START;
        let mut down_since_published = [false; 5];
        for (key, what, load, pause) in steps {
            now += Duration::from_millis(pause);
            match what {
                0 => { up[key] = false; controller.health(key, false, now, false); }
                1 => { up[key] = true; controller.health(key, true, now, load > 2.0); }
                _ => controller.observe(key, load, now),
            }
            for (key, weight) in controller.step(now) {
                prop_assert_eq!(weight == 0, !up[key]);
                down_since_published[key] = weight == 0;
            }
            // Nothing that is down keeps a weight, and a return waits for its turn at most two intervals.
            prop_assert!((0..5).all(|key| up[key] || down_since_published[key]));
        }
        let later = now + Duration::from_secs(400);
        controller.step(later);
        let sum: u64 = controller.published().map(|(_, weight)| u64::from(weight)).sum();
        prop_assert_eq!(sum > 0, up.contains(&true));
    }
}
