//! Requests made before the load starts, so that sending one costs no encoding: a JSON body, a
//! JSON body with binary tensors, or an encoded gRPC message.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use prost::Message;
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::InferInputTensor;
use proto::inference::{InferParameter, ModelInferRequest};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dataset::{Column, Dataset};

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wire {
    HttpJson,
    HttpBinary,
    Grpc,
}

/// One request, ready to send.
#[derive(Debug, Clone)]
pub struct Payload {
    pub body: Bytes,
    /// Bytes of JSON in front of binary tensors.
    pub json_length: Option<usize>,
    /// The first row it carries; the others follow, around the end of the data.
    pub first_row: usize,
}

/// Whom requests are for and how much each carries.
#[derive(Debug, Clone)]
pub struct Shape {
    pub model: String,
    /// Empty: the server picks.
    pub version: String,
    /// Rows of each request.
    pub rows: usize,
    pub schedule: Schedule,
}

/// What each request says of its priority and its time, as the schedule policy extension has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Schedule {
    /// From 1, the most urgent; 0 says nothing.
    pub priority: u8,
    /// Zero says nothing.
    pub timeout: Duration,
}

impl Schedule {
    /// The parameters that say something, by name.
    fn parameters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let timeout = u64::try_from(self.timeout.as_micros()).unwrap_or(u64::MAX);
        let all = [("priority", u64::from(self.priority)), ("timeout", timeout)];
        all.into_iter().filter(|(_, value)| *value > 0)
    }
}

/// Builds requests that together carry every row; the last wraps around to the first rows.
///
/// # Errors
/// When a request is to carry no row, or several of a model that takes one.
pub fn build(data: &Dataset, shape: &Shape, wire: Wire) -> anyhow::Result<Vec<Payload>> {
    ensure!(shape.rows > 0, "a request carries at least one row");
    ensure!(!data.is_empty(), "there are no rows");
    ensure!(data.batched || shape.rows == 1, "the model takes one row a request");
    (0..data.len().div_ceil(shape.rows))
        .map(|index| payload(data, shape, wire, index * shape.rows))
        .collect()
}

fn payload(data: &Dataset, shape: &Shape, wire: Wire, first_row: usize) -> anyhow::Result<Payload> {
    let tensors: Vec<Tensor<'_>> =
        data.inputs.iter().map(|column| tensor(data, column, shape.rows, first_row)).collect();
    let (body, json_length) = match wire {
        Wire::HttpJson => (json_body(shape, &tensors)?, None),
        Wire::HttpBinary => {
            let (body, length) = binary_body(shape, &tensors)?;
            (body, Some(length))
        }
        Wire::Grpc => (grpc_message(shape, &tensors), None),
    };
    Ok(Payload { body, json_length, first_row })
}

/// The rows of one request for one input.
struct Tensor<'a> {
    column: &'a Column,
    shape: Vec<i64>,
    bytes: Vec<u8>,
}

fn tensor<'a>(data: &Dataset, column: &'a Column, rows: usize, first: usize) -> Tensor<'a> {
    let bytes = (first..first + rows)
        .flat_map(|row| column.rows[row % column.rows.len()].iter().copied())
        .collect();
    let batch = i64::try_from(rows).expect("a request of so many rows cannot be built");
    let batch = data.batched.then_some(batch);
    let shape = batch.into_iter().chain(column.shape(first).iter().copied()).collect();
    Tensor { column, shape, bytes }
}

/// An input as clients write it: what says how to read the data stands before them.
#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    shape: &'a [i64],
    datatype: &'a str,
    #[serde(skip_serializing_if = "Value::is_null")]
    parameters: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    data: Value,
}

impl<'a> Input<'a> {
    fn new(tensor: &'a Tensor<'a>, parameters: Value, data: Value) -> Self {
        let Tensor { column, shape, .. } = tensor;
        Self { name: &column.name, shape, datatype: &column.datatype, parameters, data }
    }
}

fn json_body(shape: &Shape, tensors: &[Tensor<'_>]) -> anyhow::Result<Bytes> {
    let mut inputs = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let data = numbers(&tensor.column.datatype, &tensor.bytes)?;
        inputs.push(Input::new(tensor, Value::Null, data));
    }
    let inputs = serde_json::to_string(&inputs)?;
    let parameters: Map<String, Value> =
        shape.schedule.parameters().map(|(name, value)| (name.to_owned(), value.into())).collect();
    if parameters.is_empty() {
        return Ok(format!("{{\"inputs\":{inputs}}}").into());
    }
    let parameters = Value::Object(parameters);
    Ok(format!("{{\"inputs\":{inputs},\"parameters\":{parameters}}}").into())
}

fn binary_body(shape: &Shape, tensors: &[Tensor<'_>]) -> anyhow::Result<(Bytes, usize)> {
    let mut inputs = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let parameters = json!({ "binary_data_size": tensor.bytes.len() });
        inputs.push(Input::new(tensor, parameters, Value::Null));
    }
    let inputs = serde_json::to_string(&inputs)?;
    let mut asked = json!({ "binary_data_output": true });
    for (name, value) in shape.schedule.parameters() {
        asked[name] = value.into();
    }
    let mut body = format!("{{\"inputs\":{inputs},\"parameters\":{asked}}}").into_bytes();
    let length = body.len();
    for tensor in tensors {
        body.extend_from_slice(&tensor.bytes);
    }
    Ok((body.into(), length))
}

fn grpc_message(shape: &Shape, tensors: &[Tensor<'_>]) -> Bytes {
    let inputs = tensors.iter().map(|tensor| InferInputTensor {
        name: tensor.column.name.clone(),
        datatype: tensor.column.datatype.clone(),
        shape: tensor.shape.clone(),
        ..InferInputTensor::default()
    });
    let request = ModelInferRequest {
        model_name: shape.model.clone(),
        model_version: shape.version.clone(),
        inputs: inputs.collect(),
        raw_input_contents: tensors.iter().map(|tensor| tensor.bytes.clone().into()).collect(),
        parameters: shape
            .schedule
            .parameters()
            .map(|(name, value)| parameter(name, value))
            .collect(),
        ..ModelInferRequest::default()
    };
    request.encode_to_vec().into()
}

fn parameter(name: &str, value: u64) -> (String, InferParameter) {
    let choice = ParameterChoice::Uint64Param(value);
    (name.to_owned(), InferParameter { parameter_choice: Some(choice) })
}

/// Little-endian elements as JSON numbers.
fn numbers(datatype: &str, bytes: &[u8]) -> anyhow::Result<Value> {
    macro_rules! elements {
        ($type:ty) => {
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|element| json!(<$type>::from_le_bytes(*element)))
                .collect()
        };
    }
    Ok(match datatype {
        "FP32" => elements!(f32),
        "FP64" => elements!(f64),
        "INT8" => elements!(i8),
        "INT16" => elements!(i16),
        "INT32" => elements!(i32),
        "INT64" => elements!(i64),
        "UINT8" => elements!(u8),
        "UINT16" => elements!(u16),
        "UINT32" => elements!(u32),
        "UINT64" => elements!(u64),
        "BOOL" => bytes.iter().map(|element| Value::Bool(*element != 0)).collect(),
        "BYTES" => texts(bytes)?,
        other => bail!("{other} has no JSON form here"),
    })
}

/// Elements with their length in front as JSON strings.
fn texts(mut bytes: &[u8]) -> anyhow::Result<Value> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let cut = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length))?);
        let (text, rest) = cut.context("a text is shorter than it says")?;
        texts.push(Value::from(std::str::from_utf8(text).context("a text is no UTF-8")?));
        bytes = rest;
    }
    Ok(texts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(rows: usize) -> Dataset {
        let row = |index: u8| {
            let values = [f32::from(index), 0.4375];
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        };
        let column = Column {
            name: "pixels".to_owned(),
            datatype: "FP32".to_owned(),
            shapes: vec![vec![2]],
            rows: (0u8..).take(rows).map(row).collect(),
        };
        Dataset { inputs: vec![column], labels: None, batched: true }
    }

    fn shape(rows: usize) -> Shape {
        Shape {
            model: "digits".to_owned(),
            version: "2".to_owned(),
            rows,
            schedule: Schedule::default(),
        }
    }

    #[test]
    fn every_row_is_carried_and_the_last_request_wraps_around() {
        let payloads = build(&data(5), &shape(2), Wire::HttpJson).unwrap();
        let first: Vec<usize> = payloads.iter().map(|payload| payload.first_row).collect();
        assert_eq!(first, [0, 2, 4]);
        let last: Value = serde_json::from_slice(&payloads[2].body).unwrap();
        assert_eq!(last["inputs"][0]["data"], json!([4.0, 0.4375, 0.0, 0.4375]));
        assert_eq!(last["inputs"][0]["shape"], json!([2, 2]));
    }

    #[test]
    fn binary_tensors_follow_their_json() {
        let payload = build(&data(1), &shape(1), Wire::HttpBinary).unwrap().remove(0);
        let length = payload.json_length.unwrap();
        let head: Value = serde_json::from_slice(&payload.body[..length]).unwrap();
        assert_eq!(head["inputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!(payload.body.len(), length + 8);
        assert_eq!(payload.body[length + 4..], 0.4375f32.to_le_bytes());
    }

    #[test]
    fn a_grpc_message_names_model_version_and_tensors() {
        let payload = build(&data(3), &shape(2), Wire::Grpc).unwrap().remove(1);
        let request = ModelInferRequest::decode(payload.body).unwrap();
        assert_eq!((request.model_name.as_str(), request.model_version.as_str()), ("digits", "2"));
        assert_eq!(request.inputs[0].shape, [2, 2]);
        assert_eq!(request.raw_input_contents[0].len(), 16);
    }

    #[test]
    fn numbers_of_every_width_come_back_from_their_bytes() {
        assert_eq!(numbers("INT64", &(-5i64).to_le_bytes()).unwrap(), json!([-5]));
        assert_eq!(numbers("UINT8", &[0, 255]).unwrap(), json!([0, 255]));
        assert_eq!(numbers("BOOL", &[0, 1]).unwrap(), json!([false, true]));
        assert_eq!(numbers("BYTES", b"\x02\0\0\0hi\0\0\0\0").unwrap(), json!(["hi", ""]));
        assert!(numbers("BYTES", &[9, 0, 0, 0]).is_err());
        assert!(numbers("FP16", &[]).is_err());
    }

    #[test]
    fn several_rows_need_a_model_that_takes_them() {
        let mut one = data(2);
        one.batched = false;
        assert!(build(&one, &shape(2), Wire::Grpc).is_err());
        assert!(build(&one, &shape(0), Wire::Grpc).is_err());
        let alone = build(&one, &shape(1), Wire::Grpc).unwrap().remove(0);
        assert_eq!(ModelInferRequest::decode(alone.body).unwrap().inputs[0].shape, [2]);
    }
}
