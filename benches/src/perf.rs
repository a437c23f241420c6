//! Where the time of a process goes: samples of `perf`, attributed to the stages of a call.
//!
//! A sample belongs to the innermost function on its stack that a stage claims, so that a copy or
//! an allocation counts for the stage that asked for it. Functions that the compiler inlined count
//! for the function they ended up in.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

/// Not a divisor of anything that ticks.
const HERTZ: &str = "997";
/// Bytes of stack that each sample keeps.
const STACK: &str = "dwarf,8192";

/// A stage with the modules and libraries whose functions it claims. Within one function's name
/// the earlier stage wins.
type Stage = (&'static str, &'static [&'static str]);

const STAGES: &[Stage] = &[
    ("engine", &["libtorch", "libc10", "libgomp", "engine_torch", "engine", "torch_sys", "tch"]),
    (
        "decode",
        &[
            "penstock::api::grpc::decode",
            "penstock::api::rest::request",
            "penstock::api::rest::body",
            "penstock::api::rest::encoding",
            "penstock::codec::json::parse",
            "penstock::codec::parse",
            "proto::inference::ModelInferRequest",
            "serde_json::de",
            "serde_json::read",
        ],
    ),
    (
        "encode",
        &[
            "penstock::api::grpc::encode",
            "penstock::api::rest::response",
            "penstock::api::rest::respond",
            "penstock::codec::json::write",
            "penstock::codec::write",
            "proto::inference::ModelInferResponse",
            "serde_json::ser",
        ],
    ),
    ("admit", &["penstock::types", "penstock::admission"]),
    ("route", &["penstock::snapshot", "penstock::routing", "arc_swap"]),
    ("record", &["penstock::pipeline::Record", "penstock::models::stats", "penstock::predlog"]),
    ("metrics", &["penstock::telemetry", "metrics", "metrics_util", "metrics_exporter_prometheus"]),
    ("queue", &["penstock::batching", "tokio::sync::oneshot", "futures_channel"]),
    ("call", &["penstock::api", "penstock::pipeline", "penstock::codec", "penstock::models"]),
    (
        NETWORK,
        &[
            "penstock::server",
            "proto",
            "tonic",
            "tonic_prost",
            "prost",
            "h2",
            "hyper",
            "hyper_util",
            "http",
            "http_body",
            "http_body_util",
            "httparse",
            "axum",
            "axum_core",
            "tower",
            "tower_service",
            "matchit",
        ],
    ),
    (RUNTIME, &["tokio", "tokio_util", "mio"]),
];

const NETWORK: &str = "HTTP and gRPC libraries";
const RUNTIME: &str = "async runtime";
const SOCKETS: &str = "kernel: sockets and waiting";
const REST: &str = "rest";

/// The stages in the order of a call, and what each means where its name does not say it.
pub const ORDER: &[(&str, &str)] = &[
    (SOCKETS, "system calls of the libraries and the runtime"),
    (NETWORK, "framing, headers, flow control; the accept loop"),
    (RUNTIME, "scheduling and timers of tokio"),
    ("decode", "messages and JSON into tensors"),
    ("admit", "checks against the signature"),
    ("route", "the snapshot and the choice of a version"),
    ("call", "the call's own future, with what was inlined into it"),
    ("queue", "hand-over both ways, wake-ups included"),
    ("engine", "copies in and out, libtorch"),
    ("encode", "tensors into messages and JSON"),
    ("metrics", "counters and histograms"),
    ("record", "how the call ended, statistics"),
    (REST, "stacks that no stage claims"),
];

/// A recording under way.
#[derive(Debug)]
pub struct Recording {
    perf: Child,
}

/// Whether `perf` is there.
///
/// # Errors
/// With the reason why another way is taken.
pub fn available() -> Result<(), String> {
    let found = Command::new("perf").arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => Ok(()),
        _ => Err("perf is not installed".to_owned()),
    }
}

impl Recording {
    /// Samples a process for some time, into a file.
    ///
    /// # Errors
    /// When `perf` cannot be started.
    pub fn start(pid: u32, duration: Duration, file: &Path) -> anyhow::Result<Self> {
        let perf = Command::new("perf")
            .args(["record", "--quiet", "-F", HERTZ, "--call-graph", STACK, "-p"])
            .arg(pid.to_string())
            .arg("-o")
            .arg(file)
            .args(["--", "sleep", &duration.as_secs_f64().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("perf record")?;
        Ok(Self { perf })
    }

    /// Waits for its end and counts samples by stage.
    ///
    /// # Errors
    /// When `perf` failed, as it does where it may not sample.
    pub fn finish(mut self, file: &Path) -> anyhow::Result<BTreeMap<&'static str, usize>> {
        ensure!(self.perf.wait()?.success(), "perf record failed; is sampling allowed?");
        let output = Command::new("perf")
            .args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"])
            .arg(file)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .context("perf script")?;
        ensure!(output.status.success(), "perf script failed");
        Ok(count(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// Samples of each stage in what `perf script` prints: a line with the thread's name, a line for
/// each function from the innermost outwards, an empty line.
#[must_use]
pub fn count(script: &str) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for sample in script.split("\n\n") {
        let frames: Vec<Frame<'_>> = sample.lines().filter_map(frame).collect();
        if !frames.is_empty() {
            *counts.entry(stage(&frames)).or_insert(0) += 1;
        }
    }
    counts
}

#[derive(Debug, PartialEq)]
struct Frame<'a> {
    function: &'a str,
    library: &'a str,
}

/// `  55ee62 some::function (/path/to/library)`; `None` for a line of another kind.
fn frame(line: &str) -> Option<Frame<'_>> {
    if !line.starts_with([' ', '\t']) {
        return None;
    }
    let (_, rest) = line.trim_start().split_once(' ')?;
    let (function, library) = rest.rsplit_once(" (")?;
    let library = library.strip_suffix(')')?;
    Some(Frame { function, library: library.rsplit('/').next().unwrap_or(library) })
}

fn stage(frames: &[Frame<'_>]) -> &'static str {
    let claimed = frames.iter().find_map(claim).unwrap_or(REST);
    let in_kernel = frames.first().is_some_and(|frame| frame.library.starts_with("[kernel"));
    if in_kernel && [NETWORK, RUNTIME, REST].contains(&claimed) { SOCKETS } else { claimed }
}

fn claim(frame: &Frame<'_>) -> Option<&'static str> {
    let claims = |pattern: &str| {
        frame.library.starts_with(&format!("{pattern}.so"))
            || frame.library.starts_with(&format!("{pattern}_"))
            || names(frame.function, pattern)
    };
    let found = STAGES.iter().find(|(_, patterns)| patterns.iter().any(|name| claims(name)));
    found.map(|(stage, _)| *stage)
}

/// Whether a function's name holds this path from its first part on.
fn names(function: &str, path: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    function.match_indices(path).any(|(at, _)| {
        let before = function[..at].chars().next_back();
        let after = function[at + path.len()..].chars().next();
        let begins = !before.is_some_and(part_of_name);
        // The last part may be the beginning of a word: `parse` claims `parse_data`.
        let ends = if path.contains("::") { true } else { after == Some(':') };
        begins && ends
    })
}

#[cfg(test)]
mod tests;
