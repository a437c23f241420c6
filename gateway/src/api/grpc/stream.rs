//! `ModelStreamInfer`: many calls on one stream, answered in order, several at a time.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{FuturesOrdered, poll_fn};
use futures_util::{Stream, StreamExt};
use proto::inference as pb;
use proto::inference::infer_parameter::ParameterChoice;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Request, Status, Streaming};

use super::service::Service;
use super::{Entered, status, wire};
use crate::api::timeouts::Arrival;
use crate::error::Rejection;
use crate::tasks;
use crate::types::Deadline;

/// Calls of one stream that may be under way together; more wait in the transport.
const CONCURRENT: usize = 64;

/// The answering half of a stream.
pub(super) type Replies =
    Pin<Box<dyn Stream<Item = Result<pb::ModelStreamInferResponse, Status>> + Send>>;

/// Answers a stream. A call that is refused gets its error in its place and the stream goes on,
/// unless the caller asked by `triton_grpc_error: true` to have the stream end.
pub(super) fn replies(
    service: Service,
    entered: Entered,
    request: Request<Streaming<pb::ModelInferRequest>>,
) -> Replies {
    let errors_end = request
        .metadata()
        .get("triton_grpc_error")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    let health = service.api.health.clone();
    let stream = entered.arrival;
    let cut = Arc::new(AtomicBool::new(false));
    let was_cut = cut.clone();
    let calls = request
        .into_inner()
        // An idle stream must not hold up a stop: what is under way is answered, then it ends.
        .take_until(async move {
            health.draining().await;
            cut.store(true, Ordering::Relaxed);
        })
        .map(move |message| {
            let (service, entered) = (service.clone(), entered.clone());
            async move {
                let message = message.map_err(wire::of_stream)?;
                let id = message.id.clone();
                // The stream's own deadline ends all of it; each message may have an earlier one.
                let arrival = Arrival { at: Instant::now(), ..stream };
                let arrival = arrival.within(entered.timeouts.own);
                // Each message is a call of its own.
                let result = service.message(message, Entered { arrival, ..entered }).await;
                Ok((id, result))
            }
        });
    let answers = driven(calls, stream.deadline).map(move |answer: Result<_, Status>| {
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

/// Runs calls in a task of their own and gives their answers in order. The answers are taken only
/// as fast as the caller reads them; the calls end whether anybody reads or not, and give back what
/// they hold. At most [`CONCURRENT`] are under way or unread; they end when nobody can read them
/// any more or the deadline passes.
fn driven<F>(
    calls: impl Stream<Item = F> + Send + 'static,
    deadline: Option<Deadline>,
) -> impl Stream<Item = F::Output> + Send
where
    F: Future<Output: Send> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(1);
    drop(tasks::spawn_busy("stream", async move {
        let drive = drive(calls, &sender);
        match deadline {
            None => drive.await,
            // The status that says so is the reader's part.
            Some(Deadline(at)) => drop(timeout_at(at, drive).await),
        }
    }));
    poll_fn(move |context| receiver.poll_recv(context))
}

async fn drive<F: Future>(calls: impl Stream<Item = F>, sender: &mpsc::Sender<F::Output>) {
    let mut calls = pin!(calls.fuse());
    let mut running = FuturesOrdered::new();
    let mut unread = VecDeque::new();
    loop {
        let has_room = !calls.is_done() && running.len() + unread.len() < CONCURRENT;
        tokio::select! {
            room = sender.reserve(), if !unread.is_empty() => {
                // Nobody reads any more.
                let Ok(room) = room else { return };
                if let Some(answer) = unread.pop_front() {
                    room.send(answer);
                }
            }
            Some(answer) = running.next(), if !running.is_empty() => unread.push_back(answer),
            call = calls.next(), if has_room => running.extend(call),
            () = sender.closed() => return,
        }
        if calls.is_done() && running.is_empty() && unread.is_empty() {
            return;
        }
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::stream;
    use tokio::task::yield_now;

    use super::*;

    /// So many calls, each of which holds the token until it ends.
    fn calls(
        count: usize,
        token: &Arc<()>,
    ) -> impl Stream<Item = impl Future<Output = usize> + Send + use<>> + Send + use<> {
        let token = token.clone();
        stream::iter(0..count).map(move |number| {
            let held = token.clone();
            async move {
                yield_now().await;
                drop(held);
                number
            }
        })
    }

    #[tokio::test]
    async fn calls_of_a_stream_that_nobody_reads_end_and_hold_nothing() {
        let token = Arc::new(());
        let mut answers = Box::pin(driven(calls(10 * CONCURRENT, &token), None));
        assert_eq!(answers.next().await, Some(0));
        for _ in 0..1000 {
            yield_now().await;
        }
        // Ours, and that of the calls that have not begun.
        assert_eq!(Arc::strong_count(&token), 2);
        for expected in 1..10 * CONCURRENT {
            assert_eq!(answers.next().await, Some(expected));
        }
        assert_eq!(answers.next().await, None);
        let other = driven(calls(10 * CONCURRENT, &token), None);
        yield_now().await;
        drop(other);
        while Arc::strong_count(&token) > 1 {
            yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_of_a_stream_ends_calls_that_nobody_waits_for() {
        let token = Arc::new(());
        let held = token.clone();
        let call = async move {
            std::future::pending::<()>().await;
            drop(held);
        };
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(1));
        let answers = driven(stream::iter([call]), deadline);
        tokio::time::sleep(Duration::from_millis(999)).await;
        assert_eq!(Arc::strong_count(&token), 2);
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert_eq!(Arc::strong_count(&token), 1);
        drop(answers);
    }
}
