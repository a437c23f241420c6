//! Certificates.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "tls",
        Type::Table,
        "",
        "TLS for the ports. Without `tls.certificate` they are plain; Unix domain sockets always are.",
    ),
    key(
        "tls.certificate",
        Type::Text,
        "",
        "The certificate chain of the gateway in PEM, its own certificate first. Needs `tls.key`.",
    ),
    key("tls.key", Type::Text, "", "The private key of the first certificate, in PEM."),
    key(
        "tls.client_ca",
        Type::Text,
        "",
        "Certificates in PEM of those who may issue certificates of callers (mTLS).",
    ),
    key(
        "tls.client_auth",
        Type::OneOf(&["off", "optional", "required"]),
        "",
        "Whether callers show certificates. `optional` takes callers without one and refuses wrong ones. Absent: `required` where there is `tls.client_ca`, else `off`.",
    ),
    key("tls.min_version", Type::OneOf(&["1.2", "1.3"]), "\"1.2\"", "The oldest TLS spoken."),
    key(
        "tls.listeners",
        Type::Texts,
        "[\"http\", \"grpc\", \"metrics\", \"admin\"]",
        "The ports that speak TLS; the others stay plain.",
    ),
    key("tls.handshake_timeout", Type::Duration, "\"10s\"", "Longest wait for a TLS handshake."),
    key(
        "tls.poll",
        Type::DurationOrOff,
        "\"5s\"",
        "How often the files are looked at. New ones serve new connections; broken ones change nothing. SIGHUP looks at once.",
    ),
];
