//! The words every module uses: names, calls, replies, signatures. No logic beyond checking
//! what a value must be.

pub mod call;
pub mod caller;
pub mod id;
pub mod key;
pub mod route;
pub mod schedule;
pub mod signature;

pub use call::{AnsweredBy, Call, Inputs, NamedTensor, Protocol, REPLAY_HEADER, REPLAYED, Timings};
pub use caller::{Caller, Certificate, Identity, Marks, Origin, Peer, Role, Roles, is_named};
pub use id::{ModelName, Version};
pub use key::IdempotencyKey;
pub use route::{ARM_HEADER, ArmName, BUCKETS, PredictionId, PredictionText, Share};
pub use schedule::{Deadline, Patience, Priority, Schedule};
pub use signature::{OrderedInputs, OutputSpec, Signature};
