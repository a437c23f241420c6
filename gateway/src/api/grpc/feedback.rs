//! `penstock.v1.FeedbackService`.

use std::collections::HashMap;
use std::pin::pin;

use futures_util::StreamExt;
use http::HeaderMap;
use proto::penstock::v1 as pb;
use proto::penstock::v1::feedback_service_server::FeedbackService;
use tonic::{Request, Response, Status, Streaming};

use super::{status, wire};
use crate::api::Api;
use crate::error::{Kind, Rejection};
use crate::feedback::{Given, Intake, MOST, Settled, Told};
use crate::types::Caller;

/// The service; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Feedback(pub(super) Api);

impl Feedback {
    async fn take(&self, intake: &Intake, all: Vec<pb::Feedback>) -> Result<Vec<Settled>, Status> {
        if all.len() > MOST {
            intake.refused(all.len());
            let text = format!("more than {MOST} in one request: send them in parts");
            return Err(status(&Rejection::new(Kind::TooLarge, text)));
        }
        let told = all.into_iter().map(told).collect();
        intake.take(told).await.map_err(|refusal| status(&refusal.rejection()))
    }

    async fn enter<T>(&self, request: &mut Request<T>) -> Result<&Intake, Status> {
        let caller: Option<Caller> = request.extensions_mut().remove();
        let unsettled = || status(&Rejection::new(Kind::Internal, "nobody settled who calls"));
        let caller = caller.ok_or_else(unsettled)?;
        let headers: HeaderMap = request.metadata().clone().into_headers();
        self.0.enter_feedback(caller, &headers).await.map_err(|rejection| status(&rejection))
    }
}

#[tonic::async_trait]
impl FeedbackService for Feedback {
    async fn send(
        &self,
        mut request: Request<pb::FeedbackRequest>,
    ) -> Result<Response<pb::FeedbackResponse>, Status> {
        let intake = self.enter(&mut request).await?;
        let settled = self.take(intake, request.into_inner().feedback).await?;
        let result =
            |one: Settled| pb::FeedbackResult { id: one.id, outcome: one.outcome.word().into() };
        let results = settled.into_iter().map(result).collect();
        Ok(Response::new(pb::FeedbackResponse { results }))
    }

    async fn send_stream(
        &self,
        mut request: Request<Streaming<pb::FeedbackRequest>>,
    ) -> Result<Response<pb::FeedbackSummary>, Status> {
        let intake = self.enter(&mut request).await?;
        let health = self.0.health.clone();
        // A stream must not hold up a stop: what was taken is answered.
        let drained = async move { health.draining().await };
        let mut messages = pin!(request.into_inner().take_until(drained));
        let (mut count, mut outcomes) = (0, HashMap::new());
        while let Some(message) = messages.next().await {
            let message = message.map_err(wire::of_stream)?;
            let settled = self.take(intake, message.feedback).await.map_err(|refused| {
                let text = format!("message {count}: {}", refused.message());
                let mut told = Status::new(refused.code(), text);
                *told.metadata_mut() = refused.metadata().clone();
                told
            })?;
            count += 1;
            for one in settled {
                *outcomes.entry(one.outcome.word().to_owned()).or_default() += 1;
            }
        }
        Ok(Response::new(pb::FeedbackSummary { messages: count, outcomes }))
    }
}

/// Empty texts are what was not said.
fn told(feedback: pb::Feedback) -> Told {
    use pb::feedback::Label;
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    Told {
        prediction_id: said(feedback.prediction_id),
        caller_id: said(feedback.caller_id),
        item: feedback.item.map(i64::from),
        label: feedback.label.map(|label| match label {
            Label::Text(text) => Given::Text(text),
            Label::Number(number) => Given::Number(number),
            Label::Flag(flag) => Given::Flag(flag),
        }),
        reward: feedback.reward,
        event_time: said(feedback.event_time),
        id: said(feedback.id),
        source: said(feedback.source),
        note: said(feedback.note),
    }
}
