//! How infer requests were decoded with `serde_json` alone: what the reader is compared with.

use std::borrow::Cow;

use bytes::Bytes;
use engine::{DataType, Tensor};
use http::header::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{InferRequest, WantedOutput, json_length};
use crate::api::parameters::{SchedulePolicy, no_shared_memory, refuse_reserved, shorten};
use crate::codec::{json, tensors};
use crate::error::Rejection;
use crate::types::{Inputs, NamedTensor};

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Body<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(borrow, default)]
    outputs: Option<Vec<Output<'a>>>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Input<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    shape: Vec<u64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct Output<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    parameters: Option<Map<String, Value>>,
}

/// Decodes a body that is already inflated.
pub(in crate::api::rest) fn decode(
    headers: &HeaderMap,
    body: Bytes,
) -> Result<InferRequest, Rejection> {
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
    let parsed = parse(&json)?;
    refuse_reserved(parsed.parameters.iter().flat_map(|parameters| parameters.keys()))?;
    let mut inputs = Vec::with_capacity(parsed.inputs.len());
    for input in &parsed.inputs {
        inputs.push(decode_input(input, &mut blobs)?);
    }
    if !blobs.is_empty() {
        return Err(Rejection::invalid(format!(
            "unexpected additional input data: {} bytes follow the last binary input",
            blobs.len()
        )));
    }
    let wanted_binary = flag(parsed.parameters.as_ref(), "binary_data_output", "parameters")?;
    // A request that brings binary data and lists no outputs gets binary data back.
    let sent_binary = parsed.inputs.iter().any(|input| binary_size(input).is_some());
    let binary_by_default = wanted_binary.unwrap_or(sent_binary && parsed.outputs.is_none());
    let outputs = parsed.outputs.unwrap_or_default();
    let outputs = outputs
        .iter()
        .map(|output| decode_output(output, binary_by_default))
        .collect::<Result<_, _>>()?;
    let id = parsed.id.unwrap_or_default().into_owned();
    let given = |name: &str| parsed.parameters.as_ref()?.get(name).map(Value::as_u64);
    let policy = SchedulePolicy { priority: given("priority"), timeout: given("timeout") };
    Ok(InferRequest {
        id,
        inputs: Inputs::Named(inputs),
        outputs,
        binary_by_default,
        policy,
        // Tested by themselves.
        parameters: vec![],
    })
}

fn parse(json: &[u8]) -> Result<Body<'_>, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        Rejection::invalid(explain(&path, &inner, json))
    })?;
    deserializer.end().map_err(|error| Rejection::invalid(explain("", &error, json)))?;
    Ok(parsed)
}

fn explain(path: &str, error: &serde_json::Error, json: &[u8]) -> String {
    let place = if path.is_empty() || path == "." { String::new() } else { format!(" at {path}") };
    let hint = match after_error(error, json) {
        Some(rest) if rest.starts_with(b"NaN") || rest.starts_with(b"Infinity") => {
            ": NaN and Infinity are not JSON, send them as binary data"
        }
        _ => "",
    };
    format!("the request is not valid{place}: {error}{hint}")
}

/// The text where the parser stopped, or just before it.
fn after_error<'a>(error: &serde_json::Error, json: &'a [u8]) -> Option<&'a [u8]> {
    let line_start = match error.line().checked_sub(2) {
        None => 0,
        Some(lines) => {
            let ends = json.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
            ends.map(|(index, _)| index + 1).nth(lines)?
        }
    };
    let from = line_start + error.column().saturating_sub(1);
    let rest = json.get(from..)?;
    Some(rest.strip_prefix(b"-").unwrap_or(rest))
}

fn decode_input(input: &Input<'_>, blobs: &mut Bytes) -> Result<NamedTensor, Rejection> {
    let name = input.name.as_ref();
    let refuse = |text: String| Rejection::invalid(format!("input '{}': {text}", shorten(name)));
    refuse_shared_memory("input", name, input.parameters.as_ref())?;
    let size = input.parameters.as_ref().and_then(|p| p.get("binary_data_size"));
    let tensor = match (size, input.data) {
        (Some(_), Some(_)) => return Err(refuse("has both data and binary_data_size".into())),
        (None, None) => return Err(refuse("has neither data nor binary_data_size".into())),
        (None, Some(data)) => {
            let datatype: DataType = input
                .datatype
                .parse()
                .map_err(|e: engine::datatype::UnknownDataType| refuse(e.to_string()))?;
            let shape = tensors::dimensions(&input.shape).map_err(refuse)?;
            json::oracle::parse_data(data.get(), datatype, shape).map_err(refuse)?
        }
        (Some(size), None) => {
            let size = size
                .as_u64()
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(|| refuse("binary_data_size must be a whole number".into()))?;
            if size > blobs.len() {
                return Err(refuse(format!(
                    "binary_data_size is {size}, only {} bytes are left in the body",
                    blobs.len()
                )));
            }
            let datatype: DataType = input
                .datatype
                .parse()
                .map_err(|e: engine::datatype::UnknownDataType| refuse(e.to_string()))?;
            let shape = tensors::dimensions(&input.shape).map_err(refuse)?;
            Tensor::new(datatype, shape, blobs.split_to(size))
                .map_err(|error| refuse(error.to_string()))?
        }
    };
    Ok(NamedTensor { name: name.to_owned(), tensor })
}

fn decode_output(output: &Output<'_>, by_default: bool) -> Result<WantedOutput, Rejection> {
    let name = output.name.clone().into_owned();
    let parameters = output.parameters.as_ref();
    refuse_shared_memory("output", &name, parameters)?;
    let place = format!("output '{}'", shorten(&name));
    let classes = match parameters.and_then(|p| p.get("classification")) {
        None => None,
        Some(value) => {
            Some(value.as_u64().and_then(|k| usize::try_from(k).ok()).ok_or_else(|| {
                Rejection::invalid(format!("{place}: classification must be a whole number"))
            })?)
        }
    };
    let binary = flag(parameters, "binary_data", &place)?.unwrap_or(by_default);
    Ok(WantedOutput { name, binary, classes })
}

fn flag(
    parameters: Option<&Map<String, Value>>,
    key: &str,
    place: &str,
) -> Result<Option<bool>, Rejection> {
    match parameters.and_then(|parameters| parameters.get(key)) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(Rejection::invalid(format!("{place}: {key} must be true or false"))),
    }
}

fn binary_size<'a>(input: &'a Input<'_>) -> Option<&'a Value> {
    input.parameters.as_ref()?.get("binary_data_size")
}

fn refuse_shared_memory(
    what: &str,
    name: &str,
    parameters: Option<&Map<String, Value>>,
) -> Result<(), Rejection> {
    match parameters.is_some_and(|parameters| parameters.contains_key("shared_memory_region")) {
        true => Err(no_shared_memory(what, name)),
        false => Ok(()),
    }
}
