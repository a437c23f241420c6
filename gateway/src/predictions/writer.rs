//! The thread that writes: it takes what all lanes hold, appends it to a segment and says that it
//! is written. Nobody waits for it but durable calls, and nothing that it has taken is lost while
//! the disk refuses it.

use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use predlog::SchemaId;
use tokio::time::Instant;
use tracing::{error, warn};

use super::closing::{Closing, FIRST_PAUSE, LONGEST_PAUSE};
use super::lane::{Chunk, Refusal};
use super::state::Shared;
use crate::config::{self, Fsync};
use crate::telemetry::{LostRow, PredictionMetrics};

/// How long rows gather. Waking a thread costs whoever hands a row over more than all the rest.
const GATHER: Duration = Duration::from_millis(5);
/// Rounds without a row after which the thread sleeps until there is one.
const QUIET_ROUNDS: u32 = 200;
/// Failures in a row for other reasons than room, after which another segment is tried.
const MOST_FAILURES: u32 = 3;

/// Where segments come from.
pub(super) trait Sink: Send + 'static {
    type Segment: Segment;

    /// Begins the next one.
    fn begin(&mut self) -> io::Result<Self::Segment>;
}

/// A segment that is being written.
pub(super) trait Segment: Send + 'static {
    /// All of the records, or none.
    fn append(&mut self, framed: &mut [u8]) -> io::Result<()>;
    fn position(&self) -> u64;
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back what no sync has confirmed.
    fn forget_unsynced(&mut self) -> io::Result<()>;
    /// Ends it; returns its number. May be tried again, unless it is `NotFound`.
    fn close(&mut self) -> io::Result<u64>;
}

/// When segments end and are brought to the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    fsync: Fsync,
    fsync_interval: Duration,
    segment_size: u64,
    segment_age: Duration,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    After(Duration),
    /// When there is a row, or after this time.
    Idle(Option<Duration>),
    /// Everything is written and closed, or given up.
    End,
}

/// Writes rounds.
#[derive(Debug)]
pub(super) struct Writer<S: Sink> {
    shared: Arc<Shared>,
    sink: S,
    terms: Terms,
    current: Option<Current<S::Segment>>,
    /// By lane, in the order in which they came.
    pending: VecDeque<(usize, Chunk)>,
    /// Written, and not yet on the disk, where they do not count as written until then.
    unsynced: VecDeque<(usize, Chunk)>,
    pause: Duration,
    failures: u32,
    quiet: u32,
    closing: Closing,
}

/// The segment that is being written.
#[derive(Debug)]
struct Current<S> {
    segment: S,
    began: Instant,
    /// Schemas that it has.
    known: HashSet<SchemaId>,
    synced: Instant,
    is_dirty: bool,
}

impl From<&config::PredictionLog> for Terms {
    fn from(config: &config::PredictionLog) -> Self {
        Self {
            fsync: config.fsync,
            fsync_interval: config.fsync_interval,
            segment_size: config.segment_size as u64,
            segment_age: config.segment_age,
        }
    }
}

impl<S: Sink> Writer<S> {
    pub(super) fn new(shared: Arc<Shared>, sink: S, terms: Terms) -> Self {
        let closing = Closing::new(shared.clone());
        Self {
            shared,
            sink,
            terms,
            current: None,
            pending: VecDeque::new(),
            unsynced: VecDeque::new(),
            pause: FIRST_PAUSE,
            failures: 0,
            quiet: 0,
            closing,
        }
    }

    /// Writes until the end; whether it came to that. A panic ends it before: what waits then is
    /// lost and counted, and nothing is taken in any more.
    pub(super) fn run(mut self) -> bool {
        let ended = catch_unwind(AssertUnwindSafe(|| self.write_rounds())).is_ok();
        if !ended {
            self.break_down(Instant::now());
        }
        ended
    }

    fn write_rounds(&mut self) {
        loop {
            match self.round(Instant::now()) {
                Next::After(time) => self.shared.bell.wait(Some(time)),
                Next::Idle(limit) => {
                    self.shared.bell.fall_asleep();
                    if self.shared.lanes.room.held().0 == 0 {
                        self.shared.bell.wait(limit);
                    }
                }
                Next::End => break,
            }
        }
    }

    /// Takes what waits, and writes it as far as that is possible.
    pub(super) fn round(&mut self, now: Instant) -> Next {
        let stop = self.shared.stop_at();
        let pending = &mut self.pending;
        let last = stop.map(|_| Refusal::Stopping);
        self.shared.lanes.collect(last, |lane, chunk| pending.push_back((lane, chunk)));
        self.show_oldest();
        let had_rows = !self.pending.is_empty();
        // The last rows are few beside the room that the disk is to keep.
        let held = self.shared.health.held().filter(|_| stop.is_none());
        let result = self.write(now, held);
        self.show_oldest();
        match result {
            Ok(()) => {
                self.shared.health.works(now);
                (self.pause, self.failures) = (FIRST_PAUSE, 0);
                if stop.is_some() {
                    self.end();
                    return Next::End;
                }
                self.next(now, had_rows)
            }
            Err(error) => {
                self.shared.health.fails(now, &error.to_string());
                self.note_failure(&error);
                if stop.is_some_and(|stop| now >= stop) {
                    self.give_up();
                    return Next::End;
                }
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                Next::After(pause)
            }
        }
    }

    fn next(&mut self, now: Instant, had_rows: bool) -> Next {
        self.quiet = if had_rows { 0 } else { self.quiet.saturating_add(1) };
        if self.quiet < QUIET_ROUNDS {
            return Next::After(GATHER);
        }
        Next::Idle(self.current.as_ref().map(|current| {
            let age = (current.began + self.terms.segment_age).saturating_duration_since(now);
            let sync = (current.synced + self.terms.fsync_interval).saturating_duration_since(now);
            let wants_sync = current.is_dirty && self.terms.fsync == Fsync::Interval;
            if wants_sync { age.min(sync) } else { age }.max(GATHER)
        }))
    }

    /// Writes what is pending, unless it is held back. What was written before is brought to the
    /// disk either way, and segments end.
    fn write(&mut self, now: Instant, held: Option<String>) -> io::Result<()> {
        self.shared.health.works_since(Some(now));
        self.rotate(now);
        let written = match held {
            Some(why) => Err(io::Error::new(ErrorKind::StorageFull, why)),
            None => self.write_pending(now),
        };
        self.shared.health.works_since(Some(Instant::now()));
        let synced = self.sync_if_due(now);
        self.rotate(now);
        self.shared.health.works_since(None);
        written.and(synced)
    }

    fn write_pending(&mut self, now: Instant) -> io::Result<()> {
        // A chunk stays there until it is written, also for those who come after a panic.
        while let Some((_, chunk)) = self.pending.front_mut() {
            // A long way is no standstill.
            self.shared.health.works_since(Some(Instant::now()));
            let current = match &mut self.current {
                Some(current) => current,
                None => self.current.insert(Current::new(self.sink.begin()?, now)),
            };
            current.append(chunk, &self.shared.metrics)?;
            let Some((lane, chunk)) = self.pending.pop_front() else { break };
            self.shared.metrics.bytes.increment(chunk.bytes.len() as u64);
            match self.terms.fsync {
                Fsync::Always => self.unsynced.push_back((lane, chunk)),
                Fsync::Never | Fsync::Interval => finish(&self.shared, lane, chunk),
            }
            self.shared.lanes.room.freed.notify_waiters();
            self.rotate(now);
        }
        Ok(())
    }

    fn sync_if_due(&mut self, now: Instant) -> io::Result<()> {
        let Some(current) = self.current.as_mut().filter(|current| current.is_dirty) else {
            return Ok(());
        };
        let is_due = match self.terms.fsync {
            Fsync::Never => false,
            Fsync::Interval => now.duration_since(current.synced) >= self.terms.fsync_interval,
            Fsync::Always => true,
        };
        if !is_due {
            return Ok(());
        }
        let began = Instant::now();
        let synced = current.segment.sync();
        self.shared.metrics.sync_seconds.record(began.elapsed());
        if let Err(error) = synced {
            // What the system could not bring to the disk it may have forgotten, and will not
            // tell again: those who wait are written once more, in another segment.
            self.leave_segment();
            return Err(error);
        }
        (current.synced, current.is_dirty) = (now, false);
        while let Some((lane, chunk)) = self.unsynced.pop_front() {
            finish(&self.shared, lane, chunk);
        }
        self.shared.lanes.room.freed.notify_waiters();
        Ok(())
    }

    /// Ends a segment that is large or old enough.
    fn rotate(&mut self, now: Instant) {
        let terms = self.terms;
        let is_over = |current: &mut Current<S::Segment>| {
            // What waits for a sync is not on the disk before its segment is.
            let is_whole = !current.is_dirty || terms.fsync != Fsync::Always;
            let has_end = current.segment.position() >= terms.segment_size
                || now.duration_since(current.began) >= terms.segment_age;
            is_whole && has_end
        };
        // While the disk is behind with closing, segments become longer.
        if self.closing.has_room()
            && let Some(current) = self.current.take_if(is_over)
        {
            self.closing.close(current.segment);
        }
    }

    /// Goes on in another segment, where those rows come again that wait for a sync.
    fn leave_segment(&mut self) {
        let Some(Current { mut segment, .. }) = self.current.take() else { return };
        if !self.unsynced.is_empty()
            && let Err(error) = segment.forget_unsynced()
        {
            warn!(%error, "rows of the prediction log may be there twice");
        }
        while let Some(chunk) = self.unsynced.pop_back() {
            self.pending.push_front(chunk);
        }
        if self.closing.has_room() {
            self.closing.close(segment);
        } else {
            warn!("a segment of the prediction log is left open until the next start");
        }
    }

    fn note_failure(&mut self, error: &io::Error) {
        self.shared.metrics.failed();
        let is_full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        );
        self.failures += u32::from(!is_full);
        if self.failures >= MOST_FAILURES {
            self.failures = 0;
            self.leave_segment();
        }
    }

    /// Everything is written: closes the segment and waits for all that are being closed.
    fn end(&mut self) {
        if let Some(mut current) = self.current.take() {
            // What is not on the disk yet is told by closing it.
            if let Err(error) = current.segment.sync() {
                warn!(%error, "the prediction log may not be on the disk");
            }
            self.closing.close(current.segment);
        }
        self.closing.join();
    }

    /// Counts what could not be written by the end.
    fn give_up(&mut self) {
        let lost = self.abandon(LostRow::Stopping);
        if lost > 0 {
            error!(rows = lost, "rows of the prediction log were lost: they could not be written");
        }
        if let Some(current) = self.current.take() {
            self.closing.close(current.segment);
        }
        self.closing.join();
    }

    /// After a panic. The segment is left as it is: the next start closes it.
    fn break_down(&mut self, now: Instant) {
        self.shared.health.fails(now, "the thread that writes it has died of a panic");
        let since = self.shared.oldest().unwrap_or(now);
        let pending = &mut self.pending;
        let last = Some(Refusal::Broken);
        self.shared.lanes.collect(last, |lane, chunk| pending.push_back((lane, chunk)));
        let lost = self.abandon(LostRow::Disk);
        error!(rows = lost, "rows of the prediction log were lost, and all that come will be");
        // Whoever watches sees that nothing is written any more.
        self.shared.holds(Some(since));
        // Whoever waits for room is told.
        self.shared.lanes.room.freed.notify_waiters();
    }

    /// Gives up and counts all that it holds; how many rows that are.
    fn abandon(&mut self, reason: LostRow) -> usize {
        let mut lost = 0;
        for (_, chunk) in self.pending.drain(..).chain(self.unsynced.drain(..)) {
            lost += chunk.count();
            self.shared.lanes.abandon(&chunk);
        }
        self.shared.metrics.dropped(reason, lost as u64);
        lost
    }

    fn show_oldest(&self) {
        let waiting = self.unsynced.front().or(self.pending.front());
        self.shared.holds(waiting.and_then(|(_, chunk)| chunk.since));
    }
}

impl<S: Segment> Current<S> {
    fn new(segment: S, now: Instant) -> Self {
        Self { segment, began: now, known: HashSet::new(), synced: now, is_dirty: false }
    }

    /// Appends the rows of a buffer, behind the schemas that they name.
    fn append(&mut self, chunk: &mut Chunk, metrics: &PredictionMetrics) -> io::Result<()> {
        let began = Instant::now();
        for schema in &chunk.schemas {
            if !self.known.contains(&schema.id) {
                self.segment.append(&mut schema.framed.clone())?;
                self.known.insert(schema.id);
            }
        }
        self.segment.append(&mut chunk.bytes)?;
        self.is_dirty = true;
        metrics.write_seconds.record(began.elapsed());
        Ok(())
    }
}

fn finish(shared: &Shared, lane: usize, chunk: Chunk) {
    shared.metrics.written(&chunk.rows);
    shared.lanes.finish(lane, chunk);
}
