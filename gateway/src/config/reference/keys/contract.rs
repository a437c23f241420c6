//! The keys of `[input.contract]` in `model.toml`.

use super::key;
use crate::config::reference::{Key, Type};

pub(super) const KEYS: &[Key] = &[
    key(
        "input.contract",
        Type::Table,
        "",
        "Rules for the values of the input. A value breaks the first rule of: missing, finite, range, categories, length.",
    ),
    key(
        "input.contract.optional",
        Type::Flag,
        "false",
        "Whether calls may leave the input out; then it is filled with `default`.",
    ),
    key(
        "input.contract.action",
        Type::OneOf(&["reject", "impute", "flag"]),
        "\"reject\"",
        "What happens to values that break a rule whose own key says nothing: `reject` refuses the call, `impute` replaces the value, `flag` lets it pass and names it in the answer.",
    ),
    key(
        "input.contract.range",
        Type::Numbers,
        "",
        "Least and greatest allowed value. NaN is never in a range. Imputed: the nearer end.",
    ),
    key(
        "input.contract.on_range",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to values out of range.",
    ),
    key(
        "input.contract.finite",
        Type::Flag,
        "false",
        "Whether values have to be finite. Imputed: `default`.",
    ),
    key(
        "input.contract.on_finite",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to infinities and, where none may be missing, NaN.",
    ),
    key(
        "input.contract.categories",
        Type::Values,
        "",
        "All allowed values, in the place of `range`, `finite` and, for BYTES, `max_length`. Imputed: `default`.",
    ),
    key(
        "input.contract.on_category",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to values of no category.",
    ),
    key(
        "input.contract.max_length",
        Type::Count,
        "",
        "Bytes of a BYTES element at most (imputed: cut), or the size of every variable dimension but the batch (never imputed).",
    ),
    key(
        "input.contract.on_length",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to what is too long.",
    ),
    key(
        "input.contract.default",
        Type::Value,
        "",
        "Stands in for missing values (NaN, an empty BYTES element, an optional input) and for imputed ones without a nearest allowed value.",
    ),
    key(
        "input.contract.on_missing",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to missing values. With a `default`: `impute`; without one they are not looked for unless this is given.",
    ),
    key(
        "input.contract.feature",
        Type::Tables,
        "",
        "One `[[input.contract.feature]]` per feature with rules of its own: a place of the last dimension. What it does not say is as for the whole input.",
    ),
    key("input.contract.feature.index", Type::Count, "", "Its place, from 0. Required."),
    key(
        "input.contract.feature.name",
        Type::Text,
        "",
        "Its name, for messages and metrics; absent: its index.",
    ),
    key(
        "input.contract.feature.action",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "As in the contract, for this feature; absent: that of the contract.",
    ),
    key(
        "input.contract.feature.range",
        Type::Numbers,
        "",
        "Least and greatest allowed value. NaN is never in a range. Imputed: the nearer end.",
    ),
    key(
        "input.contract.feature.on_range",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to values out of range.",
    ),
    key(
        "input.contract.feature.finite",
        Type::Flag,
        "false",
        "Whether values have to be finite. Imputed: `default`.",
    ),
    key(
        "input.contract.feature.on_finite",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to infinities and, where none may be missing, NaN.",
    ),
    key(
        "input.contract.feature.categories",
        Type::Values,
        "",
        "All allowed values, in the place of `range`, `finite` and, for BYTES, `max_length`. Imputed: `default`.",
    ),
    key(
        "input.contract.feature.on_category",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to values of no category.",
    ),
    key("input.contract.feature.max_length", Type::Count, "", "Bytes of a BYTES element at most."),
    key(
        "input.contract.feature.on_length",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to what is too long.",
    ),
    key(
        "input.contract.feature.default",
        Type::Value,
        "",
        "Stands in for missing values (NaN, an empty BYTES element, an optional input) and for imputed ones without a nearest allowed value.",
    ),
    key(
        "input.contract.feature.on_missing",
        Type::OneOf(&["reject", "impute", "flag"]),
        "",
        "What happens to missing values. With a `default`: `impute`; without one they are not looked for unless this is given.",
    ),
];
