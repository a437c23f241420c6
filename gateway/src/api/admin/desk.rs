//! What the handlers of routes, revisions and the file share: reading a wish, carrying it out,
//! and saying what became of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::audit::Audited;
use super::intake::{self, Note};
use super::operations::{Edit, Operations, Refused};
use crate::api::{audit, rest};
use crate::config::Problem;
use crate::types::Caller;

/// Problems of a file that an answer lists; a file that is none at all may have any number.
const MAX_PROBLEMS: usize = 50;
/// Bytes of a problem's path, and of its text.
const MAX_TEXT: usize = 512;

/// What handlers act through. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) operations: Arc<dyn Operations>,
    pub(super) body_timeout: Duration,
}

impl Desk {
    /// The JSON of a change.
    ///
    /// # Errors
    /// The answer that says what is wrong.
    pub(super) async fn json<T: DeserializeOwned>(&self, body: Body) -> Result<T, Response> {
        intake::json(body, self.body_timeout).await
    }

    /// The text of a file.
    ///
    /// # Errors
    /// The answer that says what is wrong.
    pub(super) async fn text(&self, body: Body) -> Result<String, Response> {
        intake::text(body, self.body_timeout).await
    }
}

/// Answers what became of a change of routes, which whoever made or refused it has written down.
pub(super) fn answer<T: Serialize>(result: Result<T, Refused>) -> Response {
    let mut response = match &result {
        Ok(done) => rest::answer(done),
        Err(refused) => refuse(refused),
    };
    response.extensions_mut().insert(Audited);
    response
}

/// Who changes something, from where, and why.
pub(super) fn edit(
    caller: &Caller,
    (author, reason): (Option<Note>, Option<Note>),
    expect: Option<u64>,
) -> Edit {
    let given = author.map(|note| note.0).filter(|name| !name.is_empty());
    Edit {
        author: audit::author(Some(caller), given.as_deref()),
        from: audit::origin(&caller.peer),
        reason: reason.map(|note| note.0).unwrap_or_default(),
        expect,
    }
}

/// Problems in JSON, as `penstock check --json` has them; of very many the first.
pub(super) fn problems(problems: &[Problem]) -> Vec<Value> {
    let mut shown: Vec<Value> = problems
        .iter()
        .take(MAX_PROBLEMS)
        .map(|problem| json!({ "path": cut(&problem.path), "message": cut(&problem.message) }))
        .collect();
    if let Some(more) = problems.len().checked_sub(MAX_PROBLEMS).filter(|more| *more > 0) {
        shown.push(json!({ "path": "", "message": format!("and {more} more problems") }));
    }
    shown
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text)
}

fn refuse(refused: &Refused) -> Response {
    let mut body = json!({ "error": refused.rejection.public_message() });
    if let Some(revision) = refused.revision {
        body["revision"] = revision.into();
    }
    if !refused.problems.is_empty() {
        body["problems"] = problems(&refused.problems).into();
    }
    rest::refuse_with(&refused.rejection, &body)
}
