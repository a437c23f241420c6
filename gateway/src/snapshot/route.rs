//! A route with what its arms stand for at this moment.

use std::collections::HashMap;
use std::sync::Arc;

use engine::{Tensor, TensorSpec};

use super::ServedModel;
use super::backend::{Backend, Seat, Standard};
use super::shadow::Shadow;
use crate::config::{self, Fallback, StaticOutput, Sticky, Target, VersionChoice};
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;
use crate::routing::{Lot, RoutePlan, Seed, Table};
use crate::telemetry::ArmMetrics;
use crate::types::{ArmName, Call, ModelName, OutputSpec, PredictionId, Share, Signature};
use crate::upstream::Upstreams;

/// The header or metadata that keeps a caller with its arm, whatever the route reads otherwise.
pub const KEY_HEADER: &str = "penstock-key";

/// Most bytes of a declared answer: its size follows from the call's rows, which need not have
/// data behind them.
const LARGEST_ANSWER: usize = 16 << 20;

/// A route in effect.
#[derive(Debug)]
pub struct Route {
    pub plan: Arc<RoutePlan>,
    pub arms: Vec<Arm>,
    pub shadows: Vec<Shadow>,
    pub fallback: StandIn,
    standard: Arc<Standard>,
    seed: Seed,
    table: Table,
}

/// One arm, with what answers its calls.
#[derive(Debug)]
pub struct Arm {
    pub name: ArmName,
    pub seat: Seat,
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

/// A declared answer, in both forms: whether the model batches is known once one of its arms is.
#[derive(Debug)]
pub struct StaticAnswer {
    batched: Form,
    single: Form,
}

/// One form of a declared answer.
#[derive(Debug)]
struct Form {
    signature: Arc<Signature>,
    /// One item of each output.
    items: Vec<Tensor>,
}

/// The arm that a call belongs to.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub route: Arc<Route>,
    pub index: usize,
    pub draw: Draw,
}

/// How a call came to its arm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Draw {
    /// The division of the route says so.
    Divided,
    /// So it does, but the call brought no key to a route that keeps callers by one: the same
    /// caller may meet another arm the next time.
    Keyless,
    /// The caller named the arm.
    Forced,
}

impl Assigned {
    /// The arm that the caller belongs to.
    #[must_use]
    pub fn arm(&self) -> &Arm {
        &self.route.arms[self.index]
    }
}

/// What there is to answer calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct World<'a> {
    pub(super) models: &'a HashMap<ModelName, Arc<ServedModel>>,
    pub(super) upstreams: &'a Upstreams,
}

impl Route {
    /// The route, as the models of this moment let it be. A plan that does not divide all callers
    /// is refused when it is made; here it serves nobody.
    /// What has been counted goes on as in `before`, the same route of the snapshot before.
    pub(super) fn resolve(
        plan: &Arc<RoutePlan>,
        world: World<'_>,
        before: Option<&Self>,
    ) -> Option<Self> {
        let route = &plan.route;
        let table = plan.table().ok()?;
        let seats: Vec<_> = route.arms.iter().map(|arm| seat(&arm.target, world)).collect();
        let known = before.map(|before| &*before.standard);
        let standard = Standard::new(route.arms.iter().map(|arm| &arm.name).zip(&seats), known);
        let arms = route.arms.iter().zip(seats).map(|(arm, seat)| Arm {
            name: arm.name.clone(),
            seat: seat.fitting(&standard),
            metrics: counters(route.name.as_str(), arm.name.as_str(), before),
        });
        let arms: Vec<_> = arms.collect();
        let fallback = match &route.fallback {
            Fallback::Refuse => StandIn::Nobody,
            Fallback::Arm(name) => {
                let index = arms.iter().position(|arm| arm.name == *name);
                index.map_or(StandIn::Nobody, StandIn::Arm)
            }
            Fallback::Static(outputs) => StandIn::Answer(StaticAnswer::new(outputs)?),
        };
        let shadow = |settings: &config::Shadow| {
            let known = before.and_then(|before| before.shadow(settings.name.as_str()));
            let seat = seat(&settings.target, world).fitting(&standard);
            Shadow::new(&route.name, settings, seat, known)
        };
        let shadows = route.shadows.iter().map(shadow).collect();
        Some(Self {
            plan: plan.clone(),
            arms,
            shadows,
            fallback,
            standard,
            seed: plan.seed(),
            table,
        })
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

    /// A shadow by its name.
    #[must_use]
    pub fn shadow(&self, name: &str) -> Option<&Shadow> {
        self.shadows.iter().find(|shadow| shadow.name.as_str() == name)
    }

    /// What takes and gives as the route's arms do: the first of them that is known now.
    #[must_use]
    pub fn known(&self) -> Option<Backend> {
        self.arms.iter().find_map(|arm| arm.seat.backend())
    }

    /// The arm that a call falls to. Without a key it is divided by what its prediction is called,
    /// which nobody chooses.
    pub(super) fn assign(&self, call: &Call, prediction: PredictionId) -> (usize, Draw) {
        let key = self.key(call);
        let bucket = self.seed.bucket(key.unwrap_or_else(|| prediction.as_bytes()));
        let draw = match key.is_none() && self.plan.route.sticky != Sticky::Off {
            true => Draw::Keyless,
            false => Draw::Divided,
        };
        (self.table.arm_of(bucket), draw)
    }

    /// The bucket that a call falls into, whoever answers it.
    #[must_use]
    pub fn bucket(&self, call: &Call, prediction: PredictionId) -> u16 {
        self.seed.bucket(self.key(call).unwrap_or_else(|| prediction.as_bytes()))
    }

    /// Whether anybody may name this arm: it has callers, or is what a label of its name stands
    /// for. Others are the testers' own.
    pub(super) fn is_open(&self, index: usize) -> bool {
        let arm = &self.plan.route.arms[index];
        let is_label = |target: &Target| match target {
            Target::Local { version: VersionChoice::Label(label), .. } => {
                label == arm.name.as_str()
            }
            _ => false,
        };
        arm.share != Share::NONE || is_label(&arm.target)
    }

    /// What keeps the caller of a call with its arm.
    #[must_use]
    pub fn key<'a>(&self, call: &'a Call) -> Option<&'a [u8]> {
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

    /// What decides which shadows see a call; `None` where none does. The key is read and hashed
    /// once, however many shadows there are.
    #[must_use]
    pub fn lot(&self, call: &Call, prediction: PredictionId) -> Option<Lot> {
        let most = self.shadows.iter().map(|shadow| shadow.sample).max()?;
        let key = self.key(call);
        let lot = self.seed.lot(key.unwrap_or_else(|| prediction.as_bytes()));
        lot.is_in(most).then_some(lot)
    }
}

/// The counters of an arm: those that it has already.
fn counters(route: &str, arm: &str, before: Option<&Route>) -> Arc<ArmMetrics> {
    let known = before.and_then(|before| Some(before.arms[before.arm(arm)?].metrics.clone()));
    known.unwrap_or_else(|| Arc::new(ArmMetrics::new(route, arm)))
}

/// What runs the calls of a target, or why nothing does.
pub(super) fn seat(target: &Target, world: World<'_>) -> Seat {
    match target {
        Target::Local { model, version } => match local(model, version, world) {
            Ok(served) => Seat::Local(served),
            Err(reason) => Seat::Empty(reason),
        },
        Target::Upstream { upstream, model, version } => match world.upstreams.get(upstream) {
            Some(upstream) => Seat::remote(upstream.model(model, version.as_deref())),
            None => Seat::Empty(format!("there is no upstream '{upstream}'")),
        },
    }
}

fn local(
    model: &ModelName,
    choice: &VersionChoice,
    world: World<'_>,
) -> Result<Arc<ServedVersion>, String> {
    let served = world.models.get(model);
    let served = served.ok_or_else(|| format!("model '{model}' is not in the repository"))?;
    let (version, what) = match choice {
        VersionChoice::Latest => {
            let newest = served.ready.values().next_back().cloned();
            return newest.ok_or_else(|| format!("model '{model}' has no ready version"));
        }
        VersionChoice::Number(version) => (*version, version.to_string()),
        VersionChoice::Label(label) => {
            let version = served.labels.get(label).copied();
            let missing = || format!("model '{model}' has no label '{label}'");
            (version.ok_or_else(missing)?, format!("'{label}'"))
        }
    };
    let found = served.ready.get(&version).cloned();
    found.ok_or_else(|| format!("version {what} of model '{model}' is not ready"))
}

impl StaticAnswer {
    fn new(outputs: &[StaticOutput]) -> Option<Self> {
        Some(Self { batched: Form::new(outputs, true)?, single: Form::new(outputs, false)? })
    }

    /// The answer for so many items, with its signature. Outputs have a dimension of items before
    /// what is declared where the model `batches`.
    ///
    /// # Errors
    /// `TooLarge` for more items than an answer has room for.
    pub fn outputs(
        &self,
        rows: usize,
        batches: bool,
    ) -> Result<(&Arc<Signature>, Vec<Tensor>), Rejection> {
        if !batches {
            return Ok((&self.single.signature, self.single.items.clone()));
        }
        let Form { signature, items } = &self.batched;
        let too_large = || {
            let text = format!("the declared answer for {rows} items takes more than 16 MiB");
            Rejection::new(Kind::TooLarge, text)
        };
        // What is empty counts too: its shape is written all the same.
        let item: usize = items.iter().map(|item| item.data().len().max(1)).sum();
        if item.checked_mul(rows).is_none_or(|bytes| bytes > LARGEST_ANSWER) {
            return Err(too_large());
        }
        let repeated = |item: &Tensor| {
            let mut shape = item.shape().to_vec();
            shape[0] = rows;
            let data = item.data().repeat(rows).into();
            Tensor::new(item.datatype(), shape, data).map_err(|_| too_large())
        };
        let outputs = items.iter().map(repeated).collect::<Result<_, _>>()?;
        Ok((signature, outputs))
    }
}

impl Form {
    fn new(outputs: &[StaticOutput], batches: bool) -> Option<Self> {
        let (mut specs, mut items) = (Vec::new(), Vec::new());
        for output in outputs {
            let item = output.tensor(usize::from(batches)).ok()?;
            let sizes = item.shape().iter().map(|&size| i64::try_from(size).ok());
            let mut shape = sizes.collect::<Option<Vec<_>>>()?;
            if batches {
                shape[0] = -1;
            }
            let spec = TensorSpec { name: output.name.clone(), datatype: item.datatype(), shape };
            specs.push(OutputSpec { spec, labels: vec![], tolerance: 0.0, finite: false });
            items.push(item);
        }
        let max_batch_size = if batches { usize::MAX } else { 0 };
        let signature = Signature { inputs: vec![], outputs: specs, max_batch_size, splits: false };
        Some(Self { signature: Arc::new(signature), items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declared_answer_has_a_dimension_of_items_where_the_model_batches() {
        let (name, datatype) = ("y".to_owned(), "UINT8".to_owned());
        let output = StaticOutput { name, datatype, shape: vec![2], data: vec![1.0, 2.0] };
        let answer = StaticAnswer::new(&[output]).unwrap();
        let (signature, outputs) = answer.outputs(2, true).unwrap();
        assert_eq!(signature.outputs[0].spec.shape, [-1, 2]);
        assert_eq!((outputs[0].shape(), &outputs[0].data()[..]), (&[2, 2][..], &[1, 2, 1, 2][..]));
        let (signature, outputs) = answer.outputs(1, false).unwrap();
        assert_eq!(signature.outputs[0].spec.shape, [2]);
        assert_eq!((outputs[0].shape(), &outputs[0].data()[..]), (&[2][..], &[1, 2][..]));
        for rows in [LARGEST_ANSWER / 2 + 1, usize::MAX] {
            assert_eq!(answer.outputs(rows, true).unwrap_err().kind(), Kind::TooLarge);
        }
    }
}
