//! More calls than the engine can run, on made-up times: a clock that the test moves by the
//! millisecond, and an engine that takes ten of them for eight items.

use std::collections::HashMap;

use futures_util::FutureExt;
use tokio::time::{Instant, advance};

use super::*;
use crate::batching::scheduler::Used;
use crate::error::Rejection;
use crate::overload::delay::Shedding;
use crate::types::{Deadline, Priority, Timings};

const MILLI: Duration = Duration::from_millis(1);
const BATCH: usize = 8;

/// How long a batch takes, in milliseconds.
fn run_time(rows: usize) -> u64 {
    2 + rows as u64
}

/// Of a whole batch.
const RUN: u64 = 10;

struct World {
    rig: Rig,
    /// The batch under way and when it ends.
    running: Option<(Box<super::super::scheduler::Picked>, u64)>,
    now: u64,
    callers: Vec<Caller>,
    book: HashMap<&'static str, Book>,
}

struct Caller {
    class: &'static str,
    since: u64,
    until: u64,
    call: Waiting,
}

#[derive(Debug, Default, Clone, Copy)]
struct Book {
    sent: usize,
    answered: usize,
    shed: usize,
    /// Those who were let in and got no answer in time.
    expired: usize,
    longest: u64,
}

impl World {
    fn new() -> Self {
        let shedding = Shedding { target: 5 * MILLI, interval: 100 * MILLI };
        let settings =
            QueueSettings { shedding: Some(shedding), ..QueueSettings::new("m/1", BATCH) };
        let rig = rig_with(0, settings);
        Self { rig, running: None, now: 0, callers: vec![], book: HashMap::new() }
    }

    fn send(&mut self, class: &'static str, level: u64, patience: Duration) -> bool {
        let deadline = Deadline::after(Instant::now(), patience);
        let schedule = Schedule { priority: Priority::of(level), deadline, shadow: false };
        let sent = self.rig.queue.submit(rows(&[1]), 1, schedule);
        let book = self.book.entry(class).or_default();
        book.sent += 1;
        match sent {
            Ok(waiting) => {
                let until = self.now + u64::try_from(patience.as_millis()).unwrap();
                self.callers.push(Caller { class, since: self.now, until, call: waiting });
                true
            }
            Err(refused) => {
                assert_eq!(Rejection::kind(&refused), Kind::Overloaded);
                book.shed += 1;
                false
            }
        }
    }

    /// A millisecond passes: the engine ends what it has and takes the next; answers are read.
    /// Returns the classes that got one.
    async fn step(&mut self) -> Vec<&'static str> {
        advance(MILLI).await;
        self.now += 1;
        if let Some((picked, _)) = self.running.take_if(|(_, end)| *end <= self.now) {
            let time = Duration::from_millis(run_time(picked.run.rows));
            let used = Used { time, is_typical: true };
            self.rig.pool.end(&picked, used);
            for job in picked.jobs {
                let done = Done { outputs: job.inputs, timings: Timings::default() };
                job.ticket.reply.send(Ok(done), &mut Default::default());
            }
        }
        if self.running.is_none() {
            let picked = self.rig.pool.take();
            self.running = picked.map(|picked| {
                let end = self.now + run_time(picked.run.rows);
                (picked, end)
            });
        }
        let mut ended = Vec::new();
        for mut caller in std::mem::take(&mut self.callers) {
            let book = self.book.entry(caller.class).or_default();
            match (&mut caller.call).now_or_never() {
                Some(Ok(Ok(_))) => {
                    book.answered += 1;
                    book.longest = book.longest.max(self.now - caller.since);
                    ended.push(caller.class);
                }
                Some(Ok(Err(Failure::Expired))) => book.expired += 1,
                Some(other) => panic!("{other:?}"),
                // As the pipeline's timer does.
                None if caller.until <= self.now => book.expired += 1,
                None => self.callers.push(caller),
            }
        }
        ended
    }

    fn take_book(&mut self, class: &'static str) -> Book {
        self.book.remove(class).unwrap_or_default()
    }
}

#[tokio::test(start_paused = true)]
async fn under_overload_the_urgent_are_answered_and_the_engine_stays_busy() {
    let mut world = World::new();
    let patience = 400 * MILLI;
    // Ten times what the engine can run, a twentieth of it urgent.
    for _ in 0..3000 {
        for call in 0..8 {
            let urgent = call == 0 && world.now.is_multiple_of(2);
            let (class, level) = if urgent { ("high", 1) } else { ("low", 9) };
            world.send(class, level, patience);
        }
        world.step().await;
    }
    let (high, low) = (world.take_book("high"), world.take_book("low"));
    assert_eq!(high.shed, 0, "{high:?}");
    assert!(high.sent - high.answered <= 2 * BATCH && high.longest <= 3 * RUN, "{high:?}");
    let capacity = 3000 / usize::try_from(RUN).unwrap() * BATCH;
    assert!(high.answered + low.answered >= capacity * 90 / 100, "{high:?} {low:?}");
    // Most are refused at once; those who expire came before the queue was known to stand.
    assert!(low.shed > low.answered * 5 && low.expired < low.sent / 10, "{low:?}");

    // Then only half of what it can run: within an interval all are answered again.
    for _ in 0..100 {
        world.send("after", 9, patience);
        world.step().await;
        world.step().await;
        world.step().await;
    }
    world.take_book("after");
    for _ in 0..100 {
        world.send("well", 9, patience);
        world.step().await;
        world.step().await;
        world.step().await;
    }
    let well = world.take_book("well");
    assert!(well.shed == 0 && well.longest <= 3 * RUN, "{well:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_has_emptied_refuses_nobody_for_what_was() {
    let mut world = World::new();
    for _ in 0..500 {
        for _ in 0..4 {
            world.send("flood", 5, 400 * MILLI);
        }
        world.step().await;
    }
    assert!(world.take_book("flood").shed > 0);
    while !world.callers.is_empty() {
        world.step().await;
    }
    world.send("next", 5, 400 * MILLI);
    assert_eq!(world.take_book("next").shed, 0);
}

#[tokio::test(start_paused = true)]
async fn callers_that_wait_for_their_answers_are_not_refused_for_being_many() {
    // 64 of them always wait 80 ms, which is less than a fourth of what they would.
    let mut world = World::new();
    for _ in 0..64 {
        assert!(world.send("caller", 5, Duration::from_secs(1)));
    }
    for _ in 0..2000 {
        for _ in world.step().await {
            world.send("caller", 5, Duration::from_secs(1));
        }
    }
    let book = world.take_book("caller");
    assert!(book.shed == 0 && book.answered >= 2000 / 10 * BATCH * 90 / 100, "{book:?}");
}

#[tokio::test(start_paused = true)]
async fn impatient_callers_are_refused_beside_patient_ones() {
    let mut world = World::new();
    for _ in 0..1000 {
        for _ in 0..2 {
            world.send("patient", 5, Duration::from_secs(60));
        }
        world.send("impatient", 5, 100 * MILLI);
        world.step().await;
    }
    let (patient, impatient) = (world.take_book("patient"), world.take_book("impatient"));
    assert_eq!(patient.shed, 0, "{patient:?}");
    assert!(impatient.shed > impatient.sent / 2, "{impatient:?}");
}
