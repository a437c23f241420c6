//! Open files: each connection is one, and the limit that a process starts with is often 1024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// Descriptors beside connections: listeners, logs, libraries, model files while they load.
const OTHERS: u64 = 512;

/// Raises the soft limit to the hard one, and says when it does not suffice.
pub(super) fn raise(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current else { return };
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(error) => {
            debug!(%error, "cannot raise the limit of open files");
            soft
        }
    };
    let wanted = u64::try_from(connections).unwrap_or(u64::MAX).saturating_add(OTHERS);
    if now < wanted {
        warn!(
            open_files = now,
            max_connections = connections,
            "fewer files may be open (ulimit -n) than limits.max_connections asks for"
        );
    }
}
