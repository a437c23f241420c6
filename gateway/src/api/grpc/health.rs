//! `grpc.health.v1`: the server under the empty name and under its service's name, every model
//! under its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::Stream;
use http::HeaderMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::status;
use crate::api::{Api, Stage};
use crate::error::{Kind, Rejection};
use crate::identity::credentials;
use crate::tasks;
use crate::types::{ModelName, Peer};

const SERVICE: &str = "inference.GRPCInferenceService";

/// Liveness has no event of its own, so watchers look again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Watchers that the process serves together; each looks again every second.
const WATCHERS: usize = 1024;

/// The health service.
#[derive(Debug)]
pub(super) struct Health {
    api: Arc<Api>,
    watchers: Arc<AtomicUsize>,
}

/// The place of a watcher; given back when dropped.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(watchers: &Arc<AtomicUsize>) -> Result<Self, Rejection> {
        let within = |open: usize| (open < WATCHERS).then_some(open + 1);
        if watchers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
            return Err(Rejection::new(Kind::Overloaded, "too many watch the health already"));
        }
        Ok(Self(watchers.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who asks: worked out for names of models alone, and anew for each look.
#[derive(Debug)]
struct Asking {
    credentials: HeaderMap,
    peer: Option<Peer>,
}

impl Asking {
    fn of<T>(request: &Request<T>) -> Self {
        let credentials = credentials(request.metadata().as_ref());
        Self { credentials, peer: request.extensions().get().cloned() }
    }
}

impl Health {
    pub(super) fn new(api: &Api) -> Self {
        Self { api: Arc::new(api.clone()), watchers: Arc::default() }
    }
}

/// The state of the server is for everybody, that of a model for those who may read about it; to
/// others it is unknown.
fn check(api: &Api, name: &str, asking: &Asking) -> Option<ServingStatus> {
    let ready = match name {
        "" | SERVICE => api.is_ready(),
        model => {
            let caller = api.known(&asking.credentials, asking.peer.clone()?)?;
            api.authorize_reading_of(&caller, model).ok()?;
            api.is_live() && api.pipeline.snapshots.load().is_ready(model, None).ok()?
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
        let asking = Asking::of(&request);
        match check(&self.api, &request.get_ref().service, &asking) {
            Some(status) => Ok(Response::new(message(status))),
            None => Err(Status::not_found("unknown service")),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let asking = Asking::of(&request);
        let name = request.into_inner().service;
        if !matches!(&*name, "" | SERVICE) {
            // What can be no name is not kept.
            name.parse::<ModelName>().map_err(|rejection| status(&rejection))?;
        }
        let place = Place::take(&self.watchers).map_err(|rejection| status(&rejection))?;
        let api = self.api.clone();
        // One pending message: a slow watcher sees the latest state, not every state.
        let (sender, receiver) = mpsc::channel(1);
        tasks::spawn("health-watch", async move {
            let _place = place;
            let mut models = api.pipeline.snapshots.changes();
            let mut states = api.health.changes();
            let mut sent = None;
            loop {
                let status = check(&api, &name, &asking).unwrap_or(ServingStatus::ServiceUnknown);
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
