//! The gateway is killed at random moments under load, again and again, on the same log; now and
//! then while its disk is full or stalls.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::random::Random;
use crate::report::row;

use super::Arguments;
use super::callers::Crowd;
use super::ledger::{self, Ledger, Prediction};
use super::shim::Mood;
use super::site::{Guarantee, Site};

/// When the process is killed, counted from the first call.
const EARLIEST: u64 = 30;
const LATEST: u64 = 500;
/// How the disk is when it is killed, in turns, and for how long it has been so at most.
const MOODS: [Mood; 3] = [Mood::Well, Mood::Full, Mood::Stalled];
const LONGEST: u64 = 200;
/// Calls before this, at the clock of the gateway, are of an earlier round.
const MARGIN_US: i64 = 2_000_000;
/// Rows that may wait, and so be lost with the process.
const QUEUE: u64 = 4096;
/// So that lossy rows are lost for no other reason: where the disk was well, rows of what callers
/// saw just before the kill alone may be missing.
const RECENT: Duration = Duration::from_millis(500);

/// What the kills left.
#[derive(Debug)]
pub(super) struct Kills {
    guarantee: Guarantee,
    kills: usize,
    answered: Vec<(Prediction, Instant)>,
    nameless: u64,
    /// Answers without a row, in all and of one kill at most.
    missing: u64,
    most: u64,
    /// How long before its kill the first of them had come, where the disk was well.
    oldest: Duration,
    /// Answers that were there and are not any more once all is converted, or now twice.
    finally_missing: u64,
    doubled: u64,
    rows: u64,
    damage: Vec<String>,
}

/// Kills, restarts and looks what is in the log.
///
/// # Errors
/// When a gateway does not come back, or the log cannot be read.
pub(super) async fn perform(arguments: &Arguments, guarantee: Guarantee) -> anyhow::Result<Kills> {
    let site = Site::new(&arguments.scene, arguments.identity)?;
    let mut site = site.on_trial().await?;
    let result = under_load(&mut site, arguments, guarantee).await;
    result.map_err(|error| site.explain(&error))
}

async fn under_load(
    site: &mut Site,
    arguments: &Arguments,
    guarantee: Guarantee,
) -> anyhow::Result<Kills> {
    // Small and young segments, so that kills meet their ends and conversion too.
    let log = format!(
        "guarantee = \"{}\"\nfsync = \"never\"\nqueue_rows = {QUEUE}\nsegment_age = \"200ms\"\n\
         segment_size = \"256KiB\"\nmin_free = \"0B\"\n",
        guarantee.word()
    );
    let mut kills = Kills::of(guarantee);
    let mut random = Random::new(arguments.seed);
    for number in 0..arguments.kills {
        let began_us = wall_us()? - MARGIN_US;
        site.start(&log).await.with_context(|| format!("start {}", number + 1))?;
        let crowd = Crowd::begin(site, arguments.callers).await?;
        sleep(Duration::from_millis(EARLIEST + random.below(LATEST - EARLIEST))).await;
        let mood = MOODS[number % MOODS.len()];
        let shim = site.shim.as_ref().context("the disk is on trial")?;
        if mood != Mood::Well {
            shim.be(mood)?;
            sleep(Duration::from_millis(random.below(LONGEST))).await;
        }
        let killed = Instant::now();
        site.gateway()?.kill()?;
        crowd.end();
        site.bury().await?;
        site.shim.as_ref().context("the disk is on trial")?.be(Mood::Well)?;
        let tally = crowd.finish().await?;
        // As the process left it; all of it is read once more in the end.
        let audit = Ledger::read(&site.log(), Some(began_us))?.audit(&tally.answered);
        kills.kills += 1;
        kills.nameless += tally.nameless;
        kills.missing += audit.missing.len() as u64;
        kills.most = kills.most.max(audit.missing.len() as u64);
        let oldest = audit.missing.iter().min().map(|at| killed.saturating_duration_since(*at));
        if mood == Mood::Well {
            kills.oldest = kills.oldest.max(oldest.unwrap_or_default());
        }
        kills.doubled += audit.doubled;
        kills.answered.extend(tally.answered);
    }
    site.convert(&log).await?;
    let last = Ledger::read(&site.log(), None)?;
    let audit = last.audit(&kills.answered);
    kills.finally_missing = audit.missing.len() as u64;
    kills.doubled += audit.doubled + last.doubled() as u64;
    kills.rows = last.total;
    kills.damage = ledger::damage(&site.log())?;
    Ok(kills)
}

fn wall_us() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

impl Kills {
    const fn of(guarantee: Guarantee) -> Self {
        Self {
            guarantee,
            kills: 0,
            answered: Vec::new(),
            nameless: 0,
            missing: 0,
            most: 0,
            oldest: Duration::ZERO,
            finally_missing: 0,
            doubled: 0,
            rows: 0,
            damage: Vec::new(),
        }
    }

    pub(super) fn broken(&self, lenient: bool) -> Vec<String> {
        let word = self.guarantee.word();
        let mut broken = Vec::new();
        let mut holds = |good: bool, text: String| {
            if !good {
                broken.push(format!("kills, {word}: {text}"));
            }
        };
        holds(self.answered.len() > self.kills, "hardly a call was answered".to_owned());
        holds(self.nameless == 0, format!("{} answers had no id", self.nameless));
        match self.guarantee {
            Guarantee::Durable => {
                holds(self.missing == 0, format!("{} answers have no row", self.missing));
            }
            Guarantee::Lossy => {
                let most = self.most;
                holds(
                    most <= QUEUE,
                    format!("{most} rows were lost at once, of {QUEUE} that wait"),
                );
                let oldest = self.oldest;
                let recent = lenient || oldest <= RECENT;
                holds(recent, format!("a lost row was answered {oldest:?} before the kill"));
            }
        }
        let gone = self.finally_missing;
        holds(
            gone == self.missing,
            format!("{} rows were missing, {gone} in the end", self.missing),
        );
        holds(self.doubled == 0, format!("{} rows are there twice", self.doubled));
        let damage = self.damage.first().cloned().unwrap_or_default();
        holds(self.damage.is_empty(), format!("the log is damaged: {damage}"));
        broken
    }

    pub(super) fn line(&self) -> Vec<String> {
        let Self { kills, missing, most, oldest, doubled, rows, .. } = self;
        let mut text = format!(
            "{kills} kills, {} answers, {rows} rows; {missing} missing, {doubled} twice",
            self.answered.len()
        );
        if *missing > 0 {
            text += &format!("; {most} at most by one kill");
        }
        if !oldest.is_zero() {
            text += &format!(", answered up to {oldest:.1?} before one while the disk was well");
        }
        row(&[&format!("killed, {}", self.guarantee.word()), &text])
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "guarantee": self.guarantee.word(),
            "kills": self.kills,
            "answered": self.answered.len(),
            "rows": self.rows,
            "missing": self.missing,
            "missing_at_once": self.most,
            "missing_oldest_seconds": self.oldest.as_secs_f64(),
            "doubled": self.doubled,
            "damage": self.damage,
        })
    }
}
