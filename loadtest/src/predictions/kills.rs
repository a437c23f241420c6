//! The gateway is killed at random moments under load, again and again, on the same log; now and
//! then while its disk is full or stalls.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::random::Random;
use crate::report::row;

use super::Arguments;
use super::callers::{Crowd, Tally};
use super::ledger::{self, Audit, Ledger, Prediction};
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
/// So that lossy rows are lost for no other reason: where the disk was well and none was dropped,
/// rows of what callers saw just before the kill alone may be missing.
const RECENT: Duration = Duration::from_millis(500);
/// How long between two looks at what the gateway counts: what is counted after the last one, the
/// kill takes.
const LOOK: Duration = Duration::from_millis(5);

/// What the kills left.
#[derive(Debug)]
pub(super) struct Kills {
    guarantee: Guarantee,
    callers: u64,
    losses: Vec<Loss>,
    answered: Vec<(Prediction, Instant)>,
    nameless: u64,
    /// Answers that were there and are not any more once all is converted, or now twice.
    finally_missing: u64,
    doubled: u64,
    rows: u64,
    damage: Vec<String>,
}

/// What the gateway counted when it was asked last before its kill.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// When it was asked.
    at: Instant,
    /// Rows that found no room.
    dropped: u64,
    /// Rows that were not written yet.
    waiting: u64,
}

/// What one kill took.
#[derive(Debug)]
struct Loss {
    mood: Mood,
    /// Answers without a row.
    missing: u64,
    /// As the gateway counted them.
    dropped: u64,
    waiting: u64,
    /// Answers that came after it was asked.
    late: u64,
    failed: u64,
    /// How long before the kill the first of what is missing was answered.
    oldest: Duration,
}

/// Kills, restarts and looks what is in the log.
///
/// # Errors
/// When a gateway does not come back, or the log cannot be read.
pub(super) async fn perform(arguments: &Arguments, guarantee: Guarantee) -> anyhow::Result<Kills> {
    let site = Site::new(&arguments.scene, arguments.identity)?.on_trial().await?;
    site.attempt(async |site| under_load(site, arguments, guarantee).await).await
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
    let mut kills = Kills::of(guarantee, arguments.callers as u64);
    let mut random = Random::new(arguments.seed);
    for number in 0..arguments.kills {
        let began_us = wall_us()? - MARGIN_US;
        site.start(&log).await.with_context(|| format!("start {}", number + 1))?;
        let mut look = Look { at: Instant::now(), dropped: 0, waiting: 0 };
        let crowd = Crowd::begin(site, arguments.callers).await?;
        let mut moment =
            Instant::now() + Duration::from_millis(EARLIEST + random.below(LATEST - EARLIEST));
        look.go_on(site, moment).await?;
        let mood = MOODS[number % MOODS.len()];
        if mood != Mood::Well {
            site.shim()?.be(mood)?;
            moment = Instant::now() + Duration::from_millis(random.below(LONGEST));
            look.go_on(site, moment).await?;
        }
        let killed = Instant::now();
        site.gateway()?.kill()?;
        crowd.end();
        site.bury().await?;
        site.shim()?.be(Mood::Well)?;
        let tally = crowd.finish().await?;
        // As the process left it; all of it is read once more in the end.
        let audit = Ledger::read(&site.log(), Some(began_us))?.audit(&tally.answered);
        kills.losses.push(Loss::of(&audit, &tally, (mood, look, killed)));
        kills.nameless += tally.nameless;
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

impl Look {
    /// Looks again and again, until a moment.
    async fn go_on(&mut self, site: &Site, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            let at = Instant::now();
            let counts = site.counts(["dropped_rows_total", "queue_rows"]);
            if let Ok(counts) = timeout_at(until, counts).await {
                let [dropped, waiting] = counts?;
                *self = Self { at, dropped, waiting };
            }
            sleep_until(until.min(at + LOOK)).await;
        }
        Ok(())
    }
}

impl Loss {
    fn of(audit: &Audit, tally: &Tally, (mood, look, killed): (Mood, Look, Instant)) -> Self {
        let first = audit.missing.iter().min();
        Self {
            mood,
            missing: audit.missing.len() as u64,
            dropped: look.dropped,
            waiting: look.waiting,
            late: tally.answered.iter().filter(|(_, at)| *at >= look.at).count() as u64,
            failed: tally.failed(),
            oldest: first.map(|at| killed.saturating_duration_since(*at)).unwrap_or_default(),
        }
    }

    /// What was lost though it is not counted as dropped.
    const fn uncounted(&self) -> u64 {
        self.missing.saturating_sub(self.dropped)
    }

    fn json(&self) -> Value {
        json!({
            "disk": self.mood.word(),
            "missing": self.missing,
            "dropped_counted": self.dropped,
            "waiting_counted": self.waiting,
            "answered_since": self.late,
            "missing_oldest_seconds": self.oldest.as_secs_f64(),
        })
    }

    /// What cannot be, of a lossy log, with so many callers.
    fn broken(&self, callers: u64, lenient: bool) -> Option<String> {
        let Self { missing, dropped, waiting, late, failed, oldest, .. } = self;
        // A caller's last answer may be ahead of its row by a moment.
        let most = dropped + waiting + late + callers;
        if *missing > most {
            return Some(format!(
                "{missing} rows were lost at once; {dropped} were dropped, {waiting} waited and \
                 {late} calls were answered since that was counted"
            ));
        }
        // Those who ask for room and are refused it have taken it for a moment.
        if *waiting > QUEUE + callers {
            return Some(format!("{waiting} rows waited, of {QUEUE} that may"));
        }
        // Its call may have been under way still.
        if *dropped > missing + failed {
            return Some(format!("{dropped} rows are counted as dropped, {missing} are missing"));
        }
        let is_plain = self.mood == Mood::Well && *dropped == 0;
        (is_plain && !lenient && *oldest > RECENT)
            .then(|| format!("a lost row was answered {oldest:?} before the kill"))
    }
}

impl Kills {
    const fn of(guarantee: Guarantee, callers: u64) -> Self {
        Self {
            guarantee,
            callers,
            losses: Vec::new(),
            answered: Vec::new(),
            nameless: 0,
            finally_missing: 0,
            doubled: 0,
            rows: 0,
            damage: Vec::new(),
        }
    }

    fn sum(&self, of: impl Fn(&Loss) -> u64) -> u64 {
        self.losses.iter().map(of).sum()
    }

    fn most(&self, of: impl Fn(&Loss) -> u64) -> u64 {
        self.losses.iter().map(of).max().unwrap_or(0)
    }

    pub(super) fn broken(&self, lenient: bool) -> Vec<String> {
        let word = self.guarantee.word();
        let mut broken = Vec::new();
        let mut holds = |good: bool, text: String| {
            if !good {
                broken.push(format!("kills, {word}: {text}"));
            }
        };
        holds(self.answered.len() > self.losses.len(), "hardly a call was answered".to_owned());
        holds(self.nameless == 0, format!("{} answers had no id", self.nameless));
        let missing = self.sum(|loss| loss.missing);
        match self.guarantee {
            Guarantee::Durable => holds(missing == 0, format!("{missing} answers have no row")),
            Guarantee::Lossy => {
                let losses = self.losses.iter();
                for text in losses.filter_map(|loss| loss.broken(self.callers, lenient)) {
                    holds(false, text);
                }
            }
        }
        let gone = self.finally_missing;
        holds(gone == missing, format!("{missing} rows were missing, {gone} in the end"));
        holds(self.doubled == 0, format!("{} rows are there twice", self.doubled));
        let damage = self.damage.first().cloned().unwrap_or_default();
        holds(self.damage.is_empty(), format!("the log is damaged: {damage}"));
        broken
    }

    pub(super) fn line(&self) -> Vec<String> {
        let Self { losses, doubled, rows, .. } = self;
        let missing = self.sum(|loss| loss.missing);
        let mut text = format!(
            "{} kills, {} answers, {rows} rows; {missing} missing, {doubled} twice",
            losses.len(),
            self.answered.len()
        );
        if missing > 0 {
            text += &format!(
                "; {} of them counted as dropped before, {} others at most by one kill, where {} \
                 waited at most",
                self.sum(|loss| loss.dropped.min(loss.missing)),
                self.most(Loss::uncounted),
                self.most(|loss| loss.waiting),
            );
        }
        row(&[&format!("killed, {}", self.guarantee.word()), &text])
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "guarantee": self.guarantee.word(),
            "kills": self.losses.len(),
            "answered": self.answered.len(),
            "rows": self.rows,
            "missing": self.sum(|loss| loss.missing),
            "missing_at_once": self.most(|loss| loss.missing),
            "dropped_counted": self.sum(|loss| loss.dropped),
            "uncounted_at_once": self.most(Loss::uncounted),
            "doubled": self.doubled,
            "damage": self.damage,
            "each": self.losses.iter().map(Loss::json).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLERS: u64 = 24;

    /// A kill of a full disk, as it can be.
    fn loss() -> Loss {
        let (missing, dropped, waiting) = (5784, 1588, QUEUE);
        let oldest = Duration::from_millis(180);
        Loss { mood: Mood::Full, missing, dropped, waiting, late: 108, failed: 20, oldest }
    }

    fn is_broken(loss: &Loss) -> bool {
        loss.broken(CALLERS, false).is_some()
    }

    #[test]
    fn a_kill_takes_what_waited_and_what_came_since_beside_what_was_dropped() {
        assert!(!is_broken(&loss()));
        assert_eq!(loss().uncounted(), 4196);
        let most = 1588 + QUEUE + 108 + CALLERS;
        assert!(!is_broken(&Loss { missing: most, ..loss() }));
        assert!(is_broken(&Loss { missing: most + 1, ..loss() }));
        // Rows that the writer holds count as waiting.
        assert!(is_broken(&Loss { dropped: 0, waiting: 0, missing: 2000, ..loss() }));
        assert!(is_broken(&Loss { waiting: QUEUE + CALLERS + 1, ..loss() }));
        // Nothing is counted as dropped that is there.
        assert!(is_broken(&Loss { missing: 1567, ..loss() }));
        assert!(!is_broken(&Loss { missing: 1568, ..loss() }));
    }

    #[test]
    fn a_disk_that_is_well_loses_recent_rows_alone() {
        let well = Loss {
            mood: Mood::Well,
            missing: 90,
            dropped: 0,
            waiting: 80,
            oldest: RECENT + Duration::from_millis(1),
            ..loss()
        };
        assert!(is_broken(&well));
        assert_eq!(well.broken(CALLERS, true), None);
        assert!(!is_broken(&Loss { oldest: RECENT, ..well }));
    }
}
