//! The soak of routes: their settings change again and again under load, by the configuration
//! file and by hand, with every answer held against the arm that it names, that arm's version and
//! its callers. Everything differs between two settings, so that a call which met parts of two of
//! them shows.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::admin::Admin;
use crate::check::{Arms, Expected};
use crate::memory::Memory;
use crate::plan::Limit;
use crate::recorder::{Phase, histogram, record};
use crate::recording::Recording;
use crate::report::{self, mebibytes, micros, row, say, table};
use crate::repository::RepositoryCopy;
use crate::run::Running;
use crate::stage::{Caller, DIGITS, Scene, Stage};
use crate::verdict::Verdict;

mod settings;

use settings::{DIAL, SETTINGS, dial, file, position, setting};

/// Load between two changes.
const PAUSE: Duration = Duration::from_millis(2);
/// What memory gets to be given back.
const REST: Duration = Duration::from_secs(3);
/// How often a line tells how far it is.
const PROGRESS: usize = 1000;
/// How long a changed file may go unseen, and how often one looks.
const UNSEEN: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(2);

/// What to soak, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// How often the file changes; beside every other time shares change by hand too
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub reloads: usize,
    /// How many of these times the gateway has to see a changed file by itself
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub through_file: usize,
    /// Callers at the same time, half HTTP, half gRPC
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    pub callers: usize,
    /// How many keys they have
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    pub keys: usize,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// How settings change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Shares by hand.
    Set,
    /// The file, and a call to read it.
    Reload,
    /// The file alone.
    File,
}

/// What the changes gave.
#[derive(Debug)]
struct Soak {
    recording: Recording,
    /// How long each change took until it was in force, by way, in microseconds.
    times: [Histogram<u64>; 3],
    /// Changes after which a call met the settings before.
    stale: usize,
    /// Arms that were to answer and never did.
    silent: Vec<String>,
    /// How many numbers the revision went up.
    revisions: u64,
    memory: Memory,
}

/// Soaks, prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or refuses a change.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.reloads > 0 && arguments.callers > 1, "too few reloads or callers");
    ensure!(arguments.through_file <= arguments.reloads, "more reloads through the file than all");
    let repository = RepositoryCopy::of(&arguments.scene.repository)?;
    repository.serve_only(DIGITS, &[1, 2, 3])?;
    let routes = vec![setting(0), dial()];
    let stage = Stage::with_routes(&arguments.scene, repository, routes).await?;
    let soak = soak(&stage, arguments).await.map_err(|error| stage.explain(&error))?;
    let (status, _) = stage.gateway.stop().await?;
    let mut verdict = soak.verdict();
    verdict.holds(status.success(), || format!("the gateway's {status}"));
    Ok(verdict.conclude(arguments.json, soak.json(), &soak.text()))
}

async fn soak(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Soak> {
    let expected = stage.answers_of(&["1", "2"]).await?;
    let mut operator = Operator::new(stage).await?;
    let arms = operator.learn(arguments.keys).await?;
    let running = Both::start(stage, arguments, &arms, &expected).await?;
    if !arguments.json {
        let (reloads, callers) = (arguments.reloads, arguments.callers);
        say(format_args!("{reloads} reloads of the file under {callers} callers"));
    }
    let first = operator.admin.routes().await?.revision;
    let mut times = std::array::from_fn(|_| histogram());
    let (mut stale, mut before) = (0, 0);
    let settled = (arguments.reloads / 10).max(1);
    for count in 1..=arguments.reloads {
        let by_hand = (count % 2 == 0).then_some(Way::Set);
        for way in [way(count, arguments)].into_iter().chain(by_hand) {
            running.mark_change();
            let took = operator.change(way).await.with_context(|| format!("reload {count}"))?;
            running.mark_change();
            record(&mut times[way as usize], took);
            stale += usize::from(!operator.is_fresh(way).await?);
        }
        if count == settled {
            before = stage.gateway.resident_memory()?;
        }
        if count % PROGRESS == 0 && !arguments.json {
            let memory = mebibytes(stage.gateway.resident_memory()?);
            say(format_args!("  {count} reloads, {memory} resident"));
        }
        sleep(PAUSE).await;
    }
    let revisions = operator.admin.routes().await?.revision - first;
    let recording = running.finish().await?;
    sleep(REST).await;
    let memory = Memory { before, after: stage.gateway.resident_memory()? };
    let answered = recording.recorder.total().arms;
    let silent = settings::busy().filter(|arm| !answered.contains_key(arm)).collect();
    Ok(Soak { recording, times, stale, silent, revisions, memory })
}

/// Which way the reload of that number goes; the numbers begin at 1.
fn way(count: usize, arguments: &Arguments) -> Way {
    let Arguments { reloads, through_file, .. } = *arguments;
    // As even as whole numbers allow.
    let is_seen = count * through_file / reloads > (count - 1) * through_file / reloads;
    if is_seen { Way::File } else { Way::Reload }
}

/// Whoever changes the settings, and looks what came of it.
struct Operator<'a> {
    stage: &'a Stage,
    admin: Admin,
    digits: Caller,
    dial: Caller,
    /// Numbers of the settings in force.
    setting: usize,
    position: usize,
    /// Under each setting, the arm of the first key.
    arms: Vec<String>,
}

impl<'a> Operator<'a> {
    async fn new(stage: &'a Stage) -> anyhow::Result<Self> {
        let admin = stage.admin()?;
        let (digits, dial) = (stage.caller(DIGITS).await?, stage.caller(DIAL).await?);
        Ok(Self { stage, admin, digits, dial, setting: 0, position: 0, arms: Vec::new() })
    }

    /// Goes through all settings and asks for every key who answers it.
    async fn learn(&mut self, keys: usize) -> anyhow::Result<Arms> {
        let mut arms = Arms::of(DIGITS);
        for number in 0..SETTINGS {
            self.setting = number;
            self.stage.write(&file(number))?;
            self.admin.reload().await.with_context(|| format!("setting {number}"))?;
            let mut answering = Vec::with_capacity(keys);
            for key in 0..keys as u64 {
                answering.push(self.digits.arm(Some(key)).await?);
            }
            self.arms.push(answering.first().context("there must be a key")?.clone());
            for arm in setting(number).arms {
                arms.add(&arm.name, &arm.version);
                let members = answering.iter().map(|answering| *answering == arm.name);
                arms.has_members(&arm.name, members.collect());
            }
        }
        Ok(arms)
    }

    /// Changes something; returns how long it took until the gateway said, or showed, that it is
    /// in force.
    async fn change(&mut self, way: Way) -> anyhow::Result<Duration> {
        if way == Way::Set {
            self.position += 1;
            let (left, right) = position(self.position);
            let started = Instant::now();
            self.admin.set(DIAL, &[("left", &left), ("right", &right)]).await?;
            return Ok(started.elapsed());
        }
        self.setting = (self.setting + 1) % SETTINGS;
        let wanted = setting(self.setting);
        let started = Instant::now();
        self.stage.write(&file(self.setting))?;
        if way == Way::Reload {
            self.admin.reload().await?;
            return Ok(started.elapsed());
        }
        loop {
            let found = self.admin.route(DIGITS).await?;
            if found.arms.iter().any(|arm| arm.name == wanted.arms[0].name) {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < UNSEEN, "the changed file was not seen in {UNSEEN:?}");
            sleep(LOOK).await;
        }
    }

    /// Whether a call meets the settings that were made last.
    async fn is_fresh(&mut self, way: Way) -> anyhow::Result<bool> {
        if way != Way::Set {
            return Ok(self.digits.arm(Some(0)).await? == self.arms[self.setting]);
        }
        let arm = self.dial.arm(Some(0)).await?;
        // At other positions either may be right.
        Ok(match position(self.position).0.as_str() {
            "100%" => arm == "left",
            "0%" => arm == "right",
            _ => true,
        })
    }
}

/// The load on both routes.
struct Both {
    digits: Running,
    dial: Running,
}

impl Both {
    async fn start(
        stage: &Stage,
        arguments: &Arguments,
        arms: &Arms,
        expected: &Arc<Expected>,
    ) -> anyhow::Result<Self> {
        let mut dial = Arms::of(DIAL);
        dial.add("left", "1");
        dial.add("right", "2");
        let keys = arguments.keys;
        let mut digits = stage.route_load(DIGITS, keys, arms.clone(), expected).await?;
        let mut dial = stage.route_load(DIAL, keys, dial, expected).await?;
        dial.callers = arguments.callers / 2;
        digits.callers = arguments.callers - dial.callers;
        Ok(Self { digits: digits.start(Limit::Stop).await?, dial: dial.start(Limit::Stop).await? })
    }

    fn mark_change(&self) {
        self.digits.mark_change();
        self.dial.mark_change();
    }

    async fn finish(self) -> anyhow::Result<Recording> {
        let mut all = self.digits.finish().await?.measured();
        all.join(&self.dial.finish().await?.measured());
        Ok(all)
    }
}

impl Soak {
    fn changes(&self) -> u64 {
        self.times.iter().map(Histogram::len).sum()
    }

    /// How often the file came to be in force.
    fn reloads(&self) -> u64 {
        self.times[Way::Reload as usize].len() + self.times[Way::File as usize].len()
    }

    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        let total = self.recording.recorder.total();
        verdict.holds(total.failed == 0, || format!("{} calls failed", total.failed));
        verdict.holds(total.mismatches == 0, || {
            let first = total.mismatch.as_deref().unwrap_or_default();
            format!("{} wrong or mixed answers, first: {first}", total.mismatches)
        });
        verdict.holds(total.checked == total.answered && total.answered > 0, || {
            format!("{} of {} answers checked", total.checked, total.answered)
        });
        verdict.holds(self.stale == 0, || format!("{} changes were not in force", self.stale));
        let (silent, changes) = (&self.silent, self.changes());
        verdict.holds(silent.is_empty(), || format!("these arms never answered: {silent:?}"));
        verdict.holds(self.revisions == changes, || {
            format!("{} revisions for {changes} changes", self.revisions)
        });
        verdict.excludes(self.memory.broken());
        verdict
    }

    fn text(&self) -> String {
        let during = self.recording.recorder.phase(Phase::During);
        let mut rows = Vec::new();
        for (name, times) in ["by hand", "reload", "file alone"].iter().zip(&self.times) {
            rows.push(row(&[name, &report::times(times)]));
        }
        let stale = format!("{} changes after which the settings before answered", self.stale);
        rows.extend([
            row(&["stale", &stale]),
            row(&["reloads", &format!("{} of {} changes", self.reloads(), self.changes())]),
            row(&["revisions", &self.revisions.to_string()]),
            row(&["arms", &format!("{:?}", self.recording.recorder.total().arms)]),
            row(&[
                "during",
                &format!("p99 {} of calls that met one", micros(during.quantile(0.99))),
            ]),
            row(&["memory", &self.memory.text()]),
        ]);
        format!("{}\n{}", report::recording(&self.recording), table(&rows))
    }

    fn json(&self) -> Value {
        let times = |way: Way| report::times_json(&self.times[way as usize]);
        let during = self.recording.recorder.phase(Phase::During);
        json!({
            "changes": self.changes(),
            "reloads": self.reloads(),
            "change_us": {
                "set": times(Way::Set), "reload": times(Way::Reload), "file": times(Way::File),
            },
            "stale": self.stale,
            "revisions": self.revisions,
            "load": report::recording_json(&self.recording),
            "during_changes_p99_us": during.quantile(0.99),
            "resident_bytes": self.memory.json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn changes_through_the_file_are_spread_over_all() {
        let text = ["", "--reloads", "1000", "--through-file", "30"];
        let arguments = Command::parse_from(text).arguments;
        let ways: Vec<Way> = (1..=1000).map(|count| way(count, &arguments)).collect();
        let count = |way| ways.iter().filter(|known| **known == way).count();
        assert_eq!((count(Way::File), count(Way::Reload)), (30, 970), "none of them by hand");
        assert_eq!(ways[..500].iter().filter(|way| **way == Way::File).count(), 15);
    }
}
