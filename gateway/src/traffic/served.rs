//! Decisions about routes, carried out on the models and the snapshot of this gateway.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::target::{Incoming, Settings, Target};
use crate::config::{self, Fallback, Problem};
use crate::control::{Control, Missing, Pins};
use crate::routing::RoutePlan;
use crate::snapshot::{Routing, Snapshot};
use crate::types::Signature;

/// What this gateway serves.
#[derive(Debug)]
pub struct Served {
    pub control: Arc<Control>,
}

impl Target for Served {
    fn prepare<'a>(
        &'a self,
        incoming: &'a [Incoming],
        settings: Option<&'a Settings>,
    ) -> BoxFuture<'a, Result<(), Vec<Problem>>> {
        let prepare = async move {
            let mut problems = Vec::new();
            let snapshot = self.control.snapshot();
            let upstreams = settings.map(|settings| settings.upstreams.clone());
            let upstreams = upstreams.unwrap_or_else(|| snapshot.routing().upstreams.clone());
            for coming in incoming {
                problems.extend(dangling(coming, |name| upstreams.get(name).is_some()));
            }
            let missing = self.control.hold(&pins(incoming)).await.err().unwrap_or_default();
            let snapshot = self.control.snapshot();
            for coming in incoming {
                problems.extend(absent(coming, &missing));
                problems.extend(misfits(coming, |target| signature(&snapshot, target)));
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
                problems.extend(misfits(coming, signature));
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
        let (limiter, upstreams) = match settings {
            Some(Settings { limiter, upstreams }) => (Some(limiter), upstreams),
            None => (None, self.control.snapshot().routing().upstreams.clone()),
        };
        let routing = Routing { revision, plans: plans.to_vec(), upstreams };
        self.control.commit_routing(routing, limiter);
    }

    fn pin(&self, pins: Pins) {
        self.control.pin(pins);
    }
}

/// An arm or a shadow that a change needs.
struct Needed<'a> {
    path: String,
    target: &'a config::Target,
}

/// What a change newly needs of a route.
fn needed(coming: &Incoming) -> impl Iterator<Item = Needed<'_>> {
    let route = &coming.plan.route;
    let arms = coming.arms.iter().filter_map(|index| route.arms.get(*index));
    let arms = arms.map(|arm| ("arm", &arm.name, &arm.target));
    let shadows = coming.shadows.iter().filter_map(|index| route.shadows.get(*index));
    let shadows = shadows.map(|shadow| ("shadow", &shadow.name, &shadow.target));
    arms.chain(shadows).map(|(kind, name, target)| Needed {
        path: format!("route[{}].{kind}[{name}]", route.name),
        target,
    })
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
    let gone = |needed: Needed<'_>| match needed.target {
        config::Target::Upstream { upstream, .. } if !is_there(upstream) => {
            let text = format!("there is no upstream \"{upstream}\"");
            Some(Problem::new(format!("{}.upstream", needed.path), text))
        }
        _ => None,
    };
    needed(coming).filter_map(gone).collect()
}

/// Arms whose version does not serve.
fn absent(coming: &Incoming, missing: &[Missing]) -> Vec<Problem> {
    let problem = |needed: Needed<'_>| {
        let mut own = Pins::default();
        own.add_target(0, needed.target);
        let missing = missing.iter().find(|missing| own.names(missing))?;
        let text = format!("{} does not serve: {}", missing.name, missing.reason);
        Some(Problem::new(format!("{}.version", needed.path), text))
    };
    needed(coming).filter_map(problem).collect()
}

/// Arms and shadows that take or give something else than the route's first arm that serves, and
/// a declared answer that is none of its outputs.
fn misfits(
    coming: &Incoming,
    signature: impl Fn(&config::Target) -> Option<Arc<Signature>>,
) -> Vec<Problem> {
    let route = &coming.plan.route;
    let known = route.arms.iter().find_map(|arm| Some((&arm.name, signature(&arm.target)?)));
    let Some((first, expected)) = known else { return vec![] };
    let misfit = |needed: Needed<'_>| {
        let other = signature(needed.target)?;
        let reason = expected.incompatibility(&other)?;
        let text = format!("does not fit arm '{first}': {reason}");
        Some(Problem::new(format!("{}.version", needed.path), text))
    };
    let mut problems: Vec<_> = needed(coming).filter_map(misfit).collect();
    if let Fallback::Static(outputs) = &route.fallback {
        let path = format!("route[{}].static", route.name);
        problems.extend(undeclared(outputs, &expected, &path));
    }
    problems
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
