//! Following a file that only exists in the test, with clocks that stand still; then real files.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;

mod files;
mod live;

const START: &str = "version = 1\n";
const TIMING: Timing = Timing {
    poll: Duration::from_secs(10),
    settle: Duration::from_millis(500),
    limit: Duration::from_secs(5),
};

/// Takes every configuration over, unless it is told not to.
#[derive(Debug, Clone, Default)]
pub(super) struct Double {
    applied: Arc<watch::Sender<Vec<Config>>>,
    prepared: Arc<AtomicUsize>,
    refuses: Arc<Mutex<Option<Problem>>>,
    /// Told in the place of routes.
    diff: Vec<String>,
    /// Fails the last step.
    breaks: Arc<Mutex<Option<Problem>>>,
    /// Each preparation waits for one.
    gate: Option<Arc<Notify>>,
    /// What it was told besides.
    told: Arc<Mutex<Vec<String>>>,
}

impl Double {
    fn count(&self) -> usize {
        self.applied.borrow().len()
    }

    /// `breaker.consecutive` of what is in force: what the tests change.
    fn in_force(&self) -> Option<u32> {
        self.applied.borrow().last().map(|config| config.breaker.consecutive)
    }

    fn refuse(&self, why: Option<&str>) {
        *self.refuses.lock().unwrap() = why.map(|why| Problem::new("upstream.fleet", why));
    }
}

impl Apply for Double {
    fn prepare<'a>(
        &'a self,
        new: &'a Config,
        _: &'a str,
        _: &'a Asked,
    ) -> BoxFuture<'a, Result<Prepared, Vec<Problem>>> {
        self.prepared.fetch_add(1, Ordering::Relaxed);
        let (double, new) = (self.clone(), new.clone());
        let refused = self.refuses.lock().unwrap().clone().map_or(Ok(()), |found| Err(vec![found]));
        let commit = async move {
            if let Some(found) = double.breaks.lock().unwrap().clone() {
                return Err(vec![found]);
            }
            double.applied.send_modify(|applied| applied.push(new));
            Ok(Applied { revision: double.revision(), diff: double.diff.clone() })
        };
        let gate = self.gate.clone();
        let prepare = async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            refused.map(|()| commit.boxed())
        };
        prepare.boxed()
    }

    fn preview<'a>(&'a self, _: &'a Config) -> BoxFuture<'a, Result<Vec<String>, Vec<Problem>>> {
        let refused = self.refuses.lock().unwrap().clone();
        std::future::ready(refused.map_or(Ok(self.diff.clone()), |found| Err(vec![found]))).boxed()
    }

    fn revision(&self) -> u64 {
        self.count() as u64
    }

    fn set_hash<'a>(&'a self, hash: &'a str) -> BoxFuture<'a, ()> {
        self.told.lock().unwrap().push(format!("hash {hash}"));
        std::future::ready(()).boxed()
    }

    fn refused<'a>(
        &'a self,
        _: &'a str,
        _: &'a Asked,
        problems: &'a [Problem],
    ) -> BoxFuture<'a, ()> {
        let lines = problems.iter().map(|problem| format!("refused {problem}"));
        self.told.lock().unwrap().extend(lines);
        std::future::ready(()).boxed()
    }
}

/// A reloader of a text in memory.
struct Bench {
    text: Arc<Mutex<io::Result<String>>>,
    double: Double,
    reloader: Arc<Reloader>,
    looks: Arc<AtomicUsize>,
}

/// A text with a setting that can change while running.
fn text(consecutive: u32) -> String {
    format!("{START}[breaker]\nconsecutive = {consecutive}\n")
}

impl Bench {
    fn new() -> Self {
        Self::with(Double::default())
    }

    fn with(double: Double) -> Self {
        let text: Arc<Mutex<io::Result<String>>> = Arc::new(Mutex::new(Ok(START.to_owned())));
        let looks = Arc::new(AtomicUsize::new(0));
        let (held, counted) = (text.clone(), looks.clone());
        let source = Source::of(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            match &*held.lock().unwrap() {
                Ok(text) => Ok(text.clone().into_bytes()),
                Err(error) => Err(error.kind().into()),
            }
        });
        let found = source.read();
        let config = source.config(&found).unwrap();
        let reloader = Reloader::new(source, config, found, Box::new(double.clone()));
        Self { text, double, reloader: Arc::new(reloader), looks }
    }

    fn write(&self, text: impl Into<String>) {
        *self.text.lock().unwrap() = Ok(text.into());
    }

    fn remove(&self) {
        *self.text.lock().unwrap() = Err(io::ErrorKind::NotFound.into());
    }

    /// Follows the text until the task is aborted; the bell gives hints.
    async fn follow(&self) -> (JoinHandle<()>, Arc<Notify>) {
        let (hints, bell) = Hints::by_hand();
        let reloader = self.reloader.clone();
        let task =
            tasks::spawn("follow", async move { match reloader.follow(hints, TIMING).await {} });
        // The first look comes with the start.
        sleep(Duration::from_secs(1)).await;
        (task, bell)
    }

    async fn reload(&self) -> Result<Reloaded, Vec<String>> {
        let asked = Asked { author: "ops".into(), from: "test".into(), reason: None };
        let texts = |found: Vec<Problem>| found.iter().map(ToString::to_string).collect();
        self.reloader.reload(&asked).await.map_err(texts)
    }

    fn last_error(&self) -> Option<String> {
        self.reloader.status().last_error()
    }
}

#[tokio::test(start_paused = true)]
async fn an_explicit_reload_applies_at_once_and_says_what_changed() {
    let bench = Bench::new();
    bench.write(text(9));
    let done = bench.reload().await.unwrap();
    let diff = vec!["breaker.consecutive: 5 -> 9".to_owned()];
    assert_eq!(done, Reloaded { revision: 1, changed: true, diff });
    assert_eq!(bench.double.in_force(), Some(9));
    let done = bench.reload().await.unwrap();
    assert_eq!(done, Reloaded { revision: 1, changed: false, diff: vec![] });
    // Other words for the same.
    bench.write(format!("# as before\n{}", text(9)));
    assert!(!bench.reload().await.unwrap().changed);
    let hash = bench.reloader.status().hash.unwrap();
    assert_eq!(bench.double.told.lock().unwrap().last(), Some(&format!("hash {hash}")));
    assert_eq!(bench.double.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_text_with_any_problem_changes_nothing_and_is_told_whole() {
    let bench = Bench::new();
    bench.write(text(9));
    bench.reload().await.unwrap();
    let good = bench.reloader.status();
    bench.write(format!("{}[limits]\nmax_head = '8KiB'\n[log]\nlevel = 'debug'", text(8)));
    let told = [
        "limits.max_head: cannot change while the gateway runs: restart to change it",
        "log.level: cannot change while the gateway runs: restart to change it",
    ];
    assert_eq!(bench.reload().await.unwrap_err(), told);
    bench.write(format!("{}windw = '1s'\nprobes = 0", text(8)));
    let told = bench.reload().await.unwrap_err();
    assert_eq!(told.len(), 2, "{told:?}");
    bench.write("version = 1\n[break");
    assert!(bench.reload().await.unwrap_err()[0].starts_with("line 2: "));
    let status = bench.reloader.status();
    assert_eq!((status.hash, status.revision), (good.hash, good.revision));
    assert!(bench.last_error().unwrap().starts_with("line 2: "));
    assert_eq!((bench.double.in_force(), bench.double.count()), (Some(9), 1));
    bench.write(text(9));
    assert!(!bench.reload().await.unwrap().changed);
    assert_eq!(bench.last_error(), None, "what is in force stands in the file again");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_prepared_or_committed_changes_nothing() {
    let bench = Bench::new();
    bench.write(text(9));
    bench.double.refuse(Some("cannot read its certificate"));
    let told = ["upstream.fleet: cannot read its certificate"];
    assert_eq!(bench.reload().await.unwrap_err(), told);
    bench.double.refuse(None);
    *bench.double.breaks.lock().unwrap() = Some(Problem::new("state.path", "is full"));
    assert_eq!(bench.reload().await.unwrap_err(), ["state.path: is full"]);
    // What fails in the last step is written down there.
    let told = ["refused upstream.fleet: cannot read its certificate"];
    assert_eq!(*bench.double.told.lock().unwrap(), told);
    assert_eq!(bench.double.count(), 0);
    *bench.double.breaks.lock().unwrap() = None;
    // Nothing of what failed counts as done.
    assert!(bench.reload().await.unwrap().changed);
    assert_eq!(bench.double.in_force(), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_change_counts_once_it_has_settled() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    bench.write(text(6));
    bell.notify_one();
    sleep(Duration::from_millis(400)).await;
    assert_eq!(bench.double.in_force(), None, "it may go on being written");
    bench.write(text(7));
    bell.notify_one();
    sleep(Duration::from_millis(499)).await;
    assert_eq!(bench.double.in_force(), None);
    // Two quiet looks that found the same.
    sleep(Duration::from_millis(502)).await;
    assert_eq!((bench.double.in_force(), bench.double.count()), (Some(7), 1));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn without_hints_polling_finds_changes_and_off_and_on_again_is_none() {
    let bench = Bench::new();
    let (task, _bell) = bench.follow().await;
    bench.write(text(6));
    sleep(TIMING.poll + Duration::from_secs(1)).await;
    assert_eq!(bench.double.in_force(), Some(6));
    for other in [text(7), text(6)] {
        bench.write(other);
        sleep(Duration::from_secs(1)).await;
    }
    sleep(2 * TIMING.poll).await;
    assert_eq!(bench.double.count(), 1);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn constant_writing_delays_a_change_and_does_not_prevent_it() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    let begun = Instant::now();
    while bench.double.count() == 0 {
        bench.write(text(6));
        bell.notify_one();
        sleep(Duration::from_millis(100)).await;
        assert!(begun.elapsed() < TIMING.limit + 2 * TIMING.settle, "it starved");
    }
    assert!(begun.elapsed() >= TIMING.limit);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_file_that_never_stays_the_same_is_not_taken_while_it_changes() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    for round in 0..200 {
        bench.write(text(6 + round));
        bell.notify_one();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bench.double.count(), 0, "what it said at some moment nobody meant");
    sleep(2 * TIMING.settle).await;
    assert_eq!((bench.double.in_force(), bench.double.count()), (Some(205), 1));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn two_that_fight_over_a_file_are_slowed_down() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    let rounds = 1000;
    for round in 0..rounds {
        bench.write(text(6 + round % 2));
        bell.notify_one();
        sleep(Duration::from_millis(50)).await;
    }
    let most = (50 * rounds).div_ceil(500);
    assert!(bench.double.count() <= most as usize, "{} times", bench.double.count());
    // Every application was read at one moment: the file was looked at no more than for that.
    let looks = bench.looks.load(Ordering::Relaxed);
    assert!(looks <= 4 * most as usize, "{looks} looks");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_broken_text_is_tried_and_told_once_however_often_it_is_looked_at() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    bench.write("version = 1\n[brea");
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    let first = bench.last_error().unwrap();
    assert!(first.starts_with("line 2"), "{first}");
    let looks = bench.looks.load(Ordering::Relaxed);
    sleep(10 * TIMING.poll).await;
    assert!(bench.looks.load(Ordering::Relaxed) >= looks + 10, "it is looked at");
    let found = bench.reloader.look().await;
    let problems = bench.reloader.status().problems;
    assert!(!bench.reloader.standing().note(&found, &Err(problems)), "and has been told");
    let other = vec![Problem::new("breaker", "is another problem")];
    assert!(bench.reloader.standing().note(&found, &Err(other)));
    assert_eq!(bench.double.prepared.load(Ordering::Relaxed), 0);
    // The rest of it.
    bench.write(text(6));
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    assert_eq!((bench.last_error(), bench.double.in_force()), (None, Some(6)));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_text_needs_may_come_later() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    bench.double.refuse(Some("cannot read its certificate"));
    bench.write(text(6));
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.last_error().unwrap(), "upstream.fleet: cannot read its certificate");
    bench.double.refuse(None);
    sleep(Duration::from_secs(5 * 60)).await;
    sleep(TIMING.poll).await;
    assert_eq!((bench.last_error(), bench.double.in_force()), (None, Some(6)));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_applied_is_tried_less_and_less_often() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    bench.double.refuse(Some("cannot read its certificate"));
    bench.write(text(6));
    bell.notify_one();
    sleep(Duration::from_secs(4 * 60)).await;
    let tries = || bench.double.prepared.load(Ordering::Relaxed);
    assert_eq!(tries(), 1);
    sleep(Duration::from_secs(24 * 3600)).await;
    assert!((20..30).contains(&tries()), "{} in a day", tries());
    // Another text is another matter.
    let before = tries();
    bench.write(text(7));
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(tries(), before + 1);
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_waited_finds_what_the_file_says_by_then() {
    let gate = Arc::new(Notify::new());
    let bench = Arc::new(Bench::with(Double { gate: Some(gate.clone()), ..Double::default() }));
    bench.write(text(6));
    let reload = || {
        let bench = bench.clone();
        tasks::spawn("test", async move { drop(bench.reload().await) })
    };
    let first = reload();
    sleep(Duration::from_secs(1)).await;
    bench.write(text(7));
    let second = reload();
    sleep(Duration::from_secs(1)).await;
    // Nothing that is loaded holds up who only asks.
    let preview = bench.reloader.preview(&text(9)).await;
    assert_eq!(preview.diff, ["breaker.consecutive: 5 -> 9"]);
    bench.write(text(8));
    gate.notify_one();
    first.await.unwrap();
    gate.notify_one();
    second.await.unwrap();
    assert_eq!((bench.double.in_force(), bench.double.count()), (Some(8), 2));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_vanished_changes_nothing_and_is_told() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    bench.write(text(6));
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    // For a moment, as some editors do it: nobody needs to know.
    bench.remove();
    bell.notify_one();
    sleep(Duration::from_millis(200)).await;
    bench.write(text(6));
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.last_error(), None);
    bench.remove();
    bell.notify_one();
    sleep(Duration::from_secs(2)).await;
    let told = bench.last_error().unwrap();
    assert!(told.starts_with("cannot read /etc/penstock/penstock.toml: "), "{told}");
    assert_eq!((bench.double.in_force(), bench.double.count()), (Some(6), 1));
    let status = bench.reloader.status();
    assert!(status.hash.is_some() && status.age >= Duration::from_secs(2));
    bench.write(text(6));
    sleep(2 * TIMING.poll).await;
    assert_eq!((bench.last_error(), bench.double.count()), (None, 1));
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_busy_folder_costs_a_look_for_each_pause_at_most() {
    let bench = Bench::new();
    let (task, bell) = bench.follow().await;
    let before = bench.looks.load(Ordering::Relaxed);
    for _ in 0..1000 {
        bell.notify_one();
        sleep(Duration::from_millis(10)).await;
    }
    let looks = bench.looks.load(Ordering::Relaxed) - before;
    assert!(looks <= 22, "{looks} looks in ten seconds");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn a_preview_says_what_a_reload_would_do_and_does_nothing() {
    let bench = Bench::new();
    let preview = bench.reloader.preview(&format!("{}[log]\nlevel = 'warn'", text(6))).await;
    let diff = vec!["breaker.consecutive: 5 -> 6".to_owned()];
    let needs_restart = vec!["log.level".to_owned()];
    assert_eq!(preview, Preview { problems: vec![], diff, needs_restart });
    let preview = bench.reloader.preview("version = 2").await;
    assert_eq!(preview.problems, [Problem::new("version", "is 2, this build reads 1")]);
    assert_eq!(bench.double.prepared.load(Ordering::Relaxed), 0);
    assert_eq!(bench.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn reloads_that_come_together_go_one_after_the_other() {
    let bench = Bench::new();
    bench.write(text(6));
    let reloads = futures_util::future::join_all((0..20).map(|_| bench.reload())).await;
    let changed = reloads.into_iter().filter(|done| done.as_ref().unwrap().changed).count();
    assert_eq!((changed, bench.double.count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_became_of_routes_is_told_by_whom_they_are_decided() {
    let told = "route 'digits': canary 5% -> 10%".to_owned();
    let bench = Bench::with(Double { diff: vec![told.clone()], ..Double::default() });
    let route = "[[route]]\nname = 'digits'\n[[route.arm]]\nname = 'stable'\n";
    let preview = bench.reloader.preview(&format!("{}{route}", text(6))).await;
    assert_eq!(preview.diff, ["breaker.consecutive: 5 -> 6".into(), told.clone()]);
    bench.double.refuse(Some("is not there"));
    let preview = bench.reloader.preview(&format!("{}{route}", text(6))).await;
    assert_eq!(preview.problems, [Problem::new("upstream.fleet", "is not there")]);
    bench.double.refuse(None);
    bench.write(text(6));
    assert_eq!(bench.reload().await.unwrap().diff, ["breaker.consecutive: 5 -> 6".into(), told]);
}
