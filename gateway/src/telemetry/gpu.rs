//! Figures of the machine's GPUs, from NVIDIA's management library where that is installed.
//!
//! The library is read on a thread of its own: a driver in trouble answers late or never, and a
//! scrape must not wait for it.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use nvml_wrapper::{Device, Nvml};
use tokio::time::Instant;
use tracing::debug;

use super::metrics::{NV_GPU_MEMORY_TOTAL, NV_GPU_MEMORY_USED, NV_GPU_POWER, NV_GPU_UTILIZATION};

/// The library is asked at most this often.
const EVERY: Duration = Duration::from_secs(1);
/// How long a scrape waits for new figures before it shows the last ones.
const PATIENCE: Duration = Duration::from_millis(50);
/// The library's name without the headers that a development package brings.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// What one GPU says of itself; what it does not know is not shown.
#[derive(Debug, Clone, PartialEq)]
struct Figures {
    uuid: String,
    /// From 0 to 1.
    utilization: Option<f64>,
    watts: Option<f64>,
    total: Option<u64>,
    used: Option<u64>,
}

/// Brings the gauges up to date; does nothing where there is no GPU or library.
pub fn refresh() {
    static READER: OnceLock<Option<Reader>> = OnceLock::new();
    let reader = READER.get_or_init(|| {
        // Loading the library is part of what may take long, so it happens on the thread.
        Reader::start(|| {
            let library = Nvml::builder().lib_path(LIBRARY.as_ref()).init();
            let library = library.map_err(|error| debug!(%error, "no figures of GPUs")).ok()?;
            Some(move || read(&library))
        })
        .map_err(|error| debug!(%error, "no thread to read figures of GPUs"))
        .ok()
    });
    if let Some(reader) = reader {
        reader.refresh();
    }
}

/// The thread that reads, and when it was last asked.
#[derive(Debug)]
struct Reader {
    asked: SyncSender<SyncSender<()>>,
    last: Mutex<Option<Instant>>,
}

impl Reader {
    /// Starts a thread that opens a source of figures and publishes what it gives, whenever it is
    /// asked; it ends at once where there is no source.
    fn start<R>(open: impl FnOnce() -> Option<R> + Send + 'static) -> io::Result<Self>
    where
        R: FnMut() -> Vec<Figures>,
    {
        // One question at most waits: while the source does not answer, nobody asks again.
        let (asked, questions): (_, Receiver<SyncSender<()>>) = sync_channel(1);
        std::thread::Builder::new().name("gpu".to_owned()).spawn(move || {
            let Some(mut read) = open() else {
                return;
            };
            for done in questions {
                for figures in read() {
                    publish(&figures);
                }
                // Whoever asked may have gone on without the answer.
                let _ = done.try_send(());
            }
        })?;
        Ok(Self { asked, last: Mutex::default() })
    }

    fn refresh(&self) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| last.elapsed() < EVERY) {
                return;
            }
            *last = Some(Instant::now());
        }
        let (done, answer) = sync_channel(1);
        if self.asked.try_send(done).is_ok() {
            // Too late and "there is no source" end alike: the last figures are shown.
            let _ = answer.recv_timeout(PATIENCE);
        }
    }
}

fn read(library: &Nvml) -> Vec<Figures> {
    let count = library.device_count().unwrap_or(0);
    (0..count).filter_map(|index| figures(&library.device_by_index(index).ok()?)).collect()
}

fn figures(device: &Device<'_>) -> Option<Figures> {
    let memory = device.memory_info().ok();
    Some(Figures {
        uuid: device.uuid().ok()?,
        utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        watts: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1000.0),
        total: memory.as_ref().map(|memory| memory.total),
        used: memory.as_ref().map(|memory| memory.used),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn publish(figures: &Figures) {
    let Figures { uuid, utilization, watts, total, used } = figures;
    for (metric, value) in [
        (&NV_GPU_UTILIZATION, *utilization),
        (&NV_GPU_POWER, *watts),
        (&NV_GPU_MEMORY_TOTAL, total.map(|bytes| bytes as f64)),
        (&NV_GPU_MEMORY_USED, used.map(|bytes| bytes as f64)),
    ] {
        if let Some(value) = value {
            metric.gauge(&[uuid]).set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::telemetry::metrics;

    fn figures(uuid: &str) -> Figures {
        Figures {
            uuid: uuid.to_owned(),
            utilization: Some(0.5),
            watts: None,
            total: Some(1 << 30),
            used: Some(1 << 20),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn figures_are_read_at_most_once_a_second_and_shown_by_uuid() {
        let recorder = metrics::recorder();
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = reads.clone();
        let reader = Reader::start(move || {
            Some(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                vec![figures("GPU-one")]
            })
        })
        .unwrap();
        reader.refresh();
        reader.refresh();
        tokio::time::advance(EVERY / 2).await;
        reader.refresh();
        while reads.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        assert_eq!(reads.load(Ordering::Relaxed), 1);
        tokio::time::advance(EVERY).await;
        reader.refresh();
        while reads.load(Ordering::Relaxed) < 2 {
            std::thread::yield_now();
        }
        let line = "nv_gpu_memory_total_bytes{gpu_uuid=\"GPU-one\"} 1073741824";
        let text = recorder.render();
        assert!(text.contains(line), "{text}");
        assert!(text.contains("nv_gpu_utilization{gpu_uuid=\"GPU-one\"} 0.5"), "{text}");
        assert!(!text.contains("nv_gpu_power_usage{gpu_uuid=\"GPU-one\"}"), "unknown is not shown");
    }

    #[tokio::test(start_paused = true)]
    async fn a_driver_that_never_answers_holds_nobody_up() {
        let (release, wait) = sync_channel::<()>(0);
        let reader = Reader::start(move || {
            Some(move || {
                let _ = wait.recv();
                vec![]
            })
        })
        .unwrap();
        for _ in 0..5 {
            reader.refresh(); // comes back
            tokio::time::advance(EVERY).await;
        }
        drop(release);
    }

    #[test]
    fn without_the_library_there_is_nothing_to_show() {
        let reader = Reader::start(|| None::<fn() -> Vec<Figures>>).unwrap();
        reader.refresh();
        refresh();
    }
}
