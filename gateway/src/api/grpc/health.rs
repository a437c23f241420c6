//! `grpc.health.v1`: the server under the empty name and under its service's name, every model
//! under its own.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use crate::api::{Api, Stage};
use crate::tasks;
use crate::types::Caller;

const SERVICE: &str = "inference.GRPCInferenceService";

/// Liveness has no event of its own, so watchers look again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The health service.
#[derive(Debug)]
pub(super) struct Health {
    api: Arc<Api>,
}

impl Health {
    pub(super) fn new(api: &Api) -> Self {
        Self { api: Arc::new(api.clone()) }
    }
}

/// The state of the server is for everybody, that of a model for those who may read about it; to
/// others it is unknown.
fn check(api: &Api, name: &str, caller: Option<&Caller>) -> Option<ServingStatus> {
    let ready = match name {
        "" | SERVICE => api.is_ready(),
        model => {
            api.authorize_reading_of(caller?, model).ok()?;
            api.pipeline.snapshots.load().model(model)?;
            api.is_model_ready(model, None)
        }
    };
    Some(if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn message(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let caller = request.extensions().get::<Caller>();
        match check(&self.api, &request.get_ref().service, caller) {
            Some(status) => Ok(Response::new(message(status))),
            None => Err(Status::not_found("unknown service")),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let name = request.into_inner().service;
        let api = self.api.clone();
        // One pending message: a slow watcher sees the latest state, not every state.
        let (sender, receiver) = mpsc::channel(1);
        tasks::spawn("health-watch", async move {
            let mut models = api.pipeline.snapshots.changes();
            let mut states = api.health.changes();
            let mut sent = None;
            loop {
                let status =
                    check(&api, &name, caller.as_ref()).unwrap_or(ServingStatus::ServiceUnknown);
                if sent != Some(status) {
                    if sender.send(Ok(message(status))).await.is_err() {
                        return;
                    }
                    sent = Some(status);
                }
                if states.borrow().stage == Stage::Draining {
                    return;
                }
                tokio::select! {
                    _ = models.changed() => {}
                    _ = states.changed() => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
