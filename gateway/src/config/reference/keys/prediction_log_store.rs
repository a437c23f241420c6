//! What the prediction log may take of the disk, and where its files are delivered to.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "prediction_log.keep",
        Type::DurationOrOff,
        "\"30d\"",
        "Parquet files on this machine are deleted when their youngest row is older; `\"off\"`: age deletes nothing. What is not delivered yet stays.",
    ),
    key(
        "prediction_log.keep_size",
        Type::Size,
        "",
        "Bytes of all Parquet files on this machine, beyond which the oldest are deleted, whole files at a time; without it there is no bound. What is not delivered yet stays.",
    ),
    key(
        "prediction_log.min_free",
        Type::Size,
        "\"1GiB\"",
        "Free space of the file system below which no more rows are written, until an eighth more is free; what waits is then what its guarantee says. `\"0B\"`: never.",
    ),
    key(
        "prediction_log.store",
        Type::Table,
        "",
        "An object store, or another folder, to which Parquet files are delivered. Credentials come from the environment (`AWS_…`, `GOOGLE_…`, `AZURE_…`), from the machine's own identity, or from `credentials`.",
    ),
    key(
        "prediction_log.store.url",
        Type::Text,
        "",
        "`s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX` or `file:///FOLDER`. Several gateways may share one.",
    ),
    key(
        "prediction_log.store.endpoint",
        Type::Text,
        "",
        "Address of a server that speaks the provider's protocol, for S3-compatible stores: `https://minio.example:9000`.",
    ),
    key(
        "prediction_log.store.region",
        Type::Text,
        "",
        "Region of an S3 bucket, over `AWS_REGION`.",
    ),
    key(
        "prediction_log.store.allow_http",
        Type::Flag,
        "false",
        "Whether `endpoint` may be asked without TLS.",
    ),
    key(
        "prediction_log.store.credentials",
        Type::Text,
        "",
        "File of lines `NAME=value` with the names of the environment's variables, which it goes before; relative to the configuration file. It is read again when the store refuses what it held.",
    ),
    key(
        "prediction_log.store.keep_local",
        Type::Flag,
        "false",
        "Whether delivered files stay on this machine too, for `keep` and `keep_size`.",
    ),
    key(
        "prediction_log.store.timeout",
        Type::Duration,
        "\"30s\"",
        "Longest time of one request; files above 8 MiB go in parts of that size.",
    ),
    key(
        "prediction_log.store.uploads",
        Type::Count,
        "4",
        "Files under way at a time, 1 to 64. Each takes at most 8 MiB of memory.",
    ),
];
