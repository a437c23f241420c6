//! Named tasks and threads. Nothing in the gateway runs without a name, and a task that panics
//! says so instead of vanishing.

use std::future::Future;
use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::{Instrument, error, info_span, trace_span, warn};

/// How long work that yields to others may take before it no longer does.
const PATIENCE: Duration = Duration::from_millis(50);

/// Spawns a task on the current runtime; a panic is logged under its name.
#[expect(clippy::disallowed_methods, reason = "this is the one home of spawn")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(guarded(name, future).instrument(info_span!("task", name)))
}

/// A runtime that work can be handed to from others.
#[derive(Debug, Clone)]
pub struct Home(tokio::runtime::Handle);

impl Home {
    /// The runtime of the caller.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn here() -> Self {
        Self(tokio::runtime::Handle::current())
    }

    /// As [`spawn`], there.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.0.spawn(guarded(name, future).instrument(info_span!("task", name)))
    }
}

/// Like [`spawn`], for tasks that are polled with every request: their span exists at trace level
/// only, since every poll enters and leaves it.
#[expect(clippy::disallowed_methods, reason = "this is the one home of spawn")]
pub fn spawn_busy<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(guarded(name, future).instrument(trace_span!("task", name)))
}

async fn guarded<F: Future<Output = ()>>(name: &'static str, future: F) {
    if std::panic::AssertUnwindSafe(future).catch_unwind().await.is_err() {
        error!(task = name, "task panicked");
    }
}

/// Runs blocking work (files, hashing) away from the event loop and waits for it.
///
/// # Panics
/// When the work itself panicked; the panic is passed on to the waiting task.
#[expect(clippy::disallowed_methods, reason = "this is the one home of spawn_blocking")]
pub async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// As [`blocking`], for work of many milliseconds that calls in flight are not to feel: it is done
/// on a thread that yields to all others, and where those leave it no time, after a while, on one
/// that does not.
///
/// # Panics
/// As `blocking`.
pub async fn yielding<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: Fn() -> T + Send + Sync + 'static,
{
    blocking(move || {
        let work = Arc::new(work);
        let (sender, receiver) = mpsc::sync_channel(1);
        let yielding = work.clone();
        let started = thread("yielding", move || {
            if yield_to_others().is_ok() {
                // Whoever waited may have lost patience.
                drop(sender.send(yielding()));
            }
        });
        if let Err(error) = started {
            warn!(%error, "no thread for work that yields to others");
        }
        // A thread that did not start, or panicked, fails this at once.
        receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| work())
    })
    .await
}

/// From now on the calling thread runs only while no other thread of the system wants its
/// processor. There is no way back without privileges.
///
/// # Errors
/// When the system does not let it.
pub fn yield_to_others() -> io::Result<()> {
    use thread_priority::unix::{
        NormalThreadSchedulePolicy::Idle, set_thread_priority_and_policy, thread_native_id,
        thread_schedule_policy,
    };
    use thread_priority::{ThreadPriority, ThreadSchedulePolicy::Normal};
    let set = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, Normal(Idle));
    // In a process that is nice already, what comes behind the policy fails.
    match thread_schedule_policy() {
        Ok(Normal(Idle)) => Ok(()),
        _ => set.map_err(|error| io::Error::other(error.to_string())),
    }
}

/// From now on the calling thread gets a tenth of what others get where they want the same
/// processor: it is behind them, and never starved.
///
/// # Errors
/// When the system does not let it.
pub fn step_back() -> io::Result<()> {
    /// On Linux each step is a factor of 1.25: ten make 9.3 (`sched(7)`).
    const NICE: i32 = 10;
    // Process 0 is the calling thread alone (`setpriority(2)`, "C library/kernel differences").
    let current = rustix::process::getpriority_process(None)?;
    if current >= NICE {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, NICE)?)
}

/// Starts a named OS thread; it is never joined unless the caller does.
///
/// # Errors
/// When the system has no thread to give.
pub fn thread<F>(name: &str, run: F) -> io::Result<std::thread::JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    // The kernel keeps 15 bytes of a thread's name.
    std::thread::Builder::new().name(name.chars().take(15).collect()).spawn(run)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn work_that_gets_no_time_while_it_yields_is_done_without_yielding() {
        use thread_priority::ThreadSchedulePolicy::Normal;
        use thread_priority::unix::{NormalThreadSchedulePolicy as Policy, thread_schedule_policy};
        let (held, hold) = mpsc::sync_channel::<()>(0);
        let hold = std::sync::Mutex::new(hold);
        let tries = AtomicUsize::new(0);
        let policy = yielding(move || {
            let policy = thread_schedule_policy().unwrap();
            if tries.fetch_add(1, Ordering::SeqCst) == 0 {
                assert_eq!(policy, Normal(Policy::Idle));
                // As if others took all the time there is.
                assert!(hold.lock().unwrap().recv().is_err());
            }
            policy
        });
        assert_ne!(policy.await, Normal(Policy::Idle));
        drop(held);
    }

    #[tokio::test]
    async fn work_that_yields_to_others_comes_to_its_end() {
        assert_eq!(yielding(|| 6 * 7).await, 42);
    }

    #[test]
    fn a_thread_that_yields_to_others_is_idle_to_the_system_and_alone_in_it() {
        use thread_priority::ThreadSchedulePolicy::Normal;
        use thread_priority::unix::{NormalThreadSchedulePolicy as Policy, thread_schedule_policy};
        let body = || yield_to_others().map(|()| thread_schedule_policy().unwrap());
        let started = thread("idle", move || assert_eq!(body().unwrap(), Normal(Policy::Idle)));
        assert!(started.unwrap().join().is_ok());
        assert_ne!(thread_schedule_policy().unwrap(), Normal(Policy::Idle));
    }
}
