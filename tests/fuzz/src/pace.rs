//! Who goes first: the place where a CPU may be held up between two accesses to shared words.
//!
//! A thread without a pace runs as it likes. With [`Pace::Random`] it gives way now and then, so that few cores show
//! many interleavings. With [`Pace::Baton`] only one thread runs at a time and the next one is drawn from a seed, so
//! that a run can be repeated exactly. The baton makes every access sequentially consistent: it shows what an order of
//! accesses does, not what a weaker memory model would.

use std::{
    cell::RefCell,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

/// A small generator of numbers (G. Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        lb_common::flow::mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// Whether it is one of `in_how_many`.
    pub fn one_in(&mut self, in_how_many: u64) -> bool {
        self.below(in_how_many) == 0
    }
}

/// How a thread walks through shared memory.
pub enum Pace {
    /// It gives way to whoever wants to run, once in so many accesses.
    Random(Dice, u64),
    /// It runs only while it holds the baton; its number among the runners.
    Baton(Arc<Baton>, usize),
}

thread_local! {
    static PACE: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

/// Walk at this pace from now on, in this thread.
pub fn walk(pace: Option<Pace>) {
    PACE.set(pace);
}

/// An access to a shared word follows.
pub fn step() {
    PACE.with_borrow_mut(|pace| match pace {
        None => {}
        Some(Pace::Random(dice, rarity)) => give_way(dice.one_in(*rarity)),
        Some(Pace::Baton(baton, runner)) => baton.pass(*runner),
    });
}

fn give_way(now: bool) {
    if now {
        std::thread::yield_now();
    }
}

/// One baton for several threads: who holds it runs.
pub struct Baton {
    turn: Mutex<Turn>,
    changed: Condvar,
}

struct Turn {
    holder: usize,
    running: Vec<bool>,
    order: Order,
}

/// Who gets the baton when.
#[derive(Clone, Debug)]
pub enum Order {
    /// Anybody, once in so many accesses.
    Drawn(Dice, u64),
    /// These runners for so many accesses each, last turn first; then nobody gets it who is not alone.
    Written(Vec<(usize, u64)>),
}

impl Baton {
    /// A baton for so many runners.
    fn new(runners: usize, order: Order) -> Self {
        let mut turn = Turn { holder: 0, running: vec![true; runners], order };
        turn.begin();
        Self { turn: Mutex::new(turn), changed: Condvar::new() }
    }

    /// Pass it on when it is time to; returns when this runner holds it.
    fn pass(&self, runner: usize) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while turn.holder != runner {
            turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
        if turn.is_over() {
            self.changed.notify_all();
            while turn.holder != runner {
                turn = self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// This runner is done, by its own will or by a panic.
    fn retire(&self, runner: usize) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.running[runner] = false;
        if turn.holder == runner {
            turn.choose();
        }
        self.changed.notify_all();
    }
}

impl Turn {
    /// The first holder.
    fn begin(&mut self) {
        match &mut self.order {
            Order::Drawn(..) => self.choose(),
            Order::Written(turns) => self.holder = turns.last().map_or(0, |(runner, _)| *runner),
        }
    }

    /// Whether somebody else may hold it now; an access has been made.
    fn is_over(&mut self) -> bool {
        match &mut self.order {
            Order::Drawn(dice, rarity) => {
                let over = dice.one_in(*rarity);
                if over {
                    self.choose();
                }
                over
            }
            Order::Written(turns) => {
                let Some((_, left)) = turns.last_mut() else { return false };
                *left = left.saturating_sub(1);
                if *left > 0 {
                    return false;
                }
                turns.pop();
                self.choose();
                true
            }
        }
    }

    /// The next holder: one of those that still run.
    fn choose(&mut self) {
        let running: Vec<usize> = (0..self.running.len()).filter(|runner| self.running[*runner]).collect();
        if running.is_empty() {
            return;
        }
        self.holder = match &mut self.order {
            Order::Drawn(dice, _) => running[dice.below(running.len() as u64) as usize],
            Order::Written(turns) => match turns.last() {
                Some((runner, _)) if self.running[*runner] => *runner,
                _ => *running.last().unwrap_or(&0),
            },
        };
    }
}

/// Retires its runner when it is dropped, so that the others go on after a panic too.
struct Runner(Arc<Baton>, usize);

impl Drop for Runner {
    fn drop(&mut self) {
        walk(None);
        self.0.retire(self.1);
    }
}

/// Run CPUs side by side, one at a time, in this order. Panics if one of them does.
pub fn race<'a>(order: Order, cpus: Vec<Box<dyn FnOnce() + Send + 'a>>) {
    let baton = Arc::new(Baton::new(cpus.len(), order));
    std::thread::scope(|scope| {
        for (number, cpu) in cpus.into_iter().enumerate() {
            let baton = Arc::clone(&baton);
            scope.spawn(move || {
                let runner = Runner(Arc::clone(&baton), number);
                walk(Some(Pace::Baton(baton, number)));
                step();
                cpu();
                drop(runner);
            });
        }
    });
}
