//! The two sides of a device under random schedules, without threads and on made-up times.

use engine::{DataType, StubEngine, Tensor};
use proptest::prelude::*;

use super::super::job::{Ticket, Urgency};
use super::super::reply::{Ending, Reply};
use super::super::{Queue, QueueSettings};
use super::*;
use crate::breaker::Permit;
use crate::telemetry::VersionMetrics;
use crate::types::Deadline;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// Rows, class, deadline in milliseconds from now, version.
    Push(usize, bool, Option<u64>, usize),
    Take(bool),
    /// One of the batches that run ends.
    End(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let due = prop::option::weighted(0.3, 0_u64..200);
    prop_oneof![
        4 => (1_usize..6, any::<bool>(), due, 0_usize..3)
            .prop_map(|(rows, shadow, due, version)| Step::Push(rows, shadow, due, version)),
        3 => any::<bool>().prop_map(Step::Take),
        2 => any::<prop::sample::Index>().prop_map(Step::End),
    ]
}

/// Both sides, and what is known of each call: its version and its class.
struct Rig {
    state: State,
    queues: Vec<Queue>,
    start: Instant,
    now: Instant,
    callers: Vec<oneshot::Receiver<Ending>>,
    calls: Vec<(u64, bool)>,
    /// Order of arrival of those that wait, of those that ended, and what runs.
    waiting: Vec<u64>,
    left: Vec<u64>,
    running: Vec<Picked>,
}

impl Rig {
    fn new(settings: &QueueSettings) -> Self {
        let threads = Threads { live: 0, shadow: 1 };
        let pool = Pool::start(Device("none".into()), threads, StuckThreads::default()).unwrap();
        let queue = |_| {
            let stub = StubEngine::default();
            let metrics = Arc::new(VersionMetrics::new("m", "1"));
            let engine = Arc::new(stub.clone());
            Queue::new(settings.clone(), Box::new(stub), engine, metrics, &pool)
        };
        let start = Instant::now();
        Self {
            state: State::default(),
            queues: (0..3).map(queue).collect(),
            start,
            now: start,
            callers: vec![],
            calls: vec![],
            waiting: vec![],
            left: vec![],
            running: vec![],
        }
    }

    fn push(&mut self, rows: usize, shadow: bool, due: Option<u64>, version: usize) {
        let (sender, receiver) = oneshot::channel();
        self.callers.push(receiver);
        let queue = self.queues[version].shared.clone();
        let deadline = due.map(|due| Deadline(self.now + Duration::from_millis(due)));
        self.calls.push((queue.id, shadow));
        self.waiting.push(self.calls.len() as u64);
        let ticket = Ticket {
            rows,
            length: 0,
            urgency: Urgency::new(shadow, 5, self.now - self.start, deadline),
            level: 5,
            enqueued: self.now,
            deadline,
            reply: Reply::Caller(sender, None),
            permit: Permit::default(),
            place: None,
        };
        let input = Tensor::new(DataType::Uint8, vec![rows, 1], vec![0; rows].into()).unwrap();
        let job = Job { inputs: vec![input], ticket };
        let mut cleared = Cleared::default();
        let entry = Entry { queue, key: Key::default(), job };
        self.state.push(entry, self.now, &mut cleared);
        assert!(cleared.is_empty());
    }

    /// How many batches of a version run on a side.
    fn runs(&self, queue: u64, side: Side) -> usize {
        let is_of = |run: &RunKey| run.queue == queue && run.side == side;
        self.running.iter().filter(|picked| is_of(&picked.run)).count()
    }

    /// Takes what a thread of this side would; says whether it took anything.
    fn take(&mut self, side: Side, instances: usize) -> Result<bool, TestCaseError> {
        let mut cleared = Cleared::default();
        let live_could_run = self.waiting.iter().any(|&number| {
            let (queue, shadow) = self.calls[usize::try_from(number).unwrap() - 1];
            !shadow && self.runs(queue, Side::Live) < instances
        });
        let next = self.state.next(side, (self.now, false), &mut cleared);
        for (_, ticket, failure) in &cleared.dropped {
            prop_assert_eq!(failure, &Failure::Expired);
            prop_assert!(ticket.deadline.is_some_and(|due| due.has_passed(self.now)));
            self.leave(ticket.urgency.sequence)?;
        }
        let Next::Run(picked) = next else { return Ok(!cleared.is_empty()) };
        prop_assert!(side == Side::Live || !live_could_run, "live before shadow");
        prop_assert_eq!(picked.run.side, side);
        for job in &picked.jobs {
            prop_assert_eq!(job.ticket.urgency.shadow, side == Side::Shadow);
            self.leave(job.ticket.urgency.sequence)?;
        }
        self.running.push(*picked);
        Ok(true)
    }

    /// A call leaves, for the first time.
    fn leave(&mut self, number: u64) -> Result<(), TestCaseError> {
        let before = self.waiting.len();
        self.waiting.retain(|&other| other != number);
        prop_assert_eq!(self.waiting.len() + 1, before);
        self.left.push(number);
        Ok(())
    }

    fn end(&mut self, index: usize) {
        let picked = self.running.swap_remove(index);
        let used = Used { time: Duration::from_millis(1), is_typical: true };
        self.state.of(picked.run.side).scheduler.finished(&picked.run, &picked.queue, used);
    }
}

proptest! {
    #[test]
    fn every_call_leaves_its_side_exactly_once_and_live_ones_first(
        steps in prop::collection::vec(step(), 1..80),
        max_batch in 5_usize..10, instances in 1_usize..3,
    ) {
        let settings = QueueSettings { instances, ..QueueSettings::new("m/1", max_batch) };
        let mut device = Rig::new(&settings);
        for step in steps {
            device.now += Duration::from_millis(10);
            match step {
                Step::Push(rows, shadow, due, version) => device.push(rows, shadow, due, version),
                Step::Take(is_shadow) => {
                    let side = if is_shadow { Side::Shadow } else { Side::Live };
                    device.take(side, instances)?;
                }
                Step::End(index) if !device.running.is_empty() => {
                    device.end(index.index(device.running.len()));
                }
                Step::End(_) => {}
            }
            for picked in &device.running {
                prop_assert!(picked.run.rows <= max_batch);
                prop_assert!(device.runs(picked.run.queue, picked.run.side) <= instances);
            }
        }
        // Nothing waits for ever: what threads of both sides leave over, the end of runs frees.
        while !device.waiting.is_empty() {
            let live = device.take(Side::Live, instances)?;
            let shadow = device.take(Side::Shadow, instances)?;
            if !live && !shadow {
                prop_assert!(!device.running.is_empty(), "{:?} wait for ever", device.waiting);
                device.end(0);
            }
        }
        device.left.sort_unstable();
        prop_assert_eq!(device.left, (1..=device.calls.len() as u64).collect::<Vec<_>>());
    }
}
