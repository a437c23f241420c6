//! Decisions about routes, carried out on the models and the snapshot of this gateway.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::target::{Incoming, Settings, Target};
use crate::config::{self, Fallback, Problem};
use crate::control::{Control, Missing, Pins};
use crate::routing::{RoutePlan, Source};
use crate::snapshot::{Routing, Snapshot};
use crate::types::{ArmName, Share, Signature};
use crate::upstream::Upstreams;

/// What this gateway serves.
#[derive(Debug)]
pub struct Served {
    pub control: Arc<Control>,
}

impl Target for Served {
    fn prepare<'a>(
        &'a self,
        plans: &'a [Arc<RoutePlan>],
        incoming: &'a [Incoming],
        settings: Option<&'a Settings>,
    ) -> BoxFuture<'a, Result<(), Vec<Problem>>> {
        let prepare = async move {
            let mut problems = Vec::new();
            let before = self.control.snapshot().routing().upstreams.clone();
            if let Some(settings) = settings {
                problems.extend(taken_away(plans, &settings.upstreams, &before));
            }
            let upstreams = settings.map_or(&before, |settings| &settings.upstreams);
            for coming in incoming {
                problems.extend(dangling(coming, |name| upstreams.get(name).is_some()));
            }
            let mut seen = BTreeSet::new();
            problems.retain(|problem| seen.insert(problem.path.clone()));
            let missing = self.control.hold(&pins(incoming)).await.err().unwrap_or_default();
            let snapshot = self.control.snapshot();
            for coming in incoming {
                problems.extend(absent(coming, &missing));
                problems.extend(misfits(coming, &snapshot, |target| signature(&snapshot, target)));
            }
            if problems.is_empty() { Ok(()) } else { Err(problems) }
        };
        prepare.boxed()
    }

    fn look<'a>(
        &'a self,
        incoming: &'a [Incoming],
        upstreams: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Vec<Problem>> {
        let look = async move {
            let (folders, missing) = self.control.inspect(&all_pins(incoming)).await;
            let snapshot = self.control.snapshot();
            let signature = |target: &config::Target| {
                signature(&snapshot, target).or(folders.signature(target))
            };
            let mut problems = Vec::new();
            for coming in incoming {
                problems.extend(dangling(coming, |name| upstreams.contains(name)));
                problems.extend(absent(coming, &missing));
                problems.extend(misfits(coming, &snapshot, signature));
            }
            problems
        };
        look.boxed()
    }

    fn needs_load(&self, incoming: &[Incoming]) -> Vec<String> {
        let missing = self.control.missing(&pins(incoming));
        missing.into_iter().map(|missing| missing.name).collect()
    }

    fn commit(&self, revision: u64, plans: &[Arc<RoutePlan>], settings: Option<Settings>) {
        let plans = plans.to_vec();
        match settings {
            Some(Settings { limiter, breaker, upstreams, log }) => {
                // No call of a new route meets old rules of redaction.
                if let Some(log) = log {
                    log.apply();
                }
                let routing = Routing { revision, plans, upstreams };
                self.control.commit_file(routing, limiter, breaker);
            }
            None => {
                let upstreams = self.control.snapshot().routing().upstreams.clone();
                self.control.commit_routing(Routing { revision, plans, upstreams }, None);
            }
        }
    }

    fn pin(&self, pins: Pins) {
        self.control.pin(pins);
    }
}

/// An arm or a shadow of a route.
struct Place<'a> {
    /// `arm` or `shadow`.
    kind: &'static str,
    name: &'a ArmName,
    path: String,
    target: &'a config::Target,
    /// Of an arm.
    share: Option<Share>,
    is_needed: bool,
}

/// The arms and shadows of a route; whether one is needed goes by its index.
fn places<'a>(
    route: &'a config::Route,
    is_needed: impl Fn(&'static str, usize) -> bool,
) -> Vec<Place<'a>> {
    let arms = route.arms.iter().map(|arm| (&arm.name, &arm.target, Some(arm.share)));
    let arms = arms.enumerate().map(|(index, arm)| ("arm", index, arm));
    let shadows = route.shadows.iter().map(|shadow| (&shadow.name, &shadow.target, None));
    let shadows = shadows.enumerate().map(|(index, shadow)| ("shadow", index, shadow));
    let place = |(kind, index, (name, target, share))| {
        let path = format!("route[{}].{kind}[{name}]", route.name);
        Place { kind, name, path, target, share, is_needed: is_needed(kind, index) }
    };
    arms.chain(shadows).map(place).collect()
}

/// The arms and shadows of a route that changes.
fn places_of(coming: &Incoming) -> Vec<Place<'_>> {
    places(&coming.plan.route, |kind, index| match kind {
        "arm" => coming.arms.contains(&index),
        _ => coming.shadows.contains(&index),
    })
}

/// What a change newly needs of a route.
fn needed(coming: &Incoming) -> impl Iterator<Item = Place<'_>> {
    places_of(coming).into_iter().filter(|place| place.is_needed)
}

fn pins(incoming: &[Incoming]) -> Pins {
    let mut pins = Pins::default();
    for needed in incoming.iter().flat_map(needed) {
        // Nothing is current yet that names it: no revision.
        pins.add_target(0, needed.target);
    }
    pins
}

/// All that the changed routes name, what does not change in them too.
fn all_pins(incoming: &[Incoming]) -> Pins {
    let mut pins = Pins::default();
    incoming.iter().for_each(|coming| pins.add(0, &coming.plan));
    pins
}

/// What answers there, as far as it serves.
fn signature(snapshot: &Snapshot, target: &config::Target) -> Option<Arc<Signature>> {
    Some(snapshot.seat(target).backend()?.signature().clone())
}

/// Arms that go to upstreams that are not there: a rollback may name one that has gone.
fn dangling(coming: &Incoming, is_there: impl Fn(&str) -> bool) -> Vec<Problem> {
    let gone = |needed: Place<'_>| match needed.target {
        config::Target::Upstream { upstream, .. } if !is_there(upstream) => {
            let text = format!("there is no upstream \"{upstream}\"");
            Some(Problem::new(format!("{}.upstream", needed.path), text))
        }
        _ => None,
    };
    needed(coming).filter_map(gone).collect()
}

/// Arms and shadows whose upstream would go; such as the file says are found when it is read.
/// What is gone already is not in the way of other changes.
fn taken_away(plans: &[Arc<RoutePlan>], after: &Upstreams, before: &Upstreams) -> Vec<Problem> {
    let mut problems = Vec::new();
    for plan in plans {
        for place in places(&plan.route, |_, _| false) {
            let is_taken = |name: &&str| after.get(name).is_none() && before.get(name).is_some();
            let Some(upstream) = upstream(place.target).filter(is_taken) else { continue };
            let mut text = format!("there is no upstream \"{upstream}\" any more");
            if plan.source == Source::Overlay {
                text += ", and the route was changed by hand: give it back to the file first";
            }
            problems.push(Problem::new(format!("{}.upstream", place.path), text));
        }
    }
    problems
}

fn upstream(target: &config::Target) -> Option<&str> {
    match target {
        config::Target::Upstream { upstream, .. } => Some(upstream),
        config::Target::Local { .. } => None,
    }
}

/// Arms whose version does not serve.
fn absent(coming: &Incoming, missing: &[Missing]) -> Vec<Problem> {
    let problem = |needed: Place<'_>| {
        let mut own = Pins::default();
        own.add_target(0, needed.target);
        let missing = missing.iter().find(|missing| own.names(missing))?;
        let text = format!("{} does not serve: {}", missing.name, missing.reason);
        Some(Problem::new(format!("{}.version", needed.path), text))
    };
    needed(coming).filter_map(problem).collect()
}

/// What the change needs and takes or gives something else than another arm of the route, and a
/// declared answer that is none of its outputs. Two that both stay as they are may differ.
fn misfits(
    coming: &Incoming,
    snapshot: &Snapshot,
    signature: impl Fn(&config::Target) -> Option<Arc<Signature>>,
) -> Vec<Problem> {
    let route = &coming.plan.route;
    let mut known: Vec<(Arc<Signature>, Place<'_>)> = Vec::new();
    for place in places_of(coming) {
        known.extend(signature(place.target).map(|signature| (signature, place)));
    }
    let mut problems = Vec::new();
    for (index, (own, place)) in known.iter().enumerate().filter(|(_, (_, p))| p.is_needed) {
        let misfit = |(at, (other, beside)): (usize, &(Arc<Signature>, Place<'_>))| {
            // Of two that are both needed, the later one is told.
            let is_told_there = beside.is_needed && at >= index;
            // Shadows need not be like each other, only like the arms.
            let is_apart = place.kind == "shadow" && beside.kind == "shadow";
            if is_told_there || is_apart || may_differ(route, (place, beside), snapshot) {
                return None;
            }
            let reason = other.incompatibility(own)?;
            Some(format!("does not fit {} '{}': {reason}", beside.kind, beside.name))
        };
        let text = known.iter().enumerate().find_map(misfit);
        let path = || format!("{}.version", place.path);
        problems.extend(text.map(|text| Problem::new(path(), text)));
    }
    let first = known.iter().find(|(_, place)| place.kind == "arm");
    if let (Fallback::Static(outputs), Some((first, _))) = (&route.fallback, first) {
        let path = format!("route[{}].static", route.name);
        problems.extend(undeclared(outputs, first, &path));
    }
    problems
}

/// Whether an arm only gets callers that are taken from the other, all of them: whatever is wrong
/// with an arm, its callers may leave it.
fn may_differ(
    route: &config::Route,
    (place, beside): (&Place<'_>, &Place<'_>),
    snapshot: &Snapshot,
) -> bool {
    let before = snapshot.route(route.name.as_str()).map(|before| &before.plan.route);
    let was = before.and_then(|before| before.arms.iter().find(|arm| arm.name == *place.name));
    let only_grew = place.kind == "arm" && was.is_some_and(|was| was.target == *place.target);
    only_grew && !beside.is_needed && beside.share == Some(Share::NONE)
}

/// Declared outputs that the model does not have, or has with another type.
fn undeclared(outputs: &[config::StaticOutput], signature: &Signature, path: &str) -> Vec<Problem> {
    let wrong = |output: &config::StaticOutput| {
        let known = signature.outputs.iter().find(|known| known.spec.name == output.name);
        let text = match known {
            None => format!("the arms have no output '{}'", output.name),
            Some(known) if known.spec.datatype.name() != output.datatype => {
                format!("output '{}' is {} of the arms", output.name, known.spec.datatype)
            }
            Some(_) => return None,
        };
        Some(Problem::new(path, text))
    };
    outputs.iter().filter_map(wrong).collect()
}
