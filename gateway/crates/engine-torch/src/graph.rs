//! Which form of the module runs: as exported, frozen, or rewritten for inference; in which
//! precision and memory layout.
//!
//! No other form than the exported one is trusted unseen: it has to give the exported one's
//! answers on the samples (`verify`). Under `auto` every form is measured on them (`race`) and
//! `choice` decides; under `both` two stay loaded and `picker` decides for each batch.

use engine::error::Fault;
use engine::{Batch, EngineError, Graph, ModelSource, Precision, Run};

use crate::choice::{self, Heat};
use crate::ffi::Module;
use crate::picker::{Form, Picker};
use crate::race::race;
use crate::run::{RunError, Shape, run};
use crate::verify::{Reference, agrees, answers};

/// What runs the batches.
#[derive(Debug)]
pub(crate) enum Forms {
    One(Module),
    Both { plain: Module, other: Module, picker: Box<Picker> },
}

impl Forms {
    pub(crate) fn run(&self, shape: &Shape, batch: &Batch) -> Result<Run, RunError> {
        let (plain, other, picker) = match self {
            Self::One(module) => return run(module, shape, batch),
            Self::Both { plain, other, picker } => (plain, other, picker),
        };
        let form = picker.pick(batch.rows());
        let module = if form == Form::Plain { plain } else { other };
        let run = run(module, shape, batch)?;
        picker.record(batch.rows(), form, run.infer);
        Ok(run)
    }
}

/// Makes what will run out of the module as exported, and says why in notes.
pub(crate) fn prepare(
    exported: Module,
    source: &ModelSource<'_>,
    shape: &Shape,
) -> Result<(Forms, Vec<String>), EngineError> {
    let (references, mut notes) = answers(&exported, source, shape)?;
    let stage = Stage { source, shape, references };
    let plain = stage.convert(exported, &mut notes)?;
    let (forms, note) = match source.options.graph {
        Graph::Plain => (Forms::One(plain), "graph: plain".to_owned()),
        Graph::Auto => stage.fastest(plain),
        Graph::Both => stage.both(plain),
        form @ (Graph::Frozen | Graph::Optimized) => stage.forced(plain, form),
    };
    notes.insert(0, note);
    Ok((forms, notes))
}

/// What every form is tried on.
struct Stage<'a> {
    source: &'a ModelSource<'a>,
    shape: &'a Shape,
    references: Vec<Reference<'a>>,
}

/// A form that proved itself, measured beside the plain one.
struct Candidate {
    form: Graph,
    module: Module,
    heats: Vec<Heat>,
}

impl Stage<'_> {
    /// The precision and the layout that `model.toml` asks for. Nobody wants a model that
    /// silently runs at another speed than asked for, so what does not work fails the load.
    fn convert(&self, exported: Module, notes: &mut Vec<String>) -> Result<Module, EngineError> {
        let options = self.source.options;
        let reduced = options.precision == Precision::Bf16;
        if !reduced && !options.channels_last {
            return Ok(exported);
        }
        let asked = match (reduced, options.channels_last) {
            (true, true) => "precision = \"bf16\" with channels_last = true",
            (true, false) => "precision = \"bf16\"",
            _ => "channels_last = true",
        };
        let failed = |reason: String| {
            EngineError::new(Fault::Load, format!("{asked} does not suit this model: {reason}"))
        };
        let module = exported.convert(reduced, options.channels_last).map_err(|failure| {
            failed("libtorch cannot convert it".to_owned()).with_detail(failure.text)
        })?;
        agrees(&module, self.source, self.shape, &self.references).map_err(failed)?;
        let proof =
            if self.references.is_empty() { " (not verified: there is no sample)" } else { "" };
        if reduced {
            notes.push(format!("precision: bf16{proof}"));
        }
        if options.channels_last {
            notes.push(format!("channels last{proof}"));
        }
        Ok(module)
    }

    /// The form that serves the sizes of the samples fastest, all in all.
    fn fastest(&self, plain: Module) -> (Forms, String) {
        if self.references.is_empty() {
            let note = "graph: plain (no sample to verify another form on)";
            return (Forms::One(plain), note.to_owned());
        }
        let (mut candidates, facts) = self.candidates(&plain);
        let heats: Vec<&[Heat]> = candidates.iter().map(|known| known.heats.as_slice()).collect();
        let chosen = choice::choose(&heats).map(|index| candidates.swap_remove(index));
        let (module, name) = match chosen {
            Some(Candidate { form, module, .. }) => (module, form.name()),
            None => (plain, "plain"),
        };
        (Forms::One(module), format!("graph: {name} ({facts})"))
    }

    /// Plain and the best other form, each for the sizes that it is faster on.
    fn both(&self, plain: Module) -> (Forms, String) {
        if self.references.is_empty() {
            let note = "graph: plain (no sample to verify another form on)";
            return (Forms::One(plain), note.to_owned());
        }
        let (candidates, facts) = self.candidates(&plain);
        // Whichever gains most at the sizes that plain does not serve well.
        let best = candidates.into_iter().max_by(|a, b| {
            choice::largest_gain(&a.heats).total_cmp(&choice::largest_gain(&b.heats))
        });
        match best {
            None => (Forms::One(plain), format!("graph: plain ({facts})")),
            Some(Candidate { form, module: other, heats }) => {
                let note = format!("graph: both plain and {} ({facts})", form.name());
                let picker = Box::new(Picker::new(&heats));
                (Forms::Both { plain, other, picker }, note)
            }
        }
    }

    /// The form that `model.toml` names, or plain where that form does not prove itself.
    fn forced(&self, plain: Module, form: Graph) -> (Forms, String) {
        let name = form.name();
        match self.candidate(&plain, form) {
            Err(reason) => (Forms::One(plain), format!("graph: plain ({name} failed: {reason})")),
            Ok(module) if self.references.is_empty() => {
                let note = format!("graph: {name} (not verified: there is no sample)");
                (Forms::One(module), note)
            }
            Ok(module) => (Forms::One(module), format!("graph: {name}")),
        }
    }

    /// Every other form that is worth a look, measured, with what there is to say about each.
    fn candidates(&self, plain: &Module) -> (Vec<Candidate>, String) {
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut facts = Vec::new();
        for form in [Graph::Optimized, Graph::Frozen] {
            // Rewriting starts with freezing: where it gained much, freezing alone gains less.
            if candidates.iter().any(|known| choice::is_clear(&known.heats)) {
                break;
            }
            match self.candidate(plain, form) {
                Err(reason) => facts.push(format!("{} failed: {reason}", form.name())),
                Ok(module) => {
                    let heats = race(plain, &module, self.shape, &self.references);
                    facts.push(choice::describe(form.name(), &heats));
                    candidates.push(Candidate { form, module, heats });
                }
            }
        }
        (candidates, facts.join("; "))
    }

    /// Makes another form and checks it on every sample.
    fn candidate(&self, plain: &Module, form: Graph) -> Result<Module, String> {
        let module = plain.transform(form == Graph::Optimized).map_err(|failure| {
            let (model, form) = (self.source.label, form.name());
            tracing::debug!(model, form, detail = failure.text, "the graph cannot be transformed");
            "libtorch cannot transform this module".to_owned()
        })?;
        agrees(&module, self.source, self.shape, &self.references)?;
        Ok(module)
    }
}
