//! How much waits, in counters that calls are admitted by without any lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What waits in one queue.
#[derive(Debug, Default)]
pub(super) struct Load {
    calls: AtomicUsize,
    rows: AtomicUsize,
    bytes: AtomicUsize,
    /// Engine time of one item, as last learnt; 0 while nothing is known.
    row_nanos: AtomicU64,
    /// Engine time of all that waits on the same device.
    backlog: Arc<Backlog>,
}

/// Engine time of everything that waits on one device.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicU64);

/// The room that one waiting call takes; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    load: Arc<Load>,
    rows: usize,
    bytes: usize,
    nanos: u64,
}

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
        self: &Arc<Self>,
        rows: usize,
        bytes: usize,
        (max_rows, max_bytes): (usize, usize),
    ) -> Result<Place, Full> {
        let nanos = self.row_nanos.load(Ordering::Relaxed).saturating_mul(rows as u64);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let rows_before = self.rows.fetch_add(rows, Ordering::Relaxed);
        let bytes_before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.backlog.0.fetch_add(nanos, Ordering::Relaxed);
        // From here on dropping the place gives all of it back.
        let place = Place { load: self.clone(), rows, bytes, nanos };
        if rows_before > 0 && rows_before + rows > max_rows {
            return Err(Full::Rows);
        }
        if bytes_before > 0 && bytes_before + bytes > max_bytes {
            return Err(Full::Bytes);
        }
        Ok(place)
    }

    /// Notes what one item takes.
    pub(super) fn set_row_time(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.row_nanos.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn row_time(&self) -> Duration {
        Duration::from_nanos(self.row_nanos.load(Ordering::Relaxed))
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
}

impl Place {
    /// The same room for the parts of a call, by their rows. The bytes stay with the first part.
    pub(super) fn split(mut self, rows: &[usize]) -> Vec<Self> {
        let mut parts = Vec::with_capacity(rows.len());
        for &count in rows {
            let nanos = (self.nanos / self.rows.max(1) as u64).saturating_mul(count as u64);
            let nanos = nanos.min(self.nanos);
            self.rows = self.rows.saturating_sub(count);
            self.nanos -= nanos;
            self.load.calls.fetch_add(1, Ordering::Relaxed);
            let bytes = std::mem::take(&mut self.bytes);
            parts.push(Self { load: self.load.clone(), rows: count, bytes, nanos });
        }
        parts
    }
}

impl Backlog {
    pub(super) fn time(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.calls.fetch_sub(1, Ordering::Relaxed);
        self.load.rows.fetch_sub(self.rows, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.load.backlog.0.fetch_sub(self.nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_leaves_nothing_behind() {
        let load = Arc::new(Load::default());
        let first = load.take(3, 10, (2, 100)).unwrap();
        assert_eq!(load.take(1, 1, (2, 100)).unwrap_err(), Full::Rows);
        assert_eq!(load.take(1, 95, (10, 100)).unwrap_err(), Full::Bytes);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (1, 3, 10));
        drop(first);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (0, 0, 0));
    }

    #[test]
    fn parts_take_the_room_of_their_whole() {
        let load = Arc::new(Load::default());
        load.set_row_time(Duration::from_nanos(7));
        let parts = load.take(10, 40, (5, 50)).unwrap().split(&[4, 4, 2]);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (3, 10, 40));
        assert_eq!(load.backlog.time(), Duration::from_nanos(70));
        drop(parts);
        assert_eq!((load.calls(), load.rows(), load.bytes()), (0, 0, 0));
        assert_eq!(load.backlog.time(), Duration::ZERO);
    }

    #[test]
    fn the_backlog_is_counted_in_engine_time() {
        let backlog = Arc::new(Backlog::default());
        let load = Arc::new(Load::on(backlog.clone()));
        let unknown = load.take(5, 0, (10, 0)).unwrap();
        load.set_row_time(Duration::from_millis(2));
        let known = load.take(3, 0, (10, 0)).unwrap();
        assert_eq!(backlog.time(), Duration::from_millis(6));
        drop((unknown, known));
        assert_eq!(backlog.time(), Duration::ZERO);
    }
}
