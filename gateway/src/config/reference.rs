//! Every key of the configuration file and of `model.toml`, with type, default and meaning.
//! `docs/config.md`, `docs/model.md` and the JSON Schemas are written from these tables, and
//! tests hold the tables to the reading code.

use serde_json::{Map, Value, json};

/// What a key holds, for the reference and the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Text,
    Flag,
    Count,
    Number,
    Duration,
    Size,
    Address,
    /// A duration or `"off"`.
    DurationOrOff,
    /// An address or `"off"`.
    AddressOrOff,
    /// A count or `"auto"`.
    CountOrAuto,
    OneOf(&'static [&'static str]),
    Counts,
    Dimensions,
    Texts,
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

const fn key(path: &'static str, kind: Type, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning }
}

/// The configuration file of the gateway.
pub const CONFIG: &[Key] = &[
    key("version", Type::Count, "1", "Version of this file's format. Required."),
    key("listen", Type::Table, "", "Where the doors are."),
    key(
        "listen.http",
        Type::AddressOrOff,
        "\"0.0.0.0:8000\"",
        "Open Inference Protocol over HTTP/1.1.",
    ),
    key(
        "listen.grpc",
        Type::AddressOrOff,
        "\"0.0.0.0:8001\"",
        "Open Inference Protocol over gRPC, with health and reflection.",
    ),
    key(
        "listen.metrics",
        Type::AddressOrOff,
        "\"0.0.0.0:8002\"",
        "Prometheus text at `/metrics`, read-only.",
    ),
    key("repository", Type::Table, "", "The folder of models and who may change what is loaded."),
    key(
        "repository.path",
        Type::Text,
        "\"models/repository\"",
        "The model repository; relative to this file.",
    ),
    key(
        "repository.poll",
        Type::DurationOrOff,
        "\"5s\"",
        "How often the folder is looked at for new, changed and removed versions. `\"off\"`: only the repository API loads models after the start.",
    ),
    key(
        "repository.control",
        Type::OneOf(&["off", "local", "all"]),
        "\"local\"",
        "Who may load and unload models and change log settings over the data ports: nobody, loopback peers, or everybody. A model is code: whoever may load one owns the machine.",
    ),
    key(
        "repository.uploads",
        Type::Flag,
        "false",
        "Whether a load call may bring its own model files (`file:` parameters).",
    ),
    key(
        "repository.max_upload",
        Type::Size,
        "\"256MiB\"",
        "Largest sum of the files of one load call.",
    ),
    key("engine", Type::Table, "", "Threads and time limits of engines."),
    key(
        "engine.cpu_threads",
        Type::CountOrAuto,
        "\"auto\"",
        "Engine threads of the device `cpu`, one intra-op thread each. `\"auto\"`: half of the cores, at least one.",
    ),
    key(
        "engine.cuda_threads",
        Type::CountOrAuto,
        "\"auto\"",
        "Engine threads of each `cuda:N` device. `\"auto\"`: 1.",
    ),
    key(
        "engine.load_timeout",
        Type::Duration,
        "\"120s\"",
        "Longest load of one version; a load that takes longer is given up and its thread counted as stuck.",
    ),
    key(
        "engine.warmup_timeout",
        Type::Duration,
        "\"60s\"",
        "Longest single warm-up or golden run.",
    ),
    key(
        "engine.run_timeout",
        Type::Duration,
        "\"30s\"",
        "Longest run of one batch; its calls are failed, its thread is counted as stuck and replaced.",
    ),
    key(
        "engine.max_stuck_threads",
        Type::Count,
        "2",
        "Liveness fails while more threads than this are stuck in native code, so that a supervisor restarts the process.",
    ),
    key("limits", Type::Table, "", "What callers may ask for."),
    key(
        "limits.max_request",
        Type::Size,
        "\"64MiB\"",
        "Largest request on either protocol, measured after decompression. At most 2GiB.",
    ),
    key(
        "limits.header_timeout",
        Type::Duration,
        "\"10s\"",
        "Longest wait for the head of an HTTP request.",
    ),
    key(
        "limits.body_timeout",
        Type::Duration,
        "\"30s\"",
        "Longest wait for the body of an HTTP request.",
    ),
    key(
        "limits.queue_rows",
        Type::Count,
        "4096",
        "Items that may wait for one model version; more are refused with 503 / UNAVAILABLE.",
    ),
    key(
        "limits.queue_bytes",
        Type::Size,
        "\"256MiB\"",
        "Input bytes that may wait for one model version.",
    ),
    key("server", Type::Table, "", "I/O threads and stopping."),
    key(
        "server.io_threads",
        Type::CountOrAuto,
        "\"auto\"",
        "Threads that read and write sockets. `\"auto\"`: half of the cores, at least one.",
    ),
    key(
        "server.stop_delay",
        Type::Duration,
        "\"0s\"",
        "After a stop signal: how long to answer as usual while reporting not ready.",
    ),
    key(
        "server.drain",
        Type::Duration,
        "\"30s\"",
        "Then: how long calls in flight may take to end.",
    ),
    key("log", Type::Table, "", "The gateway's own log, on standard error."),
    key(
        "log.level",
        Type::OneOf(&["error", "warn", "info", "debug", "trace"]),
        "\"info\"",
        "Least severity written. `PENSTOCK_LOG` may hold a finer filter.",
    ),
    key(
        "log.format",
        Type::OneOf(&["pretty", "json"]),
        "\"pretty\"",
        "Lines for people or JSON for machines.",
    ),
];

/// `model.toml`.
pub const MODEL: &[Key] = &[
    key(
        "platform",
        Type::OneOf(&["torchscript", "identity"]),
        "\"torchscript\"",
        "The engine that runs the model. `identity` answers its inputs and needs no file.",
    ),
    key(
        "max_batch_size",
        Type::Count,
        "0",
        "From 1 on, dimension 0 of every input and output is the batch, and calls are batched together up to this many items. 0: the model does not batch.",
    ),
    key("description", Type::Text, "", "For people."),
    key(
        "input",
        Type::Tables,
        "",
        "One `[[input]]` per input, in the order of the model's arguments. Required.",
    ),
    key("input.name", Type::Text, "", "Name on the wire. Required."),
    key(
        "input.dtype",
        Type::Text,
        "",
        "Datatype on the wire (`FP32`, `INT64`, `BYTES`, …). Required.",
    ),
    key(
        "input.shape",
        Type::Dimensions,
        "",
        "Shape on the wire, batch dimension included; -1 is any size. Required.",
    ),
    key(
        "output",
        Type::Tables,
        "",
        "One `[[output]]` per output: by position of a tensor, tuple or list, by name of a dictionary. Required.",
    ),
    key("output.name", Type::Text, "", "Name on the wire. Required."),
    key("output.dtype", Type::Text, "", "Datatype on the wire. Required."),
    key(
        "output.shape",
        Type::Dimensions,
        "",
        "Shape on the wire, batch dimension included; -1 is any size. Required.",
    ),
    key(
        "output.labels",
        Type::Texts,
        "[]",
        "Class names by index, for the classification extension.",
    ),
    key(
        "output.tolerance",
        Type::Number,
        "1e-5",
        "Relative difference that batching or a rewritten graph may cause.",
    ),
    key("versions", Type::Table, "", "Which versions are served."),
    key(
        "versions.policy",
        Type::OneOf(&["latest", "all", "specific"]),
        "\"latest\"",
        "The newest ones, all, or those listed.",
    ),
    key("versions.latest", Type::Count, "1", "How many of the newest (policy `latest`)."),
    key("versions.specific", Type::Counts, "[]", "Which ones (policy `specific`)."),
    key("engine", Type::Table, "", "How the engine runs the model."),
    key("engine.device", Type::Text, "\"cpu\"", "`cpu` or `cuda:N`."),
    key(
        "engine.graph",
        Type::OneOf(&["auto", "plain", "frozen", "optimized"]),
        "\"auto\"",
        "Which form of the graph runs. Rewritten forms are compared with the plain one at load and given up when they differ.",
    ),
    key(
        "engine.run_timeout",
        Type::Duration,
        "",
        "Overrides the gateway's `engine.run_timeout` for this model.",
    ),
    key("warmup", Type::Table, "", "What runs before a version may serve."),
    key(
        "warmup.batch_sizes",
        Type::Counts,
        "[]",
        "Batch sizes to run; empty means 1 and `max_batch_size`.",
    ),
    key(
        "warmup.sample",
        Type::Text,
        "",
        "A JSON file in the model's folder with the body of an infer request, repeated to each batch size. Absent: generated values.",
    ),
    key(
        "warmup.variable",
        Type::Count,
        "16",
        "Size used for dimensions of -1 in generated samples.",
    ),
    key("warmup.runs", Type::Count, "3", "Runs per batch size on each engine thread."),
    key("version", Type::Table, "", "Facts about single versions: `[version.3]`."),
    key(
        "version.sha256",
        Type::Text,
        "",
        "SHA-256 of the model file; a file with another hash is not served.",
    ),
    key(
        "version.lineage",
        Type::Table,
        "",
        "Where the version comes from, shown in metadata and by the command line.",
    ),
    key("version.lineage.data", Type::Text, "", "Training data."),
    key("version.lineage.code", Type::Text, "", "Code revision."),
    key("version.lineage.hyperparameters", Type::Table, "", "Hyperparameters, any keys."),
    key(
        "version.lineage.metrics",
        Type::Table,
        "",
        "Metrics measured when the version was made, any keys.",
    ),
    key("version.lineage.approved_by", Type::Text, "", "Who approved it."),
];

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
            Self::Address => "address".into(),
            Self::DurationOrOff => "duration or `\"off\"`".into(),
            Self::AddressOrOff => "address or `\"off\"`".into(),
            Self::CountOrAuto => "whole number or `\"auto\"`".into(),
            Self::OneOf(words) => {
                words.iter().map(|w| format!("`\"{w}\"`")).collect::<Vec<_>>().join(", ")
            }
            Self::Counts | Self::Dimensions => "list of whole numbers".into(),
            Self::Texts => "list of text".into(),
            Self::Table => "table".into(),
            Self::Tables => "list of tables".into(),
        }
    }

    fn schema(self) -> Value {
        match self {
            Self::Text | Self::Address | Self::AddressOrOff => json!({"type": "string"}),
            Self::Flag => json!({"type": "boolean"}),
            Self::Count => json!({"type": "integer", "minimum": 0}),
            Self::Number => json!({"type": "number"}),
            Self::Duration => json!({"type": "string", "pattern": DURATION}),
            Self::DurationOrOff => {
                json!({"type": "string", "pattern": format!("^off$|{DURATION}")})
            }
            Self::Size => json!({"type": "string", "pattern": r"^\d+ ?(B|KiB|MiB|GiB)$"}),
            Self::CountOrAuto => {
                json!({"oneOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]})
            }
            Self::OneOf(words) => json!({"enum": words}),
            Self::Counts => json!({"type": "array", "items": {"type": "integer", "minimum": 0}}),
            Self::Dimensions => {
                json!({"type": "array", "items": {"type": "integer", "minimum": -1}})
            }
            Self::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Self::Table | Self::Tables => json!({"type": "object"}),
        }
    }
}

const DURATION: &str = r"^(\d+ ?(ns|us|ms|s|m|min|h|d)\s?)+$";

/// The reference as Markdown tables, one per section of the file.
#[must_use]
pub fn markdown(keys: &[Key]) -> String {
    let mut out = String::from("| key | type | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let default =
            if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        out +=
            &format!("| `{}` | {} | {default} | {} |\n", key.path, key.kind.words(), key.meaning);
    }
    out
}

/// The reference as a JSON Schema for editors.
#[must_use]
pub fn json_schema(title: &str, keys: &[Key]) -> Value {
    let mut schema = table_schema(keys, "");
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

    #[test]
    fn the_reference_names_exactly_the_keys_that_are_read() {
        let problems = Problems::default();
        Config::read(table("version = 1").unwrap(), Path::new(""), &problems);
        let documented: BTreeSet<String> = CONFIG.iter().map(|key| key.path.to_owned()).collect();
        assert_eq!(problems.asked(), documented);
    }

    #[test]
    fn the_documented_defaults_are_the_real_ones() {
        let mut text = String::new();
        for key in CONFIG.iter().filter(|key| !key.default.is_empty()) {
            text += &format!("{} = {}\n", key.path, key.default);
        }
        assert_eq!(parse(&text, Path::new("")), parse("version = 1", Path::new("")));
    }
}
