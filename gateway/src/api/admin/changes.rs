//! What changes of routes and of the file have in common: who asks, and what is said of how it
//! went.

use axum::response::Response;
use serde_json::{Value, json};

use super::audit::{Audited, Deed};
use super::intake::Note;
use crate::api::{audit, rest};
use crate::config::Problem;
use crate::error::{Kind, Rejection};
use crate::traffic::{By, Outcome, Refused};
use crate::types::Caller;

/// Problems of a file that an answer lists; a file that is none at all may have any number.
const MAX_PROBLEMS: usize = 50;
/// Bytes of a problem's path, and of its text.
const MAX_TEXT: usize = 512;

/// Who changes something, from where, and why.
pub(super) fn by(
    caller: &Caller,
    (author, reason): (Option<Note>, Option<Note>),
    expect_revision: Option<u64>,
) -> By {
    let given = author.map(|note| note.0).filter(|name| !name.is_empty());
    By {
        author: audit::author(Some(caller), given.as_deref()),
        from: audit::origin(&caller.peer),
        reason: reason.map(|note| note.0).unwrap_or_default(),
        expect_revision,
        unasked: false,
    }
}

/// Answers what became of a change of routes. Who made it or refused it has written it down, but
/// for one that was no change.
pub(super) fn answer(result: Result<Outcome, Refused>, by: By) -> Response {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(refused) => {
            let mut response = refuse(&refused);
            response.extensions_mut().insert(Audited);
            return response;
        }
    };
    let mut body = json!({
        "revision": outcome.revision,
        "changed": outcome.changed,
        "diff": outcome.diff,
    });
    if let Some(restored) = outcome.restored {
        body["restored"] = restored.into();
        body["needs_load"] = outcome.needs_load.into();
    }
    let mut response = rest::answer(&body);
    if outcome.changed {
        response.extensions_mut().insert(Audited);
        return response;
    }
    Deed { what: None, author: Some(by.author), reason: Some(by.reason) }.attach(response)
}

fn refuse(refused: &Refused) -> Response {
    let mut body = json!({ "error": refused.rejection.public_message() });
    if refused.rejection.kind() == Kind::Conflict {
        body["revision"] = refused.revision.into();
    }
    if refused.stale {
        body["stale"] = true.into();
    }
    if !refused.problems.is_empty() {
        body["problems"] = problems(&refused.problems).into();
    }
    rest::refuse_with(&refused.rejection, &body)
}

/// The refusal of a file with these problems.
pub(super) fn refuse_file(found: &[Problem]) -> Response {
    let first = found.first().map(ToString::to_string).unwrap_or_default();
    let text = match found.len() {
        0 | 1 => format!("the file is not applied: {first}"),
        count => format!("the file is not applied: {first} (and {} more problems)", count - 1),
    };
    let rejection = Rejection::invalid(text);
    let body = json!({ "error": rejection.public_message(), "problems": problems(found) });
    rest::refuse_with(&rejection, &body)
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
