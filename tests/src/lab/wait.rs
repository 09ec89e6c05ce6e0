//! Waiting for conditions instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

use super::{Error, Result};

/// The pause between two looks at a condition.
const STEP: Duration = Duration::from_millis(10);

/// Looks at `condition` every 10 ms until it gives a value, at most for `timeout`. It is looked at once
/// more when the time is over, so a loaded machine that overslept does not fail a condition that is true.
pub fn wait_for<T>(what: &str, timeout: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        let over = start.elapsed() >= timeout;
        if let Some(value) = condition() {
            return Ok(value);
        }
        if over {
            return Err(Error::Timeout { what: what.to_owned(), waited: start.elapsed() });
        }
        thread::sleep(STEP);
    }
}
