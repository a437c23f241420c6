//! Other servers of the protocol, as arms of routes: other gateways, Triton, MLServer.
//!
//! An [`Upstream`] is a group of endpoints that serve the same models, over HTTP or gRPC. `board`
//! decides which endpoint gets a call, `budget` how many retries there may be, [`mod@model`] makes
//! the call, `wire` speaks the protocols, and `health` asks endpoints how they are. Whatever comes
//! back is checked against the model's signature before a caller sees it.

mod board;
mod budget;
mod description;
mod failure;
mod fleet;
mod health;
mod latency;
pub mod model;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::HeaderMap;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use board::EndpointState;
pub use model::{ModelStatus, RemoteAnswer, RemoteCall, RemoteModel, Unanswered};

use self::fleet::Fleet;
use self::model::Legacy;
use self::wire::{HOPS, Tls};
use crate::config::{self, Problem};
use crate::tasks;

/// Most gateways that a call may pass: more are a loop.
pub const MAX_HOPS: u8 = 4;

/// How many gateways a request has passed; as many as can be where its header is none.
#[must_use]
pub fn hops(headers: &HeaderMap) -> u8 {
    let read = |value: &http::HeaderValue| value.to_str().ok()?.trim().parse().ok();
    headers.get_all(HOPS).iter().map(|value| read(value).unwrap_or(u8::MAX)).max().unwrap_or(0)
}

/// All upstreams of a configuration.
#[derive(Debug, Default)]
pub struct Upstreams {
    by_name: BTreeMap<String, Arc<Upstream>>,
}

/// A group of endpoints that serve the same models.
#[derive(Debug)]
pub struct Upstream {
    tls: Tls,
    /// Of models that are asked for from now on.
    breaker: Mutex<config::Breaker>,
    fleet: Arc<Fleet>,
    /// What is known from the upstream of the same name before this one, until it is asked for.
    legacies: Mutex<Vec<Legacy>>,
    /// Ends the tasks that look after the endpoints.
    _stop: DropGuard,
}

/// What there is to see of an upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    pub name: String,
    pub protocol: &'static str,
    pub in_flight: usize,
    pub max_in_flight: usize,
    pub endpoints: Vec<EndpointStatus>,
    pub models: Vec<ModelStatus>,
}

/// What there is to see of an endpoint.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    pub address: String,
    pub state: EndpointState,
    /// What the last failed health check said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Until it gets calls again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected_for_seconds: Option<f64>,
    pub ejections_in_a_row: u32,
    pub in_flight: usize,
    /// How long answers usually take; none came yet without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_seconds: Option<f64>,
    pub attempts: u64,
    pub failures: u64,
    pub failures_in_a_row: u32,
}

impl Upstreams {
    /// Starts what is new, on the runtime that it is called on, which has to outlive all calls.
    /// What is in `before` with the same settings, and the same contents of its files, goes on as
    /// it is, with its connections and what it has learnt. Where settings differ, it starts anew
    /// with what is known of its models, until its endpoints have said how they are. What is left
    /// of `before` ends once nobody holds a model of it.
    ///
    /// # Errors
    /// Every address and every file that cannot be used. Endpoints that cannot be reached are no
    /// error.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn start(
        settings: &[config::Upstream],
        before: Option<&Self>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        Self::start_with(settings, &config::Breaker::default(), before)
    }

    /// The same, with the settings of the circuit breakers of what is new;
    /// [`Upstreams::reconfigure`] gives them to what goes on.
    ///
    /// # Errors
    /// As [`Upstreams::start`].
    pub fn start_with(
        settings: &[config::Upstream],
        breaker: &config::Breaker,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let (mut by_name, mut problems) = (BTreeMap::new(), Vec::new());
        // Everything is checked before anything starts.
        let mut fresh = Vec::new();
        for (index, settings) in settings.iter().enumerate() {
            let path = format!("upstream[{index}]");
            let tls = Tls::new(settings.tls.as_ref(), settings.protocol, &format!("{path}.tls"));
            let tls = match tls {
                Ok(tls) => tls,
                Err(found) => {
                    problems.extend(found);
                    continue;
                }
            };
            let same = before.and_then(|before| before.get(&settings.name)).filter(|upstream| {
                upstream.fleet.settings == *settings && !upstream.tls.differs(&tls)
            });
            if let Some(upstream) = same {
                by_name.insert(settings.name.clone(), upstream.clone());
                continue;
            }
            match Fleet::new(settings.clone(), &tls, &path) {
                Ok(fleet) => fresh.push((tls, fleet)),
                Err(found) => problems.extend(found),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        for (tls, fleet) in fresh {
            let old = before.and_then(|before| before.get(&fleet.settings.name));
            let upstream = Upstream::start(tls, *breaker, Arc::new(fleet), old);
            by_name.insert(upstream.name().to_owned(), Arc::new(upstream));
        }
        Ok(Arc::new(Self { by_name }))
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// Gives the circuit breakers of all models other settings. They keep their state.
    pub fn reconfigure(&self, breaker: config::Breaker) {
        self.by_name.values().for_each(|upstream| upstream.reconfigure(breaker));
    }

    /// Everything there is to see, by name.
    #[must_use]
    pub fn status(&self) -> Vec<UpstreamStatus> {
        self.by_name.values().map(|upstream| upstream.status()).collect()
    }

    /// Brings gauges up to date; called before they are rendered.
    pub fn publish(&self) {
        for upstream in self.by_name.values() {
            upstream.fleet.show();
        }
    }
}

impl Upstream {
    /// One group of endpoints outside of any configuration; each request has these headers beside
    /// its own. On the runtime that it is called on, which has to outlive all calls.
    ///
    /// # Errors
    /// As [`Upstreams::start`].
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn alone(
        settings: config::Upstream,
        headers: HeaderMap,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let path = settings.name.clone();
        let mut tls = Tls::new(settings.tls.as_ref(), settings.protocol, &path)?;
        tls.headers = headers;
        let fleet = Fleet::new(settings, &tls, &path)?;
        Ok(Arc::new(Self::start(tls, config::Breaker::default(), Arc::new(fleet), None)))
    }

    fn start(
        tls: Tls,
        breaker: config::Breaker,
        fleet: Arc<Fleet>,
        old: Option<&Arc<Self>>,
    ) -> Self {
        let legacies = old.map(|old| fleet.inherit(&old.fleet)).unwrap_or_default();
        let stop = CancellationToken::new();
        for index in 0..fleet.wires.len() {
            tasks::spawn("upstream", health::follow(fleet.clone(), index, stop.clone()));
        }
        let (breaker, legacies) = (Mutex::new(breaker), Mutex::new(legacies));
        Self { tls, breaker, fleet, legacies, _stop: stop.drop_guard() }
    }

    fn breaker(&self) -> config::Breaker {
        *self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reconfigure(&self, breaker: config::Breaker) {
        // A model that is made meanwhile has either these settings or is among the models.
        *self.breaker.lock().unwrap_or_else(PoisonError::into_inner) = breaker;
        self.fleet.models().iter().for_each(|model| model.breaker().reconfigure(breaker));
    }

    /// Takes what is known of the model that `is` the one asked for.
    fn legacy(&self, is: impl Fn(&Legacy) -> bool) -> Option<Legacy> {
        let mut legacies = self.legacies.lock().unwrap_or_else(PoisonError::into_inner);
        let index = legacies.iter().position(is)?;
        Some(legacies.swap_remove(index))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.fleet.settings.name
    }

    /// A model of it; whoever asks for the same one gets the same. Its endpoints are asked what it
    /// is like from now on until nobody holds it.
    #[must_use]
    pub fn model(self: &Arc<Self>, model: &str, version: Option<&str>) -> Arc<RemoteModel> {
        let make = || Arc::new(RemoteModel::new(self.clone(), model, version));
        self.fleet.model(|known| known.is(model, version), make)
    }

    /// Everything there is to see.
    #[must_use]
    pub fn status(&self) -> UpstreamStatus {
        let (fleet, now) = (&self.fleet, Instant::now());
        let models = fleet.models().iter().map(|model| model.status()).collect();
        let board = fleet.board();
        let endpoints = board.seats.iter().zip(&fleet.settings.endpoints).map(|(seat, address)| {
            let left = seat.until.map(|until| until.saturating_duration_since(now));
            EndpointStatus {
                address: address.clone(),
                state: seat.state(now),
                reason: seat.trouble.clone(),
                ejected_for_seconds: left.filter(|left| !left.is_zero()).map(|t| t.as_secs_f64()),
                ejections_in_a_row: seat.ejections,
                in_flight: seat.in_flight,
                latency_seconds: seat.latency.usual().map(|usual| usual.as_secs_f64()),
                attempts: seat.attempts,
                failures: seat.failures,
                failures_in_a_row: seat.consecutive,
            }
        });
        UpstreamStatus {
            name: fleet.settings.name.clone(),
            protocol: fleet.settings.protocol.name(),
            in_flight: fleet.in_flight(),
            max_in_flight: fleet.settings.max_in_flight,
            endpoints: endpoints.collect(),
            models,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
