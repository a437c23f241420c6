//! What of an attempt to change something goes to the audit log, whichever door it came in by:
//! who, from where, what, why, and what became of it. Never a credential.

use super::Api;
use crate::error::{Blame, Rejection};
use crate::types::{Caller, Origin, Peer};

/// Who is named where nobody was believed.
const NOBODY: &str = "unknown";
/// Who is named where a caller of this machine need not say who it is.
const LOCAL: &str = "local";

/// One attempt to change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub event: Event,
    /// The name that the caller proved, or the one that it gave where it need not prove any.
    pub author: String,
    /// Address of the other end of the connection, `unix` for a socket of this machine.
    pub from: String,
    /// In words: `drain on`, `load digits`.
    pub what: String,
    pub reason: String,
    /// Why it was refused or failed.
    pub problem: Option<String>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Accepted,
    /// By the caller's fault.
    Refused,
    /// By nobody's, or by ours.
    Failed,
}

impl Event {
    /// How a call ended.
    #[must_use]
    pub fn of(refused: Option<&Rejection>) -> Self {
        match refused.map(|rejection| rejection.kind().blame()) {
            None => Self::Accepted,
            Some(Blame::Caller) => Self::Refused,
            Some(Blame::Gateway | Blame::Arm) => Self::Failed,
        }
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
    /// Writes down what became of a change of a model that came in by a data port from somebody
    /// who may make it. What others try there stays out: they could fill the log.
    pub(super) fn audit<T>(
        &self,
        caller: &Caller,
        (verb, model, version): (&str, &str, Option<&str>),
        result: &Result<T, Rejection>,
    ) {
        // Names come from the request, of any length.
        let shown = |text: &str| text.chars().take(128).collect::<String>();
        let version = version.map(|version| format!("/versions/{}", shown(version)));
        let refused = result.as_ref().err();
        self.operations.record(Entry {
            event: Event::of(refused),
            author: author(Some(caller), None),
            from: origin(&caller.peer),
            what: format!("{verb} {}{}", shown(model), version.unwrap_or_default()),
            reason: String::new(),
            problem: refused.map(|rejection| rejection.public_message().to_owned()),
        });
    }
}
