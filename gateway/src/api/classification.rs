//! The classification extension: an output as its `k` largest values, each as the text
//! `value:index` or `value:index:label`.

use std::cmp::Ordering;

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
    let values = numbers::to_f64(tensor);
    let classes = values.len().checked_div(rows).unwrap_or(0);
    let k = k.min(classes);
    let is_integer = !matches!(
        tensor.datatype(),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64
    );
    let mut texts = Vec::with_capacity(rows * k);
    for row in values.chunks(classes.max(1)).take(rows) {
        let mut order: Vec<usize> = (0..row.len()).collect();
        // NaN ranks last; equal values keep their order.
        order.sort_by(|&a, &b| {
            let by_value = row[b].partial_cmp(&row[a]);
            by_value.unwrap_or_else(|| row[a].is_nan().cmp(&row[b].is_nan())).then(Ordering::Equal)
        });
        texts.extend(order.into_iter().take(k).map(|index| {
            let value = row[index];
            let value = if is_integer { format!("{value}") } else { format!("{value:.6}") };
            match output.labels.get(index) {
                Some(label) => format!("{value}:{index}:{label}"),
                None => format!("{value}:{index}"),
            }
        }));
    }
    let shape = if batched { vec![rows, k] } else { vec![k] };
    Tensor::from_strings(shape, &texts).map_err(|error| Rejection::invalid(error.to_string()))
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
    fn more_classes_than_there_are_means_all() {
        let classes = classify(&output(&[]), &singles(&[3], &[1.0, 2.0, 3.0]), 9, false).unwrap();
        assert_eq!(classes.shape(), [3]);
        assert!(classify(&output(&[]), &singles(&[0, 3], &[]), 2, true).unwrap().data().is_empty());
    }
}
