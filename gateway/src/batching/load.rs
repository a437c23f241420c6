//! How much waits, in counters that calls are admitted by without any lock.
//!
//! The room of a call is shared by the call in the queue and by the caller that waits for it:
//! whoever is done with it first gives it back, once. `tests/loom.rs` tries the interleavings.

use std::time::Duration;

use super::sync::{Arc, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Dead calls that a queue may hold whatever else it holds.
const FEW_DEAD: usize = 64;

/// What waits in one queue.
#[derive(Debug, Default)]
pub(super) struct Load {
    calls: AtomicUsize,
    rows: AtomicUsize,
    bytes: AtomicUsize,
    /// Calls that gave their room back and still lie in a bucket, and their bytes.
    dead: AtomicUsize,
    dead_bytes: AtomicUsize,
    /// A bit for each rank of which calls may wait.
    ranks: AtomicUsize,
    /// Engine time of one item and of a batch, as last learnt; 0 while nothing is known.
    row_nanos: AtomicU64,
    batch_nanos: AtomicU64,
    /// Engine time of all that waits on the same device.
    backlog: Arc<Backlog>,
}

/// Engine time of everything that waits on one device.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicU64);

/// The room that one waiting call takes.
#[derive(Debug)]
struct Room {
    load: Arc<Load>,
    rows: usize,
    bytes: usize,
    nanos: u64,
    state: AtomicU8,
}

/// It waits; the room is taken.
const WAITS: u8 = 0;
/// It left the queue, to be run or refused.
const STARTED: u8 = 1;
/// Its caller went away while it waited.
const LEFT: u8 = 2;

/// The queue's side of a room, given back when the call leaves the queue.
#[derive(Debug)]
pub(super) struct Place(Option<Arc<Room>>);

/// The caller's side of a room. Dropping it while the call waits gives the room back at once.
#[derive(Debug)]
pub(super) struct Hold(Arc<Room>);

/// Which bound a call would break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Rows,
    Bytes,
}

impl Load {
    pub(super) fn on(backlog: Arc<Backlog>) -> Self {
        Self { backlog, ..Self::default() }
    }

    /// Takes room for a call. One call may always wait alone, however large: its size was checked
    /// at the door.
    pub(super) fn take(
        // No method: loom's own `Arc` can be no receiver.
        load: &Arc<Self>,
        rows: usize,
        bytes: usize,
        (max_rows, max_bytes): (usize, usize),
    ) -> Result<Place, Full> {
        let nanos = load.row_nanos.load(Ordering::Relaxed).saturating_mul(rows as u64);
        load.calls.fetch_add(1, Ordering::Relaxed);
        let rows_before = load.rows.fetch_add(rows, Ordering::Relaxed);
        let bytes_before = load.bytes.fetch_add(bytes, Ordering::Relaxed);
        load.backlog.0.fetch_add(nanos, Ordering::Relaxed);
        // From here on dropping the place gives all of it back.
        let place = Place::new(load.clone(), rows, bytes, nanos);
        if rows_before > 0 && rows_before + rows > max_rows {
            return Err(Full::Rows);
        }
        if bytes_before > 0 && bytes_before + bytes > max_bytes {
            return Err(Full::Bytes);
        }
        Ok(place)
    }

    /// Notes what one item and a whole batch take.
    pub(super) fn set_times(&self, row: Duration, batch: Duration) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.row_nanos.store(nanos(row), Ordering::Relaxed);
        self.batch_nanos.store(nanos(batch), Ordering::Relaxed);
    }

    pub(super) fn row_time(&self) -> Duration {
        Duration::from_nanos(self.row_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn batch_time(&self) -> Duration {
        Duration::from_nanos(self.batch_nanos.load(Ordering::Relaxed))
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes that a call of this rank waits.
    pub(super) fn has_rank(&self, rank: usize) {
        if self.ranks.load(Ordering::Relaxed) & (1 << rank) == 0 {
            self.ranks.fetch_or(1 << rank, Ordering::Relaxed);
        }
    }

    /// Notes that no call behind this rank waits.
    pub(super) fn has_none_behind(&self, rank: usize) {
        self.ranks.fetch_and((2 << rank) - 1, Ordering::Relaxed);
    }

    /// Whether calls behind this rank may wait.
    pub(super) fn may_have_behind(&self, rank: usize) -> bool {
        self.ranks.load(Ordering::Relaxed) >> (rank + 1) != 0
    }

    /// Whether a call would fit now.
    pub(super) fn fits(
        &self,
        rows: usize,
        bytes: usize,
        (max_rows, max_bytes): (usize, usize),
    ) -> bool {
        let (waiting, held) = (self.rows(), self.bytes());
        (waiting == 0 || waiting + rows <= max_rows) && (held == 0 || held + bytes <= max_bytes)
    }

    /// Whether looking for dead calls would free about half of what is looked at, or a fourth of
    /// the bytes that may wait.
    pub(super) fn needs_sweep(&self, max_bytes: usize) -> bool {
        let dead = self.dead.load(Ordering::Relaxed);
        dead > FEW_DEAD.max(self.calls()) || self.dead_bytes.load(Ordering::Relaxed) > max_bytes / 4
    }
}

impl Room {
    fn give_back(&self) {
        self.load.calls.fetch_sub(1, Ordering::Relaxed);
        self.load.rows.fetch_sub(self.rows, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.load.backlog.0.fetch_sub(self.nanos, Ordering::Relaxed);
    }

    /// Ends the wait, if nobody has yet.
    fn end(&self, state: u8) -> bool {
        let ended =
            self.state.compare_exchange(WAITS, state, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if ended {
            self.give_back();
        }
        ended
    }
}

impl Place {
    fn new(load: Arc<Load>, rows: usize, bytes: usize, nanos: u64) -> Self {
        let state = AtomicU8::new(WAITS);
        Self(Some(Arc::new(Room { load, rows, bytes, nanos, state })))
    }

    /// The caller's side.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.0.clone().map(Hold)
    }

    /// The same room for the parts of a call, by their rows. The bytes stay with the last
    /// part, since the parts share what they are cut from.
    pub(super) fn split(mut self, rows: &[usize]) -> Vec<Self> {
        // Nobody else knows of this room yet: its counts move into the parts.
        let Some(room) = self.0.take() else { return Vec::new() };
        let mut left = room.nanos;
        let mut parts = Vec::with_capacity(rows.len());
        for (part, &count) in (1..).zip(rows) {
            let nanos = (room.nanos / room.rows.max(1) as u64).saturating_mul(count as u64);
            let nanos = nanos.min(left);
            left -= nanos;
            room.load.calls.fetch_add(1, Ordering::Relaxed);
            let bytes = if part == rows.len() { room.bytes } else { 0 };
            parts.push(Self::new(room.load.clone(), count, bytes, nanos));
        }
        room.load.calls.fetch_sub(1, Ordering::Relaxed);
        room.load.backlog.0.fetch_sub(left, Ordering::Relaxed);
        parts
    }
}

impl Hold {
    /// Whether the call has left the queue.
    pub(super) fn has_started(&self) -> bool {
        self.0.state.load(Ordering::Acquire) == STARTED
    }

    /// Gives the room back; says whether the call waited until now.
    pub(super) fn leave(self) -> bool {
        self.end()
    }

    fn end(&self) -> bool {
        let Room { load, bytes, state, .. } = &*self.0;
        if state.load(Ordering::Acquire) != WAITS {
            return false;
        }
        // Counted before the queue can see it, so that the count never falls below zero.
        load.dead.fetch_add(1, Ordering::Relaxed);
        load.dead_bytes.fetch_add(*bytes, Ordering::Relaxed);
        let ended = self.0.end(LEFT);
        if !ended {
            load.dead.fetch_sub(1, Ordering::Relaxed);
            load.dead_bytes.fetch_sub(*bytes, Ordering::Relaxed);
        }
        ended
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(room) = &self.0 else { return };
        if !room.end(STARTED) {
            room.load.dead.fetch_sub(1, Ordering::Relaxed);
            room.load.dead_bytes.fetch_sub(room.bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.end();
    }
}

impl Backlog {
    pub(super) fn time(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

// `tests/loom.rs` reads this file too, for its own.
#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_leaves_nothing_behind() {
        let load = Arc::new(Load::default());
        let first = Load::take(&load, 3, 10, (2, 100)).unwrap();
        assert_eq!(Load::take(&load, 1, 1, (2, 100)).unwrap_err(), Full::Rows);
        assert_eq!(Load::take(&load, 1, 95, (10, 100)).unwrap_err(), Full::Bytes);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (1, 3, 10));
        drop(first);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (0, 0, 0));
    }

    #[test]
    fn parts_take_the_room_of_their_whole() {
        let load = Arc::new(Load::default());
        load.set_times(Duration::from_nanos(7), Duration::ZERO);
        let mut parts = Load::take(&load, 10, 40, (5, 50)).unwrap().split(&[4, 4, 2]);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (3, 10, 40));
        assert_eq!(load.backlog.time(), Duration::from_nanos(70));
        drop(parts.remove(0));
        assert_eq!(
            (load.calls(), load.rows(), load.bytes()),
            (2, 6, 40),
            "the others are cut of it"
        );
        drop(parts);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (0, 0, 0));
        assert_eq!(load.backlog.time(), Duration::ZERO);
    }

    #[test]
    fn the_backlog_is_counted_in_engine_time() {
        let backlog = Arc::new(Backlog::default());
        let load = Arc::new(Load::on(backlog.clone()));
        let unknown = Load::take(&load, 5, 0, (10, 0)).unwrap();
        load.set_times(Duration::from_millis(2), Duration::ZERO);
        let known = Load::take(&load, 3, 0, (10, 0)).unwrap();
        assert_eq!(backlog.time(), Duration::from_millis(6));
        drop((unknown, known));
        assert_eq!(backlog.time(), Duration::ZERO);
    }

    #[test]
    fn a_caller_that_goes_away_gives_the_room_back_once() {
        let load = Arc::new(Load::default());
        let place = Load::take(&load, 3, 10, (5, 100)).unwrap();
        let hold = place.hold().unwrap();
        assert!(!hold.has_started());
        drop(hold);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (0, 0, 0));
        assert_eq!(load.dead.load(Ordering::Relaxed), 1);
        let other = Load::take(&load, 5, 100, (5, 100)).unwrap();
        drop(place);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (1, 5, 100));
        assert_eq!(load.dead.load(Ordering::Relaxed), 0);
        let hold = other.hold().unwrap();
        drop(other);
        assert!(hold.has_started());
        drop(hold);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (0, 0, 0));
    }

    #[test]
    fn dead_calls_are_worth_a_sweep_once_they_are_as_many_as_the_living() {
        let load = Arc::new(Load::default());
        let room = (usize::MAX, usize::MAX);
        let living: Vec<_> = (0..70).map(|_| Load::take(&load, 1, 1, room).unwrap()).collect();
        let dying = |count| -> Vec<_> {
            let places: Vec<_> =
                (0..count).map(|_| Load::take(&load, 1, 1, room).unwrap()).collect();
            places.iter().for_each(|place| drop(place.hold()));
            places
        };
        let first = dying(70);
        assert!(!load.needs_sweep(1000));
        assert!(load.needs_sweep(279), "a fourth of the bytes");
        let second = dying(1);
        assert!(load.needs_sweep(1000));
        drop((first, second));
        assert!(!load.needs_sweep(0));
        drop(living);
    }
}
