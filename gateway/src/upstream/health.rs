//! Looks after one endpoint: whether it is well, and what its models are like.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::failure::{Cause, Failure};
use super::fleet::Fleet;

/// How often at most an endpoint is asked where health checks are off: one that has yet to say what
/// a model is like, or that has answered as if it were another one.
pub(super) const UNKNOWN: Duration = Duration::from_secs(5);

/// Asks an endpoint until `stop`: at once, whenever a model is asked for, and every so often.
pub(super) async fn follow(fleet: Arc<Fleet>, index: usize, stop: CancellationToken) {
    let mut news = fleet.news();
    loop {
        news.borrow_and_update();
        let started = Instant::now();
        tokio::select! {
            () = stop.cancelled() => return,
            () = round(&fleet, index) => {}
        }
        let every = fleet.settings.health.every.unwrap_or(UNKNOWN);
        let is_unknown = || fleet.models().iter().any(|model| model.is_unknown_at(index));
        let has_next = fleet.settings.health.every.is_some() || is_unknown();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
            () = sleep_until(started + every), if has_next => {}
            () = doubted(&fleet, index, started + every), if !has_next => {}
        }
    }
}

/// Until what is known of an endpoint's models is in doubt, and no earlier than `due`.
async fn doubted(fleet: &Fleet, index: usize, due: Instant) {
    fleet.doubted(index).await;
    sleep_until(due).await;
}

/// One look at an endpoint.
async fn round(fleet: &Fleet, index: usize) {
    if fleet.settings.health.every.is_some() {
        let ready = limited(fleet, fleet.wires[index].ready()).await;
        let is_well = ready.is_ok();
        fleet.checked(index, ready.map_err(|failure| failure.text));
        if !is_well {
            return;
        }
    } else {
        fleet.show();
    }
    for model in fleet.models() {
        let described = limited(fleet, fleet.wires[index].describe(model.name())).await;
        model.learn(index, described);
    }
}

async fn limited<T>(
    fleet: &Fleet,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let limit = fleet.settings.health.timeout;
    match timeout(limit, asked).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(Cause::TimedOut, format!("no answer within {limit:?}"))),
    }
}
