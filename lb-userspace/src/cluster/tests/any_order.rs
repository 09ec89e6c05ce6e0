//! Whatever is observed, in whatever order, and however often the agent restarts.

use proptest::prelude::*;

use super::*;

fn any_signals() -> impl Strategy<Value = Signals> {
    let views = prop_oneof![
        Just(vec![0, 1, 2]),
        Just(vec![0, 1]),
        Just(vec![1, 2]),
        Just(vec![0]),
        Just(vec![2]),
        Just(vec![])
    ];
    let states = prop_oneof![5 => Just(4_u8), 1 => 0_u8..6];
    let rare = || proptest::bool::weighted(0.05);
    let uuid = prop_oneof![9 => Just(UUID), 1 => Just("another")];
    (views, 1_u64..8, states, any::<bool>(), (rare(), rare(), rare()), 0_u64..101, uuid).prop_map(
        |(members, conf_id, state, primary, (desync, read_only, rejects), connected, uuid)| Signals {
            primary: Some(primary),
            local_state: Some(state),
            desync,
            read_only,
            reject_queries: if rejects { RejectQueries::All } else { RejectQueries::None },
            threads_connected: Some(connected),
            state_uuid: Some(uuid.to_owned()),
            ..synced(conf_id, &members)
        },
    )
}

fn any_seen() -> impl Strategy<Value = Seen> {
    prop_oneof![
        8 => any_signals().prop_map(Seen::Sample),
        4 => (1_u64..4).prop_map(|conf_id| Seen::Sample(synced(conf_id, &[0, 1, 2]))),
        1 => Just(Seen::Saturated),
        1 => Just(Seen::MonitorDenied("1045".to_owned())),
        1 => Just(Seen::NotReady1047),
        1 => any::<bool>().prop_map(|confirmed| Seen::Refused { confirmed }),
        1 => (1_u32..5).prop_map(|failed_in_a_row| Seen::TimedOut { failed_in_a_row }),
    ]
}

#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Happens {
    Observed(usize, Seen),
    Waited,
    Restarted,
    Switched(Option<usize>),
    Accepted(usize),
    Frozen(bool),
}

fn anything() -> impl Strategy<Value = Vec<(Happens, u64)>> {
    let happens = prop_oneof![
        12 => (0_usize..3, any_seen()).prop_map(|(node, seen)| Happens::Observed(node, seen)),
        2 => Just(Happens::Waited),
        1 => Just(Happens::Restarted),
        1 => proptest::option::of(0_usize..3).prop_map(Happens::Switched),
        1 => (0_usize..3).prop_map(Happens::Accepted),
        1 => proptest::bool::weighted(0.3).prop_map(Happens::Frozen),
    ];
    proptest::collection::vec((happens, 0_u64..3_000), 1..80)
}

/// A node that may be used for something, even if only for want of a better one.
fn usable(cluster: &Cluster, node: usize) -> bool {
    let judgement = cluster.nodes()[node].judgement();
    match judgement.readiness {
        Readiness::Writer | Readiness::Reader => true,
        Readiness::NoNew => {
            matches!(judgement.reason, Reason::DesyncedByHand | Reason::Donor | Reason::Joined)
        }
        Readiness::Unknown | Readiness::Out => false,
    }
}

/// No set is empty by policy, none has a node that is out or not Primary.
fn sets_are_right(cluster: &Cluster, primary: [Option<bool>; 3]) -> Result<(), TestCaseError> {
    let anybody = (0..3).any(|node| usable(cluster, node));
    let beside = (0..3).any(|node| usable(cluster, node) && cluster.writer() != Some(node));
    for (policy, somebody) in
        [(WriterReads::Always, anybody), (WriterReads::LastResort, anybody), (WriterReads::Never, beside)]
    {
        let readers = cluster.readers(policy);
        prop_assert!(!somebody || readers.iter().any(|part| *part > 0.0), "{:?} {:?}", policy, readers);
        let sets = readers.iter().zip(cluster.writers()).enumerate();
        for (node, (reads, writes)) in sets {
            let judgement = cluster.nodes()[node].judgement();
            prop_assert!((0.0..=1.0).contains(reads) && (0.0..=1.0).contains(&writes));
            if judgement.readiness == Readiness::Out || primary[node] == Some(false) {
                prop_assert_eq!((*reads, writes), (0.0, 0.0), "{} is {:?}", node, judgement);
            }
            if judgement.readiness == Readiness::Reader {
                prop_assert!(writes.abs() < f64::EPSILON);
            }
        }
    }
    Ok(())
}

/// Saturation and what happens to others never take the role away.
fn harmless(happens: &Happens, writer: usize) -> bool {
    match happens {
        Happens::Observed(node, Seen::Saturated) => *node == writer,
        Happens::Restarted => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_writer_is_one_and_primary_and_moves_for_a_reason(history in anything()) {
        let mut cluster = Cluster::new(Policy::default(), three(), None, Moment::START);
        let mut now = Moment::START;
        // What each node said last about being Primary, over all restarts.
        let mut primary: [Option<bool>; 3] = [None; 3];
        let mut epoch = 0;
        for (happens, pause) in history {
            now += Duration::from_millis(pause);
            let before = cluster.writer();
            let outcome = match happens.clone() {
                Happens::Observed(node, result) => {
                    if let Seen::Sample(signals) = &result {
                        primary[node] = signals.primary;
                    }
                    cluster.observe(node, Observation { result, at: now })
                }
                Happens::Waited => cluster.tick(now),
                Happens::Switched(node) => cluster.switch(node, now).unwrap_or_default(),
                Happens::Accepted(node) => cluster.accept(node, now).unwrap_or_default(),
                Happens::Frozen(frozen) => {
                    cluster.freeze(frozen);
                    cluster.tick(now)
                }
                Happens::Restarted => {
                    let kept = cluster.incumbent().map(|incumbent| serde_json::to_string(incumbent).unwrap());
                    let restored = kept.map(|text| serde_json::from_str(&text).unwrap());
                    cluster = Cluster::new(Policy::default(), three(), restored, now);
                    cluster.tick(now)
                }
            };
            let writer = cluster.writer();
            sets_are_right(&cluster, primary)?;
            if let Some(writer) = writer {
                prop_assert_ne!(primary[writer], Some(false), "a writer that is not Primary");
                let incumbent = cluster.incumbent().unwrap();
                prop_assert_eq!(&incumbent.node, cluster.nodes()[writer].name());
                prop_assert!(incumbent.serving);
                prop_assert_ne!(cluster.nodes()[writer].judgement().readiness, Readiness::Out);
            }
            let elected: Vec<u64> = outcome.events.iter().filter_map(|event| match event {
                Event::WriterElected { epoch, .. } => Some(*epoch),
                _ => None,
            }).collect();
            // Every change of hands is one election with the next epoch, and nothing else is.
            prop_assert!(elected.len() <= 1);
            if let [elected] = elected[..] {
                prop_assert_eq!(elected, epoch + 1);
                epoch = elected;
            } else {
                prop_assert!(writer == before || writer.is_none());
            }
            if let Some(before) = before && harmless(&happens, before) {
                prop_assert_eq!(writer, Some(before), "{:?}", happens);
            }
            let mut asked: Vec<usize> = outcome.reprobe.iter().map(|reprobe| reprobe.node).collect();
            asked.sort_unstable();
            asked.dedup();
            prop_assert_eq!(asked.len(), outcome.reprobe.len());
            prop_assert!(outcome.wake.is_none_or(|wake| wake > now));
        }
    }

    #[test]
    fn flaps_of_the_others_never_move_a_healthy_writer(
        flaps in proptest::collection::vec((1_usize..3, 0_u8..7, 0_u64..2_000), 1..60)
    ) {
        let mut told = Told::healthy();
        let mut now = 1_000;
        let mut conf_id = 3;
        for (node, kind, pause) in flaps {
            now += pause;
            match kind {
                0 => told.hears(now, node, Seen::Refused { confirmed: true }),
                1 => told.hears(now, node, Seen::TimedOut { failed_in_a_row: 3 }),
                2 => told.hears(now, node, Seen::Saturated),
                3 => told.sees(now, node, isolated(99_999)),
                4 => told.sees(now, node, donor(conf_id, &[0, 1, 2])),
                5 => told.hears(now, node, Seen::NotReady1047),
                _ => {
                    // The membership changes, and the node is the first to know.
                    conf_id += 1;
                    told.sees(now, node, synced(conf_id, &[0, 1, 2]));
                }
            }
            told.sees(now, 0, synced(conf_id, &[0, 1, 2]));
            told.ticks(now);
            prop_assert_eq!(told.cluster.writer(), Some(0));
        }
        prop_assert_eq!(told.elections().len(), 1);
    }
}
