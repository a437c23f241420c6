//! `penstock replay`: recorded calls through another version, or the same one, in this process or
//! against a running gateway, and what that changes.

mod print;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail};
use predlog::ReadError;

use super::client::Access;
use super::log::time::{self, When};
use super::{FAILED, block_on, report};
use crate::app;
use crate::config::{self, Config};
use crate::replay::{Local, Query, Remote, Replay, Report, Server, Speed, Target};
use crate::types::ModelName;

/// Feedback that is held in memory, where nothing else is said.
const MOST: NonZeroUsize = NonZeroUsize::new(5_000_000).unwrap();

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Model that answers the recorded calls
    #[arg(long)]
    model: String,
    /// Its version: a number or a label; the highest without it, or what the gateway chooses
    #[arg(long)]
    version: Option<String>,
    /// Calls that arrived then or later: 2026-11-22, 2026-11-22T10:00:00Z, or -1h for an hour ago
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    from: Option<When>,
    /// Calls that arrived before
    #[arg(long, value_name = "TIME", value_parser = time::parse, allow_hyphen_values = true)]
    to: Option<When>,
    /// Calls that this model answered; without it --model, or all those of --route
    #[arg(long, value_name = "MODEL")]
    recorded_model: Option<String>,
    /// Calls that this version answered
    #[arg(long, value_name = "VERSION")]
    recorded_version: Option<String>,
    /// Calls of this route
    #[arg(long)]
    route: Option<String>,
    /// Folder of the log
    #[arg(long, value_name = "FOLDER")]
    path: Option<PathBuf>,
    /// A configuration file (.toml) or a model repository folder: where the model is, and the log
    #[arg(long, value_name = "PATH", default_value = "penstock.toml")]
    config: PathBuf,
    /// Ask a running gateway, at http(s)://HOST:PORT or grpc(s)://HOST:PORT
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// How many times as fast as the calls came a gateway is asked, or max
    #[arg(long, value_name = "FACTOR", default_value = "1.0", value_parser = speed, requires = "gateway")]
    speed: Speed,
    /// How long the gateway may take for a call
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration, requires = "gateway")]
    timeout: Duration,
    /// Calls under way at a time
    #[arg(long, value_name = "CALLS")]
    max_in_flight: Option<usize>,
    /// End after so many calls
    #[arg(long, value_name = "CALLS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How far numbers may be off, as a part of the output's largest; what the model declares
    /// without it
    #[arg(long, value_name = "PART")]
    tolerance: Option<f64>,
    /// Output that labels are held against; the first one without it
    #[arg(long, value_name = "NAME")]
    label_output: Option<String>,
    /// Do not look for feedback
    #[arg(long, conflicts_with_all = ["label_output", "most"])]
    no_labels: bool,
    /// Feedback that is held in memory at most, of about 250 bytes each
    #[arg(long, value_name = "COUNT", default_value_t = MOST)]
    most: NonZeroUsize,
    /// Calls that differ which are named
    #[arg(long, value_name = "CALLS", default_value_t = 20)]
    examples: usize,
    /// End with status 1 where answers differ by more than they may, fail, or where there is none
    #[arg(long)]
    fail_on_difference: bool,
    #[command(flatten)]
    access: Access,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let path = &arguments.config;
    let config = match (arguments.needs_config(), path.is_dir()) {
        (false, _) => None,
        (true, true) => Some(Config::for_repository(path)),
        (true, false) => match config::load(path) {
            Ok(config) => Some(config),
            Err(problems) => return Ok(report(path, &problems)),
        },
    };
    let report = block_on(arguments.replay(config))?;
    if arguments.access.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{}", print::render(&report)?);
    }
    let is_failed = arguments.fail_on_difference && !(report.is_same() && report.log.is_whole());
    Ok(if is_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

impl Arguments {
    /// Where the log is and where the model is may be said without a configuration.
    fn needs_config(&self) -> bool {
        self.path.is_none() || self.gateway.is_none()
    }

    async fn replay(&self, config: Option<Config>) -> anyhow::Result<Report> {
        let logged = config.as_ref().and_then(|config| config.prediction_log.as_ref());
        let log = self.path.clone().or_else(|| logged.map(|log| log.path.clone()));
        let log = log.with_context(|| {
            format!(
                "{} has no [prediction_log]: name its folder with --path",
                self.config.display()
            )
        })?;
        if !["segments", "files"].iter().any(|part| log.join(part).is_dir()) {
            bail!("{}: here is no prediction log", log.display());
        }
        let query = self.query()?;
        let target = self.target(config.as_ref()).await?;
        let replay = Replay {
            log,
            query,
            route: self.route.clone(),
            limit: self.limit,
            speed: if self.gateway.is_some() { self.speed } else { Speed::Max },
            max_in_flight: self.max_in_flight.unwrap_or_else(|| target.in_flight()),
            tolerance: self.tolerance,
            label_output: self.label_output.clone(),
            most_feedback: if self.no_labels { 0 } else { self.most.get() },
            examples: self.examples,
        };
        let report = replay.run(&target).await;
        target.close().await;
        report.map_err(|error| match error.downcast_ref() {
            Some(ReadError::TooMany(_)) => {
                error.context("--most takes more feedback into memory, --no-labels takes none")
            }
            _ => error,
        })
    }

    fn query(&self) -> anyhow::Result<Query> {
        let now = SystemTime::now();
        let [from_us, until_us] = [self.from, self.to].map(|at| at.map(|when| when.micros(now)));
        if let (Some(from), Some(until)) = (from_us, until_us)
            && from >= until
        {
            bail!("--from {} is not before --to {}", time::shown(from), time::shown(until));
        }
        let of_model = || self.route.is_none().then(|| self.model.clone());
        Ok(Query {
            from_us,
            until_us,
            model: self.recorded_model.clone().or_else(of_model),
            version: self.recorded_version.clone(),
            columns: vec![],
        })
    }

    async fn target(&self, config: Option<&Config>) -> anyhow::Result<Target> {
        let version = self.version.as_deref();
        let Some(url) = &self.gateway else {
            let config = config.context("the model's repository is not known")?;
            let model: ModelName = self.model.parse().map_err(|error| anyhow!("{error}"))?;
            let local = Local::load(config, app::engines(), &model, version).await?;
            return Ok(Target::Here(local));
        };
        let server = Server {
            url: url.clone(),
            tls: self.access.upstream_tls(),
            headers: self.access.headers()?,
            timeout: self.timeout,
            max_in_flight: self.max_in_flight,
        };
        Ok(Target::There(Remote::connect(server, &self.model, version).await?))
    }
}

fn speed(text: &str) -> Result<Speed, String> {
    if text == "max" {
        return Ok(Speed::Max);
    }
    let factor = text.parse().ok().filter(|factor: &f64| factor.is_finite() && *factor > 0.0);
    factor.map(Speed::Times).ok_or_else(|| format!("'{text}' is no factor above 0, nor max"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        let words = ["replay", "--model", "m"].into_iter().chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.arguments)
    }

    #[test]
    fn a_speed_is_a_factor_or_the_fastest_and_of_a_gateway_alone() {
        let with = |speed: &str| parse(&format!("--gateway http://a --speed {speed}"));
        assert_eq!(with("2.5").unwrap().speed, Speed::Times(2.5));
        assert_eq!(with("max").unwrap().speed, Speed::Max);
        for wrong in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(parse("--speed 2").is_err());
        assert_eq!(parse("").unwrap().speed, Speed::Times(1.0));
    }

    #[test]
    fn feedback_in_memory_is_bounded_as_it_is_in_exports() {
        assert_eq!(parse("").unwrap().most.get(), predlog::feedback::Range::default().most);
        assert_eq!(parse("--most 7").unwrap().most.get(), 7);
        for wrong in ["--most 0", "--most -1", "--most 7 --no-labels"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn calls_of_the_model_itself_are_replayed_unless_others_are_named() {
        let models = |line: &str| parse(line).unwrap().query().unwrap().model;
        assert_eq!(models("").as_deref(), Some("m"));
        assert_eq!(models("--recorded-model old").as_deref(), Some("old"));
        assert_eq!(models("--route shop"), None);
        let error = parse("--from now --to -1h").unwrap().query().unwrap_err();
        assert!(error.to_string().contains("is not before"), "{error}");
    }
}
