//! `[[route]]`: which arm answers which callers, and what else sees their calls.

pub(super) mod loops;
mod read;
mod shares;
mod terms;

use std::fmt;
use std::time::Duration;

use engine::{DataType, Tensor};

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::prediction_log::Guarantee;
use crate::codec::json;
use crate::types::{ArmName, ModelName, Share, Version};

pub(super) use read::bounded;
pub(super) use terms::is_word;

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
    /// How surely its calls are in the prediction log; `None`: as that says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<Guarantee>,
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

impl Sticky {
    /// As the file writes it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::Parameter(name) => format!("parameter:{name}"),
            Self::Identity => "identity".to_owned(),
        }
    }
}

impl Fallback {
    /// As the file writes it.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Refuse => "refuse",
            Self::Arm(name) => name.as_str(),
            Self::Static(_) => "static",
        }
    }
}

impl StaticOutput {
    /// The output for so many rows: repeated along a new first dimension, or as it is where
    /// `rows` is 0, for a model that does not batch.
    ///
    /// # Errors
    /// When the data does not fit type and shape, which the file is checked for.
    pub fn tensor(&self, rows: usize) -> Result<Tensor, String> {
        let datatype = self.datatype.parse().map_err(|error| format!("{error}"))?;
        let element = |number: &f64| match (datatype, number.to_string()) {
            (DataType::Bool, text) if text == "0" => "false".to_owned(),
            (DataType::Bool, text) if text == "1" => "true".to_owned(),
            (_, text) => text,
        };
        let elements: Vec<String> = self.data.iter().map(element).collect();
        let text = format!("[{}]", elements.join(","));
        let item = json::parse_data(&text, datatype, self.shape.clone())
            .map_err(|error| error.trim_start_matches("data: ").to_owned())?;
        if rows == 0 {
            return Ok(item);
        }
        let shape = [&[rows], item.shape()].concat();
        let data = item.data().repeat(rows).into();
        Tensor::new(datatype, shape, data).map_err(|error| error.to_string())
    }
}

impl fmt::Display for VersionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Number(version) => version.fmt(f),
            Self::Label(label) => f.write_str(label),
        }
    }
}

impl fmt::Display for Target {
    /// `MODEL/VERSION`, and what is elsewhere with the name of its upstream and a colon before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { model, version } => write!(f, "{model}/{version}"),
            Self::Upstream { upstream, model, version } => {
                write!(f, "{upstream}:{model}/{}", version.as_deref().unwrap_or("latest"))
            }
        }
    }
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

#[cfg(test)]
mod tests;
