//! The tensors and features that the rules of `[prediction_log]` name.

use std::collections::BTreeMap;

use super::{Manifest, ModelFolder};
use crate::config::{Field, PredictionLog, Problem, Redact};
use crate::types::ModelName;

/// What the repository has.
pub type Models = BTreeMap<ModelName, Result<ModelFolder, String>>;

/// Names of tensors and features that no model has: a rule that is misspelt
/// hides nothing of what it was meant for.
/// Nobody knows what a model has whose manifest is broken.
#[must_use]
pub fn unknown_names(log: &PredictionLog, models: &Models) -> Vec<Problem> {
    if models.values().any(Result::is_err) {
        return vec![];
    }
    let of_rules = log.redact.iter().enumerate().filter_map(|(index, rule)| {
        let (key, text) = unknown(rule, models)?;
        Some(Problem::new(format!("prediction_log.redact[{index}].{key}"), text))
    });
    let outputs = |name: &str| {
        manifests(models).any(|of| of.signature.outputs.iter().any(|it| it.spec.name == name))
    };
    let confidence = log.sampling.confidence.as_ref();
    let of_sampling = confidence.filter(|of| !outputs(&of.output)).map(|of| {
        let text = format!("names '{}', which is no output", of.output);
        Problem::new("prediction_log.sampling.confidence_output", text)
    });
    of_rules.chain(of_sampling).collect()
}

/// What of a rule is not there, and the key that names it.
fn unknown(rule: &Redact, models: &Models) -> Option<(&'static str, String)> {
    let only = rule.model.as_deref();
    if let Some(name) = only.filter(|name| !models.keys().any(|known| known.as_str() == *name)) {
        return Some(("model", format!("is '{name}', the repository has no such model")));
    }
    let of = models.iter().filter(|(name, _)| only.is_none_or(|only| name.as_str() == only));
    let mut of = of.filter_map(|(_, model)| Some(&model.as_ref().ok()?.manifest));
    let is_in = |names: &[Vec<String>], name: &str| names.iter().flatten().any(|it| it == name);
    let (side, name, is_known) = match &rule.field {
        Field::Input(name) => {
            let is_known = of.any(|of| {
                let is_tensor = of.signature.inputs.iter().any(|it| it.name == *name);
                is_tensor || is_in(&of.features.inputs, name)
            });
            ("input", name, is_known)
        }
        Field::Output(name) => {
            let is_known = of.any(|of| {
                let is_tensor = of.signature.outputs.iter().any(|it| it.spec.name == *name);
                is_tensor || is_in(&of.features.outputs, name)
            });
            ("output", name, is_known)
        }
        _ => return None,
    };
    let text = || format!("names '{name}', which is no {side} and no feature of one");
    (!is_known).then(|| ("field", text()))
}

fn manifests(models: &Models) -> impl Iterator<Item = &Manifest> {
    models.values().flatten().map(|model| &model.manifest)
}
