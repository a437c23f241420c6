//! The terms of routes as the file writes them: names, shares, keys, versions, pinned buckets.

use http::HeaderName;
use toml::Value;

use super::{Sticky, VersionChoice};
use crate::config::value::FromToml;
use crate::types::{ArmName, BUCKETS, ModelName, Share, Version};

/// Longest name of a parameter, and longest version of an upstream, in bytes.
const MAX_WORD: usize = 64;

impl FromToml for ModelName {
    fn from_toml(value: &Value) -> Result<Self, String> {
        String::from_toml(value)?.parse().map_err(|error| format!("{error}"))
    }
}

impl FromToml for ArmName {
    fn from_toml(value: &Value) -> Result<Self, String> {
        String::from_toml(value)?.parse()
    }
}

impl FromToml for Share {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let Some(text) = value.as_str() else {
            return Err(format!("must be a share such as \"5%\", is {}", value.type_str()));
        };
        text.parse()
    }
}

impl FromToml for Sticky {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        if let Some(name) = text.strip_prefix("header:") {
            let name = name.parse::<HeaderName>();
            return name
                .map(Self::Header)
                .map_err(|_| format!("is \"{text}\", which names no header"));
        }
        if let Some(name) = text.strip_prefix("parameter:") {
            return if is_word(name) {
                Ok(Self::Parameter(name.to_owned()))
            } else {
                Err(format!("is \"{text}\", which names no parameter"))
            };
        }
        match text.as_str() {
            "off" => Ok(Self::Off),
            "identity" => Ok(Self::Identity),
            other => Err(format!(
                "is \"{other}\", must be \"header:NAME\", \"parameter:NAME\", \"identity\" or \
                 \"off\""
            )),
        }
    }
}

impl FromToml for VersionChoice {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = version_text(value)?;
        if text == "latest" {
            return Ok(Self::Latest);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse::<Version>().map(Self::Number);
            return number.map_err(|_| format!("is \"{text}\": versions are numbers from 1"));
        }
        let label = text.parse::<ArmName>().map_err(|_| {
            format!("is \"{text}\", must be a number, a label of [labels] or \"latest\"")
        })?;
        Ok(Self::Label(label.into()))
    }
}

/// The version of a model of an upstream, whose names are its own.
pub(super) struct RemoteVersion(pub Option<String>);

impl FromToml for RemoteVersion {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = version_text(value)?;
        if text == "latest" {
            return Ok(Self(None));
        }
        if is_word(&text) {
            return Ok(Self(Some(text)));
        }
        Err(format!(
            "is \"{text}\", must be 1 to {MAX_WORD} letters, digits, '-', '_' or '.', or \"latest\""
        ))
    }
}

fn version_text(value: &Value) -> Result<String, String> {
    let text = value.as_str().map(str::to_owned);
    text.ok_or_else(|| format!("must be text such as \"1\", is {}", value.type_str()))
}

/// Pinned ranges of buckets, sorted.
pub(super) struct Pins(pub Vec<(u16, u16)>);

impl FromToml for Pins {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for (index, pair) in Vec::<Vec<u64>>::from_toml(value)?.into_iter().enumerate() {
            let bucket = |number: u64| u16::try_from(number).ok().filter(|n| *n <= BUCKETS);
            let ends = match pair.as_slice() {
                [from, to] => bucket(*from).zip(bucket(*to)).filter(|(from, to)| from < to),
                _ => None,
            };
            pairs.push(ends.ok_or_else(|| {
                format!("item {index} must be [FROM, TO], two rising numbers from 0 to {BUCKETS}")
            })?);
        }
        pairs.sort_unstable();
        match pairs.windows(2).find(|two| two[0].1 > two[1].0) {
            Some(two) => Err(format!("has bucket {} in two ranges", two[1].0)),
            None => Ok(Self(pairs)),
        }
    }
}

pub(in crate::config) fn is_word(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !text.is_empty() && text.len() <= MAX_WORD && text.bytes().all(fits)
}
