//! Many routes at once: a file with a thousand of them takes effect, and callers do not notice.

use std::time::Duration;

use anyhow::ensure;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::admin::Admin;
use crate::arrivals::Arrivals;
use crate::check::Arms;
use crate::configuration::{Configuration, Route};
use crate::plan::{Drive, Limit, LoadStage};
use crate::recorder::{histogram, record};
use crate::recording::Recording;
use crate::report::{self, micros, row, table};
use crate::repository::RepositoryCopy;
use crate::run::Load;
use crate::stage::{Caller, DIGITS, Scene, Stage};
use crate::stats;
use crate::verdict::Verdict;

/// What has to hold: until a call sees the new routes, and of the p99 beside that without.
const IN_FORCE: Duration = Duration::from_millis(100);
const P99_RATIO: f64 = 1.10;

const WARM_UP: Duration = Duration::from_secs(2);
/// Calls in flight at most.
const IN_FLIGHT: usize = 256;
const KEYS: usize = 1000;

/// What to reload, and under which load.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    pub scene: Scene,
    /// Routes in the file
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub routes: usize,
    /// Calls a second, at random moments
    #[arg(long, value_name = "RATE", default_value_t = 500.0)]
    pub rate: f64,
    /// Reloads in each window with some; each changes every route
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub reloads: usize,
    /// How long each window is
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    #[arg(default_value = "20s")]
    pub duration: Duration,
    /// Windows with reloads, and as many without, in turns
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub rounds: usize,
    /// Print the times, but do not hold them against what is demanded
    #[arg(long)]
    pub lenient: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What came of it.
#[derive(Debug)]
struct Crowd {
    arguments: Arguments,
    /// Until the call to reload was answered, and until a call met the new routes.
    answered: Histogram<u64>,
    in_force: Histogram<u64>,
    quiet: Vec<Recording>,
    reloading: Vec<Recording>,
}

/// Reloads, prints and says whether all is well.
///
/// # Errors
/// When the gateway does not start or refuses a file.
pub async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    ensure!(arguments.reloads > 0 && arguments.rounds > 0, "there must be a reload and a round");
    let repository = RepositoryCopy::of(&arguments.scene.repository)?;
    repository.serve_only(DIGITS, &[1, 2])?;
    let routes = vec![divided(DIGITS, 0)];
    let stage = Stage::with_routes(&arguments.scene, repository, routes).await?;
    let crowd = crowd(&stage, arguments).await.map_err(|error| stage.explain(&error))?;
    let (status, _) = stage.gateway.stop().await?;
    let mut verdict = crowd.verdict();
    verdict.holds(status.success(), || format!("the gateway's {status}"));
    Ok(verdict.conclude(arguments.json, crowd.json(), &crowd.text()))
}

/// A route of one of two settings, between which everything differs.
fn divided(name: &str, setting: usize) -> Route {
    let (one, two) = ((DIGITS, "1"), (DIGITS, "2"));
    match setting % 2 {
        0 => Route::named(name).salt("a").arm("stable-a", one, "90%").arm("canary-a", two, "10%"),
        _ => Route::named(name).salt("b").arm("stable-b", two, "50%").arm("canary-b", one, "50%"),
    }
}

/// The route under load and all others, in one setting.
fn all(count: usize, setting: usize) -> Vec<Route> {
    let others = (1..count).map(|number| divided(&format!("route-{number:04}"), setting));
    others.chain([divided(DIGITS, setting)]).collect()
}

async fn crowd(stage: &Stage, arguments: &Arguments) -> anyhow::Result<Crowd> {
    let expected = stage.answers_of(&["1", "2"]).await?;
    let mut arms = Arms::of(DIGITS);
    for arm in (0..2).flat_map(|setting| divided(DIGITS, setting).arms) {
        arms.add(&arm.name, &arm.version);
    }
    let load = stage.route_load(DIGITS, KEYS, arms, &expected).await?;
    let mut crowd = Crowd {
        arguments: arguments.clone(),
        answered: histogram(),
        in_force: histogram(),
        quiet: Vec::new(),
        reloading: Vec::new(),
    };
    let (admin, caller) = (stage.admin()?, stage.caller(DIGITS).await?);
    // Made before the windows: whoever writes the file is not what is measured.
    let text = |setting| Configuration::of(all(arguments.routes, setting)).text();
    let texts = [text(0)?, text(1)?];
    let mut reloader = Reloader { stage, admin, caller, texts, setting: 0 };
    // The first brings the routes, all others change them.
    crowd.reload(&mut reloader).await?;
    load.begin(vec![window(arguments, WARM_UP)]).await?.finish().await?;
    for _ in 0..arguments.rounds {
        let quiet = load.begin(vec![window(arguments, arguments.duration)]).await?;
        crowd.quiet.push(quiet.finish().await?.measured());
        let busy = crowd.busy_window(&load, &mut reloader).await?;
        crowd.reloading.push(busy);
    }
    Ok(crowd)
}

fn window(arguments: &Arguments, time: Duration) -> LoadStage {
    let (rate, arrivals, bound) = (arguments.rate, Arrivals::Poisson, IN_FLIGHT);
    let drive = Drive::Open { from: rate, to: rate, arrivals, bound };
    LoadStage { name: "window".to_owned(), drive, limit: Limit::Time(time), warm_up: false }
}

/// Whoever reloads, and looks when it is in force.
struct Reloader<'a> {
    stage: &'a Stage,
    admin: Admin,
    caller: Caller,
    /// The file in either setting.
    texts: [String; 2],
    setting: usize,
}

impl Reloader<'_> {
    /// Changes every route; returns how long it took until the answer, and until a call met it.
    async fn reload(&mut self) -> anyhow::Result<(Duration, Duration)> {
        self.setting += 1;
        let arms = divided(DIGITS, self.setting).arms;
        let (admin, caller) = (&mut self.admin, &mut self.caller);
        self.stage.write_text(&self.texts[self.setting % 2])?;
        let started = Instant::now();
        let reload = async {
            admin.reload().await?;
            anyhow::Ok(started.elapsed())
        };
        let seen = async {
            loop {
                let arm = caller.arm(None).await?;
                if arms.iter().any(|known| known.name == arm) {
                    return anyhow::Ok(started.elapsed());
                }
                ensure!(started.elapsed() < Duration::from_secs(60), "no call sees the reload");
                sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::try_join!(reload, seen)
    }
}

impl Crowd {
    async fn reload(&mut self, reloader: &mut Reloader<'_>) -> anyhow::Result<()> {
        let (answered, in_force) = reloader.reload().await?;
        record(&mut self.answered, answered);
        record(&mut self.in_force, in_force);
        Ok(())
    }

    /// A window with reloads at even distances.
    async fn busy_window(
        &mut self,
        load: &Load,
        reloader: &mut Reloader<'_>,
    ) -> anyhow::Result<Recording> {
        let Arguments { reloads, duration, .. } = self.arguments;
        let running = load.begin(vec![window(&self.arguments, duration)]).await?;
        let distance = duration / u32::try_from(reloads + 1)?;
        let mut due = Instant::now();
        for _ in 0..reloads {
            due += distance;
            sleep_until(due).await;
            self.reload(reloader).await?;
        }
        Ok(running.finish().await?.measured())
    }

    /// In each round, the p99 with reloads beside that without.
    fn ratios(&self) -> Vec<f64> {
        let p99 = |recording: &Recording| recording.recorder.total().quantile(0.99);
        let pairs = self.reloading.iter().zip(&self.quiet);
        pairs.map(|(busy, quiet)| stats::ratio(p99(busy), p99(quiet))).collect()
    }

    fn verdict(&self) -> Verdict {
        let mut verdict = Verdict::default();
        for recording in self.quiet.iter().chain(&self.reloading) {
            let total = recording.recorder.total();
            verdict.holds(recording.is_clean(), || {
                format!("{:?}, mismatch {:?}", total.errors, total.mismatch)
            });
        }
        if self.arguments.lenient {
            return verdict;
        }
        let slowest = Duration::from_micros(self.in_force.max());
        verdict.holds(slowest <= IN_FORCE, || format!("a reload took {slowest:?} to be in force"));
        let ratio = stats::median(&self.ratios());
        verdict.holds(ratio <= P99_RATIO, || {
            format!("p99 with reloads is {ratio:.2} of that without")
        });
        verdict
    }

    fn text(&self) -> String {
        let p99s = |windows: &[Recording]| {
            let p99 = |window: &Recording| micros(window.recorder.total().quantile(0.99));
            windows.iter().map(p99).collect::<Vec<_>>().join("  ")
        };
        let ratios = self.ratios();
        let shown = ratios.iter().map(|ratio| format!("{ratio:.3}")).collect::<Vec<_>>();
        let heading =
            format!("{} reloads of {} routes", self.in_force.len(), self.arguments.routes);
        table(&[
            row(&["", &heading]),
            row(&["answered", &report::times(&self.answered)]),
            row(&["in force", &report::times(&self.in_force)]),
            row(&["p99 without", &p99s(&self.quiet)]),
            row(&["p99 with", &p99s(&self.reloading)]),
            row(&["ratio", &format!("{:.3} of {}", stats::median(&ratios), shown.join(" "))]),
        ])
    }

    fn json(&self) -> Value {
        let p99s = |windows: &[Recording]| -> Vec<u64> {
            windows.iter().map(|window| window.recorder.total().quantile(0.99)).collect()
        };
        json!({
            "routes": self.arguments.routes,
            "reloads": self.in_force.len(),
            "answered_us": report::times_json(&self.answered),
            "in_force_us": report::times_json(&self.in_force),
            "p99_us": { "without": p99s(&self.quiet), "with": p99s(&self.reloading) },
            "p99_ratio": stats::median(&self.ratios()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_differs_between_two_settings_and_keeps_its_name() {
        let (one, two) = (all(10, 1), all(10, 2));
        assert_eq!(one.len(), 10);
        for (one, two) in one.iter().zip(&two) {
            assert_eq!(one.name, two.name);
            assert!(one.arms.iter().all(|arm| two.arms.iter().all(|other| arm.name != other.name)));
        }
        assert_eq!(one.last().map(|route| route.name.as_str()), Some(DIGITS));
    }
}
