//! When a connection that works is asked to end: after a long time without a call, or of age.

use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, sleep, sleep_until};

/// How often in its time a connection is looked at; so closely the time is kept.
const LOOKS: u32 = 4;

/// What happens on a connection: calls under way are its references.
#[derive(Debug, Default)]
pub(super) struct Activity {
    begun: AtomicUsize,
}

/// A call under way.
#[derive(Debug, Clone)]
pub(super) struct Call {
    _activity: Arc<Activity>,
}

/// The body of an answer, which keeps its call under way until it has been sent.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    _call: Call,
}

impl Activity {
    /// Notes a call.
    pub(super) fn begin(self: &Arc<Self>) -> Call {
        self.begun.fetch_add(1, Ordering::Relaxed);
        Call { _activity: self.clone() }
    }
}

impl Call {
    pub(super) fn answer<B>(self, body: B) -> Answer<B> {
        Answer { body, _call: self }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Waits until no call has been under way for `limit`, give or take a quarter. `activity` has
/// `resting` references when none is.
pub(super) async fn idle(activity: Arc<Activity>, resting: usize, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    let (mut seen, mut quiet) = (activity.begun.load(Ordering::Relaxed), 0);
    while quiet < LOOKS {
        sleep(limit / LOOKS).await;
        let begun = activity.begun.load(Ordering::Relaxed);
        let still = begun == seen && Arc::strong_count(&activity) <= resting;
        quiet = if still { quiet + 1 } else { 0 };
        seen = begun;
    }
}

/// Waits until a connection is of age: `limit`, give or take a tenth, so that those that began
/// together do not end together.
pub(super) async fn age(limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    // Any even spread will do, and every hasher has its own keys.
    let chance = RandomState::new().hash_one(0) % 1000;
    #[expect(clippy::cast_precision_loss, reason = "below a thousand")]
    let share = 0.9 + 0.2 * chance as f64 / 1000.0;
    sleep_until(Instant::now() + limit.mul_f64(share)).await;
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn seconds(future: impl Future<Output = ()>) -> f64 {
        let begun = Instant::now();
        timeout(Duration::from_secs(100_000), future).await.unwrap();
        begun.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_calls_is_idle_after_its_time() {
        let activity = Arc::new(Activity::default());
        let waited = seconds(idle(activity.clone(), 2, Some(LIMIT))).await;
        assert!((60.0..=75.0).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_call_under_way_is_never_idle() {
        let activity = Arc::new(Activity::default());
        let answer = activity.begin().answer(http_body_util::Empty::<bytes::Bytes>::new());
        let idle = idle(activity.clone(), 2, Some(LIMIT));
        let mut idle = std::pin::pin!(idle);
        assert!(timeout(LIMIT * 100, &mut idle).await.is_err());
        drop(answer);
        let waited = seconds(idle).await;
        assert!(waited <= 75.0, "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn short_calls_now_and_then_keep_a_connection() {
        let activity = Arc::new(Activity::default());
        let idle = idle(activity.clone(), 2, Some(LIMIT));
        let mut idle = std::pin::pin!(idle);
        for _ in 0..50 {
            assert!(timeout(LIMIT * 9 / 10, &mut idle).await.is_err());
            drop(activity.begin());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ages_differ_by_a_tenth() {
        let mut ages = vec![];
        for _ in 0..100 {
            ages.push(seconds(age(Some(LIMIT))).await);
        }
        assert!(ages.iter().all(|age| (54.0..=66.1).contains(age)), "{ages:?}");
        let distinct: std::collections::HashSet<_> =
            ages.iter().map(|age| (age * 10.0).to_string()).collect();
        assert!(distinct.len() > 10, "{ages:?}");
        assert!(timeout(LIMIT * 1000, age(None)).await.is_err());
    }
}
