//! From a `ModelInferRequest` to a call. Raw tensors are shared with the received message.

use std::sync::Arc;

use bytes::Bytes;
use engine::{DataType, Tensor};
use http::HeaderMap;
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use proto::inference::{InferParameter, ModelInferRequest};

use crate::api::parameters::{SchedulePolicy, no_shared_memory, refuse_reserved, shorten};
use crate::api::timeouts::Arrival;
use crate::codec::contents::typed;
use crate::error::{Kind, Rejection};
use crate::types::{Call, Caller, IdempotencyKey, Inputs, NamedTensor, Protocol};

/// The parameter that marks the repeats of one call.
const KEY: &str = "idempotency_key";

/// What the answer needs of a request once its tensors are on their way.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) id: String,
    /// Classification of each requested output, in order; empty when all outputs are wanted.
    pub(super) classes: Vec<Option<usize>>,
}

/// Decodes a request.
pub(super) fn decode(
    request: ModelInferRequest,
    (caller, headers): (Caller, Arc<HeaderMap>),
    arrival: Arrival,
    check_key: impl FnOnce(&[u8]) -> Result<Option<IdempotencyKey>, Rejection>,
) -> Result<(Call, Wanted), Rejection> {
    // C++ clients always send this one.
    let known = "triton_enable_empty_final_response";
    refuse_reserved(request.parameters.keys().filter(|name| *name != known))?;
    let classes = request.outputs.iter().map(classes_of).collect::<Result<_, _>>()?;
    let inputs = decode_inputs(request.inputs, request.raw_input_contents)?;
    let whole = |name| request.parameters.get(name).map(whole_number);
    let policy = SchedulePolicy { priority: whole("priority"), timeout: whole("timeout") };
    let schedule = policy.schedule(arrival)?;
    let key = match request.parameters.get(KEY).map(|parameter| &parameter.parameter_choice) {
        None => None,
        Some(Some(ParameterChoice::StringParam(text))) => check_key(text.as_bytes())?,
        Some(_) => return Err(Rejection::invalid(format!("parameter '{KEY}' must be text"))),
    };
    let call = Call {
        caller,
        id: None,
        model: request.model_name,
        version: Some(request.model_version),
        inputs: Inputs::Named(inputs),
        outputs: request.outputs.into_iter().map(|output| output.name).collect(),
        schedule,
        key,
        protocol: Protocol::Grpc,
        arrived: arrival.at,
        headers,
        parameters: request.parameters.into_iter().filter_map(plain).collect(),
    };
    Ok((call, Wanted { id: request.id, classes }))
}

/// A parameter that routes may read, as text.
fn plain((name, value): (String, InferParameter)) -> Option<(String, String)> {
    let text = match value.parameter_choice? {
        ParameterChoice::StringParam(text) => text,
        ParameterChoice::Int64Param(number) => number.to_string(),
        ParameterChoice::Uint64Param(number) => number.to_string(),
        ParameterChoice::BoolParam(flag) => flag.to_string(),
        ParameterChoice::DoubleParam(number) => number.to_string(),
    };
    Some((name, text))
}

fn decode_inputs(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
) -> Result<Vec<NamedTensor>, Rejection> {
    if raw.is_empty() {
        return inputs
            .into_iter()
            .map(|mut input| {
                let contents = input.contents.take().unwrap_or_default();
                decode_input(input, |datatype| typed(datatype, contents))
            })
            .collect();
    }
    if raw.len() != inputs.len() {
        return Err(Rejection::invalid(format!(
            "raw_input_contents has {} entries for {} inputs",
            raw.len(),
            inputs.len()
        )));
    }
    inputs
        .into_iter()
        .zip(raw)
        .map(|(input, data)| {
            if input.contents.is_some() {
                return Err(Rejection::invalid(format!(
                    "input '{}' has contents beside raw_input_contents",
                    shorten(&input.name)
                )));
            }
            decode_input(input, |_| Ok(data))
        })
        .collect()
}

fn decode_input(
    input: InferInputTensor,
    data: impl FnOnce(DataType) -> Result<Bytes, String>,
) -> Result<NamedTensor, Rejection> {
    let refuse =
        |text: String| Rejection::invalid(format!("input '{}': {text}", shorten(&input.name)));
    if input.parameters.contains_key("shared_memory_region") {
        return Err(no_shared_memory("input", &input.name));
    }
    let datatype: DataType = input
        .datatype
        .parse()
        .map_err(|error: engine::datatype::UnknownDataType| refuse(error.to_string()))?;
    let shape = input
        .shape
        .iter()
        .map(|&dimension| {
            usize::try_from(dimension)
                .map_err(|_| refuse(format!("dimension {dimension} must not be negative")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let data = data(datatype).map_err(refuse)?;
    let tensor = Tensor::new(datatype, shape, data).map_err(|error| refuse(error.to_string()))?;
    Ok(NamedTensor { name: input.name, tensor })
}

/// Clients send whole numbers as either of the two integer types.
fn whole_number(parameter: &InferParameter) -> Option<u64> {
    match parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(number),
        _ => None,
    }
}

fn classes_of(output: &InferRequestedOutputTensor) -> Result<Option<usize>, Rejection> {
    if output.parameters.contains_key("shared_memory_region") {
        return Err(no_shared_memory("output", &output.name));
    }
    let Some(parameter) = output.parameters.get("classification") else { return Ok(None) };
    let count = whole_number(parameter).and_then(|count| usize::try_from(count).ok());
    count.map(Some).ok_or_else(|| {
        let name = shorten(&output.name);
        Rejection::invalid(format!("output '{name}': classification must be a whole number"))
    })
}

/// KServe's messages carry the model's name in the field that Triton's use for the repository.
pub(super) fn named(repository: String, model: String) -> Result<String, Rejection> {
    match (repository.is_empty(), model.is_empty()) {
        (true, false) => Ok(model),
        (false, true) => Ok(repository),
        (true, true) => Err(Rejection::invalid("model_name is missing")),
        (false, false) => {
            Err(Rejection::new(Kind::Unsupported, "repository_name is not supported"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::inference::InferTensorContents;

    use super::*;

    fn request(datatype: &str, shape: &[i64], contents: InferTensorContents) -> ModelInferRequest {
        ModelInferRequest {
            model_name: "m".into(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: datatype.into(),
                shape: shape.into(),
                contents: Some(contents),
                ..InferInputTensor::default()
            }],
            ..ModelInferRequest::default()
        }
    }

    fn decoded(request: ModelInferRequest) -> Result<Tensor, String> {
        let (call, _) =
            decode(request, (Caller::local(), Arc::default()), Arrival::now(), |_| Ok(None))
                .map_err(|error| error.to_string())?;
        match call.inputs {
            Inputs::Named(mut inputs) => Ok(inputs.remove(0).tensor),
            Inputs::Raw(_) => unreachable!("gRPC has no raw form"),
        }
    }

    #[test]
    fn typed_contents_become_the_bytes_of_their_datatype() {
        let contents = InferTensorContents { int_contents: vec![-1, 2], ..Default::default() };
        let tensor = decoded(request("INT16", &[2], contents)).unwrap();
        assert_eq!(tensor.data().as_ref(), [255, 255, 2, 0]);
        let contents = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"ab")],
            ..Default::default()
        };
        let tensor = decoded(request("BYTES", &[1], contents)).unwrap();
        assert_eq!(tensor.data().as_ref(), [2, 0, 0, 0, b'a', b'b']);
    }

    #[test]
    fn contents_of_another_type_or_range_are_refused() {
        let ints = |values: &[i32]| InferTensorContents {
            int_contents: values.into(),
            ..Default::default()
        };
        for (datatype, shape, contents, what) in [
            ("INT8", vec![1], ints(&[200]), "element 0 is 200, not INT8"),
            ("FP32", vec![1], ints(&[1]), "FP32 belongs in fp32_contents"),
            ("FP16", vec![1], ints(&[1]), "FP16 needs raw_input_contents"),
            ("INT32", vec![-1], ints(&[1]), "dimension -1 must not be negative"),
            ("INT32", vec![3], ints(&[1]), "needs 12 bytes, got 4"),
            ("INT32", vec![1 << 62, 64], ints(&[1]), "more elements than fit"),
        ] {
            let error = decoded(request(datatype, &shape, contents)).unwrap_err();
            assert!(error.contains("input 'x'") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn raw_contents_must_match_the_inputs_one_to_one() {
        let mut both = request("UINT8", &[1], InferTensorContents::default());
        both.raw_input_contents = vec![Bytes::from_static(b"a")];
        assert!(decoded(both.clone()).unwrap_err().contains("beside raw_input_contents"));
        both.inputs[0].contents = None;
        assert_eq!(decoded(both.clone()).unwrap().data().as_ref(), b"a");
        both.raw_input_contents.push(Bytes::new());
        assert!(decoded(both).unwrap_err().contains("2 entries for 1 inputs"));
    }
}
