//! The folder of models.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key("repository", Type::Table, "", "The folder of models and who may change what is loaded."),
    key(
        "repository.path",
        Type::Text,
        "\"models/repository\"",
        "The model repository; relative to this file.",
    ),
    key(
        "repository.poll",
        Type::DurationOrOff,
        "\"5s\"",
        "How often the folder is looked at for new, changed and removed versions. `\"off\"`: only the repository API loads models after the start.",
    ),
    key(
        "repository.control",
        Type::OneOf(&["off", "local", "all"]),
        "\"local\"",
        "Who may load and unload models and change log settings over the data ports: nobody, loopback peers, or everybody. A model is code: whoever may load one owns the machine.",
    ),
    key(
        "repository.uploads",
        Type::Flag,
        "false",
        "Whether a load call may bring its own model files (`file:` parameters).",
    ),
    key(
        "repository.max_upload",
        Type::Size,
        "\"256MiB\"",
        "Largest sum of the files of one load call; the call as a whole is bound by `limits.max_request` too.",
    ),
];
