//! `[state]`: the folder of what the gateway must remember, and how changes of routes are kept.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

/// What is kept over restarts, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct State {
    /// `None`: nothing is kept, revisions are lost at a restart.
    pub path: Option<PathBuf>,
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
            revisions: 1000,
            overlay: true,
            keep_warm: Duration::from_secs(24 * 3600),
            watch: Some(Duration::from_secs(10)),
        }
    }
}
