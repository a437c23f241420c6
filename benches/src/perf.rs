//! Where the time of a process goes: samples of `perf`, attributed to the stages of a call.
//!
//! A sample belongs to the innermost function on its stack that a stage claims, so that a copy or
//! an allocation counts for the stage that asked for it.
