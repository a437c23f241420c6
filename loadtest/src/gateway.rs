//! A gateway under test, run as a child process: started on free ports, asked how it is, stopped.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use crate::target::Target;

/// How long a start may take: libtorch is mapped, models are loaded and warmed.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long a stop may take: calls in flight are answered first.
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Lines of its log that are shown when it did not do what it should.
const LOG_LINES: usize = 10;
/// What `/proc/PID/stat` counts in; `USER_HZ` is fixed at 100 on Linux.
const TICK: Duration = Duration::from_millis(10);

/// A running gateway; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    pid: Pid,
    log: PathBuf,
    /// Held open: a process that prints into a closed pipe fails.
    _output: Lines<BufReader<ChildStdout>>,
    pub summary: Summary,
    /// From the start of the process until it said that it serves.
    pub start_time: Duration,
}

/// What the gateway prints once it serves.
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    pub version: String,
    pub http: String,
    pub grpc: String,
    pub metrics: String,
    pub admin: String,
    #[serde(default)]
    pub libtorch: Option<String>,
    #[serde(default)]
    pub cuda: String,
}

impl Gateway {
    /// Starts `serve` on a model repository or a configuration file and waits until it serves. It
    /// logs into a file.
    ///
    /// # Errors
    /// When the program cannot be started, or ends or hangs before it serves; its last words
    /// are part of the error.
    pub async fn start(binary: &Path, source: &Path, log: PathBuf) -> anyhow::Result<Self> {
        Self::start_with(binary, source, log, &[]).await
    }

    /// The same, with more in its environment.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub async fn start_with(
        binary: &Path,
        source: &Path,
        log: PathBuf,
        environment: &[(&str, &Path)],
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let free = "127.0.0.1:0";
        let mut child = Command::new(binary)
            .arg("serve")
            .arg(source)
            .envs(environment.iter().copied())
            .args(["--http", free, "--grpc", free, "--metrics", free, "--admin", free, "--json"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let pid = pid.context("the gateway has no process id")?;
        let output = child.stdout.take().expect("its output is piped");
        let mut output = BufReader::new(output).lines();
        let line = match timeout(START_PATIENCE, output.next_line()).await {
            Err(_) => bail!("the gateway does not serve after {START_PATIENCE:?}{}", tail(&log)),
            Ok(line) => line?,
        };
        let Some(line) = line else { bail!("the gateway ended at its start{}", tail(&log)) };
        let summary = serde_json::from_str(&line)
            .with_context(|| format!("cannot read the gateway's summary: {line}"))?;
        Ok(Self { child, pid, log, _output: output, summary, start_time: started.elapsed() })
    }

    /// Its data ports.
    #[must_use]
    pub fn target(&self) -> Target {
        let Summary { http, grpc, .. } = &self.summary;
        Target { http: format!("http://{http}"), grpc: format!("http://{grpc}") }
    }

    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_memory(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process_id()))
            .context("the gateway is gone")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kibibytes.context("the gateway is gone")? * 1024)
    }

    /// The user and system time that it has spent so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let status = std::fs::read_to_string(format!("/proc/{}/stat", self.process_id()))
            .context("the gateway is gone")?;
        cpu_time(&status).context("/proc/PID/stat")
    }

    /// Sends SIGKILL, at once.
    ///
    /// # Errors
    /// When it had ended before.
    pub fn kill(&self) -> anyhow::Result<()> {
        kill_process(self.pid, Signal::KILL).context("the gateway ended before it was killed")
    }

    /// Waits for the end of a process that was killed.
    ///
    /// # Errors
    /// When that does not come, or it had ended another way before.
    pub async fn wait_for_death(mut self) -> anyhow::Result<()> {
        let status = timeout(STOP_PATIENCE, self.child.wait()).await;
        let status = status.context("the gateway outlives SIGKILL")??;
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        ensure!(killed, "the gateway ended by itself: {status}{}", self.last_words());
        Ok(())
    }

    /// Asks it to stop with SIGTERM and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time; it is then killed.
    pub async fn stop(mut self) -> anyhow::Result<(ExitStatus, Duration)> {
        let asked = Instant::now();
        kill_process(self.pid, Signal::TERM).context("the gateway ended before it was asked to")?;
        match timeout(STOP_PATIENCE, self.child.wait()).await {
            Ok(status) => Ok((status?, asked.elapsed())),
            Err(_) => {
                bail!("the gateway does not stop within {STOP_PATIENCE:?}{}", self.last_words())
            }
        }
    }

    /// The end of its log, for an error.
    #[must_use]
    pub fn last_words(&self) -> String {
        tail(&self.log)
    }
}

/// User and system time in the text of `/proc/PID/stat`.
fn cpu_time(text: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<u64>().ok());
    Some(TICK * u32::try_from(ticks(11)? + ticks(12)?).ok()?)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let from = lines.len().saturating_sub(LOG_LINES);
    format!("; the end of its log:\n  {}", lines[from..].join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194304 10 0 0 0 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_time(text), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("7 (a) S 1"), None);
    }
}
