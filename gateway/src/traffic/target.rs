//! What decisions about routes are carried out on.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::{Breaker, Problem};
use crate::control::Pins;
use crate::limits::Limiter;
use crate::predictions;
use crate::routing::RoutePlan;
use crate::upstream::Upstreams;

/// Whoever makes plans true: the models and the snapshot in the gateway, a double in tests.
pub trait Target: Debug + Send + Sync + 'static {
    /// Loads and warms whatever the arms and shadows marked as `incoming` need, and checks that the
    /// arms of a route agree, and that no upstream goes which any of `plans`, all that would be in
    /// force, names. What callers meet does not change.
    ///
    /// The future gives every problem, under the path of its arm
    /// (`route[digits].arm[canary].version`).
    fn prepare<'a>(
        &'a self,
        plans: &'a [Arc<RoutePlan>],
        incoming: &'a [Incoming],
        settings: Option<&'a Settings>,
    ) -> BoxFuture<'a, Result<(), Vec<Problem>>>;

    /// What `prepare` would find wrong beside upstreams of these names, as far as files tell it.
    /// Loads nothing and changes nothing.
    fn look<'a>(
        &'a self,
        incoming: &'a [Incoming],
        upstreams: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Vec<Problem>>;

    /// Versions that `prepare` would have to load, such as `digits/2`.
    fn needs_load(&self, incoming: &[Incoming]) -> Vec<String>;

    /// Makes these plans, of all routes, and the settings, where others are given, what callers
    /// meet, all at once. Cannot fail, and waits for nothing.
    fn commit(&self, revision: u64, plans: &[Arc<RoutePlan>], settings: Option<Settings>);

    /// Replaces what must stay loaded; what is no longer pinned may go.
    fn pin(&self, pins: Pins);
}

/// What else of a configuration file takes effect together with its routes.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limiter: Arc<Limiter>,
    pub breaker: Breaker,
    pub upstreams: Arc<Upstreams>,
    /// What the prediction log takes; `None` where there is none.
    pub log: Option<predictions::Change>,
}

/// A route that is to change, with what it newly needs. Arms whose share shrinks are not marked:
/// an arm that is broken must not be in the way of who takes callers from it.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub plan: Arc<RoutePlan>,
    /// Arms that are new, go elsewhere, or get callers they did not have, by index.
    pub arms: Vec<usize>,
    /// Shadows that are new or go elsewhere, by index.
    pub shadows: Vec<usize>,
}

/// What changes from some plans to others, both in the order of names.
pub(super) fn incoming(before: &[Arc<RoutePlan>], after: &[Arc<RoutePlan>]) -> Vec<Incoming> {
    let known = |plan: &RoutePlan| {
        let found = before.binary_search_by(|old| old.route.name.cmp(&plan.route.name)).ok();
        found.and_then(|index| before.get(index))
    };
    let coming = |plan: &Arc<RoutePlan>| {
        let old = known(plan).map(|old| &old.route);
        if old == Some(&plan.route) {
            return None;
        }
        let needs_arm = |index: &usize| {
            let arm = &plan.route.arms[*index];
            let known = old.and_then(|old| old.arms.iter().find(|o| o.name == arm.name));
            known.is_none_or(|o| o.target != arm.target || o.share < arm.share)
        };
        let needs_shadow = |index: &usize| {
            let shadow = &plan.route.shadows[*index];
            let known = old.and_then(|old| old.shadows.iter().find(|o| o.name == shadow.name));
            known.is_none_or(|o| o.target != shadow.target)
        };
        Some(Incoming {
            plan: plan.clone(),
            arms: (0..plan.route.arms.len()).filter(needs_arm).collect(),
            shadows: (0..plan.route.shadows.len()).filter(needs_shadow).collect(),
        })
    };
    after.iter().filter_map(coming).collect()
}
