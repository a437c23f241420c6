//! Every metric, declared once: name, kind, labels, help and buckets.
//!
//! Labels hold configured names and enums, never what a caller sent. `docs/metrics.md` is
//! written from this table and a test keeps the two equal.

mod table;

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use engine::DeviceMemory;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{MissedTickBehavior, interval};

use crate::types::Version;

pub use table::*;

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// The declaration of one metric.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub shape: Shape,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// How often recorded values are folded into histograms.
const UPKEEP: Duration = Duration::from_secs(1);

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Installs the recorder on first use and returns what renders it.
pub fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let mut builder = PrometheusBuilder::new();
        for metric in ALL {
            if let Shape::Histogram(buckets) = metric.shape {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)
                    .expect("every histogram declares buckets");
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        for metric in ALL {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.shape {
                Shape::Counter => recorder.describe_counter(name, None, help),
                Shape::Gauge => recorder.describe_gauge(name, None, help),
                Shape::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        // A second recorder can only be a test's own; its figures are then not ours to render.
        drop(::metrics::set_global_recorder(recorder));
        handle
    })
}

/// Folds what was recorded into the histograms. Recording only appends, so without this the
/// memory of the recorder would grow until somebody scrapes.
pub async fn upkeep() -> Infallible {
    let mut ticks = interval(UPKEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        recorder().run_upkeep();
    }
}

impl Metric {
    fn key(&self, values: &[&str]) -> Key {
        debug_assert_eq!(self.labels.len(), values.len(), "{} has other labels", self.name);
        let labels: Vec<Label> = self
            .labels
            .iter()
            .zip(values)
            .map(|(&name, &value)| Label::new(name, value.to_owned()))
            .collect();
        Key::from_parts(self.name, labels)
    }

    /// A handle to a counter; label values in the declared order.
    pub fn counter(&self, values: &[&str]) -> Counter {
        ::metrics::with_recorder(|r| r.register_counter(&self.key(values), &METADATA))
    }

    /// A handle to a gauge; label values in the declared order.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        ::metrics::with_recorder(|r| r.register_gauge(&self.key(values), &METADATA))
    }

    /// A handle to a histogram; label values in the declared order.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        ::metrics::with_recorder(|r| r.register_histogram(&self.key(values), &METADATA))
    }
}

/// The table as Markdown, for `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in ALL {
        let kind = match metric.shape {
            Shape::Counter => "counter",
            Shape::Gauge => "gauge",
            Shape::Histogram(_) => "histogram",
        };
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        out +=
            &format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help);
    }
    out
}

/// Publishes what a version took of its device's memory, if its device has any.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_model_memory(model: &str, version: Version, bytes: Option<u64>) {
    if let Some(bytes) = bytes {
        MODEL_DEVICE_BYTES.gauge(&[model, &version.to_string()]).set(bytes as f64);
    }
}

/// Publishes what a device's memory is in use for.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub fn show_device_memory(device: &str, memory: &DeviceMemory) {
    let DeviceMemory { allocated, reserved, free, total } = *memory;
    for (state, bytes) in
        [("allocated", allocated), ("reserved", reserved), ("free", free), ("total", total)]
    {
        DEVICE_BYTES.gauge(&[device, state]).set(bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let names: HashSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL.iter().filter(|metric| metric.name.starts_with("penstock_")) {
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.shape == Shape::Counter, "{}", metric.name);
        }
    }
}
