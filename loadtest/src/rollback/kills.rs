//! The process is killed around changes of a split, again and again, on the same state folder.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::admin::Admin;
use crate::random::Random;
use crate::report::row;
use crate::stage::{DIGITS, Stage};

use super::split::{around, is_moved, shares};
use super::{Arguments, KEYS, arms, steady};

/// Load before each kill.
const LEAD: Duration = Duration::from_millis(100);

/// What the kills left.
#[derive(Debug, Default)]
pub(super) struct Kills {
    /// Restarts with the split before the change, with that after it.
    old: usize,
    new: usize,
    /// With any other.
    third: Vec<String>,
    /// Changes that were confirmed and gone after the restart.
    lost: usize,
    /// Changes that were confirmed before the end.
    confirmed: usize,
    answered: u64,
    /// The first wrong answer, of any.
    mismatch: Option<String>,
}

/// Kills and restarts; hands back the last gateway.
///
/// # Errors
/// When a gateway does not come back, or refuses a change that nobody interrupts.
pub(super) async fn perform(
    mut stage: Stage,
    arguments: &Arguments,
    typical: Duration,
) -> anyhow::Result<(Stage, Kills)> {
    let mut kills = Kills::default();
    let mut random = Random::new(arguments.seed);
    let expected = stage.answers_of(&["1", "2"]).await?;
    for number in 0..arguments.kills as u64 {
        let moment = around(typical.max(Duration::from_millis(1)), &mut random);
        let mut admin = stage.admin()?;
        let first = admin.route(DIGITS).await?;
        let set = async |admin: &mut Admin, number: u64| {
            let (stable, canary) = shares(number);
            admin.set(DIGITS, &[("stable", &stable), ("canary", &canary)]).await
        };
        // So that there is something to go back to.
        set(&mut admin, 2 * number).await.context("a change before the kill")?;
        let before = admin.route(DIGITS).await?;
        let load = stage.route_load(DIGITS, KEYS, arms(), &expected).await?;
        let running = load.begin(vec![steady(arguments.rate)]).await?;
        sleep(LEAD).await;
        let goes_back = number % 2 == 0;
        let change = async {
            match goes_back {
                true => admin.rollback().await,
                false => set(&mut admin, 2 * number + 1).await,
            }
        };
        let kill = async {
            sleep(moment).await;
            stage.gateway.kill()
        };
        let (change, killed) = tokio::join!(change, kill);
        killed.map_err(|error| stage.explain(&error))?;
        // Calls fail now, but no answer may be wrong.
        let total = running.finish().await?.measured().recorder.total();
        kills.answered += total.answered;
        kills.mismatch = kills.mismatch.or(total.mismatch);
        stage = stage.revive().await.with_context(|| format!("restart {}", number + 1))?;
        let after = stage.admin()?.route(DIGITS).await?;
        let is_new = match goes_back {
            true => after.arms == first.arms,
            false => is_moved(&before, &after, ("canary", &shares(2 * number + 1).1)),
        };
        kills.confirmed += usize::from(change.is_ok());
        if is_new {
            kills.new += 1;
        } else if after.arms == before.arms {
            kills.old += 1;
            kills.lost += usize::from(change.is_ok());
        } else {
            kills.third.push(format!("{:?} after {:?}", after.arms, before.arms));
        }
    }
    Ok((stage, kills))
}

impl Kills {
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if let Some(first) = self.third.first() {
            broken.push(format!("{} splits nobody made, first: {first}", self.third.len()));
        }
        if self.lost > 0 {
            broken.push(format!("{} confirmed changes were lost", self.lost));
        }
        broken.extend(self.mismatch.iter().map(|text| format!("a wrong answer: {text}")));
        broken
    }

    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let Self { old, new, third, lost, confirmed, answered, .. } = self;
        let count = old + new + third.len();
        let text = format!(
            "{count}: {old} came back with the split before, {new} with the new one, {} with a third",
            third.len()
        );
        let confirmed = format!("{confirmed} before the kill, {lost} of them lost");
        vec![
            row(&["kills", &text]),
            row(&["confirmed", &confirmed]),
            row(&["answers", &format!("{answered} checked around the kills")]),
        ]
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "old": self.old,
            "new": self.new,
            "third": self.third,
            "confirmed": self.confirmed,
            "lost": self.lost,
            "answered": self.answered,
            "mismatch": self.mismatch,
        })
    }
}
