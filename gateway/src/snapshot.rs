//! The one immutable picture of what is served. A request loads it once; only `control` stores
//! a new one, by one pointer swap that cannot fail.

mod backend;
mod named;
mod route;
mod shadow;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::error;

use crate::config::Target;
use crate::error::{Kind, Rejection};
use crate::limits::Limiter;
use crate::models::ServedVersion;
use crate::routing::RoutePlan;
use crate::types::{ARM_HEADER, Call, ModelName, PredictionId, Role, Version, is_named};
use crate::upstream::Upstreams;

pub use backend::{Backend, Remote, RemoteSeat, Seat};
pub use named::{Described, Named};
use route::World;

pub use route::{Arm, Assigned, Draw, KEY_HEADER, Route, StandIn, StaticAnswer};
pub use shadow::{Shadow, Watch};

/// Every model that callers can reach, or could if it were ready.
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: u64,
    /// The limits of callers. A call takes them once, at its head.
    pub limiter: Arc<Limiter>,
    models: HashMap<ModelName, Arc<ServedModel>>,
    routes: HashMap<ModelName, Arc<Route>>,
    routing: Arc<Routing>,
}

/// The routes in effect, whatever models there are.
#[derive(Debug, Default)]
pub struct Routing {
    /// Number of the revision that they make up.
    pub revision: u64,
    pub plans: Vec<Arc<RoutePlan>>,
    pub upstreams: Arc<Upstreams>,
}

/// Where a call goes.
#[derive(Debug)]
pub enum Destination {
    /// A version that the call names, or the highest of a model without a route.
    Direct(Arc<ServedVersion>),
    /// An arm of a route.
    Assigned(Assigned),
}

/// The versions of one model.
#[derive(Debug, Default)]
pub struct ServedModel {
    pub ready: BTreeMap<Version, Arc<ServedVersion>>,
    /// Versions that should serve but do not.
    pub unready: BTreeMap<Version, Unready>,
    /// Names for versions, as the manifest in the folder says; it may have changed since the
    /// versions were loaded.
    pub labels: BTreeMap<String, Version>,
}

/// Why a version does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unready {
    Loading,
    Failed(String),
}

impl Destination {
    /// What runs the call first; `None` for an arm that is not ready.
    #[must_use]
    pub fn backend(&self) -> Option<Backend> {
        match self {
            Self::Direct(served) => Some(Backend::Local(served.clone())),
            Self::Assigned(assigned) => assigned.arm().seat.backend(),
        }
    }
}

impl Snapshot {
    /// The version of a model, past any route of its name: the numbered or labelled one, or the
    /// highest ready one.
    ///
    /// # Errors
    /// `NotFound` for what is not there, `NotReady` for what should be but is not.
    pub fn find(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<&Arc<ServedVersion>, Rejection> {
        let Some(served) = self.models.get(model) else {
            return Err(ModelName::unknown(model));
        };
        let Some(text) = version.filter(|text| !text.is_empty()) else {
            return served.ready.values().next_back().ok_or_else(|| {
                Rejection::new(Kind::NotReady, format!("model '{model}' has no ready version"))
            });
        };
        let version = match served.labels.get(text) {
            Some(version) => *version,
            None => text.parse()?,
        };
        if let Some(served) = served.ready.get(&version) {
            return Ok(served);
        }
        Err(match served.unready.get(&version) {
            // The reason of a failed load is for operators: it may name files.
            Some(Unready::Loading) => Rejection::new(
                Kind::NotReady,
                format!("version {version} of model '{model}' is loading"),
            ),
            Some(Unready::Failed(_)) => Rejection::new(
                Kind::NotReady,
                format!("version {version} of model '{model}' failed to load"),
            ),
            None => Rejection::new(
                Kind::NotFound,
                format!("version {version} of model '{model}' is not found"),
            ),
        })
    }

    /// Where a call goes: to the route of its name, unless it names a version by its number; a
    /// name of a version is that of an arm, or a label of the model.
    ///
    /// # Errors
    /// As [`Snapshot::find`]; `PermissionDenied` or `InvalidInput` when the caller names an arm
    /// that it may not name or that is not there, or two.
    pub fn resolve(&self, call: &Call, prediction: PredictionId) -> Result<Destination, Rejection> {
        let version = call.version.as_deref().filter(|text| !text.is_empty());
        let forced = call.headers.get(ARM_HEADER);
        let route = match self.routes.get(call.model.as_str()) {
            Some(route) if version.is_none_or(|text| text.parse::<Version>().is_err()) => route,
            _ if forced.is_some() => {
                let text = format!("{ARM_HEADER}: the call names no route");
                return Err(Rejection::invalid(text));
            }
            _ => return self.find(&call.model, version).cloned().map(Destination::Direct),
        };
        let (index, draw) = match (version, forced) {
            (None, None) => route.assign(call, prediction),
            (Some(name), Some(arm)) if arm.as_bytes() != name.as_bytes() => {
                let text = format!("{ARM_HEADER}: the call names another version");
                return Err(Rejection::invalid(text));
            }
            (Some(name), None) => match route.arm(name) {
                Some(index) if route.is_open(index) => (index, Draw::Forced),
                Some(_) => (forced_arm(route, call, ("version", name.as_bytes()))?, Draw::Forced),
                None => return self.find(&call.model, version).cloned().map(Destination::Direct),
            },
            (_, Some(arm)) => {
                (forced_arm(route, call, (ARM_HEADER, arm.as_bytes()))?, Draw::Forced)
            }
        };
        Ok(Destination::Assigned(Assigned { route: route.clone(), index, draw }))
    }

    /// What a target stands for.
    #[must_use]
    pub fn seat(&self, target: &Target) -> Seat {
        let world = World { models: &self.models, upstreams: &self.routing.upstreams };
        route::seat(target, world)
    }

    /// Brings the gauges of shadows and upstreams up to date; called before they are rendered.
    pub fn publish_routes(&self) {
        let shadows = self.routes.values().flat_map(|route| &route.shadows);
        shadows.for_each(|shadow| shadow.watch.publish());
        self.routing.upstreams.publish();
    }

    /// One route, if it is known.
    #[must_use]
    pub fn route(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }

    /// The routes in effect, as they were decided.
    #[must_use]
    pub fn routing(&self) -> &Arc<Routing> {
        &self.routing
    }

    /// One model, if it is known.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Arc<ServedModel>> {
        self.models.get(name)
    }

    /// Every known model, in the order of names.
    #[must_use]
    pub fn models(&self) -> Vec<(&ModelName, &Arc<ServedModel>)> {
        let mut models: Vec<_> = self.models.iter().collect();
        models.sort_unstable_by_key(|(name, _)| *name);
        models
    }

    /// Every ready version of every model.
    pub fn ready(&self) -> impl Iterator<Item = &Arc<ServedVersion>> {
        self.models().into_iter().flat_map(|(_, model)| model.ready.values())
    }
}

/// The arm that a tester names; `place` is where.
fn forced_arm(
    route: &Route,
    call: &Call,
    (place, name): (&str, &[u8]),
) -> Result<usize, Rejection> {
    let identity = &call.caller.identity;
    let testers = &route.plan.route.testers;
    let may = identity.roles.contains(Role::Operate)
        || testers.iter().any(|pattern| is_named(pattern, &identity.name));
    if !may {
        let text = format!("{place}: only testers of the route may name this arm");
        return Err(Rejection::new(Kind::PermissionDenied, text));
    }
    let found = std::str::from_utf8(name).ok().and_then(|name| route.arm(name));
    found.ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(name).chars().take(64).collect();
        let text = format!("{place}: route '{}' has no arm '{shown}'", route.name());
        Rejection::invalid(text)
    })
}

/// Holds the current snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotCell {
    current: Arc<ArcSwap<Snapshot>>,
    revision: watch::Sender<u64>,
}

impl SnapshotCell {
    #[must_use]
    pub fn new() -> Self {
        Self { current: Arc::default(), revision: watch::Sender::new(0) }
    }

    /// The snapshot of this moment; a request calls this once.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The limits of this moment; a call takes them once, at its head, and meets no others.
    #[must_use]
    pub fn limiter(&self) -> Arc<Limiter> {
        self.current.load().limiter.clone()
    }

    /// Replaces the versions of one model; `None` forgets it. Callers hold the one commit lock
    /// of `control`, so no commit is lost between reading and storing.
    pub fn commit(&self, name: &ModelName, model: Option<ServedModel>) {
        let before = self.load();
        let mut models = before.models.clone();
        match model {
            Some(model) => models.insert(name.clone(), Arc::new(model)),
            None => models.remove(name),
        };
        let mut routes = before.routes.clone();
        let world = World { models: &models, upstreams: &before.routing.upstreams };
        for plan in before.routing.plans.iter().filter(|plan| plan.names_model(name)) {
            resolve_into(&mut routes, plan, world, &before);
        }
        let (limiter, routing) = (before.limiter.clone(), before.routing.clone());
        self.store(Snapshot { revision: 0, limiter, models, routes, routing });
    }

    /// Replaces the routes and, where others are given, the limits of callers; the models stay.
    /// Callers hold the commit lock, as for [`Self::commit`].
    pub fn commit_routing(&self, routing: Routing, limiter: Option<Arc<Limiter>>) {
        let before = self.load();
        let models = before.models.clone();
        let mut routes = HashMap::with_capacity(routing.plans.len());
        let world = World { models: &models, upstreams: &routing.upstreams };
        let same_upstreams = Arc::ptr_eq(&routing.upstreams, &before.routing.upstreams);
        for plan in &routing.plans {
            let old = before.routes.get(&plan.route.name).filter(|_| same_upstreams);
            match old.filter(|old| old.plan == *plan) {
                Some(same) => drop(routes.insert(plan.route.name.clone(), same.clone())),
                None => resolve_into(&mut routes, plan, world, &before),
            }
        }
        let limiter = limiter.unwrap_or_else(|| before.limiter.clone());
        let routing = Arc::new(routing);
        self.store(Snapshot { revision: 0, limiter, models, routes, routing });
    }

    /// The one place where a snapshot becomes the current one.
    fn store(&self, next: Snapshot) {
        let revision = self.load().revision + 1;
        self.current.store(Arc::new(Snapshot { revision, ..next }));
        self.revision.send_replace(revision);
    }

    /// Tells when the snapshot changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

fn resolve_into(
    routes: &mut HashMap<ModelName, Arc<Route>>,
    plan: &Arc<RoutePlan>,
    world: World<'_>,
    before: &Snapshot,
) {
    match Route::resolve(plan, world, before.route(plan.route.name.as_str()).map(|route| &**route))
    {
        Some(route) => drop(routes.insert(plan.route.name.clone(), Arc::new(route))),
        None => error!(route = %plan.route.name, "the route cannot be served"),
    }
}

impl Default for SnapshotCell {
    fn default() -> Self {
        Self::new()
    }
}
