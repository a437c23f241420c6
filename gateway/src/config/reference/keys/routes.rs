//! Who is answered by which version.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "route",
        Type::Tables,
        "",
        "One `[[route]]` for each name that several versions answer, at most 10000. What no route names serves under its own name.",
    ),
    key(
        "route.name",
        Type::Text,
        "",
        "What clients call: a name as models have it. The route stands before the model of the same name. Required.",
    ),
    key(
        "route.sticky",
        Type::Text,
        "\"off\"",
        "What keeps a caller with its arm: `\"header:NAME\"` (gRPC: metadata), `\"parameter:NAME\"` of the request, `\"identity\"` (the name of the known caller), or `\"off\"`: each request is divided on its own. A `penstock-key` header comes before it.",
    ),
    key(
        "route.salt",
        Type::Text,
        "",
        "Routes with different salts divide the same callers independently. A change divides all callers anew. By default the route's name.",
    ),
    key(
        "route.fallback",
        Type::Text,
        "\"refuse\"",
        "What answers where the assigned arm is broken, open or not loaded: the name of an arm, `\"static\"` (see `route.static`), or `\"refuse\"`.",
    ),
    key(
        "route.log",
        Type::OneOf(&["lossy", "sampled", "durable", "off"]),
        "",
        "How surely its calls are in the prediction log. Absent: as `prediction_log.guarantee` says.",
    ),
    key(
        "route.testers",
        Type::Texts,
        "[]",
        "Callers that may name their arm by `penstock-arm`: names of identities, a trailing `*` stands for any ending. Who has the role `operate` may always.",
    ),
    key(
        "route.arm",
        Type::Tables,
        "",
        "One `[[route.arm]]` for each way in which calls are answered, 1 to 64. Required.",
    ),
    key(
        "route.arm.name",
        Type::Text,
        "",
        "1 to 64 small letters, digits, `_` or `-`; not a number alone, `direct`, `refuse` or `static`; no other arm's or shadow's of the route. Required.",
    ),
    key(
        "route.arm.upstream",
        Type::Text,
        "",
        "Name of the `[[upstream]]` that answers. Absent: a model of this gateway does.",
    ),
    key("route.arm.model", Type::Text, "", "The model that answers. By default the route's name."),
    key(
        "route.arm.version",
        Type::Text,
        "\"latest\"",
        "Its version: a number, a label of the model's `[labels]`, or `\"latest\"`, the highest that serves. With an upstream whatever its versions are called; `\"latest\"` leaves the choice to it.",
    ),
    key(
        "route.arm.share",
        Type::Percent,
        "",
        "Part of the callers, in steps of 0.01%. All of a route add up to 100%; one arm may leave it out and gets the rest.",
    ),
    key(
        "route.arm.buckets",
        Type::Pairs,
        "",
        "Pins the buckets of 0.01% that are the arm's: ranges `[FROM, TO]` out of 0 to 10000, `TO` not included. For all arms of a route or for none. Absent: as few callers move as the shares demand.",
    ),
    key(
        "route.static",
        Type::Tables,
        "",
        "With `fallback = \"static\"`: one `[[route.static]]` for each output, the same for every item of every call.",
    ),
    key("route.static.output", Type::Text, "", "Name of the output. Required."),
    key("route.static.dtype", Type::Text, "", "`FP32`, `INT64`, …; not `BYTES`. Required."),
    key(
        "route.static.shape",
        Type::Counts,
        "",
        "Shape for one item, without the batch dimension. Required.",
    ),
    key(
        "route.static.data",
        Type::Numbers,
        "",
        "The elements, as many as the shape has, at most 65536. Required.",
    ),
    key(
        "route.shadow",
        Type::Tables,
        "",
        "One `[[route.shadow]]` for each model that sees calls of the route and answers nobody, at most 8.",
    ),
    key("route.shadow.name", Type::Text, "", "As `route.arm.name`. Required."),
    key("route.shadow.upstream", Type::Text, "", "As `route.arm.upstream`."),
    key("route.shadow.model", Type::Text, "", "As `route.arm.model`."),
    key("route.shadow.version", Type::Text, "\"latest\"", "As `route.arm.version`."),
    key(
        "route.shadow.sample",
        Type::Percent,
        "\"100%\"",
        "Part of the callers whose calls it sees; shadows of a route see the same ones.",
    ),
    key(
        "route.shadow.max_in_flight",
        Type::Count,
        "64",
        "Calls of it that may be under way, 1 to 65536; more are dropped and counted.",
    ),
    key(
        "route.shadow.max_bytes",
        Type::Size,
        "\"64MiB\"",
        "Bytes of inputs and live outputs that those may hold.",
    ),
    key(
        "route.shadow.timeout",
        Type::Duration,
        "\"5s\"",
        "A call that has not been answered by then is given up.",
    ),
];
