//! What single values of `[prediction_log]` say.

use std::path::{Path, PathBuf};

use http::HeaderName;
use serde::{Serialize, Serializer};
use toml::Value;

use crate::config::value::FromToml;

/// Longest name of a slice, in bytes.
const MAX_NAME: usize = 128;

/// What callers prove themselves with, which is in no log.
pub const SECRET_HEADERS: [HeaderName; 5] = [
    http::header::AUTHORIZATION,
    http::header::PROXY_AUTHORIZATION,
    http::header::COOKIE,
    http::header::SET_COOKIE,
    HeaderName::from_static("x-api-key"),
];

/// A header or parameter by which rows are told apart; written `header:x-region` or
/// `parameter:tenant`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    pub source: SliceSource,
}

/// Where the value of a slice is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SliceSource {
    Header(HeaderName),
    Parameter(String),
}

/// Where the key of hashes is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    /// The name of an environment variable.
    Env(String),
    File(PathBuf),
}

impl HashKey {
    /// With a relative path taken to start at `base`.
    pub(super) fn beside(self, base: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(base.join(path)),
            Self::Env(name) => Self::Env(name),
        }
    }
}

impl Slice {
    /// What it is called in rows.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.source {
            SliceSource::Header(name) => name.as_str(),
            SliceSource::Parameter(name) => name,
        }
    }
}

impl Serialize for Slice {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let kind = match self.source {
            SliceSource::Header(_) => "header",
            SliceSource::Parameter(_) => "parameter",
        };
        to.collect_str(&format_args!("{kind}:{}", self.name()))
    }
}

impl FromToml for Slice {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        let source = match text.split_once(':') {
            Some(("header", name)) => name.parse().ok().map(SliceSource::Header),
            Some(("parameter", name)) if !name.is_empty() => {
                Some(SliceSource::Parameter(name.to_owned()))
            }
            _ => None,
        };
        if let Some(SliceSource::Header(name)) = &source
            && SECRET_HEADERS.contains(name)
        {
            return Err(format!("is \"{text}\", which holds secrets"));
        }
        let slice = source.map(|source| Self { source });
        slice
            .filter(|slice| slice.name().len() <= MAX_NAME)
            .ok_or_else(|| format!("is \"{text}\", must be \"header:NAME\" or \"parameter:NAME\""))
    }
}

impl FromToml for HashKey {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            // Somebody may have written the key itself.
            _ => Err("must be \"env:NAME\" or \"file:PATH\"".to_owned()),
        }
    }
}
