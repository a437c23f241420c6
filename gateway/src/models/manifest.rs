//! `model.toml`: what a model takes and gives, how it runs, which versions serve and where they
//! come from.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use engine::{DataType, EngineOptions, TensorSpec};
use toml::Value;

use self::running::Running;
use crate::codec::finite;
use crate::config::BreakerSettings;
use crate::config::reader::{self, Problem, Problems, Section};
use crate::config::value::FromToml;
use crate::contract::{Contract, InputTerms};
use crate::types::{ArmName, OutputSpec, Patience, Signature, Version};

mod batching;
mod contract;
mod deadline;
mod features;
mod running;

pub use batching::Batching;
pub use features::Features;

const MAX_LABELS: usize = 100;

/// A checked `model.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    pub platform: String,
    pub description: String,
    pub signature: Arc<Signature>,
    pub features: Features,
    pub policy: VersionPolicy,
    pub device: String,
    pub options: EngineOptions,
    /// Whether equal calls get equal bytes: one graph, and no call shares a batch with another.
    pub deterministic: bool,
    pub batching: Batching,
    pub timeouts: Patience,
    pub run_timeout: Option<Duration>,
    pub breaker: BreakerSettings,
    pub warmup: Warmup,
    pub versions: BTreeMap<Version, VersionFacts>,
    /// Names for versions. One may name a version that is not there.
    pub labels: BTreeMap<String, Version>,
    /// What the values of the inputs must be like.
    pub contract: Option<Arc<Contract>>,
}

/// Which of the versions in the folder are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    Latest(usize),
    All,
    Specific(BTreeSet<Version>),
}

/// What runs before a version may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warmup {
    pub batch_sizes: Vec<usize>,
    /// A file in the model's folder.
    pub sample: Option<String>,
    /// Size of variable dimensions in generated samples.
    pub variable: usize,
    pub runs: usize,
}

/// What is known about one version.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VersionFacts {
    /// Pinned hash of the model file, lower-case hex.
    pub sha256: Option<String>,
    pub lineage: Lineage,
}

/// Where a version comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lineage {
    pub data: String,
    pub code: String,
    pub hyperparameters: BTreeMap<String, Value>,
    pub metrics: BTreeMap<String, Value>,
    pub approved_by: String,
}

const PLATFORMS: &[(&str, &str)] = &[
    ("torchscript", "torchscript"),
    ("identity", "identity"),
    #[cfg(test)]
    ("stub", "stub"),
];

#[derive(Clone, Copy)]
enum Policy {
    Latest,
    All,
    Specific,
}

impl Manifest {
    /// Reads and checks the text of a `model.toml`.
    ///
    /// # Errors
    /// Every problem found, each with the path of its key.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let problems = Problems::default();
        let table = reader::table(text).map_err(|problem| vec![problem])?;
        let manifest = Self::read(Section::root(table, &problems));
        problems.into_result(manifest)
    }

    /// Reads a manifest and notes every problem with it.
    pub fn read(mut root: Section<'_>) -> Self {
        let platform = root.choice("platform", PLATFORMS, "torchscript").to_owned();
        let max_batch_size: usize = root.or("max_batch_size", 0);
        let description = root.or("description", String::new());
        let mut features = Features::default();
        let (inputs, terms): (Vec<TensorSpec>, Vec<_>) = root
            .list("input")
            .into_iter()
            .map(|section| read_input(section, &mut features.inputs))
            .unzip();
        let outputs: Vec<OutputSpec> = root
            .list("output")
            .into_iter()
            .map(|section| read_output(section, &mut features.outputs))
            .collect();
        let mut signature = Signature { inputs, outputs, max_batch_size, splits: true };
        check_signature(&root, &signature, &platform);
        features.check(&root, &signature);
        let report = |index, key: &str, text| {
            let key = if key.is_empty() { String::new() } else { format!(".{key}") };
            root.problem(&format!("input[{index}].contract{key}"), text);
        };
        let contract = Contract::build(&signature, terms, report).map(Arc::new);
        let batching = Batching::read(root.section("batching"), &signature);
        signature.splits = batching.split;
        let timeouts = deadline::read(root.section("deadline"));
        let policy = read_policy(root.section("versions"));
        let Running { device, options, deterministic, run_timeout } =
            running::read(root.section("engine"), &signature, &platform);
        let breaker = BreakerSettings::read(root.section("breaker"));
        let warmup = read_warmup(root.section("warmup"), max_batch_size);
        let labels = read_labels(&mut root);
        let versions = root
            .named("version")
            .into_iter()
            .filter_map(|(name, section)| read_version(&name, section))
            .collect();
        root.finish();
        Self {
            platform,
            description,
            signature: Arc::new(signature),
            features,
            policy,
            device,
            options,
            deterministic,
            batching,
            timeouts,
            run_timeout,
            breaker,
            warmup,
            versions,
            labels,
            contract,
        }
    }

    /// Facts about one version; empty ones where the manifest has none.
    #[must_use]
    pub fn facts(&self, version: Version) -> VersionFacts {
        self.versions.get(&version).cloned().unwrap_or_default()
    }

    /// The strictest tolerance of all outputs.
    #[must_use]
    pub fn tolerance(&self) -> f64 {
        self.signature.outputs.iter().map(|output| output.tolerance).fold(f64::INFINITY, f64::min)
    }
}

impl VersionPolicy {
    /// The versions to serve out of those that are there.
    #[must_use]
    pub fn choose(&self, available: &BTreeSet<Version>) -> BTreeSet<Version> {
        match self {
            Self::Latest(count) => available.iter().rev().take(*count).copied().collect(),
            Self::All => available.clone(),
            Self::Specific(wanted) => available.intersection(wanted).copied().collect(),
        }
    }
}

fn read_input(
    mut section: Section<'_>,
    features: &mut Vec<Vec<String>>,
) -> (TensorSpec, Option<InputTerms>) {
    let spec = read_tensor(&mut section);
    features.push(section.or("features", vec![]));
    let has_contract = section.has("contract");
    let terms = contract::read(section.section("contract"));
    section.finish();
    (spec, has_contract.then_some(terms))
}

fn read_output(mut section: Section<'_>, features: &mut Vec<Vec<String>>) -> OutputSpec {
    let spec = read_tensor(&mut section);
    features.push(section.or("features", vec![]));
    let labels = section.or("labels", vec![]);
    let tolerance = section.or("tolerance", 1e-5);
    if tolerance < 0.0 {
        section.problem("tolerance", "must not be negative");
    }
    let finite = section.or("finite", false);
    if finite && !finite::has_floats(spec.datatype) {
        section.problem("finite", format!("{} has neither NaN nor infinities", spec.datatype));
    }
    section.finish();
    OutputSpec { spec, labels, tolerance, finite }
}

fn read_tensor(section: &mut Section<'_>) -> TensorSpec {
    let name: String = section.required("name").unwrap_or_default();
    if name.is_empty() || name.len() > 255 {
        section.problem("name", "must have 1 to 255 bytes");
    }
    let datatype = section.required("dtype").unwrap_or(DataType::Fp32);
    let shape: Vec<i64> = section.required("shape").unwrap_or_default();
    if shape.iter().any(|&dimension| dimension < -1 || dimension == 0) {
        section.problem("shape", "dimensions are -1 for any size, or at least 1");
    }
    TensorSpec { name, datatype, shape }
}

fn check_signature(root: &Section<'_>, signature: &Signature, platform: &str) {
    let outputs = signature.outputs.iter().map(|output| &output.spec);
    let all = [
        ("input", signature.inputs.iter().collect::<Vec<_>>()),
        ("output", outputs.collect::<Vec<_>>()),
    ];
    for (key, specs) in all {
        if specs.is_empty() {
            root.problem(key, format!("is missing: a model needs at least one [[{key}]]"));
        }
        let mut names = BTreeSet::new();
        for (index, spec) in specs.into_iter().enumerate() {
            let path = format!("{key}[{index}]");
            if !names.insert(&spec.name) {
                root.problem(&format!("{path}.name"), format!("'{}' is taken", spec.name));
            }
            if signature.max_batch_size > 0 && spec.shape.first() != Some(&-1) {
                root.problem(
                    &format!("{path}.shape"),
                    "starts with -1 in a model with max_batch_size: that is the batch dimension",
                );
            }
            if platform == "torchscript" && spec.datatype == DataType::Bytes {
                root.problem(&format!("{path}.dtype"), "BYTES cannot be a libtorch tensor");
            }
        }
    }
}

fn read_policy(mut section: Section<'_>) -> VersionPolicy {
    const POLICIES: &[(&str, Policy)] =
        &[("latest", Policy::Latest), ("all", Policy::All), ("specific", Policy::Specific)];
    let policy = section.choice("policy", POLICIES, Policy::Latest);
    let latest: Option<usize> = section.take("latest");
    let specific: Option<Vec<u64>> = section.take("specific");
    if latest.is_some() && !matches!(policy, Policy::Latest) {
        section.problem("latest", "has no effect without policy = \"latest\"");
    }
    if specific.is_some() && !matches!(policy, Policy::Specific) {
        section.problem("specific", "has no effect without policy = \"specific\"");
    }
    if latest == Some(0) {
        section.problem("latest", "must be at least 1");
    }
    let chosen = match policy {
        Policy::Latest => VersionPolicy::Latest(latest.unwrap_or(1)),
        Policy::All => VersionPolicy::All,
        Policy::Specific => {
            let wanted = specific.unwrap_or_default();
            if wanted.is_empty() || wanted.contains(&0) {
                section.problem("specific", "needs at least one version, counted from 1");
            }
            VersionPolicy::Specific(wanted.into_iter().map(Version).collect())
        }
    };
    section.finish();
    chosen
}

fn read_warmup(mut section: Section<'_>, max_batch_size: usize) -> Warmup {
    let mut batch_sizes: Vec<usize> = section.or("batch_sizes", vec![]);
    if batch_sizes.iter().any(|&size| size == 0 || size > max_batch_size.max(1)) {
        section.problem("batch_sizes", "are from 1 to max_batch_size");
    }
    if batch_sizes.is_empty() {
        batch_sizes = default_sizes(max_batch_size.max(1));
    }
    batch_sizes.sort_unstable();
    batch_sizes.dedup();
    let warmup = Warmup {
        batch_sizes,
        sample: section.take("sample"),
        variable: section.or("variable", 16),
        runs: section.or("runs", 3),
    };
    section.finish();
    warmup
}

/// The smallest and the largest batch, and one between them where they lie far apart: what is
/// fastest at both ends need not be so in the middle, where most batches are.
fn default_sizes(largest: usize) -> Vec<usize> {
    const FAR: usize = 16;
    if largest < FAR { vec![1, largest] } else { vec![1, largest.isqrt(), largest] }
}

/// Names for versions, as arms are named: they stand in the same places of URLs and files.
fn read_labels(root: &mut Section<'_>) -> BTreeMap<String, Version> {
    let given: BTreeMap<String, Value> = root.or("labels", BTreeMap::new());
    if given.len() > MAX_LABELS {
        root.problem("labels", format!("has more than {MAX_LABELS} labels"));
    }
    let mut labels = BTreeMap::new();
    for (label, value) in given {
        let key = format!("labels.{label}");
        match label.parse::<ArmName>() {
            Ok(_) if label == "latest" => {
                root.problem(&key, "is what the highest version is called")
            }
            Ok(_) => {}
            Err(error) => root.problem(&key, error.replace("an arm", "a version")),
        }
        match u64::from_toml(&value) {
            Ok(0) => root.problem(&key, "is 0: versions are numbers from 1"),
            Ok(number) => drop(labels.insert(label, Version(number))),
            Err(error) => root.problem(&key, error),
        }
    }
    labels
}

fn read_version(name: &str, mut section: Section<'_>) -> Option<(Version, VersionFacts)> {
    let version = name.parse().ok();
    if version.is_none() {
        section.problem("", format!("'{name}' is not a version: versions are numbers from 1"));
    }
    let sha256: Option<String> = section.take("sha256");
    if let Some(hash) = &sha256
        && (hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()))
    {
        section.problem("sha256", "must have 64 hexadecimal digits");
    }
    let mut lineage = section.section("lineage");
    let facts = VersionFacts {
        sha256: sha256.map(|hash| hash.to_ascii_lowercase()),
        lineage: Lineage {
            data: lineage.or("data", String::new()),
            code: lineage.or("code", String::new()),
            hyperparameters: lineage.or("hyperparameters", BTreeMap::new()),
            metrics: lineage.or("metrics", BTreeMap::new()),
            approved_by: lineage.or("approved_by", String::new()),
        },
    };
    lineage.finish();
    section.finish();
    version.map(|version| (version, facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reference::MODEL;

    const SMALL: &str = "max_batch_size = 4\n\
        [[input]]\nname = 'x'\ndtype = 'FP32'\nshape = [-1, 2]\n\
        [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = [-1]\n";

    #[test]
    fn defaults_make_a_small_manifest_whole() {
        let manifest = Manifest::parse(SMALL).unwrap();
        assert_eq!(manifest.platform, "torchscript");
        assert_eq!(manifest.policy, VersionPolicy::Latest(1));
        assert_eq!(manifest.warmup.batch_sizes, [1, 4]);
    }

    #[test]
    fn warm_up_takes_a_size_between_ends_that_lie_far_apart() {
        let sizes = |largest: usize| {
            let text = SMALL.replace("max_batch_size = 4", &format!("max_batch_size = {largest}"));
            Manifest::parse(&text).unwrap().warmup.batch_sizes
        };
        assert_eq!(sizes(1), [1]);
        assert_eq!(sizes(15), [1, 15]);
        assert_eq!(sizes(16), [1, 4, 16]);
        assert_eq!(sizes(64), [1, 8, 64]);
        assert_eq!(sizes(1000), [1, 31, 1000]);
    }

    #[test]
    fn every_problem_of_a_manifest_is_named() {
        let text = "max_batch_size = 4\n\
            [[input]]\nname = 'x'\ndtype = 'FP33'\nshape = [2]\n\
            [[input]]\nname = 'x'\ndtype = 'BYTES'\nshape = [-1, 0]\n\
            [versions]\npolicy = 'all'\nlatest = 2\n\
            [[output]]\nname = 'y'\ndtype = 'INT8'\nshape = [-1]\nfinite = true\n\
            [breaker]\nprobes = 0\n[engine]\ndevice = 'gpu'\n[version.one]\nsha256 = 'abc'\n";
        let problems = Manifest::parse(text).unwrap_err();
        let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "input[0].dtype",
                "input[1].shape",
                "output[0].finite",
                "input[0].shape",
                "input[1].name",
                "input[1].dtype",
                "versions.latest",
                "engine.device",
                "breaker.probes",
                "version.one.",
                "version.one.sha256",
            ]
        );
    }

    #[test]
    fn labels_name_versions_by_the_rules_of_arms() {
        let labels = |lines: &str| Manifest::parse(&format!("{SMALL}[labels]\n{lines}"));
        let found = labels("stable = 1\ncanary-2 = 20").unwrap().labels;
        let expected = [("canary-2", 20), ("stable", 1)];
        assert_eq!(found, expected.map(|(name, number)| (name.to_owned(), Version(number))).into());
        for wrong in ["latest = 1", "direct = 1", "7 = 1", "A = 1", "a = 0", "a = '1'", "a = -1"] {
            let problems = labels(wrong).unwrap_err();
            let path = format!("labels.{}", wrong.split(' ').next().unwrap());
            assert_eq!(problems.iter().map(|p| &p.path).collect::<Vec<_>>(), [&path], "{wrong}");
        }
        let many: String = (0..101).map(|index| format!("x{index} = 1\n")).collect();
        assert_eq!(labels(&many).unwrap_err()[0].path, "labels");
    }

    #[test]
    fn policies_choose_from_what_is_there() {
        let available: BTreeSet<_> = [1, 2, 10].map(Version).into();
        let choose = |policy: VersionPolicy| -> Vec<u64> {
            policy.choose(&available).into_iter().map(|version| version.0).collect()
        };
        assert_eq!(choose(VersionPolicy::Latest(2)), [2, 10]);
        assert_eq!(choose(VersionPolicy::All), [1, 2, 10]);
        assert_eq!(choose(VersionPolicy::Specific([2, 7].map(Version).into())), [2]);
    }

    #[test]
    fn the_reference_names_exactly_the_keys_that_are_read() {
        let problems = Problems::default();
        let rules = "[[input.contract.feature]]\nindex = 0\n";
        let text = SMALL.replace("[[output]]", &format!("{rules}[[output]]"));
        let text = format!("{text}[version.1]\n");
        Manifest::read(Section::root(reader::table(&text).unwrap(), &problems));
        let read: BTreeSet<String> = problems
            .asked()
            .into_iter()
            .filter(|p| p != "version.1")
            .map(|p| p.replace(".1.", "."))
            .collect();
        let documented: BTreeSet<String> =
            MODEL.iter().copied().flatten().map(|key| key.path.to_owned()).collect();
        assert_eq!(read, documented);
    }
}
