//! Words to systemd (`sd_notify(3)`): ready, reloading, stopping, and signs of life. Without
//! `NOTIFY_SOCKET` nobody listens and nothing is said.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::api::Api;
use crate::tasks;

/// Calls are answered, or certificates and configuration were looked at.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Certificates and configuration are looked at; [`ready`] says when that is over.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        // Reloading without the time would be taken for a failure.
        Err(error) => debug!(%error, "no monotonic clock"),
    }
}

/// The end has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Gives signs of life twice in the time that systemd allows between them, for as long as the
/// gateway is live: one that is not gets restarted.
pub(super) fn guard(api: Api) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return;
    };
    tasks::spawn("watchdog", async move {
        let mut ticks = interval(limit / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if api.is_live() {
                tell(&[NotifyState::Watchdog]);
            }
        }
    });
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot tell systemd");
    }
}
