//! What of `[prediction_log]` only its surroundings show: the folder and the key.

use super::unusable;
use crate::config::{PredictionLog, Problem};
use crate::predictions::Settings;

/// What keeps a gateway from using its folder, and its key of hashes.
pub(super) fn check(log: &PredictionLog) -> Vec<Problem> {
    let parts = ["segments", "files", "feedback"].map(|part| log.path.join(part));
    let folder = std::iter::once(&log.path)
        .chain(&parts)
        .find_map(|path| unusable(path))
        .map(|text| Problem::new("prediction_log.path", text));
    folder.into_iter().chain(Settings::new(log).err()).collect()
}
