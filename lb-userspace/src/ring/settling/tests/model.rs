//! Random changes, packets, failures to record, sweeps and restarts against connections that know where they belong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SLOTS: u32 = 4;
const BACKENDS: u16 = 4;

/// A connection as its two ends see it.
#[derive(Debug)]
struct Connection {
    slot: u32,
    backend: u16,
    spoke: Moment,
}

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    /// Owners by slot, and the backends that are down, as bits.
    Change(Vec<u16>, u8),
    Open {
        slot: u32,
        recorded: bool,
    },
    Speak {
        which: usize,
        recorded: bool,
    },
    Sweep,
    Restart,
}

/// The kernel's half by its definition, the agent's half as it is, and the truth.
struct World {
    now: Moment,
    ring: Settling,
    /// What the kernel reads.
    words: Vec<u32>,
    /// By connection: slot, backend and last packet.
    table: BTreeMap<usize, (u32, u16, Moment)>,
    connections: BTreeMap<usize, Connection>,
    opened: usize,
}

impl World {
    fn new() -> Self {
        let ring = Settling::new(&[A; SLOTS as usize], IDLE);
        Self {
            now: second(1),
            words: ring.words(),
            ring,
            table: BTreeMap::new(),
            connections: BTreeMap::new(),
            opened: 0,
        }
    }

    /// Where the kernel sends a packet of a connection.
    fn packet(&mut self, number: usize, slot: u32, opens: bool, can_record: bool) -> u16 {
        let Slot { cur, prev, settled } = Slot::read(self.words[slot as usize]);
        if settled {
            return cur;
        }
        let entry = self.table.get(&number).map(|(_, backend, _)| *backend);
        let backend = match entry {
            Some(backend) => backend,
            None if opens && can_record => cur,
            None => prev,
        };
        if entry.is_none() && !can_record {
            self.ring.recording_failed(self.now);
        } else if backend != 0 {
            self.table.insert(number, (slot, backend, self.now));
        }
        backend
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait(seconds) => self.now += Duration::from_secs(seconds),
            Step::Change(wanted, down) => self.change(&wanted, down),
            Step::Open { slot, recorded } => {
                let number = self.opened;
                self.opened += 1;
                let backend = self.packet(number, slot, true, recorded);
                if backend != 0 {
                    self.connections.insert(number, Connection { slot, backend, spoke: self.now });
                }
            }
            Step::Speak { which, recorded } => self.speak(which, recorded),
            Step::Sweep => self.sweep(),
            Step::Restart => {
                self.ring = Settling::adopted(&self.words[..SLOTS as usize], IDLE, self.now);
            }
        }
        let now = self.now;
        self.connections.retain(|_, connection| now.since(connection.spoke) < IDLE);
    }

    fn change(&mut self, wanted: &[u16], down: u8) {
        let gone = |id: u16| down >> id & 1 == 1;
        let wanted: Vec<u16> = wanted.iter().map(|id| if gone(*id) { 0 } else { *id }).collect();
        let changed = match self.ring.change(&wanted, gone, self.now) {
            Ok(changed) => changed,
            Err(refused) => {
                assert_eq!(refused, Refused::TooSoon { until: self.ring.next_change() });
                return;
            }
        };
        assert_eq!(changed, self.words != self.ring.words());
        self.words = self.ring.words();
        self.connections.retain(|_, connection| !gone(connection.backend));
    }

    fn speak(&mut self, which: usize, recorded: bool) {
        let Some((&number, connection)) = self.connections.iter().nth(which) else { return };
        let (slot, home) = (connection.slot, connection.backend);
        let backend = self.packet(number, slot, false, recorded);
        assert_eq!(backend, home, "connection {number} in slot {slot}: {:?}", self.ring.slot(slot));
        if let Some(connection) = self.connections.get_mut(&number) {
            connection.spoke = self.now;
        }
    }

    fn sweep(&mut self) {
        let now = self.now;
        self.table.retain(|_, (_, _, spoke)| now.since(*spoke) < IDLE);
        let elsewhere = |slot: u32| {
            let cur = Slot::read(self.words[slot as usize]).cur;
            self.table.values().any(|(of, backend, _)| *of == slot && *backend != cur)
        };
        let held: BTreeSet<u32> = (0..SLOTS).filter(|slot| elsewhere(*slot)).collect();
        let due = self.ring.is_due(now);
        let settled = self.ring.settle(&held, now);
        assert!(due || settled.is_empty());
        for slot in settled {
            assert!(!held.contains(&slot));
            self.words[slot as usize] = self.ring.slot(slot).unwrap().word();
        }
        assert_eq!(self.words, self.ring.words());
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![0_u64..3, 0_u64..70].prop_map(Step::Wait),
        3 => (prop::collection::vec(0..=BACKENDS, SLOTS as usize), prop_oneof![3 => Just(0), 1 => 0_u8..32])
            .prop_map(|(wanted, down)| Step::Change(wanted, down)),
        4 => (0..SLOTS, prop::bool::weighted(0.8)).prop_map(|(slot, recorded)| Step::Open { slot, recorded }),
        6 => (0_usize..12, prop::bool::weighted(0.8)).prop_map(|(which, recorded)| Step::Speak { which, recorded }),
        2 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn unrecorded_always_means_prev_and_no_connection_moves(steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}
