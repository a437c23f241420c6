//! The protocol over gRPC. Calls are unary and neither side compresses, so a message is one frame:
//! a byte that says so, the length, the message. Tensors are sent from where they are.

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::InferInputTensor;
use proto::inference::{
    InferParameter, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ServerReadyRequest, ServerReadyResponse,
};
use tonic::{Code, Status};

use super::line::{Exchanged, unsendable};
use super::payload::Payload;
use super::{Answer, Attempt, Declared, Description, Line, Name, marks, tensor};
use crate::codec::contents::typed;
use crate::upstream::failure::{Cause, Failure, plain};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Flag and length of a frame.
const FRAME: usize = 5;
/// `ModelInferRequest.raw_input_contents`.
const RAW_INPUT: u32 = 7;

/// An endpoint that speaks gRPC.
#[derive(Debug)]
pub(in crate::upstream) struct Client {
    line: Line,
}

impl Client {
    pub(super) fn new(line: Line) -> Self {
        Self { line }
    }

    pub(super) async fn infer(&self, attempt: &Attempt<'_>) -> Result<Answer, Failure> {
        let mut request = self.request("ModelInfer", encode(attempt)?)?;
        marks(attempt, request.headers_mut())?;
        request.headers_mut().insert(TIMEOUT, timeout(attempt.patience));
        decode(read(self.line.exchange(request).await?)?)
    }

    pub(super) async fn ready(&self) -> Result<(), Failure> {
        let answer: ServerReadyResponse = self.call("ServerReady", &ServerReadyRequest {}).await?;
        is_ready(answer.ready, "the server is not ready")
    }

    pub(super) async fn describe(&self, of: Name<'_>) -> Result<Description, Failure> {
        let name = of.model.to_owned();
        let version = of.version.unwrap_or_default().to_owned();
        let asked = ModelReadyRequest { name: name.clone(), version: version.clone() };
        let answer: ModelReadyResponse = self.call("ModelReady", &asked).await?;
        is_ready(answer.ready, "the model is not ready")?;
        let asked = ModelMetadataRequest { name: name.clone(), version: version.clone() };
        let metadata: ModelMetadataResponse = self.call("ModelMetadata", &asked).await?;
        let asked = ModelConfigRequest { name, version };
        let max_batch_size = match self.call::<ModelConfigResponse>("ModelConfig", &asked).await {
            Ok(answer) => answer.config.map(|config| config.max_batch_size),
            Err(failure) if failure.cause.may_retry() => return Err(failure),
            // Not every server has one.
            Err(_) => None,
        };
        let declared = |all: Vec<proto::inference::model_metadata_response::TensorMetadata>| {
            let each = all.into_iter();
            each.map(|one| Declared { name: one.name, datatype: one.datatype, shape: one.shape })
                .collect()
        };
        Ok(Description {
            inputs: declared(metadata.inputs),
            outputs: declared(metadata.outputs),
            max_batch_size: max_batch_size.map(|size| usize::try_from(size).unwrap_or(0)),
        })
    }

    async fn call<T: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<T, Failure> {
        let payload = frame(message.encode_to_vec(), &[])?;
        read(self.line.exchange(self.request(method, payload)?).await?)
    }

    fn request(&self, method: &str, payload: Payload) -> Result<Request<Payload>, Failure> {
        let path: PathAndQuery = format!("/inference.GRPCInferenceService/{method}")
            .parse()
            .map_err(|error| unsendable(&http::Error::from(error)))?;
        Request::builder()
            .method(Method::POST)
            .uri(self.line.uri(path))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(TE, HeaderValue::from_static("trailers"))
            .body(payload)
            .map_err(|error| unsendable(&error))
    }
}

fn is_ready(ready: bool, otherwise: &str) -> Result<(), Failure> {
    if ready { Ok(()) } else { Err(Failure::new(Cause::Unready, otherwise)) }
}

/// The message of a call: everything but the tensors, and behind it the tensors as its last field.
fn encode(attempt: &Attempt<'_>) -> Result<Payload, Failure> {
    let inputs = attempt.tensors.iter().zip(&attempt.signature.inputs).map(|(tensor, spec)| {
        InferInputTensor {
            name: spec.name.clone(),
            datatype: tensor.datatype().name().to_owned(),
            shape: tensor.shape().iter().map(|&size| i64::try_from(size).unwrap_or(0)).collect(),
            ..InferInputTensor::default()
        }
    });
    let mut request = ModelInferRequest {
        model_name: attempt.name.model.to_owned(),
        model_version: attempt.name.version.unwrap_or_default().to_owned(),
        id: attempt.id(),
        inputs: inputs.collect(),
        ..ModelInferRequest::default()
    };
    if let Some(priority) = attempt.priority {
        let choice = ParameterChoice::Int64Param(priority.level().into());
        let parameter = InferParameter { parameter_choice: Some(choice) };
        request.parameters.insert("priority".into(), parameter);
    }
    let tails: Vec<Bytes> = attempt.tensors.iter().map(|tensor| tensor.data().clone()).collect();
    frame(request.encode_to_vec(), &tails)
}

/// A frame with a message; `raw` are the entries of its last field.
fn frame(message: Vec<u8>, raw: &[Bytes]) -> Result<Payload, Failure> {
    let mut pieces = Vec::with_capacity(2 * raw.len());
    for data in raw {
        let mut head = Vec::with_capacity(11);
        encode_key(RAW_INPUT, WireType::LengthDelimited, &mut head);
        encode_varint(data.len() as u64, &mut head);
        pieces.push(Bytes::from(head));
        pieces.push(data.clone());
    }
    let length = message.len() + pieces.iter().map(Bytes::len).sum::<usize>();
    let length = u32::try_from(length)
        .map_err(|_| Failure::new(Cause::Invalid, "the call has 4 GiB or more"))?;
    let mut head = Vec::with_capacity(FRAME + message.len() + 64);
    head.push(0);
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(&message);
    Ok(Payload::join(head, pieces.iter()))
}

/// The message of an answer whose status is good.
fn read<T: Message + Default>(answer: Exchanged) -> Result<T, Failure> {
    let Exchanged { head, mut body, trailers } = answer;
    let none = HeaderMap::new();
    let trailers = trailers.as_ref().unwrap_or(&none);
    let status =
        Status::from_header_map(trailers).or_else(|| Status::from_header_map(&head.headers));
    match status {
        Some(status) if status.code() == Code::Ok => {}
        Some(status) => return Err(Failure::of_grpc(&status, &head.headers)),
        None if head.status == StatusCode::OK => {
            return Err(Failure::garbage("the answer has no status"));
        }
        None => {
            let failure = Failure::of_http(head.status, &head.headers, "no answer of gRPC");
            // What is wrong with such a request is not the caller's doing.
            let is_ours = failure.cause == Cause::Invalid;
            return Err(if is_ours {
                Failure { cause: Cause::Refused, ..failure }
            } else {
                failure
            });
        }
    }
    if body.len() < FRAME {
        return Err(Failure::garbage("the answer has no message"));
    }
    let (is_compressed, length) = (body.get_u8() != 0, body.get_u32() as usize);
    if is_compressed || length != body.len() {
        return Err(Failure::garbage("the answer is not one plain message"));
    }
    T::decode(body).map_err(|error| Failure::garbage(format!("no message: {error}")))
}

fn decode(answer: ModelInferResponse) -> Result<Answer, Failure> {
    let ModelInferResponse { model_version: version, outputs, raw_output_contents, .. } = answer;
    let is_raw = !raw_output_contents.is_empty();
    if is_raw && raw_output_contents.len() != outputs.len() {
        return Err(Failure::garbage(format!(
            "{} raw contents for {} outputs",
            raw_output_contents.len(),
            outputs.len()
        )));
    }
    let mut raw = raw_output_contents.into_iter();
    let mut named = Vec::with_capacity(outputs.len());
    for output in outputs {
        let data = match raw.next() {
            Some(data) => Ok(data),
            None => output
                .datatype
                .parse()
                .map_err(|error: engine::datatype::UnknownDataType| error.to_string())
                .and_then(|datatype| typed(datatype, output.contents.unwrap_or_default())),
        };
        let tensor = data.and_then(|data| tensor(&output.datatype, &output.shape, data));
        let tensor = tensor.map_err(|error| {
            Failure::garbage(format!("output '{}': {error}", plain(&output.name)))
        })?;
        named.push((output.name, tensor));
    }
    Ok(Answer { version, outputs: named })
}

/// `TimeoutValue TimeoutUnit`: at most eight digits.
fn timeout(left: std::time::Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let (micros, millis) = (left.as_micros(), left.as_millis());
    let text = match (micros, millis) {
        (..=MOST, _) => format!("{}u", micros.max(1)),
        (_, ..=MOST) => format!("{millis}m"),
        _ => format!("{}S", left.as_secs().min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("1u"))
}
