//! Metric handles of what becomes of the prediction log's segments.

use ::metrics::{Counter, Gauge};

use super::metrics;

/// Handles of conversion, delivery and the disk.
#[derive(Debug)]
pub struct DeliveryMetrics {
    pub segments: Gauge,
    pub conversion_lag: Gauge,
    pub converted_rows: Counter,
    pub conversion_failures: Counter,
    pub damaged_segments: Counter,
    pub files: Counter,
    pub file_bytes: Gauge,
    pub free_bytes: Gauge,
    pub writing: Gauge,
    pub undelivered_files: Gauge,
    pub delivery_lag: Gauge,
    pub delivered_files: Counter,
    pub delivered_bytes: Counter,
    pub failures: Counter,
    pub lost_files: Counter,
}

impl Default for DeliveryMetrics {
    fn default() -> Self {
        Self {
            segments: metrics::LOG_SEGMENTS.gauge(&[]),
            conversion_lag: metrics::LOG_CONVERSION_LAG.gauge(&[]),
            converted_rows: metrics::LOG_CONVERTED_ROWS.counter(&[]),
            conversion_failures: metrics::LOG_CONVERSION_FAILURES.counter(&[]),
            damaged_segments: metrics::LOG_DAMAGED_SEGMENTS.counter(&[]),
            files: metrics::LOG_FILES.counter(&[]),
            file_bytes: metrics::LOG_FILE_BYTES.gauge(&[]),
            free_bytes: metrics::LOG_FREE_BYTES.gauge(&[]),
            writing: metrics::LOG_WRITING.gauge(&[]),
            undelivered_files: metrics::LOG_UNDELIVERED_FILES.gauge(&[]),
            delivery_lag: metrics::LOG_DELIVERY_LAG.gauge(&[]),
            delivered_files: metrics::LOG_DELIVERED_FILES.counter(&[]),
            delivered_bytes: metrics::LOG_DELIVERED_BYTES.counter(&[]),
            failures: metrics::LOG_DELIVERY_FAILURES.counter(&[]),
            lost_files: metrics::LOG_LOST_FILES.counter(&[]),
        }
    }
}

impl DeliveryMetrics {
    /// Counts files that were deleted for their age or their size.
    pub fn removed(&self, reason: &str) {
        metrics::LOG_REMOVED_FILES.counter(&[reason]).increment(1);
    }
}
