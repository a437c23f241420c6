//! `[repository]`: the folder of models.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::reader::Section;
use super::value::{OrOff, Size};

/// The folder of models and who may change what is loaded from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repository {
    pub path: PathBuf,
    /// How often the folder is looked at; `None` leaves loading to the repository API.
    pub poll: Option<Duration>,
    pub control: Control,
    #[serde(flatten)]
    pub uploads: Uploads,
}

/// Who may load and unload models over the data ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Nobody.
    Off,
    /// Loopback and Unix-socket peers.
    Local,
    /// Every peer.
    All,
}

/// Whether a load call may bring its own model files, and how large together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Uploads {
    #[serde(rename = "uploads")]
    pub enabled: bool,
    #[serde(rename = "max_upload")]
    pub max_bytes: usize,
}

const CONTROLS: &[(&str, Control)] =
    &[("off", Control::Off), ("local", Control::Local), ("all", Control::All)];

impl Repository {
    pub(super) fn read(mut section: Section<'_>, base: &Path) -> Self {
        let path: String = section.or("path", "models/repository".to_owned());
        let poll = section.or("poll", OrOff(Some(Duration::from_secs(5)))).0;
        if poll.is_some_and(|every| every.is_zero()) {
            section.problem("poll", "is zero: use \"off\" to load by the repository API alone");
        }
        let control = section.choice("control", CONTROLS, Control::Local);
        let enabled = section.or("uploads", false);
        let max_bytes = section.or("max_upload", Size::mib(256)).0;
        section.finish();
        Self { path: base.join(path), poll, control, uploads: Uploads { enabled, max_bytes } }
    }
}
