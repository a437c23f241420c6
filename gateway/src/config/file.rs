//! The keys of the configuration file, their defaults and the checks across them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

use super::reader::{Problems, Section};
use super::value::{OrAuto, OrOff, Size};

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub listen: Listen,
    pub repository: Repository,
    pub engine: Engine,
    pub limits: Limits,
    pub server: Server,
    pub log: Log,
}

/// Where the doors are; `None` is a closed one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    pub http: Option<SocketAddr>,
    pub grpc: Option<SocketAddr>,
    pub metrics: Option<SocketAddr>,
    /// Unix domain sockets beside the ports.
    pub http_socket: Option<PathBuf>,
    pub grpc_socket: Option<PathBuf>,
}

/// The folder of models and who may change what is loaded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    pub path: PathBuf,
    /// How often the folder is looked at; `None` leaves loading to the repository API.
    pub poll: Option<Duration>,
    pub control: Control,
    pub uploads: Uploads,
}

/// Who may load and unload models over the data ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Nobody.
    Off,
    /// Loopback and Unix-socket peers.
    Local,
    /// Every peer.
    All,
}

/// Whether a load call may bring its own model files, and how large together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uploads {
    pub enabled: bool,
    pub max_bytes: usize,
}

/// Threads and time limits of engines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    pub cpu_threads: usize,
    pub cuda_threads: usize,
    pub load_timeout: Duration,
    pub warmup_timeout: Duration,
    pub run_timeout: Duration,
    /// More threads than this stuck in native code fail liveness.
    pub max_stuck_threads: usize,
}

/// What one caller, and all together, may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request, decompressed.
    pub max_request: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub queue_rows: usize,
    pub queue_bytes: usize,
}

/// I/O threads and stopping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub io_threads: usize,
    /// Not ready, but still answering: time for load balancers to notice.
    pub stop_delay: Duration,
    /// Then: how long calls in flight may take to end.
    pub drain: Duration,
}

/// How the gateway writes its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

const CONTROLS: &[(&str, Control)] =
    &[("off", Control::Off), ("local", Control::Local), ("all", Control::All)];
const FORMATS: &[(&str, LogFormat)] = &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
const LEVELS: &[(&str, &str)] = &[
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

impl Config {
    /// The configuration of `penstock serve FOLDER`: every default, models from `repository`.
    #[must_use]
    pub fn for_repository(repository: &Path) -> Self {
        let problems = Problems::default();
        let mut table = Table::new();
        table.insert("version".into(), 1.into());
        let mut config = Self::read(table, Path::new(""), &problems);
        config.repository.path = repository.to_owned();
        config
    }

    /// Reads a whole file; relative paths start at `base`.
    pub fn read(table: Table, base: &Path, problems: &Problems) -> Self {
        let mut root = Section::root(table, problems);
        match root.required::<u64>("version") {
            None | Some(1) => {}
            Some(other) => root.problem("version", format!("is {other}, this build reads 1")),
        }
        let config = Self {
            listen: Listen::read(root.section("listen"), base),
            repository: Repository::read(root.section("repository"), base),
            engine: Engine::read(root.section("engine")),
            limits: Limits::read(root.section("limits")),
            server: Server::read(root.section("server")),
            log: Log::read(root.section("log")),
        };
        config.listen.check(&root);
        root.finish();
        config
    }
}

impl Listen {
    fn read(mut section: Section<'_>, base: &Path) -> Self {
        let any = |port| OrOff(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)));
        let listen = Self {
            http: section.or("http", any(8000)).0,
            grpc: section.or("grpc", any(8001)).0,
            metrics: section.or("metrics", any(8002)).0,
            http_socket: section.take::<String>("http_socket").map(|path| base.join(path)),
            grpc_socket: section.take::<String>("grpc_socket").map(|path| base.join(path)),
        };
        section.finish();
        listen
    }

    fn check(&self, root: &Section<'_>) {
        let sockets = [&self.http_socket, &self.grpc_socket];
        if let [Some(one), Some(other)] = sockets
            && one == other
        {
            root.problem("listen.grpc_socket", "is also listen.http_socket");
        }
        let has_socket = sockets.into_iter().any(Option::is_some);
        if self.http.is_none() && self.grpc.is_none() && !has_socket {
            root.problem("listen", "http and grpc are both off: nothing could be called");
        }
        let doors = [("http", self.http), ("grpc", self.grpc), ("metrics", self.metrics)];
        for (i, (name, address)) in doors.iter().enumerate() {
            for (other, taken) in &doors[..i] {
                let same = address.is_some_and(|a| a.port() != 0 && *taken == Some(a));
                if same {
                    root.problem(&format!("listen.{name}"), format!("is also listen.{other}"));
                }
            }
        }
    }
}

impl Repository {
    fn read(mut section: Section<'_>, base: &Path) -> Self {
        let path: String = section.or("path", "models/repository".to_owned());
        let poll = section.or("poll", OrOff(Some(Duration::from_secs(5)))).0;
        if poll.is_some_and(|every| every.is_zero()) {
            section.problem("poll", "is zero: use \"off\" to load by the repository API alone");
        }
        let control = section.choice("control", CONTROLS, Control::Local);
        let enabled = section.or("uploads", false);
        let max_bytes = section.or("max_upload", Size::mib(256)).0;
        section.finish();
        Self { path: base.join(path), poll, control, uploads: Uploads { enabled, max_bytes } }
    }
}

impl Engine {
    fn read(mut section: Section<'_>) -> Self {
        let engine = Self {
            cpu_threads: section.or("cpu_threads", OrAuto(None)).0.unwrap_or(cores().div_ceil(2)),
            cuda_threads: section.or("cuda_threads", OrAuto(None)).0.unwrap_or(1),
            load_timeout: section.or("load_timeout", Duration::from_secs(120)),
            warmup_timeout: section.or("warmup_timeout", Duration::from_secs(60)),
            run_timeout: section.or("run_timeout", Duration::from_secs(30)),
            max_stuck_threads: section.or("max_stuck_threads", 2),
        };
        for (key, limit) in [
            ("load_timeout", engine.load_timeout),
            ("warmup_timeout", engine.warmup_timeout),
            ("run_timeout", engine.run_timeout),
        ] {
            if limit.is_zero() {
                section.problem(key, "must be longer than zero");
            }
        }
        section.finish();
        engine
    }
}

impl Limits {
    fn read(mut section: Section<'_>) -> Self {
        let limits = Self {
            max_request: section.or("max_request", Size::mib(64)).0,
            header_timeout: section.or("header_timeout", Duration::from_secs(60)),
            body_timeout: section.or("body_timeout", Duration::from_secs(30)),
            queue_rows: section.or("queue_rows", 4096),
            queue_bytes: section.or("queue_bytes", Size::mib(256)).0,
        };
        if limits.max_request > 2 << 30 {
            section.problem("max_request", "is above 2GiB, which no client can send in one piece");
        }
        if limits.queue_rows == 0 {
            section.problem("queue_rows", "must be at least 1");
        }
        section.finish();
        limits
    }
}

impl Server {
    fn read(mut section: Section<'_>) -> Self {
        let server = Self {
            io_threads: section.or("io_threads", OrAuto(None)).0.unwrap_or((cores() / 2).max(1)),
            stop_delay: section.or("stop_delay", Duration::ZERO),
            drain: section.or("drain", Duration::from_secs(30)),
        };
        section.finish();
        server
    }
}

impl Log {
    fn read(mut section: Section<'_>) -> Self {
        let log = Self {
            level: section.choice("level", LEVELS, "info").to_owned(),
            format: section.choice("format", FORMATS, LogFormat::Pretty),
        };
        section.finish();
        log
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn problems(text: &str) -> Vec<String> {
        let found = parse(text, Path::new("")).unwrap_err();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_empty_file_lacks_only_its_version() {
        assert_eq!(problems(""), ["version: is missing"]);
        let config = parse("version = 1", Path::new("/etc")).unwrap();
        assert_eq!(config.listen.http.unwrap().port(), 8000);
        assert_eq!(config.repository.path, Path::new("/etc/models/repository"));
        assert_eq!(config.repository.control, Control::Local);
    }

    #[test]
    fn inapplicable_files_are_refused_with_every_problem() {
        let text = "version = 2\n[listen]\nhttp = '1.2.3.4:9'\ngrpc = '1.2.3.4:9'\nadmin = 'x'\n\
                    [engine]\nrun_timeout = '0s'\n[repositry]\n";
        assert_eq!(
            problems(text),
            [
                "version: is 2, this build reads 1",
                "listen.admin: is not a known key",
                "engine.run_timeout: must be longer than zero",
                "listen.grpc: is also listen.http",
                "repositry: is not a known key, did you mean 'repository'?",
            ]
        );
    }
}
