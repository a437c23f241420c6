//! Less of the disk is free than the configuration wants: nothing is written until that is otherwise.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::report::row;

use super::Arguments;
use super::callers::{Crowd, Tally};
use super::ledger::Ledger;
use super::site::{Guarantee, Site};

/// More than any disk has.
const TOO_MUCH: &str = "1000000000GiB";
const LASTS: Duration = Duration::from_secs(2);
const QUEUE: u64 = 500;

/// What became of calls meanwhile and afterwards.
#[derive(Debug)]
pub(super) struct Room {
    /// With the log durable: nobody is answered whose row is not kept.
    durable: Tally,
    durable_missing: usize,
    /// With the log lossy: all are answered.
    lossy: Tally,
    dropped: u64,
    lossy_missing: usize,
    /// With enough room, on the same log.
    afterwards: Tally,
    afterwards_missing: usize,
}

/// Starts gateways that may not write, and one that may.
///
/// # Errors
/// When one does not start or stop.
pub(super) async fn perform(arguments: &Arguments) -> anyhow::Result<Room> {
    let site = Site::new(&arguments.scene, arguments.identity)?;
    site.attempt(async |site| under_load(site, arguments.callers).await).await
}

async fn under_load(site: &mut Site, callers: usize) -> anyhow::Result<Room> {
    let (durable, _) = calls(site, callers, (Guarantee::Durable, TOO_MUCH)).await?;
    let (lossy, dropped) = calls(site, callers, (Guarantee::Lossy, TOO_MUCH)).await?;
    let (afterwards, _) = calls(site, callers, (Guarantee::Durable, "0B")).await?;
    let ledger = Ledger::read(&site.log(), None)?;
    let missing = |tally: &Tally| ledger.audit(&tally.answered).missing.len();
    Ok(Room {
        durable_missing: missing(&durable),
        lossy_missing: missing(&lossy),
        afterwards_missing: missing(&afterwards),
        durable,
        lossy,
        dropped,
        afterwards,
    })
}

async fn calls(
    site: &mut Site,
    callers: usize,
    (guarantee, free): (Guarantee, &str),
) -> anyhow::Result<(Tally, u64)> {
    let log = format!(
        "guarantee = \"{}\"\nqueue_rows = {QUEUE}\ncommit_timeout = \"300ms\"\nmin_free = \"{free}\"\n",
        guarantee.word()
    );
    site.start(&log).await?;
    let crowd = Crowd::begin(site, callers).await?;
    sleep(LASTS).await;
    let tally = crowd.finish().await?;
    let dropped = site.count("dropped_rows_total").await?;
    site.stop().await?;
    Ok((tally, dropped))
}

impl Room {
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut holds = |good: bool, text: String| {
            if !good {
                broken.push(format!("room: {text}"));
            }
        };
        let answered = self.durable.answered.len();
        holds(answered == 0, format!("{answered} durable calls were answered without room"));
        holds(self.durable.failed() > 0, "no durable call was refused".to_owned());
        holds(self.durable_missing == 0, "a durable row is missing".to_owned());
        let failed = self.lossy.failed();
        holds(failed == 0, format!("{failed} lossy calls failed"));
        let (missing, dropped) = (self.lossy_missing as u64, self.dropped);
        // What waited at the end is written then.
        holds(missing == dropped, format!("{missing} rows are missing, {dropped} counted"));
        holds(dropped > 0, "no row was dropped: the trial shows nothing".to_owned());
        let failed = self.afterwards.failed();
        holds(failed == 0, format!("{failed} calls failed with enough room"));
        let answered = !self.afterwards.answered.is_empty();
        holds(answered && self.afterwards_missing == 0, "rows are missing afterwards".to_owned());
        broken
    }

    pub(super) fn line(&self) -> Vec<String> {
        let text = format!(
            "durable: {} refused, {} answered; lossy: {} answered, {} missing and {} counted as \
             dropped; with room again: {} answered, {} missing",
            self.durable.failed(),
            self.durable.answered.len(),
            self.lossy.answered.len(),
            self.lossy_missing,
            self.dropped,
            self.afterwards.answered.len(),
            self.afterwards_missing,
        );
        row(&["below min_free", &text])
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "durable": { "refused": self.durable.failed(), "answered": self.durable.answered.len() },
            "lossy": {
                "answered": self.lossy.answered.len(),
                "missing": self.lossy_missing,
                "dropped_counted": self.dropped,
            },
            "afterwards": {
                "answered": self.afterwards.answered.len(),
                "missing": self.afterwards_missing,
            },
        })
    }
}
