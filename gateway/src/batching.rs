//! From many calls to one engine run and back.
//!
//! A [`Queue`] admits the calls of one model version; what waits is kept by shape, and several
//! shapes share a batch where a model says how to pad them. The engine threads of a device form a [`Pool`]; a free one
//! takes the most urgent batch of all versions (`scheduler`), so batches form while engines are
//! busy and an idle engine waits for nothing. A watchdog gives up threads that stay in native
//! code past the time limit.

mod variable;
mod settings;
mod side;
mod sync;
mod reply;
mod load;
mod waiting;
mod job;
mod probe;
mod stuck;
mod judge;
mod size;
mod cost;
mod bucket;
mod queue;
mod admission;
mod running;
mod assembly;
mod scheduler;
mod pool;
mod runner;
mod worker;
mod handover;

pub use handover::attach;
pub use job::{Done, Failure};
pub use judge::Guard;
pub use pool::{Device, Pool, Threads};
pub use queue::{ExecutionStats, Queue};
pub use settings::QueueSettings;
pub use stuck::StuckThreads;
pub use variable::VariableLength;
pub use waiting::Waiting;

#[cfg(test)]
mod tests;
