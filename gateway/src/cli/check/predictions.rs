//! What of `[prediction_log]` only its surroundings show: the folder, the key, and the tensors
//! that its rules name.

use std::collections::HashSet;

use super::routes::Models;
use super::unusable;
use crate::config::{Field, PredictionLog, Problem};
use crate::predictions::Settings;

/// What keeps a gateway from using its folder, and its key of hashes.
pub(super) fn check(log: &PredictionLog) -> Vec<Problem> {
    let parts = ["segments", "files", "feedback"].map(|part| log.path.join(part));
    let folder = std::iter::once(&log.path)
        .chain(&parts)
        .find_map(|path| unusable(path))
        .map(|text| Problem::new("prediction_log.path", text));
    folder.into_iter().chain(Settings::new(log).err()).collect()
}

/// Names of tensors and features that no model has: a rule that is misspelt redacts nothing.
/// Nobody knows what a model has whose manifest is broken.
pub(super) fn check_fields(log: &PredictionLog, models: &Models) -> Vec<Problem> {
    if models.values().any(Result::is_err) {
        return vec![];
    }
    let manifests = || models.values().flatten().map(|model| &model.manifest);
    let of_inputs = manifests().flat_map(|of| of.signature.inputs.iter().map(|spec| &*spec.name));
    let of_outputs =
        manifests().flat_map(|of| of.signature.outputs.iter().map(|output| &*output.spec.name));
    let tensors: HashSet<&str> = of_outputs.collect();
    let (mut inputs, mut outputs): (HashSet<&str>, _) = (of_inputs.collect(), tensors.clone());
    for manifest in manifests() {
        inputs.extend(manifest.features.inputs.iter().flatten().map(String::as_str));
        outputs.extend(manifest.features.outputs.iter().flatten().map(String::as_str));
    }
    let of_rules = log.redact.iter().enumerate().filter_map(|(index, rule)| {
        let (side, name, known) = match &rule.field {
            Field::Input(name) => ("input", name, &inputs),
            Field::Output(name) => ("output", name, &outputs),
            _ => return None,
        };
        (!known.contains(&**name)).then(|| {
            let text = format!("names '{name}', which is no {side} and no feature of one");
            Problem::new(format!("prediction_log.redact[{index}].field"), text)
        })
    });
    let confidence = log.sampling.confidence.as_ref();
    let of_sampling = confidence.filter(|of| !tensors.contains(&*of.output)).map(|of| {
        let text = format!("names '{}', which is no output", of.output);
        Problem::new("prediction_log.sampling.confidence_output", text)
    });
    of_rules.chain(of_sampling).collect()
}
