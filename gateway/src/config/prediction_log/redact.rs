//! `[[prediction_log.redact]]`: what never reaches a disk as it came.

use serde::Serialize;
use toml::Value;

use super::PredictionLog;
use super::terms::SliceSource;
use crate::config::reader::Section;
use crate::config::routes::bounded;
use crate::config::value::FromToml;

const MAX_RULES: usize = 1000;

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redact {
    pub field: Field,
    pub how: How,
    /// The only model whose tensors it is about; `None`: those of all.
    pub model: Option<String>,
}

/// What a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// An input by its name, or one feature of any input by the feature's name.
    Input(String),
    /// The same of outputs.
    Output(String),
    /// The slice that a header makes, by the header's name.
    Header(String),
    /// A slice by its name.
    Slice(String),
    CallerId,
    IdempotencyKey,
}

/// What becomes of a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Drop,
    /// A keyed hash stands in its place.
    Hash,
    /// So many characters are left.
    Truncate(usize),
    /// The lower end of the range of this width that it falls into.
    Bucket(f64),
}

impl Redact {
    pub(super) fn read_all(log: &mut Section<'_>) -> Vec<Self> {
        let tables = bounded(log, "redact", MAX_RULES).into_iter();
        let rules = tables.map(|mut section| {
            let (field, how) = (section.required("field"), section.required("how"));
            let model = section.take("model");
            section.finish();
            Some(Self { field: field?, how: how?, model })
        });
        // What could not be read has been reported.
        rules.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// What is wrong with the rule beside the rest of the section, and with which key.
    pub(super) fn problem(&self, log: &PredictionLog) -> Option<(&'static str, String)> {
        if self.how == How::Hash && log.hash_key.is_none() {
            return Some(("how", "is \"hash\", which needs prediction_log.hash_key".to_owned()));
        }
        if self.model.is_some() && !matches!(self.field, Field::Input(_) | Field::Output(_)) {
            return Some(("model", "is for inputs and outputs alone".to_owned()));
        }
        let is_known = match &self.field {
            Field::Slice(name) => log.slices.iter().any(|slice| slice.name() == name),
            Field::Header(name) => log.slices.iter().any(
                |slice| matches!(&slice.source, SliceSource::Header(known) if known.as_str() == name),
            ),
            _ => true,
        };
        let text =
            "names nothing in prediction_log.slices: no other headers and parameters are kept";
        (!is_known).then(|| ("field", text.to_owned()))
    }
}

impl FromToml for Field {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        let field = match text.split_once('.') {
            Some(("in", name)) => named(name).map(Self::Input),
            Some(("out", name)) => named(name).map(Self::Output),
            Some(("header", name)) => named(name).map(|name| Self::Header(name.to_lowercase())),
            Some(("slice", name)) => named(name).map(Self::Slice),
            None if text == "caller_id" => Some(Self::CallerId),
            None if text == "idempotency_key" => Some(Self::IdempotencyKey),
            _ => None,
        };
        field.ok_or_else(|| {
            format!(
                "is \"{text}\", must be \"in.NAME\", \"out.NAME\", \"header.NAME\", \
                 \"slice.NAME\", \"caller_id\" or \"idempotency_key\""
            )
        })
    }
}

impl FromToml for How {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        let how = match text.split_once(':') {
            None if text == "drop" => Some(Self::Drop),
            None if text == "hash" => Some(Self::Hash),
            Some(("truncate", count)) => {
                count.parse().ok().filter(|count| *count > 0).map(Self::Truncate)
            }
            Some(("bucket", width)) => {
                let width = width.parse::<f64>().ok();
                width.filter(|width| width.is_finite() && *width > 0.0).map(Self::Bucket)
            }
            _ => None,
        };
        how.ok_or_else(|| {
            format!("is \"{text}\", must be \"drop\", \"hash\", \"truncate:N\" or \"bucket:WIDTH\"")
        })
    }
}
