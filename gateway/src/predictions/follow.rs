//! Keeps the key of hashes up to date without a restart or another configuration, as the other
//! files of keys are. Whatever fails leaves the last good one in use.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info};

use super::settings::{KeyDigest, read_key};
use super::{PredictionLog, Settings};
use crate::config::HashKey;
use crate::tasks;

/// How often the file is looked at: as those of callers' keys are where nothing else is said.
const EVERY: Duration = Duration::from_secs(2);

/// What earlier looks saw.
#[derive(Debug, Default)]
struct Looks {
    last: Option<Result<KeyDigest, String>>,
    is_told: bool,
}

impl PredictionLog {
    /// Follows the file of the key for as long as the process lives.
    pub async fn follow(self: Arc<Self>) -> Infallible {
        let mut looks = Looks::default();
        loop {
            sleep(EVERY).await;
            let log = self.clone();
            looks = tasks::blocking(move || log.look_at_key(looks)).await;
        }
    }

    /// Takes another key once two looks in a row saw it: a file may be half written at the first.
    fn look_at_key(&self, looks: Looks) -> Looks {
        let settings = self.settings();
        let Some(place @ HashKey::File(path)) = settings.key_place() else {
            return Looks::default();
        };
        let read = read_key(place);
        let found = read.as_ref().map(|key| KeyDigest::of(key)).map_err(Clone::clone);
        let again = looks.last.as_ref() == Some(&found);
        let mut is_told = looks.is_told && found.is_err();
        match read {
            Ok(_) if found.as_ref().ok() == settings.key_digest() => {}
            Ok(key) if again => self.take_key(&settings, &key, path),
            Err(problem) if again && !is_told => {
                is_told = true;
                let path = path.display();
                error!(%path, problem, "cannot read the key of hashes again, the last one counts");
            }
            _ => {}
        }
        Looks { last: Some(found), is_told }
    }

    /// Puts another key in force. Where a reload was faster, its settings stay, and are looked at
    /// the next time.
    fn take_key(&self, before: &Arc<Settings>, key: &[u8], path: &Path) {
        if self.exchange(before, before.with_key(key)) {
            info!(path = %path.display(), "key of hashes read again, rows have other hashes");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::super::reading::{start, terms};
    use super::*;

    const FIRST: &str = "the first key of hashes\n";
    const SECOND: &str = "the second key of hashes";

    /// What stands for a caller now.
    fn shown(log: &PredictionLog) -> [u8; 16] {
        log.settings().identity.as_ref().unwrap().hash(b"caller")
    }

    fn lines(key: &Path) -> String {
        format!("tensor_limit = '7KiB'\nhash_key = 'file:{}'\n", key.display())
    }

    #[test]
    fn another_key_counts_once_two_looks_saw_the_same_and_a_bad_one_never_does() {
        let folder = TempDir::new().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, FIRST).unwrap();
        let log = start(&folder.path().join("log"), &lines(&key));
        let first = shown(&log);
        let look = |looks| log.look_at_key(looks);
        let looks = look(look(Looks::default()));
        assert_eq!(shown(&log), first);
        fs::write(&key, "half of the second key").unwrap();
        let looks = look(looks);
        fs::write(&key, SECOND).unwrap();
        let looks = look(looks);
        assert_eq!(shown(&log), first, "seen once");
        let looks = look(looks);
        let second = shown(&log);
        assert_ne!(second, first);
        assert_eq!(log.settings().tensor_limit, 7 << 10, "the rest is as it was");
        let mut looks = look(looks);
        for bad in [Some("too short"), None] {
            match bad {
                Some(text) => fs::write(&key, text).unwrap(),
                None => fs::remove_file(&key).unwrap(),
            }
            looks = look(look(looks));
            assert!(looks.is_told && looks.last.as_ref().is_some_and(Result::is_err));
            looks = look(looks);
            assert_eq!(shown(&log), second, "{bad:?}");
        }
        fs::write(&key, FIRST).unwrap();
        looks = look(look(looks));
        assert_eq!(shown(&log), first, "it is good again");
        assert!(!looks.is_told);
        assert!(log.stop(Duration::from_secs(10)));
    }

    #[test]
    fn a_reload_in_between_is_not_undone() {
        let folder = TempDir::new().unwrap();
        let key = folder.path().join("key");
        fs::write(&key, FIRST).unwrap();
        let log = start(&folder.path().join("log"), &lines(&key));
        let before = log.settings();
        let reloaded = Settings::new(&terms(log.path(), "tensor_limit = '9KiB'")).unwrap();
        log.apply(reloaded);
        assert!(!log.exchange(&before, before.with_key(SECOND.as_bytes())));
        assert_eq!(log.settings().tensor_limit, 9 << 10);
        // Without a file there is nothing to look at.
        let looks = log.look_at_key(log.look_at_key(Looks::default()));
        assert!(looks.last.is_none() && log.settings().identity.is_none());
        assert!(log.stop(Duration::from_secs(10)));
    }
}
