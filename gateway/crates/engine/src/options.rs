//! How an engine runs a model: what `[engine]` of `model.toml` says beyond the device.

use std::num::NonZeroUsize;

/// Which form of the graph should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Graph {
    /// The engine measures and says what it chose.
    #[default]
    Auto,
    /// As exported.
    Plain,
    /// Parameters folded into constants.
    Frozen,
    /// Frozen, then rewritten for inference.
    Optimized,
    /// The plain form and the fastest other one stay loaded; each batch takes what its size is
    /// faster on.
    Both,
}

/// What the model's floating-point arithmetic is done in. The wire keeps the signature's types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As exported.
    #[default]
    Fp32,
    /// Weights and floating-point inputs are converted.
    Bf16,
}

/// How a model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    pub graph: Graph,
    pub precision: Precision,
    /// Whether inputs and weights of rank 4 lie with their channels last.
    pub channels_last: bool,
    /// Threads inside one operator.
    pub threads: NonZeroUsize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            graph: Graph::default(),
            precision: Precision::default(),
            channels_last: false,
            threads: NonZeroUsize::MIN,
        }
    }
}

impl Graph {
    /// Every form with its name in `model.toml`.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("auto", Self::Auto),
        ("plain", Self::Plain),
        ("frozen", Self::Frozen),
        ("optimized", Self::Optimized),
        ("both", Self::Both),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, graph)| *graph == self).map_or("auto", |(name, _)| name)
    }
}

impl Precision {
    /// Every precision with its name in `model.toml`.
    pub const NAMES: [(&'static str, Self); 2] = [("fp32", Self::Fp32), ("bf16", Self::Bf16)];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_for_its_own_choice() {
        for (name, graph) in Graph::NAMES {
            assert_eq!(graph.name(), name);
        }
        for (name, precision) in Precision::NAMES {
            assert_eq!(precision.name(), name);
        }
    }
}
