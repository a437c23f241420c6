//! The table against what it promises, under random schedules of callers that come and leave.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::time::timeout;

use super::*;

type Plain = Table<u64, u64>;

const WINDOW: Duration = Duration::from_millis(50);

fn settings() -> config::Idempotency {
    config::Idempotency {
        enabled: true,
        window: WINDOW,
        max_bytes: 1 << 20,
        max_answer: 1 << 16,
        max_keys: 1000,
        max_key_length: 255,
    }
}

fn digest(number: usize) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest
}

/// A run that ends at once with this value.
fn ready(value: u64, bytes: usize) -> impl FnOnce(Claim<u64, u64>) -> BoxFuture<'static, u64> {
    move |claim| {
        let run = async move {
            claim.keep(bytes, || value);
            value
        };
        run.boxed()
    }
}

async fn told(entered: Entered<u64, u64>) -> u64 {
    match entered {
        Entered::First(flight) | Entered::Joined(flight) => flight.await,
        Entered::Replayed(value) => value,
    }
}

fn size_of(table: &Plain) -> (usize, usize, usize) {
    let state = table.0.lock();
    (state.entries.len(), state.ages.len(), state.bytes)
}

/// One caller of a schedule; times in milliseconds.
#[derive(Debug, Clone)]
struct Plan {
    start: u64,
    key: usize,
    body: usize,
    /// How long its run takes, should it be the first.
    takes: u64,
    /// Whether its run ends with something that is kept.
    keeps: bool,
    /// When it leaves.
    patience: Option<u64>,
}

/// What was run: when, and until when.
#[derive(Debug, Clone)]
struct Run {
    key: usize,
    body: usize,
    start: Instant,
    end: Option<Instant>,
    /// Whether the end was one, and not that everybody had left.
    is_complete: bool,
    is_kept: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Told {
    Value(u64),
    Mismatch,
    Left,
}

/// Notes the end of a run, also of one that is given up.
struct Noted(Arc<Mutex<Vec<Run>>>, usize);

impl Drop for Noted {
    fn drop(&mut self) {
        self.0.lock().unwrap()[self.1].end = Some(Instant::now());
    }
}

async fn follow(table: Plain, plan: Plan, runs: Arc<Mutex<Vec<Run>>>) -> (Plan, Instant, Told) {
    sleep(Duration::from_millis(plan.start)).await;
    let entered_at = Instant::now();
    let run = |claim: Claim<u64, u64>| {
        let (plan, runs) = (plan.clone(), runs.clone());
        let run = async move {
            let start = Instant::now();
            let number = {
                let mut runs = runs.lock().unwrap();
                let Plan { key, body, keeps: is_kept, .. } = plan;
                runs.push(Run { key, body, start, end: None, is_complete: false, is_kept });
                runs.len() - 1
            };
            let noted = Noted(runs.clone(), number);
            sleep(Duration::from_millis(plan.takes)).await;
            if plan.keeps {
                claim.keep(10, || number as u64);
            }
            runs.lock().unwrap()[number].is_complete = true;
            drop(noted);
            number as u64
        };
        run.boxed()
    };
    let told = match table.enter(digest(plan.key), &digest(plan.body), run) {
        Err(Refusal::Mismatch) => Told::Mismatch,
        Err(Refusal::Full) => panic!("there is room"),
        Ok(entered) => match plan.patience {
            None => Told::Value(told(entered).await),
            Some(patience) => {
                let told = timeout(Duration::from_millis(patience), told(entered)).await;
                told.map_or(Told::Left, Told::Value)
            }
        },
    };
    (plan, entered_at, told)
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let patience = prop_oneof![2 => Just(None), 1 => (0_u64..30).prop_map(Some)];
    let plan = (0_u64..200, 0_usize..3, 0_usize..5, 1_u64..30, 0_u32..4, patience);
    let plan = plan.prop_map(|(start, key, body, takes, keeps, patience)| {
        // One in five has another body, one in four runs ends with nothing to keep.
        Plan { start, key, body: usize::from(body == 0), takes, keeps: keeps > 0, patience }
    });
    prop::collection::vec(plan, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_key_runs_once_in_its_window_and_all_its_callers_are_told_the_same(plans in plans()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        let runs = Arc::new(Mutex::new(Vec::new()));
        let told = runtime.block_on(async {
            let table = Plain::new(settings());
            let callers = plans.into_iter().map(|plan| follow(table.clone(), plan, runs.clone()));
            // A run that is lost to those who wait for it would never end.
            timeout(Duration::from_secs(3600), join_all(callers)).await.expect("nobody hangs")
        });
        let runs = runs.lock().unwrap().clone();
        let until = |run: &Run| {
            let end = run.end.expect("every run ends");
            if run.is_complete && run.is_kept { end + WINDOW } else { end }
        };
        for (index, run) in runs.iter().enumerate() {
            for later in runs[index + 1..].iter().filter(|later| later.key == run.key) {
                prop_assert!(later.start >= until(run), "{run:?} and {later:?}");
            }
        }
        for (plan, at, told) in told {
            let of_key = |run: &&Run| run.key == plan.key && run.start <= at && at <= until(run);
            match told {
                Told::Value(number) => {
                    let run = &runs[usize::try_from(number).unwrap()];
                    prop_assert!(run.is_complete && run.body == plan.body, "{plan:?} got {run:?}");
                    prop_assert!(run.key == plan.key && at <= until(run), "{plan:?} got {run:?}");
                }
                Told::Mismatch => {
                    let other = runs.iter().filter(of_key).any(|run| run.body != plan.body);
                    prop_assert!(other, "{plan:?} is told of a mismatch");
                }
                Told::Left => prop_assert!(plan.patience.is_some()),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_run_of_a_caller_that_left_goes_on_for_the_others() {
    let table = Plain::new(settings());
    let run = |claim: Claim<u64, u64>| {
        let run = async move {
            sleep(Duration::from_millis(10)).await;
            claim.keep(1, || 7);
            7
        };
        run.boxed()
    };
    let first = table.enter(digest(1), &digest(0), run).unwrap();
    let second = table.enter(digest(1), &digest(0), |_| unreachable!("one run")).unwrap();
    assert!(matches!(second, Entered::Joined(_)));
    assert!(timeout(Duration::from_millis(5), told(first)).await.is_err());
    assert_eq!(told(second).await, 7);
    let third = table.enter(digest(1), &digest(0), |_| unreachable!("one run")).unwrap();
    assert!(matches!(third, Entered::Replayed(7)));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_free_once_nobody_waits_for_its_run() {
    let table = Plain::new(settings());
    let never = |claim: Claim<u64, u64>| {
        let run = async move {
            std::future::pending::<()>().await;
            drop(claim);
            0
        };
        run.boxed()
    };
    let first = table.enter(digest(1), &digest(0), never).unwrap();
    assert_eq!(table.enter(digest(1), &digest(9), never).unwrap_err(), Refusal::Mismatch);
    assert!(timeout(Duration::from_millis(5), told(first)).await.is_err());
    assert_eq!(size_of(&table), (0, 0, 0));
    let other = table.enter(digest(1), &digest(9), ready(8, 1)).unwrap();
    assert_eq!(told(other).await, 8);
}

#[tokio::test(start_paused = true)]
async fn answers_are_forgotten_after_the_window_in_the_background_too() {
    let table = Plain::new(settings());
    for number in 0..900 {
        told(table.enter(digest(number), &digest(0), ready(0, 1)).unwrap()).await;
    }
    assert_eq!(size_of(&table).0, 900);
    let upkeep = table.clone().upkeep();
    assert!(timeout(UPKEEP * 2, upkeep).await.is_err());
    assert_eq!(size_of(&table), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_table_keeps_the_newest_answers_and_every_call_under_way() {
    let bounds = config::Idempotency { max_keys: 10, ..settings() };
    let table = Plain::new(bounds);
    let pending = |claim: Claim<u64, u64>| {
        let run = async move {
            std::future::pending::<()>().await;
            drop(claim);
            0
        };
        run.boxed()
    };
    let running = table.enter(digest(usize::MAX), &digest(0), pending).unwrap();
    for number in 0..100_000 {
        told(table.enter(digest(number), &digest(0), ready(number as u64, 1)).unwrap()).await;
        let (entries, ages, _) = size_of(&table);
        assert!(entries <= 10 && ages <= 10);
    }
    for number in 99_991..100_000 {
        let known = table.enter(digest(number), &digest(0), |_| unreachable!("known")).unwrap();
        assert!(matches!(known, Entered::Replayed(value) if value == number as u64));
    }
    let joined = table.enter(digest(usize::MAX), &digest(0), |_| unreachable!("known")).unwrap();
    assert!(matches!(joined, Entered::Joined(_)));
    // Calls under way are never forgotten: a table full of them takes no more.
    let more = (0..9).map(|number| table.enter(digest(number), &digest(0), pending).unwrap());
    let more: Vec<_> = more.collect();
    let one_too_many = table.enter(digest(77), &digest(0), pending).unwrap_err();
    assert_eq!(one_too_many, Refusal::Full);
    drop((running, joined, more));
    assert_eq!(size_of(&table), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn kept_answers_stay_within_the_bytes_and_too_large_ones_are_not_kept() {
    let bounds = config::Idempotency { max_bytes: 10_000, max_answer: 3000, ..settings() };
    let table = Plain::new(bounds);
    for number in 0..100 {
        let size = (number * 37) % 3000;
        told(table.enter(digest(number), &digest(0), ready(0, size)).unwrap()).await;
        assert!(size_of(&table).2 <= 10_000);
        let again = table.enter(digest(number), &digest(0), |_| unreachable!("just kept"));
        assert!(matches!(again.unwrap(), Entered::Replayed(0)));
    }
    told(table.enter(digest(1000), &digest(0), ready(0, 3001)).unwrap()).await;
    let again = table.enter(digest(1000), &digest(0), ready(0, 3001)).unwrap();
    assert!(matches!(again, Entered::First(_)));
}

#[tokio::test(start_paused = true)]
async fn an_expired_answer_that_is_still_there_is_not_replayed() {
    let table = Plain::new(settings());
    for number in 0..100 {
        told(table.enter(digest(number), &digest(0), ready(1, 1)).unwrap()).await;
    }
    sleep(WINDOW).await;
    // The last one: a call clears away only a few of the oldest.
    let last = table.enter(digest(99), &digest(5), ready(2, 1)).unwrap();
    assert!(matches!(last, Entered::First(_)));
    assert_eq!(told(last).await, 2);
    let upkeep = table.clone().upkeep();
    assert!(timeout(WINDOW, async { drop(upkeep) }).await.is_ok());
    let again = table.enter(digest(99), &digest(5), |_| unreachable!("known")).unwrap();
    assert!(matches!(again, Entered::Replayed(2)));
}

#[test]
fn threads_that_come_and_leave_together_run_each_key_once() {
    const THREADS: usize = 4;
    const KEYS: usize = 300;
    let table = Plain::new(config::Idempotency { window: WINDOW * 10_000, ..settings() });
    let complete: Arc<Vec<AtomicUsize>> =
        Arc::new((0..KEYS).map(|_| AtomicUsize::new(0)).collect());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, complete) = (table.clone(), complete.clone());
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                for key in 0..KEYS {
                    let complete = complete.clone();
                    let run = move |claim: Claim<u64, u64>| {
                        let run = async move {
                            tokio::task::yield_now().await;
                            complete[key].fetch_add(1, Ordering::SeqCst);
                            claim.keep(1, || key as u64);
                            key as u64
                        };
                        run.boxed()
                    };
                    let entered = table.enter(digest(key), &digest(0), run).unwrap();
                    // Every other caller leaves before its run has ended.
                    match (key + thread) % 2 {
                        0 => drop(entered),
                        _ => assert_eq!(runtime.block_on(told(entered)), key as u64),
                    }
                }
            });
        }
    });
    assert!(complete.iter().all(|runs| runs.load(Ordering::SeqCst) == 1));
}
