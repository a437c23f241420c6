//! The body of an infer answer: JSON, with the binary outputs behind it.

use std::borrow::Cow;

use bytes::Bytes;
use engine::Tensor;
use http::HeaderValue;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};

use super::encoding::{self, Coding};
use super::payload::Payload;
use super::request::{InferRequest, JSON_LENGTH, WantedOutput};
use super::respond;
use crate::api::classification;
use crate::api::naming::Names;
use crate::codec::json::{write_data, write_text};
use crate::error::Rejection;
use crate::pipeline::Reply;
use crate::types::AnsweredBy;

/// Outputs that are smaller than this altogether are copied.
const WORTH_A_PIECE: usize = 4096;

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
        let InferRequest { id, inputs, outputs, binary_by_default, .. } = request;
        let names = outputs.iter().map(|output| output.name.clone()).collect();
        (inputs, names, Self { id, outputs, binary_by_default, coding })
    }

    /// Writes the answer.
    pub(super) fn encode(&self, reply: &Reply) -> Result<Response<Payload>, Rejection> {
        let answer = &reply.answer;
        let names = Names::of(answer);
        let mut json = Vec::with_capacity(256);
        json.push(b'{');
        if !self.id.is_empty() {
            json.extend_from_slice(b"\"id\":");
            write_text(&self.id, &mut json);
            json.push(b',');
        }
        json.extend_from_slice(b"\"model_name\":");
        write_text(answer.model.as_str(), &mut json);
        json.extend_from_slice(b",\"model_version\":");
        write_version(&answer.version, &mut json);
        json.extend_from_slice(b",\"parameters\":{");
        for (position, (name, value)) in names.parameters().enumerate() {
            json.extend_from_slice(if position > 0 { b",\"" } else { b"\"" });
            json.extend_from_slice(name.as_bytes());
            json.extend_from_slice(b"\":");
            write_text(value, &mut json);
        }
        json.extend_from_slice(b"},\"outputs\":[");
        let mut blobs: Vec<Bytes> = Vec::new();
        for (position, (index, tensor)) in answer.outputs.iter().enumerate() {
            if position > 0 {
                json.push(b',');
            }
            let output = &answer.signature.outputs[*index];
            let wanted = self.outputs.get(position);
            let batched = answer.signature.max_batch_size > 0;
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
        let mut response = self.respond(json, blobs);
        names.mark(response.headers_mut());
        respond::mark(response.headers_mut(), reply.is_replayed, answer.flags.as_deref());
        Ok(response)
    }

    fn respond(&self, json: Vec<u8>, blobs: Vec<Bytes>) -> Response<Payload> {
        let json_length = json.len();
        let is_binary = blobs.iter().any(|blob| !blob.is_empty());
        let (coding, payload) = self.compress(assemble(json, blobs));
        let mut response = Response::new(payload);
        let headers = response.headers_mut();
        if is_binary {
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

    /// Compresses the pieces of an answer where the caller wants it and it is worth it.
    fn compress(&self, mut pieces: Vec<Bytes>) -> (Option<Coding>, Payload) {
        if let Some(coding) = self.coding {
            if pieces.len() > 1 {
                pieces = vec![pieces.concat().into()];
            }
            if let Some(small) = encoding::encode(coding, &pieces[0]) {
                return (Some(coding), Payload::Whole(small.into()));
            }
        }
        match pieces.as_mut_slice() {
            [whole] => (None, Payload::Whole(std::mem::take(whole))),
            _ => (None, Payload::pieces(pieces)),
        }
    }
}

/// The pieces of an answer: large outputs stay where they are. Small ones go behind the JSON: that
/// costs no more than one more piece, and lets go of the batch's memory, which a slow reader of
/// one row would hold.
fn assemble(mut json: Vec<u8>, blobs: Vec<Bytes>) -> Vec<Bytes> {
    let size: usize = blobs.iter().map(Bytes::len).sum();
    if size < WORTH_A_PIECE {
        json.reserve_exact(size);
        for blob in &blobs {
            json.extend_from_slice(blob);
        }
        return vec![json.into()];
    }
    std::iter::once(json.into()).chain(blobs).collect()
}

fn write_output(
    json: &mut Vec<u8>,
    name: &str,
    tensor: &Tensor,
    binary: bool,
) -> Result<(), Rejection> {
    json.extend_from_slice(b"{\"name\":");
    write_text(name, json);
    json.extend_from_slice(b",\"datatype\":\"");
    json.extend_from_slice(tensor.datatype().name().as_bytes());
    json.extend_from_slice(b"\",\"shape\":[");
    for (axis, dimension) in tensor.shape().iter().enumerate() {
        if axis > 0 {
            json.push(b',');
        }
        write_number(*dimension, json);
    }
    json.push(b']');
    if binary {
        json.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
        write_number(tensor.data().len(), json);
        json.push(b'}');
    } else {
        json.extend_from_slice(b",\"data\":");
        write_data(tensor, json).map_err(|error| {
            Rejection::invalid(format!("output '{name}': {error}; ask for binary data"))
        })?;
    }
    json.push(b'}');
    Ok(())
}

fn write_version(version: &AnsweredBy, json: &mut Vec<u8>) {
    match version {
        AnsweredBy::Version(version) => {
            json.push(b'"');
            write_number(version.0, json);
            json.push(b'"');
        }
        other => write_text(&other.to_string(), json),
    }
}

fn write_number(number: impl itoa::Integer, json: &mut Vec<u8>) {
    json.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_outputs_are_sent_from_where_they_are() {
        let blob = Bytes::from(vec![7; WORTH_A_PIECE]);
        let pieces = assemble(b"{}".to_vec(), vec![blob.clone()]);
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[1].as_ptr(), blob.as_ptr());
    }

    #[test]
    fn small_outputs_stand_behind_the_json_in_order() {
        let blobs = vec![Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
        assert_eq!(assemble(b"{}".to_vec(), blobs), ["{}abc"]);
    }

    #[test]
    fn compressed_answers_hold_the_json_and_every_output() {
        let blob = Bytes::from(vec![7; WORTH_A_PIECE]);
        let coding = Some(Coding::Gzip);
        let wanted = Wanted { id: String::new(), outputs: vec![], binary_by_default: true, coding };
        let (coding, payload) = wanted.compress(vec![Bytes::from_static(b"{}"), blob.clone()]);
        assert_eq!(coding, Some(Coding::Gzip));
        let Payload::Whole(small) = payload else { panic!("one piece") };
        let mut inflated = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&small[..]), &mut inflated)
            .unwrap();
        assert_eq!(inflated, [b"{}", &blob[..]].concat());
    }
}
