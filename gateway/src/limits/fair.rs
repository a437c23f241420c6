//! Fair shares of engine time: while too much waits on a device, each group of callers may have
//! its weighted share of it in the queue, no more.
//!
//! A queue is served about in order, so who holds a share of what waits gets that share of what
//! runs. The time of a call is estimated from the learnt time of its model's items and counts
//! from admission until the answer. While a device has less waiting than `above`, and while one
//! group has it to itself, everybody is admitted: what others leave is anybody's to use.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::seed::{Already, Seed};
use crate::config::{self, ShareBy};
use crate::error::{Kind, Rejection};
use crate::types::Caller;

/// How long a group counts as present after its last call.
const PRESENT: Duration = Duration::from_secs(1);
/// How often groups that have left are looked for.
const SWEEP: Duration = Duration::from_millis(100);
/// Groups with an account of their own on a device; more share one.
const MOST_GROUPS: usize = 1024;
/// Whose account that is.
const OTHERS: u64 = 0;

/// What a device has to do, and what one item of a call will add.
#[derive(Debug, Clone, Copy)]
pub struct Pressure<'a> {
    pub device: &'a str,
    pub threads: usize,
    /// How long what waits now will take all threads together.
    pub wait: Duration,
    /// Engine time of one item; zero while nothing is known.
    pub row_time: Duration,
}

/// Divides engine time between groups of callers.
#[derive(Debug)]
pub(super) struct FairShare {
    pub(super) config: config::FairShare,
    seed: Seed,
    /// Weights by the hash of the group's name.
    weights: HashMap<u64, f64>,
    /// A process has a handful of devices.
    devices: Mutex<Vec<(Box<str>, Accounts)>>,
    refused: AtomicU64,
}

/// The engine time that one call may take; given back on drop.
#[derive(Debug)]
pub struct Share {
    fair: Arc<FairShare>,
    device: usize,
    group: u64,
    nanos: u64,
}

/// What each group has under way on one device.
#[derive(Debug)]
pub(super) struct Accounts {
    groups: HashMap<u64, Account, BuildHasherDefault<Already>>,
    /// Sum of the weights of all groups present.
    weight: f64,
    /// Engine time under way of all groups, in nanoseconds.
    nanos: u64,
    swept: Instant,
}

#[derive(Debug)]
struct Account {
    weight: f64,
    /// Engine time under way, in nanoseconds.
    nanos: u64,
    seen: Instant,
}

impl FairShare {
    pub(super) fn new(config: config::FairShare) -> Self {
        let seed = Seed::default();
        let weights = config
            .weights
            .iter()
            .map(|(name, weight)| (seed.hash(&name.as_str()), *weight))
            .collect();
        Self { config, seed, weights, devices: Mutex::default(), refused: 0.into() }
    }

    /// Enters a call of `rows` items into its group's account.
    ///
    /// # Errors
    /// `Overloaded` when the device is behind and the group has its share already.
    pub(super) fn enter(
        self: &Arc<Self>,
        caller: &Caller,
        pressure: &Pressure<'_>,
        rows: usize,
    ) -> Result<Share, Rejection> {
        let name = match self.config.by {
            ShareBy::Tenant => &caller.identity.tenant,
            ShareBy::Identity => &caller.identity.name,
        };
        let group = self.seed.hash(&name.as_str());
        let weight = self.weights.get(&group).copied().unwrap_or(1.0);
        let time = nanos(pressure.row_time).saturating_mul(rows as u64);
        let threads = u64::try_from(pressure.threads).unwrap_or(1);
        let room = (pressure.wait > self.config.above)
            .then(|| nanos(self.config.above).saturating_mul(threads));
        let mut devices = self.lock();
        let device = match devices.iter().position(|(name, _)| **name == *pressure.device) {
            Some(device) => device,
            None => {
                devices.push((pressure.device.into(), Accounts::new(Instant::now())));
                devices.len() - 1
            }
        };
        let call = Entry { group, weight, nanos: time };
        let entered = devices[device].1.enter(&call, room, Instant::now());
        drop(devices);
        let Some(group) = entered else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let text = "the engine is busy and your share of what waits for it is taken";
            let rejection = Rejection::new(Kind::Overloaded, text);
            return Err(rejection.with_retry_after(Duration::from_secs(1)));
        };
        Ok(Share { fair: self.clone(), device, group, nanos: time })
    }

    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Groups present, by device.
    pub(super) fn groups(&self) -> Vec<(String, usize)> {
        let devices = self.lock();
        devices.iter().map(|(name, accounts)| (name.to_string(), accounts.len())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Box<str>, Accounts)>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some((_, accounts)) = self.fair.lock().get_mut(self.device) {
            accounts.leave(self.group, self.nanos);
        }
    }
}

/// A call at the door of a device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) group: u64,
    pub(super) weight: f64,
    pub(super) nanos: u64,
}

impl Accounts {
    pub(super) fn new(now: Instant) -> Self {
        Self { groups: HashMap::default(), weight: 0.0, nanos: 0, swept: now }
    }

    /// Enters a call and names the account it went to; `None` when the group has its share.
    /// `room` is the engine time to share, `None` while there is enough. Where more waits than
    /// that, it is shared out as it is: parts of the room would be too small parts of the queue.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds far below 2^52")]
    pub(super) fn enter(&mut self, call: &Entry, room: Option<u64>, now: Instant) -> Option<u64> {
        if now.duration_since(self.swept) >= SWEEP {
            self.sweep(now);
        }
        let is_known = self.groups.contains_key(&call.group);
        let (group, weight) = match is_known || self.groups.len() < MOST_GROUPS {
            true => (call.group, call.weight),
            false => (OTHERS, 1.0),
        };
        let total = &mut self.weight;
        let account = self.groups.entry(group).or_insert_with(|| {
            *total += weight;
            Account { weight, nanos: 0, seen: now }
        });
        account.seen = now;
        let after = account.nanos.saturating_add(call.nanos);
        let others = *total - account.weight;
        // Alone it may have everything, and one call at a time goes through however long it is.
        if let Some(room) = room
            && others > 0.0
            && account.nanos > 0
            && after as f64 > room.max(self.nanos) as f64 * account.weight / *total
        {
            return None;
        }
        account.nanos = after;
        self.nanos = self.nanos.saturating_add(call.nanos);
        Some(group)
    }

    /// Groups present.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn leave(&mut self, group: u64, nanos: u64) {
        if let Some(account) = self.groups.get_mut(&group) {
            account.nanos = account.nanos.saturating_sub(nanos);
            self.nanos = self.nanos.saturating_sub(nanos);
        }
    }

    /// Forgets groups that have nothing under way and have not called for a while.
    fn sweep(&mut self, now: Instant) {
        self.swept = now;
        self.groups
            .retain(|_, account| account.nanos > 0 || now.duration_since(account.seen) < PRESENT);
        // Summed up anew, so that rounding never adds up.
        self.weight = self.groups.values().map(|account| account.weight).sum();
    }
}
