//! The one home of `spawn`: whoever starts a task holds its handle and sees how it ended.

use std::future::Future;

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
