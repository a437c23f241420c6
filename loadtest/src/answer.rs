//! The answer to an inference: who gave it, and its outputs as numbers, from any form of the wire.

use bytes::Bytes;
use http::HeaderName;
use memchr::memmem;
use prost::Message;
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::{InferTensorContents, ModelInferResponse};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Bytes of JSON in front of binary tensors.
pub const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// What a model answered.
#[derive(Debug)]
pub struct Answer {
    /// The version that the server says has answered.
    pub version: String,
    pub origin: Origin,
    pub outputs: Vec<Output>,
}

/// What an answer says of where it comes from, beside its version; a server without routes says
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    pub prediction: Option<String>,
    pub route: Option<String>,
    pub arm: Option<String>,
    /// Another arm than the caller's own answered.
    pub fallback: bool,
}

/// One output of an answer.
#[derive(Debug)]
pub struct Output {
    pub name: String,
    pub datatype: String,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Json(Box<RawValue>),
    Binary(Bytes),
    Contents(InferTensorContents),
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    model_version: String,
    #[serde(default)]
    parameters: Map<String, Value>,
    outputs: Vec<BodyOutput>,
}

#[derive(Deserialize)]
struct BodyOutput {
    name: String,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
}

/// Reads the body of a successful infer call.
///
/// # Errors
/// When it is not what the protocol says.
pub fn from_http(body: &Bytes, json_length: Option<usize>) -> Result<Answer, Failure> {
    let length = json_length.unwrap_or(body.len());
    if length > body.len() {
        return Err(Failure::malformed("the length of its JSON"));
    }
    let head: Body = serde_json::from_slice(&body[..length]).map_err(Failure::malformed)?;
    let mut binary = body.slice(length..);
    let mut outputs = Vec::with_capacity(head.outputs.len());
    for BodyOutput { name, datatype, parameters, data } in head.outputs {
        let data = match (data, parameters.binary_data_size) {
            (Some(json), None) => Data::Json(json),
            (None, Some(size)) if size <= binary.len() => Data::Binary(binary.split_to(size)),
            _ => return Err(Failure::malformed(format!("the data of output '{name}'"))),
        };
        outputs.push(Output { name, datatype, data });
    }
    let parameters = head.parameters;
    let origin = Origin::of(|name| Some(parameters.get(name)?.as_str()?.to_owned()));
    Ok(Answer { version: head.model_version, origin, outputs })
}

/// Reads an encoded `ModelInferResponse`.
///
/// # Errors
/// When it is none.
pub fn from_grpc(message: Bytes) -> Result<Answer, Failure> {
    from_message(ModelInferResponse::decode(message).map_err(Failure::malformed)?)
}

/// Reads a decoded `ModelInferResponse`.
///
/// # Errors
/// When its outputs do not fit together.
pub fn from_message(answer: ModelInferResponse) -> Result<Answer, Failure> {
    let raw = answer.raw_output_contents;
    if !raw.is_empty() && raw.len() != answer.outputs.len() {
        return Err(Failure::malformed("outputs and their raw contents differ in number"));
    }
    let mut raw = raw.into_iter();
    let outputs = answer
        .outputs
        .into_iter()
        .map(|output| Output {
            name: output.name,
            datatype: output.datatype,
            data: match raw.next() {
                Some(bytes) => Data::Binary(bytes),
                None => Data::Contents(output.contents.unwrap_or_default()),
            },
        })
        .collect();
    let parameters = answer.parameters;
    let origin = Origin::of(|name| match parameters.get(name)?.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(text) => Some(text.clone()),
        _ => None,
    });
    Ok(Answer { version: answer.model_version, origin, outputs })
}

/// The version that an answer names, found without reading the rest; empty where it names none.
#[must_use]
pub fn version_in_json(json: &[u8]) -> &str {
    const NAME: &[u8] = br#""model_version""#;
    let value = memmem::find(json, NAME).and_then(|at| {
        let rest = json[at + NAME.len()..].trim_ascii_start().strip_prefix(b":")?;
        let text = rest.trim_ascii_start().strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', text)?;
        std::str::from_utf8(&text[..end]).ok()
    });
    value.unwrap_or_default()
}

/// The same of an encoded `ModelInferResponse`.
#[must_use]
pub fn version_in_message(mut message: &[u8]) -> &str {
    const VERSION: u64 = 2;
    const BYTES: u64 = 2;
    // Its fields before the outputs are all text; any other field ends the search.
    while let Some(key) = varint(&mut message).filter(|key| key & 7 == BYTES) {
        let Some(length) = varint(&mut message).and_then(|length| usize::try_from(length).ok())
        else {
            break;
        };
        let Some((text, rest)) = message.split_at_checked(length) else { break };
        if key >> 3 == VERSION {
            return std::str::from_utf8(text).unwrap_or_default();
        }
        message = rest;
    }
    ""
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl Origin {
    /// From the response parameters of that name that are text.
    fn of(text: impl Fn(&str) -> Option<String>) -> Self {
        Self {
            prediction: text("prediction_id"),
            route: text("route"),
            arm: text("arm"),
            fallback: text("fallback").as_deref() == Some("true"),
        }
    }
}

impl Output {
    /// Its elements in order, as numbers; `None` when they are text or malformed.
    #[must_use]
    pub fn numbers(&self) -> Option<Vec<f64>> {
        match &self.data {
            Data::Json(json) => from_json(json.get()),
            Data::Binary(bytes) => from_bytes(&self.datatype, bytes),
            Data::Contents(contents) => from_contents(&self.datatype, contents),
        }
    }
}

fn from_json(text: &str) -> Option<Vec<f64>> {
    // Most servers answer flat; nested lists are allowed too.
    if let Ok(flat) = serde_json::from_str(text) {
        return Some(flat);
    }
    let mut numbers = Vec::new();
    flatten(&serde_json::from_str(text).ok()?, &mut numbers)?;
    Some(numbers)
}

fn flatten(value: &Value, numbers: &mut Vec<f64>) -> Option<()> {
    let number = match value {
        Value::Array(values) => {
            return values.iter().try_for_each(|value| flatten(value, numbers));
        }
        Value::Bool(value) => f64::from(u8::from(*value)),
        other => other.as_f64()?,
    };
    numbers.push(number);
    Some(())
}

#[expect(clippy::cast_precision_loss, reason = "answers are compared within a tolerance")]
fn from_bytes(datatype: &str, bytes: &[u8]) -> Option<Vec<f64>> {
    macro_rules! elements {
        ($type:ty) => {
            elements!($type, |value| f64::from(value))
        };
        ($type:ty, $into:expr) => {{
            let (elements, rest) = bytes.as_chunks();
            let into: fn($type) -> f64 = $into;
            let numbers = elements.iter().map(|element| into(<$type>::from_le_bytes(*element)));
            rest.is_empty().then(|| numbers.collect())
        }};
    }
    match datatype {
        "FP32" => elements!(f32),
        "FP64" => elements!(f64),
        "INT8" => elements!(i8),
        "INT16" => elements!(i16),
        "INT32" => elements!(i32),
        "INT64" => elements!(i64, |value| value as f64),
        "BOOL" | "UINT8" => elements!(u8),
        "UINT16" => elements!(u16),
        "UINT32" => elements!(u32),
        "UINT64" => elements!(u64, |value| value as f64),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "answers are compared within a tolerance")]
fn from_contents(datatype: &str, contents: &InferTensorContents) -> Option<Vec<f64>> {
    Some(match datatype {
        "FP32" => contents.fp32_contents.iter().copied().map(f64::from).collect(),
        "FP64" => contents.fp64_contents.clone(),
        "BOOL" => contents.bool_contents.iter().map(|v| f64::from(u8::from(*v))).collect(),
        "INT8" | "INT16" | "INT32" => {
            contents.int_contents.iter().copied().map(f64::from).collect()
        }
        "INT64" => contents.int64_contents.iter().map(|value| *value as f64).collect(),
        "UINT8" | "UINT16" | "UINT32" => {
            contents.uint_contents.iter().copied().map(f64::from).collect()
        }
        "UINT64" => contents.uint64_contents.iter().map(|value| *value as f64).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::inference::InferParameter;
    use proto::inference::model_infer_response::InferOutputTensor;

    fn http(body: &[u8], length: Option<usize>) -> Result<Answer, Failure> {
        from_http(&Bytes::copy_from_slice(body), length)
    }

    fn numbers(answer: &Answer) -> Vec<f64> {
        answer.outputs[0].numbers().unwrap()
    }

    #[test]
    fn flat_and_nested_json_read_the_same() {
        for data in ["[1.5,-2.0]", "[[1.5],[-2.0]]"] {
            let body = format!(
                r#"{{"model_version":"2","outputs":[
                    {{"name":"y","datatype":"FP32","shape":[2,1],"data":{data}}}]}}"#
            );
            let answer = http(body.as_bytes(), None).unwrap();
            assert_eq!(answer.version, "2");
            assert_eq!(version_in_json(body.as_bytes()), "2");
            assert_eq!(numbers(&answer), [1.5, -2.0]);
        }
    }

    #[test]
    fn a_version_is_found_however_it_is_spaced_and_may_be_missing() {
        assert_eq!(version_in_json(br#"{"model_version" : "1.2","outputs":[]}"#), "1.2");
        assert_eq!(version_in_json(br#"{"model_version":7}"#), "");
        assert_eq!(version_in_json(b"{}"), "");
        assert_eq!(version_in_message(b""), "");
        assert_eq!(version_in_message(&[10, 200, 1]), "");
    }

    #[test]
    fn binary_outputs_are_cut_from_behind_the_json() {
        let mut body = br#"{"model_version":"1","outputs":[{"name":"y","datatype":"FP32",
            "shape":[1],"parameters":{"binary_data_size":4}}]}"#
            .to_vec();
        let length = body.len();
        body.extend(2.5f32.to_le_bytes());
        assert_eq!(numbers(&http(&body, Some(length)).unwrap()), [2.5]);
        body.pop();
        assert!(http(&body, Some(length)).is_err());
        assert!(http(&body, Some(body.len() + 1)).is_err());
    }

    #[test]
    fn an_answer_says_where_it_comes_from_over_both_protocols() {
        let expected = Origin {
            prediction: Some("p".to_owned()),
            route: Some("digits".to_owned()),
            arm: Some("canary".to_owned()),
            fallback: true,
        };
        let body = br#"{"model_version":"1","outputs":[],"parameters":{"arm":"canary",
            "fallback":"true","prediction_id":"p","route":"digits","other":7}}"#;
        assert_eq!(http(body, None).unwrap().origin, expected);
        let named = [("prediction_id", "p"), ("route", "digits"), ("arm", "canary")];
        let parameters = named.into_iter().chain([("fallback", "true")]).map(|(name, text)| {
            let choice = Some(ParameterChoice::StringParam(text.to_owned()));
            (name.to_owned(), InferParameter { parameter_choice: choice })
        });
        let answer = ModelInferResponse {
            parameters: parameters.collect(),
            ..ModelInferResponse::default()
        };
        assert_eq!(from_grpc(answer.encode_to_vec().into()).unwrap().origin, expected);
        let silent = http(br#"{"model_version":"1","outputs":[]}"#, None).unwrap();
        assert_eq!(silent.origin, Origin::default());
    }

    #[test]
    fn grpc_answers_read_raw_and_typed_contents() {
        let mut answer = ModelInferResponse {
            model_version: "3".to_owned(),
            outputs: vec![InferOutputTensor {
                name: "y".to_owned(),
                datatype: "INT64".to_owned(),
                ..InferOutputTensor::default()
            }],
            raw_output_contents: vec![Bytes::copy_from_slice(&7i64.to_le_bytes())],
            ..ModelInferResponse::default()
        };
        assert_eq!(numbers(&from_grpc(answer.encode_to_vec().into()).unwrap()), [7.0]);
        assert_eq!(version_in_message(&answer.encode_to_vec()), "3");
        answer.raw_output_contents.clear();
        let contents = InferTensorContents { int64_contents: vec![8], ..Default::default() };
        answer.outputs[0].contents = Some(contents);
        assert_eq!(numbers(&from_grpc(answer.encode_to_vec().into()).unwrap()), [8.0]);
    }
}
