//! `ModelStreamInfer`: many calls on one stream, answered in order, several at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{Stream, StreamExt};
use proto::inference as pb;
use proto::inference::infer_parameter::ParameterChoice;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status, Streaming};

use super::service::{Service, arrival};
use super::{status, wire};
use crate::api::timeouts::Arrival;
use crate::error::Rejection;
use crate::types::{Caller, Deadline};

/// Calls of one stream that may be under way together; more wait in the transport.
const CONCURRENT: usize = 64;

/// The answering half of a stream.
pub(super) type Replies =
    Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

/// Answers a stream. A call that is refused gets its error in its place and the stream goes on,
/// unless the caller asked by `triton_grpc_error: true` to have the stream end.
pub(super) fn replies(
    service: Service,
    caller: Caller,
    request: Request<Streaming<pb::ModelInferRequest>>,
) -> Replies {
    let errors_end = request
        .metadata()
        .get("triton_grpc_error")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let health = service.api.health.clone();
    let (stream, timeouts) = arrival(&request);
    let cut = Arc::new(AtomicBool::new(false));
    let was_cut = cut.clone();
    let answers = request
        .into_inner()
        // An idle stream must not hold up a stop: what is under way is answered, then it ends.
        .take_until(async move {
            health.draining().await;
            cut.store(true, Ordering::Relaxed);
        })
        .map(move |message| {
            let (service, caller) = (service.clone(), caller.clone());
            async move {
                let message = message.map_err(wire::of_stream)?;
                let id = message.id.clone();
                // The stream's own deadline ends all of it; each message may have an earlier one.
                let arrival = Arrival { at: Instant::now(), ..stream }.within(timeouts.own);
                // Each message is a call of its own.
                let result = service.message(message, caller, arrival).await;
                Ok((id, result))
            }
        })
        .buffered(CONCURRENT)
        .map(move |answer: Result<_, Status>| {
            let (id, result) = answer?;
            match result {
                Ok(response) => Ok(last(response)),
                Err(rejection) if errors_end => Err(status(&rejection)),
                Err(rejection) => Ok(failed(id, &rejection)),
            }
        });
    // With a status: messages may have been on their way that nobody reads any more.
    let end = futures_util::stream::once(async move { was_cut.load(Ordering::Relaxed) })
        .filter(|cut| futures_util::future::ready(*cut))
        .map(|_| Err(Status::unavailable("the gateway is stopping")));
    let answers = until(stream.deadline, answers.chain(end));
    // Nothing follows a status: the first one ends the stream.
    let until_error = answers.scan(false, |ended, answer| {
        let go_on = !std::mem::replace(ended, answer.is_err());
        futures_util::future::ready(go_on.then_some(answer))
    });
    Box::pin(until_error)
}

/// The answers up to the deadline, and then the status that says so.
fn until<T: Send + 'static>(
    deadline: Option<Deadline>,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
    let Some(Deadline(at)) = deadline else { return Box::pin(answers) };
    let passed = futures_util::stream::once(async move {
        sleep_until(at).await;
        Some(Err(Status::deadline_exceeded("the deadline of the stream passed")))
    });
    // Whichever ends first ends both: the caller's last answer, or the time.
    let answers = answers.map(Some).chain(futures_util::stream::iter([None]));
    let both = futures_util::stream::select(answers, passed);
    Box::pin(
        both.take_while(|next| futures_util::future::ready(next.is_some()))
            .filter_map(futures_util::future::ready),
    )
}

/// Marks the one answer of a call as its last.
fn last(mut response: pb::ModelInferResponse) -> pb::ModelStreamInferResponse {
    let yes = pb::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    response.parameters.insert("triton_final_response".to_owned(), yes);
    pb::ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn failed(id: String, rejection: &Rejection) -> pb::ModelStreamInferResponse {
    let empty = pb::ModelInferResponse { id, ..pb::ModelInferResponse::default() };
    let mut response = last(empty);
    rejection.public_message().clone_into(&mut response.error_message);
    response
}
