//! `penstock feedback send`: one feedback, or those of a file in parts, to a running gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::ValueEnum;
use http::Method;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::lines::{self, Bad, Line};
use crate::cli::client::{Client, Refused, Target};
use crate::cli::{FAILED, table};
use crate::feedback::MOST;

/// Bytes of a part, beyond which it is sent.
const PART: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// File with one feedback a line; `-` is standard input
    #[arg(
        long,
        short,
        value_name = "FILE",
        conflicts_with = "One",
        required_unless_present = "One"
    )]
    file: Option<PathBuf>,
    /// What the file is: JSON lines, or CSV with a line of names; as it is called, without it
    #[arg(long, value_enum, requires = "file")]
    format: Option<Written>,
    /// Feedback that is sent together
    #[arg(long, value_name = "COUNT", default_value = "1000", requires = "file",
          value_parser = clap::value_parser!(u32).range(1..=MOST as i64))]
    part: u32,
    #[command(flatten)]
    one: Option<One>,
    #[command(flatten)]
    target: Target,
}

/// A single feedback.
#[derive(Debug, clap::Args)]
#[group(id = "One", multiple = true)]
struct One {
    /// Id of the prediction, as its answer has it
    #[arg(long, value_name = "UUID", conflicts_with = "caller_id")]
    prediction_id: Option<String>,
    /// Id that the caller gave the request
    #[arg(long, value_name = "ID")]
    caller_id: Option<String>,
    /// Which item of the call, from 0; all of them without it
    #[arg(long, value_name = "INDEX")]
    item: Option<i64>,
    /// What the answer should have been
    #[arg(long, value_name = "TEXT", conflicts_with = "label_number")]
    label: Option<String>,
    /// The same as a number
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    label_number: Option<f64>,
    /// How good the answer was
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    reward: Option<f64>,
    /// When it came true: 2026-01-31T12:00:00Z; now without it
    #[arg(long, value_name = "TIME")]
    event_time: Option<String>,
    /// What this feedback is known by: told again, it is the same
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Who says so
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Written {
    Jsonl,
    Csv,
}

impl Written {
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "jsonl" | "ndjson" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

impl One {
    fn value(&self) -> Value {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        let text = |text: &Option<String>| text.clone().map(Value::String);
        set("prediction_id", text(&self.prediction_id));
        set("caller_id", text(&self.caller_id));
        set("item", self.item.map(Value::from));
        set("label", text(&self.label).or(self.label_number.map(Value::from)));
        set("reward", self.reward.map(Value::from));
        set("event_time", text(&self.event_time));
        set("id", text(&self.id));
        set("source", text(&self.source));
        set("note", text(&self.note));
        Value::Object(fields)
    }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut sender = Sender {
        runtime,
        client: Client::new(&arguments.target.url, &arguments.target.access)?,
        part: arguments.part as usize,
        waiting: vec![],
        bytes: 0,
        outcomes: BTreeMap::new(),
        sent: 0,
        bad: BTreeSet::new(),
        name: String::new(),
    };
    match &arguments.file {
        None => {
            let value = arguments.one.as_ref().map(One::value).unwrap_or_default();
            let answer = sender.post(&value)?;
            sender.count(&answer);
        }
        Some(path) => sender.send_file(path, arguments.format)?,
    }
    sender.report(arguments.target.access.json);
    Ok(if sender.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Sends lines in parts, and counts what became of them.
struct Sender {
    /// One for all parts, which share a connection.
    runtime: Runtime,
    client: Client,
    part: usize,
    waiting: Vec<Line>,
    bytes: usize,
    outcomes: BTreeMap<String, u64>,
    sent: u64,
    /// Numbers of lines.
    bad: BTreeSet<u64>,
    /// Of the file.
    name: String,
}

impl Sender {
    fn send_file(&mut self, path: &Path, format: Option<Written>) -> anyhow::Result<()> {
        let Some(format) = format.or_else(|| Written::of(path)) else {
            bail!("--file {} does not say what it is: --format does", path.display());
        };
        self.name = path.display().to_string();
        let input: Box<dyn Read> = match path.as_os_str() == "-" {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(path).with_context(|| self.name.clone())?),
        };
        let input = BufReader::new(input);
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now_us = i64::try_from(now_us).unwrap_or(i64::MAX);
        let name = self.name.clone();
        let mut with = |line: Result<Line, Vec<Bad>>| match line {
            Ok(line) => self.add(line),
            Err(bad) => {
                bad.iter().for_each(|bad| self.tell(bad.number, &bad.text));
                Ok(())
            }
        };
        let read = match format {
            Written::Jsonl => lines::json(input, now_us, &mut with),
            Written::Csv => lines::csv(input, now_us, &mut with),
        };
        read.and_then(|()| self.flush()).with_context(|| {
            let sent = self.sent;
            format!("{name}: {sent} were sent until then, and may be sent again without harm")
        })
    }

    fn add(&mut self, line: Line) -> anyhow::Result<()> {
        self.bytes += line.value.to_string().len();
        self.waiting.push(line);
        if self.waiting.len() >= self.part || self.bytes >= PART { self.flush() } else { Ok(()) }
    }

    /// Sends what waits. What the gateway finds wrong is told and left out.
    fn flush(&mut self) -> anyhow::Result<()> {
        let mut part = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        while !part.is_empty() {
            let values: Vec<&Value> = part.iter().map(|line| &line.value).collect();
            let error = match self.post(&json!({ "feedback": values })) {
                Ok(answer) => {
                    self.count(&answer);
                    return Ok(());
                }
                Err(error) => error,
            };
            let wrong = wrong(&error);
            if wrong.is_empty() {
                return Err(error);
            }
            for (index, text) in &wrong {
                if let Some(line) = part.get(*index) {
                    self.tell(line.number, text);
                }
            }
            let before = part.len();
            let mut index = 0..;
            part.retain(|_| {
                let own = index.next();
                !wrong.iter().any(|(index, _)| Some(*index) == own)
            });
            if part.len() == before {
                return Err(error);
            }
        }
        Ok(())
    }

    fn post(&self, body: &Value) -> anyhow::Result<Value> {
        self.runtime.block_on(self.client.send(Method::POST, "/v2/feedback", Some(body)))
    }

    fn count(&mut self, answer: &Value) {
        for result in answer["results"].as_array().into_iter().flatten() {
            let outcome = result["outcome"].as_str().unwrap_or("unknown");
            *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
            self.sent += 1;
        }
    }

    fn tell(&mut self, number: u64, text: &str) {
        self.bad.insert(number);
        eprintln!("{}:{number}: {text}", self.name);
    }

    fn report(&self, as_json: bool) {
        let bad = self.bad.len();
        if as_json {
            let (sent, outcomes) = (self.sent, &self.outcomes);
            println!("{}", json!({ "sent": sent, "outcomes": outcomes, "bad_lines": self.bad }));
            return;
        }
        let mut rows = vec![table::row(&["OUTCOME", "FEEDBACK"])];
        let lines = self
            .outcomes
            .iter()
            .map(|(outcome, count)| table::row(&[outcome.as_str(), &count.to_string()]));
        rows.extend(lines);
        print!("{}", table::render(&rows));
        if bad > 0 {
            println!("\nlines that are wrong and were left out: {bad}");
        }
    }
}

/// Which of a part the gateway finds wrong, by its place, and why.
fn wrong(error: &anyhow::Error) -> Vec<(usize, String)> {
    let Some(Refused(answer)) = error.downcast_ref() else { return vec![] };
    let problems = answer["problems"].as_array().into_iter().flatten();
    let read = |problem: &Value| {
        let index = usize::try_from(problem["index"].as_u64()?).ok()?;
        let field = problem["field"].as_str().unwrap_or_default();
        let text = problem["problem"].as_str().unwrap_or_default();
        Some((index, if field.is_empty() { text.to_owned() } else { format!("{field}: {text}") }))
    };
    problems.filter_map(read).collect()
}
