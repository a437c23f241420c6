//! One prediction call and its answer, free of any wire.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::Tensor;
use http::HeaderMap;
use tokio::time::Instant;

use super::{Caller, IdempotencyKey, Schedule, Version};

/// The recorded prediction that a replay asks for anew.
pub const REPLAY_HEADER: &str = "penstock-replay";
/// What the ids of calls begin with that replays make, before that of the recorded prediction.
pub const REPLAYED: &str = "replay-";

/// Which door a call came through; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// A tensor with the name its sender gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTensor {
    pub name: String,
    pub tensor: Tensor,
}

/// The inputs of a call as its wire gave them. Clones share the bytes of tensors.
#[derive(Debug, Clone)]
pub enum Inputs {
    Named(Vec<NamedTensor>),
    /// The bare bytes of the only input of the model, one item.
    Raw(Bytes),
}

impl Inputs {
    /// Items, as far as they can be told without a signature: dimension 0 of the first tensor.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Named(inputs) => {
                inputs.first().and_then(|input| input.tensor.shape().first()).copied().unwrap_or(1)
            }
            Self::Raw(_) => 1,
        }
    }

    /// Bytes of all tensors.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Named(inputs) => inputs.iter().map(|input| input.tensor.data().len()).sum(),
            Self::Raw(bytes) => bytes.len(),
        }
    }
}

/// A decoded prediction call.
#[derive(Debug)]
pub struct Call {
    pub caller: Caller,
    /// What the caller calls the request; `None` where it has no name, or nobody keeps it.
    pub id: Option<Box<str>>,
    pub model: String,
    /// Empty or absent: the gateway picks.
    pub version: Option<String>,
    pub inputs: Inputs,
    /// Names of the wanted outputs; empty means all.
    pub outputs: Vec<String>,
    pub schedule: Schedule,
    /// Marks repeats of one call, which run once.
    pub key: Option<IdempotencyKey>,
    pub protocol: Protocol,
    /// When the request's head had been read.
    pub arrived: Instant,
    /// As the request had them: what routes read.
    pub headers: Arc<HeaderMap>,
    /// Parameters of the request that the protocol gives no meaning.
    pub parameters: Vec<(String, String)>,
}

/// What answered a call, as answers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnsweredBy {
    Version(Version),
    /// A version elsewhere, in the words of the server that has it.
    Remote(Arc<str>),
    /// Nothing ran: a declared answer.
    Declared,
}

impl Call {
    /// A parameter by its name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for AnsweredBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Remote(version) => f.write_str(version),
            Self::Declared => f.write_str("static"),
        }
    }
}

/// Where the time of one call went, and how many items shared it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting for an engine thread.
    pub queue: Duration,
    /// Copying inputs into the engine.
    pub input: Duration,
    /// The forward pass of the whole batch.
    pub infer: Duration,
    /// Copying outputs out of the engine.
    pub output: Duration,
    /// Items of all calls that ran together: of the largest batch, where the call was divided;
    /// 0 where it did not run here.
    pub batch: u32,
}
