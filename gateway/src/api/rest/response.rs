//! The body of an infer answer: JSON, with the binary outputs behind it.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use engine::Tensor;
use http::HeaderValue;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};

use super::encoding::{self, Coding};
use super::request::{InferRequest, JSON_LENGTH, WantedOutput};
use super::respond;
use crate::api::classification;
use crate::error::Rejection;
use crate::pipeline::Reply;

/// How the caller wants its answer; what is left of a request once its tensors are on their way.
#[derive(Debug)]
pub(super) struct Wanted {
    id: String,
    outputs: Vec<WantedOutput>,
    binary_by_default: bool,
    coding: Option<Coding>,
}

impl Wanted {
    /// Splits a request into what the pipeline and what the answer needs.
    pub(super) fn split(
        request: InferRequest,
        coding: Option<Coding>,
    ) -> (crate::types::Inputs, Vec<String>, Self) {
        let InferRequest { id, inputs, outputs, binary_by_default } = request;
        let names = outputs.iter().map(|output| output.name.clone()).collect();
        (inputs, names, Self { id, outputs, binary_by_default, coding })
    }

    /// Writes the answer.
    pub(super) fn encode(&self, reply: &Reply) -> Result<Response, Rejection> {
        let served = &reply.served;
        let mut json = Vec::with_capacity(256);
        json.push(b'{');
        if !self.id.is_empty() {
            json.extend_from_slice(b"\"id\":");
            string(&mut json, &self.id);
            json.push(b',');
        }
        json.extend_from_slice(b"\"model_name\":");
        string(&mut json, served.model.as_str());
        json.extend_from_slice(format!(",\"model_version\":\"{}\"", served.version).as_bytes());
        json.extend_from_slice(b",\"outputs\":[");
        let mut blobs: Vec<Bytes> = Vec::new();
        for (position, (index, tensor)) in reply.outputs.iter().enumerate() {
            if position > 0 {
                json.push(b',');
            }
            let output = &served.signature().outputs[*index];
            let wanted = self.outputs.get(position);
            let batched = served.signature().max_batch_size > 0;
            let tensor = match wanted.and_then(|wanted| wanted.classes) {
                None => Cow::Borrowed(tensor),
                Some(k) => Cow::Owned(classification::classify(output, tensor, k, batched)?),
            };
            let binary = wanted.map_or(self.binary_by_default, |wanted| wanted.binary);
            write_output(&mut json, &output.spec.name, &tensor, binary)?;
            if binary {
                blobs.push(tensor.data().clone());
            }
        }
        json.extend_from_slice(b"]}");
        Ok(self.respond(json, &blobs))
    }

    fn respond(&self, json: Vec<u8>, blobs: &[Bytes]) -> Response {
        let json_length = json.len();
        let binary_length: usize = blobs.iter().map(Bytes::len).sum();
        let mut body = json;
        body.reserve(binary_length);
        for blob in blobs {
            body.extend_from_slice(blob);
        }
        let compressed =
            self.coding.and_then(|coding| Some((coding, encoding::encode(coding, &body)?)));
        let (coding, body) = match compressed {
            Some((coding, small)) => (Some(coding), small),
            None => (None, body),
        };
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        if binary_length > 0 {
            let name = HeaderName::from_static(JSON_LENGTH);
            headers.insert(name, HeaderValue::from(json_length));
            let octets = HeaderValue::from_static("application/octet-stream");
            headers.insert(CONTENT_TYPE, octets);
        } else {
            headers.insert(CONTENT_TYPE, respond::JSON);
        }
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        response
    }
}

fn write_output(
    json: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    binary: bool,
) -> Result<(), Rejection> {
    json.extend_from_slice(b"{\"name\":");
    string(json, name);
    json.extend_from_slice(
        format!(",\"datatype\":\"{}\",\"shape\":[", tensor.datatype()).as_bytes(),
    );
    for (axis, dimension) in tensor.shape().iter().enumerate() {
        let comma = if axis > 0 { "," } else { "" };
        json.extend_from_slice(format!("{comma}{dimension}").as_bytes());
    }
    json.push(b']');
    if binary {
        let size = tensor.data().len();
        json.extend_from_slice(
            format!(",\"parameters\":{{\"binary_data_size\":{size}}}").as_bytes(),
        );
    } else {
        json.extend_from_slice(b",\"data\":");
        crate::codec::json::write_data(tensor, json).map_err(|error| {
            Rejection::invalid(format!("output '{name}': {error}; ask for binary data"))
        })?;
    }
    json.push(b'}');
    Ok(())
}

fn string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("memory takes every byte");
}
