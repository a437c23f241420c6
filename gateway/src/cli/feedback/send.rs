//! `penstock feedback send`: one feedback, or those of a file in parts, to a running gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::lines::{self, Bad, Line};
use super::patience::Patience;
use crate::cli::client::{Client, Offered, Refused, Target};
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
    /// How long a gateway without room (429, 503) is waited for, in all since it took something
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    patience: Duration,
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
        patience: Patience::new(arguments.patience),
        is_met: false,
        part: arguments.part as usize,
        waiting: vec![],
        bytes: 0,
        outcomes: BTreeMap::new(),
        sent: 0,
        bad: BTreeSet::new(),
        unsent: None,
        name: String::new(),
    };
    let sent = match &arguments.file {
        None => {
            let value = arguments.one.as_ref().map(One::value).unwrap_or_default();
            sender.post(&value).and_then(|answer| {
                anyhow::ensure!(sender.count(&answer) == 1, "the answer tells of no feedback");
                Ok(())
            })
        }
        Some(path) => sender.send_file(path, arguments.format),
    };
    // What is stored stays so, whatever came of the rest.
    if sent.is_ok() || sender.sent > 0 {
        sender.report(arguments.target.access.json);
    }
    sent?;
    Ok(if sender.bad.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Sends lines in parts, and counts what became of them.
struct Sender {
    /// One for all parts, which share a connection.
    runtime: Runtime,
    client: Client,
    patience: Patience,
    /// Whether the gateway has answered anything.
    is_met: bool,
    part: usize,
    waiting: Vec<Line>,
    bytes: usize,
    outcomes: BTreeMap<String, u64>,
    sent: u64,
    /// Numbers of lines.
    bad: BTreeSet<u64>,
    /// The first line that the gateway did not take.
    unsent: Option<u64>,
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
        let read = read.and_then(|()| self.flush());
        // Lines that were read and then no further.
        self.unsent = self.unsent.or_else(|| self.waiting.first().map(|line| line.number));
        read.with_context(|| {
            let sent = self.sent;
            let unsent = self.unsent.map(|line| format!("; line {line} is the first that was not"));
            let unsent = unsent.unwrap_or_default();
            format!(
                "{name}: {sent} were sent until then, and may be sent again without harm{unsent}"
            )
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
        while let Some(first) = part.first() {
            self.unsent = Some(first.number);
            let values: Vec<&Value> = part.iter().map(|line| &line.value).collect();
            let error = match self.post(&json!({ "feedback": values })) {
                Ok(answer) => {
                    let told = self.count(&answer);
                    anyhow::ensure!(
                        told == part.len(),
                        "the answer tells of {told} of {}",
                        part.len()
                    );
                    self.unsent = None;
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
        self.unsent = None;
        Ok(())
    }

    /// Sends a request, whose parts are stored together or not at all, until there is room for it.
    fn post(&mut self, body: &Value) -> anyhow::Result<Value> {
        loop {
            match self.runtime.block_on(self.client.offer("/v2/feedback", body))? {
                Offered::Taken(answer) => {
                    self.is_met = true;
                    self.patience.renew();
                    return Ok(answer);
                }
                Offered::Busy { words, retry_after } => self.wait(&words, retry_after)?,
                // It was there before, and may be starting again.
                Offered::Unanswered(error) if self.is_met => {
                    self.wait(&format!("{error:#}"), None)?
                }
                Offered::Unanswered(error) => return Err(error),
            }
            self.is_met = true;
        }
    }

    fn wait(&mut self, words: &str, asked: Option<Duration>) -> anyhow::Result<()> {
        let Some(wait) = self.patience.next(asked) else {
            let asked = asked.map(|asked| format!(", it asks to wait {asked:?}"));
            bail!("the gateway is given up{}: {words}", asked.unwrap_or_default());
        };
        eprintln!("next try in {:.1} s: {words}", wait.as_secs_f64());
        self.runtime.block_on(async { sleep(wait).await });
        Ok(())
    }

    /// Counts what an answer tells of, and returns of how many that is.
    fn count(&mut self, answer: &Value) -> usize {
        let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        for result in results {
            let outcome = result["outcome"].as_str().unwrap_or("unknown");
            *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
            self.sent += 1;
        }
        results.len()
    }

    fn tell(&mut self, number: u64, text: &str) {
        self.bad.insert(number);
        eprintln!("{}:{number}: {text}", self.name);
    }

    fn report(&self, as_json: bool) {
        let bad = self.bad.len();
        let (waits, waited) = self.patience.spent();
        if as_json {
            let report = json!({
                "sent": self.sent,
                "outcomes": self.outcomes,
                "bad_lines": self.bad,
                "first_unsent_line": self.unsent,
                "waits": waits,
                "waited_seconds": waited.as_secs_f64(),
            });
            println!("{report}");
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
        if waits > 0 {
            println!("\nwaited {waits} times for room, {:.1} s in all", waited.as_secs_f64());
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
