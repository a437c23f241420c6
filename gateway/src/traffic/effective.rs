//! The effective routes as values: the file, what was changed by hand beside it, and each way to
//! change either. Pure; nothing here waits or fails half-way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::shares;
use crate::config::{Problem, Route};
use crate::error::{Kind, Rejection};
use crate::revisions::{Overlay, OverlayEntry, Revision};
use crate::routing::{RoutePlan, Source};
use crate::types::{ArmName, ModelName, Share};

/// The routes of the file, by name.
pub(super) type FileRoutes = BTreeMap<ModelName, Route>;

/// Routes as callers meet them.
///
/// Each is either as the file says, with [`Source::File`] and no entry in the overlay, or held by
/// hand, with [`Source::Overlay`] and an entry, or removed by hand, with an entry alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Effective {
    pub(super) plans: BTreeMap<ModelName, Arc<RoutePlan>>,
    pub(super) overlay: Overlay,
}

/// The routes of a file by their names.
pub(super) fn by_name(routes: Vec<Route>) -> FileRoutes {
    routes.into_iter().map(|route| (route.name.clone(), route)).collect()
}

impl Effective {
    pub(super) fn of(revision: &Revision) -> Self {
        let plans = revision.plans.iter();
        let plans = plans.map(|plan| (plan.route.name.clone(), plan.clone())).collect();
        Self { plans, overlay: revision.overlay.clone() }
    }

    /// The plans in the order of names.
    pub(super) fn list(&self) -> Vec<Arc<RoutePlan>> {
        self.plans.values().cloned().collect()
    }

    /// After the file changed to `file`: what was changed by hand stays where the file says of
    /// that route what it said then. Also the lines that say what did not stay.
    pub(super) fn with_file(
        &self,
        file: &FileRoutes,
        overlay_allowed: bool,
    ) -> Result<(Self, Vec<String>), Vec<Problem>> {
        let mut next = Self::default();
        let (mut notes, mut problems) = (Vec::new(), Vec::new());
        for (name, entry) in &self.overlay {
            if overlay_allowed && entry.file.as_ref() == file.get(name) {
                next.overlay.insert(name.clone(), entry.clone());
                next.plans.extend(self.plans.get(name).map(|plan| (name.clone(), plan.clone())));
                continue;
            }
            let why = if overlay_allowed {
                "the file says otherwise now"
            } else {
                "state.overlay is off"
            };
            notes.push(format!("route '{name}': what was changed by hand is dropped: {why}"));
        }
        for (name, route) in file.iter().filter(|(name, _)| !next.overlay.contains_key(*name)) {
            match self.as_in_file(name, route) {
                Ok(plan) => drop(next.plans.insert(name.clone(), plan)),
                Err(reason) => problems.push(Problem::new(format!("route[{name}]"), reason)),
            }
        }
        if problems.is_empty() { Ok((next, notes)) } else { Err(problems) }
    }

    /// With new shares of some arms of one route.
    pub(super) fn with_shares(
        &self,
        file: &FileRoutes,
        name: &ModelName,
        given: &BTreeMap<ArmName, Share>,
    ) -> Result<Self, Rejection> {
        let before = self.plans.get(name).ok_or_else(|| unknown(name))?;
        let refused = |reason| invalid(name, reason);
        let shares = shares::divide(&before.route.arms, given).map_err(refused)?;
        let mut next = self.clone();
        let mut route = before.route.clone();
        if route.arms.iter().zip(&shares).all(|(arm, share)| arm.share == *share) {
            return Ok(next);
        }
        for (arm, share) in route.arms.iter_mut().zip(shares) {
            arm.share = share;
            // Pinned buckets belong to the shares that they were written for.
            arm.buckets = None;
        }
        let plan = RoutePlan::new(route, Some(&before.divided()), Source::Overlay);
        next.put(file, name, Some(Arc::new(plan.map_err(refused)?)));
        Ok(next)
    }

    /// With one route as the file says.
    pub(super) fn without_overlay(
        &self,
        file: &FileRoutes,
        name: &ModelName,
    ) -> Result<Self, Rejection> {
        if !self.overlay.contains_key(name) {
            let is_known = self.plans.contains_key(name);
            return if is_known { Ok(self.clone()) } else { Err(unknown(name)) };
        }
        let plan = file.get(name).map(|route| self.as_in_file(name, route)).transpose();
        let mut next = self.clone();
        next.put(file, name, plan.map_err(|reason| invalid(name, reason))?);
        Ok(next)
    }

    /// Exactly these routes with their ranges, held by hand where they differ from the file.
    pub(super) fn with_plans(&self, file: &FileRoutes, plans: &[Arc<RoutePlan>]) -> Self {
        let wanted: BTreeSet<&ModelName> = plans.iter().map(|plan| &plan.route.name).collect();
        let mut next = self.clone();
        for name in file.keys().chain(self.plans.keys()).filter(|n| !wanted.contains(*n)) {
            next.put(file, name, None);
        }
        for plan in plans {
            // What is the same stays the same in memory too.
            let name = &plan.route.name;
            let same = |old: &&Arc<RoutePlan>| old.route == plan.route && old.ranges == plan.ranges;
            let plan = self.plans.get(name).filter(same).unwrap_or(plan);
            next.put(file, name, Some(plan.clone()));
        }
        next
    }

    /// Puts a plan in the place of another, or takes it away.
    fn put(&mut self, file: &FileRoutes, name: &ModelName, plan: Option<Arc<RoutePlan>>) {
        let in_file = file.get(name);
        let differs = in_file != plan.as_ref().map(|plan| &plan.route);
        if differs {
            self.overlay.insert(name.clone(), OverlayEntry { file: in_file.cloned() });
        } else {
            self.overlay.remove(name);
        }
        let source = if differs { Source::Overlay } else { Source::File };
        match plan {
            Some(plan) => drop(self.plans.insert(name.clone(), sourced(plan, source))),
            None => drop(self.plans.remove(name)),
        }
    }

    /// The plan of a route as the file has it, with as few callers moved as can be.
    fn as_in_file(&self, name: &ModelName, route: &Route) -> Result<Arc<RoutePlan>, String> {
        let before = self.plans.get(name);
        if let Some(plan) = before.filter(|plan| plan.route == *route) {
            return Ok(sourced(plan.clone(), Source::File));
        }
        let divided = before.map(|plan| plan.divided());
        RoutePlan::new(route.clone(), divided.as_deref(), Source::File).map(Arc::new)
    }
}

fn sourced(plan: Arc<RoutePlan>, source: Source) -> Arc<RoutePlan> {
    if plan.source == source {
        return plan;
    }
    Arc::new(RoutePlan { source, ..Arc::unwrap_or_clone(plan) })
}

fn unknown(name: &ModelName) -> Rejection {
    Rejection::new(Kind::NotFound, format!("there is no route '{name}'"))
}

fn invalid(name: &ModelName, reason: String) -> Rejection {
    Rejection::invalid(format!("route '{name}': {reason}"))
}
