//! The one home of `spawn`: whoever starts a task or a thread holds its handle and sees how it
//! ended.

use std::future::Future;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Starts a task on the current runtime. A panic in it surfaces when the handle is awaited.
#[expect(clippy::disallowed_methods, reason = "this is the one home of spawn")]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// A thread under way.
#[derive(Debug)]
pub struct Thread<T> {
    result: oneshot::Receiver<T>,
    name: String,
}

/// Starts a thread with a name.
///
/// # Errors
/// When the system has none.
pub fn thread<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<Thread<T>> {
    let (send, result) = oneshot::channel();
    let run = move || drop(send.send(work()));
    // A panic drops the sender, which shows at the receiver.
    drop(std::thread::Builder::new().name(name.clone()).spawn(run)?);
    Ok(Thread { result, name })
}

impl<T> Thread<T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn join(self) -> anyhow::Result<T> {
        self.result.await.with_context(|| format!("the thread '{}' panicked", self.name))
    }
}
