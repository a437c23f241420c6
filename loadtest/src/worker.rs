//! A load thread: its connections, its share of the calls, and one loop that sends what is due and
//! takes what has come. It shares no lock with anybody.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::arrivals::Schedule;
use crate::book::{Book, Ticket};
use crate::connection::{Connection, Outgoing};
use crate::failure::Failure;
use crate::keys::{self, Keys};
use crate::pacer::{Closed, Open, Pacer, Turn};
use crate::payload::Wire;
use crate::plan::{Drive, Limit, LoadStage};
use crate::poller::{Poller, Ready};
use crate::recording::Recording;
use crate::request::Request;
use crate::timeline::Timeline;
use crate::wire::Response;

/// How long a caller waits after a failed call, so that a dead server is not hammered.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);
/// How often it looks whether it is to stop and whether calls have waited for too long.
const TICK: Duration = Duration::from_millis(20);
/// What is read from a socket at once.
const BUFFER: usize = 256 << 10;

/// A stage of one thread: its share of the drive, and the number of calls begun on all threads.
#[derive(Debug)]
pub struct Share {
    pub stage: LoadStage,
    /// Which part of an even rate this thread has, and where in it.
    pub part: (f64, f64),
    pub seed: u64,
    pub begun: Arc<AtomicU64>,
}

/// A load thread that has not begun.
#[derive(Debug)]
pub struct Worker {
    pub poller: Poller,
    pub connections: Vec<(Connection<Ticket>, Arc<[Request]>)>,
    pub shares: Vec<Share>,
    pub keys: Option<Keys>,
    /// How long a call may take.
    pub patience: Duration,
    pub book: Book,
}

/// What a thread wrote down: its stages and its time line.
pub type Pages = (Vec<Recording>, Timeline);

/// A load thread at work.
struct Loop {
    worker: Worker,
    origin: Instant,
    /// Connections with room, the one that has had it longest first.
    free: VecDeque<usize>,
    is_free: Vec<bool>,
    /// Connections that may have something to write.
    dirty: Vec<usize>,
    pacer: Option<Pacer>,
    /// When there is something to send again, as far as it is known.
    wake: Option<Duration>,
    next_tick: Duration,
    cpu: Duration,
}

impl Worker {
    /// Sends and takes until every stage is over and every call has ended.
    ///
    /// # Errors
    /// When the system refuses to wait for sockets.
    pub fn run(self, origin: Instant) -> anyhow::Result<Pages> {
        std::thread::sleep(origin.saturating_duration_since(Instant::now()));
        let count = self.connections.len();
        let mut work = Loop {
            worker: self,
            origin,
            free: (0..count).collect(),
            is_free: vec![true; count],
            dirty: Vec::with_capacity(count),
            pacer: None,
            wake: None,
            next_tick: TICK,
            cpu: cpu_time(),
        };
        let result = work.run();
        if result.is_err() {
            // The others would go on with a part of the load missing.
            work.worker.book.shared.stop.store(true, Ordering::Relaxed);
        }
        work.count_cpu();
        result.map(|()| (work.worker.book.stages, work.worker.book.timeline))
    }
}

impl Loop {
    fn run(&mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut ready: Vec<Ready> = Vec::new();
        self.next_stage(self.now());
        loop {
            let now = self.now();
            self.end_stages(now);
            self.send(now, now);
            if self.pacer.is_none() && self.worker.book.in_flight == 0 {
                return Ok(());
            }
            let moment = self.wake.into_iter().chain(self.stage_end()).min();
            let fine = moment.is_some_and(|moment| moment < self.next_tick);
            let until = moment.map_or(self.next_tick, |moment| moment.min(self.next_tick));
            self.worker.poller.wait(until.saturating_sub(self.now()), fine, &mut ready)?;
            for event in ready.drain(..) {
                self.take(event, &mut buffer);
                let now = self.now();
                // The next turn of the loop ends the stage first.
                self.send(now, self.stage_end().map_or(now, |end| end.min(now)));
            }
            let now = self.now();
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.give_up(now);
            }
        }
    }

    /// Since the start of the run.
    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.origin)
    }

    fn stage_start(&self) -> Duration {
        self.worker.book.spans.last().map_or(Duration::ZERO, |span| span.0)
    }

    /// When the stage under way ends by itself.
    fn stage_end(&self) -> Option<Duration> {
        self.pacer.as_ref()?;
        let share = self.worker.book.spans.len().checked_sub(1)?;
        let duration = self.worker.shares[share].stage.limit.duration()?;
        Some(self.stage_start().saturating_add(duration))
    }

    /// Goes on to the next stages when their time has come.
    fn end_stages(&mut self, now: Duration) {
        if self.worker.book.shared.stop.load(Ordering::Relaxed) {
            self.close_stage(now, now);
            self.worker.shares.truncate(self.worker.book.spans.len());
            return;
        }
        while let Some(end) = self.stage_end().filter(|end| *end <= now) {
            // What was due until then and has room goes out still; we woke up late.
            if let Some(Pacer::Open(_)) = self.pacer {
                self.send(now, end);
            }
            self.close_stage(end, end);
            self.next_stage(end);
        }
    }

    /// Ends the stage under way; calls that were due until a moment and did not go out are lost.
    fn close_stage(&mut self, now: Duration, due: Duration) {
        let start = self.stage_start();
        let Some(pacer) = self.pacer.take() else { return };
        let book = &mut self.worker.book;
        if let (Some(recording), Some(span)) = (book.stages.last_mut(), book.spans.last_mut()) {
            span.1 = Some(now);
            recording.sending.window = now.saturating_sub(start);
            recording.sending.dropped += pacer.unsent(due.saturating_sub(start));
        }
        self.count_cpu();
        self.wake = None;
    }

    fn next_stage(&mut self, now: Duration) {
        let Some(share) = self.worker.shares.get(self.worker.book.spans.len()) else { return };
        let LoadStage { drive, limit, .. } = &share.stage;
        let pacer = match *drive {
            Drive::Closed { from, to } => {
                Pacer::Closed(Closed::new(from, to, limit.duration().unwrap_or(Duration::MAX)))
            }
            Drive::Open { arrivals, bound, .. } => {
                let ramp = drive.ramp(*limit).expect("an open loop has a rate");
                let schedule = Schedule::new(ramp, arrivals, share.part, share.seed);
                Pacer::Open(Open::new(schedule, bound, self.worker.patience))
            }
        };
        self.worker.book.begin_stage(now, matches!(pacer, Pacer::Open(_)));
        self.pacer = Some(pacer);
    }

    /// Sends what is due until a moment, as far as there is room.
    fn send(&mut self, now: Duration, until: Duration) {
        let start = self.stage_start();
        let local = until.saturating_sub(start);
        self.wake = None;
        while let Some(pacer) = &mut self.pacer {
            let book = &mut self.worker.book;
            for _ in 0..std::mem::take(&mut book.failures) {
                pacer.pause(local + PAUSE_AFTER_FAILURE);
            }
            let Some(&index) = self.free.front() else { break };
            if !self.worker.connections[index].0.has_room() {
                self.free.pop_front();
                self.is_free[index] = false;
                continue;
            }
            match pacer.turn(local, book.in_flight) {
                Turn::Wait(until) => {
                    self.wake = until.map(|until| start.saturating_add(until));
                    break;
                }
                Turn::Send(due) => {
                    let share = &self.worker.shares[book.spans.len() - 1];
                    if let Limit::Requests(count) = share.stage.limit
                        && share.begun.fetch_add(1, Ordering::Relaxed) >= count
                    {
                        self.close_stage(now, Duration::ZERO);
                        self.next_stage(now);
                        break;
                    }
                    self.free.rotate_left(1);
                    self.submit(index, now, start + due);
                }
            }
        }
        self.flush();
    }

    fn submit(&mut self, index: usize, now: Duration, due: Duration) {
        let Worker { connections, book, keys, poller, .. } = &mut self.worker;
        let (connection, requests) = &mut connections[index];
        let number = book.shared.next.fetch_add(1, Ordering::Relaxed);
        let at = usize::try_from(number % requests.len() as u64).expect("less than a length");
        let request = requests[at].clone();
        let key = keys.as_mut().map(Keys::draw);
        let ticket = Ticket {
            number,
            due,
            stage: book.spans.len() - 1,
            first_row: request.first_row,
            key,
            changes: book.shared.changes.load(Ordering::Relaxed),
        };
        book.sent(&ticket, now);
        let key = key.map(keys::text);
        let wire = connection.wire();
        let mut done =
            |ticket, outcome: Result<Response<'_>, Failure>| book.ended(wire, now, ticket, outcome);
        connection.submit(Outgoing { ticket, request, key }, poller, &mut done);
        // Over HTTP it has gone out already.
        if wire == Wire::Grpc && self.dirty.last() != Some(&index) {
            self.dirty.push(index);
        }
    }

    /// Takes what came on a connection.
    fn take(&mut self, event: Ready, buffer: &mut [u8]) {
        let origin = self.origin;
        let Worker { connections, book, poller, .. } = &mut self.worker;
        let (connection, _) = &mut connections[event.index];
        let wire = connection.wire();
        // One look at the clock for all answers that came together.
        let mut read_at = None;
        let mut done = |ticket, outcome: Result<Response<'_>, Failure>| {
            let now =
                *read_at.get_or_insert_with(|| Instant::now().saturating_duration_since(origin));
            book.ended(wire, now, ticket, outcome);
        };
        connection.go_on(event, poller, buffer, &mut done);
        self.note_room(event.index);
    }

    fn note_room(&mut self, index: usize) {
        if !self.is_free[index] && self.worker.connections[index].0.has_room() {
            self.is_free[index] = true;
            self.free.push_back(index);
        }
    }

    /// Writes the calls of each connection together.
    fn flush(&mut self) {
        if self.dirty.is_empty() {
            return;
        }
        let now = self.now();
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let Worker { connections, book, poller, .. } = &mut self.worker;
            let (connection, _) = &mut connections[index];
            let wire = connection.wire();
            let mut done = |ticket, outcome: Result<Response<'_>, Failure>| {
                book.ended(wire, now, ticket, outcome)
            };
            connection.flush(poller, &mut done);
            self.note_room(index);
        }
        self.dirty = dirty;
    }

    /// Gives up calls that have waited for too long.
    fn give_up(&mut self, now: Duration) {
        let patience = self.worker.patience;
        let Some(limit) = now.checked_sub(patience) else { return };
        let failure = Failure::late(patience);
        for index in 0..self.worker.connections.len() {
            let Worker { connections, book, poller, .. } = &mut self.worker;
            let (connection, _) = &mut connections[index];
            let wire = connection.wire();
            let mut done = |ticket, outcome: Result<Response<'_>, Failure>| {
                book.ended(wire, now, ticket, outcome)
            };
            connection.give_up(&|ticket| ticket.due <= limit, &failure, poller, &mut done);
            self.note_room(index);
        }
    }

    /// Writes down what this thread has spent since it last did so.
    fn count_cpu(&mut self) {
        let now = cpu_time();
        if let Some(recording) = self.worker.book.stages.last_mut() {
            recording.cpu += now.saturating_sub(self.cpu);
        }
        self.cpu = now;
    }
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
