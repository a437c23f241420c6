//! The options of a load on the command line, and what they ask for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::arrivals::Arrivals;
use crate::dataset::Recipe;
use crate::job::{Job, Named};
use crate::keys::{Distribution, HEADER, Population};
use crate::plan::{Drive, Limit, LoadStage};
use crate::run::Protocol;
use crate::scenario;
use crate::target::Target;

const HTTP: &str = "http://127.0.0.1:8000";
const GRPC: &str = "http://127.0.0.1:8001";

/// Whom to load with what.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Common {
    /// The server's HTTP port [default: http://127.0.0.1:8000]; several times: several servers,
    /// loaded in turns and put side by side
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// The server's gRPC port [default: http://127.0.0.1:8001]; as often as --url
    #[arg(long, value_name = "URL")]
    grpc: Vec<String>,
    /// Which way the callers take
    #[arg(long, value_enum, default_value = "http-json")]
    pub(super) protocol: Protocol,
    /// Which model to call
    #[arg(long, value_name = "NAME")]
    pub(super) model: String,
    /// Which version of it; whichever serves if absent
    #[arg(long, value_name = "VERSION", default_value = "", hide_default_value = true)]
    version: String,
    /// gRPC connections that the callers share; over HTTP each caller has its own
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    connections: usize,
    /// Load threads; each has its part of callers, connections and rate
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    threads: usize,
    /// How long a call may take
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "60s")]
    timeout: Duration,
    /// Rows in each request
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) rows: usize,
    /// What to send: rows of label,p0,p1,… with pixels from 0 to 16 (CSV), or requests of the
    /// protocol as JSON, one in each line (.json, .jsonl); random rows if absent
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The shape of a random row of an input, without the batch: pixels=3x224x224
    #[arg(long, value_name = "NAME=SHAPE", value_parser = shape)]
    input: Vec<(String, Vec<i64>)>,
    /// The size of dimensions of any size in random rows, drawn for each request: 8..128
    #[arg(long, value_name = "FROM..TO", value_parser = scenario::lengths)]
    length: Option<(u64, u64)>,
    /// Check every answer: against these files of {"version", "outputs": {name: [row, …]}}, or
    /// without a file against what each version answers to every row alone
    #[arg(long, value_name = "FILE", num_args = 0..)]
    expect: Option<Vec<PathBuf>>,
    /// Read every answer as a whole; else one of 64, the others by status, length and version
    #[arg(long)]
    check_all: bool,
    /// Send with each call a key of a population of this size
    #[arg(long, value_name = "NUMBER")]
    keys: Option<usize>,
    /// How often each key comes
    #[arg(long, value_enum, default_value = "uniform", requires = "keys")]
    key_distribution: Distribution,
    /// The header or metadata entry that carries it
    #[arg(long, value_name = "NAME", default_value = HEADER, requires = "keys")]
    key_header: String,
    /// What arrivals and keys are drawn with; the same seed gives the same ones
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Print JSON instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// How much, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Amount {
    /// Callers at the same time; each waits for its answer before it sends again. With --rate the
    /// most calls in flight
    #[arg(long, value_name = "NUMBER", default_value_t = 32)]
    pub(super) callers: usize,
    /// Calls a second, whatever becomes of those before (open loop)
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// How calls arrive
    #[arg(long, value_enum, default_value = "poisson", requires = "rate")]
    arrivals: Arrivals,
    /// For how long
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "5s")]
    duration: Duration,
    /// How many requests, instead of a time
    #[arg(long, value_name = "NUMBER", conflicts_with = "duration")]
    requests: Option<u64>,
    /// How long the load goes on before it is measured
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "0s")]
    warmup: Duration,
    /// With several servers, how often each is loaded
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub(super) rounds: usize,
}

impl Common {
    /// What they ask for.
    ///
    /// # Errors
    /// When they do not go together.
    pub(super) fn job(&self) -> anyhow::Result<Job> {
        ensure!(self.rows > 0, "a request carries at least one row");
        let keys = self.keys.map(|size| {
            let (distribution, header) = (self.key_distribution, self.key_header.clone());
            Population { size, distribution, header }
        });
        let made = !self.input.is_empty() || self.length.is_some();
        ensure!(self.data.is_none() || !made, "--input and --length are for random rows");
        let shapes = BTreeMap::from_iter(self.input.iter().cloned());
        Ok(Job {
            targets: self.targets()?,
            model: self.model.clone(),
            version: self.version.clone(),
            protocol: self.protocol,
            connections: self.connections,
            threads: self.threads,
            patience: self.timeout,
            data: self.data.clone(),
            recipe: Recipe { shapes, lengths: self.length, rows: self.rows },
            expect: self.expect.clone(),
            check_all: self.check_all,
            keys,
            seed: self.seed,
        })
    }

    fn targets(&self) -> anyhow::Result<Vec<Named>> {
        let count = self.url.len().max(self.grpc.len()).max(1);
        let pick = |all: &[String], at: usize, other: &str| match all {
            [] if count == 1 => Ok(other.to_owned()),
            [] => Ok(String::new()),
            all => all.get(at).cloned().context("--url and --grpc come equally often"),
        };
        (0..count)
            .map(|at| {
                let http = pick(&self.url, at, HTTP)?;
                let grpc = pick(&self.grpc, at, GRPC)?;
                let name = if self.protocol == Protocol::Grpc { &grpc } else { &http };
                Ok(Named { name: name.clone(), target: Target { http, grpc } })
            })
            .collect()
    }
}

impl Amount {
    /// The stages that they ask for.
    pub(super) fn stages(&self) -> Vec<LoadStage> {
        let drive = match self.rate {
            None => Drive::callers(self.callers),
            Some(rate) => {
                let arrivals = self.arrivals;
                Drive::Open { from: rate, to: rate, arrivals, bound: self.callers }
            }
        };
        let limit = self.requests.map_or(Limit::Time(self.duration), Limit::Requests);
        let stage = |name: &str, limit, warm_up| LoadStage {
            name: name.to_owned(),
            drive: drive.clone(),
            limit,
            warm_up,
        };
        let mut stages = Vec::new();
        if !self.warmup.is_zero() {
            stages.push(stage("warm-up", Limit::Time(self.warmup), true));
        }
        stages.push(stage("load", limit, false));
        stages
    }
}

fn shape(text: &str) -> anyhow::Result<(String, Vec<i64>)> {
    let (name, sizes) = text.split_once('=').context("an input reads name=3x224x224")?;
    let size = |size: &str| {
        let size = size.parse::<i64>().ok().filter(|size| *size > 0);
        size.with_context(|| format!("'{sizes}' is no shape such as 3x224x224"))
    };
    Ok((name.to_owned(), sizes.split('x').map(size).collect::<anyhow::Result<_>>()?))
}
