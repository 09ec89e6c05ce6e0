//! Numbers for what the agent watches: each is given once.
//!
//! Places in a list change with every reload, and names come back with another address. A probe's result that is still on
//! its way when its target has gone must not be taken for another's.

/// A number that nothing else has, or ever had, in this agent's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

/// Who gives them.
#[derive(Debug, Default)]
pub struct Keys(u64);

impl Keys {
    /// The next one.
    pub fn next(&mut self) -> Key {
        self.0 += 1;
        Key(self.0)
    }
}
