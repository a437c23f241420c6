//! Where the doors are.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key("listen", Type::Table, "", "Where the doors are."),
    key(
        "listen.http",
        Type::AddressOrOff,
        "\"0.0.0.0:8000\"",
        "Open Inference Protocol over HTTP/1.1.",
    ),
    key(
        "listen.grpc",
        Type::AddressOrOff,
        "\"0.0.0.0:8001\"",
        "Open Inference Protocol over gRPC, with health and reflection.",
    ),
    key(
        "listen.metrics",
        Type::AddressOrOff,
        "\"0.0.0.0:8002\"",
        "Prometheus text at `/metrics`, read-only.",
    ),
    key(
        "listen.admin",
        Type::AddressOrOff,
        "\"127.0.0.1:8003\"",
        "Status and control for operators. Any other address than a loopback one needs authentication.",
    ),
    key(
        "listen.http_socket",
        Type::Text,
        "",
        "A Unix domain socket for HTTP beside the port: the path of its file, which is made at start and removed at the end. Who may open the file may call, and counts as local for `repository.control`.",
    ),
    key(
        "listen.grpc_socket",
        Type::Text,
        "",
        "A Unix domain socket for gRPC beside the port, as `listen.http_socket`.",
    ),
];
