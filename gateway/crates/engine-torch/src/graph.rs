//! Which form of the graph runs: as exported, frozen, or rewritten for inference.
//!
//! No other form is trusted unseen: it has to give the plain graph's answers on the samples, and
//! under `auto` it has to be faster on them too.

use std::time::Duration;

use engine::error::Fault;
use engine::{Batch, EngineError, Graph, ModelSource, Tensor};

use crate::clock::Stopwatch;
use crate::compare::difference;
use crate::ffi::{Cause, Module};
use crate::run::{RunError, run};

/// How long two forms race, and how many rounds at most.
const RACE: Duration = Duration::from_millis(300);
const ROUNDS: usize = 20;

/// A sample and the plain graph's answer to it.
struct Reference<'a> {
    batch: &'a Batch,
    outputs: Vec<Tensor>,
}

/// Picks the form that will run, and says why in notes.
pub(crate) fn choose(
    plain: Module,
    source: &ModelSource<'_>,
) -> Result<(Module, Vec<String>), EngineError> {
    let (references, mut notes) = answers(&plain, source)?;
    let (module, note) = match source.graph {
        Graph::Plain => (plain, "graph: plain".to_owned()),
        Graph::Auto => fastest(plain, source, &references),
        form @ (Graph::Frozen | Graph::Optimized) => forced(plain, form, source, &references),
    };
    notes.insert(0, note);
    Ok((module, notes))
}

/// Runs the samples on the plain graph. What contradicts the signature fails the load; a sample
/// that the model itself refuses proves nothing, since samples are made up, and is left out.
fn answers<'a>(
    plain: &Module,
    source: &ModelSource<'a>,
) -> Result<(Vec<Reference<'a>>, Vec<String>), EngineError> {
    let mut references = Vec::with_capacity(source.samples.len());
    let mut notes = Vec::new();
    for (index, batch) in source.samples.iter().enumerate() {
        match run(plain, source.inputs.len(), source.outputs, batch) {
            Ok(run) => references.push(Reference { batch, outputs: run.outputs }),
            Err(RunError::Signature(text) | RunError::Input(text)) => {
                return Err(EngineError::new(Fault::Load, text));
            }
            Err(RunError::Native(failure)) => {
                if matches!(failure.cause, Cause::Memory | Cause::Device) {
                    return Err(RunError::Native(failure).into());
                }
                notes.push(format!("sample {}: the model fails on it, left out", index + 1));
                let model = source.label;
                tracing::debug!(model, detail = failure.text, "the model fails on a sample");
            }
        }
    }
    Ok((references, notes))
}

/// The first other form that proves itself, unless plain is as fast.
fn fastest(
    plain: Module,
    source: &ModelSource<'_>,
    references: &[Reference<'_>],
) -> (Module, String) {
    if references.is_empty() {
        return (plain, "graph: plain (no sample to verify another form on)".to_owned());
    }
    let mut failures = Vec::new();
    for form in [Graph::Optimized, Graph::Frozen] {
        match candidate(&plain, form, source, references) {
            Err(reason) => failures.push(format!("{} failed: {reason}", form.name())),
            Ok(module) => {
                let speed = race(&plain, &module, source, references);
                let because = if failures.is_empty() {
                    String::new()
                } else {
                    format!("; {}", failures.join("; "))
                };
                let (module, form, other) = if speed > 1.0 {
                    (module, form.name(), format!("{speed:.2} times as fast as plain"))
                } else {
                    (plain, "plain", format!("{} is {speed:.2} times as fast", form.name()))
                };
                return (module, format!("graph: {form} ({other}{because})"));
            }
        }
    }
    (plain, format!("graph: plain ({})", failures.join("; ")))
}

/// The form that `model.toml` names, or plain where that form does not prove itself.
fn forced(
    plain: Module,
    form: Graph,
    source: &ModelSource<'_>,
    references: &[Reference<'_>],
) -> (Module, String) {
    let name = form.name();
    match candidate(&plain, form, source, references) {
        Err(reason) => (plain, format!("graph: plain ({name} failed: {reason})")),
        Ok(module) if references.is_empty() => {
            (module, format!("graph: {name} (not verified: there is no sample)"))
        }
        Ok(module) => (module, format!("graph: {name}")),
    }
}

/// Makes another form and checks it on every sample.
fn candidate(
    plain: &Module,
    form: Graph,
    source: &ModelSource<'_>,
    references: &[Reference<'_>],
) -> Result<Module, String> {
    let module = plain.transform(form == Graph::Optimized).map_err(|failure| {
        let (model, form) = (source.label, form.name());
        tracing::debug!(model, form, detail = failure.text, "the graph cannot be transformed");
        "libtorch cannot transform this module".to_owned()
    })?;
    for reference in references {
        let run = run(&module, source.inputs.len(), source.outputs, reference.batch)
            .map_err(|_| "it fails on a sample that plain answers".to_owned())?;
        for ((plain, other), spec) in reference.outputs.iter().zip(&run.outputs).zip(source.outputs)
        {
            if let Some(difference) = difference(plain, other, source.tolerance) {
                return Err(format!("output '{}' {difference}", spec.name));
            }
        }
    }
    Ok(module)
}

/// How many times as fast as `plain` the `other` form is on all samples together.
///
/// Both take turns, so that whatever else the machine does hits them alike, and the best round of
/// each counts.
fn race(
    plain: &Module,
    other: &Module,
    source: &ModelSource<'_>,
    references: &[Reference<'_>],
) -> f64 {
    let mut best = vec![[Duration::MAX; 2]; references.len()];
    let mut watch = Stopwatch::start();
    let mut spent = Duration::ZERO;
    for _ in 0..ROUNDS {
        for (reference, best) in references.iter().zip(&mut best) {
            for (module, best) in [plain, other].into_iter().zip(best) {
                if let Ok(run) = run(module, source.inputs.len(), source.outputs, reference.batch) {
                    *best = run.infer.min(*best);
                }
            }
        }
        spent += watch.lap();
        if spent > RACE {
            break;
        }
    }
    let total = |form: usize| best.iter().map(|best| best[form].as_secs_f64()).sum::<f64>();
    total(0) / total(1).max(f64::MIN_POSITIVE)
}
