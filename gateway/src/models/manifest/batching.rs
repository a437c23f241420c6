//! `[batching]` of `model.toml`: how calls of the model share batches.

use std::time::Duration;

use engine::{DataType, TensorSpec};
use half::{bf16, f16};

use crate::batching::VariableLength;
use crate::config::reader::Section;
use crate::types::{Priority, Signature};

/// How calls of a model share batches and engine time.
#[derive(Debug, Clone, PartialEq)]
pub struct Batching {
    /// How long a batch may wait for more calls while an engine thread is free.
    pub max_delay: Duration,
    /// Batches of one version that may run at the same time; as many as there are threads if
    /// absent.
    pub instances: Option<usize>,
    /// Share of engine time against other models.
    pub weight: f64,
    /// Of calls that name none.
    pub priority: Priority,
    /// Whether calls that cannot make their deadline are refused at the door.
    pub refuse_late: bool,
    /// Whether calls with more items than a batch run in parts; else they are refused.
    pub split: bool,
    pub variable: Option<VariableLength>,
}

/// The largest weight; the smallest is 1.
const HEAVIEST: f64 = 1000.0;

impl Batching {
    pub(super) fn read(mut section: Section<'_>, signature: &Signature) -> Self {
        let batches = signature.max_batch_size > 0;
        let max_delay = section.or("max_delay", Duration::ZERO);
        if max_delay > Duration::ZERO && !batches {
            section.problem("max_delay", "has no effect without max_batch_size");
        }
        let instances = section.take("instances");
        if instances == Some(0) {
            section.problem("instances", "must be at least 1");
        }
        let weight = section.or("weight", 1.0);
        if !(1.0..=HEAVIEST).contains(&weight) {
            section.problem("weight", format!("must be from 1 to {HEAVIEST}"));
        }
        let level: Option<u64> = section.take("priority");
        if level.is_some_and(|level| level == 0 || level > u64::from(Priority::LEAST)) {
            section.problem("priority", "is from 1, the most urgent, to 9");
        }
        let priority = level.and_then(Priority::of).unwrap_or_default();
        let refuse_late = section.or("refuse_late", false);
        let split = section.or("split", true);
        let given = section.has("variable");
        let variable = read_variable(section.section("variable"), given, signature);
        section.finish();
        Self { max_delay, instances, weight, priority, refuse_late, split, variable }
    }
}

fn read_variable(
    mut section: Section<'_>,
    given: bool,
    signature: &Signature,
) -> Option<VariableLength> {
    let axis: usize = section.or("axis", 1);
    let buckets: Vec<usize> = section.or("buckets", vec![]);
    let pad: f64 = section.or("pad", 0.0);
    let mask: Option<String> = section.take("mask");
    let max_waste: f64 = section.or("max_waste", 1.5);
    let max_cells: usize = section.or("max_tokens", 16_384);
    let problem = |key: &str, text: String| section.problem(key, text);
    if given {
        if signature.max_batch_size == 0 {
            problem("", "needs max_batch_size: without it nothing is batched".to_owned());
        }
        if axis == 0 {
            problem("axis", "must be at least 1: 0 is the batch dimension".to_owned());
        }
        let ascending = buckets.is_sorted_by(|a, b| a < b);
        if buckets.is_empty() || buckets[0] == 0 || !ascending {
            problem("buckets", "must be lengths from 1 on, each larger than the last".to_owned());
        }
        if max_waste < 1.0 {
            problem("max_waste", "must be at least 1: padding cannot shrink a batch".to_owned());
        }
        if max_cells == 0 {
            problem("max_tokens", "must be at least 1".to_owned());
        }
    }
    let has_axis = |spec: &TensorSpec| spec.shape.get(axis) == Some(&-1);
    let mut fills = Vec::new();
    for spec in &signature.inputs {
        let is_mask = mask.as_ref() == Some(&spec.name);
        let fill = has_axis(spec).then(|| element(spec.datatype, if is_mask { 0.0 } else { pad }));
        if given && fill.as_ref().is_some_and(Option::is_none) {
            let text = format!("{pad} is no {} for input '{}'", spec.datatype, spec.name);
            problem("pad", text);
        }
        fills.push(fill.flatten());
    }
    if given && axis > 0 && !signature.inputs.iter().any(has_axis) {
        problem("axis", format!("no input has -1 as dimension {axis}"));
    }
    if let Some(mask) = &mask
        && !signature.inputs.iter().any(|spec| &spec.name == mask && has_axis(spec))
    {
        problem("mask", format!("'{mask}' is no input with -1 as dimension {axis}"));
    }
    let outputs = signature
        .outputs
        .iter()
        .map(|output| has_axis(&output.spec) && output.spec.datatype.size().is_some())
        .collect();
    section.finish();
    given.then_some(VariableLength { axis, buckets, fills, outputs, max_waste, max_cells })
}

/// The bytes of one element with this value; `None` where the type cannot hold it.
fn element(datatype: DataType, value: f64) -> Option<Vec<u8>> {
    macro_rules! whole {
        ($type:ty) => {{
            #[expect(clippy::cast_possible_truncation, reason = "the round trip is checked")]
            let narrow = value as i64;
            #[expect(clippy::cast_precision_loss, reason = "the round trip is checked")]
            #[expect(clippy::float_cmp, reason = "the value is held exactly or not at all")]
            let is_exact = narrow as f64 == value;
            let narrow = is_exact.then_some(narrow)?;
            <$type>::try_from(narrow).ok()?.to_le_bytes().to_vec()
        }};
    }
    Some(match datatype {
        DataType::Bool => whole!(u8),
        DataType::Uint8 => whole!(u8),
        DataType::Uint16 => whole!(u16),
        DataType::Uint32 => whole!(u32),
        DataType::Uint64 => whole!(u64),
        DataType::Int8 => whole!(i8),
        DataType::Int16 => whole!(i16),
        DataType::Int32 => whole!(i32),
        DataType::Int64 => whole!(i64),
        DataType::Fp16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        #[expect(clippy::cast_possible_truncation, reason = "rounding is what FP32 means")]
        DataType::Fp32 => (value as f32).to_le_bytes().to_vec(),
        DataType::Fp64 => value.to_le_bytes().to_vec(),
        DataType::Bytes => return None,
    })
}

#[cfg(test)]
mod tests {
    use crate::models::Manifest;

    const TEXT: &str = "platform = 'identity'\nmax_batch_size = 4\n\
        [[input]]\nname = 'ids'\ndtype = 'INT64'\nshape = [-1, -1]\n\
        [[input]]\nname = 'mask'\ndtype = 'UINT8'\nshape = [-1, -1]\n\
        [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = [-1, 8]\n\
        [[output]]\nname = 'tokens'\ndtype = 'FP32'\nshape = [-1, -1, 8]\n[batching]\n";

    fn problems(batching: &str) -> Vec<String> {
        let problems = Manifest::parse(&format!("{TEXT}{batching}")).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn one_line_makes_lengths_variable() {
        let line = "variable = { buckets = [8, 16], pad = 7, mask = 'mask' }";
        let manifest = Manifest::parse(&format!("{TEXT}{line}")).unwrap();
        let variable = manifest.batching.variable.unwrap();
        assert_eq!(variable.fills[0].as_deref(), Some(&7_i64.to_le_bytes()[..]));
        assert_eq!(variable.fills[1].as_deref(), Some(&[0][..]));
        assert_eq!(variable.outputs, [false, true]);
        assert_eq!((variable.axis, variable.max_cells), (1, 16_384));
    }

    #[test]
    fn every_wrong_value_is_named() {
        assert_eq!(
            problems("instances = 0\nweight = 0.5\npriority = 10"),
            ["batching.instances", "batching.weight", "batching.priority"]
        );
        assert_eq!(
            problems(
                "variable = { axis = 2, buckets = [8, 8], pad = 0.5, mask = 'x', max_waste = 0.9 }"
            ),
            ["buckets", "max_waste", "axis", "mask"].map(|key| format!("batching.variable.{key}"))
        );
        assert_eq!(
            problems("variable = { buckets = [4], pad = 0.5 }"),
            ["batching.variable.pad", "batching.variable.pad"]
        );
    }
}
