//! The table of all metrics.

use super::{Metric, Shape};

/// Seconds from 10 µs to 30 s, the longest run that the default limits allow.
const SECONDS: &[f64] = &[
    10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2,
    0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
];
/// Items, up to the largest batch that people configure.
const ROWS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

const MODEL: &[&str] = &["model"];
const VERSION: &[&str] = &["model", "version"];
const GPU: &[&str] = &["gpu_uuid"];

macro_rules! declare {
    ($($constant:ident = $name:literal, $shape:expr, $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: Metric =
                Metric { name: $name, shape: $shape, labels: $labels, help: $help };
        )*
        /// The whole table.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

declare! {
    REQUESTS = "penstock_requests_total", Shape::Counter, &["model", "version", "protocol", "outcome"],
        "Prediction calls by outcome, each once: under the version that answered or refused it last. Model and version are empty where none was found or a declared answer was given.";
    FAILED_OVER = "penstock_failed_over_total", Shape::Counter, &["model", "version", "reason"],
        "Calls that a version failed and that the fallback of a route took over, by reason; penstock_requests_total has them where they ended.";
    ROUTE_REQUESTS = "penstock_route_requests_total", Shape::Counter, &["route", "arm", "outcome"],
        "Prediction calls of routes by the arm that their callers belong to, whoever answered, and by outcome; those that named their arm left out.";
    ROUTE_FORCED = "penstock_route_forced_total", Shape::Counter, &["route", "arm"],
        "Prediction calls that named their arm.";
    ROUTE_KEYLESS = "penstock_route_keyless_total", Shape::Counter, &["route"],
        "Prediction calls without a key for a route that keeps callers with their arm by one: each was divided by itself.";
    ROUTE_FALLBACKS = "penstock_route_fallbacks_total", Shape::Counter, &["route", "arm", "reason"],
        "Calls of an arm that its fallback had to answer, by reason: what the arm would have refused with.";
    REQUEST_SECONDS = "penstock_request_seconds", Shape::Histogram(SECONDS), &["model", "version", "protocol"],
        "From the arrival of an answered call until its answer was encoded.";
    PHASE_SECONDS = "penstock_phase_seconds", Shape::Histogram(SECONDS), &["model", "version", "phase"],
        "Time of answered calls by phase: decode, queue, input, infer, output, encode.";
    BATCH_ROWS = "penstock_batch_rows", Shape::Histogram(ROWS), VERSION,
        "Items in each batch that an engine ran.";
    BATCH_RERUNS = "penstock_batch_reruns_total", Shape::Counter, VERSION,
        "Failed batches that were run again in halves to find the culprit.";
    BATCHES = "penstock_batches_total", Shape::Counter, &["model", "version", "closed"],
        "Batches by why they took no more calls: full, idle (nothing more waited), delay, deadline or bucket (padding).";
    BATCHES_RUNNING = "penstock_batches_running", Shape::Gauge, VERSION,
        "Batches in the hands of engine threads.";
    BATCH_CELLS = "penstock_batch_cells_total", Shape::Counter, &["model", "version", "kind"],
        "Positions of batches of variable length by kind: sent by callers, or padding.";
    DROPPED = "penstock_calls_dropped_total", Shape::Counter, &["model", "version", "reason"],
        "Calls that left the queue without a run, by reason: cancelled, expired, displaced (by a more urgent one in a full queue), stopping or circuit_open.";
    SHED = "penstock_calls_shed_total", Shape::Counter, &["model", "version", "reason", "priority"],
        "Calls refused for overload, by reason: delay (of the queue), full (queue), displaced (by a more urgent one), calls or bytes (in flight), memory; and by priority: high (1 to 3), normal, low (7 to 9), shadow. Calls that were not read have neither model nor priority.";
    QUEUE_DELAY = "penstock_queue_delay_seconds", Shape::Gauge, VERSION,
        "How long the least urgent calls stand in the queue: the shortest delay of an interval; 0 while nothing waits.";
    IN_FLIGHT = "penstock_in_flight_calls", Shape::Gauge, &[],
        "Predictions under way, from before their body was read until their answer was encoded.";
    IN_FLIGHT_BYTES = "penstock_in_flight_bytes", Shape::Gauge, &[],
        "Bytes of the requests under way.";
    MEMORY_PRESSURE = "penstock_memory_pressure", Shape::Gauge, &[],
        "How short memory is: 0 not at all, 1 above overload.memory_soft, 2 above overload.memory_hard.";
    REFUSED_LATE = "penstock_calls_refused_late_total", Shape::Counter, VERSION,
        "Calls refused at once because their answer would have come after their deadline.";
    NAN_ANSWERS = "penstock_nan_answers_total", Shape::Counter, VERSION,
        "Answers with NaN to finite inputs, in outputs that were free of NaN while the version was loaded.";
    BREAKER_STATE = "penstock_breaker_state", Shape::Gauge, VERSION,
        "The circuit breaker of a version: 0 closed, 1 open, 2 half-open.";
    BREAKER_TRANSITIONS = "penstock_breaker_transitions_total", Shape::Counter, &["model", "version", "to", "reason"],
        "Changes of a circuit breaker to closed, open or half_open, by reason: consecutive_failures, failure_rate, slow_rate, nan_storm, device_fault, probe_failed, time_over, recovered or operator.";
    BREAKER_REFUSED = "penstock_breaker_refused_total", Shape::Counter, VERSION,
        "Calls refused because the circuit breaker was open.";
    KEYED_CALLS = "penstock_idempotency_calls_total", Shape::Counter, &["result"],
        "Calls with an idempotency key by result: executed, replayed, joined (waited for the first one), mismatch (another body) or full.";
    KEYED_LOST = "penstock_idempotency_lost_total", Shape::Counter, &["reason"],
        "Answers that repeats do not get, by reason: evicted (for newer ones) or too_large.";
    KEYED_BYTES = "penstock_idempotency_bytes", Shape::Gauge, &[],
        "Memory of the answers kept for repeats.";
    KEYED_KEYS = "penstock_idempotency_keys", Shape::Gauge, &[],
        "Idempotency keys known: kept answers and calls under way.";
    LOG_SEGMENTS = "penstock_prediction_log_segments", Shape::Gauge, &[],
        "Closed segments of the prediction log that wait to be converted.";
    LOG_CONVERSION_LAG = "penstock_prediction_log_conversion_lag_seconds", Shape::Gauge, &[],
        "How long the oldest closed segment has waited to be converted; 0 while none waits.";
    LOG_CONVERTED_ROWS = "penstock_prediction_log_converted_rows_total", Shape::Counter, &[],
        "Rows (calls) that were converted to Parquet.";
    LOG_CONVERSION_FAILURES = "penstock_prediction_log_conversion_failures_total", Shape::Counter, &[],
        "Tries to convert a segment that failed; it stays and is tried again.";
    LOG_DAMAGED_SEGMENTS = "penstock_prediction_log_damaged_segments_total", Shape::Counter, &[],
        "Segments of which a part could not be read; they were put aside as .damaged.";
    LOG_FILES = "penstock_prediction_log_files_total", Shape::Counter, &[],
        "Parquet files that were written.";
    LOG_FILE_BYTES = "penstock_prediction_log_file_bytes", Shape::Gauge, &[],
        "Bytes of Parquet files on this machine, as of the last minute.";
    LOG_REMOVED_FILES = "penstock_prediction_log_removed_files_total", Shape::Counter, &["reason"],
        "Parquet files that were deleted on this machine, by reason: age (prediction_log.keep) or size (prediction_log.keep_size).";
    LOG_FREE_BYTES = "penstock_prediction_log_free_bytes", Shape::Gauge, &[],
        "Free bytes of the prediction log's file system.";
    LOG_WRITING = "penstock_prediction_log_writing", Shape::Gauge, &[],
        "Whether rows are written: 1, or 0 while less than prediction_log.min_free is free.";
    LOG_UNDELIVERED_FILES = "penstock_prediction_log_undelivered_files", Shape::Gauge, &[],
        "Parquet files that wait to be delivered to the object store.";
    LOG_DELIVERY_LAG = "penstock_prediction_log_delivery_lag_seconds", Shape::Gauge, &[],
        "How long the oldest Parquet file has waited to be delivered; 0 while none waits.";
    LOG_DELIVERED_FILES = "penstock_prediction_log_delivered_files_total", Shape::Counter, &[],
        "Parquet files that the object store has.";
    LOG_DELIVERED_BYTES = "penstock_prediction_log_delivered_bytes_total", Shape::Counter, &[],
        "Bytes of those.";
    LOG_DELIVERY_FAILURES = "penstock_prediction_log_delivery_failures_total", Shape::Counter, &[],
        "Tries to deliver a file, or to find out whether the object store can be written, that failed; they are repeated.";
    LOG_LOST_FILES = "penstock_prediction_log_lost_files_total", Shape::Counter, &[],
        "Parquet files that somebody deleted before they were delivered.";
    VIOLATIONS = "penstock_input_violations_total", Shape::Counter, &["model", "version", "input", "feature", "rule", "action"],
        "Values that break a rule of the input contract, by what happened: reject (the first one of a call), impute or flag; feature is empty for rules of a whole input.";
    BACKLOG = "penstock_backlog_seconds", Shape::Gauge, &["device"],
        "How long the engine threads of a device will need for what waits now, as learnt from their runs.";
    DEVICE_FAILED = "penstock_device_failed", Shape::Gauge, &["device"],
        "1 once a device runs nothing any more; the process has to be restarted.";
    QUEUE_ROWS = "penstock_queue_rows", Shape::Gauge, VERSION,
        "Items waiting for an engine thread.";
    QUEUE_BYTES = "penstock_queue_bytes", Shape::Gauge, VERSION,
        "Input bytes waiting for an engine thread.";
    LOADS = "penstock_model_loads_total", Shape::Counter, &["model", "result"],
        "Loads of model versions by result: ready or failed.";
    LOAD_SECONDS = "penstock_model_load_seconds", Shape::Gauge, VERSION,
        "How long the last load took, warm-up and golden requests included.";
    SWAPS = "penstock_model_swaps_total", Shape::Counter, MODEL,
        "Changes of the set of served versions of a model.";
    READY = "penstock_model_ready", Shape::Gauge, VERSION,
        "1 while the version is served, 0 after it left.";
    MODEL_FILE = "penstock_model_info", Shape::Gauge, &["model", "version", "sha256"],
        "1 while the version with this model file is served, 0 after it left.";
    MODEL_DEVICE_BYTES = "penstock_model_device_bytes", Shape::Gauge, VERSION,
        "Memory of its device that the version took when it was last loaded; none on the CPU.";
    DEVICE_BYTES = "penstock_device_memory_bytes", Shape::Gauge, &["device", "state"],
        "Memory of a CUDA device by state: allocated (to tensors), reserved (by this process), free (for anybody), total.";
    ENGINE_THREADS = "penstock_engine_threads", Shape::Gauge, &["device"],
        "Engine threads that take live work.";
    SHADOW_THREADS = "penstock_shadow_threads", Shape::Gauge, &["device"],
        "Engine threads that take shadows; started when the first one comes.";
    STUCK_THREADS = "penstock_engine_threads_stuck", Shape::Gauge, &[],
        "Threads abandoned in native code that have not come back, those that ran shadows left out.";
    ABANDONED = "penstock_engine_threads_abandoned_total", Shape::Counter, &["work"],
        "Threads given up after a time limit, by work: load, run or shadow.";
    ENGINE_PANICS = "penstock_engine_panics_total", Shape::Counter, &["device", "what"],
        "Panics on engine threads by what they ended: run (the calls of that batch fail) or thread (another takes its place).";
    AUTH_REFUSED = "penstock_auth_refused_total", Shape::Counter, &["reason"],
        "Requests whose caller was not recognised, by reason: nothing (was presented), malformed, oversized, unknown (key or token), algorithm, unknown_key, signature, time, claims, certificate or not_fetched.";
    AUTH_RELOADS = "penstock_auth_reloads_total", Shape::Counter, &["source", "result"],
        "Looks at keys of callers that brought something, by source (key_files, jwks_file or jwks_url) and result: changed, unchanged or failed.";
    LIMIT_CHECKS = "penstock_limit_checks_total", Shape::Counter, &["limit", "result"],
        "Calls checked against a rate limit or quota, by result: admitted, limited, or would_limit where it is shadowed.";
    LIMIT_KEYS = "penstock_limit_keys", Shape::Gauge, &["limit"],
        "Keys that have a state of their own in a rate limit, or something under way in a quota.";
    LIMIT_OVERFLOW = "penstock_limit_overflow_total", Shape::Counter, &["limit"],
        "Checks of new keys that shared one allowance because max_keys others had one of their own.";
    LIMIT_STORE_ERRORS = "penstock_limit_store_errors_total", Shape::Counter, &["limit"],
        "Checks of a shared limit that Redis did not answer, so that on_error decided.";
    LIMIT_STORE_UP = "penstock_limit_store_up", Shape::Gauge, &[],
        "1 while shared limits are checked in Redis, 0 while on_error decides.";
    SHARE_REFUSED = "penstock_fair_share_refused_total", Shape::Counter, &[],
        "Calls refused because their group had its share of engine time while a device was behind.";
    SHADOW_REQUESTS = "penstock_shadow_requests_total", Shape::Counter, &["route", "shadow", "outcome"],
        "Calls that a shadow was meant to see, by outcome: compared, failed (an error, or an answer of another form), or dropped, because of full, bytes (its budget), pressure (of memory), circuit_open, expired (it waited too long), behind (comparing), not_loaded, unfit (its signature or contract does not take what the live arm took, or it cannot be asked) or abandoned.";
    SHADOW_AGREEMENT = "penstock_shadow_agreement", Shape::Gauge, &["route", "shadow", "output"],
        "Share of labels that agree with live, or of equal rows for what is no float; NaN once the shadow is gone.";
    SHADOW_DIFFERENCE = "penstock_shadow_relative_difference", Shape::Gauge, &["route", "shadow", "output"],
        "Mean difference between shadow and live as a part of the largest live magnitude; NaN once the shadow is gone.";
    SHADOW_LATENCY_RATIO = "penstock_shadow_latency_ratio", Shape::Gauge, &["route", "shadow"],
        "Median of the time of a shadow as a multiple of the live time of the same call; NaN once the shadow is gone.";
    LOG_ROWS = "penstock_prediction_log_rows_total", Shape::Counter, &["guarantee"],
        "Rows written to segments of the prediction log.";
    LOG_BYTES = "penstock_prediction_log_bytes_total", Shape::Counter, &[],
        "Bytes of rows written to segments of the prediction log.";
    LOG_DROPPED = "penstock_prediction_log_dropped_rows_total", Shape::Counter, &["reason"],
        "Rows, and feedback, that are not in the prediction log though they should be, by reason: full (queue), disk (nothing can be written), large, stopping.";
    LOG_UNSAMPLED = "penstock_prediction_log_unsampled_rows_total", Shape::Counter, &[],
        "Rows that sampling left out of the prediction log.";
    LOG_UNCOMMITTED = "penstock_prediction_log_uncommitted_calls_total", Shape::Counter, &[],
        "Durable calls, and requests with feedback, refused because what they are kept in could not be written in time.";
    LOG_QUEUE_ROWS = "penstock_prediction_log_queue_rows", Shape::Gauge, &[],
        "Rows that wait to be written.";
    LOG_QUEUE_BYTES = "penstock_prediction_log_queue_bytes", Shape::Gauge, &[],
        "Bytes of rows that wait to be written.";
    LOG_OLDEST = "penstock_prediction_log_oldest_unsaved_seconds", Shape::Gauge, &[],
        "How long the oldest row has waited to be written; 0 while none waits.";
    LOG_WRITE_SECONDS = "penstock_prediction_log_write_seconds", Shape::Histogram(SECONDS), &[],
        "Time of single writes to a segment.";
    LOG_SYNC_SECONDS = "penstock_prediction_log_sync_seconds", Shape::Histogram(SECONDS), &[],
        "Time to bring what was written to the disk.";
    LOG_WRITE_FAILURES = "penstock_prediction_log_write_failures_total", Shape::Counter, &[],
        "Writes, syncs and ends of segments that failed and are tried again.";
    FEEDBACK = "penstock_feedback_total", Shape::Counter, &["outcome"],
        "Feedback by what became of it when it was told: matched, early (its prediction may not be known yet), late (older than what is remembered), duplicate, unmatched, stored (nothing is remembered) or refused (a body that cannot be read is one).";
    FEEDBACK_LABELS = "penstock_feedback_labels_total", Shape::Counter, &["model", "version", "arm", "agrees"],
        "Labels told of items that are remembered, by whether the answer agrees: yes, no or unknown (it said no class).";
    FEEDBACK_REWARDS = "penstock_feedback_rewards_total", Shape::Counter, &["model", "version", "arm"],
        "Rewards told of predictions that are remembered.";
    FEEDBACK_REWARD_SUM = "penstock_feedback_reward_sum", Shape::Gauge, &["model", "version", "arm"],
        "Sum of these rewards.";
    UPSTREAM_REQUESTS = "penstock_upstream_requests_total", Shape::Counter, &["upstream", "outcome"],
        "Calls for an upstream by outcome, whatever number of attempts they took.";
    UPSTREAM_ATTEMPTS = "penstock_upstream_attempt_seconds", Shape::Histogram(SECONDS), &["upstream", "result"],
        "Time of single attempts by result: answered, failed (the endpoint's fault), throttled, neutral (the caller's fault) or given_up (the deadline passed, or the caller left).";
    UPSTREAM_RETRIES = "penstock_upstream_retries_total", Shape::Counter, &["upstream", "result"],
        "Retries by result: sent, or over_budget where the failure of the attempt before was the answer.";
    UPSTREAM_EJECTIONS = "penstock_upstream_ejections_total", Shape::Counter, &["upstream"],
        "Endpoints taken out for a while because their calls failed.";
    UPSTREAM_ENDPOINTS = "penstock_upstream_endpoints", Shape::Gauge, &["upstream", "state"],
        "Endpoints by state: ready, unhealthy (health checks fail) or ejected (calls failed).";
    UPSTREAM_IN_FLIGHT = "penstock_upstream_in_flight_calls", Shape::Gauge, &["upstream"],
        "Calls under way to all endpoints of an upstream.";
    CONNECTIONS = "penstock_connections", Shape::Gauge, &["protocol"],
        "Open connections.";
    CONNECTIONS_REFUSED = "penstock_connections_refused_total", Shape::Counter, &["protocol", "limit"],
        "Connections closed at once, by the limit that was reached: connections or address.";
    TLS_HANDSHAKES = "penstock_tls_handshakes_total", Shape::Counter, &["protocol", "result"],
        "TLS handshakes by result: ok, refused (a wrong certificate, another protocol, a caller that left) or timeout.";
    TLS_RELOADS = "penstock_tls_reloads_total", Shape::Counter, &["result"],
        "Changed certificates by result: loaded, or failed (the old ones serve on).";
    TLS_EXPIRY = "penstock_tls_certificate_expiry_seconds", Shape::Gauge, &[],
        "When the certificate in use ends to be valid, in seconds since 1970.";
    CONFIG_RELOADS = "penstock_config_reloads_total", Shape::Counter, &["result"],
        "Readings of the configuration file that brought something, by result: applied, unchanged (what it says is in force already) or failed (nothing changed).";
    CONFIG_VALID = "penstock_config_valid", Shape::Gauge, &[],
        "1 while what the configuration file says is in force, 0 while it cannot be.";
    CONFIG_SUCCESS = "penstock_config_last_success_timestamp_seconds", Shape::Gauge, &[],
        "When a changed configuration file, or that of the start, last came to be in force, in seconds since 1970.";
    CONFIG_REVISION = "penstock_config_revision", Shape::Gauge, &[],
        "The revision that the last applied configuration became.";
    BUILD = "penstock_build_info", Shape::Gauge, &["version", "libtorch"],
        "Always 1.";
    LOG_LINES_LOST = "penstock_log_lines_lost_total", Shape::Counter, &[],
        "Lines of the log that were never written: standard error was not read in time, or cannot be written.";
    RESIDENT = "process_resident_memory_bytes", Shape::Gauge, &[],
        "Resident memory of the process.";
    CPU_SECONDS = "process_cpu_seconds_total", Shape::Gauge, &[],
        "User and system CPU time of the process.";
    NV_SUCCESS = "nv_inference_request_success", Shape::Counter, VERSION,
        "Answered calls.";
    NV_FAILURE = "nv_inference_request_failure", Shape::Counter, &["model", "version", "reason"],
        "Calls not answered, by reason: REJECTED, CANCELED, BACKEND or OTHER.";
    NV_COUNT = "nv_inference_count", Shape::Counter, VERSION,
        "Items computed.";
    NV_EXEC_COUNT = "nv_inference_exec_count", Shape::Counter, VERSION,
        "Batches run.";
    NV_REQUEST_US = "nv_inference_request_duration_us", Shape::Counter, VERSION,
        "Time of answered calls, in microseconds.";
    NV_QUEUE_US = "nv_inference_queue_duration_us", Shape::Counter, VERSION,
        "Time that answered calls waited, in microseconds.";
    NV_INPUT_US = "nv_inference_compute_input_duration_us", Shape::Counter, VERSION,
        "Time that answered calls spent copying inputs, in microseconds.";
    NV_INFER_US = "nv_inference_compute_infer_duration_us", Shape::Counter, VERSION,
        "Time that answered calls spent in the forward pass, in microseconds.";
    NV_OUTPUT_US = "nv_inference_compute_output_duration_us", Shape::Counter, VERSION,
        "Time that answered calls spent copying outputs, in microseconds.";
    NV_PENDING = "nv_inference_pending_request_count", Shape::Gauge, VERSION,
        "Calls waiting for an engine thread.";
    NV_LOAD_SECONDS = "nv_model_load_duration_secs", Shape::Gauge, VERSION,
        "How long the last load took.";
    NV_GPU_UTILIZATION = "nv_gpu_utilization", Shape::Gauge, GPU,
        "Share of the last second or so in which the GPU was at work, from 0 to 1.";
    NV_GPU_POWER = "nv_gpu_power_usage", Shape::Gauge, GPU,
        "Power that the GPU draws, in watts.";
    NV_GPU_MEMORY_TOTAL = "nv_gpu_memory_total_bytes", Shape::Gauge, GPU,
        "Memory of the GPU.";
    NV_GPU_MEMORY_USED = "nv_gpu_memory_used_bytes", Shape::Gauge, GPU,
        "Memory of the GPU in use by anybody.";
}
