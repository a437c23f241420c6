//! Every change on the admin port is written down, whoever asked for it and whatever came of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use tokio::time::Instant;

use crate::api::audit::{self, Entry};
use crate::error::Rejection;
use crate::revisions::Event;
use crate::types::{Caller, Peer};

/// Longest path in an entry, in bytes.
const MAX_PATH: usize = 512;

/// What each change is called in the audit log.
const ACTIONS: &[(&str, &str, &str)] = &[
    ("post", "/v1/drain", "drain"),
    ("post", "/v1/breakers/{model}/{version}/{action}", "breaker"),
    ("patch", "/v1/routes/{route}", "set"),
    ("delete", "/v1/routes/{route}/overlay", "reset"),
    ("delete", "/v1/routes/{route}/report", "reset report"),
    ("post", "/v1/rollback", "rollback"),
    ("post", "/v1/reload", "reload"),
];

/// What a handler says of a change; goes to the audit log in the extensions of its response.
#[derive(Debug, Clone, Default)]
pub(super) struct Deed {
    /// In words, instead of the path.
    pub(super) what: Option<String>,
    /// Who is said to have wanted it.
    pub(super) author: Option<String>,
    pub(super) reason: Option<String>,
}

impl Deed {
    pub(super) fn of(what: impl Into<String>) -> Self {
        Self { what: Some(what.into()), ..Self::default() }
    }

    pub(super) fn attach(self, mut response: Response) -> Response {
        response.extensions_mut().insert(self);
        response
    }
}

/// On the response to a change that is in the log already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audited;

/// Attempts of people who may change nothing that are written down in each minute: strangers must
/// not be able to push what others did out of the log.
const MAX_REFUSALS: u32 = 60;

/// Bounds what strangers add to the log.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Option<(Instant, u32)>>);

impl Strangers {
    /// Whether one more attempt is written down.
    pub(super) fn may_be_noted(&self) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, count) = minute
            .filter(|(since, _)| now.duration_since(*since) < Duration::from_secs(60))
            .unwrap_or((now, 0));
        *minute = Some((since, count.saturating_add(1)));
        count < MAX_REFUSALS
    }
}

/// What a request would change, in words; `None` where it only reads.
pub(super) fn attempt(request: &Request) -> Option<String> {
    let (method, path) = (request.method().as_str(), request.uri().path());
    let (_, _, action) = ACTIONS
        .iter()
        .find(|(of, pattern, _)| method.eq_ignore_ascii_case(of) && fits(pattern, path))?;
    let path = path.get(..path.floor_char_boundary(MAX_PATH)).unwrap_or(path);
    Some(format!("{action} {path}"))
}

/// Whether a path is one of a pattern, whose parts in braces stand for any text.
fn fits(pattern: &str, path: &str) -> bool {
    let (mut parts, mut wanted) = (path.split('/'), pattern.split('/'));
    let alike = wanted.by_ref().all(|wanted| {
        let part = parts.next();
        part.is_some_and(|part| wanted == part || wanted.starts_with('{') && !part.is_empty())
    });
    alike && parts.next().is_none()
}

/// The entry about an attempt once there is an answer; `None` where there is one already.
pub(super) fn entry(
    attempt: String,
    (caller, peer): (Option<&Caller>, &Peer),
    response: &Response,
) -> Option<Entry> {
    if response.extensions().get::<Audited>().is_some() {
        return None;
    }
    let deed = response.extensions().get::<Deed>().cloned().unwrap_or_default();
    let refused = response.extensions().get::<Rejection>();
    let status = response.status();
    let event = match refused {
        None if status.is_client_error() => Event::Refused,
        None if status.is_server_error() => Event::Failed,
        refused => audit::event(refused),
    };
    let problem = refused.map(|rejection| rejection.public_message().to_owned());
    Some(Entry {
        event,
        author: audit::author(caller, deed.author.as_deref()),
        from: audit::origin(peer),
        what: deed.what.unwrap_or(attempt),
        reason: deed.reason.unwrap_or_default(),
        problem: problem.or_else(|| (event != Event::Accepted).then(|| status.to_string())),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;
    use crate::api::admin::ENDPOINTS;

    fn action(method: &str, path: &str) -> Option<String> {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        attempt(&request)
    }

    #[test]
    fn every_endpoint_that_changes_something_is_audited() {
        for (method, path) in ENDPOINTS {
            let path = path.replace(['{', '}'], "");
            let changes = *method != "get" && path != "/v1/check";
            let found = action(&method.to_ascii_uppercase(), &path);
            assert_eq!(found.is_some(), changes, "{method} {path}: {found:?}");
        }
        for (method, path, _) in ACTIONS {
            assert!(ENDPOINTS.contains(&(method, path)), "{method} {path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_cannot_fill_the_log() {
        let strangers = Strangers::default();
        let noted = |count: u32| (0..count).filter(|_| strangers.may_be_noted()).count();
        assert_eq!(noted(100), 60);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(noted(10), 0);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(noted(100), 60);
    }

    #[test]
    fn what_is_not_there_changes_nothing() {
        assert_eq!(action("PATCH", "/v1/routes/digits"), Some("set /v1/routes/digits".to_owned()));
        for path in ["/v1/routes", "/v1/routes/", "/v1/routes/a/b", "/v2/routes/a", "/"] {
            assert_eq!(action("PATCH", path), None, "{path}");
        }
        assert_eq!(action("PUT", "/v1/drain"), None);
    }
}
