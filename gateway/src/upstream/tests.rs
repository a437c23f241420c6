//! Calls to servers over real sockets, in both protocols.

mod calls;
pub(crate) mod fake;
mod faults;
mod reloads;
mod secure;
mod shadows;

use std::sync::Arc;
use std::time::Duration;

use engine::{DataType, Tensor};
use tokio::time::{Instant, timeout};

use self::fake::{Face, Fake, Garbage, Mood};
use super::*;
use crate::config::UpstreamProtocol::{Grpc, Http};
use crate::config::{HealthCheck, UpstreamProtocol};
use crate::error::{Kind, Rejection};
use crate::types::{Deadline, PredictionId, Signature};

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a model that no endpoint has described.
static UNKNOWN: Signature =
    Signature { inputs: vec![], outputs: vec![], max_batch_size: 0, splits: true };

/// An upstream `fleet` with these servers, asked how they are often.
fn settings(protocol: UpstreamProtocol, fakes: &[&Fake]) -> config::Upstream {
    let endpoints = fakes.iter().map(|fake| fake.address.clone()).collect();
    let every = Some(Duration::from_millis(50));
    let health = HealthCheck { every, ..HealthCheck::default() };
    config::Upstream { health, ..config::Upstream::new("fleet", protocol, endpoints) }
}

/// Its model `double`, once all servers have said what it is like.
async fn double(settings: &config::Upstream) -> (Arc<Upstreams>, Arc<RemoteModel>) {
    let upstreams = Upstreams::start(std::slice::from_ref(settings), None).unwrap();
    let model = upstreams.get("fleet").unwrap().model("double", None);
    until("every endpoint serves it", || model.status().ready && model.status().reason.is_empty())
        .await;
    (upstreams, model)
}

/// Lets everything else run until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("waited for: {what}"));
}

fn floats(rows: usize, first: f32) -> Tensor {
    let values = [first, first + 0.5].repeat(rows);
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, vec![rows, 2], data.into()).unwrap()
}

/// A call that was checked by a signature.
fn checked<'a>(signature: &'a Signature, tensors: &'a [Tensor]) -> RemoteCall<'a> {
    RemoteCall {
        signature,
        tensors,
        rows: tensors[0].rows(),
        deadline: Deadline::after(Instant::now(), PATIENCE),
        priority: None,
        trace: None,
        prediction: PredictionId::new(),
        hops: 0,
        replay: false,
        shadow: false,
    }
}

/// A call with one row; its answer has to be its own.
async fn call(
    model: &RemoteModel,
    first: f32,
    time: Option<Duration>,
) -> Result<RemoteAnswer, Rejection> {
    let tensors = [floats(1, first)];
    let deadline = time.and_then(|time| Deadline::after(Instant::now(), time));
    let signature = model.signature();
    let call = checked(signature.as_deref().unwrap_or(&UNKNOWN), &tensors);
    let call = RemoteCall { deadline, ..call };
    let answer = model.infer(call).await.map_err(|unanswered| unanswered.rejection)?;
    let expected: Vec<u8> =
        [first * 2.0, first * 2.0 + 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(answer.outputs[0].data(), &expected, "its own answer");
    Ok(answer)
}

/// `count` calls, `width` at a time; those that were refused.
async fn calls(model: &Arc<RemoteModel>, count: usize, width: usize) -> Vec<Rejection> {
    use futures_util::StreamExt;
    let numbers = tokio_stream::iter(0..u16::try_from(count).unwrap());
    let each = numbers.map(|number| {
        let model = model.clone();
        async move { call(&model, f32::from(number), Some(PATIENCE)).await.err() }
    });
    each.buffer_unordered(width).filter_map(std::future::ready).collect().await
}

#[test]
fn gateways_that_a_request_has_passed_are_counted_as_the_worst_header_says() {
    let count = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HOPS, value.parse().unwrap());
        }
        hops(&headers)
    };
    assert_eq!(count(&[]), 0);
    assert_eq!(count(&["3"]), 3);
    assert_eq!(count(&["1", "2"]), 2);
    for nonsense in ["", "-1", "256", "x", "1.0"] {
        assert!(count(&["1", nonsense]) > MAX_HOPS, "{nonsense}");
    }
}
