//! The classification extension: an output as its `k` largest values, each as the text
//! `value:index` or `value:index:label`.

use engine::{DataType, Tensor};

use crate::codec::numbers;
use crate::error::Rejection;
use crate::types::OutputSpec;

/// Turns an output into a BYTES tensor `[batch, k]`, or `[k]` where the model does not batch.
///
/// # Errors
/// `InvalidInput` for an output that cannot be ranked.
pub fn classify(
    output: &OutputSpec,
    tensor: &Tensor,
    k: usize,
    batched: bool,
) -> Result<Tensor, Rejection> {
    let name = &output.spec.name;
    if tensor.datatype() == DataType::Bytes {
        return Err(Rejection::invalid(format!("output '{name}' is BYTES, which has no classes")));
    }
    if k == 0 {
        return Err(Rejection::invalid(format!("output '{name}': classification must be above 0")));
    }
    let rows = if batched { tensor.rows() } else { 1 };
    // Integers are ranked as such: as floats, neighbours beyond 2^53 would tie.
    let texts = match numbers::to_integers(tensor) {
        Some(values) => ranked(&values, rows, k, &output.labels, ToString::to_string),
        None => ranked(&numbers::to_f64(tensor), rows, k, &output.labels, |v| format!("{v:.6}")),
    };
    let k = texts.len().checked_div(rows).unwrap_or(0);
    let shape = if batched { vec![rows, k] } else { vec![k] };
    Tensor::from_strings(shape, &texts).map_err(|error| Rejection::invalid(error.to_string()))
}

/// The `k` largest of each row, as texts. NaN ranks last; equal values keep their order.
fn ranked<T: PartialOrd>(
    values: &[T],
    rows: usize,
    k: usize,
    labels: &[String],
    shown: impl Fn(&T) -> String,
) -> Vec<String> {
    let classes = values.len().checked_div(rows).unwrap_or(0);
    let mut texts = Vec::with_capacity(rows * k.min(classes));
    for row in values.chunks(classes.max(1)).take(rows) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        // A value that does not equal itself is NaN.
        let is_nan = |index: usize| row[index].partial_cmp(&row[index]).is_none();
        order.sort_by(|&a, &b| {
            row[b].partial_cmp(&row[a]).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
        });
        texts.extend(order.into_iter().take(k).map(|index| {
            let value = shown(&row[index]);
            match labels.get(index) {
                Some(label) => format!("{value}:{index}:{label}"),
                None => format!("{value}:{index}"),
            }
        }));
    }
    texts
}

#[cfg(test)]
mod tests {
    use engine::TensorSpec;

    use super::*;

    fn output(labels: &[&str]) -> OutputSpec {
        OutputSpec {
            spec: TensorSpec { name: "y".into(), datatype: DataType::Fp32, shape: vec![-1, 3] },
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            tolerance: 0.0,
            finite: false,
        }
    }

    fn singles(shape: &[usize], values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor::new(DataType::Fp32, shape.into(), data.into()).unwrap()
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        tensor.strings().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn the_largest_come_first_with_index_and_label() {
        let tensor = singles(&[2, 3], &[0.1, 0.7, 0.2, 3.0, f32::NAN, 5.0]);
        let classes = classify(&output(&["a", "b"]), &tensor, 2, true).unwrap();
        assert_eq!(classes.shape(), [2, 2]);
        assert_eq!(texts(&classes), ["0.700000:1:b", "0.200000:2", "5.000000:2", "3.000000:0:a"]);
    }

    #[test]
    fn large_integers_are_ranked_exactly() {
        let values = [u64::MAX - 1, u64::MAX, 0];
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensor = Tensor::new(DataType::Uint64, vec![3], data.into()).unwrap();
        let classes = classify(&output(&[]), &tensor, 2, false).unwrap();
        assert_eq!(texts(&classes), ["18446744073709551615:1", "18446744073709551614:0"]);
    }

    #[test]
    fn more_classes_than_there_are_means_all() {
        let classes = classify(&output(&[]), &singles(&[3], &[1.0, 2.0, 3.0]), 9, false).unwrap();
        assert_eq!(classes.shape(), [3]);
        assert!(classify(&output(&[]), &singles(&[0, 3], &[]), 2, true).unwrap().data().is_empty());
    }
}
