//! From a reply to a `ModelInferResponse`: always raw contents, one entry per output, which is
//! what every client reads.

use std::borrow::Cow;

use proto::inference::ModelInferResponse;
use proto::inference::model_infer_response::InferOutputTensor;

use super::decode::Wanted;
use crate::api::classification;
use crate::error::Rejection;
use crate::pipeline::Reply;

/// Writes the answer.
#[expect(clippy::cast_possible_wrap, reason = "a dimension of a tensor in memory fits i64")]
pub(super) fn encode(reply: &Reply, wanted: &Wanted) -> Result<ModelInferResponse, Rejection> {
    let served = &reply.served;
    let signature = served.signature();
    let mut response = ModelInferResponse {
        model_name: served.model.to_string(),
        model_version: served.version.to_string(),
        id: wanted.id.clone(),
        outputs: Vec::with_capacity(reply.outputs.len()),
        raw_output_contents: Vec::with_capacity(reply.outputs.len()),
        ..ModelInferResponse::default()
    };
    for (position, (index, tensor)) in reply.outputs.iter().enumerate() {
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
    Ok(response)
}
