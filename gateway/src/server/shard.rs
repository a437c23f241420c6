//! One I/O thread with an event loop of its own. A connection stays on its shard for life.

use std::io;
use std::sync::{Arc, mpsc as std_mpsc};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::Services;
use super::connection::{self, Door, Life};
use super::gate::Permit;
use super::socket::Accepted;
use crate::{batching, tasks};

/// Connections on their way to a shard; when it is full the acceptor waits, and the kernel's
/// backlog behind it fills.
const HANDOVER: usize = 256;

/// Handle to a shard.
#[derive(Debug)]
pub(super) struct Shard {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    Serve(Door, Accepted, Permit),
    Stop(Stop),
}

/// How a shard stops: it drains, says how many connections were left, and lives on until it is
/// released. Calls on other shards may wait for a run that has its timers here.
#[derive(Debug)]
struct Stop {
    drain: Duration,
    left: std_mpsc::SyncSender<usize>,
    release: CancellationToken,
}

impl Shard {
    pub(super) fn start(index: usize, services: Arc<Services>) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel(HANDOVER);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tasks::thread(&format!("io-{index}"), move || {
            runtime.block_on(serve(receiver, services));
        })?;
        Ok(Self { orders })
    }

    /// Hands a connection over.
    pub(super) async fn take(&self, door: Door, accepted: Accepted, permit: Permit) {
        // A shard that has ended is one of a server that stops.
        drop(self.orders.send(Order::Serve(door, accepted, permit)).await);
    }

    /// Asks the shard to drain; the number of undrained connections comes over the receiver. It
    /// ends once it is released.
    pub(super) fn begin_stop(
        &self,
        drain: Duration,
        release: CancellationToken,
    ) -> std_mpsc::Receiver<usize> {
        let (left, receiver) = std_mpsc::sync_channel(1);
        let stop = Stop { drain, left, release };
        drop(self.orders.blocking_send(Order::Stop(stop)));
        receiver
    }
}

async fn serve(mut orders: mpsc::Receiver<Order>, services: Arc<Services>) {
    batching::attach();
    let (open, draining) = (TaskTracker::new(), CancellationToken::new());
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve(door, accepted, permit) => match accepted.register() {
                Ok(registered) => {
                    let (draining, open) = (draining.clone(), open.token());
                    let life = Life { draining, _open: open, _permit: permit };
                    connection::serve(door, registered, &services, life);
                }
                Err(error) => warn!(%error, "cannot take a connection"),
            },
            Order::Stop(stop) => {
                draining.cancel();
                return stop.wait(&open).await;
            }
        }
    }
}

impl Stop {
    async fn wait(self, open: &TaskTracker) {
        open.close();
        let undrained = match timeout(self.drain, open.wait()).await {
            Ok(()) => 0,
            Err(_) => open.len(),
        };
        // The server waits for this word, so it is there to hear it.
        let _heard = self.left.send(undrained);
        self.release.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_that_has_drained_lives_until_all_are_released() {
        let (left, drained) = std_mpsc::sync_channel(1);
        let release = CancellationToken::new();
        let stop = Stop { drain: Duration::from_secs(9), left, release: release.clone() };
        #[expect(clippy::disallowed_methods, reason = "the test needs its end")]
        let ending = tokio::spawn(async move { stop.wait(&TaskTracker::new()).await });
        let undrained = tasks::blocking(move || drained.recv()).await;
        assert_eq!(undrained, Ok(0));
        tokio::task::yield_now().await;
        assert!(!ending.is_finished(), "calls elsewhere may need its timers");
        release.cancel();
        ending.await.unwrap();
    }
}
