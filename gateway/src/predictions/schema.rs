//! The schema of what runs calls, with what the log's rules say of its tensors.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use engine::{Tensor, TensorSpec};
use predlog::segment::{Kind, frame};
use predlog::{Schema, SchemaId};
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use super::notes::Of;
use crate::config::{Field, How, Redact};
use crate::types::Signature;

/// Signatures that are known at a time; beyond that all are looked at anew.
const MOST: usize = 4096;

/// A schema, ready to be written.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) id: SchemaId,
    /// As segments have it.
    pub(super) framed: Vec<u8>,
    /// By input and output of the signature.
    pub(super) rules: [Vec<Plan>; 2],
    /// Keep their addresses from becoming those of others.
    pub(super) inputs: Arc<Signature>,
    pub(super) outputs: Arc<Signature>,
}

/// What becomes of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Plan {
    Keep,
    Whole(How),
    /// Places of single scalars among those of an item, and how many an item has.
    Scalars(Vec<(usize, How)>, usize),
}

/// The schemas under which rows are written, by the addresses of both signatures and the model,
/// whose rules are in them.
#[derive(Debug, Default)]
pub(super) struct Schemas(RwLock<HashMap<[u64; 3], Arc<Known>>>);

impl Schemas {
    /// The schema of what runs a call.
    pub(super) fn of(&self, of: Of<'_>, rules: &[Redact]) -> Arc<Known> {
        // They are held by what is kept under them, so that no others come to be there.
        let address = |signature: &Arc<Signature>| Arc::as_ptr(signature).addr() as u64;
        let key = [address(of.inputs), address(of.outputs), xxh3_64(of.model.as_bytes())];
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.clone();
        }
        let known = Arc::new(Known::new(of, rules));
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        all.entry(key).or_insert(known).clone()
    }
}

impl Known {
    fn new(of: Of<'_>, rules: &[Redact]) -> Self {
        let Of { model, inputs, outputs, names } = of;
        let [of_inputs, of_outputs] = names();
        let schema = Schema {
            model: model.to_owned(),
            inputs: (inputs.inputs.iter().enumerate())
                .map(|(index, spec)| described(spec, inputs, of_inputs.get(index)))
                .collect(),
            outputs: (outputs.outputs.iter().enumerate())
                .map(|(index, output)| described(&output.spec, outputs, of_outputs.get(index)))
                .collect(),
        };
        let named = |field: &Field| match field {
            Field::Input(name) => Some((0, name.clone())),
            Field::Output(name) => Some((1, name.clone())),
            _ => None,
        };
        let rules: Vec<_> = rules
            .iter()
            .filter(|rule| rule.model.as_deref().is_none_or(|only| only == model))
            .filter_map(|rule| named(&rule.field).map(|(side, name)| (side, name, rule.how)))
            .collect();
        let plans = |side: usize, specs: &[predlog::TensorSpec]| {
            let own: Vec<_> = rules.iter().filter(|rule| rule.0 == side).collect();
            let is_known = |name: &str| {
                specs
                    .iter()
                    .any(|spec| spec.name == name || spec.features.iter().any(|own| own == name))
            };
            let all_known = own.iter().all(|rule| is_known(&rule.1));
            let of = |spec: &predlog::TensorSpec| {
                let plan = plan(spec, own.iter().map(|rule| (&*rule.1, rule.2)));
                match plan == Plan::Keep && spec.features.is_empty() && !all_known {
                    // What the rule is about may be among its scalars, which have no names.
                    true => Plan::Whole(How::Drop),
                    false => plan,
                }
            };
            specs.iter().map(of).collect()
        };
        let mut framed = Vec::new();
        frame(Kind::Schema, &mut framed, |out| {
            // A vector takes all that is written to it.
            let _written = schema.encode(out);
        });
        Self {
            id: schema.id(),
            framed,
            rules: [plans(0, &schema.inputs), plans(1, &schema.outputs)],
            inputs: inputs.clone(),
            outputs: outputs.clone(),
        }
    }

    /// Whether any tensor is changed before it is kept.
    pub(super) fn has_rules(&self) -> bool {
        self.rules.iter().flatten().any(|plan| *plan != Plan::Keep)
    }
}

/// A tensor of a signature, in the words of schemas.
fn described(
    spec: &TensorSpec,
    signature: &Signature,
    features: Option<&Vec<String>>,
) -> predlog::TensorSpec {
    let is_batched = signature.max_batch_size > 0;
    predlog::TensorSpec {
        name: spec.name.clone(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.shape.iter().skip(usize::from(is_batched)).copied().collect(),
        is_batched,
        features: features.cloned().unwrap_or_default(),
    }
}

/// What rules say of a tensor. The strictest of several holds: a whole tensor's before those of
/// its features, and the first one given.
fn plan<'a>(
    spec: &predlog::TensorSpec,
    rules: impl Iterator<Item = (&'a str, How)> + Clone,
) -> Plan {
    if let Some((_, how)) = rules.clone().find(|(name, _)| *name == spec.name) {
        return Plan::Whole(how);
    }
    let mut scalars: Vec<(usize, How)> = Vec::new();
    for (name, how) in rules {
        for index in (0..spec.features.len()).filter(|index| spec.features[*index] == name) {
            if !scalars.iter().any(|(known, _)| *known == index) {
                scalars.push((index, how));
            }
        }
    }
    if scalars.is_empty() { Plan::Keep } else { Plan::Scalars(scalars, spec.features.len()) }
}

/// Whether a tensor is what a signature declares, so that a row may hold it: the log's rules know
/// tensors by their names.
pub(super) fn fits(spec: &TensorSpec, tensor: &Tensor) -> bool {
    spec.datatype == tensor.datatype() && spec.fits(tensor.shape())
}
