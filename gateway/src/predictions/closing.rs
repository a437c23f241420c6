//! Closing segments, each on a thread of its own: bringing one to the disk takes its time.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, warn};

use super::state::Shared;
use super::writer::Segment;
use crate::tasks;

/// How long to wait after a failure, and after many in a row.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Segments that are being closed at a time.
const MOST: usize = 4;

/// The segments that are being closed.
#[derive(Debug)]
pub(super) struct Closing {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Told when closing must not be tried again.
    gives_up: Arc<AtomicBool>,
}

impl Closing {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, threads: Vec::new(), gives_up: Arc::default() }
    }

    /// Whether another one may be closed.
    pub(super) fn has_room(&mut self) -> bool {
        self.threads.retain(|thread| !thread.is_finished());
        self.threads.len() < MOST
    }

    /// Begins to close a segment.
    pub(super) fn close(&mut self, segment: impl Segment) {
        let (shared, gives_up) = (self.shared.clone(), self.gives_up.clone());
        let started =
            tasks::thread("predictions-end", move || end_segment(segment, &shared, &gives_up));
        match started {
            Ok(thread) => self.threads.push(thread),
            // It is closed when the gateway starts again.
            Err(error) => error!(%error, "no thread to close a segment of the prediction log"),
        }
    }

    /// Waits for all of them; what fails from now on is left for the next start.
    pub(super) fn join(&mut self) {
        self.gives_up.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                error!("closing a segment of the prediction log panicked");
            }
        }
    }
}

/// Closes a segment, however long a full disk keeps it from that.
fn end_segment(mut segment: impl Segment, shared: &Shared, gives_up: &AtomicBool) {
    let mut pause = FIRST_PAUSE;
    loop {
        match segment.close() {
            Ok(number) => {
                shared.closed.send_modify(|last| *last = number.max(*last));
                return;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                shared.metrics.failed();
                error!(%error, "a segment of the prediction log was taken away");
                return;
            }
            Err(error) if gives_up.load(Ordering::Relaxed) => {
                // It is closed when the gateway starts again.
                warn!(%error, "a segment of the prediction log could not be closed");
                return;
            }
            Err(error) => {
                shared.metrics.failed();
                if pause == FIRST_PAUSE {
                    warn!(%error, "a segment of the prediction log cannot be closed yet");
                }
            }
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
