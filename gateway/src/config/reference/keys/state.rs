//! What is kept over restarts.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "state",
        Type::Table,
        "",
        "What is kept over restarts, and how changes of routes are kept.",
    ),
    key(
        "state.path",
        Type::Text,
        "",
        "Folder for revisions of routes and the audit log; relative to the file, beside which it is `penstock-data` by default. It is made at the start where it is named or the file has routes, else by the first change of routes. A gateway that is started on a folder of models keeps nothing.",
    ),
    key("state.revisions", Type::Count, "1000", "Revisions of routes that are kept, 2 to 100000."),
    key(
        "state.overlay",
        Type::Flag,
        "true",
        "Whether shares may be changed beside the file, by `penstock route set` and `rollback`. `false`: the file is the only source.",
    ),
    key(
        "state.keep_warm",
        Type::Duration,
        "\"24h\"",
        "How long versions that only the previous revision names stay loaded, so that a rollback takes no load.",
    ),
    key(
        "state.watch",
        Type::DurationOrOff,
        "\"10s\"",
        "How often the configuration file is compared with what was read, beside watching its folder. `\"off\"`: it is read again when asked alone.",
    ),
];
