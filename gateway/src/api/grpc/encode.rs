//! From a reply to a `ModelInferResponse`: always raw contents, one entry per output, which is
//! what every client reads.

use std::borrow::Cow;

use proto::inference as pb;
use proto::inference::infer_parameter::ParameterChoice as Choice;
use proto::inference::model_infer_response::InferOutputTensor;
use proto::inference::{InferParameter, ModelInferResponse};

use super::decode::Wanted;
use crate::api::naming::Names;
use crate::api::{Api, classification};
use crate::error::Rejection;
use crate::pipeline::Reply;

/// On the answer of an earlier call with the same idempotency key.
const REPLAYED: &str = "penstock_replayed";
/// Values that break a rule of the model's input contract.
const FLAGS: &str = "penstock_flags";

fn parameter(choice: Choice) -> InferParameter {
    InferParameter { parameter_choice: Some(choice) }
}

/// Writes the answer; `names` are what it is called.
#[expect(clippy::cast_possible_wrap, reason = "a dimension of a tensor in memory fits i64")]
pub(super) fn encode(
    reply: &Reply,
    names: &Names<'_>,
    wanted: &Wanted,
) -> Result<ModelInferResponse, Rejection> {
    let answer = &reply.answer;
    let signature = &answer.signature;
    let mut response = ModelInferResponse {
        model_name: answer.model.to_string(),
        model_version: answer.version.to_string(),
        id: wanted.id.clone(),
        outputs: Vec::with_capacity(answer.outputs.len()),
        raw_output_contents: Vec::with_capacity(answer.outputs.len()),
        ..ModelInferResponse::default()
    };
    for (position, (index, tensor)) in answer.outputs.iter().enumerate() {
        let output = &signature.outputs[*index];
        let tensor = match wanted.classes.get(position).copied().flatten() {
            None => Cow::Borrowed(tensor),
            Some(k) => {
                let batched = signature.max_batch_size > 0;
                Cow::Owned(classification::classify(output, tensor, k, batched)?)
            }
        };
        response.outputs.push(InferOutputTensor {
            name: output.spec.name.clone(),
            datatype: tensor.datatype().name().to_owned(),
            shape: tensor.shape().iter().map(|&dimension| dimension as i64).collect(),
            ..InferOutputTensor::default()
        });
        response.raw_output_contents.push(tensor.data().clone());
    }
    for (name, value) in names.parameters() {
        let value = parameter(Choice::StringParam(value.to_owned()));
        response.parameters.insert(name.to_owned(), value);
    }
    if reply.is_replayed {
        response.parameters.insert(REPLAYED.into(), parameter(Choice::BoolParam(true)));
    }
    if let Some(flags) = &answer.flags {
        let text = Choice::StringParam(flags.to_string());
        response.parameters.insert(FLAGS.into(), parameter(text));
    }
    Ok(response)
}

/// What describes a model or a route.
pub(super) fn metadata(
    api: &Api,
    model: &str,
    version: &str,
) -> Result<pb::ModelMetadataResponse, Rejection> {
    let described = api.describe(model, Some(version))?;
    let tensor = |spec: &engine::TensorSpec| pb::model_metadata_response::TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.shape.clone(),
    };
    let signature = &described.signature;
    Ok(pb::ModelMetadataResponse {
        platform: described.platform().to_owned(),
        inputs: signature.inputs.iter().map(tensor).collect(),
        outputs: signature.outputs.iter().map(|output| tensor(&output.spec)).collect(),
        name: described.name,
        versions: described.versions,
        ..pb::ModelMetadataResponse::default()
    })
}
