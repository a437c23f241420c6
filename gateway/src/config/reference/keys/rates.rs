//! How much each caller may ask for.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "rate_limit",
        Type::Tables,
        "",
        "One `[[rate_limit]]` per rule: so much per time for each value of a key. Prediction calls count, health and metadata do not. Rules are checked from the narrowest key to the widest, whatever their order here.",
    ),
    key(
        "rate_limit.name",
        Type::Text,
        "",
        "What callers, metrics and the admin port call it. Required.",
    ),
    key(
        "rate_limit.key",
        Type::Text,
        "",
        "Whom calls are counted to: `\"header:NAME\"` (calls without the header count together), `\"identity\"`, `\"address\"` (IPv4 address or IPv6 /64 of the connection), `\"tenant\"`, `\"model\"` or `\"global\"`. Required.",
    ),
    key(
        "rate_limit.rate",
        Type::Text,
        "",
        "Amount per second, minute or hour: `\"100/s\"`, `\"6000/m\"`, `\"10MiB/s\"`. Required.",
    ),
    key(
        "rate_limit.burst",
        Type::CountOrSize,
        "",
        "What may come at once after a pause. A call that costs more gets 400. By default the amount of `rate`.",
    ),
    key(
        "rate_limit.cost",
        Type::OneOf(&["requests", "rows", "bytes"]),
        "\"requests\"",
        "What a call uses up: 1, its items, or the bytes of its input tensors.",
    ),
    key(
        "rate_limit.models",
        Type::Texts,
        "[]",
        "Only calls of these models count; a trailing `*` stands for any ending. Empty: all.",
    ),
    key(
        "rate_limit.mode",
        Type::OneOf(&["enforce", "shadow"]),
        "\"enforce\"",
        "`\"shadow\"` refuses nobody and only counts who would have been.",
    ),
    key(
        "rate_limit.store",
        Type::OneOf(&["local", "redis"]),
        "\"local\"",
        "`\"redis\"` shares the limit between all gateways with the same `[redis]`.",
    ),
    key(
        "rate_limit.on_error",
        Type::OneOf(&["allow", "deny", "local"]),
        "\"local\"",
        "While Redis does not answer or fails: let calls pass, refuse them with 503, or limit each gateway by itself at the same rate.",
    ),
    key(
        "rate_limit.max_keys",
        Type::Count,
        "100000",
        "Keys with a state of their own in this process (about 40 bytes each); new ones beyond share one until others have been idle.",
    ),
    key(
        "quota",
        Type::Tables,
        "",
        "One `[[quota]]` per rule: so much at the same time for each value of a key.",
    ),
    key("quota.name", Type::Text, "", "As `rate_limit.name`, and no rate limit's. Required."),
    key("quota.key", Type::Text, "", "As `rate_limit.key`. Required."),
    key(
        "quota.max_in_flight",
        Type::Count,
        "",
        "What may be under way together, from admission until the answer is encoded. Required.",
    ),
    key("quota.unit", Type::OneOf(&["calls", "rows"]), "\"calls\"", "What is counted."),
    key("quota.models", Type::Texts, "[]", "As `rate_limit.models`."),
    key("quota.mode", Type::OneOf(&["enforce", "shadow"]), "\"enforce\"", "As `rate_limit.mode`."),
    key(
        "fair_share",
        Type::Table,
        "",
        "Division of engine time between groups of callers while there is too little of it.",
    ),
    key("fair_share.enabled", Type::Flag, "false", "Whether anybody is held to a share."),
    key(
        "fair_share.by",
        Type::OneOf(&["tenant", "identity"]),
        "\"tenant\"",
        "The groups that share.",
    ),
    key(
        "fair_share.above",
        Type::Duration,
        "\"50ms\"",
        "Engine time that waits on a device before anybody is held to a share of it. With nobody else about, a group has everything.",
    ),
    key("fair_share.weights", Type::Table, "", "Weights of groups by name; 1 for all others."),
    key(
        "redis",
        Type::Table,
        "",
        "The server (Redis 5 or later, Valkey) that shared limits are kept in.",
    ),
    key(
        "redis.url",
        Type::Text,
        "\"redis://127.0.0.1:6379/0\"",
        "`redis://[USER@]HOST:PORT/DATABASE` or `unix:///PATH`, without a password.",
    ),
    key(
        "redis.password_file",
        Type::Text,
        "",
        "File whose content, white space at its end left out, is the password.",
    ),
    key(
        "redis.key_secret_file",
        Type::Text,
        "",
        "File with at least 16 random bytes, white space at its end left out, the same for all gateways: names of keys in Redis are hashed with it. Absent: they are plain hashes, from which whoever can list keys finds addresses and guessable names by trying.",
    ),
    key(
        "redis.timeout",
        Type::Duration,
        "\"5ms\"",
        "Longest wait of a call. After a few failures no call waits until the server answers again.",
    ),
    key("redis.prefix", Type::Text, "\"penstock\"", "Start of the name of every key."),
];
