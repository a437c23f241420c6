//! Golden requests: inputs with the outputs that a version must give before it may serve.

use engine::Tensor;
use serde::Deserialize;

use crate::codec::numbers;
use crate::codec::tensors::JsonTensor;
use crate::types::{NamedTensor, Signature};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<'a> {
    #[serde(borrow)]
    requests: Vec<Request<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(borrow)]
    inputs: Vec<JsonTensor<'a>>,
    #[serde(borrow)]
    outputs: Vec<JsonTensor<'a>>,
    tolerance: Option<f64>,
}

/// One golden request, decoded and in the signature's order.
#[derive(Debug)]
pub struct Golden {
    pub inputs: Vec<Tensor>,
    pub rows: usize,
    expected: Vec<NamedTensor>,
    tolerance: Option<f64>,
}

/// Reads a golden file.
///
/// # Errors
/// What is wrong, with the index of the request.
pub fn parse(text: &[u8], signature: &Signature) -> Result<Vec<Golden>, String> {
    let file: File<'_> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if file.requests.is_empty() {
        return Err("holds no requests".to_owned());
    }
    file.requests
        .iter()
        .enumerate()
        .map(|(index, request)| {
            decode(request, signature).map_err(|error| format!("requests[{index}]: {error}"))
        })
        .collect()
}

fn decode(request: &Request<'_>, signature: &Signature) -> Result<Golden, String> {
    let given = request.inputs.iter().map(JsonTensor::decode).collect::<Result<_, _>>()?;
    let ordered = signature.order(given).map_err(|rejection| rejection.to_string())?;
    let expected: Vec<NamedTensor> =
        request.outputs.iter().map(JsonTensor::decode).collect::<Result<_, _>>()?;
    if expected.is_empty() {
        return Err("expects no outputs".to_owned());
    }
    for output in &expected {
        signature.output_index(&output.name).map_err(|rejection| rejection.to_string())?;
    }
    let tolerance = request.tolerance;
    Ok(Golden { inputs: ordered.tensors, rows: ordered.rows, expected, tolerance })
}

impl Golden {
    /// Compares what a version gave with what it has to give.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, signature: &Signature, outputs: &[Tensor]) -> Result<(), String> {
        for expected in &self.expected {
            let index =
                signature.output_index(&expected.name).map_err(|error| error.to_string())?;
            let tolerance = self.tolerance.unwrap_or(signature.outputs[index].tolerance);
            let actual = outputs.get(index).ok_or("an output is missing")?;
            numbers::compare(&expected.tensor, actual, tolerance)
                .map_err(|error| format!("output '{}' {error}", expected.name))?;
        }
        Ok(())
    }
}
