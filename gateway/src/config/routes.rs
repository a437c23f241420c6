//! `[[route]]`: which arm answers which callers, and what else sees their calls.

use std::time::Duration;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use crate::types::{ArmName, ModelName, Share, Version};

/// What clients call: a name that stands before the model of the same name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    pub name: ModelName,
    pub sticky: Sticky,
    /// Callers of routes with different salts are divided independently.
    pub salt: String,
    pub fallback: Fallback,
    /// Who may name an arm by `penstock-arm`: names of identities, a trailing `*` stands for any
    /// ending. Whoever has the role `operate` may always.
    pub testers: Vec<String>,
    pub arms: Vec<Arm>,
    pub shadows: Vec<Shadow>,
}

/// What keeps a caller with its arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// Nothing: each request is divided on its own, unless it brings a `penstock-key`.
    Off,
    Header(#[serde(with = "header")] HeaderName),
    /// A parameter of the request.
    Parameter(String),
    /// The name of the known caller.
    Identity,
}

/// What is answered where the assigned arm is broken, open or not loaded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// A clear refusal.
    Refuse,
    /// The answer of another arm.
    Arm(ArmName),
    /// These outputs, one item each; repeated for every row of the call.
    Static(Vec<StaticOutput>),
}

/// One output of a declared answer, as in the protocol's JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StaticOutput {
    pub name: String,
    pub datatype: String,
    /// Without the batch dimension.
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

/// One way in which calls of a route are answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    pub name: ArmName,
    pub target: Target,
    pub share: Share,
    /// Pinned half-open ranges of buckets; none: worked out from those before and the shares.
    pub buckets: Option<Vec<(u16, u16)>>,
}

/// Where an arm's or a shadow's answers come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    Local {
        model: ModelName,
        version: VersionChoice,
    },
    Upstream {
        upstream: String,
        model: String,
        /// The upstream's own choice without it.
        version: Option<String>,
    },
}

/// Which version of a local model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionChoice {
    /// The highest that serves.
    Latest,
    Number(Version),
    /// What `[labels]` of the model's `model.toml` says.
    Label(String),
}

/// A model that sees calls of a route and answers nobody.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shadow {
    pub name: ArmName,
    pub target: Target,
    /// Part of the callers whose calls it sees.
    pub sample: Share,
    /// Calls of it that may be under way.
    pub max_in_flight: usize,
    /// Bytes of inputs and live outputs that those may hold.
    pub max_bytes: usize,
    /// A call that has not been answered by then is given up.
    pub timeout: Duration,
}

mod header {
    use http::HeaderName;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(name: &HeaderName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(name.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeaderName, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}
