//! The order of batches, on made-up times.

use engine::{DataType, StubEngine, Tensor};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::super::job::Urgency;
use super::super::reply::{Ending, Reply};
use super::super::variable::VariableLength;
use super::super::{Device, Pool, Queue, QueueSettings, StuckThreads, Threads};
use super::*;
use crate::breaker::Permit;
use crate::telemetry::VersionMetrics;
use crate::types::{Deadline, Priority};

/// A scheduler without threads, and a clock that only the test moves.
struct Bench {
    scheduler: Scheduler,
    pool: Pool,
    start: Instant,
    callers: Vec<oneshot::Receiver<Ending>>,
    sequence: u64,
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    rows: usize,
    level: u8,
    at: u64,
    due: Option<u64>,
    shadow: bool,
}

const ASK: Ask = Ask { rows: 1, level: 5, at: 0, due: None, shadow: false };

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const NONE: Threads = Threads { live: 0, shadow: 0 };

impl Bench {
    fn new() -> Self {
        let pool = Pool::start(Device("none".into()), NONE, StuckThreads::default()).unwrap();
        let (start, callers) = (Instant::now(), Vec::new());
        Self { scheduler: Scheduler::default(), pool, start, callers, sequence: 0 }
    }

    fn queue(&self, settings: QueueSettings) -> Queue {
        let stub = StubEngine::default();
        let metrics = Arc::new(VersionMetrics::new("m", "1"));
        Queue::new(settings, Box::new(stub.clone()), Arc::new(stub), metrics, &self.pool)
    }

    fn push(&mut self, queue: &Queue, ask: Ask) -> Option<Ripe> {
        self.push_long(queue, ask, 0)
    }

    fn push_long(&mut self, queue: &Queue, ask: Ask, length: usize) -> Option<Ripe> {
        let (sender, receiver) = oneshot::channel();
        self.callers.push(receiver);
        let deadline = ask.due.map(|due| Deadline(self.start + millis(due)));
        let mut urgency = Urgency::new(ask.shadow, ask.level, millis(ask.at), deadline);
        self.sequence += 1;
        urgency.sequence = self.sequence;
        let now = self.start + millis(ask.at);
        let ticket = Ticket {
            rows: ask.rows,
            length,
            urgency,
            level: ask.level,
            enqueued: now,
            deadline,
            reply: Reply::Caller(sender, None),
            permit: Permit::default(),
            place: None,
        };
        let input = Tensor::new(DataType::Uint8, vec![ask.rows, 1], vec![0; ask.rows].into());
        let variable = queue.shared.settings.variable.as_ref();
        let has_bucket = variable.is_some_and(|variable| variable.bucket(length).is_some());
        let key = Key { rest: vec![], length: if has_bucket { length } else { 0 } };
        let job = Job { inputs: vec![input.unwrap()], ticket };
        self.scheduler.push(&queue.shared, key, job, now)
    }

    /// Takes the next batch at this time: its queue, the arrival numbers of its calls and why it
    /// took no more.
    fn next(&mut self, at: u64) -> Option<(u64, Vec<u64>, Closed)> {
        let mut cleared = Cleared::default();
        match self.scheduler.next(self.start + millis(at), false, &mut cleared) {
            Next::Run(picked) => {
                let numbers = picked.jobs.iter().map(|job| job.ticket.urgency.sequence).collect();
                Some((picked.queue.id, numbers, picked.closed))
            }
            Next::At(_) | Next::Nothing => None,
        }
    }

    fn ran(&mut self, queue: &Queue, rows: usize, time: u64) {
        let run = RunKey { queue: queue.shared.id, key: Key::default(), rows, ..RunKey::default() };
        let used = Used { time: millis(time), is_typical: true };
        self.scheduler.finished(&run, &queue.shared, used);
    }
}

fn simple(max_batch: usize) -> QueueSettings {
    QueueSettings::new("m/1", max_batch)
}

#[test]
fn waiting_makes_up_for_a_lower_priority() {
    let mut bench = Bench::new();
    let queue = bench.queue(simple(1));
    bench.push(&queue, Ask { level: 9, ..ASK });
    for step in 1..=20 {
        bench.push(&queue, Ask { level: 1, at: step * 100, ..ASK });
    }
    let order: Vec<u64> = (0..21).map(|_| bench.next(2000).unwrap().1[0]).collect();
    let place = order.iter().position(|&number| number == 1).unwrap();
    assert_eq!(place, 7, "those that came 800 ms later or more wait behind it: {order:?}");
}

#[test]
fn a_flooded_version_leaves_the_others_their_share() {
    let mut bench = Bench::new();
    let heavy = bench.queue(QueueSettings { weight: 3.0, ..simple(1) });
    let light = bench.queue(simple(1));
    for _ in 0..200 {
        bench.push(&heavy, ASK);
        bench.push(&light, ASK);
    }
    let mut runs = [0, 0];
    for _ in 0..80 {
        let (id, ..) = bench.next(0).unwrap();
        let (queue, index) = if id == heavy.shared.id { (&heavy, 0) } else { (&light, 1) };
        runs[index] += 1;
        bench.ran(queue, 1, 100);
    }
    assert!((55..=65).contains(&runs[0]), "{runs:?}");
}

#[test]
fn idle_time_is_no_credit() {
    let mut bench = Bench::new();
    let busy = bench.queue(simple(1));
    let late = bench.queue(simple(1));
    for _ in 0..100 {
        bench.push(&busy, ASK);
    }
    for _ in 0..50 {
        bench.next(0);
        bench.ran(&busy, 1, 100);
    }
    for _ in 0..50 {
        bench.push(&late, ASK);
    }
    let mut late_runs = 0;
    for _ in 0..20 {
        let (id, ..) = bench.next(0).unwrap();
        let is_late = id == late.shared.id;
        late_runs += u32::from(is_late);
        bench.ran(if is_late { &late } else { &busy }, 1, 100);
    }
    assert!((9..=12).contains(&late_runs), "{late_runs}");
}

#[test]
fn a_version_that_comes_while_nobody_waits_is_not_owed_the_past() {
    let mut bench = Bench::new();
    let old = bench.queue(simple(1));
    let new = bench.queue(simple(1));
    for _ in 0..50 {
        bench.push(&old, ASK);
        bench.next(0);
        bench.ran(&old, 1, 100);
    }
    for _ in 0..50 {
        bench.push(&new, ASK);
        bench.push(&old, ASK);
    }
    let mut new_runs = 0;
    for _ in 0..20 {
        let (id, ..) = bench.next(0).unwrap();
        let is_new = id == new.shared.id;
        new_runs += u32::from(is_new);
        bench.ran(if is_new { &new } else { &old }, 1, 100);
    }
    assert!((9..=12).contains(&new_runs), "{new_runs}");
}

#[test]
fn a_call_without_a_deadline_is_not_passed_by_for_ever_by_other_shapes() {
    let mut bench = Bench::new();
    let variable = VariableLength {
        axis: 1,
        buckets: vec![20, 300],
        fills: vec![Some(vec![0])],
        outputs: vec![],
        max_waste: 1.0,
        max_cells: 1000,
    };
    let queue = bench.queue(QueueSettings { variable: Some(variable), ..simple(4) });
    bench.push_long(&queue, ASK, 300);
    for at in [900, 950, 1000] {
        bench.push_long(&queue, Ask { at, due: Some(20_000), ..ASK }, 20);
    }
    // All have waited long enough to be as urgent as anything can be.
    assert_eq!(bench.next(2000).map(|batch| batch.1), Some(vec![1]));
    assert_eq!(bench.next(2000).map(|batch| batch.1), Some(vec![2, 3, 4]));
}

#[test]
fn a_deadline_decides_between_versions_that_had_the_same() {
    let mut bench = Bench::new();
    let one = bench.queue(simple(1));
    let other = bench.queue(simple(1));
    bench.push(&one, ASK);
    bench.push(&other, Ask { due: Some(500), ..ASK });
    assert_eq!(bench.next(0).unwrap().0, other.shared.id);
    // Far ahead of its share, no deadline helps.
    bench.ran(&other, 1, 1000);
    bench.push(&other, Ask { due: Some(400), ..ASK });
    assert_eq!(bench.next(0).unwrap().0, one.shared.id);
}

#[test]
fn every_batch_says_why_it_took_no_more() {
    let mut bench = Bench::new();
    let queue = bench.queue(QueueSettings { max_delay: millis(50), ..simple(2) });
    bench.push(&queue, ASK);
    assert_eq!(bench.next(10), None);
    assert!(matches!(bench.next(50), Some((_, _, Closed::Delay))));
    bench.push(&queue, Ask { due: Some(20), ..ASK });
    assert_eq!(bench.next(0), None);
    // Known to take 30 ms, a call that is due in 20 cannot wait at all.
    for _ in 0..3 {
        bench.ran(&queue, 1, 30);
        bench.ran(&queue, 2, 31);
    }
    assert!(matches!(bench.next(1), Some((_, _, Closed::Deadline))));
    bench.push(&queue, ASK);
    bench.push(&queue, ASK);
    assert!(matches!(bench.next(0), Some((_, numbers, Closed::Full)) if numbers.len() == 2));
    let plain = bench.queue(simple(2));
    bench.push(&plain, ASK);
    assert!(matches!(bench.next(0), Some((_, _, Closed::Idle))));
}

#[test]
fn nothing_waits_where_a_larger_batch_saves_nothing() {
    let mut bench = Bench::new();
    let queue = bench.queue(QueueSettings { max_delay: millis(50), ..simple(8) });
    bench.push(&queue, ASK);
    for rows in [1, 2, 4, 8, 1, 2, 4, 8] {
        bench.ran(&queue, rows, 100 * rows as u64);
    }
    assert!(matches!(bench.next(1), Some((_, _, Closed::Idle))));
}

#[test]
fn padding_stops_at_its_bounds() {
    let mut bench = Bench::new();
    let variable = VariableLength {
        axis: 1,
        buckets: vec![10, 20, 100],
        fills: vec![Some(vec![0])],
        outputs: vec![],
        max_waste: 1.6,
        max_cells: 150,
    };
    let queue = bench.queue(QueueSettings { variable: Some(variable), ..simple(64) });
    for length in [100, 19, 12, 11, 9, 1] {
        bench.push_long(&queue, ASK, length);
    }
    // 100 would pad the next one fivefold.
    assert_eq!(bench.next(0), Some((queue.shared.id, vec![1], Closed::Bucket)));
    // 4 · 20 positions for the 51 that were sent; with the last one it would be 5 · 20 for 52.
    assert_eq!(bench.next(0), Some((queue.shared.id, vec![2, 3, 4, 5], Closed::Bucket)));
    assert_eq!(bench.next(0), Some((queue.shared.id, vec![6], Closed::Idle)));
    for _ in 0..9 {
        bench.push_long(&queue, ASK, 20);
    }
    assert_eq!(bench.next(0).map(|batch| (batch.1.len(), batch.2)), Some((7, Closed::Bucket)));
}

#[test]
fn nothing_is_padded_where_sparing_a_run_saves_less() {
    let mut bench = Bench::new();
    let variable = VariableLength {
        axis: 1,
        buckets: vec![8, 16],
        fills: vec![Some(vec![0])],
        outputs: vec![],
        max_waste: 4.0,
        max_cells: 1000,
    };
    let queue = bench.queue(QueueSettings { variable: Some(variable), ..simple(64) });
    let take = |bench: &mut Bench, lengths: &[usize]| {
        for &length in lengths {
            bench.push_long(&queue, ASK, length);
        }
        std::iter::from_fn(|| bench.next(0).map(|(_, numbers, _)| numbers.len())).collect()
    };
    let mixed = [16, 15, 16, 9];
    let unknown: Vec<usize> = take(&mut bench, &mixed);
    assert_eq!(unknown, [4]);
    // Each position takes 1 ms and a run 3 ms more: three positions are worth a run, seven not.
    for rows in [1, 2, 4, 8].into_iter().cycle().take(40) {
        bench.ran(&queue, rows, 3 + rows as u64);
    }
    let known: Vec<usize> = take(&mut bench, &mixed);
    assert_eq!(known, [3, 1]);
}

fn ask() -> impl Strategy<Value = Ask> {
    let due = prop::option::of(0_u64..3000);
    (1_usize..6, 1..=Priority::LEAST, 0_u64..1000, due, any::<bool>())
        .prop_map(|(rows, level, at, due, shadow)| Ask { rows, level, at, due, shadow })
}

proptest! {
    #[test]
    fn every_call_leaves_exactly_once_within_the_bounds(
        asks in prop::collection::vec((ask(), 0_usize..3), 1..60),
        max_batch in 5_usize..10, instances in 1_usize..3, at in 1000_u64..4000,
    ) {
        let mut bench = Bench::new();
        let queues: Vec<Queue> =
            (0..3).map(|_| bench.queue(QueueSettings { instances, ..simple(max_batch) })).collect();
        for (ask, queue) in &asks {
            bench.push(&queues[*queue], *ask);
        }
        let now = bench.start + millis(at);
        let mut left = Vec::new();
        let mut shadows_began = false;
        while !bench.scheduler.is_empty() {
            let mut cleared = Cleared::default();
            let next = bench.scheduler.next(now, false, &mut cleared);
            for (_, ticket, failure) in cleared.dropped {
                prop_assert_eq!(failure, Failure::Expired);
                prop_assert!(ticket.deadline.is_some_and(|due| due.has_passed(now)));
                left.push(ticket.urgency.sequence);
            }
            let Next::Run(picked) = next else { continue };
            let tickets = picked.jobs.iter().map(|job| &job.ticket);
            prop_assert!(tickets.clone().map(|ticket| ticket.rows).sum::<usize>() <= max_batch);
            // Live calls come first, and no shadow joins them.
            let live = picked.jobs.iter().any(|job| !job.ticket.urgency.shadow);
            prop_assert!(picked.jobs.iter().all(|job| job.ticket.urgency.shadow != live));
            prop_assert!(!(live && shadows_began));
            shadows_began |= !live;
            left.extend(tickets.map(|ticket| ticket.urgency.sequence));
            let used = Used { time: millis(1), is_typical: true };
            bench.scheduler.finished(&picked.run, &picked.queue, used);
        }
        left.sort_unstable();
        prop_assert_eq!(left, (1..=asks.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn looking_for_a_call_that_gives_way_ends_after_some_steps() {
    let mut bench = Bench::new();
    let queue = bench.queue(QueueSettings::new("m/1", 8));
    let aged = Ask { level: 9, ..ASK };
    bench.push(&queue, aged);
    for _ in 0..3000 {
        bench.push(&queue, Ask { level: 1, at: 5000, ..ASK });
    }
    let rank = Rank::new(false, 1);
    let mut displace = |mut steps| {
        let mut cleared = Cleared::default();
        let found = bench.scheduler.displace(&queue.shared, (rank, &mut steps), &mut cleared);
        (found, steps, cleared.dropped.len())
    };
    assert_eq!(displace(1000), (false, 0, 0));
    assert!(queue.shared.load.may_have_behind(rank.index()), "nobody knows");
    assert_eq!(displace(4000), (true, 998, 1));
    assert_eq!(displace(4000), (false, 3999, 0));
    assert!(!queue.shared.load.may_have_behind(rank.index()));
}
