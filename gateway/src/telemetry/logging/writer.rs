//! Lines of the log on their way to standard error. Whoever logs never waits: a thread writes,
//! and what does not fit the queue before it is lost and counted. Standard error may be a pipe
//! that nobody reads, a terminal that is held, or a file on a full disk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use ::metrics::Counter;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait to be written.
const MAX_LINES: usize = 8192;
/// Most bytes that wait to be written.
const MAX_BYTES: usize = 4 << 20;
/// How often a flush tries again to get past a full queue.
const RETRY: Duration = Duration::from_millis(10);

/// The end that lines are put into. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    items: SyncSender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Item {
    Line(Box<[u8]>),
    /// Everything before it has been written.
    Flush(SyncSender<()>),
}

#[derive(Debug)]
struct Shared {
    /// Bytes that wait, at most [`MAX_BYTES`].
    bytes: AtomicUsize,
    /// Lines that found the queue full.
    refused: AtomicU64,
    /// Every line that was never written, whatever the reason.
    lost: Counter,
}

impl Writer {
    /// Starts the thread that writes to `sink` for as long as the process lives.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start(sink: impl Write + Send + 'static, lost: Counter) -> io::Result<Self> {
        let (items, receiver) = sync_channel(MAX_LINES);
        let shared =
            Arc::new(Shared { bytes: AtomicUsize::new(0), refused: AtomicU64::new(0), lost });
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, sink, &of_thread))?;
        Ok(Self { items, shared })
    }

    /// Waits until what was logged so far is written, for at most `limit`; `false` if it is not.
    pub(super) fn flush(&self, limit: Duration) -> bool {
        let (done, written) = sync_channel(1);
        let mut left = limit;
        let mut item = Item::Flush(done);
        loop {
            match self.items.try_send(item) {
                Ok(()) => return written.recv_timeout(left).is_ok(),
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(_)) if left.is_zero() => return false,
                Err(TrySendError::Full(back)) => item = back,
            }
            std::thread::sleep(RETRY.min(left));
            left = left.saturating_sub(RETRY);
        }
    }

    /// Queues a whole line; never waits.
    pub(super) fn put(&self, line: &[u8]) {
        let fits = |waiting: usize| {
            waiting.checked_add(line.len()).filter(|waiting| *waiting <= MAX_BYTES)
        };
        let bytes = &self.shared.bytes;
        let has_room = bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if has_room && self.items.try_send(Item::Line(line.into())).is_ok() {
            return;
        }
        if has_room {
            bytes.fetch_sub(line.len(), Ordering::Relaxed);
        }
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        self.shared.lost.increment(1);
    }
}

/// One event is one call: the formatter hands over whole lines.
impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Writer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn write_all(items: &Receiver<Item>, mut sink: impl Write, shared: &Shared) {
    let mut told = 0;
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                // There is nowhere to say that the log itself cannot be written, but the metric.
                if sink.write_all(&line).is_err() {
                    shared.lost.increment(1);
                }
                shared.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Item::Flush(done) => {
                // Whoever asked may have gone.
                let _heard = done.try_send(());
            }
        }
        let refused = shared.refused.load(Ordering::Relaxed);
        // Said once there is room again, in the place where the lines are missing.
        if refused > told && shared.bytes.load(Ordering::Relaxed) == 0 {
            warn!(lines = refused - told, "lines of the log were lost: it was not read in time");
            told = refused;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes nothing until it is opened, then keeps what it gets.
    #[derive(Debug, Clone)]
    struct Gate {
        opened: Arc<Mutex<Receiver<()>>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // A closed channel is an open gate.
            let _open = self.opened.lock().unwrap().recv();
            self.written.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Writer, SyncSender<()>, Arc<Mutex<Vec<u8>>>) {
        let (open, opened) = sync_channel(0);
        let gate = Gate { opened: Arc::new(Mutex::new(opened)), written: Arc::default() };
        let written = gate.written.clone();
        (Writer::start(gate, Counter::noop()).unwrap(), open, written)
    }

    fn refused(writer: &Writer) -> u64 {
        writer.shared.refused.load(Ordering::Relaxed)
    }

    #[test]
    fn whoever_logs_into_a_blocked_pipe_never_waits_and_what_does_not_fit_is_counted() {
        let (mut writer, open, written) = gated();
        let lines = MAX_LINES as u64 + 100;
        for index in 0..lines {
            writer.write_all(format!("{index}\n").as_bytes()).unwrap();
        }
        // One line may be in the hands of the thread.
        assert!((99..=100).contains(&refused(&writer)), "{}", refused(&writer));
        assert!(!Writer::flush(&writer, Duration::ZERO), "nothing is written yet");
        drop(open);
        assert!(Writer::flush(&writer, Duration::from_secs(60)));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let numbers: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers.len() as u64, lines - refused(&writer));
        assert!(numbers.is_sorted(), "what is written is in order");
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let (mut writer, open, written) = gated();
        let line = vec![b'x'; MAX_BYTES / 8];
        for _ in 0..64 {
            writer.write_all(&line).unwrap();
        }
        assert_eq!(refused(&writer), 64 - 8);
        drop(open);
        assert!(Writer::flush(&writer, Duration::from_secs(60)));
        assert_eq!(written.lock().unwrap().len(), MAX_BYTES);
        writer.write_all(b"room again").unwrap();
        assert_eq!(refused(&writer), 64 - 8);
    }

    #[test]
    fn a_log_that_cannot_be_written_fails_nobody() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = Writer::start(Full, Counter::noop()).unwrap();
        for _ in 0..3 {
            writer.write_all(b"line").unwrap();
            assert!(Writer::flush(&writer, Duration::from_secs(60)));
        }
        assert_eq!(refused(&writer), 0, "it was taken, and lost later");
    }
}
