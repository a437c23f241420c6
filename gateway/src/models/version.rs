//! A version that serves: its signature, its way to the engine and its figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::manifest::{Lineage, Manifest};
use super::stats::{FailureReason, Stats};
use crate::batching::Queue;
use crate::breaker::{Breaker, State};
use crate::contract::Checker;
use crate::telemetry::{VersionMetrics, metrics};
use crate::types::{ModelName, Patience, Signature, Version};

/// One loaded, warmed and checked version of a model. Dropping the last reference frees it.
#[derive(Debug)]
pub struct ServedVersion {
    pub model: ModelName,
    pub version: Version,
    pub manifest: Arc<Manifest>,
    /// Hash of the model file, lower-case hex; `None` for engines without a file.
    pub sha256: Option<String>,
    /// Hashes of the other files that decided whether it may serve, by file name.
    pub hashes: Vec<(String, String)>,
    pub queue: Queue,
    pub breaker: Arc<Breaker>,
    /// How long its calls may take, the gateway's own limits included.
    pub timeouts: Patience,
    /// What the values of its inputs must be like, where its manifest says so.
    pub contract: Option<Checker>,
    pub stats: Stats,
    pub metrics: Arc<VersionMetrics>,
    /// Load, warm-up and golden requests together.
    pub load_time: Duration,
    /// What of the figures the metrics have already; they outlive a version, which may be loaded
    /// again under its number.
    pub published: Published,
}

/// Figures as last added to the metrics.
#[derive(Debug, Default)]
pub struct Published([AtomicU64; 12]);

impl Published {
    /// Adds what is new to a counter.
    fn add(&self, index: usize, counter: &::metrics::Counter, value: u64) {
        let before = self.0[index].fetch_max(value, Ordering::Relaxed);
        counter.increment(value.saturating_sub(before));
    }
}

impl ServedVersion {
    #[must_use]
    pub fn signature(&self) -> &Arc<Signature> {
        &self.manifest.signature
    }

    /// Whether a call would be taken: the device still runs something, and the circuit breaker
    /// is not open. Half-open counts as ready, or nobody would send the calls that close it.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.queue.device_failure().is_none() && self.breaker.state() != State::Open
    }

    /// `model/version`, for messages.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}/{}", self.model, self.version)
    }

    /// Facts for metadata: hash, engine notes and lineage, as text by key.
    #[must_use]
    pub fn properties(&self) -> Vec<(String, String)> {
        let mut properties = Vec::new();
        let mut add = |key: &str, value: String| {
            if !value.is_empty() {
                properties.push((key.to_owned(), value));
            }
        };
        let Lineage { data, code, hyperparameters, metrics, approved_by } =
            self.manifest.facts(self.version).lineage;
        for (file, hash) in &self.hashes {
            add(&format!("sha256.{file}"), hash.clone());
        }
        add("sha256", self.sha256.clone().unwrap_or_default());
        add("device", self.manifest.device.clone());
        add("engine", self.queue.notes().join("; "));
        add("description", self.manifest.description.clone());
        add("lineage.data", data);
        add("lineage.code", code);
        add("lineage.approved_by", approved_by);
        for (group, values) in [("hyperparameters", hyperparameters), ("metrics", metrics)] {
            for (key, value) in values {
                let value = match value {
                    toml::Value::String(text) => text,
                    other => other.to_string(),
                };
                add(&format!("lineage.{group}.{key}"), value);
            }
        }
        properties
    }

    /// Marks the version as served in the metrics, or as gone.
    pub fn show_ready(&self, ready: bool) {
        let (model, version) = (self.model.as_str(), self.version.to_string());
        let value = f64::from(u8::from(ready));
        metrics::READY.gauge(&[model, &version]).set(value);
        if !ready {
            self.breaker.retire();
        }
        if let Some(sha256) = &self.sha256 {
            metrics::MODEL_FILE.gauge(&[model, &version, sha256]).set(value);
        }
    }

    /// Brings Triton's metrics up to date; called before they are rendered.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn publish_stats(&self) {
        self.publish_counts();
        self.queue.publish();
        self.breaker.publish();
        let version = self.version.to_string();
        let labels = [self.model.as_str(), version.as_str()];
        metrics::NV_PENDING.gauge(&labels).set(self.queue.pending() as f64);
        metrics::NV_LOAD_SECONDS.gauge(&labels).set(self.load_time.as_secs_f64());
    }

    fn publish_counts(&self) {
        let version = self.version.to_string();
        let labels = [self.model.as_str(), version.as_str()];
        let stats = &self.stats;
        let executions: u64 = self.queue.executions().values().map(|batch| batch.count).sum();
        let counts = [
            (&metrics::NV_SUCCESS, stats.success.count()),
            (&metrics::NV_COUNT, stats.inferences()),
            (&metrics::NV_EXEC_COUNT, executions),
            (&metrics::NV_REQUEST_US, stats.success.nanoseconds() / 1000),
            (&metrics::NV_QUEUE_US, stats.queue.nanoseconds() / 1000),
            (&metrics::NV_INPUT_US, stats.input.nanoseconds() / 1000),
            (&metrics::NV_INFER_US, stats.infer.nanoseconds() / 1000),
            (&metrics::NV_OUTPUT_US, stats.output.nanoseconds() / 1000),
        ];
        for (index, (metric, value)) in counts.iter().enumerate() {
            self.published.add(index, &metric.counter(&labels), *value);
        }
        for (index, reason) in FailureReason::ALL.into_iter().enumerate() {
            let labels = [labels[0], labels[1], reason.label()];
            let counter = metrics::NV_FAILURE.counter(&labels);
            self.published.add(counts.len() + index, &counter, stats.failures(reason));
        }
    }
}

impl Drop for ServedVersion {
    /// The last call has ended: what no scrape has seen yet is not lost.
    fn drop(&mut self) {
        self.publish_counts();
    }
}
