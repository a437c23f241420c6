//! What a name stands for, for those who ask about it and do not call it.

use super::{Arm, Backend, Snapshot};
use crate::error::{Kind, Rejection};
use crate::types::Version;

/// A model, or a route, as callers see it.
#[derive(Debug)]
pub struct Described {
    /// What answers first; for a route, that of its first arm that is there. Arms fit each other.
    pub backend: Backend,
    /// What may be named as a version: those that are ready, or the arms of a route without a
    /// model of its name.
    pub versions: Vec<String>,
}

impl Snapshot {
    /// What answers calls of a name, and of a version where one is named.
    ///
    /// # Errors
    /// As [`Snapshot::find`]; `NotReady` for a route of which no arm is there.
    pub fn describe(&self, name: &str, version: Option<&str>) -> Result<Described, Rejection> {
        let backend = match self.arms_of(name, version) {
            None => Backend::Local(self.find(name, version)?.clone()),
            Some(arms) => arms.iter().find_map(|arm| arm.seat.backend()).ok_or_else(|| {
                Rejection::new(Kind::NotReady, format!("no arm of route '{name}' is ready"))
            })?,
        };
        let versions = match (self.model(name), self.route(name)) {
            (Some(model), _) => model.ready.keys().map(ToString::to_string).collect(),
            (None, Some(route)) => route.arms.iter().map(|arm| arm.name.to_string()).collect(),
            (None, None) => vec![],
        };
        Ok(Described { backend, versions })
    }

    /// Whether a call would be taken: by the version, or by any arm of the route that it would go
    /// to.
    ///
    /// # Errors
    /// `NotFound` for what is not there.
    pub fn is_ready(&self, name: &str, version: Option<&str>) -> Result<bool, Rejection> {
        if let Some(arms) = self.arms_of(name, version) {
            return Ok(arms.iter().any(|arm| arm.seat.is_ready()));
        }
        match self.find(name, version) {
            Ok(served) => Ok(served.is_ready()),
            Err(rejection) if rejection.kind() == Kind::NotFound => Err(rejection),
            Err(_) => Ok(false),
        }
    }

    /// The arms that calls of a name would go to, as [`Snapshot::resolve`] has it; `None` where
    /// they go past any route.
    fn arms_of(&self, name: &str, version: Option<&str>) -> Option<&[Arm]> {
        let route = self.route(name)?;
        match version.filter(|text| !text.is_empty()) {
            None => Some(&route.arms),
            Some(text) if text.parse::<Version>().is_ok() => None,
            Some(text) => route.arm(text).map(|index| &route.arms[index..=index]),
        }
    }
}
