//! The log's disk is full, stalls, or fails to keep what was written, and then is well again.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::memory::Memory;
use crate::report::row;

use super::Arguments;
use super::callers::{Crowd, Tally};
use super::ledger::{self, Ledger};
use super::shim::{Mood, Shim};
use super::site::{Guarantee, Site};

/// Rows that may wait: few, so that a short stall already is a long one.
const QUEUE: u64 = 2000;
/// What durable calls wait for their row at most.
const COMMIT: Duration = Duration::from_millis(500);
/// What they may take beyond that on a machine with other work.
const SLACK: Duration = Duration::from_secs(2);
/// How long the disk is full, and fails to sync.
const SHORT: Duration = Duration::from_secs(3);
const WELL: Duration = Duration::from_millis(500);
/// How long the log may take until it is written again.
const RECOVERY: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(100);

/// What callers and the log made of a disk.
#[derive(Debug)]
pub(super) struct Disk {
    guarantee: Guarantee,
    phases: Vec<Phase>,
    seen: Tally,
    memory: Memory,
    /// Counted by the gateway.
    dropped: u64,
    uncommitted: u64,
    written: u64,
    /// Found out from outside.
    missing: u64,
    doubled: u64,
    rows: u64,
    damage: Vec<String>,
}

/// A time in which the disk was not well.
#[derive(Debug)]
struct Phase {
    mood: Mood,
    lasted: Duration,
    /// Calls of the gateway that met the disk then.
    met: u32,
    answered: usize,
    failed: u64,
    slowest_failure: Duration,
    slowest_answer: Duration,
    /// From its end until the log was written, and every call answered, again.
    recovery: Duration,
}

/// Has the disk be full, fail and stall, under load.
///
/// # Errors
/// When the gateway does not start or recover, or there is no C compiler.
pub(super) async fn perform(arguments: &Arguments, guarantee: Guarantee) -> anyhow::Result<Disk> {
    let site = Site::new(&arguments.scene, arguments.identity)?.on_trial().await?;
    site.attempt(async |site| under_load(site, arguments, guarantee).await).await
}

async fn under_load(
    site: &mut Site,
    arguments: &Arguments,
    guarantee: Guarantee,
) -> anyhow::Result<Disk> {
    let fsync = match guarantee {
        Guarantee::Durable => "always",
        Guarantee::Lossy => "interval",
    };
    let log = format!(
        "guarantee = \"{}\"\nfsync = \"{fsync}\"\nfsync_interval = \"100ms\"\n\
         queue_rows = {QUEUE}\ncommit_timeout = \"{}ms\"\nsegment_age = \"1s\"\nmin_free = \"0B\"\n",
        guarantee.word(),
        COMMIT.as_millis(),
    );
    site.start(&log).await?;
    let crowd = Crowd::begin(site, arguments.callers).await?;
    sleep(WELL).await;
    let before = site.gateway()?.resident_memory()?;
    let mut seen = crowd.take();
    let (mut phases, mut most) = (Vec::new(), before);
    let times = [(Mood::Full, SHORT), (Mood::Stalled, arguments.stall), (Mood::Unsynced, SHORT)];
    for (mood, lasts) in times {
        let (phase, memory) = trial(site, &crowd, (mood, lasts), &mut seen).await?;
        phases.push(phase);
        most = most.max(memory);
    }
    seen.append(crowd.finish().await?);
    site.falls("queue_rows", 0.0, RECOVERY).await?;
    let dropped = site.count("dropped_rows_total").await?;
    let uncommitted = site.count("uncommitted_calls_total").await?;
    let written = site.count("rows_total").await?;
    site.convert(&log).await?;
    let found = Ledger::read(&site.log(), None)?;
    let audit = found.audit(&seen.answered);
    Ok(Disk {
        guarantee,
        phases,
        memory: Memory { before, after: most },
        dropped,
        uncommitted,
        written,
        missing: audit.missing.len() as u64,
        doubled: audit.doubled + found.doubled() as u64,
        rows: found.total,
        damage: ledger::damage(&site.log())?,
        seen,
    })
}

/// Has the disk be in a mood for a while; the largest memory meanwhile.
async fn trial(
    site: &Site,
    crowd: &Crowd,
    (mood, lasts): (Mood, Duration),
    seen: &mut Tally,
) -> anyhow::Result<(Phase, u64)> {
    let shim = site.shim()?;
    seen.append(crowd.take());
    let began = Instant::now();
    shim.be(mood)?;
    let mut memory = 0;
    while began.elapsed() < lasts {
        sleep(LOOK).await;
        memory = memory.max(site.gateway()?.resident_memory()?);
    }
    let (lasted, met, tally) = (began.elapsed(), shim.met()?, crowd.take());
    let (answered, failed) = (tally.answered.len(), tally.failed());
    let (slowest_failure, slowest_answer) = (tally.slowest_failure, tally.slowest_answer);
    seen.append(tally);
    let recovery = recover(site, shim, crowd, seen).await?;
    let phase =
        Phase { mood, lasted, met, answered, failed, slowest_failure, slowest_answer, recovery };
    Ok((phase, memory))
}

/// Makes the disk well; how long it takes until that is noticed.
async fn recover(
    site: &Site,
    shim: &Shim,
    crowd: &Crowd,
    seen: &mut Tally,
) -> anyhow::Result<Duration> {
    let began = Instant::now();
    shim.be(Mood::Well)?;
    loop {
        sleep(LOOK).await;
        let tally = crowd.take();
        let good = tally.failed() == 0 && !tally.answered.is_empty();
        seen.append(tally);
        if good && site.figure("oldest_unsaved_seconds").await? < 1.0 {
            break;
        }
        let text = seen.failures.values().next().map(|(_, text)| text.as_str()).unwrap_or_default();
        ensure!(began.elapsed() < RECOVERY, "no recovery within {RECOVERY:?}: {text}");
    }
    let took = began.elapsed();
    sleep(WELL).await;
    Ok(took)
}

impl Disk {
    pub(super) fn broken(&self, lenient: bool) -> Vec<String> {
        let mut broken: Vec<String> =
            self.phases.iter().flat_map(|phase| phase.broken(self.guarantee, lenient)).collect();
        let mut holds = |good: bool, text: String| {
            if !good {
                broken.push(text);
            }
        };
        let Self { dropped, missing, uncommitted, written, rows, .. } = self;
        match self.guarantee {
            Guarantee::Durable => {
                holds(*missing == 0, format!("{missing} answers have no row"));
                let failed = self.seen.failed();
                let same = *uncommitted == failed;
                holds(same, format!("{failed} calls were refused, {uncommitted} are counted"));
                for (kind, (count, text)) in &self.seen.failures {
                    let known = matches!(kind.as_str(), "HTTP 503" | "gRPC Unavailable");
                    let known = known && text.contains("prediction log");
                    holds(known, format!("{count} calls failed with {kind}: {text}"));
                }
            }
            Guarantee::Lossy => {
                holds(missing == dropped, format!("{missing} rows are missing, {dropped} counted"));
                holds(*dropped > 0, "no row was dropped: the trial shows nothing".to_owned());
                holds(rows == written, format!("{written} rows were written, {rows} are there"));
                for (kind, (count, text)) in &self.seen.failures {
                    holds(false, format!("{count} calls failed with {kind}: {text}"));
                }
            }
        }
        holds(self.doubled == 0, format!("{} rows are there twice", self.doubled));
        let damage = self.damage.first().cloned().unwrap_or_default();
        holds(self.damage.is_empty(), format!("the log is damaged: {damage}"));
        broken.extend(self.memory.broken());
        let word = self.guarantee.word();
        broken.into_iter().map(|text| format!("disk, {word}: {text}")).collect()
    }

    pub(super) fn lines(&self) -> Vec<Vec<String>> {
        let word = self.guarantee.word();
        let Self { dropped, missing, doubled, rows, uncommitted, .. } = self;
        let mut lines: Vec<_> = self.phases.iter().map(|phase| phase.line(word)).collect();
        let text = format!(
            "{} answers, {rows} rows; {missing} missing and {dropped} counted as dropped, {doubled} \
             twice; {} refused and {uncommitted} counted; {}",
            self.seen.answered.len(),
            self.seen.failed(),
            self.memory.text(),
        );
        lines.push(row(&[&format!("disk, {word}"), &text]));
        lines
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "guarantee": self.guarantee.word(),
            "phases": self.phases.iter().map(Phase::json).collect::<Vec<_>>(),
            "answered": self.seen.answered.len(),
            "refused": self.seen.failed(),
            "refused_counted": self.uncommitted,
            "rows": self.rows,
            "missing": self.missing,
            "dropped_counted": self.dropped,
            "doubled": self.doubled,
            "damage": self.damage,
            "memory": self.memory.json(),
        })
    }
}

impl Phase {
    fn broken(&self, guarantee: Guarantee, lenient: bool) -> Vec<String> {
        let mut broken = Vec::new();
        let word = self.mood.word();
        if self.met == 0 {
            broken.push(format!("nobody met a disk that is {word}: the trial shows nothing"));
        }
        match guarantee {
            Guarantee::Durable if self.failed == 0 => {
                broken.push(format!("{word}: no call was refused, though nothing was kept"));
            }
            Guarantee::Durable if !lenient && self.slowest_failure > COMMIT + SLACK => {
                broken.push(format!("{word}: a refusal took {:?}", self.slowest_failure));
            }
            Guarantee::Lossy if self.answered == 0 => {
                broken.push(format!("{word}: no call was answered"));
            }
            Guarantee::Lossy if !lenient && self.slowest_answer > SLACK => {
                broken.push(format!("{word}: an answer took {:?}", self.slowest_answer));
            }
            _ => {}
        }
        broken
    }

    fn line(&self, guarantee: &str) -> Vec<String> {
        let text = format!(
            "for {:.1?}: {} answered (slowest {:.0?}), {} refused (slowest {:.0?}), again after {:.1?}",
            self.lasted,
            self.answered,
            self.slowest_answer,
            self.failed,
            self.slowest_failure,
            self.recovery,
        );
        row(&[&format!("{}, {guarantee}", self.mood.word()), &text])
    }

    fn json(&self) -> Value {
        json!({
            "disk": self.mood.word(),
            "lasted_seconds": self.lasted.as_secs_f64(),
            "met": self.met,
            "answered": self.answered,
            "refused": self.failed,
            "slowest_refusal_seconds": self.slowest_failure.as_secs_f64(),
            "slowest_answer_seconds": self.slowest_answer.as_secs_f64(),
            "recovery_seconds": self.recovery.as_secs_f64(),
        })
    }
}
