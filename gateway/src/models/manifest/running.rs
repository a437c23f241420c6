//! `[engine]` of `model.toml`: where and how the engine runs the model.

use std::num::NonZeroUsize;
use std::time::Duration;

use engine::{DataType, EngineOptions, Graph, Precision, TensorSpec};

use crate::config::reader::Section;
use crate::types::Signature;

/// More threads than any machine has are a mistake.
const MOST_THREADS: usize = 1024;

/// What the section says.
pub(super) struct Running {
    pub(super) device: String,
    pub(super) options: EngineOptions,
    pub(super) deterministic: bool,
    pub(super) run_timeout: Option<Duration>,
}

pub(super) fn read(mut section: Section<'_>, signature: &Signature, platform: &str) -> Running {
    let device = section.or("device", "cpu".to_owned());
    if !is_device(&device) {
        section.problem("device", format!("is \"{device}\", must be \"cpu\" or \"cuda:N\""));
    }
    let deterministic = section.or("deterministic", false);
    let default = if deterministic { Graph::Plain } else { Graph::Auto };
    let graph = section.choice("graph", &Graph::NAMES, default);
    if deterministic && matches!(graph, Graph::Auto | Graph::Both) {
        let name = graph.name();
        section.problem(
            "graph",
            format!(
                "\"{name}\" chooses by measuring, which deterministic = true forbids; name one form"
            ),
        );
    }
    let precision = section.choice("precision", &Precision::NAMES, Precision::Fp32);
    if precision == Precision::Bf16 && !tensors(signature).any(|spec| is_wide(spec.datatype)) {
        section.problem(
            "precision",
            "\"bf16\" needs an input or output of FP16, FP32 or FP64: this model has whole numbers only",
        );
    }
    let channels_last = section.or("channels_last", false);
    if channels_last && !signature.inputs.iter().any(|spec| spec.shape.len() == 4) {
        section
            .problem("channels_last", "needs an input of rank 4, which this model does not have");
    }
    let threads: usize = section.or("threads", 1);
    if threads == 0 || threads > MOST_THREADS {
        section.problem("threads", format!("must be from 1 to {MOST_THREADS}"));
    }
    let threads = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    let options = EngineOptions { graph, precision, channels_last, threads };
    if platform != "torchscript" {
        let defaults = EngineOptions { graph, ..EngineOptions::default() };
        if options != defaults {
            let text = format!("precision, channels_last and threads mean nothing to '{platform}'");
            section.problem("", text);
        }
    }
    let run_timeout = section.take("run_timeout");
    section.finish();
    Running { device, options, deterministic, run_timeout }
}

fn tensors(signature: &Signature) -> impl Iterator<Item = &TensorSpec> {
    signature.inputs.iter().chain(signature.outputs.iter().map(|output| &output.spec))
}

fn is_wide(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Fp32 | DataType::Fp64)
}

fn is_device(text: &str) -> bool {
    text == "cpu" || text.strip_prefix("cuda:").is_some_and(|index| index.parse::<u8>().is_ok())
}

#[cfg(test)]
mod tests {
    use engine::Graph;

    use super::*;
    use crate::models::manifest::Manifest;

    fn parse(dtype: &str, shape: &str, engine: &str) -> Result<Manifest, Vec<String>> {
        let text = format!(
            "max_batch_size = 4\n[[input]]\nname = 'x'\ndtype = '{dtype}'\nshape = {shape}\n\
             [[output]]\nname = 'y'\ndtype = '{dtype}'\nshape = [-1]\n[engine]\n{engine}\n"
        );
        Manifest::parse(&text)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn problem(dtype: &str, shape: &str, engine: &str) -> String {
        let problems = parse(dtype, shape, engine).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems[0].clone()
    }

    #[test]
    fn options_stay_as_exported_on_one_thread_unless_asked() {
        let manifest = parse("FP32", "[-1, 2]", "").unwrap();
        assert_eq!(manifest.options, EngineOptions::default());
        assert!(!manifest.deterministic);
        let all = "graph = 'both'\nprecision = 'bf16'\nchannels_last = true\nthreads = 3";
        let options = parse("FP32", "[-1, 3, 8, 8]", all).unwrap().options;
        assert_eq!((options.graph, options.precision), (Graph::Both, Precision::Bf16));
        assert!(options.channels_last);
        assert_eq!(options.threads.get(), 3);
    }

    #[test]
    fn determinism_pins_the_graph() {
        let graph = |engine: &str| parse("FP32", "[-1, 2]", engine).unwrap().options.graph;
        assert_eq!(graph("deterministic = true"), Graph::Plain);
        assert_eq!(graph("deterministic = true\ngraph = 'optimized'"), Graph::Optimized);
        for name in ["auto", "both"] {
            let engine = format!("deterministic = true\ngraph = '{name}'");
            let text = problem("FP32", "[-1, 2]", &engine);
            assert!(text.contains("engine.graph") && text.contains("deterministic"), "{text}");
        }
    }

    #[test]
    fn options_that_cannot_do_anything_are_named() {
        for (dtype, engine, expected) in [
            ("INT64", "precision = 'bf16'", "engine.precision"),
            ("FP32", "channels_last = true", "engine.channels_last"),
            ("FP32", "threads = 0", "engine.threads"),
            ("FP32", "threads = 100000", "engine.threads"),
        ] {
            let text = problem(dtype, "[-1, 2]", engine);
            assert!(text.contains(expected), "{text}");
        }
        let text = "platform = 'identity'\n[[input]]\nname = 'x'\ndtype = 'FP32'\nshape = [1]\n\
                    [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = [1]\n[engine]\nthreads = 2\n";
        let problems = Manifest::parse(text).unwrap_err();
        assert!(problems[0].to_string().contains("'identity'"), "{problems:?}");
    }
}
