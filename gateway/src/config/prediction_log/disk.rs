//! `[prediction_log]`, what it may take of the disk: how long files stay, how large they may be
//! together, and what has to stay free.

use std::time::Duration;

use serde::Serialize;

use crate::config::reader::Section;
use crate::config::value::{OrOff, Size};

/// What the log may take of the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Files whose youngest row is older are deleted; `None`: age deletes nothing.
    pub keep: Option<Duration>,
    /// Bytes of all files together, beyond which the oldest are deleted; `None`: no bound.
    pub keep_size: Option<usize>,
    /// Bytes of the file system below which no more rows are written; 0: never.
    pub min_free: usize,
}

impl Default for Disk {
    fn default() -> Self {
        let month = Duration::from_secs(30 * 24 * 3600);
        Self { keep: Some(month), keep_size: None, min_free: 1 << 30 }
    }
}

impl Disk {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let keep = section.or("keep", OrOff(default.keep)).0;
        if keep.is_some_and(|keep| keep.is_zero()) {
            section.problem("keep", "must be longer than zero, or \"off\"");
        }
        let keep_size = section.take::<Size>("keep_size").map(|size| size.0);
        if keep_size == Some(0) {
            section.problem("keep_size", "must be more than zero");
        }
        let min_free = section.or("min_free", Size(default.min_free)).0;
        Self { keep, keep_size, min_free }
    }
}
