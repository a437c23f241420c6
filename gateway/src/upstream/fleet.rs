//! The endpoints of one upstream, the calls under way to them, and the models that are asked for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::board::{Board, Dice, EndpointState, Verdict};
use super::budget::Budget;
use super::model::{Legacy, RemoteModel};
use super::wire::{Tls, Wire};
use crate::config::{Problem, Upstream as Settings};
use crate::error::{Kind, Rejection};
use crate::telemetry::UpstreamMetrics;

/// Everything about one upstream but the tasks that look after it.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) settings: Settings,
    pub(super) wires: Vec<Wire>,
    pub(super) metrics: UpstreamMetrics,
    board: Mutex<Board>,
    budget: Mutex<Budget>,
    in_flight: AtomicUsize,
    /// Shadows under way, which are none of the calls above.
    shadows: AtomicUsize,
    /// By endpoint: somebody doubts what is known of its models.
    doubts: Box<[Notify]>,
    models: Mutex<Vec<Weak<RemoteModel>>>,
    /// Changes with every model that is asked for.
    news: watch::Sender<u64>,
}

/// Room for one call among those under way.
#[derive(Debug)]
pub(super) struct Room<'a>(&'a Fleet);

/// Room for one shadow among those under way.
#[derive(Debug)]
pub(super) struct Aside<'a>(&'a Fleet);

/// One attempt under way; whoever drops it has given it up.
#[derive(Debug)]
pub(super) struct Seated<'a> {
    fleet: &'a Fleet,
    pub(super) index: usize,
    pub(super) started: Instant,
    verdict: Verdict,
}

impl Fleet {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// Every endpoint that is none; `path` is that of the section.
    pub(super) fn new(settings: Settings, tls: &Tls, path: &str) -> Result<Self, Vec<Problem>> {
        let (mut wires, mut problems) = (Vec::new(), Vec::new());
        for (index, address) in settings.endpoints.iter().enumerate() {
            match Wire::new(address, &settings, tls, &format!("{path}.endpoints[{index}]")) {
                Ok(wire) => wires.push(wire),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let states = EndpointState::ALL.map(EndpointState::label);
        let fleet = Self {
            metrics: UpstreamMetrics::new(&settings.name, states),
            board: Mutex::new(Board::new(wires.len(), settings.ejection, settings.health)),
            budget: Mutex::new(Budget::new(&settings.retry, Instant::now())),
            in_flight: AtomicUsize::new(0),
            shadows: AtomicUsize::new(0),
            doubts: wires.iter().map(|_| Notify::new()).collect(),
            models: Mutex::default(),
            news: watch::Sender::new(0),
            wires,
            settings,
        };
        fleet.show();
        Ok(fleet)
    }

    /// Takes over what another fleet knows of servers that both have; returns what is known of its
    /// models.
    pub(super) fn inherit(&self, old: &Self) -> Vec<Legacy> {
        let endpoints = &self.settings.endpoints;
        for (wire, endpoint) in self.wires.iter().zip(endpoints) {
            let same = old.settings.endpoints.iter().position(|known| known == endpoint);
            if let Some(known) = old.wires.get(same.unwrap_or(0)) {
                wire.inherit(known);
            }
        }
        old.models().iter().filter_map(|model| model.legacy(endpoints)).collect()
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Room for a call, which is counted towards the budget of retries.
    ///
    /// # Errors
    /// `Overloaded` when as many as may be are under way.
    pub(super) fn enter(&self, now: Instant) -> Result<Room<'_>, Rejection> {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) >= self.settings.max_in_flight {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
            let text = format!("upstream '{}' has enough calls under way", self.settings.name);
            return Err(Rejection::new(Kind::Overloaded, text));
        }
        self.metrics.in_flight.increment(1.0);
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).count(now);
        Ok(Room(self))
    }

    /// Room for a shadow: while calls and shadows together take less than half of what calls may.
    ///
    /// # Errors
    /// `Overloaded` when they take more.
    pub(super) fn enter_aside(&self) -> Result<Aside<'_>, Rejection> {
        let room = (self.settings.max_in_flight / 2).max(1);
        let shadows = self.shadows.fetch_add(1, Ordering::Relaxed);
        let aside = Aside(self);
        if self.in_flight() + shadows < room {
            return Ok(aside);
        }
        let text = format!("upstream '{}' has no room for shadows", self.settings.name);
        Err(Rejection::new(Kind::Overloaded, text))
    }

    /// Whether the budget has room for a retry; takes it.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        let may = self.budget.lock().unwrap_or_else(PoisonError::into_inner).take(now);
        let counter = if may { &self.metrics.retried } else { &self.metrics.over_budget };
        counter.increment(1);
        may
    }

    /// Gives an attempt to an endpoint that `fits`.
    pub(super) fn seat(&self, now: Instant, fits: impl Fn(usize) -> bool) -> Option<Seated<'_>> {
        let mut board = self.board();
        let index = board.pick(now, fits, Dice::roll())?;
        board.begin(index);
        Some(Seated { fleet: self, index, started: now, verdict: Verdict::GivenUp })
    }

    /// An endpoint that `fits`, for an attempt that nothing is learnt from.
    pub(super) fn pick(&self, now: Instant, fits: impl Fn(usize) -> bool) -> Option<usize> {
        self.board().pick(now, fits, Dice::roll())
    }

    /// Whether there is an endpoint that `fits`.
    pub(super) fn has(&self, now: Instant, fits: impl Fn(usize) -> bool) -> bool {
        self.board().pick(now, fits, Dice(0.0, 0.0)).is_some()
    }

    /// An endpoint answered as if it had another model than is known.
    pub(super) fn doubt(&self, index: usize) {
        self.doubts[index].notify_one();
    }

    /// Until somebody doubts what is known of an endpoint's models.
    pub(super) async fn doubted(&self, index: usize) {
        self.doubts[index].notified().await;
    }

    /// A health check has ended.
    pub(super) fn checked(&self, index: usize, result: Result<(), String>) {
        let error = result.as_ref().err().cloned().unwrap_or_default();
        if self.board().checked(index, result) {
            let (upstream, endpoint) = (&self.settings.name, &self.settings.endpoints[index]);
            match error.is_empty() {
                true => info!(upstream, endpoint, "the endpoint is well"),
                false => warn!(upstream, endpoint, error, "the endpoint is not well"),
            }
        }
        self.show();
    }

    /// Publishes how many endpoints are in each state.
    pub(super) fn show(&self) {
        let counts = self.board().counts(Instant::now());
        self.metrics.show(counts);
    }

    /// The models that somebody holds.
    pub(super) fn models(&self) -> Vec<Arc<RemoteModel>> {
        let models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.iter().filter_map(Weak::upgrade).collect()
    }

    /// The model that `is` the one asked for, or the one that `make` gives.
    pub(super) fn model(
        &self,
        is: impl Fn(&RemoteModel) -> bool,
        make: impl FnOnce() -> Arc<RemoteModel>,
    ) -> Arc<RemoteModel> {
        let mut models = self.models.lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|model| model.strong_count() > 0);
        if let Some(model) = models.iter().filter_map(Weak::upgrade).find(|model| is(model)) {
            return model;
        }
        let model = make();
        models.push(Arc::downgrade(&model));
        drop(models);
        self.news.send_modify(|number| *number += 1);
        model
    }

    /// Tells of models that are asked for from now on.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}

impl Drop for Fleet {
    /// An upstream that has left has no endpoints.
    fn drop(&mut self) {
        self.metrics.show([0; 3]);
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.in_flight.decrement(1.0);
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        self.0.shadows.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Seated<'_> {
    /// How the attempt ended.
    pub(super) fn end(mut self, verdict: Verdict) {
        self.verdict = verdict;
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        let Self { fleet, index, started, verdict } = *self;
        fleet.metrics.attempt(verdict.result(), now.saturating_duration_since(started));
        let ejected = fleet.board().end(index, started, now, verdict);
        if let Some(time) = ejected {
            let (upstream, endpoint) = (&fleet.settings.name, &fleet.settings.endpoints[index]);
            warn!(upstream, endpoint, ?time, "the endpoint is ejected: its calls failed");
            fleet.metrics.ejections.increment(1);
            fleet.show();
        }
    }
}
