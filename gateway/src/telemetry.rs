//! What the gateway says about itself: every metric is declared in [`metrics`], the handles that
//! the hot path uses are resolved beforehand in [`handles`], [`gpu`] reads those of the machine's
//! GPUs, and [`logging`] sets up the log.

pub mod metrics;
pub mod arm;
pub mod delivery;
pub mod feedback;
pub mod gpu;
pub mod handles;
pub mod idempotency;
pub mod logging;
pub mod predictions;
pub mod process;
pub mod shadow;
pub mod upstream;

pub use arm::ArmMetrics;
pub use delivery::DeliveryMetrics;
pub use feedback::{FeedbackMetrics, FeedbackOutcome, FeedbackSeries};
pub use handles::{BreakerMetrics, Closed, Dropped, Outcome, Shed, VersionMetrics, WireMetrics};
pub use idempotency::{IdempotencyMetrics, KeyedCall};
pub use predictions::{LostRow, PredictionMetrics};
pub use shadow::{ShadowMetrics, ShadowOutcome};
pub use upstream::UpstreamMetrics;
