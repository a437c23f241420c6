//! `[input.contract]` of `model.toml`: what the values of an input must be like.

use crate::config::reader::Section;
use crate::config::value::Scalar;
use crate::contract::{Action, FeatureTerms, InputTerms, Terms};

/// Reads the contract of one input. What it means is checked with the signature.
pub(super) fn read(mut section: Section<'_>) -> InputTerms {
    let optional = section.or("optional", false);
    let action = section.choice("action", &Action::NAMES, Action::Reject);
    let wide = read_terms(&mut section, action);
    let features = section.list("feature").into_iter();
    let features = features.map(|feature| read_feature(feature, action)).collect();
    section.finish();
    InputTerms { optional, wide, features }
}

fn read_feature(mut section: Section<'_>, action: Action) -> FeatureTerms {
    let index = section.required("index").unwrap_or_default();
    let name = section.take("name");
    let action = section.choice("action", &Action::NAMES, action);
    let terms = read_terms(&mut section, action);
    section.finish();
    FeatureTerms { index, name, terms }
}

fn read_terms(section: &mut Section<'_>, action: Action) -> Terms {
    let range = read_range(section);
    let finite = section.or("finite", false);
    let categories: Option<Vec<Scalar>> = section.take("categories");
    let max_length: Option<usize> = section.take("max_length");
    let default = section.take("default");
    let has_missing = section.has("on_missing");
    let on_missing = section.choice("on_missing", &Action::NAMES, action);
    let mut on = |key: &str, rule: &str, is_there: bool| {
        if section.has(key) && !is_there {
            section.problem(key, format!("has no effect without {rule}"));
        }
        section.choice(key, &Action::NAMES, action)
    };
    let on_finite = on("on_finite", "finite", finite);
    let on_range = on("on_range", "range", range.is_some());
    let on_category = on("on_category", "categories", categories.is_some());
    let on_length = on("on_length", "max_length", max_length.is_some());
    Terms {
        missing: has_missing.then_some(on_missing),
        default,
        finite: finite.then_some(on_finite),
        range: range.map(|(low, high)| (low, high, on_range)),
        categories: categories.map(|categories| (categories, on_category)),
        max_length: max_length.map(|longest| (longest, on_length)),
    }
}

fn read_range(section: &mut Section<'_>) -> Option<(Scalar, Scalar)> {
    let is_number = |end: &Scalar| matches!(end, Scalar::Integer(_) | Scalar::Float(_));
    let ends: Vec<Scalar> = section.take("range")?;
    match <[Scalar; 2]>::try_from(ends) {
        Ok([low, high]) if is_number(&low) && is_number(&high) => Some((low, high)),
        _ => {
            section.problem("range", "must be two numbers, the lower one first");
            None
        }
    }
}
