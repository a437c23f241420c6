//! Named tasks and threads. Nothing in the gateway runs without a name, and a task that panics
//! says so instead of vanishing.

use std::future::Future;
use std::io;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tracing::{Instrument, error, info_span, trace_span};

/// Spawns a task on the current runtime; a panic is logged under its name.
#[expect(clippy::disallowed_methods, reason = "this is the one home of spawn")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(guarded(name, future).instrument(info_span!("task", name)))
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

/// Lets other threads go first where they want the same core. On Linux niceness belongs to the
/// thread that asks, and cannot be taken back without rights.
///
/// # Errors
/// When the system refuses.
pub fn yield_to_others() -> io::Result<()> {
    const NICENESS: i32 = 10;
    Ok(rustix::process::setpriority_process(None, NICENESS)?)
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn only_the_thread_that_asks_yields() {
        let before = getpriority_process(None).unwrap();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let thread = thread("nice", move || {
            yield_to_others().unwrap();
            tell.send(getpriority_process(None).unwrap()).unwrap();
        });
        thread.unwrap().join().unwrap();
        assert_eq!(told.recv(), Ok(10));
        assert_eq!(getpriority_process(None).unwrap(), before);
    }
}
