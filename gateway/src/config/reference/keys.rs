//! The tables themselves: one line of meaning for every key, one file for each section.

mod auth;
mod breaker;
mod contract;
mod engine;
mod idempotency;
mod limits;
mod listen;
mod model;
mod overload;
mod prediction_log;
mod prediction_log_store;
mod process;
mod rates;
mod repository;
mod routes;
mod state;
mod tls;
mod upstreams;

use super::{Key, Type};

const fn key(path: &'static str, kind: Type, default: &'static str, meaning: &'static str) -> Key {
    Key { path, kind, default, meaning }
}

/// The configuration file of the gateway, in sections.
pub const CONFIG: &[&[Key]] = &[
    process::KEYS,
    listen::KEYS,
    tls::KEYS,
    auth::KEYS,
    repository::KEYS,
    engine::KEYS,
    limits::KEYS,
    rates::KEYS,
    breaker::KEYS,
    idempotency::KEYS,
    overload::KEYS,
    routes::KEYS,
    upstreams::KEYS,
    state::KEYS,
    prediction_log::KEYS,
    prediction_log_store::KEYS,
];

/// `model.toml`, in sections.
pub const MODEL: &[&[Key]] = &[model::KEYS, contract::KEYS];
