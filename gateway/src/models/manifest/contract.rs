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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::models::Manifest;

    /// The problems of a contract for an input, without the path up to the contract.
    fn problems(dtype: &str, shape: &str, contract: &str) -> Vec<String> {
        let tensor = format!("dtype = '{dtype}'\nshape = {shape}\n");
        let text = format!(
            "platform = 'identity'\nmax_batch_size = 4\n[[input]]\nname = 'x'\n{tensor}\
             [input.contract]\n{contract}\n[[output]]\nname = 'y'\n{tensor}"
        );
        let found = Manifest::parse(&text).err().unwrap_or_default();
        let prefix = "input[0].contract.";
        found.iter().map(|p| p.path.strip_prefix(prefix).unwrap_or(&p.path).to_owned()).collect()
    }

    #[test]
    fn rules_that_mean_something_are_taken() {
        for (dtype, contract) in [
            ("FP32", "range = [0, 255.5]"),
            ("FP32", "finite = true\non_finite = 'impute'\ndefault = 0"),
            ("FP32", "on_missing = 'reject'"),
            ("FP16", "range = [0, 1e9]\naction = 'flag'"),
            ("INT64", "categories = [3, 1, 2]\naction = 'impute'\ndefault = 2"),
            ("BOOL", "categories = [true]"),
            ("UINT8", "range = [-5, 9]\naction = 'impute'"),
            ("BYTES", "max_length = 5\naction = 'impute'"),
            ("BYTES", "categories = ['a', 'b']\ndefault = 'a'"),
            ("FP32", "[[input.contract.feature]]\nindex = 1\nrange = [0, 1]"),
            ("FP32", "range = [0, 9]\n[[input.contract.feature]]\nindex = 1\ncategories = [1]"),
        ] {
            assert_eq!(problems(dtype, "[-1, 2]", contract), [""; 0], "{dtype} {contract}");
        }
        assert_eq!(problems("FP32", "[-1, -1]", "max_length = 5"), [""; 0]);
    }

    #[test]
    fn rules_that_contradict_each_other_are_named() {
        for (dtype, contract, keys) in [
            ("FP32", "", vec!["input[0].contract"]),
            ("FP32", "range = [2, 1]", vec!["range"]),
            ("FP32", "range = [1]", vec!["range", "input[0].contract"]),
            ("FP32", "range = [0, nan]", vec!["range", "input[0].contract"]),
            ("UINT8", "range = [300, 400]", vec!["range"]),
            ("INT8", "range = [0.2, 0.8]", vec!["range"]),
            ("BYTES", "range = [0, 1]", vec!["range"]),
            ("BYTES", "finite = true", vec!["finite"]),
            ("INT32", "finite = true", vec!["finite"]),
            ("INT32", "on_missing = 'reject'", vec!["on_missing"]),
            ("INT32", "default = 5", vec!["default"]),
            ("FP32", "range = [0, 1]\ndefault = 2", vec!["default"]),
            ("FP32", "on_missing = 'impute'", vec!["default"]),
            ("FP32", "range = [0, 1]\non_range = 'impute'", vec!["default"]),
            ("FP32", "finite = true\non_finite = 'impute'", vec!["default"]),
            ("FP32", "categories = []", vec!["categories"]),
            ("FP32", "categories = [1]\nrange = [0, 2]", vec!["categories"]),
            ("FP32", "categories = [1]\ndefault = 2", vec!["default"]),
            ("INT8", "categories = [1, 200, 1.5, 'a']", vec!["categories"; 3]),
            ("BYTES", "categories = ['a', 1]", vec!["categories"]),
            ("BYTES", "categories = ['a']\nmax_length = 3", vec!["categories"]),
            ("BYTES", "max_length = 2\ndefault = 'abc'", vec!["default"]),
            ("BYTES", "max_length = 0", vec!["max_length"]),
            ("BYTES", "default = ''", vec!["default"]),
            ("FP32", "max_length = 3", vec!["max_length"]),
            ("FP32", "on_range = 'flag'\nfinite = true", vec!["on_range"]),
            ("FP32", "action = 'drop'\nfinite = true", vec!["action"]),
            ("FP32", "optional = true", vec!["default", "optional"]),
            ("FP32", "finite = true\nfoo = 1", vec!["foo"]),
            (
                "FP32",
                "[[input.contract.feature]]\nindex = 2\nfinite = true\n\
                 [[input.contract.feature]]\nindex = 0\nname = ''\n\
                 [[input.contract.feature]]\nindex = 0\nrange = [3, 4]\ndefault = 5",
                vec![
                    "feature[1].",
                    "feature[0].index",
                    "feature[1].name",
                    "feature[2].index",
                    "feature[2].default",
                ],
            ),
        ] {
            let mut found = problems(dtype, "[-1, 2]", contract);
            let mut keys = keys;
            found.sort_unstable();
            keys.sort_unstable();
            assert_eq!(found, keys, "{dtype} {contract}");
        }
        let cut = "max_length = 5\non_length = 'impute'";
        assert_eq!(problems("FP32", "[-1, -1]", cut), ["on_length"]);
    }

    proptest! {
        #[test]
        fn any_contract_is_read_or_refused(
            dtype in prop::sample::select(vec!["FP32", "FP16", "BF16", "BOOL", "INT8", "UINT64", "BYTES"]),
            lines in prop::collection::vec((
                prop::sample::select(vec![
                    "range", "finite", "categories", "max_length", "default", "action", "optional",
                    "on_range", "on_missing", "on_category", "feature", "index", "name",
                ]),
                prop::sample::select(vec![
                    "[0, 1]", "[1e300, -1e300]", "true", "-1", "9223372036854775807", "'impute'",
                    "''", "[]", "['a', 1, true]", "[{ index = 3, range = [0, 1] }]", "1e-320",
                    "[{ index = 99999999999, finite = true }]", "{}", "nan",
                ]),
            ), 0..8),
        ) {
            let mut text = String::new();
            let mut seen = std::collections::BTreeSet::new();
            for (key, value) in lines {
                if seen.insert(key) {
                    text += &format!("{key} = {value}\n");
                }
            }
            let _read_or_refused = problems(dtype, "[-1, 4]", &text);
        }
    }
}
