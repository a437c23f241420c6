//! A run written down in a TOML file: targets, what is sent, stages, and what has to hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use toml::{Table, Value};

use crate::arrivals::Arrivals;
use crate::dataset::Recipe;
use crate::job::{Job, Named};
use crate::keys::{Distribution, HEADER, Population};
use crate::plan::{Drive, Limit, LoadStage};
use crate::run::{PATIENCE, Protocol};
use crate::slo::Bound;
use crate::target::Target;

mod reader;

use reader::{Reader, count, number};

/// Calls in flight of an open stage that does not say.
pub const BOUND: usize = 256;

/// A scenario, read and checked.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: String,
    pub job: Job,
    pub stages: Vec<LoadStage>,
    /// How often every target is loaded, in turns.
    pub rounds: usize,
    /// What has to hold for every target.
    pub bounds: Vec<Bound>,
}

impl Scenario {
    /// Reads a file; other files that it names lie beside it.
    ///
    /// # Errors
    /// Names every problem with its path.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let place = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(place)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        Self::parse(&text, folder).with_context(place)
    }

    /// Reads a text.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let table: Table = text.parse()?;
        let mut problems = Vec::new();
        let mut reader = Reader::new(String::new(), table, &mut problems);
        let scenario = scenario(&mut reader, folder);
        reader.finish();
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        Ok(scenario)
    }
}

fn scenario(reader: &mut Reader<'_>, folder: &Path) -> Scenario {
    let name = reader.text("name").unwrap_or_else(|| "scenario".to_owned());
    let rounds = reader.count("rounds").unwrap_or(1);
    let mut job = job(reader, folder);
    let mut targets = Vec::new();
    if reader.each("targets", |target| targets.extend(named(target))) == 0 {
        reader.problem("targets", "there must be one");
    }
    for (index, target) in targets.iter().enumerate() {
        if targets[..index].iter().any(|other| other.name == target.name) {
            reader.problem("targets", format_args!("two are called '{}'", target.name));
        }
    }
    for target in &targets {
        for (wire, needed, address) in [
            ("http", job.protocol != Protocol::Grpc || job.expect.is_some(), &target.target.http),
            ("grpc", matches!(job.protocol, Protocol::Grpc | Protocol::Mixed), &target.target.grpc),
        ] {
            if needed && address.is_empty() {
                let name = &target.name;
                reader.problem("targets", format_args!("'{name}' needs an address for {wire}"));
            }
        }
    }
    job.targets = targets;
    let mut stages = Vec::new();
    if reader.each("stages", |one| stages.extend(stage(one))) == 0 {
        reader.problem("stages", "there must be one");
    } else if !stages.is_empty() && stages.iter().all(|stage: &LoadStage| stage.warm_up) {
        reader.problem("stages", "there is nothing but warm-up");
    }
    let bounds = reader.below("assert", bounds).unwrap_or_default();
    Scenario { name, job, stages, rounds, bounds }
}

fn job(reader: &mut Reader<'_>, folder: &Path) -> Job {
    let model = reader.text("model").unwrap_or_else(|| {
        reader.problem("model", "must be named");
        String::new()
    });
    let protocol = choice(reader, "protocol").unwrap_or(Protocol::HttpJson);
    let mut job = Job {
        targets: Vec::new(),
        model,
        version: reader.text("version").unwrap_or_default(),
        protocol,
        connections: reader.count("connections").unwrap_or(4),
        threads: reader.count("threads").unwrap_or(1),
        patience: reader.time("timeout").unwrap_or(PATIENCE),
        data: None,
        recipe: Recipe { rows: 1, ..Recipe::default() },
        expect: None,
        check_all: reader.truth("check_all").unwrap_or(false),
        keys: reader.below("keys", keys).flatten(),
        seed: reader.count("seed").map_or(1, |seed| seed as u64),
    };
    reader.below("payload", |payload| {
        job.recipe.rows = payload.count("rows").unwrap_or(1);
        job.data = payload.text("data").map(|file| folder.join(file));
        job.expect = payload.with("expect", |value| files(value, folder));
        job.recipe.lengths = payload.with("length", |value| {
            let text = value.as_str().ok_or("a text such as \"8..128\" is wanted")?;
            lengths(text).map_err(|error| format!("{error:#}"))
        });
        job.recipe.shapes = payload.below("inputs", shapes).unwrap_or_default();
    });
    job
}

fn named(reader: &mut Reader<'_>) -> Option<Named> {
    let name = reader.text("name");
    let http = reader.text("http");
    let grpc = reader.text("grpc");
    if http.is_none() && grpc.is_none() {
        reader.problem("http", "there must be an address, here or in grpc");
        return None;
    }
    let name = name.or_else(|| http.clone()).or_else(|| grpc.clone())?;
    let target = Target { http: http.unwrap_or_default(), grpc: grpc.unwrap_or_default() };
    Some(Named { name, target })
}

fn stage(reader: &mut Reader<'_>) -> Option<LoadStage> {
    let name = reader.text("name").unwrap_or_else(|| "load".to_owned());
    let warm_up = reader.truth("warm_up").unwrap_or(false);
    let duration = reader.time("duration");
    let requests = reader.count("requests");
    let limit = match (duration, requests) {
        (Some(duration), None) => Limit::Time(duration),
        (None, Some(requests)) => Limit::Requests(requests as u64),
        _ => {
            reader.problem("duration", "either a duration or a number of requests is wanted");
            return None;
        }
    };
    let arrivals = choice(reader, "arrivals");
    let drive = match reader.take("rate") {
        None => {
            if arrivals.is_some() {
                reader.problem("arrivals", "callers do not arrive: a rate is wanted with it");
            }
            let Some(callers) = reader.take("callers") else {
                reader.problem("callers", "either callers or a rate is wanted");
                return None;
            };
            let (from, to) = ramp(reader, "callers", callers, |value| match value {
                Value::Integer(0) => Ok(0),
                value => count(value),
            })?;
            Drive::Closed { from, to }
        }
        Some(rate) => {
            let bound = reader.count("callers").unwrap_or(BOUND);
            let (from, to) = ramp(reader, "rate", rate, number)?;
            Drive::Open { from, to, arrivals: arrivals.unwrap_or(Arrivals::Poisson), bound }
        }
    };
    let stage = LoadStage { name, drive, limit, warm_up };
    if let Err(error) = stage.check() {
        reader.problem("duration", error);
        return None;
    }
    Some(stage)
}

/// One value, or `{ from, to }`.
fn ramp<T: Copy>(
    reader: &mut Reader<'_>,
    key: &str,
    value: Value,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Option<(T, T)> {
    let Value::Table(mut table) = value else {
        return match read(&value) {
            Ok(value) => Some((value, value)),
            Err(problem) => {
                reader.problem(key, problem);
                None
            }
        };
    };
    let mut ends = [None; 2];
    for (end, name) in ends.iter_mut().zip(["from", "to"]) {
        match table.remove(name).as_ref().map(&read) {
            Some(Ok(value)) => *end = Some(value),
            Some(Err(problem)) => reader.problem(&format!("{key}.{name}"), problem),
            None => reader.problem(&format!("{key}.{name}"), "is wanted for a ramp"),
        }
    }
    for unknown in table.keys() {
        reader.problem(&format!("{key}.{unknown}"), "is no key here");
    }
    Some((ends[0]?, ends[1]?))
}

fn keys(reader: &mut Reader<'_>) -> Option<Population> {
    let size = reader.count("population");
    let distribution = choice(reader, "distribution").unwrap_or(Distribution::Uniform);
    let header = reader.text("header").unwrap_or_else(|| HEADER.to_owned());
    let Some(size) = size else {
        reader.problem("population", "how many keys there are is wanted");
        return None;
    };
    let population = Population { size, distribution, header };
    if let Err(error) = population.check() {
        reader.problem("header", error);
        return None;
    }
    Some(population)
}

fn bounds(reader: &mut Reader<'_>) -> Vec<Bound> {
    let mut bounds = Vec::new();
    for (name, value) in reader.rest() {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        match Bound::new(&name, &text) {
            Ok(bound) => bounds.push(bound),
            Err(error) => reader.problem(&name, format_args!("{error:#}")),
        }
    }
    bounds
}

fn shapes(reader: &mut Reader<'_>) -> BTreeMap<String, Vec<i64>> {
    let mut shapes = BTreeMap::new();
    for (name, value) in reader.rest() {
        let sizes = value.as_array().map(|sizes| sizes.iter().map(count).collect());
        match sizes {
            Some(Ok(sizes)) => {
                let sizes: Vec<usize> = sizes;
                let sizes = sizes.into_iter().map(|size| i64::try_from(size).unwrap_or(i64::MAX));
                shapes.insert(name, sizes.collect());
            }
            Some(Err(problem)) => reader.problem(&name, problem),
            None => reader.problem(&name, "a list of sizes is wanted, without the batch"),
        }
    }
    shapes
}

fn files(value: Value, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let wanted = "a list of files is wanted, empty to ask each version itself";
    let Value::Array(items) = value else { return Err(wanted.to_owned()) };
    let file = |item: &Value| item.as_str().map(|file| folder.join(file));
    items.iter().map(|item| file(item).ok_or_else(|| wanted.to_owned())).collect()
}

fn choice<T: clap::ValueEnum>(reader: &mut Reader<'_>, key: &str) -> Option<T> {
    let text = reader.text(key)?;
    let made = T::from_str(&text, false);
    if made.is_err() {
        let all = T::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
        let all: Vec<String> = all.map(|value| value.get_name().to_owned()).collect();
        reader.problem(key, format_args!("'{text}' is none of {}", all.join(", ")));
    }
    made.ok()
}

/// A range of lengths, `8..128`, both ends included.
///
/// # Errors
/// When it is none.
pub fn lengths(text: &str) -> anyhow::Result<(u64, u64)> {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u64>().with_context(|| format!("'{text}'"));
    let (from, to) = (number(from)?, number(to)?);
    if from == 0 || from > to || to > 1 << 24 {
        bail!("'{text}' is no range of lengths such as 8..128");
    }
    Ok((from, to))
}

#[cfg(test)]
mod tests;
