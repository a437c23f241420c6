//! Somebody else on the machine who takes what time is left and does nothing with it: what that
//! costs callers, no gateway can prevent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, ensure};
use thread_priority::unix::{
    NormalThreadSchedulePolicy::Idle, set_thread_priority_and_policy, thread_native_id,
    thread_schedule_policy,
};
use thread_priority::{ThreadPriority, ThreadSchedulePolicy::Normal};

/// A thread that spins, and yields to all others, until it is dropped.
#[derive(Debug)]
pub(super) struct Spinner {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<bool>>,
}

impl Spinner {
    pub(super) fn start() -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let spin = move || {
            let (id, policy) = (thread_native_id(), Normal(Idle));
            // In a process that is nice already it fails, and has its effect.
            drop(set_thread_priority_and_policy(id, ThreadPriority::Min, policy));
            let yields = matches!(thread_schedule_policy(), Ok(Normal(Idle)));
            while yields && !stopped.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
            yields
        };
        let thread = std::thread::Builder::new().name("spinner".to_owned()).spawn(spin);
        Ok(Self { stop, thread: Some(thread.context("a thread that spins")?) })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the system did not let it yield.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        ensure!(matches!(ended, Some(Ok(true))), "the spinner did not yield to others");
        Ok(())
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spinner_yields_to_others_and_ends() {
        Spinner::start().unwrap().stop().unwrap();
    }
}
