//! What is said to one endpoint, in either protocol: calls, health and what its models are like.

mod connect;
mod grpc;
mod http;
mod line;
mod payload;
mod tls;

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use engine::{DataType, Tensor};

use super::failure::Failure;
use crate::config::{Problem, Upstream, UpstreamProtocol};
use crate::types::{PredictionId, Priority, REPLAY_HEADER, REPLAYED, Signature};

pub(super) use line::Line;
pub(super) use tls::Tls;

/// How many gateways a call has passed, so that a loop of them ends.
pub(super) const HOPS: HeaderName = HeaderName::from_static("penstock-hops");
/// How long the caller still waits, in milliseconds.
const TIMEOUT: HeaderName = HeaderName::from_static("penstock-timeout");
/// Attempts of a call have the same: a gateway that gets two of them runs one.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAY: HeaderName = HeaderName::from_static(REPLAY_HEADER);
const TRACE: HeaderName = HeaderName::from_static("traceparent");
/// Largest answer, in bytes.
pub(super) const MAX_ANSWER: usize = 64 << 20;

/// One endpoint.
#[derive(Debug)]
pub(super) enum Wire {
    Http(http::Client),
    Grpc(grpc::Client),
}

/// A model as an endpoint knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub(super) model: &'a str,
    /// The endpoint's own choice without it.
    pub(super) version: Option<&'a str>,
}

/// One attempt of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) name: Name<'a>,
    pub(super) signature: &'a Signature,
    /// In the signature's order.
    pub(super) tensors: &'a [Tensor],
    pub(super) rows: usize,
    pub(super) prediction: PredictionId,
    /// Whether it is a recorded call, which says so.
    pub(super) replay: bool,
    /// Whether a server that knows keys is to run the call once, however often it comes.
    pub(super) once: bool,
    pub(super) priority: Option<Priority>,
    pub(super) trace: Option<&'a HeaderValue>,
    /// Gateways that the call will have passed.
    pub(super) hops: u8,
    /// How long the answer is of use.
    pub(super) patience: Duration,
}

/// What an endpoint answered: outputs by name, as they came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) outputs: Vec<(String, Tensor)>,
}

/// What an endpoint says about a model.
#[derive(Debug, Default)]
pub(super) struct Description {
    pub(super) inputs: Vec<Declared>,
    pub(super) outputs: Vec<Declared>,
    /// `None` where the endpoint has no configuration to show.
    pub(super) max_batch_size: Option<usize>,
}

/// One input or output as an endpoint declares it.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Declared {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) datatype: String,
    #[serde(default)]
    pub(super) shape: Vec<i64>,
}

impl Wire {
    /// An endpoint at `host:port`; connects to nothing yet.
    ///
    /// # Errors
    /// When the address is none.
    pub(super) fn new(
        address: &str,
        settings: &Upstream,
        tls: &Tls,
        path: &str,
    ) -> Result<Self, Problem> {
        let line = Line::new(address, settings, tls)
            .map_err(|error| Problem::new(path, format!("\"{address}\" {error}")))?;
        Ok(match settings.protocol {
            UpstreamProtocol::Http => Self::Http(http::Client::new(line)),
            UpstreamProtocol::Grpc => Self::Grpc(grpc::Client::new(line)),
        })
    }

    /// Takes over what another wire to the same servers has learnt.
    pub(super) fn inherit(&self, other: &Self) {
        if let (Self::Http(client), Self::Http(other)) = (self, other) {
            client.inherit(other);
        }
    }

    /// Runs a call; what comes back has the names, types and shapes that the signature says, in
    /// its order.
    pub(super) async fn infer(
        &self,
        attempt: &Attempt<'_>,
    ) -> Result<(String, Vec<Tensor>), Failure> {
        let answer = match self {
            Self::Http(client) => client.infer(attempt).await?,
            Self::Grpc(client) => client.infer(attempt).await?,
        };
        let Answer { version, outputs } = answer;
        Ok((version, ordered(attempt, outputs)?))
    }

    /// Whether the server takes calls.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        match self {
            Self::Http(client) => client.ready().await,
            Self::Grpc(client) => client.ready().await,
        }
    }

    /// What a model is like; a failure if it is not ready.
    pub(super) async fn describe(&self, name: Name<'_>) -> Result<Description, Failure> {
        match self {
            Self::Http(client) => client.describe(name).await,
            Self::Grpc(client) => client.describe(name).await,
        }
    }
}

/// The outputs in the signature's order, each checked. Others are not looked at: the signature
/// says what is served.
fn ordered(attempt: &Attempt<'_>, given: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, Failure> {
    let mut slots: Vec<Option<Tensor>> = vec![None; attempt.signature.outputs.len()];
    for (name, tensor) in given {
        let place = attempt.signature.outputs.iter().position(|output| output.spec.name == name);
        if let Some(place) = place
            && slots[place].replace(tensor).is_some()
        {
            return Err(Failure::garbage(format!("output '{name}' came twice")));
        }
    }
    let found = slots.into_iter().zip(&attempt.signature.outputs).map(|(slot, output)| {
        let missing = || Failure::garbage(format!("output '{}' is missing", output.spec.name));
        slot.ok_or_else(missing)
    });
    let outputs = found.collect::<Result<Vec<_>, _>>()?;
    let checked = attempt.signature.check_outputs(&outputs, attempt.rows);
    checked.map_err(|rejection| Failure::garbage(rejection.public_message()))?;
    Ok(outputs)
}

/// A tensor as an endpoint sent it.
fn tensor(datatype: &str, shape: &[i64], data: bytes::Bytes) -> Result<Tensor, String> {
    let datatype: DataType =
        datatype.parse().map_err(|error: engine::datatype::UnknownDataType| error.to_string())?;
    let sizes = shape.iter().map(|&size| {
        usize::try_from(size).map_err(|_| format!("dimension {size} must not be negative"))
    });
    Tensor::new(datatype, sizes.collect::<Result<_, _>>()?, data).map_err(|error| error.to_string())
}

/// What both protocols say beside the call.
fn marks(attempt: &Attempt<'_>, headers: &mut HeaderMap) -> Result<(), Failure> {
    headers.insert(HOPS, HeaderValue::from(u16::from(attempt.hops)));
    let left = u64::try_from(attempt.patience.as_millis()).unwrap_or(u64::MAX);
    headers.insert(TIMEOUT, HeaderValue::from(left.max(1)));
    if let Some(trace) = attempt.trace {
        headers.insert(TRACE, trace.clone());
    }
    if attempt.replay {
        headers.insert(REPLAY, text(&attempt.prediction.to_string())?);
    }
    if attempt.once {
        headers.insert(KEY, text(&format!("penstock-{}", attempt.prediction))?);
    }
    Ok(())
}

fn text(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(text).map_err(|error| line::unsendable(&error.into()))
}

impl Attempt<'_> {
    /// What the server is told that the request is called.
    fn id(&self) -> String {
        let prefix = if self.replay { REPLAYED } else { "" };
        format!("{prefix}{}", self.prediction)
    }
}
