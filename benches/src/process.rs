//! Servers under load, each a child process: started on free ports, asked for its CPU time and
//! memory, stopped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::ceilings::Flavor;
use crate::ceilings::answers::Answers;
use crate::procfs;

/// Lines of a server's log that are shown when it did not start.
const LOG_LINES: usize = 10;

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Held open: a process that prints into a closed pipe fails.
    _output: BufReader<ChildStdout>,
    /// For people.
    pub name: String,
    /// `host:port` of each door it has, else empty.
    pub http: String,
    pub grpc: String,
    pub metrics: String,
    /// What a gateway runs models with.
    pub libtorch: Option<String>,
}

/// The first line that a server prints: a gateway's summary, or the one address of a ceiling.
#[derive(Debug, Deserialize)]
struct Summary {
    #[serde(default)]
    http: String,
    #[serde(default)]
    grpc: String,
    #[serde(default)]
    metrics: String,
    #[serde(default)]
    libtorch: Option<String>,
    #[serde(default)]
    address: Option<String>,
}

impl Server {
    /// A gateway that serves a folder of models, with more lines for its configuration file. It
    /// logs into, and has its configuration in, the folder `work`.
    ///
    /// # Errors
    /// When it does not start; with the end of its log.
    pub fn gateway(
        program: &Path,
        repository: &Path,
        options: &str,
        work: &Path,
    ) -> anyhow::Result<Self> {
        let config = work.join("penstock.toml");
        let path = toml::Value::from(repository.to_str().context("a path is not UTF-8")?);
        let text = format!("version = 1\n[repository]\npath = {path}\npoll = \"off\"\n{options}");
        std::fs::write(&config, text)?;
        let free = "127.0.0.1:0";
        let mut command = Command::new(program);
        command.arg("serve").arg(&config).args([
            "--http",
            free,
            "--grpc",
            free,
            "--admin",
            free,
            "--metrics",
            free,
            "--json",
        ]);
        Self::start(command, "penstock", &work.join("gateway.log"))
    }

    /// A bare tonic server: this program in another mode.
    ///
    /// # Errors
    /// When it does not start.
    pub fn tonic(flavor: Flavor, work: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve-tonic", "--flavor", flavor.name()]);
        Self::start(command, &format!("tonic {}", flavor.name()), &work.join("tonic.log"))
    }

    /// A bare hyper server: this program in another mode.
    ///
    /// # Errors
    /// When it does not start.
    pub fn hyper(flavor: Flavor, answers: &Answers, work: &Path) -> anyhow::Result<Self> {
        let path = work.join("answers.json");
        answers.write(&path)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve-hyper", "--flavor", flavor.name(), "--answers"]).arg(&path);
        Self::start(command, &format!("hyper {}", flavor.name()), &work.join("hyper.log"))
    }

    fn start(mut command: Command, name: &str, log: &Path) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let output = child.stdout.take().context("its output is not piped")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        // From here on dropping it kills the process.
        let mut server = Self {
            child,
            _output: output,
            name: name.to_owned(),
            http: String::new(),
            grpc: String::new(),
            metrics: String::new(),
            libtorch: None,
        };
        if read? == 0 {
            bail!("{name} ended at its start{}", last_words(log));
        }
        let summary: Summary = serde_json::from_str(&line)
            .with_context(|| format!("cannot read what {name} says: {}", line.trim()))?;
        let address = summary.address.unwrap_or_default();
        let or_address = |door: String| if door.is_empty() { address.clone() } else { door };
        server.http = or_address(summary.http);
        server.grpc = or_address(summary.grpc);
        server.metrics = summary.metrics;
        server.libtorch = summary.libtorch;
        Ok(server)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time so far, in microseconds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn cpu_us(&self) -> anyhow::Result<f64> {
        procfs::cpu_us(self.pid()).with_context(|| self.name.clone())
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<f64> {
        procfs::resident_bytes(self.pid()).with_context(|| self.name.clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about either.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(LOG_LINES);
    if lines.is_empty() { String::new() } else { format!(":\n  {}", lines[from..].join("\n  ")) }
}

/// A folder of its own for each server's files, inside the run's.
///
/// # Errors
/// When it cannot be made.
pub fn folder(work: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = work.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> anyhow::Result<Server> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Server::start(command, "a server", log)
    }

    #[test]
    fn a_server_that_ends_at_its_start_is_an_error_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let error = shell("echo 'no port is free' >&2", &folder.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("no port is free"), "{error}");
    }

    #[test]
    fn a_server_that_says_something_else_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = shell("echo hello; cat", &folder.path().join("log")).unwrap_err();
        assert!(error.to_string().contains("hello"), "{error}");
    }

    #[test]
    fn a_server_is_killed_when_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let script = "echo '{\"http\":\"a:1\",\"grpc\":\"b:2\",\"metrics\":\"c:3\"}'; exec cat";
        let server = shell(script, &folder.path().join("log")).unwrap();
        assert_eq!((server.http.as_str(), server.grpc.as_str()), ("a:1", "b:2"));
        assert!(server.cpu_us().is_ok() && server.resident_bytes().unwrap() > 0.0);
        let pid = server.pid();
        drop(server);
        assert!(procfs::cpu_us(pid).is_err());
    }
}
