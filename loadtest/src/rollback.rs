//! One command back: how long it takes until calls meet the restored split, and what is left of it
//! when the process is killed in the middle.

use std::time::Duration;

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::arrivals::Arrivals;
use crate::check::Arms;
use crate::configuration::Route;
use crate::plan::{Drive, Limit, LoadStage};
use crate::recorder::{histogram, record};
use crate::recording::Recording;
use crate::report::{self, row, table};
use crate::repository::RepositoryCopy;
use crate::stage::{Caller, DIGITS, Scene, Stage};
use crate::verdict::Verdict;

mod kills;
mod split;

/// What has to hold of the time until a call meets the restored split.
const IN_FORCE: Duration = Duration::from_millis(50);

/// The arms, each with its version.
const ARMS: [(&str, &str); 2] = [("stable", "1"), ("canary", "2")];
const KEYS: usize = 1000;
/// Calls in flight at most.
const IN_FLIGHT: usize = 64;
/// How long a rollback may go unseen before the program gives up.
const UNSEEN: Duration = Duration::from_secs(30);

/// How often, and under which load.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// Rollbacks that are timed
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub rollbacks: usize,
    /// How often the process is killed around a change
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub kills: usize,
    /// Calls a second meanwhile, at random moments
    #[arg(long, value_name = "RATE", default_value_t = 300.0)]
    pub rate: f64,
    /// What the moments of the kills are drawn with
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
    /// Print the times, but do not hold them against what is demanded
    #[arg(long)]
    pub lenient: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What the timed rollbacks gave.
#[derive(Debug)]
struct Timed {
    /// Until the call was answered, and until a call met the restored split, in microseconds.
    answered: Histogram<u64>,
    in_force: Histogram<u64>,
    /// Rollbacks after which the split was another one than before.
    unlike: usize,
    load: Recording,
}

/// Times rollbacks, then kills; prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or refuses a change.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let repository = RepositoryCopy::of(&arguments.scene.repository)?;
    repository.serve_only(DIGITS, &[1, 2])?;
    let [stable, canary] = ARMS;
    let route = Route::named(DIGITS).arm(stable.0, (DIGITS, stable.1), "95%").arm(
        canary.0,
        (DIGITS, canary.1),
        "5%",
    );
    let stage = Stage::with_routes(&arguments.scene, repository, vec![route]).await?;
    let timed = time(&stage, arguments).await.map_err(|error| stage.explain(&error))?;
    let (stage, kills) = kills::perform(stage, arguments, timed.typical()).await?;
    let (status, _) = stage.gateway.stop().await?;
    let mut verdict = timed.verdict(arguments);
    verdict.excludes(kills.broken());
    verdict.holds(status.success(), || format!("the gateway's {status}"));
    let mut figures = timed.json();
    figures["kills"] = kills.json();
    let text = table(&[timed.rows(), kills.rows()].concat());
    Ok(verdict.conclude(arguments.json, figures, &text))
}

/// Both arms, with what must answer there.
fn arms() -> Arms {
    let mut arms = Arms::of(DIGITS);
    ARMS.iter().for_each(|(arm, version)| arms.add(arm, version));
    arms
}

/// Calls at a rate until they are stopped.
fn steady(rate: f64) -> LoadStage {
    let (arrivals, bound) = (Arrivals::Poisson, IN_FLIGHT);
    let drive = Drive::Open { from: rate, to: rate, arrivals, bound };
    LoadStage { name: "steady".to_owned(), drive, limit: Limit::Stop, warm_up: false }
}

async fn time(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Timed> {
    ensure!(arguments.rollbacks > 0, "there must be a rollback");
    let expected = stage.answers_of(&["1", "2"]).await?;
    let load = stage.route_load(DIGITS, KEYS, arms(), &expected).await?;
    let running = load.begin(vec![steady(arguments.rate)]).await?;
    let (mut admin, mut caller) = (stage.admin()?, stage.caller(DIGITS).await?);
    let before = admin.route(DIGITS).await?;
    let key = first_of(&mut caller, "stable").await?;
    let (mut answered, mut in_force, mut unlike) = (histogram(), histogram(), 0);
    for _ in 0..arguments.rollbacks {
        admin.set(DIGITS, &[("stable", "0%"), ("canary", "100%")]).await?;
        let arm = caller.arm(Some(key)).await?;
        ensure!(arm == "canary", "after everybody was moved to canary, {arm} answered");
        let started = Instant::now();
        let back = async {
            admin.rollback().await?;
            anyhow::Ok(started.elapsed())
        };
        let seen = async {
            while caller.arm(Some(key)).await? != "stable" {
                ensure!(started.elapsed() < UNSEEN, "no call meets the rollback");
                sleep(Duration::from_micros(200)).await;
            }
            anyhow::Ok(started.elapsed())
        };
        let (answer, seen) = tokio::try_join!(back, seen)?;
        record(&mut answered, answer);
        record(&mut in_force, seen);
        unlike += usize::from(admin.route(DIGITS).await?.arms != before.arms);
    }
    Ok(Timed { answered, in_force, unlike, load: running.finish().await?.measured() })
}

/// The first key that an arm answers.
async fn first_of(caller: &mut Caller, wanted: &str) -> anyhow::Result<u64> {
    for key in 0..KEYS as u64 {
        if caller.arm(Some(key)).await? == wanted {
            return Ok(key);
        }
    }
    None.with_context(|| format!("none of {KEYS} keys belongs to {wanted}"))
}

impl Timed {
    /// What a change takes as a rule.
    fn typical(&self) -> Duration {
        Duration::from_micros(self.answered.value_at_quantile(0.5))
    }

    fn verdict(&self, arguments: &Arguments) -> Verdict {
        let mut verdict = Verdict::default();
        // What this program itself did not send in time is no fault of the gateway.
        let total = self.load.recorder.total();
        verdict.holds(total.failed == 0, || {
            let kinds = total
                .errors
                .iter()
                .map(|(kind, found)| format!("{} {kind} (first: {})", found.count, found.example));
            let kinds: Vec<String> = kinds.collect();
            format!("{} of {} calls failed: {}", total.failed, total.requests(), kinds.join(", "))
        });
        verdict.holds(total.mismatches == 0, || {
            let first = total.mismatch.as_deref().unwrap_or_default();
            format!("{} wrong answers, first: {first}", total.mismatches)
        });
        verdict.holds(total.answered > 0, || "no call was answered meanwhile".to_owned());
        verdict.holds(self.unlike == 0, || {
            format!("{} rollbacks restored another split than there was", self.unlike)
        });
        let p99 = Duration::from_micros(self.in_force.value_at_quantile(0.99));
        verdict.holds(arguments.lenient || p99 <= IN_FORCE, || {
            format!("p99 {p99:?} until a rollback is in force, above {IN_FORCE:?}")
        });
        verdict
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let total = self.load.recorder.total();
        let calls = format!(
            "{}, {} failed, {} wrong, {} more were due and not sent",
            total.requests(),
            total.failed,
            total.mismatches,
            self.load.sending.dropped,
        );
        vec![
            row(&["rollback answered", &report::times(&self.answered)]),
            row(&["rollback in force", &report::times(&self.in_force)]),
            row(&["calls", &calls]),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "rollbacks": self.in_force.len(),
            "answered_us": report::times_json(&self.answered),
            "in_force_us": report::times_json(&self.in_force),
            "unlike": self.unlike,
            "load": report::recording_json(&self.load),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::recorder::Phase;

    #[derive(Debug, clap::Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_was_not_sent_is_no_failure_and_a_failure_is_told_in_words() {
        let arguments = Command::parse_from(["", "--lenient"]).arguments;
        let (answered, in_force, mut load) = (histogram(), histogram(), Recording::default());
        load.recorder.of(Phase::During).answer(Duration::from_millis(1), 1, "1");
        load.sending.dropped = 7;
        let mut timed = Timed { answered, in_force, unlike: 0, load };
        assert_eq!(timed.verdict(&arguments).broken(), [""; 0]);
        timed.load.recorder.of(Phase::During).fail("HTTP 503".into(), || "full".to_owned());
        let told = timed.verdict(&arguments);
        assert_eq!(told.broken(), ["1 of 2 calls failed: 1 HTTP 503 (first: full)"]);
    }
}
