//! A route with what its arms stand for at this moment.

use std::collections::HashMap;
use std::sync::Arc;

use engine::{DataType, Tensor, TensorSpec};

use super::ServedModel;
use super::backend::Backend;
use crate::config::{Fallback, StaticOutput, Sticky, Target, VersionChoice};
use crate::routing::{RoutePlan, Seed, Table};
use crate::telemetry::ArmMetrics;
use crate::types::{ArmName, Call, ModelName, OutputSpec, PredictionId, Share, Signature, Version};

/// The header or metadata that keeps a caller with its arm, whatever the route reads otherwise.
pub const KEY_HEADER: &str = "penstock-key";

/// A route in effect.
#[derive(Debug)]
pub struct Route {
    pub plan: Arc<RoutePlan>,
    pub arms: Vec<Arm>,
    pub fallback: StandIn,
    seed: Seed,
    table: Table,
}

/// One arm, with what answers its calls.
#[derive(Debug)]
pub struct Arm {
    pub name: ArmName,
    /// What runs its calls, or why nothing does.
    pub backend: Result<Backend, String>,
    pub metrics: Arc<ArmMetrics>,
}

/// What answers instead of a broken arm.
#[derive(Debug)]
pub enum StandIn {
    Nobody,
    /// Index of an arm.
    Arm(usize),
    Answer(StaticAnswer),
}

/// A declared answer.
#[derive(Debug)]
pub struct StaticAnswer {
    pub signature: Arc<Signature>,
    /// Bytes of one item of each output.
    items: Vec<Vec<u8>>,
}

/// The arm that a call belongs to.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub route: Arc<Route>,
    pub index: usize,
    pub bucket: u16,
    /// Whether the caller would meet the same arm again.
    pub is_sticky: bool,
    /// The caller named the arm.
    pub is_forced: bool,
}

impl Assigned {
    /// The arm that the caller belongs to.
    #[must_use]
    pub fn arm(&self) -> &Arm {
        &self.route.arms[self.index]
    }
}

/// What local models there are.
pub(super) type Models = HashMap<ModelName, Arc<ServedModel>>;

impl Route {
    /// The route, as the models of this moment let it be. A plan that does not divide all callers
    /// is refused when it is made; here it serves nobody.
    /// What has been counted goes on as in `before`, the same route of the snapshot before.
    pub(super) fn resolve(
        plan: &Arc<RoutePlan>,
        models: &Models,
        before: Option<&Self>,
    ) -> Option<Self> {
        let route = &plan.route;
        let table = plan.table().ok()?;
        let arms: Vec<_> = route
            .arms
            .iter()
            .map(|arm| Arm {
                name: arm.name.clone(),
                backend: backend(&arm.target, models),
                metrics: counters(route.name.as_str(), arm.name.as_str(), before),
            })
            .collect();
        let fallback = match &route.fallback {
            Fallback::Refuse => StandIn::Nobody,
            Fallback::Arm(name) => {
                let index = arms.iter().position(|arm| arm.name == *name);
                index.map_or(StandIn::Nobody, StandIn::Arm)
            }
            Fallback::Static(outputs) => StandIn::Answer(StaticAnswer::new(outputs)?),
        };
        Some(Self { plan: plan.clone(), arms, fallback, seed: plan.seed(), table })
    }

    #[must_use]
    pub fn name(&self) -> &ModelName {
        &self.plan.route.name
    }

    /// Index of an arm by its name.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<usize> {
        self.arms.iter().position(|arm| arm.name.as_str() == name)
    }

    /// Bucket and arm of a call, and whether its caller would meet them again. A call without a
    /// key is divided by what its prediction is called, which nobody chooses.
    pub(super) fn assign(&self, call: &Call, prediction: PredictionId) -> (u16, usize, bool) {
        let key = self.key(call);
        let bucket = self.seed.bucket(key.unwrap_or_else(|| prediction.as_bytes()));
        (bucket, self.table.arm_of(bucket), key.is_some())
    }

    /// What keeps the caller of a call with its arm.
    fn key<'a>(&self, call: &'a Call) -> Option<&'a [u8]> {
        if let Some(key) = call.headers.get(KEY_HEADER) {
            return Some(key.as_bytes());
        }
        match &self.plan.route.sticky {
            Sticky::Off => None,
            Sticky::Header(name) => call.headers.get(name).map(|value| value.as_bytes()),
            Sticky::Parameter(name) => call.parameter(name).map(str::as_bytes),
            // Everybody unknown would share one key.
            Sticky::Identity => call.caller.identity.known_name().map(str::as_bytes),
        }
    }

    /// Whether a call is one of those that the shadow of this share sees: the same for all shadows
    /// of the route.
    #[must_use]
    pub fn is_sampled(&self, call: &Call, prediction: PredictionId, share: Share) -> bool {
        let key = self.key(call);
        self.seed.is_sampled(key.unwrap_or_else(|| prediction.as_bytes()), share)
    }
}

/// The counters of an arm: those that it has already.
fn counters(route: &str, arm: &str, before: Option<&Route>) -> Arc<ArmMetrics> {
    let known = before.and_then(|before| Some(before.arms[before.arm(arm)?].metrics.clone()));
    known.unwrap_or_else(|| Arc::new(ArmMetrics::new(route, arm)))
}

/// What runs the calls of a target, or why nothing does.
fn backend(target: &Target, models: &Models) -> Result<Backend, String> {
    match target {
        Target::Local { model, version } => local(model, version, models),
        Target::Upstream { upstream, .. } => Err(format!("upstream '{upstream}' is not known")),
    }
}

fn local(model: &ModelName, choice: &VersionChoice, models: &Models) -> Result<Backend, String> {
    let served =
        models.get(model).ok_or_else(|| format!("model '{model}' is not in the repository"))?;
    let found = match choice {
        VersionChoice::Latest => served.ready.values().next_back(),
        VersionChoice::Number(version) => served.ready.get(version),
        VersionChoice::Label(label) => {
            let version = served.labelled(label);
            let version =
                version.ok_or_else(|| format!("model '{model}' has no label '{label}'"))?;
            served.ready.get(&version)
        }
    };
    let missing = || match choice {
        VersionChoice::Latest => format!("model '{model}' has no ready version"),
        VersionChoice::Number(version) => {
            format!("version {version} of model '{model}' is not ready")
        }
        VersionChoice::Label(label) => format!("version '{label}' of model '{model}' is not ready"),
    };
    found.map(|served| Backend::Local(served.clone())).ok_or_else(missing)
}

impl StaticAnswer {
    fn new(outputs: &[StaticOutput]) -> Option<Self> {
        let (mut specs, mut items) = (Vec::new(), Vec::new());
        for output in outputs {
            let datatype: DataType = output.datatype.parse().ok()?;
            let sizes = output.shape.iter().map(|&size| i64::try_from(size).ok());
            let shape = std::iter::once(Some(-1)).chain(sizes).collect::<Option<Vec<_>>>()?;
            let spec = TensorSpec { name: output.name.clone(), datatype, shape };
            specs.push(OutputSpec { spec, labels: vec![], tolerance: 0.0, finite: false });
            items.push(crate::codec::numbers::from_f64(datatype, &output.data)?);
        }
        let signature = Signature {
            inputs: vec![],
            outputs: specs,
            // Batches, of whatever size.
            max_batch_size: usize::MAX,
            splits: false,
        };
        Some(Self { signature: Arc::new(signature), items })
    }

    /// The answer for so many items.
    #[must_use]
    pub fn outputs(&self, rows: usize) -> Option<Vec<Tensor>> {
        let tensor = |(output, item): (&OutputSpec, &Vec<u8>)| {
            let sizes = output.spec.shape[1..].iter().map(|&size| usize::try_from(size).ok());
            let shape = std::iter::once(Some(rows)).chain(sizes).collect::<Option<Vec<_>>>()?;
            Tensor::new(output.spec.datatype, shape, item.repeat(rows).into()).ok()
        };
        self.signature.outputs.iter().zip(&self.items).map(tensor).collect()
    }
}

impl ServedModel {
    /// The version that a label of the model stands for.
    #[must_use]
    pub fn labelled(&self, _label: &str) -> Option<Version> {
        None
    }
}
