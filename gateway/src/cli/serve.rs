//! `penstock serve`.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tracing::warn;

use super::{Libtorch, block_on, report, table};
use crate::app::{self, App, StopSignals};
use crate::config::{ClientAuth, Config};
use crate::control::IndexEntry;
use crate::reload::Source;
use crate::server;
use crate::telemetry::logging;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A configuration file (.toml) or a model repository folder
    #[arg(default_value = "penstock.toml")]
    path: PathBuf,
    /// Port or address of the HTTP door, over the file's
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// Port or address of the gRPC door, over the file's
    #[arg(long, value_name = "ADDRESS")]
    grpc: Option<String>,
    /// Port or address of the metrics door, over the file's
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<String>,
    /// Port or address of the admin door, over the file's
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Print the start-up summary as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, libtorch: Option<&Libtorch>) -> anyhow::Result<ExitCode> {
    let path = &arguments.path;
    let doors = Doors::read(arguments)?;
    let (config, file) = if path.is_dir() {
        let mut config = Config::for_repository(path);
        doors.adjust(&mut config);
        (config.check().map(|()| config), None)
    } else if path.exists() {
        let source = Source::new(path, move |config| doors.adjust(config));
        let text = source.read();
        (source.config(&text), Some((source, text)))
    } else {
        bail!("{} is neither a configuration file nor a folder", path.display());
    };
    let config = match config {
        Ok(config) => config,
        Err(problems) => return Ok(report(path, &problems)),
    };
    let problems = server::check(&config);
    if !problems.is_empty() {
        return Ok(report(path, &problems));
    }
    if let Some(text) = mismatch(libtorch) {
        eprintln!("penstock: warning: {text}");
    }
    let version = libtorch_version(libtorch);
    block_on(async {
        let mut signals = StopSignals::listen()?;
        logging::log_panics();
        let app = tokio::select! {
            app = App::start(config, file, app::engines(), version.as_deref()) => app?,
            // Nothing serves yet, so there is nothing to end in order.
            _ = signals.recv() => return Ok(()),
        };
        let text = match arguments.json {
            true => format!("{}\n", summary_json(&app, libtorch)),
            false => summary(&app, libtorch),
        };
        // It serves, whether or not somebody reads that it does.
        if let Err(error) = std::io::stdout().write_all(text.as_bytes()) {
            warn!(%error, "cannot print the summary");
        }
        app.run(signals).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The doors that the command line names.
#[derive(Debug, Clone, Copy)]
struct Doors([Option<SocketAddr>; 4]);

impl Doors {
    fn read(arguments: &Arguments) -> anyhow::Result<Self> {
        let Arguments { http, grpc, metrics, admin, .. } = arguments;
        let mut doors = [None; 4];
        for (door, given) in doors.iter_mut().zip([http, grpc, metrics, admin]) {
            *door = given.as_deref().map(address).transpose()?;
        }
        Ok(Self(doors))
    }

    /// Puts them over what a file says.
    fn adjust(self, config: &mut Config) {
        let listen = &mut config.listen;
        let doors = [&mut listen.http, &mut listen.grpc, &mut listen.metrics, &mut listen.admin];
        for (door, given) in doors.into_iter().zip(self.0) {
            *door = given.or(*door);
        }
    }
}

/// `8000`, `:8000` or `127.0.0.1:8000`.
fn address(text: &str) -> anyhow::Result<SocketAddr> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Ok(([0, 0, 0, 0], port).into());
    }
    text.parse().with_context(|| format!("'{text}' is no address: use PORT or ADDRESS:PORT"))
}

#[cfg(feature = "torch")]
fn libtorch_version(libtorch: Option<&Libtorch>) -> Option<String> {
    libtorch.map(|process| process.version.clone())
}

#[cfg(not(feature = "torch"))]
fn libtorch_version(_: Option<&Libtorch>) -> Option<String> {
    None
}

#[cfg(feature = "torch")]
fn mismatch(libtorch: Option<&Libtorch>) -> Option<String> {
    libtorch.and_then(|process| process.mismatch.clone())
}

#[cfg(not(feature = "torch"))]
fn mismatch(_: Option<&Libtorch>) -> Option<String> {
    None
}

#[cfg(feature = "torch")]
fn cuda(libtorch: Option<&Libtorch>) -> String {
    match libtorch.map(|process| &process.cuda) {
        Some(Ok(())) => "CUDA available".to_owned(),
        Some(Err(reason)) => format!("no CUDA: {reason}"),
        None => "not prepared".to_owned(),
    }
}

#[cfg(not(feature = "torch"))]
fn cuda(_: Option<&Libtorch>) -> String {
    "built without libtorch".to_owned()
}

fn summary(app: &App, libtorch: Option<&Libtorch>) -> String {
    let config = app.config();
    let addresses = app.addresses();
    let door = |name: &str, address: Option<std::net::SocketAddr>, what: &str| {
        let tls = address.map_or("", |_| tls_of(config, name).words());
        let address = address.map_or_else(|| "off".to_owned(), |address| address.to_string());
        format!("  {name:<8} {address:<22} {what}{tls}\n")
    };
    let mut out = format!("penstock {}\n\n", env!("CARGO_PKG_VERSION"));
    out += &door("http", addresses.http, "Open Inference Protocol, REST");
    out += &door("grpc", addresses.grpc, "Open Inference Protocol, gRPC; health and reflection");
    out += &door("metrics", addresses.metrics, "/metrics");
    out += &door("admin", addresses.admin, "status and control for operators");
    let sockets = [("http", &config.listen.http_socket), ("grpc", &config.listen.grpc_socket)];
    for (name, path) in sockets {
        if let Some(path) = path {
            out += &format!("  {name:<8} {}\n", path.display());
        }
    }
    let libtorch_version = libtorch_version(libtorch).unwrap_or_else(|| "none".to_owned());
    out += &format!(
        "\n  models from {}, {}, changes allowed: {:?}\n  libtorch {libtorch_version}, {}\n  \
         {} engine threads, {} I/O threads, requests up to {} MiB, {} items may wait per version\n\n",
        config.repository.path.display(),
        config.repository.poll.map_or_else(
            || "not polled".to_owned(),
            |every| format!("polled every {}", humantime::format_duration(every))
        ),
        config.repository.control,
        cuda(libtorch),
        config.engine.cpu_threads,
        config.server.io_threads,
        config.limits.max_request >> 20,
        config.limits.queue_rows,
    );
    out + &index_table(&app.api().control.index(false))
}

/// What callers of a door meet.
#[derive(Clone, Copy)]
enum Protection {
    Plain,
    Tls(ClientAuth),
}

impl Protection {
    const fn words(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Tls(ClientAuth::Off) => "; TLS",
            Self::Tls(ClientAuth::Optional) => "; TLS, client certificates optional",
            Self::Tls(ClientAuth::Required) => "; TLS, client certificates required",
        }
    }

    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Tls(ClientAuth::Off) => Some("server"),
            Self::Tls(ClientAuth::Optional) => Some("mutual, optional"),
            Self::Tls(ClientAuth::Required) => Some("mutual"),
        }
    }
}

fn tls_of(config: &Config, listener: &str) -> Protection {
    match &config.tls {
        Some(tls) if tls.covers(listener) => Protection::Tls(tls.client_auth),
        _ => Protection::Plain,
    }
}

/// Doors with TLS, each with whether callers show certificates.
fn tls_summary(config: &Config) -> Value {
    let doors = ["http", "grpc", "metrics", "admin"];
    let covered =
        doors.iter().filter_map(|door| Some((*door, tls_of(config, door).name()?.into())));
    Value::Object(covered.map(|(door, name)| (door.to_owned(), name)).collect())
}

fn index_table(entries: &[IndexEntry]) -> String {
    let mut rows = vec![table::row(&["  MODEL", "VERSION", "STATE", "REASON"])];
    for entry in entries {
        rows.push(vec![
            format!("  {}", entry.name),
            entry.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            entry.state.map_or("-", |state| state.name()).to_owned(),
            entry.reason.clone(),
        ]);
    }
    if entries.is_empty() {
        return "  no models in the repository\n".to_owned();
    }
    table::render(&rows)
}

fn summary_json(app: &App, libtorch: Option<&Libtorch>) -> Value {
    let addresses = app.addresses();
    let models: Vec<Value> = app.api().control.index(false).iter().map(IndexEntry::json).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "http": addresses.http,
        "grpc": addresses.grpc,
        "metrics": addresses.metrics,
        "admin": addresses.admin,
        "tls": tls_summary(app.config()),
        "libtorch": libtorch_version(libtorch),
        "cuda": cuda(libtorch),
        "models": models,
    })
}
