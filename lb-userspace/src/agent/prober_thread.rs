//! The one thread that all probes run on.
//!
//! A probe is nine system calls and three short waits, so what it costs is mostly waking up. On a runtime of several
//! threads each wait ends with one thread that wakes another one, which then has nothing to do. On one thread, all probes
//! that have something to do at a moment do it before it sleeps again; a thousand a second leave it idle for most of the
//! time, and nothing that the agent does elsewhere, such as publishing or sweeping, delays a probe.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Runs tasks until it is dropped, which ends them in good order: monitors say goodbye to their servers.
#[derive(Debug)]
pub(super) struct ProberThread {
    handle: Handle,
    running: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl ProberThread {
    /// Starts the thread. Where there can be none, which is said, tasks run where the caller does.
    pub fn start() -> Self {
        Self::started().unwrap_or_else(|error| {
            log::warn!("probes get no thread of their own: {error}");
            Self { handle: Handle::current(), running: None }
        })
    }

    fn started() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let work = move || {
            // An error: the other end was dropped, which is the word to end.
            let _ = runtime.block_on(ended);
        };
        let thread = thread::Builder::new().name("probes".to_owned()).spawn(work)?;
        Ok(Self { handle, running: Some((end, thread)) })
    }

    /// Where to spawn tasks.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for ProberThread {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.running.take() {
            drop(end);
            let _ = thread.join();
        }
    }
}
