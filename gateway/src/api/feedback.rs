//! Feedback, the same over both protocols.

use http::HeaderMap;

use super::Api;
use crate::error::{Kind, Rejection};
use crate::feedback::Intake;
use crate::types::{Caller, Role};

/// Bytes of a request of feedback, at most.
pub const MAX_REQUEST: usize = 4 << 20;
/// Bytes of a message over gRPC, which is not compressed: one without fields has two bytes, and
/// takes a hundred times as much once it is read.
pub const MAX_MESSAGE: usize = 1 << 20;

impl Api {
    /// Lets a caller tell feedback, within the caller's limits, before anything is read.
    ///
    /// # Errors
    /// `PermissionDenied` without the role, `Unsupported` where nothing is kept, `RateLimited`.
    pub async fn enter_feedback(
        &self,
        mut caller: Caller,
        headers: &HeaderMap,
    ) -> Result<&Intake, Rejection> {
        self.authorize(&caller, Role::Predict)?;
        let intake = self.feedback.as_deref().ok_or_else(|| {
            let text = "this gateway keeps no prediction log, and no feedback";
            Rejection::new(Kind::Unsupported, text)
        })?;
        let limiter = self.pipeline.snapshots.limiter();
        limiter.mark(&mut caller, headers);
        limiter.at_head(&caller).await?;
        Ok(intake)
    }
}
