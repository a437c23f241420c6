//! What a configuration that was read again is handed to.

use std::fmt;

use futures_util::future::BoxFuture;

use crate::config::{Config, Problem};
use crate::traffic::By;

/// Puts configurations in force. Called by one reload at a time.
pub trait Apply: fmt::Debug + Send + Sync {
    /// Gets ready everything that a configuration needs and that may go wrong; changes nothing.
    /// Dropping what it returns leaves no trace. `hash` is that of the text.
    ///
    /// # Errors
    /// Every problem, with the path of its key.
    fn prepare<'a>(
        &'a self,
        new: &'a Config,
        hash: &'a str,
        asked: &'a Asked,
    ) -> BoxFuture<'a, Result<Prepared, Vec<Problem>>>;

    /// What becomes of the routes, in words, were this configuration applied. Changes nothing, and
    /// loads nothing: what is found wrong while loading is not among the problems.
    ///
    /// # Errors
    /// Every problem, with the path of its key.
    fn preview<'a>(&'a self, new: &'a Config) -> BoxFuture<'a, Result<Vec<String>, Vec<Problem>>>;

    /// The revision in force.
    fn revision(&self) -> u64;

    /// Takes note of the hash of a text that is new and says what is in force.
    fn set_hash<'a>(&'a self, hash: &'a str) -> BoxFuture<'a, ()>;

    /// Writes down that a text was refused before it could be awaited.
    fn refused<'a>(
        &'a self,
        hash: &'a str,
        asked: &'a Asked,
        problems: &'a [Problem],
    ) -> BoxFuture<'a, ()>;
}

/// A configuration that is ready to be in force: awaiting it is the one step in which everything
/// changes together. Succeeds as a whole or not at all, and writes down either.
pub type Prepared = BoxFuture<'static, Result<Applied, Vec<Problem>>>;

/// A configuration that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub revision: u64,
    /// What became of the routes, which is not for the file alone to say; nothing where it is.
    pub diff: Vec<String>,
}

/// Who asked for a reload, and why, for the record of revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub author: String,
    /// An address, or what in the gateway asks.
    pub from: String,
    pub reason: Option<String>,
}

impl Asked {
    /// Nobody asked: the file changed.
    #[must_use]
    pub fn by_file() -> Self {
        Self { author: "file".to_owned(), from: By::WATCH.to_owned(), reason: None }
    }

    /// The process was sent SIGHUP.
    #[must_use]
    pub fn by_signal() -> Self {
        Self { author: "local".to_owned(), from: "SIGHUP".to_owned(), reason: None }
    }
}
