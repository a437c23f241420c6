//! What is kept of every call.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "prediction_log",
        Type::Table,
        "",
        "What is kept of every call. Without this section nothing is: inputs may be personal data. A reload takes over `guarantee`, `commit_timeout`, `tensor_limit`, `slices`, `redact`, `hash_key` and `sampling`; the others need a restart.",
    ),
    key(
        "prediction_log.path",
        Type::Text,
        "",
        "Folder of the log, for one gateway alone; relative to the file. By default `predictions` beneath `state.path`.",
    ),
    key(
        "prediction_log.guarantee",
        Type::OneOf(&["lossy", "sampled", "durable", "off"]),
        "\"lossy\"",
        "How surely a call is in the log where its route does not say (`route.log`): `\"lossy\"`: unless the queue is full; `\"sampled\"`: a part, see `prediction_log.sampling`; `\"durable\"`: before it is answered, or it is not answered; `\"off\"`: not at all.",
    ),
    key(
        "prediction_log.fsync",
        Type::OneOf(&["never", "interval", "always"]),
        "\"interval\"",
        "When rows are brought to the disk. What is written survives the end of the process in any case, that of the machine once it is there; with `\"always\"` a durable call waits for that.",
    ),
    key(
        "prediction_log.fsync_interval",
        Type::Duration,
        "\"1s\"",
        "How often, with `fsync = \"interval\"`.",
    ),
    key(
        "prediction_log.commit_timeout",
        Type::Duration,
        "\"5s\"",
        "Longest that a durable call waits for its row to be written, where its deadline is not sooner. Then it is refused as overloaded.",
    ),
    key(
        "prediction_log.queue_rows",
        Type::Count,
        "65536",
        "Rows that may wait to be written, 1 to 16777216.",
    ),
    key("prediction_log.queue_bytes", Type::Size, "\"256MiB\"", "Their bytes, at least 64KiB."),
    key(
        "prediction_log.segment_size",
        Type::Size,
        "\"128MiB\"",
        "A segment that has grown to this is closed, and converted, at least 64KiB.",
    ),
    key(
        "prediction_log.segment_age",
        Type::Duration,
        "\"5m\"",
        "So is one that has been open for this long.",
    ),
    key(
        "prediction_log.tensor_limit",
        Type::Size,
        "\"64KiB\"",
        "Larger tensors are left out of rows, which say so. At most 64MiB.",
    ),
    key(
        "prediction_log.slices",
        Type::Texts,
        "[]",
        "Headers (gRPC: metadata) and parameters by which rows are told apart: `\"header:NAME\"`, `\"parameter:NAME\"`, at most 64. No others are kept.",
    ),
    key(
        "prediction_log.hash_key",
        Type::Text,
        "",
        "Where the key of hashes is: `\"env:NAME\"` or `\"file:PATH\"`, at least 16 bytes. A file is followed: another key counts once two looks, 2 s apart, saw the same. Without it rows have neither who called nor what keeps callers with their arm: both are kept as hashes alone.",
    ),
    key(
        "prediction_log.redact",
        Type::Tables,
        "",
        "One `[[prediction_log.redact]]` for each field that is not kept as it came. It is changed before anything is queued.",
    ),
    key(
        "prediction_log.redact.field",
        Type::Text,
        "",
        "`\"in.NAME\"` or `\"out.NAME\"` (a tensor, or a feature that `model.toml` names), `\"header.NAME\"`, `\"slice.NAME\"`, `\"caller_id\"` or `\"idempotency_key\"`. Required.",
    ),
    key(
        "prediction_log.redact.model",
        Type::Text,
        "",
        "The only model that a rule for `in.NAME` or `out.NAME` is about. A rule without it is about all of them; a model that has neither a tensor nor a feature of that name keeps nothing of tensors on that side whose scalars have no names (`features` in `model.toml`): what is meant may be among them.",
    ),
    key(
        "prediction_log.redact.how",
        Type::Text,
        "",
        "`\"drop\"`; `\"hash\"` (texts, and integers of 64 bits); `\"truncate:N\"` (texts: the first N characters); `\"bucket:W\"` (numbers: rounded down to a multiple of W). What a rule does not fit is dropped. Required.",
    ),
    key(
        "prediction_log.feedback",
        Type::Table,
        "",
        "With this section predictions are remembered for a while, so that feedback about them counts in metrics as soon as it comes. Feedback is kept in the log without it too.",
    ),
    key(
        "prediction_log.feedback.horizon",
        Type::Duration,
        "\"1h\"",
        "For how long. Older feedback is kept in the log and joined when that is read.",
    ),
    key(
        "prediction_log.feedback.entries",
        Type::Count,
        "262144",
        "How many at most, 1 to 16777216, of about 150 bytes each, and up to 256 more for classes of several items; one whose caller gave it an id takes two. As many again may wait to be looked at while no feedback comes. After a restart nothing is remembered of what was before.",
    ),
    key(
        "prediction_log.sampling",
        Type::Table,
        "",
        "Which part of the calls is kept with `\"sampled\"`. A call that several of these fit is kept with the largest; each row has the probability with which it was. Calls with the same sticky key are kept together.",
    ),
    key(
        "prediction_log.sampling.rate",
        Type::Percent,
        "\"10%\"",
        "Of calls that nothing below fits.",
    ),
    key(
        "prediction_log.sampling.refusals",
        Type::Percent,
        "\"100%\"",
        "Of calls without an answer.",
    ),
    key(
        "prediction_log.sampling.slow",
        Type::Percent,
        "\"100%\"",
        "Of calls that took longer than `slow_than`.",
    ),
    key(
        "prediction_log.sampling.slow_than",
        Type::Duration,
        "",
        "From which time on a call is slow. Absent: none is.",
    ),
    key(
        "prediction_log.sampling.low_confidence",
        Type::Percent,
        "\"100%\"",
        "Of calls with an item whose largest element of `confidence_output` is below `confidence_below`.",
    ),
    key(
        "prediction_log.sampling.confidence_output",
        Type::Text,
        "",
        "Name of the output that says how sure an answer is. Absent: nobody looks.",
    ),
    key("prediction_log.sampling.confidence_below", Type::Number, "", "See `low_confidence`."),
    key(
        "prediction_log.sampling.small_arms",
        Type::Percent,
        "\"100%\"",
        "Of calls of arms with a share below `small_arms_below`.",
    ),
    key("prediction_log.sampling.small_arms_below", Type::Percent, "\"5%\"", "See `small_arms`."),
    key(
        "prediction_log.sampling.adaptive",
        Type::Flag,
        "true",
        "Whether all of these are halved step by step while the queue is more than half full. Rows have the probability that was in force.",
    ),
];
