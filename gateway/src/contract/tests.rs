//! Contracts against random tensors of every datatype, with an oracle that knows no blocks.

use engine::tensor::frame_strings;
use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::codec::numbers;
use crate::config::value::Scalar;
use crate::error::Kind;
use crate::types::{NamedTensor, OutputSpec};

fn spec(datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec { name: "x".into(), datatype, shape: shape.into() }
}

fn signature(inputs: Vec<TensorSpec>) -> Signature {
    let output =
        OutputSpec { spec: inputs[0].clone(), labels: vec![], tolerance: 0.0, finite: false };
    Signature { inputs, outputs: vec![output], max_batch_size: 8, splits: true }
}

fn build(spec: &TensorSpec, terms: InputTerms) -> Result<Contract, Vec<String>> {
    let mut problems = Vec::new();
    let report = |_, key: &str, text: String| problems.push(format!("{key}: {text}"));
    // A second input, so that the first one may be optional.
    let other = TensorSpec { name: "other".into(), ..spec.clone() };
    let signature = signature(vec![spec.clone(), other]);
    let contract = Contract::build(&signature, vec![Some(terms), None], report).unwrap();
    if problems.is_empty() { Ok(contract) } else { Err(problems) }
}

fn wide(wide: Terms) -> InputTerms {
    InputTerms { optional: false, wide, features: vec![] }
}

/// What a rule says of whole numbers, which every datatype has.
#[derive(Debug, Clone, Default)]
struct Rules {
    missing: bool,
    finite: bool,
    range: Option<(i64, i64)>,
    categories: Option<Vec<i64>>,
}

impl Rules {
    /// What a datatype takes of it.
    fn terms(&self, datatype: DataType, action: Action) -> Terms {
        let is_float = is_float(datatype);
        let Self { missing, finite, range, categories } = self.clone();
        let categories = categories.map(|categories| match datatype {
            DataType::Bool => vec![Scalar::Flag(categories[0] % 2 == 0)],
            _ => categories.into_iter().map(Scalar::Integer).collect(),
        });
        let range = range.filter(|_| categories.is_none() && datatype != DataType::Bool);
        let default = match (&categories, range) {
            (Some(categories), _) => Some(categories[0].clone()),
            (None, Some((low, _))) => is_float.then_some(Scalar::Integer(low)),
            (None, None) => is_float.then_some(Scalar::Integer(0)),
        };
        let has_default = action == Action::Impute;
        Terms {
            missing: (missing && is_float).then_some(action),
            default: default.filter(|_| has_default),
            finite: (finite && is_float && categories.is_none()).then_some(action),
            range: range.map(|(low, high)| (Scalar::Integer(low), Scalar::Integer(high), action)),
            categories: categories.map(|categories| (categories, action)),
            max_length: None,
        }
    }
}

/// Whether a value breaks these terms, by the words of the documentation.
fn breaks(terms: &Terms, value: f64) -> bool {
    let number = |scalar: &Scalar| match scalar {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        Scalar::Integer(number) => *number as f64,
        Scalar::Flag(flag) => f64::from(u8::from(*flag)),
        _ => unreachable!("rules of these tests are whole numbers"),
    };
    let is_missing = terms.missing.is_some() && value.is_nan();
    let is_infinite = terms.finite.is_some() && !value.is_finite();
    let is_out = terms.range.as_ref().is_some_and(|(low, high, _)| {
        let is_in = value >= number(low) && value <= number(high);
        !is_in
    });
    let is_unknown = terms.categories.as_ref().is_some_and(|(categories, _)| {
        !categories.iter().any(|known| (number(known) - value).abs() == 0.0)
    });
    is_missing || is_infinite || is_out || is_unknown
}

fn is_float(datatype: DataType) -> bool {
    matches!(datatype, DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64)
}

/// An element: of these bits, or a value where edges are.
#[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
fn element(datatype: DataType, (bits, special): (u64, usize)) -> Vec<u8> {
    const SPECIAL: [f64; 8] =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1.0, 50.0, 2.5];
    let Some(&value) = SPECIAL.get(special) else {
        return match datatype {
            DataType::Bool => vec![(bits & 1) as u8],
            _ => bits.to_le_bytes()[..datatype.size().unwrap()].to_vec(),
        };
    };
    match datatype {
        DataType::Fp16 => f16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        DataType::Fp32 => (value as f32).to_le_bytes().to_vec(),
        DataType::Fp64 => value.to_le_bytes().to_vec(),
        DataType::Bool => vec![u8::from(value > 0.0)],
        _ => (value as i64).to_le_bytes()[..datatype.size().unwrap()].to_vec(),
    }
}

fn numeric_type() -> impl Strategy<Value = DataType> {
    prop::sample::select(
        DataType::ALL.into_iter().filter(|t| *t != DataType::Bytes).collect::<Vec<_>>(),
    )
}

fn rules() -> impl Strategy<Value = Rules> {
    let range = prop::option::of((0_i64..100, 0_i64..60).prop_map(|(low, more)| (low, low + more)));
    let categories = prop::option::of(prop::collection::vec(0_i64..100, 1..30));
    let all = (any::<bool>(), any::<bool>(), range, categories);
    all.prop_map(|(missing, finite, range, categories)| Rules {
        missing,
        finite,
        range,
        categories,
    })
}

type Elements = Vec<(u64, usize)>;

fn case() -> impl Strategy<Value = (DataType, Rules, Vec<(usize, Rules)>, usize, Elements)> {
    let features = prop::collection::btree_map(0_usize..5, rules(), 0..3)
        .prop_map(|features| features.into_iter().collect());
    let elements = prop::collection::vec((any::<u64>(), 0_usize..12), 0..40);
    (numeric_type(), rules(), features, 1_usize..6, elements)
}

/// The terms of a case under one action, and the merged ones of each place.
fn terms_of(
    datatype: DataType,
    (rules, features): (&Rules, &[(usize, Rules)]),
    width: usize,
    action: Action,
) -> (InputTerms, Vec<Terms>) {
    let wide = rules.terms(datatype, action);
    let features: Vec<FeatureTerms> = features
        .iter()
        .filter(|(index, _)| *index < width)
        .map(|(index, rules)| {
            let mut terms = rules.terms(datatype, action);
            // Where it has no bounds of its own, the default of the whole input is in bounds.
            if terms.range.is_none() && terms.categories.is_none() {
                terms.default = None;
            }
            FeatureTerms { index: *index, name: None, terms }
        })
        .filter(|feature| feature.terms != Terms::default())
        .collect();
    let terms = InputTerms { optional: false, wide, features };
    let of_place = |place| match terms.features.iter().find(|feature| feature.index == place) {
        Some(feature) => terms.of(feature, datatype),
        None => terms.wide.clone(),
    };
    let places = (0..width).map(of_place).collect();
    (terms, places)
}

fn tensor_of(datatype: DataType, width: usize, elements: &Elements) -> Tensor {
    let rows = elements.len() / width;
    let data: Vec<u8> =
        elements[..rows * width].iter().flat_map(|one| element(datatype, *one)).collect();
    Tensor::new(datatype, vec![rows, width], data.into()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_rejected_is_the_first_offending_value(
        (datatype, rules, features, width, elements) in case()
    ) {
        let (terms, places) = terms_of(datatype, (&rules, &features), width, Action::Reject);
        // A contract that says nothing is the only one that these rules cannot mean.
        prop_assume!(terms.wide != Terms::default() || !terms.features.is_empty());
        let contract = build(&spec(datatype, &[-1, width as i64]), terms).unwrap();
        let tensor = tensor_of(datatype, width, &elements);
        let values = numbers::to_f64(&tensor);
        let offends = |(position, value): (usize, &f64)| breaks(&places[position % width], *value);
        let first = values.iter().enumerate().position(offends);
        let result = contract.apply(&mut [tensor.clone()], &mut Tally::default());
        prop_assert_eq!(result.err().map(|(_, offence)| offence.position.unwrap()), first);
    }

    #[test]
    fn imputed_tensors_pass_the_same_contract_with_reject(
        (datatype, rules, features, width, elements) in case()
    ) {
        let parts = (&rules, features.as_slice());
        let (imputing, places) = terms_of(datatype, parts, width, Action::Impute);
        let spec = spec(datatype, &[-1, width as i64]);
        prop_assume!(places.iter().any(|terms| *terms != Terms::default()));
        let contract = build(&spec, imputing.clone()).unwrap();
        let mut tensors = [tensor_of(datatype, width, &elements)];
        let before = tensors[0].clone();
        contract.apply(&mut tensors, &mut Tally::default()).unwrap();
        let after = numbers::to_f64(&tensors[0]);
        for (position, (old, new)) in numbers::to_f64(&before).iter().zip(&after).enumerate() {
            let place = &places[position % width];
            prop_assert!(!breaks(place, *new), "{old} became {new} at {position}");
            let is_same = old.to_bits() == new.to_bits();
            prop_assert!(is_same || breaks(place, *old) || old.is_nan(), "{old} became {new}");
        }
        // And by its own words.
        let reject = |terms: &Terms| Terms {
            missing: terms.on_missing().map(|_| Action::Reject),
            default: None,
            finite: terms.finite.map(|_| Action::Reject),
            range: terms.range.clone().map(|(low, high, _)| (low, high, Action::Reject)),
            categories: terms.categories.clone().map(|(all, _)| (all, Action::Reject)),
            max_length: None,
        };
        let mut strict = imputing;
        strict.wide = reject(&strict.wide);
        for feature in &mut strict.features {
            feature.terms = reject(&feature.terms);
        }
        if !is_float(datatype) {
            strict.wide.missing = None;
            strict.features.iter_mut().for_each(|feature| feature.terms.missing = None);
        }
        let strict = build(&spec, strict).unwrap();
        prop_assert!(strict.apply(&mut tensors, &mut Tally::default()).is_ok());
    }

    #[test]
    fn texts_are_mended_within_their_rules(
        elements in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..12),
        longest in 1_usize..6,
        by_category in any::<bool>(),
    ) {
        let terms = |action, default: Option<&str>| wide(Terms {
            missing: Some(action),
            default: default.map(|default| Scalar::Text(default.into())),
            categories: by_category
                .then(|| (vec![Scalar::Text("a".into()), Scalar::Text("b".into())], action)),
            max_length: (!by_category).then_some((longest, action)),
            ..Terms::default()
        });
        let spec = spec(DataType::Bytes, &[-1]);
        let contract = build(&spec, terms(Action::Impute, Some("a"))).unwrap();
        let strict = build(&spec, terms(Action::Reject, None)).unwrap();
        let tensor = Tensor::from_strings(vec![elements.len()], &elements).unwrap();
        let fits = |element: &Vec<u8>| !element.is_empty() && match by_category {
            true => element == b"a" || element == b"b",
            false => element.len() <= longest,
        };
        let first = elements.iter().position(|element| !fits(element));
        let refused = strict.apply(&mut [tensor.clone()], &mut Tally::default());
        prop_assert_eq!(refused.err().map(|(_, offence)| offence.position.unwrap()), first);
        let mut tensors = [tensor];
        contract.apply(&mut tensors, &mut Tally::default()).unwrap();
        prop_assert!(strict.apply(&mut tensors, &mut Tally::default()).is_ok());
        for (old, new) in elements.iter().zip(tensors[0].strings()) {
            prop_assert!(!fits(old) || old == new);
        }
    }

    #[test]
    fn no_tensor_is_too_odd_to_be_checked(
        datatype in prop::sample::select(DataType::ALL.to_vec()),
        shape in prop::collection::vec(0_usize..5, 0..4),
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        action in prop::sample::select(vec![Action::Reject, Action::Impute, Action::Flag]),
    ) {
        let count: usize = shape.iter().product();
        let (data, terms) = match datatype.size() {
            Some(size) => {
                let data: Vec<u8> = bytes.iter().copied().cycle().take(if bytes.is_empty() { 0 } else { count * size })
                    .map(|byte| if datatype == DataType::Bool { byte & 1 } else { byte }).collect();
                let rules = Rules { missing: true, finite: true, range: Some((0, 7)), categories: None };
                (data.into(), rules.terms(datatype, action))
            }
            None => {
                let elements: Vec<&[u8]> = bytes.chunks(3).cycle().take(count).collect();
                let default = Some(Scalar::Text("d".into()));
                (frame_strings(&elements), Terms { default, max_length: Some((2, action)), ..Terms::default() })
            }
        };
        let Ok(tensor) = Tensor::new(datatype, shape.clone(), data) else { return Ok(()) };
        let declared: Vec<i64> = shape.iter().map(|_| -1).collect();
        let Ok(contract) = build(&spec(datatype, &declared), wide(terms)) else { return Ok(()) };
        let mut tensors = [tensor];
        let _fine = contract.apply(&mut tensors, &mut Tally::default());
        prop_assert_eq!(tensors[0].shape(), &shape[..]);
    }
}

fn checker(spec: &TensorSpec, terms: InputTerms) -> (Checker, Signature) {
    let signature = signature(vec![spec.clone()]);
    let contract =
        Contract::build(&signature, vec![Some(terms)], |_, key, text| panic!("{key}: {text}"));
    (Checker::new(Arc::new(contract.unwrap()), "m", "1"), signature)
}

fn named(name: &str, values: &[f32], shape: &[usize]) -> NamedTensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(DataType::Fp32, shape.into(), data.into()).unwrap();
    NamedTensor { name: name.into(), tensor }
}

fn between(low: i64, high: i64, action: Action) -> Terms {
    let range = Some((Scalar::Integer(low), Scalar::Integer(high), action));
    Terms { range, ..Terms::default() }
}

fn age(terms: Terms) -> InputTerms {
    let feature = FeatureTerms { index: 2, name: Some("age".into()), terms };
    InputTerms { optional: false, wide: Terms::default(), features: vec![feature] }
}

#[test]
fn a_refusal_names_input_feature_rule_value_and_place() {
    let spec = spec(DataType::Fp32, &[-1, 3]);
    let (checker, signature) = checker(&spec, age(between(0, 150, Action::Reject)));
    let given = named("x", &[-1.0, f32::NAN, 3.0, 0.0, 0.0, -1e30], &[2, 3]);
    let refused = checker.check(&signature, Inputs::Named(vec![given])).unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidInput);
    assert_eq!(
        refused.public_message(),
        "input 'x', feature 'age' (index 2): the value -1e30 is not in the range 0.0 to 150.0 at \
         [1, 2]"
    );
}

#[test]
fn texts_that_are_refused_are_never_repeated() {
    let categories = Some((vec![Scalar::Text("a".into())], Action::Reject));
    let terms = Terms { categories, ..Terms::default() };
    let (checker, signature) = checker(&spec(DataType::Bytes, &[-1]), wide(terms));
    let tensor = Tensor::from_strings(vec![2], &["a", "secret"]).unwrap();
    let given = NamedTensor { name: "x".into(), tensor };
    let refused = checker.check(&signature, Inputs::Named(vec![given])).unwrap_err();
    assert_eq!(refused.public_message(), "input 'x': an element is none of 1 categories at [1]");
}

#[test]
fn flagged_values_pass_as_they_are_and_are_named_with_their_count() {
    let (checker, signature) =
        checker(&spec(DataType::Fp32, &[-1, 3]), age(between(0, 150, Action::Flag)));
    let given = || named("x", &[0.0, 0.0, 151.0, 0.0, 0.0, -1.0, 9.0, 9.0, 9.0], &[3, 3]);
    let (inputs, flags) = checker.check(&signature, Inputs::Named(vec![given()])).unwrap();
    assert_eq!(inputs.tensors[0], given().tensor);
    assert_eq!(flags.as_deref(), Some("x[age].range=2"));
    let fine = named("x", &[0.0; 3], &[1, 3]);
    assert_eq!(checker.check(&signature, Inputs::Named(vec![fine])).unwrap().1, None);
}

#[test]
fn values_that_keep_the_contract_are_not_copied() {
    let terms = Terms { default: Some(Scalar::Integer(1)), ..between(0, 5, Action::Impute) };
    let (checker, signature) = checker(&spec(DataType::Fp32, &[-1, 1]), wide(terms));
    let given = named("x", &[1.0, 2.0], &[2, 1]);
    let before = given.tensor.data().as_ptr();
    let (inputs, _) = checker.check(&signature, Inputs::Named(vec![given])).unwrap();
    assert_eq!(inputs.tensors[0].data().as_ptr(), before);
    let given = named("x", &[-3.0, f32::NAN], &[2, 1]);
    let (inputs, flags) = checker.check(&signature, Inputs::Named(vec![given])).unwrap();
    assert_eq!(numbers::to_f64(&inputs.tensors[0]), [0.0, 1.0]);
    assert_eq!(flags, None);
}

#[test]
fn offences_are_found_and_mended_far_behind_the_first_block() {
    let spec = spec(DataType::Fp32, &[-1, 5000]);
    let mut values = vec![1.0; 15_000];
    values[12_345] = 9.0;
    let given = || Inputs::Named(vec![named("x", &values, &[3, 5000])]);
    let (strict, signature) = checker(&spec, wide(between(0, 5, Action::Reject)));
    let refused = strict.check(&signature, given()).unwrap_err();
    assert!(refused.public_message().ends_with("at [2, 2345]"), "{refused}");
    let terms = Terms { default: Some(Scalar::Integer(1)), ..between(0, 5, Action::Impute) };
    let (mending, _) = checker(&spec, wide(terms));
    let (inputs, _) = mending.check(&signature, given()).unwrap();
    let mended = numbers::to_f64(&inputs.tensors[0]);
    let changed: Vec<_> = (0..15_000).filter(|&i| mended[i] > 1.0).collect();
    assert_eq!((changed, mended[12_345]), (vec![12_345], 5.0));
}

#[test]
fn an_optional_input_is_filled_with_its_default_in_the_rows_of_the_others() {
    let other = TensorSpec { name: "z".into(), ..spec(DataType::Fp32, &[-1, 2]) };
    let signature = signature(vec![other.clone(), spec(DataType::Fp32, &[-1, 2])]);
    let own = FeatureTerms {
        index: 1,
        name: None,
        terms: Terms { default: Some(Scalar::Integer(8)), ..Terms::default() },
    };
    let wide = Terms { default: Some(Scalar::Float(0.5)), ..Terms::default() };
    let terms = InputTerms { optional: true, wide, features: vec![own] };
    let contract = Contract::build(&signature, vec![None, Some(terms)], |_, key, text| {
        panic!("{key}: {text}")
    });
    let checker = Checker::new(Arc::new(contract.unwrap()), "m", "1");
    let given = vec![named("z", &[1.0; 6], &[3, 2])];
    let (inputs, _) = checker.check(&signature, Inputs::Named(given)).unwrap();
    assert_eq!(numbers::to_f64(&inputs.tensors[1]), [0.5, 8.0, 0.5, 8.0, 0.5, 8.0]);
    // The required one is still missed, and rows that no data stands behind take no memory.
    let none = checker.check(&signature, Inputs::Named(vec![])).unwrap_err();
    assert!(none.public_message().contains("input 'z' is missing"));
    let huge = named("z", &[], &[usize::MAX / 64, 0]);
    let refused = checker.check(&signature, Inputs::Named(vec![huge])).unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidInput);
}

/// A contract for `x`, which may be left out, beside `other`, which may not and stands behind it.
fn with_optional(datatype: DataType, shape: &[i64], default: Scalar) -> (Checker, Signature) {
    let other = TensorSpec { name: "other".into(), ..spec(DataType::Fp32, &[-1, -1]) };
    let signature = signature(vec![spec(datatype, shape), other]);
    let wide = Terms { default: Some(default), ..Terms::default() };
    let terms = vec![Some(InputTerms { optional: true, wide, features: vec![] }), None];
    let contract = Contract::build(&signature, terms, |_, key, text| panic!("{key}: {text}"));
    (Checker::new(Arc::new(contract.unwrap()), "m", "1"), signature)
}

#[test]
fn what_is_filled_in_follows_only_inputs_that_keep_the_signature() {
    let (checker, mut signature) = with_optional(DataType::Uint8, &[-1, 1], Scalar::Integer(1));
    signature.splits = false;
    let refusal = |given: NamedTensor| {
        let refused = checker.check(&signature, Inputs::Named(vec![given])).unwrap_err();
        refused.public_message().to_owned()
    };
    // Rows without data: of an input that the model lacks, and of one that it takes.
    assert!(refusal(named("foreign", &[], &[usize::MAX, 0])).contains("unexpected input"));
    let rows = refusal(named("other", &[], &[usize::MAX, 0]));
    assert!(rows.contains("'other' has batch size") && rows.contains("at most 8"), "{rows}");
}

#[test]
fn what_is_filled_in_is_bounded_with_all_that_it_takes() {
    let given = |rows| Inputs::Named(vec![named("other", &[], &[rows, 0])]);
    let (bytes, signature) = with_optional(DataType::Uint8, &[-1, 1], Scalar::Integer(1));
    let (inputs, _) = bytes.check(&signature, given(LARGEST_FILL)).unwrap();
    assert_eq!(inputs.tensors[0].data().len(), LARGEST_FILL);
    assert!(inputs.tensors[0].data().iter().all(|&byte| byte == 1));
    assert!(bytes.check(&signature, given(LARGEST_FILL + 1)).is_err());
    let default = Scalar::Text("a".repeat(1004));
    let (texts, signature) = with_optional(DataType::Bytes, &[-1, 1], default);
    assert!(texts.check(&signature, given(LARGEST_FILL / 1024)).is_ok());
    let refused = texts.check(&signature, given(LARGEST_FILL / 1024 + 1)).unwrap_err();
    assert!(refused.public_message().contains("too large to fill it in"), "{refused}");
}

#[test]
fn variable_sizes_are_bounded_by_the_longest_length() {
    let terms = Terms { max_length: Some((4, Action::Reject)), ..Terms::default() };
    let (checker, signature) = checker(&spec(DataType::Fp32, &[-1, -1]), wide(terms));
    assert!(checker.check(&signature, Inputs::Named(vec![named("x", &[0.0; 8], &[2, 4])])).is_ok());
    let long = named("x", &[0.0; 5], &[1, 5]);
    let refused = checker.check(&signature, Inputs::Named(vec![long])).unwrap_err();
    assert!(refused.public_message().contains("dimension 1 has size 5, at most 4"));
}
