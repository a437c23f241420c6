//! The HTTP door: predictions go straight to their handler, everything else through the router.

use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, Uri};
use http_body::Body;
use tower::Service;

use super::payload::Payload;
use super::respond;
use super::{infer, router};
use crate::api::Api;
use crate::api::guard::refuse_pages;
use crate::types::{Peer, Protocol};

/// Answers requests over HTTP; cheap to clone.
#[derive(Debug, Clone)]
pub struct Http {
    api: Arc<Api>,
    router: Router,
}

impl Http {
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self { api: Arc::new(api.clone()), router: router(api) }
    }

    /// Answers one request from `peer`.
    pub async fn call<B>(&self, request: Request<B>, peer: Peer) -> Response<Payload>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let (mut head, body) = request.into_parts();
        if is_open(&head) {
            return self.route(Request::from_parts(head, body)).await;
        }
        let allowed = if is_change(&head) { refuse_pages(&head.headers) } else { Ok(()) };
        let caller = match allowed.and_then(|()| self.api.identify(&head.headers, peer)) {
            Ok(caller) => caller,
            Err(rejection) => {
                if is_call(&head) {
                    self.api.pipeline.refused_early(Protocol::Http, rejection.kind());
                }
                return respond::rejection_unread(&rejection, &head.headers).map(Payload::Routed);
            }
        };
        if let Some(named) = prediction(&head.method, &head.uri) {
            return infer::answer(&self.api, caller, named, (&mut head.headers, body)).await;
        }
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(caller);
        self.route(request).await
    }

    async fn route<B>(&self, request: Request<B>) -> Response<Payload>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        match self.router.clone().call(request).await {
            Ok(response) => response.map(Payload::Routed),
        }
    }
}

/// Whether everybody may ask: load balancers have no credentials.
fn is_open(head: &Parts) -> bool {
    matches!(head.uri.path(), "/v2" | "/v2/" | "/v2/health/live" | "/v2/health/ready")
}

/// Whether a request would change the server.
fn is_change(head: &Parts) -> bool {
    let path = head.uri.path();
    head.method == Method::POST
        && (path.starts_with("/v2/repository/models/")
            || path.starts_with("/v2/logging")
            || path.starts_with("/v2/feedback"))
}

/// Whether a request that is turned away would have been a prediction.
fn is_call(head: &Parts) -> bool {
    let path = head.uri.path();
    head.method == Method::POST && path.starts_with("/v2/models/") && path.ends_with("/infer")
}

/// Names of the model and the version in a prediction's path. Names with escapes are left to the
/// router: no model has one that needs them.
fn prediction<'a>(method: &Method, uri: &'a Uri) -> Option<(&'a str, Option<&'a str>)> {
    if method != Method::POST {
        return None;
    }
    let names = uri.path().strip_prefix("/v2/models/")?.strip_suffix("/infer")?;
    let (model, version) = match names.split_once('/') {
        None => (names, None),
        Some((model, rest)) => (model, Some(rest.strip_prefix("versions/")?)),
    };
    let plain = |name: &str| !name.is_empty() && !name.bytes().any(|b| matches!(b, b'/' | b'%'));
    (plain(model) && version.is_none_or(plain)).then_some((model, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(method: &str, uri: &str) -> Option<(String, Option<String>)> {
        let (head, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
        let (model, version) = prediction(&head.method, &head.uri)?;
        Some((model.to_owned(), version.map(ToOwned::to_owned)))
    }

    #[test]
    fn predictions_are_known_by_their_path() {
        let found = |model: &str, version: Option<&str>| {
            Some((model.to_owned(), version.map(ToOwned::to_owned)))
        };
        assert_eq!(names("POST", "/v2/models/m/infer"), found("m", None));
        assert_eq!(names("POST", "http://h:1/v2/models/m/infer?x=/y"), found("m", None));
        assert_eq!(names("POST", "/v2/models/m-1.+_/versions/2/infer"), found("m-1.+_", Some("2")));
        assert_eq!(names("POST", "/v2/models/stats/infer"), found("stats", None));
    }

    #[test]
    fn everything_else_is_left_to_the_router() {
        for path in [
            "/v2/models//infer",
            "/v2/models/infer",
            "/v2/models/a/b/infer",
            "/v2/models/a/versions/infer",
            "/v2/models/a/versions//infer",
            "/v2/models/a/versions/1/2/infer",
            "/v2/models/a%2Fb/infer",
            "/v2/models/a/versions/%31/infer",
            "/v2/models/a/infer/",
            "/v2/models/a/config",
            "/v3/models/a/infer",
        ] {
            assert_eq!(names("POST", path), None, "{path}");
        }
        assert_eq!(names("GET", "/v2/models/m/infer"), None);
    }
}
