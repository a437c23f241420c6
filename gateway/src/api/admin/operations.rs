//! What the admin port acts on: the effective routes, their revisions, the configuration file.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;

use crate::api::audit::Entry;
use crate::config::Problem;
use crate::error::Rejection;
use crate::routing::RoutePlan;
use crate::types::{ArmName, Share};

/// Changes routes and says how they stand. Everything is one revision after the other: no two
/// changes overlap. `set`, `reset`, `rollback` and `reload` write what became of them into the
/// audit log.
pub trait Operations: fmt::Debug + Send + Sync {
    /// The routes as they take effect.
    fn effective(&self) -> Effective;

    /// How the arms of a route stand, in its order.
    fn standing(&self, plan: &RoutePlan) -> Vec<Standing>;

    /// Gives arms other shares; those not named share the rest.
    fn set<'a>(
        &'a self,
        route: &'a str,
        shares: &'a BTreeMap<ArmName, Share>,
        edit: Edit,
    ) -> BoxFuture<'a, Result<Changed, Refused>>;

    /// Takes a route back to what the file says.
    fn reset<'a>(&'a self, route: &'a str, edit: Edit) -> BoxFuture<'a, Result<Changed, Refused>>;

    /// Puts the routes of an earlier revision in force again, those before the last change
    /// without one.
    fn rollback(&self, to: Option<u64>, edit: Edit) -> BoxFuture<'_, Result<Restored, Refused>>;

    /// Reads the configuration file again, and applies it whole or not at all.
    fn reload(&self, edit: Edit) -> BoxFuture<'_, Result<Reloaded, Refused>>;

    /// What a reload of this text would change. Changes nothing.
    fn preview(&self, text: String) -> BoxFuture<'_, Preview>;

    /// The newest revisions, newest first.
    fn revisions(&self, limit: usize) -> Vec<Revision>;

    /// One revision with its routes, while it is kept.
    fn revision(&self, number: u64) -> Option<(Revision, Vec<Arc<RoutePlan>>)>;

    /// What the shadows of a route have seen: `shadows`, each with its name.
    ///
    /// # Errors
    /// `NotFound` without such a route.
    fn report(&self, route: &str) -> Result<Value, Rejection>;

    /// Counts anew what the shadows of a route see.
    ///
    /// # Errors
    /// `NotFound` without such a route.
    fn reset_report(&self, route: &str) -> Result<(), Rejection>;

    /// The upstreams with their endpoints: `upstreams`.
    fn upstreams(&self) -> Value;

    /// Writes an attempt to change something into the audit log.
    fn record(&self, entry: Entry);
}

/// The routes in force.
#[derive(Debug, Clone)]
pub struct Effective {
    pub revision: u64,
    /// Whether routes may be changed beside the file.
    pub overlay: bool,
    pub routes: Vec<Arc<RoutePlan>>,
}

/// How one arm stands, and what it was asked for since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// `ready`, or why it does not answer.
    pub state: &'static str,
    /// Calls that were its to answer.
    pub requests: u64,
    /// Those of them that the fallback answered.
    pub fallbacks: u64,
}

/// Who changes something, why, and from which revision on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    pub author: String,
    /// The address that it came from.
    pub from: String,
    pub reason: String,
    /// Refused with the current revision where that is another one.
    pub expect: Option<u64>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    pub revision: u64,
    pub diff: Vec<String>,
}

/// An earlier revision that is in force again, as a new one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    pub revision: u64,
    pub restored: u64,
    pub diff: Vec<String>,
    /// Versions that had been unloaded: `model/versions/3`.
    pub needs_load: Vec<String>,
}

/// A file that was read again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reloaded {
    pub revision: u64,
    pub changed: bool,
    pub diff: Vec<String>,
}

/// What a reload of a text would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    pub problems: Vec<Problem>,
    pub diff: Vec<String>,
    /// Keys whose change waits for the next start.
    pub needs_restart: Vec<String>,
}

/// A revision without its routes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Revision {
    pub revision: u64,
    /// When it took effect (RFC 3339).
    pub time: String,
    pub author: String,
    pub reason: String,
    /// What made it: `start`, `file`, `set`, `reset` or `rollback`.
    pub cause: &'static str,
    pub diff: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub rejection: Rejection,
    /// The current revision, where another one was expected.
    pub revision: Option<u64>,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self { rejection, revision: None, problems: Vec::new() }
    }
}
