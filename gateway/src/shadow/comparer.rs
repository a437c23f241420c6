//! The thread that compares, away from those that answer callers and run models.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tracing::{debug, error};

use super::{Ledger, Pair, Place};
use crate::tasks;
use crate::telemetry::ShadowOutcome;

/// Pairs that wait to be compared; those beyond are dropped and counted.
const WAITING: usize = 4096;
/// How long pairs gather before the thread looks again. Waking a thread costs whoever hands a
/// pair over more than all the rest, so it happens once in this time at most.
const GATHER: Duration = Duration::from_millis(5);

/// Where pairs are handed over to be compared. Cheap to clone; the thread ends with the last one.
#[derive(Debug, Clone)]
pub struct Comparer(Sender<Item>);

/// The other end of a [`Comparer`].
pub(super) type Received = Receiver<Item>;

#[derive(Debug)]
pub(super) enum Item {
    Pair(Box<Work>),
    /// Everything before it has been compared.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Work {
    ledger: Arc<Ledger>,
    place: Place,
    pair: Pair,
}

impl Comparer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start() -> io::Result<Self> {
        let (comparer, received) = Self::channel(WAITING);
        tasks::thread("shadow-compare", move || {
            if let Err(error) = tasks::yield_to_others() {
                debug!(%error, "the thread that compares shadows keeps its priority");
            }
            run(received);
        })?;
        Ok(comparer)
    }

    /// The end that pairs are handed to, and the one that a thread [`run`]s.
    pub(super) fn channel(waiting: usize) -> (Self, Received) {
        let (items, received) = mpsc::channel(waiting);
        (Self(items), received)
    }

    /// Has a pair compared, unless too many wait. Never waits itself. The place of its call is
    /// held until then, for the bytes of both answers.
    pub fn submit(&self, ledger: &Arc<Ledger>, mut place: Place, pair: Pair) {
        place.resize(pair.bytes());
        let work = Work { ledger: ledger.clone(), place, pair };
        let sent = self.0.try_send(Item::Pair(Box::new(work)));
        // Without its thread a pair is dropped, and its place counts it as abandoned.
        if let Err(mpsc::error::TrySendError::Full(Item::Pair(work))) = sent {
            work.place.end(ShadowOutcome::Behind);
        }
    }

    /// Waits until everything handed over before was compared.
    pub async fn flush(&self) {
        let (done, compared) = oneshot::channel();
        if self.0.send(Item::Flush(done)).await.is_ok() {
            // A thread that is gone compares nothing any more.
            let _is_done = compared.await;
        }
    }
}

/// Compares until the last handle is gone and everything is done.
pub(super) fn run(mut items: Received) {
    while let Some(item) = items.blocking_recv() {
        work(item);
        while let Ok(item) = items.try_recv() {
            work(item);
        }
        std::thread::sleep(GATHER);
    }
}

fn work(item: Item) {
    let work = match item {
        Item::Pair(work) => work,
        Item::Flush(done) => {
            // Whoever asked may have gone.
            let _heard = done.send(());
            return;
        }
    };
    let Work { ledger, place, pair } = *work;
    match catch_unwind(AssertUnwindSafe(|| ledger.compare(&pair))) {
        Ok(true) => place.end(ShadowOutcome::Compared),
        Ok(false) => place.end(ShadowOutcome::Failed),
        Err(_) => error!("comparing the answers of a shadow panicked"),
    }
}
