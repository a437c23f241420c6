//! From many calls to one engine run and back.
//!
//! A [`Queue`] holds the waiting calls of one model version. The engine threads of a device form
//! a [`Pool`]; a free one takes as many waiting calls of one queue as fit a batch, so batches
//! form while engines are busy and an idle engine waits for nothing. A watchdog gives up threads
//! that stay in native code past the time limit.

mod job;
mod pool;
mod queue;
mod running;
mod stuck;
mod worker;

pub use job::{Done, Failure};
pub use pool::{Device, Pool};
pub use queue::{ExecutionStats, Queue, QueueSettings};
pub use stuck::StuckThreads;

#[cfg(test)]
mod tests;
