//! Every key of the configuration file and of `model.toml`, with type, default and meaning.
//! `docs/config.md`, `docs/model.md` and the JSON Schemas are written from these tables, and
//! tests hold the tables to the reading code.

mod keys;

use serde_json::{Map, Value, json};

pub use keys::{CONFIG, MODEL};

/// What a key holds, for the reference and the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Text,
    Flag,
    Count,
    Number,
    Duration,
    Size,
    Percent,
    /// A duration or `"off"`.
    DurationOrOff,
    /// An address or `"off"`.
    AddressOrOff,
    /// A count or `"auto"`.
    CountOrAuto,
    /// A count or `"off"`.
    CountOrOff,
    /// A count, or a number of bytes.
    CountOrSize,
    OneOf(&'static [&'static str]),
    Counts,
    /// A list of lists of two counts.
    Pairs,
    Dimensions,
    Texts,
    /// A list of text or `"off"`.
    TextsOrOff,
    Numbers,
    /// A number, a text, true or false.
    Value,
    Values,
    Table,
    Tables,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path; list indices and chosen names left out.
    pub path: &'static str,
    pub kind: Type,
    /// As it would be written in the file; empty where the key has none.
    pub default: &'static str,
    pub meaning: &'static str,
}

impl Type {
    /// The words for people.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Text => "text".into(),
            Self::Flag => "true or false".into(),
            Self::Count => "whole number".into(),
            Self::Number => "number".into(),
            Self::Duration => "duration".into(),
            Self::Size => "size".into(),
            Self::Percent => "percentage".into(),
            Self::DurationOrOff => "duration or `\"off\"`".into(),
            Self::AddressOrOff => "address or `\"off\"`".into(),
            Self::CountOrAuto => "whole number or `\"auto\"`".into(),
            Self::CountOrOff => "whole number or `\"off\"`".into(),
            Self::CountOrSize => "whole number or size".into(),
            Self::OneOf(words) => {
                words.iter().map(|w| format!("`\"{w}\"`")).collect::<Vec<_>>().join(", ")
            }
            Self::Counts | Self::Dimensions => "list of whole numbers".into(),
            Self::Pairs => "list of pairs of whole numbers".into(),
            Self::Texts => "list of text".into(),
            Self::TextsOrOff => "list of text or `\"off\"`".into(),
            Self::Numbers => "list of numbers".into(),
            Self::Value => "number, text, true or false".into(),
            Self::Values => "list of numbers, text, true or false".into(),
            Self::Table => "table".into(),
            Self::Tables => "list of tables".into(),
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Text | Self::AddressOrOff => json!({"type": "string"}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::Number => json!({"type": "number"}),
            Self::Duration => json!({"type": "string", "pattern": DURATION}),
            Self::DurationOrOff => {
                json!({"type": "string", "pattern": format!("^off$|{DURATION}")})
            }
            Self::Size => json!({"type": "string", "pattern": SIZE}),
            Self::Percent => json!({"type": "string", "pattern": r"^\d+(\.\d+)? ?%$"}),
            Self::CountOrAuto => {
                json!({"oneOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]})
            }
            Self::CountOrOff => {
                json!({"oneOf": [{"type": "integer", "minimum": 1}, {"const": "off"}]})
            }
            Self::CountOrSize => {
                json!({"oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": SIZE}]})
            }
            Self::OneOf(words) => json!({"enum": words}),
            Self::Counts => json!({"type": "array", "items": {"type": "integer", "minimum": 0}}),
            Self::Dimensions => {
                json!({"type": "array", "items": {"type": "integer", "minimum": -1}})
            }
            Self::Pairs => {
                let mut pair = Self::Counts.schema();
                (pair["minItems"], pair["maxItems"]) = (json!(2), json!(2));
                json!({"type": "array", "items": pair})
            }
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::TextsOrOff => json!({"oneOf": [Self::Texts.schema(), {"const": "off"}]}),
            Self::Numbers => json!({"type": "array", "items": {"type": "number"}}),
            Self::Value => json!({"type": VALUE}),
            Self::Values => json!({"type": "array", "items": {"type": VALUE}}),
            Self::Table | Self::Tables => json!({"type": "object"}),
        }
    }
}

const SIZE: &str = r"^\d+ ?(B|KiB|MiB|GiB)$";
const VALUE: [&str; 3] = ["number", "string", "boolean"];
const DURATION: &str = r"^(\d+ ?(ns|us|ms|s|m|min|h|d)\s?)+$";

/// The reference as Markdown tables, one per section of the file.
#[must_use]
pub fn markdown(sections: &[&[Key]]) -> String {
    let mut out = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in sections.iter().copied().flatten() {
        let default =
            if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        out +=
            &format!("| `{}` | {} | {default} | {} |\n", key.path, key.kind.words(), key.meaning);
    }
    out
}

/// The reference as a JSON Schema for editors.
#[must_use]
pub fn json_schema(title: &str, sections: &[&[Key]]) -> Value {
    let keys = sections.concat();
    let mut schema = table_schema(&keys, "");
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!(title);
    schema
}

fn table_schema(keys: &[Key], parent: &str) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let (above, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if above != parent {
            continue;
        }
        let mut schema = match key.kind {
            // Tables whose keys the user chooses hold no documented keys of their own.
            Type::Table if !has_children(keys, key.path) => json!({"type": "object"}),
            Type::Table if key.path == "version" => {
                json!({"type": "object", "additionalProperties": table_schema(keys, key.path)})
            }
            Type::Table => table_schema(keys, key.path),
            Type::Tables => json!({"type": "array", "items": table_schema(keys, key.path)}),
            kind => kind.schema(),
        };
        schema["description"] = json!(key.meaning);
        properties.insert(name.to_owned(), schema);
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

fn has_children(keys: &[Key], path: &str) -> bool {
    keys.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::reader::{Problems, table};
    use crate::config::{Config, parse};

    /// What has keys only where it is there.
    const PRESENT: &str = "version = 1\nauth.jwt.jwks_file = 'keys'\nauth.jwt.audience = ['x']\n\
                           prediction_log.hash_key = 'env:X'\nprediction_log.store.url = 's3://bucket/prefix'\n\
                           prediction_log.sampling.slow_than = '1s'\nprediction_log.sampling.confidence_output = 'y'\n\
                           prediction_log.sampling.confidence_below = 0.5\n";

    fn lists() -> impl Iterator<Item = &'static Key> {
        CONFIG.iter().copied().flatten().filter(|key| key.kind == Type::Tables)
    }

    #[test]
    fn the_reference_names_exactly_the_keys_that_are_read() {
        let problems = Problems::default();
        // One of each list: the keys inside are asked for only where there is one.
        let mut text = PRESENT.to_owned();
        for key in lists() {
            text += &format!("[[{}]]\n", key.path);
        }
        Config::read(table(&text).unwrap(), Path::new(""), &problems);
        let documented: BTreeSet<String> =
            CONFIG.iter().copied().flatten().map(|key| key.path.to_owned()).collect();
        assert_eq!(problems.asked(), documented);
    }

    #[test]
    fn the_documented_defaults_are_the_real_ones() {
        let mut text = PRESENT.replace("version = 1\n", "");
        // What is in lists has defaults only where somebody adds to the list.
        let in_list = |key: &Key| {
            lists().any(|list| key.path.strip_prefix(list.path).is_some_and(|r| r.starts_with('.')))
        };
        let keys = CONFIG.iter().copied().flatten().filter(|key| !in_list(key));
        for key in keys.filter(|key| !key.default.is_empty()) {
            text += &format!("{} = {}\n", key.path, key.default);
        }
        // This section is there with its first key.
        let present = format!("{PRESENT}prediction_log.feedback.horizon = '1h'\n");
        assert_eq!(parse(&text, Path::new("")), parse(&present, Path::new("")));
    }
}
