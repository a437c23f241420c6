//! Who waits for what while rows are written, and what becomes of them when that fails.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use predlog::segment::HEADER;
use tempfile::TempDir;

use super::writer::{Next, Segment, Sink};
use super::*;
use crate::config::Guarantee;

/// Segments in memory that fail and stall as they are told.
#[derive(Debug, Clone, Default)]
struct Fake(Arc<Disk>);

#[derive(Debug, Default)]
struct Disk {
    state: Mutex<State>,
    changed: Condvar,
    appends: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Vec<u8>>,
    closed: Vec<u64>,
    /// What closing a segment ends with, until that is changed.
    unclosable: Option<ErrorKind>,
    refuses: Option<ErrorKind>,
    loses: bool,
    synced: usize,
    /// Bytes of each segment that a sync has confirmed.
    confirmed: Vec<usize>,
    is_stalled: bool,
    /// Appends before one that panics.
    panics_after: Option<usize>,
}

#[derive(Debug)]
struct FakeSegment(Arc<Disk>, usize);

impl Fake {
    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.state.lock().unwrap());
        self.0.changed.notify_all();
    }

    fn get<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.state.lock().unwrap())
    }

    /// Numbers of the rows in each segment, as [`Bench::push`] gave them; schemas are 0.
    fn rows(&self) -> Vec<Vec<u64>> {
        self.get(|state| state.segments.iter().map(|bytes| numbers(bytes)).collect())
    }
}

/// Numbers of the rows in the records of a segment.
fn numbers(mut bytes: &[u8]) -> Vec<u64> {
    let mut found = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|length| u32::from_le_bytes(*length)) {
        let (record, rest) = bytes.split_at(HEADER + length as usize);
        let payload = &record[HEADER..];
        found.push(if record[8] == 2 {
            u64::from_le_bytes(*payload.first_chunk().unwrap())
        } else {
            0
        });
        bytes = rest;
    }
    found
}

impl Sink for Fake {
    type Segment = FakeSegment;

    fn begin(&mut self) -> io::Result<FakeSegment> {
        let mut state = self.0.state.lock().unwrap();
        if let Some(kind) = state.refuses {
            return Err(kind.into());
        }
        state.segments.push(Vec::new());
        state.confirmed.push(0);
        Ok(FakeSegment(self.0.clone(), state.segments.len() - 1))
    }
}

impl Segment for FakeSegment {
    fn append(&mut self, framed: &mut [u8]) -> io::Result<()> {
        let state = self.0.state.lock().unwrap();
        let mut state = self.0.changed.wait_while(state, |state| state.is_stalled).unwrap();
        if let Some(kind) = state.refuses {
            return Err(kind.into());
        }
        let before = self.0.appends.fetch_add(1, Ordering::Relaxed);
        assert_ne!(state.panics_after, Some(before), "as asked");
        state.segments[self.1].extend_from_slice(framed);
        Ok(())
    }

    fn position(&self) -> u64 {
        self.0.state.lock().unwrap().segments[self.1].len() as u64
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.0.state.lock().unwrap();
        if std::mem::take(&mut state.loses) {
            return Err(ErrorKind::Other.into());
        }
        state.synced += 1;
        state.confirmed[self.1] = state.segments[self.1].len();
        Ok(())
    }

    fn forget_unsynced(&mut self) -> io::Result<()> {
        let mut state = self.0.state.lock().unwrap();
        let confirmed = state.confirmed[self.1];
        state.segments[self.1].truncate(confirmed);
        Ok(())
    }

    fn close(&mut self) -> io::Result<u64> {
        let number = self.1 as u64 + 1;
        let mut state = self.0.state.lock().unwrap();
        if let Some(kind) = state.unclosable {
            return Err(kind.into());
        }
        state.closed.push(number);
        Ok(number)
    }
}

struct Bench {
    log: Arc<PredictionLog>,
    writer: Writer<Fake>,
    disk: Fake,
}

impl Bench {
    fn new(lines: &str) -> Self {
        let terms = reading::terms(std::path::Path::new("/nowhere"), lines);
        let disk = Fake::default();
        let settings = Settings::new(&terms).unwrap();
        let place = (PathBuf::new(), 0);
        let (log, writer) = PredictionLog::assemble(settings, &terms, disk.clone(), place);
        Self { log, writer, disk }
    }

    /// A row with a number, of so many bytes.
    fn push(&self, number: u64, size: usize) -> Result<Ticket, Refusal> {
        let key = (Guarantee::Durable, None);
        let taken = self.log.shared.lanes.push(key, (HEADER + 8 + size, false), |out| {
            out.extend_from_slice(&number.to_le_bytes());
            out.resize(out.len() + size, 7);
        });
        taken.map(|(ticket, _)| ticket)
    }

    fn round(&mut self) -> Next {
        self.writer.round(Instant::now())
    }

    fn end(&mut self) {
        *self.log.shared.stop.lock().unwrap() = Some(Instant::now());
        assert_eq!(self.round(), Next::End);
    }
}

#[test]
fn what_waits_is_bounded_in_rows_and_bytes_over_all_lanes() {
    let mut bench = Bench::new("queue_rows = 3\nqueue_bytes = '64KiB'");
    assert_eq!(bench.push(0, 64 << 10).unwrap_err(), Refusal::Large);
    bench.push(1, 40 << 10).unwrap();
    assert_eq!(bench.push(2, 40 << 10).unwrap_err(), Refusal::Full);
    let log = bench.log.clone();
    std::thread::scope(|scope| {
        let lanes = &log.shared.lanes;
        let push = || {
            let taken =
                lanes.push((Guarantee::Lossy, None), (HEADER + 8, false), |out| out.extend([3; 8]));
            taken.is_ok()
        };
        let both: Vec<_> = (0..4).map(|_| scope.spawn(push)).collect();
        let taken = both.into_iter().map(|thread| thread.join().unwrap()).filter(|taken| *taken);
        assert_eq!(taken.count(), 2);
    });
    bench.round();
    assert_eq!(log.shared.lanes.room.held(), (0, 0));
    bench.push(4, 0).unwrap();
}

#[test]
fn rows_wait_while_the_disk_is_full_and_none_is_lost_or_doubled() {
    let mut bench = Bench::new("");
    bench.disk.set(|state| state.refuses = Some(ErrorKind::StorageFull));
    let mut pauses = Vec::new();
    for number in 1..=9 {
        bench.push(number, 300 << 10).unwrap();
        let Next::After(pause) = bench.round() else { panic!("it goes on") };
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    assert!(bench.log.shared.health.is_troubled());
    assert!(bench.log.shared.oldest().is_some());
    assert_eq!(bench.log.shared.lanes.room.held().0, 9);
    bench.disk.set(|state| state.refuses = None);
    bench.round();
    assert_eq!(bench.disk.rows(), [[1, 2, 3, 4, 5, 6, 7, 8, 9]]);
    assert!(!bench.log.shared.health.is_troubled());
    assert_eq!(bench.log.shared.oldest(), None);
    assert_eq!(bench.log.shared.lanes.room.held(), (0, 0));
}

#[test]
fn a_segment_that_goes_on_failing_is_left_for_another() {
    let mut bench = Bench::new("");
    bench.push(1, 0).unwrap();
    bench.round();
    bench.push(2, 0).unwrap();
    bench.disk.set(|state| state.refuses = Some(ErrorKind::Other));
    for _ in 0..3 {
        bench.round();
    }
    bench.disk.set(|state| state.refuses = None);
    bench.round();
    assert_eq!(bench.disk.rows(), [[1], [2]]);
}

#[test]
fn whoever_holds_the_writing_back_lets_rows_wait() {
    let mut bench = Bench::new("");
    bench.log.hold(Some("the disk is nearly full".to_owned()));
    bench.push(1, 0).unwrap();
    bench.round();
    assert!(bench.disk.rows().is_empty() && bench.log.shared.health.is_troubled());
    bench.log.hold(None);
    bench.round();
    assert_eq!(bench.disk.rows(), [[1]]);
}

#[tokio::test(start_paused = true)]
async fn durable_calls_are_answered_together_once_their_rows_are_written() {
    let mut bench = Bench::new("fsync = 'never'");
    let log = bench.log.clone();
    let until = Instant::now() + Duration::from_secs(60);
    let tickets: Vec<_> = (1..=3).map(|number| bench.push(number, 0).unwrap()).collect();
    let mut first = Box::pin(log.commit(until, || Ok(tickets[0])));
    let mut last = Box::pin(log.commit(until, || Ok(tickets[2])));
    assert!((&mut first).now_or_never().is_none() && (&mut last).now_or_never().is_none());
    bench.round();
    assert_eq!(bench.disk.0.appends.load(Ordering::Relaxed), 1);
    assert_eq!((first.now_or_never(), last.now_or_never()), (Some(Ok(())), Some(Ok(()))));
    let late = bench.push(4, 0).unwrap();
    let mut late = Box::pin(log.commit(until, || Ok(late)));
    assert!((&mut late).now_or_never().is_none());
    // A round later, whatever was written before.
    bench.round();
    assert_eq!(late.now_or_never(), Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn where_each_write_is_synced_nobody_is_answered_before_that() {
    let mut bench = Bench::new("fsync = 'always'");
    let log = bench.log.clone();
    let ticket = bench.push(1, 0).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let mut waiting = Box::pin(log.commit(until, || Ok(ticket)));
    assert!((&mut waiting).now_or_never().is_none());
    bench.disk.set(|state| state.loses = true);
    bench.round();
    // Perhaps it is not on the disk: it is taken back, and comes again in another segment.
    assert_eq!(bench.disk.rows(), [[0; 0]]);
    assert!((&mut waiting).now_or_never().is_none());
    bench.round();
    assert_eq!(waiting.now_or_never(), Some(Ok(())));
    assert_eq!(bench.disk.rows(), [vec![], vec![1]]);
    assert_eq!(bench.disk.get(|state| state.synced), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_makes_durable_calls_wait_until_their_deadline_and_no_longer() {
    let mut bench = Bench::new("queue_rows = 1");
    let log = bench.log.clone();
    bench.push(1, 0).unwrap();
    let started = Instant::now();
    let until = started + Duration::from_millis(700);
    let refused = log.commit(until, || bench.push(2, 0)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    assert_eq!(started.elapsed(), Duration::from_millis(700));
    // One that is let in meanwhile is not refused.
    let until = Instant::now() + Duration::from_secs(60);
    let shared = log.shared.clone();
    let push = || {
        shared.lanes.push((Guarantee::Durable, None), (HEADER + 8, false), |out| out.extend([3; 8]))
    };
    let mut waiting = Box::pin(log.commit(until, || push().map(|(ticket, _)| ticket)));
    assert!((&mut waiting).now_or_never().is_none());
    bench.round();
    assert!((&mut waiting).now_or_never().is_none());
    bench.round();
    assert_eq!(waiting.now_or_never(), Some(Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_disk_holds_up_nobody_but_durable_calls_and_those_are_refused_clearly() {
    let Bench { log, writer, disk } = Bench::new("queue_rows = 100");
    disk.set(|state| state.is_stalled = true);
    let thread = std::thread::spawn(move || writer.run());
    let push = |number: u64| {
        let write = |out: &mut Vec<u8>| out.extend(number.to_le_bytes());
        log.shared
            .lanes
            .push((Guarantee::Lossy, None), (HEADER + 8, false), write)
            .map(|(ticket, _)| ticket)
    };
    let ticket = push(1).unwrap();
    let refused = log.commit(Instant::now() + Duration::from_secs(3), || Ok(ticket)).await;
    assert_eq!(refused.unwrap_err().kind(), Kind::Overloaded);
    // The thread is stuck in the write; all that find room go on, and the others are told.
    for number in 2..=100 {
        push(number).unwrap();
    }
    assert_eq!(push(101).unwrap_err(), Refusal::Full);
    while !log.shared.health.stands_still(Instant::now(), PATIENCE, Duration::ZERO) {
        std::thread::yield_now();
    }
    // As long as a call may wait for its row, newcomers have a chance.
    assert_eq!(log.admit(), Ok(()));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(log.admit().unwrap_err().kind(), Kind::Overloaded);
    disk.set(|state| state.is_stalled = false);
    *log.shared.stop.lock().unwrap() = Some(Instant::now() + Duration::from_secs(60));
    log.shared.bell.ring();
    thread.join().unwrap();
    assert_eq!(disk.rows().concat(), (1..=100).collect::<Vec<_>>());
    assert_eq!(log.admit(), Ok(()));
    assert_eq!(push(102).unwrap_err(), Refusal::Stopping);
}

#[tokio::test(start_paused = true)]
async fn segments_end_when_they_are_large_or_old() {
    let mut bench = Bench::new("segment_size = '64KiB'\nsegment_age = '10s'");
    let mut closed = bench.log.closed();
    bench.push(1, 65 << 10).unwrap();
    bench.round();
    bench.push(2, 0).unwrap();
    bench.round();
    tokio::time::advance(Duration::from_secs(9)).await;
    bench.push(3, 0).unwrap();
    bench.round();
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.round();
    bench.push(4, 0).unwrap();
    bench.round();
    assert_eq!(bench.disk.rows(), [vec![1], vec![2, 3], vec![4]]);
    while *closed.borrow_and_update() < 2 {
        std::thread::yield_now();
    }
    bench.end();
    let mut all = bench.disk.get(|state| state.closed.clone());
    all.sort_unstable();
    assert_eq!(all, [1, 2, 3]);
    assert_eq!(*closed.borrow_and_update(), 3);
}

#[tokio::test(start_paused = true)]
async fn segments_that_cannot_be_closed_hold_up_nobody_and_end_once_they_can() {
    let mut bench = Bench::new("segment_size = '64KiB'");
    bench.disk.set(|state| state.unclosable = Some(ErrorKind::Other));
    for number in 1..=8 {
        bench.push(number, 65 << 10).unwrap();
        bench.round();
    }
    // Four are being closed; the fifth goes on meanwhile.
    let rows = bench.disk.rows();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1, 4]);
    bench.disk.set(|state| state.unclosable = None);
    bench.end();
    assert_eq!(bench.disk.get(|state| state.closed.len()), 5);
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_was_taken_away_is_given_up() {
    let mut bench = Bench::new("segment_size = '64KiB'");
    bench.disk.set(|state| state.unclosable = Some(ErrorKind::NotFound));
    for number in 1..=3 {
        bench.push(number, 65 << 10).unwrap();
        bench.round();
    }
    bench.end();
    assert_eq!(bench.disk.get(|state| state.closed.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_written_is_synced_and_ended_while_more_is_held_back() {
    let mut bench = Bench::new("fsync = 'interval'\nsegment_age = '10s'");
    bench.push(1, 0).unwrap();
    bench.round();
    assert_eq!(bench.disk.get(|state| state.synced), 0);
    bench.log.hold(Some("the disk is nearly full".to_owned()));
    bench.push(2, 0).unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.round();
    assert_eq!(bench.disk.get(|state| state.synced), 1);
    tokio::time::advance(Duration::from_secs(10)).await;
    let mut closed = bench.log.closed();
    bench.round();
    while *closed.borrow_and_update() < 1 {
        std::thread::yield_now();
    }
    assert_eq!(bench.disk.rows(), [[1]]);
    bench.log.hold(None);
    bench.round();
    assert_eq!(bench.disk.rows(), [[1], [2]]);
}

#[tokio::test(start_paused = true)]
async fn a_correction_finds_room_in_a_full_queue() {
    let bench = Bench::new("queue_rows = 1");
    bench.push(1, 0).unwrap();
    assert_eq!(bench.push(2, 0).unwrap_err(), Refusal::Full);
    let lanes = &bench.log.shared.lanes;
    let owed = lanes.push((Guarantee::Durable, None), (HEADER + 8, true), |out| out.extend([3; 8]));
    assert!(owed.is_ok());
    assert_eq!(lanes.room.held().0, 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_written_by_the_end_is_given_up_and_counted() {
    let mut bench = Bench::new("");
    bench.push(1, 0).unwrap();
    bench.disk.set(|state| state.refuses = Some(ErrorKind::StorageFull));
    *bench.log.shared.stop.lock().unwrap() = Some(Instant::now() + Duration::from_secs(1));
    assert_eq!(bench.round(), Next::After(Duration::from_millis(10)));
    assert_eq!(bench.log.shared.lanes.room.held().0, 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(bench.round(), Next::End);
    assert_eq!(bench.log.shared.lanes.room.held(), (0, 0));
}

/// Rows that were lost for this reason, in all logs of the process.
fn lost(reason: &str) -> u64 {
    let text = crate::telemetry::metrics::recorder().render();
    let series = format!("penstock_prediction_log_dropped_rows_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn what_a_thread_that_dies_of_a_panic_held_is_counted_at_once_and_its_room_is_free() {
    let before = lost("disk");
    let Bench { log, writer, disk } = Bench::new("fsync = 'always'\nqueue_rows = 4");
    let push = |size: usize| {
        let lanes = &log.shared.lanes;
        let write = |out: &mut Vec<u8>| out.resize(out.len() + size, 7);
        let taken = lanes.push((Guarantee::Lossy, None), (HEADER + size, false), write);
        taken.map(|(ticket, _)| ticket)
    };
    // One is written and not synced, one is in hand, and two wait.
    for size in [2 << 20, 2 << 20, 8, 8] {
        push(size).unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    let mut waiting = Box::pin(log.commit(until, || push(8)));
    assert!((&mut waiting).now_or_never().is_none());
    disk.set(|state| state.panics_after = Some(1));
    assert!(!writer.run());
    assert_eq!(log.shared.lanes.room.held(), (0, 0));
    assert!(log.shared.oldest().is_some(), "it goes on to grow: nothing is written");
    assert!(lost("disk") - before >= 4);
    let refused = waiting.now_or_never().expect("it is told at once").unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    // The disk is why the next ones are lost: nobody is stopping.
    let refusal = push(8).unwrap_err();
    assert_eq!(refusal, Refusal::Broken);
    log.lost(refusal);
    assert!(lost("disk") - before >= 5);
    assert_eq!(log.shared.lanes.push_feedback(&[0; 8], 1).unwrap_err(), Refusal::Broken);
    assert_eq!(log.shared.lanes.room.held(), (0, 0));
    assert!(!log.stop(Duration::from_millis(1)));
}

#[test]
fn a_folder_that_cannot_be_used_and_a_key_that_is_not_there_are_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    std::fs::write(&path, "a file").unwrap();
    let problem =
        |lines: &str| PredictionLog::start(&reading::terms(&path, lines)).unwrap_err().to_string();
    assert!(problem("").starts_with("prediction_log.path: cannot use "), "{}", problem(""));
    let missing = problem("hash_key = 'file:/nowhere/key'");
    assert!(missing.starts_with("prediction_log.hash_key: cannot read /nowhere/key"), "{missing}");
    std::fs::write(folder.path().join("key"), "short\n").unwrap();
    let short = problem(&format!("hash_key = 'file:{}/key'", folder.path().display()));
    assert_eq!(short, "prediction_log.hash_key: the key has less than 16 bytes");
    let other = folder.path().join("other");
    let first = reading::start(&other, "");
    let taken = PredictionLog::start(&reading::terms(&other, "")).unwrap_err().to_string();
    assert!(
        taken.starts_with("prediction_log.path: ") && taken.contains("another gateway"),
        "{taken}"
    );
    assert!(first.stop(Duration::from_secs(10)));
}
