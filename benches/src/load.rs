//! Load on a server: one run of `penstock-loadtest`, what it reports, and the CPU time that both
//! sides spent on it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::process::Server;
use crate::procfs;

/// Which way calls take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Grpc,
    HttpBinary,
    HttpJson,
}

/// When calls are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// Each caller waits for its answer before it sends again.
    Closed,
    /// At this rate a second on average, at random moments, whatever comes back.
    Open(f64),
}

/// What to send.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    pub protocol: Protocol,
    pub model: &'a str,
    /// Empty: whichever serves.
    pub version: &'a str,
    pub callers: usize,
    pub connections: usize,
    pub rows: usize,
    pub arrivals: Arrivals,
    pub duration: Duration,
    /// The digits, or rows that the load generator makes up.
    pub data: Option<&'a Path>,
    /// Compare every answer with what the model gives for its rows alone.
    pub check: bool,
    /// Refusals for want of room are part of the answer, not a failure of the run.
    pub refusals: bool,
    pub client: Client,
    /// The header that carries a key of the caller, the same with every call.
    pub key_header: Option<&'a str>,
}

/// Where the load generator runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Client {
    /// As it likes.
    #[default]
    Free,
    /// Threads on every core.
    EveryCore,
    /// One thread, pinned to the last core: the others are the server's.
    LastCore,
}

/// The load generator.
#[derive(Debug, Clone)]
pub struct Loadtest {
    program: PathBuf,
    /// What its `run --help` says.
    help: String,
}

/// What one run gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    pub report: Report,
    /// CPU time of the server for each answered call, in microseconds.
    pub server_us: f64,
    /// The same of the load generator, its start included.
    pub client_us: f64,
}

/// The load generator's own report, as far as it is used here.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Report {
    pub answered: f64,
    pub failed: f64,
    pub requests_per_second: f64,
    pub items_per_second: f64,
    pub latency_us: Quantiles,
    #[serde(default)]
    pub errors: std::collections::BTreeMap<String, Error>,
    #[serde(default)]
    pub versions: std::collections::BTreeMap<String, f64>,
    pub checked: f64,
    pub mismatches: f64,
    #[serde(default)]
    pub mismatch: Option<String>,
    /// Open loop only.
    #[serde(default)]
    pub offered_rate: Option<f64>,
    #[serde(default)]
    pub dropped: Option<f64>,
    #[serde(default)]
    refused: f64,
    #[serde(default)]
    refused_latency_us: Option<Quantiles>,
    /// How late the load generator itself sent.
    #[serde(default)]
    pub send_lag_us: Option<Lag>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Lag {
    pub p99: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p99: f64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Error {
    pub count: f64,
    #[serde(default)]
    pub example: String,
}

impl Protocol {
    /// As on the load generator's command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpBinary => "http-binary",
            Self::HttpJson => "http-json",
        }
    }

    /// For people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::HttpBinary => "HTTP binary",
            Self::HttpJson => "HTTP JSON",
        }
    }
}

impl<'a> Load<'a> {
    /// Single rows in a closed loop of one caller.
    #[must_use]
    pub const fn new(protocol: Protocol, model: &'a str, duration: Duration) -> Self {
        Self {
            protocol,
            model,
            version: "",
            callers: 1,
            connections: 1,
            rows: 1,
            arrivals: Arrivals::Closed,
            duration,
            data: None,
            check: false,
            refusals: false,
            client: Client::Free,
            key_header: None,
        }
    }
}

impl Loadtest {
    /// Asks the program what it can do.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn new(program: &Path) -> anyhow::Result<Self> {
        let output = Command::new(program).args(["run", "--help"]).output();
        let output = output.with_context(|| program.display().to_string())?;
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(Self { program: program.to_owned(), help })
    }

    /// Whether calls can be sent at a rate.
    ///
    /// # Errors
    /// With the reason why lines of the table that need it are skipped.
    pub fn open_loop(&self) -> Result<(), String> {
        let has = ["--rate", "--arrivals"].iter().all(|option| self.has(option));
        if has { Ok(()) } else { Err("this penstock-loadtest has no open loop".to_owned()) }
    }

    fn has(&self, option: &str) -> bool {
        self.help.split_whitespace().any(|word| word == option)
    }

    /// Runs a load to its end.
    ///
    /// # Errors
    /// When the load generator fails, when a call failed, when an answer was wrong, or when no
    /// call was answered: a figure would then mean nothing.
    pub fn run(&self, server: &Server, load: &Load<'_>) -> anyhow::Result<Window> {
        let place = || {
            format!("{} callers over {} on {}", load.callers, load.protocol.title(), server.name)
        };
        let mut command = self.command(server, load);
        let (server_before, client_before) = (server.cpu_us()?, procfs::children_cpu_us()?);
        let output = command.stdin(Stdio::null()).output().with_context(place)?;
        let (server_after, client_after) = (server.cpu_us()?, procfs::children_cpu_us()?);
        let report: Report = serde_json::from_slice(&output.stdout).with_context(|| {
            let words = String::from_utf8_lossy(&output.stderr);
            format!("{}: the load generator gave no report: {}", place(), words.trim())
        })?;
        report.check(load).with_context(place)?;
        Ok(Window {
            server_us: (server_after - server_before) / report.answered,
            client_us: (client_after - client_before) / report.answered,
            report,
        })
    }

    fn command(&self, server: &Server, load: &Load<'_>) -> Command {
        let mut command = match load.client {
            Client::LastCore => {
                let last = procfs::cpu_model().1.saturating_sub(1);
                let mut command = Command::new("taskset");
                command.arg("--cpu-list").arg(last.to_string()).arg(&self.program);
                command
            }
            _ => Command::new(&self.program),
        };
        command.args(["run", "--json", "--protocol", load.protocol.name()]);
        command.args(["--model", load.model, "--version", load.version]);
        command.args(["--url", &format!("http://{}", server.http)]);
        command.args(["--grpc", &format!("http://{}", server.grpc)]);
        command.args(["--callers", &load.callers.to_string()]);
        command.args(["--connections", &load.connections.to_string()]);
        command.args(["--rows", &load.rows.to_string()]);
        command.args(["--duration", &format!("{}ms", load.duration.as_millis())]);
        if let Arrivals::Open(rate) = load.arrivals {
            command.args(["--rate", &format!("{rate:.0}"), "--arrivals", "poisson"]);
        }
        if self.has("--threads") {
            let threads = match load.client {
                Client::EveryCore => procfs::cpu_model().1,
                Client::Free | Client::LastCore => 1,
            };
            command.args(["--threads", &threads.to_string()]);
        }
        if let Some(data) = load.data {
            command.arg("--data").arg(data);
        }
        if let Some(header) = load.key_header {
            command.args(["--keys", "1", "--key-header", header]);
        }
        if load.check {
            command.arg("--expect");
        }
        command
    }
}

impl Report {
    /// How long refusals took; `None` when there was none, whose quantiles are written as zero.
    #[must_use]
    pub fn refusals(&self) -> Option<Quantiles> {
        self.refused_latency_us.filter(|_| self.refused > 0.0)
    }

    fn check(&self, load: &Load<'_>) -> anyhow::Result<()> {
        let refusal = |kind: &str| {
            ["HTTP 503", "HTTP 429", "gRPC Unavailable", "gRPC ResourceExhausted"].contains(&kind)
        };
        for (kind, error) in &self.errors {
            if !(load.refusals && refusal(kind)) {
                bail!("{} calls failed with {kind}: {}", error.count, error.example);
            }
        }
        ensure!(load.refusals || self.failed <= 0.0, "{} calls failed", self.failed);
        if self.mismatches > 0.0 {
            let example = self.mismatch.as_deref().unwrap_or("without an example");
            bail!("{} answers were wrong: {example}", self.mismatches);
        }
        ensure!(self.answered > 0.0, "no call was answered");
        ensure!(!load.check || self.checked >= self.answered, "answers went unchecked");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
