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
    /// Drain, then say how many connections were left.
    Stop(Duration, std_mpsc::SyncSender<usize>),
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

    /// Asks the shard to end; the number of undrained connections comes over the receiver.
    pub(super) fn begin_stop(&self, drain: Duration) -> std_mpsc::Receiver<usize> {
        let (sender, receiver) = std_mpsc::sync_channel(1);
        drop(self.orders.blocking_send(Order::Stop(drain, sender)));
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
            Order::Stop(drain, left) => {
                draining.cancel();
                open.close();
                let undrained = match timeout(drain, open.wait()).await {
                    Ok(()) => 0,
                    Err(_) => open.len(),
                };
                // The server waits for this word, so it is there to hear it.
                let _heard = left.send(undrained);
                return;
            }
        }
    }
}
