//! Keeps keys up to date without a restart. Whatever fails leaves the last good ones in use: of one
//! client, or of the issuer.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use futures_util::future::join;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{error, info, warn};

use super::jwks::Keyring;
use super::jwt::Tokens;
use super::{Identities, keys};
use crate::config::auth::Jwks;
use crate::config::{Digest, Problem};
use crate::tasks;
use crate::telemetry::metrics;

/// In metrics and the log.
const KEY_FILES: &str = "key_files";

/// What earlier looks at a file saw.
#[derive(Debug, Default)]
struct Looks {
    last: Option<Result<Digest, String>>,
    told: bool,
}

/// What to do about a look.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    /// It changed, and has settled.
    Take,
    /// It cannot be used, which nobody has been told.
    Tell,
}

impl Looks {
    /// Judges by two looks in a row: a file may be half written at the first.
    fn step(&mut self, found: Result<Digest, String>, current: Option<Digest>) -> Step {
        let again = self.last.as_ref() == Some(&found);
        let step = match &found {
            Ok(digest) if Some(*digest) == current => Step::Nothing,
            Ok(_) if again => Step::Take,
            Err(_) if again && !self.told => Step::Tell,
            _ => Step::Nothing,
        };
        self.told = found.is_err() && again && (self.told || step == Step::Tell);
        self.last = Some(found);
        step
    }
}

impl Identities {
    /// Follows files and addresses of keys for as long as the process lives.
    pub async fn follow(self: Arc<Self>) -> Infallible {
        let (never, _) = join(self.follow_files(), self.follow_address()).await;
        never
    }

    async fn follow_files(&self) -> Infallible {
        let has_key_files = self.settings.keys.iter().any(|client| client.file.is_some());
        let (mut of_keys, mut of_tokens) = (<[Looks; 2]>::default(), Looks::default());
        let mut ticks = interval(self.settings.reload);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if has_key_files {
                self.look_at_keys(&mut of_keys).await;
            }
            if let Some(tokens) = &self.tokens {
                look_at_key_set(tokens, &mut of_tokens).await;
            }
        }
    }

    /// What can be read counts, whatever is wrong with the rest.
    async fn look_at_keys(&self, [of_keys, of_faults]: &mut [Looks; 2]) {
        let (clients, before) = (self.settings.keys.clone(), self.keys.load_full());
        let current = before.seen;
        let (keys, problems) = tasks::blocking(move || keys::read_again(&clients, &before)).await;
        let step = of_keys.step(Ok(keys.seen), Some(current));
        settle(KEY_FILES, step, Ok(keys), |keys| self.keys.store(Arc::new(keys)));
        let texts: Vec<_> = problems.iter().map(Problem::to_string).collect();
        let read = if texts.is_empty() { Ok(()) } else { Err(texts.join("; ")) };
        let step = of_faults.step(read.clone().map(|()| current), Some(current));
        settle(KEY_FILES, step, read, |()| {});
    }

    async fn follow_address(&self) -> Infallible {
        let Some(tokens) = &self.tokens else { return pending().await };
        let Jwks::Url { refresh, cooldown, .. } = &tokens.settings.jwks else {
            return pending().await;
        };
        loop {
            let is_good = fetch(tokens).await;
            sleep(*cooldown).await;
            if is_good {
                tokio::select! {
                    () = sleep(refresh.saturating_sub(*cooldown)) => {}
                    () = tokens.wanted.notified() => {}
                }
            }
        }
    }
}

async fn look_at_key_set(tokens: &Tokens, looks: &mut Looks) {
    let Jwks::File(path) = &tokens.settings.jwks else { return };
    let (path, allowed) = (path.clone(), tokens.allowed().to_vec());
    let read = tasks::blocking(move || Keyring::read(&path, &allowed)).await;
    let found = read.as_ref().map(|keyring| keyring.seen).map_err(Clone::clone);
    let step = looks.step(found, tokens.seen());
    settle("jwks_file", step, read, |keyring| tokens.replace(keyring));
}

/// Does what a look asks for, and counts it.
fn settle<T>(source: &'static str, step: Step, read: Result<T, String>, take: impl FnOnce(T)) {
    match (step, read) {
        (Step::Take, Ok(read)) => {
            take(read);
            count(source, "changed");
            info!(source, "keys read again");
        }
        (step, Err(problem)) => {
            count(source, "failed");
            if step == Step::Tell {
                error!(source, problem, "cannot read keys again, the last ones count");
            }
        }
        (_, Ok(_)) => {}
    }
}

/// Fetches the keys of tokens once; whether that went well.
async fn fetch(tokens: &Tokens) -> bool {
    const SOURCE: &str = "jwks_url";
    let Some(fetcher) = &tokens.fetcher else { return true };
    let text = fetcher.fetch().await;
    let keyring = text.and_then(|text| Keyring::parse(&text, tokens.allowed()));
    match keyring {
        Ok(keyring) if Some(keyring.seen) == tokens.seen() => count(SOURCE, "unchanged"),
        Ok(keyring) => {
            info!(source = SOURCE, keys = keyring.len(), "keys fetched");
            tokens.replace(keyring);
            count(SOURCE, "changed");
        }
        Err(problem) => {
            count(SOURCE, "failed");
            let place = fetcher.place();
            warn!(source = SOURCE, place, problem, "cannot fetch keys, the last ones count");
            return false;
        }
    }
    true
}

fn count(source: &'static str, result: &'static str) {
    metrics::AUTH_RELOADS.counter(&[source, result]).increment(1);
}

#[cfg(test)]
mod tests;
