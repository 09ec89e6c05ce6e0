//! Ctrl-C as a flag, so that the demo's destructors run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Whether somebody wants the demo to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Raised by ctrl-C, SIGTERM or the loss of the terminal; a second one ends the process at once, and the
    /// kernel the lab with it. Call it before any thread is started: threads inherit which signals they leave
    /// to others. Child processes do not, the standard library unblocks all signals for them.
    pub fn on_signals() -> nix::Result<Self> {
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block()?;
        let interrupt = Self::default();
        let raised = interrupt.clone();
        thread::spawn(move || {
            while signals.wait().is_ok() {
                if raised.0.swap(true, Ordering::Relaxed) {
                    std::process::exit(130);
                }
            }
        });
        Ok(interrupt)
    }

    /// Whether it has been raised.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
