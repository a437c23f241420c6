//! The body of an infer request: JSON, JSON followed by binary tensors, or bare bytes.

mod syntax;

use bytes::Bytes;
use engine::datatype::UnknownDataType;
use engine::{DataType, Tensor};
use http::header::HeaderMap;

use crate::api::parameters::{SchedulePolicy, no_shared_memory, refuse_reserved, shorten};
use crate::codec::json;
use crate::codec::json::reader::Scalar;
use crate::error::Rejection;
use crate::types::{Inputs, NamedTensor};
use syntax::{Data, Input, Output};

/// Length of the JSON part of a body with binary tensors, after decompression.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// A decoded infer request.
#[derive(Debug)]
pub(super) struct InferRequest {
    pub(super) id: String,
    pub(super) inputs: Inputs,
    pub(super) outputs: Vec<WantedOutput>,
    /// How outputs go out that do not say so themselves.
    pub(super) binary_by_default: bool,
    pub(super) policy: SchedulePolicy,
    /// Parameters without a meaning here.
    pub(super) parameters: Vec<(String, String)>,
}

/// One entry of `outputs`.
#[derive(Debug)]
pub(super) struct WantedOutput {
    pub(super) name: String,
    pub(super) binary: bool,
    pub(super) classes: Option<usize>,
}

/// Decodes a body that is already inflated.
pub(super) fn decode(headers: &HeaderMap, body: Bytes) -> Result<InferRequest, Rejection> {
    let json_length = json_length(headers, body.len())?;
    if json_length == Some(0) {
        return Ok(InferRequest {
            id: String::new(),
            inputs: Inputs::Raw(body),
            outputs: vec![],
            binary_by_default: true,
            policy: SchedulePolicy::default(),
            parameters: vec![],
        });
    }
    let json = body.slice(..json_length.unwrap_or(body.len()));
    let mut blobs = body.slice(json.len()..);
    let parsed = syntax::parse(&json)?;
    refuse_reserved(parsed.parameters.reserved.iter())?;
    // A request that brings binary data and lists no outputs gets binary data back.
    let has_size = |input: &Input<'_>| input.parameters.binary_data_size.is_some();
    let sent_binary = parsed.inputs.iter().any(has_size);
    let policy = SchedulePolicy {
        priority: parsed.parameters.priority.map(unsigned),
        timeout: parsed.parameters.timeout.map(unsigned),
    };
    let mut inputs = Vec::with_capacity(parsed.inputs.len());
    for input in parsed.inputs {
        inputs.push(decode_input(input, &mut blobs)?);
    }
    if !blobs.is_empty() {
        return Err(Rejection::invalid(format!(
            "unexpected additional input data: {} bytes follow the last binary input",
            blobs.len()
        )));
    }
    let wanted_binary =
        flag(parsed.parameters.binary_data_output, "binary_data_output", &|| "parameters".into())?;
    let binary_by_default = wanted_binary.unwrap_or(sent_binary && parsed.outputs.is_none());
    let outputs = parsed.outputs.unwrap_or_default();
    let outputs = outputs
        .into_iter()
        .map(|output| decode_output(output, binary_by_default))
        .collect::<Result<_, _>>()?;
    Ok(InferRequest {
        id: parsed.id.into_owned(),
        inputs: Inputs::Named(inputs),
        outputs,
        binary_by_default,
        policy,
        parameters: parsed.parameters.others,
    })
}

fn json_length(headers: &HeaderMap, body: usize) -> Result<Option<usize>, Rejection> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse::<usize>().ok());
    match length {
        Some(length) if length <= body => Ok(Some(length)),
        Some(length) => Err(Rejection::invalid(format!(
            "Inference-Header-Content-Length is {length}, the body has {body} bytes"
        ))),
        None => Err(Rejection::invalid(
            "Inference-Header-Content-Length must be a whole number from 0 on",
        )),
    }
}

fn decode_input(input: Input<'_>, blobs: &mut Bytes) -> Result<NamedTensor, Rejection> {
    let name = input.name;
    let refuse = |text: String| Rejection::invalid(format!("input '{}': {text}", shorten(&name)));
    if input.parameters.has_shared_memory {
        return Err(no_shared_memory("input", &name));
    }
    let tensor = match (input.parameters.binary_data_size, input.data) {
        (Some(_), Data::Decoded(_) | Data::Text(_)) => {
            return Err(refuse("has both data and binary_data_size".into()));
        }
        (None, Data::Absent) => {
            return Err(refuse("has neither data nor binary_data_size".into()));
        }
        (None, Data::Decoded(tensor)) => tensor,
        (None, Data::Text(text)) => {
            let datatype = datatype(&input.datatype).map_err(refuse)?;
            let shape = input.shape.dimensions().map_err(refuse)?;
            json::parse_data(text, datatype, shape).map_err(refuse)?
        }
        (Some(size), Data::Absent) => {
            let size = whole(size)
                .ok_or_else(|| refuse("binary_data_size must be a whole number".into()))?;
            if size > blobs.len() {
                return Err(refuse(format!(
                    "binary_data_size is {size}, only {} bytes are left in the body",
                    blobs.len()
                )));
            }
            let datatype = datatype(&input.datatype).map_err(refuse)?;
            let shape = input.shape.dimensions().map_err(refuse)?;
            Tensor::new(datatype, shape, blobs.split_to(size))
                .map_err(|error| refuse(error.to_string()))?
        }
    };
    Ok(NamedTensor { name: name.into_owned(), tensor })
}

fn datatype(text: &str) -> Result<DataType, String> {
    text.parse().map_err(|error: UnknownDataType| error.to_string())
}

fn decode_output(output: Output<'_>, by_default: bool) -> Result<WantedOutput, Rejection> {
    let Output { name, parameters } = output;
    if parameters.has_shared_memory {
        return Err(no_shared_memory("output", &name));
    }
    let place = || format!("output '{}'", shorten(&name));
    let classes = match parameters.classification {
        None => None,
        Some(value) => Some(whole(value).ok_or_else(|| {
            Rejection::invalid(format!("{}: classification must be a whole number", place()))
        })?),
    };
    let binary = flag(parameters.binary_data, "binary_data", &place)?.unwrap_or(by_default);
    Ok(WantedOutput { name: name.into_owned(), binary, classes })
}

fn whole(value: Scalar) -> Option<usize> {
    unsigned(value).and_then(|value| usize::try_from(value).ok())
}

fn unsigned(value: Scalar) -> Option<u64> {
    match value {
        Scalar::Unsigned(value) => Some(value),
        _ => None,
    }
}

fn flag(
    value: Option<Scalar>,
    key: &str,
    place: &dyn Fn() -> String,
) -> Result<Option<bool>, Rejection> {
    match value {
        None => Ok(None),
        Some(Scalar::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(Rejection::invalid(format!("{}: {key} must be true or false", place()))),
    }
}

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
