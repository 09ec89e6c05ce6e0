//! Connections stay where they are while a ring changes under them.

use super::*;
use lb_common::ring::SAME;

mod model;

const IDLE: Duration = Duration::from_mins(1);
const A: u16 = 1;
const B: u16 = 2;
const C: u16 = 3;

fn second(number: u64) -> Moment {
    Moment::at(Duration::from_secs(number))
}

fn nobody(_: u16) -> bool {
    false
}

fn held(slots: &[u32]) -> BTreeSet<u32> {
    slots.iter().copied().collect()
}

fn unsettled(cur: u16, prev: u16) -> Slot {
    Slot { cur, prev, settled: false }
}

#[test]
fn a_sleeping_connection_over_two_swaps_stays_with_the_last_settled_owner() {
    let mut ring = Settling::new(&[A, A], IDLE);
    assert_eq!(ring.change(&[B, A], nobody, second(1)), Ok(true));
    assert_eq!(ring.change(&[C, A], nobody, second(2)), Ok(true));
    assert_eq!(ring.slot(0), Some(unsettled(C, A)));
    assert_eq!(ring.slot(1), Some(Slot::settled(A)));
    assert_eq!(ring.slot(2), None);
    assert_eq!(ring.words(), [0x1_0003, 0x1_0001, 0x1_0001, 0x3_0003], "two slots, then the members A and C");
}

#[test]
fn there_and_back_again_still_asks_the_table_for_the_connections_between() {
    let mut ring = Settling::new(&[A], IDLE);
    ring.change(&[B], nobody, second(1)).unwrap();
    ring.change(&[A], nobody, second(2)).unwrap();
    assert_eq!(ring.slot(0), Some(unsettled(A, A)));
    assert_eq!(ring.words()[0], u32::from(SAME) << 16 | u32::from(A));
    assert!(ring.settle(&held(&[0]), second(62)).is_empty(), "a connection of B is known");
    assert_eq!(ring.settle(&held(&[]), second(63)), [0]);
    assert_eq!(ring.slot(0), Some(Slot::settled(A)));
}

#[test]
fn unrecorded_connections_of_a_gone_backend_belong_to_the_present_owner() {
    let mut ring = Settling::new(&[A, A], IDLE);
    assert_eq!(ring.change(&[B, A], nobody, second(1)), Ok(true));
    // Both at once: the owner of one slot and the former owner of the other.
    assert_eq!(ring.change(&[B, C], |id| id == A, second(2)), Ok(true));
    assert_eq!((ring.slot(0), ring.slot(1)), (Some(unsettled(B, B)), Some(unsettled(C, C))));
    assert_eq!(ring.change(&[C, C], nobody, second(3)), Ok(true));
    assert_eq!(ring.slot(0), Some(unsettled(C, B)), "B is who strays went to meanwhile");
}

#[test]
fn a_drained_service_keeps_its_connections_and_takes_no_new_ones() {
    let mut ring = Settling::new(&[A, B], IDLE);
    assert_eq!(ring.change(&[], |id| id == B, second(1)), Ok(true));
    assert_eq!((ring.slot(0), ring.slot(1)), (Some(unsettled(0, A)), Some(unsettled(0, 0))));
    assert_eq!(ring.words().len(), 2, "nobody is no member");
    assert_eq!(ring.change(&[C, C], nobody, second(2)), Ok(true));
    assert_eq!((ring.slot(0), ring.slot(1)), (Some(unsettled(C, A)), Some(unsettled(C, C))));
}

#[test]
fn a_restart_while_unsettled_takes_the_slots_for_just_changed() {
    let mut before = Settling::new(&[A, A, A], IDLE);
    before.change(&[B, A, B], nobody, second(1)).unwrap();
    before.change(&[B, A, A], nobody, second(2)).unwrap();
    let mut after = Settling::adopted(&before.words()[..3], IDLE, second(50));
    for index in 0..3 {
        assert_eq!(after.slot(index), before.slot(index), "slot {index}");
    }
    assert_eq!(after.change(&[C, A, A], nobody, second(50)), Err(Refused::TooSoon { until: second(51) }));
    assert!(!after.is_due(second(109)));
    assert!(after.settle(&held(&[]), second(109)).is_empty());
    assert!(after.is_due(second(110)));
    assert_eq!(after.settle(&held(&[]), second(110)), [0, 2]);
    assert_eq!(after.unsettled(), 0);
}

#[test]
fn a_service_changes_once_a_second() {
    let mut ring = Settling::new(&[A], IDLE);
    assert_eq!(ring.next_change(), Moment::START);
    assert_eq!(ring.change(&[B], nobody, second(5)), Ok(true));
    let early = second(5) + Duration::from_millis(999);
    assert_eq!(ring.change(&[C], nobody, early), Err(Refused::TooSoon { until: second(6) }));
    assert_eq!(ring.slot(0), Some(unsettled(B, A)), "what is refused leaves no trace");
    assert_eq!(ring.change(&[B], nobody, early), Ok(false), "what changes nothing is never too soon");
    assert_eq!(ring.change(&[C], nobody, second(6)), Ok(true));
}

#[test]
fn a_ring_of_another_length_cannot_follow() {
    let mut ring = Settling::new(&[A, A], IDLE);
    assert_eq!(ring.change(&[A; 3], nobody, second(1)), Err(Refused::Length { length: 2, wanted: 3 }));
}

#[test]
fn a_slot_settles_after_the_idle_time_out_and_without_an_entry_of_another() {
    let mut ring = Settling::new(&[A, A, A], IDLE);
    ring.change(&[B, B, A], nobody, second(1)).unwrap();
    ring.change(&[B, C, A], nobody, second(10)).unwrap();
    for (began, elsewhere, expected) in [
        (60, vec![], vec![]),
        (61, vec![0], vec![]),
        (61, vec![1, 2], vec![0]),
        (69, vec![], vec![]),
        (70, vec![], vec![1]),
        (500, vec![], vec![]),
    ] {
        assert_eq!(ring.settle(&held(&elsewhere), second(began)), expected, "a sweep at {began} s");
    }
    assert_eq!(ring.words(), [0x2_0002, 0x3_0003, 0x1_0001, 0x1_0001, 0x2_0002, 0x3_0003]);
}

#[test]
fn a_full_table_over_a_swap_holds_up_settling() {
    let mut ring = Settling::new(&[A], IDLE);
    ring.change(&[B], nobody, second(1)).unwrap();
    ring.recording_failed(second(40));
    assert!(
        ring.settle(&held(&[]), second(99)).is_empty(),
        "who was not recorded at 40 s may speak until 100 s"
    );
    assert_eq!(ring.settle(&held(&[]), second(100)), [0]);
}

#[test]
fn a_shorter_time_out_does_not_shorten_the_wait_for_older_connections() {
    let mut ring = Settling::new(&[A], IDLE);
    ring.change(&[B], nobody, second(1)).unwrap();
    ring.set_idle(Duration::from_secs(10), second(20));
    assert!(ring.settle(&held(&[]), second(79)).is_empty());
    assert_eq!(ring.settle(&held(&[]), second(80)), [0]);
    ring.change(&[C], nobody, second(90)).unwrap();
    ring.set_idle(Duration::from_secs(30), second(91));
    assert!(ring.settle(&held(&[]), second(120)).is_empty());
    assert_eq!(ring.settle(&held(&[]), second(121)), [0]);
}
