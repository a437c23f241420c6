//! The prediction log: what is kept of calls, from their end to the segment files.

mod gate;

pub use gate::Gate;
