//! `[state]`: the folder of what the gateway must remember, and how changes of routes are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::OrOff;

/// Beside the file, where it names no folder.
const FOLDER: &str = "penstock-data";
const MAX_REVISIONS: usize = 100_000;

/// What is kept over restarts, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// `None` without a file: nothing is kept, revisions are lost at a restart.
    pub path: Option<PathBuf>,
    /// Whether the folder is used from the start on: the file names it or has routes. Otherwise it
    /// is made for the first change of routes.
    #[serde(skip)]
    pub is_needed: bool,
    /// Revisions kept.
    pub revisions: usize,
    /// Whether routes may be changed beside the file.
    pub overlay: bool,
    /// How long a version that the previous revision names stays loaded.
    pub keep_warm: Duration,
    /// How often the configuration file is read again; `None`: only when asked.
    pub watch: Option<Duration>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            path: None,
            is_needed: true,
            revisions: 1000,
            overlay: true,
            keep_warm: Duration::from_secs(24 * 3600),
            watch: Some(Duration::from_secs(10)),
        }
    }
}

impl State {
    pub(super) fn read(mut section: Section<'_>, base: &Path, has_routes: bool) -> Self {
        let default = Self::default();
        let path = section.take::<String>("path");
        if path.as_ref().is_some_and(String::is_empty) {
            section.problem("path", "is empty");
        }
        let is_needed = path.is_some() || has_routes;
        let revisions = section.or("revisions", default.revisions);
        if !(2..=MAX_REVISIONS).contains(&revisions) {
            section.problem("revisions", format!("must be 2 to {MAX_REVISIONS}"));
        }
        let overlay = section.or("overlay", default.overlay);
        let keep_warm = section.or("keep_warm", default.keep_warm);
        let watch = section.or("watch", OrOff(default.watch)).0;
        if watch.is_some_and(|every| every.is_zero()) {
            section.problem("watch", "must be longer than zero, or \"off\"");
        }
        section.finish();
        let path = Some(base.join(path.as_deref().unwrap_or(FOLDER)));
        Self { path, is_needed, revisions, overlay, keep_warm, watch }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    fn read(text: &str) -> Result<State, Vec<String>> {
        parse(&format!("version = 1\n{text}"), Path::new("/etc"))
            .map(|config| config.state)
            .map_err(|found| found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_routes_need_is_kept_beside_the_file() {
        let path = Some("/etc/penstock-data".into());
        assert_eq!(read("").unwrap(), State { path, is_needed: false, ..State::default() });
        let routes = "[[route]]\nname = 'a'\n[[route.arm]]\nname = 'x'";
        let state = read(routes).unwrap();
        assert_eq!(state.path.unwrap(), Path::new("/etc/penstock-data"));
        assert!(state.is_needed);
        let named = format!("[state]\npath = '/var/lib/p'\nwatch = 'off'\n{routes}");
        let state = read(&named).unwrap();
        assert_eq!((state.path.unwrap().as_path(), state.watch), (Path::new("/var/lib/p"), None));
        assert_eq!(Config::for_repository(Path::new("models")).state.path, None);
    }

    #[test]
    fn bounds_are_held() {
        assert_eq!(
            read("[state]\npath = ''\nrevisions = 1\nwatch = '0s'").unwrap_err(),
            [
                "state.path: is empty",
                "state.revisions: must be 2 to 100000",
                "state.watch: must be longer than zero, or \"off\"",
            ]
        );
    }
}
