//! What a name stands for to those who ask about it and do not call it: whether it is ready, and
//! what it takes and gives.

use std::sync::Arc;

use super::{Arm, Backend, Route, Seat, Snapshot, StandIn};
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;
use crate::types::Version;

/// What a name and a version stand for.
#[derive(Debug)]
pub enum Named<'s> {
    /// A version past any route.
    Version(&'s Arc<ServedVersion>),
    Route(&'s Route),
    /// An arm that the version names.
    Arm(&'s Route, &'s Arm),
}

/// What describes a name.
#[derive(Debug)]
pub struct Described<'s> {
    pub backend: Backend,
    /// The arm that is described, where a route has the name.
    pub arm: Option<&'s Arm>,
}

impl Snapshot {
    /// What stands behind a name, as [`Snapshot::resolve`] finds it for calls: the route, unless
    /// the version is a number; then an arm, or a label of the model.
    ///
    /// # Errors
    /// As [`Snapshot::find`]. A route and its arms are found whether they are ready or not.
    pub fn named(&self, name: &str, version: Option<&str>) -> Result<Named<'_>, Rejection> {
        let version = version.filter(|text| !text.is_empty());
        match (self.route(name), version) {
            (Some(route), None) => return Ok(Named::Route(route)),
            (Some(route), Some(text)) if text.parse::<Version>().is_err() => {
                if let Some(index) = route.arm(text) {
                    return Ok(Named::Arm(route, &route.arms[index]));
                }
            }
            _ => {}
        }
        self.find(name, version).map(Named::Version)
    }

    /// What clients may give as a version of a name: the numbers of a model that serve, else the
    /// arms of the route that are ready.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<String> {
        if let Some(model) = self.model(name) {
            return model.ready.keys().map(ToString::to_string).collect();
        }
        let arms = self.route(name).map_or(&[][..], |route| &route.arms);
        let ready = arms.iter().filter(|arm| is_ready(&arm.seat));
        ready.map(|arm| arm.name.to_string()).collect()
    }

    /// The names that calls without a version may use, in order: models with a version that
    /// serves, and routes with an arm that is there.
    #[must_use]
    pub fn callable(&self) -> Vec<&str> {
        let models = self.models.iter().filter(|(_, model)| !model.ready.is_empty());
        let is_there = |route: &Route| route.arms.iter().any(|arm| arm.seat.backend().is_some());
        let routes = self.routes.iter().filter(|(_, route)| is_there(route));
        let names = models.map(|(name, _)| name).chain(routes.map(|(name, _)| name));
        let mut names: Vec<&str> = names.map(|name| name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl<'s> Named<'s> {
    /// Whether a call would be taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Version(served) => served.is_ready(),
            Self::Arm(_, arm) => is_ready(&arm.seat),
            Self::Route(route) => route.is_ready(),
        }
    }

    /// What describes it: of a route the first arm of which is known what it takes and gives; all
    /// of them take and give the same.
    ///
    /// # Errors
    /// `NotReady` while that is known of none.
    pub fn describe(&self) -> Result<Described<'s>, Rejection> {
        let described = |arm: &'s Arm| {
            let backend = arm.seat.backend()?;
            Some(Described { backend, arm: Some(arm) })
        };
        let not_ready = |text| Rejection::new(Kind::NotReady, text);
        match self {
            Self::Version(served) => {
                Ok(Described { backend: Backend::Local(Arc::clone(served)), arm: None })
            }
            Self::Arm(route, arm) => described(arm).ok_or_else(|| {
                not_ready(format!("arm '{}' of route '{}' is not ready", arm.name, route.name()))
            }),
            Self::Route(route) => {
                route.arms.iter().find_map(described).ok_or_else(|| {
                    not_ready(format!("no arm of route '{}' is ready", route.name()))
                })
            }
        }
    }
}

impl Route {
    /// Whether some callers are answered: by an arm with a share, or by what stands in for it.
    fn is_ready(&self) -> bool {
        let stands_in = match &self.fallback {
            StandIn::Nobody => false,
            StandIn::Arm(index) => is_ready(&self.arms[*index].seat),
            StandIn::Answer(_) => true,
        };
        let mut shared = self.plan.route.arms.iter().zip(&self.arms);
        stands_in || shared.any(|(planned, arm)| planned.share.buckets() > 0 && is_ready(&arm.seat))
    }
}

/// Whether a call would be taken there.
fn is_ready(seat: &Seat) -> bool {
    match seat.backend() {
        Some(Backend::Local(served)) => served.is_ready(),
        Some(Backend::Remote(remote)) => remote.model.is_ready(),
        None => false,
    }
}
