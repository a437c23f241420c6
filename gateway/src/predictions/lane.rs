//! Where rows wait to be written: a buffer for each I/O thread, and one bound for all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use predlog::segment::{Kind, frame};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::schema::Known;
use crate::config::Guarantee;

/// A buffer of this many bytes is full: it is written as a whole.
pub(super) const CHUNK: usize = 1 << 20;
/// Larger buffers, which single large rows have made, are not kept.
const LARGEST_KEPT: usize = 2 * CHUNK;
const MOST_LANES: usize = 64;

/// All lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Box<[Lane]>,
    pub(super) room: Room,
    /// Empty buffers with the memory of full ones.
    spare: Mutex<Vec<Chunk>>,
}

/// The rows of one thread.
#[derive(Debug)]
struct Lane {
    state: Mutex<Waiting>,
    /// How many of its rows are written.
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    full: Vec<Chunk>,
    current: Chunk,
    /// Rows ever taken in.
    accepted: u64,
    /// Why nothing is taken in any more.
    closed: Option<Refusal>,
}

/// Rows one behind the other, as segments have them.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// By guarantee.
    pub(super) rows: [u32; Guarantee::ALL.len()],
    /// Feedback among them.
    pub(super) feedback: u32,
    /// What they name.
    pub(super) schemas: Vec<Arc<Known>>,
    /// When the first one came.
    pub(super) since: Option<Instant>,
}

/// A bound on what waits, over all lanes.
#[derive(Debug)]
pub(super) struct Room {
    rows: AtomicUsize,
    bytes: AtomicUsize,
    max_rows: usize,
    max_bytes: usize,
    /// Told whenever something was given back.
    pub(super) freed: Notify,
}

/// A row that is on its way.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    lane: usize,
    number: u64,
}

/// Why a row is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As much waits as may.
    Full,
    /// It is larger than any may be.
    Large,
    /// The gateway is stopping.
    Stopping,
    /// Nothing is written any more: the thread that did it has died.
    Broken,
}

impl Chunk {
    pub(super) fn count(&self) -> usize {
        self.rows.iter().chain([&self.feedback]).map(|rows| *rows as usize).sum()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.schemas.clear();
        (self.rows, self.feedback, self.since) = (Default::default(), 0, None);
    }
}

impl Room {
    /// Takes room for rows, however full it is if they are owed.
    fn take(&self, rows: usize, bytes: usize, is_owed: bool) -> bool {
        // Before the look at whether the writer sleeps, as the writer sees it.
        let waiting = self.rows.fetch_add(rows, Ordering::SeqCst);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let has_rows = waiting.saturating_add(rows) <= self.max_rows;
        if is_owed || (has_rows && held.saturating_add(bytes) <= self.max_bytes) {
            return true;
        }
        self.give_back(rows, bytes);
        false
    }

    /// Puts the bytes that are held in the place of those that were asked for.
    fn settle(&self, asked: usize, held: usize) {
        match asked.checked_sub(held) {
            Some(rest) => self.give_back(0, rest),
            None => {
                self.bytes.fetch_add(held - asked, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn give_back(&self, rows: usize, bytes: usize) {
        self.rows.fetch_sub(rows, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether no row finds room, however small.
    pub(super) fn is_full(&self) -> bool {
        let (rows, bytes) = self.held();
        rows >= self.max_rows || bytes >= self.max_bytes
    }

    /// Rows and bytes that wait.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.rows.load(Ordering::SeqCst), self.bytes.load(Ordering::Relaxed))
    }

    /// How much of it is in use, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a rough measure")]
    pub(super) fn fill(&self) -> f64 {
        let (rows, bytes) = self.held();
        let part = |held: usize, most: usize| held as f64 / most as f64;
        part(rows, self.max_rows).max(part(bytes, self.max_bytes))
    }
}

impl Lanes {
    pub(super) fn new(max_rows: usize, max_bytes: usize) -> Self {
        let threads = available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let lane = || Lane { state: Mutex::default(), written: watch::Sender::new(0) };
        let lanes = (0..threads.clamp(1, MOST_LANES)).map(|_| lane()).collect();
        let (rows, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let room = Room { rows, bytes, max_rows, max_bytes, freed: Notify::new() };
        Self { lanes, room, spare: Mutex::default() }
    }

    /// Takes a row in, of at most so many bytes with its head. Never waits for whoever writes.
    /// Says whether a buffer became full.
    ///
    /// A row that is owed is small and corrects one that was taken in: it comes in beyond the
    /// bound, by as many rows as durable calls are under way at most.
    pub(super) fn push(
        &self,
        (guarantee, known): (Guarantee, Option<&Arc<Known>>),
        (at_most, is_owed): (usize, bool),
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(Ticket, bool), Refusal> {
        if at_most > self.room.max_bytes {
            return Err(Refusal::Large);
        }
        if !self.room.take(1, at_most, is_owed) {
            return Err(Refusal::Full);
        }
        let index = own(self.lanes.len());
        let mut state = self.lanes[index].lock();
        if let Some(refusal) = state.closed {
            self.room.give_back(1, at_most);
            return Err(refusal);
        }
        let before = state.current.bytes.len();
        if !frame(Kind::Row, &mut state.current.bytes, write) {
            self.room.give_back(1, at_most);
            return Err(Refusal::Large);
        }
        let end = state.current.bytes.len();
        debug_assert!(end - before <= at_most, "a row has at most the bytes that it said");
        self.room.settle(at_most, end - before);
        state.current.rows[guarantee as usize] += 1;
        state.current.since.get_or_insert_with(Instant::now);
        if let Some(known) = known
            && !state.current.schemas.iter().any(|other| Arc::ptr_eq(other, known))
        {
            state.current.schemas.push(known.clone());
        }
        Ok(self.accepted(index, &mut state, 1))
    }

    /// Takes feedback in, as segments have it, all of it or nothing, and so that it is written at
    /// once. The ticket is that of the last. Says whether a buffer became full.
    pub(super) fn push_feedback(
        &self,
        framed: &[u8],
        count: u32,
    ) -> Result<(Ticket, bool), Refusal> {
        let rows = count as usize;
        if framed.len() > self.room.max_bytes || rows > self.room.max_rows {
            return Err(Refusal::Large);
        }
        if !self.room.take(rows, framed.len(), false) {
            return Err(Refusal::Full);
        }
        let index = own(self.lanes.len());
        let mut state = self.lanes[index].lock();
        if let Some(refusal) = state.closed {
            self.room.give_back(rows, framed.len());
            return Err(refusal);
        }
        state.current.bytes.extend_from_slice(framed);
        state.current.feedback += count;
        state.current.since.get_or_insert_with(Instant::now);
        Ok(self.accepted(index, &mut state, u64::from(count)))
    }

    /// Notes what was just put into a lane's buffer.
    fn accepted(&self, index: usize, state: &mut Waiting, count: u64) -> (Ticket, bool) {
        state.accepted += count;
        let ticket = Ticket { lane: index, number: state.accepted };
        let is_full = state.current.bytes.len() >= CHUNK;
        if is_full {
            let fresh = self.spare();
            let full = std::mem::replace(&mut state.current, fresh);
            state.full.push(full);
        }
        (ticket, is_full)
    }

    /// Takes out all that waits, with the lane that it is of; the last time, nothing is taken in
    /// afterwards, for the reason given.
    pub(super) fn collect(&self, last: Option<Refusal>, mut take: impl FnMut(usize, Chunk)) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let fresh = self.spare();
            let mut state = lane.lock();
            state.closed = state.closed.or(last);
            let full = std::mem::take(&mut state.full);
            let rest = match state.current.bytes.is_empty() {
                true => fresh,
                false => std::mem::replace(&mut state.current, fresh),
            };
            drop(state);
            full.into_iter().for_each(|chunk| take(index, chunk));
            match rest.bytes.is_empty() {
                true => self.recycle(rest),
                false => take(index, rest),
            }
        }
    }

    /// Notes that a chunk is written, and takes its memory back.
    pub(super) fn finish(&self, lane: usize, chunk: Chunk) {
        let count = chunk.count();
        self.room.give_back(count, chunk.bytes.len());
        self.lanes[lane].written.send_modify(|written| *written += count as u64);
        self.recycle(chunk);
    }

    /// Gives up a chunk that was never written.
    pub(super) fn abandon(&self, chunk: &Chunk) {
        self.room.give_back(chunk.count(), chunk.bytes.len());
    }

    /// Waits until a row is written.
    pub(super) async fn written(&self, ticket: Ticket) {
        let mut written = self.lanes[ticket.lane].written.subscribe();
        // The sender lives as long as the lanes do.
        drop(written.wait_for(|written| *written >= ticket.number).await);
    }

    /// When the oldest row came that nobody has taken out.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let oldest = |lane: &Lane| {
            let state = lane.lock();
            state.full.first().unwrap_or(&state.current).since
        };
        self.lanes.iter().filter_map(oldest).min()
    }

    fn spare(&self) -> Chunk {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn recycle(&self, mut chunk: Chunk) {
        chunk.clear();
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if chunk.bytes.capacity() <= LARGEST_KEPT && spare.len() <= self.lanes.len() {
            spare.push(chunk);
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lane of the calling thread.
pub(super) fn own(lanes: usize) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed);
    }
    THREAD.with(|thread| thread % lanes)
}
