//! What of an attempt to change something goes to the audit log, whichever door it came in by:
//! who, from where, what, why, and what became of it. Never a credential.

use super::Api;
use crate::error::{Blame, Rejection};
use crate::revisions::Event;
use crate::traffic::By;
use crate::types::{Caller, Origin, Peer};

/// Who is named where nobody was believed.
const NOBODY: &str = "unknown";
/// Who is named where a caller of this machine need not say who it is.
const LOCAL: &str = "local";

/// One attempt to change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) event: Event,
    /// The name that the caller proved, or the one that it gave where it need not prove any.
    pub(super) author: String,
    /// Address of the other end of the connection, `unix` for a socket of this machine.
    pub(super) from: String,
    /// In words: `drain on`, `load digits`.
    pub(super) what: String,
    pub(super) reason: String,
    /// Why it was refused or failed.
    pub(super) problem: Option<String>,
}

/// How a call ended.
pub(super) fn event(refused: Option<&Rejection>) -> Event {
    match refused.map(|rejection| rejection.kind().blame()) {
        None => Event::Accepted,
        Some(Blame::Caller) => Event::Refused,
        Some(Blame::Gateway | Blame::Arm) => Event::Failed,
    }
}

/// The author of a change: a name that was proved, else one that was given.
pub(super) fn author(caller: Option<&Caller>, given: Option<&str>) -> String {
    let Some(caller) = caller else { return NOBODY.to_owned() };
    caller.identity.known_name().or(given).unwrap_or(LOCAL).to_owned()
}

/// Where a request came from.
pub(super) fn origin(peer: &Peer) -> String {
    match peer.origin {
        Origin::Tcp(address) => address.to_string(),
        Origin::Unix => "unix".to_owned(),
    }
}

impl Api {
    /// Adds an attempt to the audit log.
    pub(super) async fn note(&self, entry: Entry) {
        let Entry { event, author, from, what, reason, problem } = entry;
        let by = By { author, from, reason, ..By::default() };
        self.traffic.note(event, by, what, problem).await;
    }

    /// Writes down what became of a change of a model that came in by a data port from somebody
    /// who may make it. What others try there stays out: they could fill the log.
    pub(super) async fn audit<T>(
        &self,
        caller: &Caller,
        (verb, model, version): (&str, &str, Option<&str>),
        result: &Result<T, Rejection>,
    ) {
        // Names come from the request, of any length.
        let shown = |text: &str| text.chars().take(128).collect::<String>();
        let version = version.map(|version| format!("/versions/{}", shown(version)));
        let refused = result.as_ref().err();
        self.note(Entry {
            event: event(refused),
            author: author(Some(caller), None),
            from: origin(&caller.peer),
            what: format!("{verb} {}{}", shown(model), version.unwrap_or_default()),
            reason: String::new(),
            problem: refused.map(|rejection| rejection.public_message().to_owned()),
        })
        .await;
    }
}
