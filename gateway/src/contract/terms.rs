//! What `model.toml` says about the values of an input, and what of it cannot be meant.

use std::collections::HashSet;

use engine::{DataType, TensorSpec};

use super::{Action, Rule};
use crate::config::value::Scalar;

/// Largest index of a feature.
pub(super) const LAST_FEATURE: usize = 65_535;

/// Longest name of a feature, in bytes: it is a label of a metric.
const LONGEST_NAME: usize = 64;

/// The rules of a whole input, or of one feature of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    pub missing: Option<Action>,
    /// What stands in for missing values, and for others that are imputed and have no nearest
    /// allowed value.
    pub default: Option<Scalar>,
    pub finite: Option<Action>,
    /// Both ends are allowed.
    pub range: Option<(Scalar, Scalar, Action)>,
    pub categories: Option<(Vec<Scalar>, Action)>,
    /// Bytes of a BYTES element, or the size of every variable dimension.
    pub max_length: Option<(usize, Action)>,
}

/// The contract of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct InputTerms {
    /// Whether calls may leave the input out.
    pub optional: bool,
    pub wide: Terms,
    pub features: Vec<FeatureTerms>,
}

/// The rules of one feature: one place of the last dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureTerms {
    pub index: usize,
    pub name: Option<String>,
    pub terms: Terms,
}

/// What cannot be meant: the key within the contract, and why.
#[derive(Debug, Default)]
pub struct Report(pub(super) Vec<(String, String)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Text,
    Whole,
    Float,
}

impl Report {
    pub(super) fn add(&mut self, prefix: &str, key: &str, text: impl Into<String>) {
        self.0.push((format!("{prefix}{key}"), text.into()));
    }
}

impl FeatureTerms {
    /// Its name, or its index.
    pub(super) fn label(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.index.to_string())
    }

    /// Where it is, behind the name of the input in a message.
    pub(super) fn place(&self) -> String {
        match &self.name {
            Some(name) => format!(", feature '{name}' (index {})", self.index),
            None => format!(", feature {}", self.index),
        }
    }
}

impl Terms {
    /// What holds for missing values: a default is meant to be used.
    pub(super) fn on_missing(&self) -> Option<Action> {
        self.missing.or(self.default.is_some().then_some(Action::Impute))
    }

    /// The rules by their place in [`Rule`], for values of floating point and BYTES.
    pub(super) fn actions(&self) -> [Option<Action>; Rule::COUNT] {
        [
            self.on_missing(),
            self.finite,
            self.range.as_ref().map(|(.., action)| *action),
            self.categories.as_ref().map(|(_, action)| *action),
            self.max_length.map(|(_, action)| action),
        ]
    }

    /// Whether a default would ever be put in.
    fn uses_default(&self, family: Family) -> bool {
        let imputes_category = matches!(self.categories, Some((_, Action::Impute)));
        family != Family::Whole || imputes_category
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Family {
    fn of(datatype: DataType) -> Self {
        match datatype {
            DataType::Bytes => Self::Text,
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => Self::Float,
            _ => Self::Whole,
        }
    }
}

impl InputTerms {
    /// The terms of a feature: its own, and those of the whole input where it says nothing.
    pub(super) fn of(&self, feature: &FeatureTerms, datatype: DataType) -> Terms {
        let (own, wide) = (&feature.terms, &self.wide);
        let bounds = own.range.is_some() || own.finite.is_some() || own.max_length.is_some();
        let inherited = if bounds { None } else { wide.categories.clone() };
        let (finite, range, max_length) = match own.categories {
            Some(_) => (None, None, None),
            None => (wide.finite, wide.range.clone(), wide.max_length),
        };
        let mut terms = Terms {
            missing: own.missing.or(if own.default.is_some() { None } else { wide.missing }),
            default: own.default.clone(),
            finite: own.finite.or(finite),
            range: own.range.clone().or(range),
            categories: own.categories.clone().or(inherited),
            max_length: own.max_length.or(max_length),
        };
        if terms.default.is_none() && (self.optional || terms.uses_default(Family::of(datatype))) {
            terms.default.clone_from(&wide.default);
        }
        terms
    }

    pub(super) fn check(&self, spec: &TensorSpec, batches: bool, report: &mut Report) {
        let family = Family::of(spec.datatype);
        if self.wide.is_empty() && self.features.is_empty() && !self.optional {
            report.add("", "", "says nothing about the input");
        }
        let inner = spec.shape.get(usize::from(batches)..).unwrap_or(&[]);
        if self.optional && self.wide.default.is_none() {
            report.add("", "default", "is missing: an optional input needs one");
        }
        if self.optional && inner.contains(&-1) {
            report.add("", "optional", "needs fixed sizes in every dimension but the batch");
        }
        if let Some((_, action)) = self.wide.max_length
            && family != Family::Text
        {
            if !inner.contains(&-1) {
                report.add("", "max_length", "has no effect: no dimension is variable");
            }
            if action == Action::Impute {
                report.add("", "on_length", "cannot be impute: no dimension is cut");
            }
        }
        let inherits = |feature: &FeatureTerms| self.of(feature, spec.datatype).default.is_some();
        let is_used = self.wide.uses_default(family) || self.features.iter().any(inherits);
        if self.wide.default.is_some() && !self.optional && !is_used {
            report.add("", "default", "has no effect: nothing is imputed by it");
        }
        check_scope(&self.wide, family, self.optional, ("", report));
        let is_sound = report.0.is_empty();
        self.check_places(inner, report);
        for (position, feature) in self.features.iter().enumerate() {
            let prefix = format!("feature[{position}].");
            if feature.terms.is_empty() {
                report.add(&prefix, "", "says nothing about the feature");
            }
            if feature.terms.max_length.is_some() && family != Family::Text {
                report.add(&prefix, "max_length", "is for BYTES: a feature has no length");
            }
            // What is wrong for the whole input is said once.
            if is_sound {
                let terms = self.of(feature, spec.datatype);
                if terms.default.is_some() && !self.optional && !terms.uses_default(family) {
                    report.add(&prefix, "default", "has no effect: nothing is imputed by it");
                }
                check_scope(&terms, family, self.optional, (&prefix, report));
            }
        }
    }

    fn check_places(&self, inner: &[i64], report: &mut Report) {
        let width = inner.last().map(|&size| usize::try_from(size).unwrap_or(usize::MAX));
        let mut taken = HashSet::new();
        for (position, feature) in self.features.iter().enumerate() {
            let prefix = format!("feature[{position}].");
            let index = feature.index;
            match width {
                None => report.add(&prefix, "index", "has no dimension to count in"),
                Some(width) if index >= width => {
                    report.add(&prefix, "index", format!("is {index}, the input has {width}"));
                }
                Some(_) if index > LAST_FEATURE => {
                    report.add(&prefix, "index", format!("is above {LAST_FEATURE}"));
                }
                Some(_) => {}
            }
            if !taken.insert(format!("#{index}")) {
                report.add(&prefix, "index", format!("{index} is taken"));
            }
            let Some(name) = &feature.name else { continue };
            if name.is_empty() || name.len() > LONGEST_NAME {
                report.add(&prefix, "name", format!("must have 1 to {LONGEST_NAME} bytes"));
            }
            if !taken.insert(format!("'{name}")) {
                report.add(&prefix, "name", format!("'{name}' is taken"));
            }
        }
    }
}

/// Rules that contradict each other, or the datatype.
fn check_scope(
    terms: &Terms,
    family: Family,
    optional: bool,
    (prefix, report): (&str, &mut Report),
) {
    let mut problem = |key: &str, text: &str| report.add(prefix, key, text);
    let imputes = |action: Option<Action>| action == Some(Action::Impute);
    let [_, finite, range, category, length] = terms.actions();
    if family == Family::Text && range.is_some() {
        problem("range", "has no meaning for BYTES");
    }
    if family != Family::Float && finite.is_some() {
        problem("finite", "is for floating-point inputs");
    }
    if family == Family::Whole && terms.missing.is_some() {
        problem("on_missing", "has no effect: only floats and BYTES can be missing");
    }
    if let Some((categories, _)) = &terms.categories {
        if categories.is_empty() {
            problem("categories", "must have at least one");
        }
        let is_length = family == Family::Text && length.is_some();
        if range.is_some() || finite.is_some() || is_length {
            let text = "say alone which values are allowed: leave out range, finite and max_length";
            problem("categories", text);
        }
    }
    if terms.max_length.is_some_and(|(longest, _)| longest == 0) {
        problem("max_length", "must be at least 1");
    }
    // A range alone has no place for NaN.
    let is_clamped = imputes(range) && (family != Family::Float || terms.missing.is_some());
    let needs = imputes(terms.missing)
        || imputes(finite)
        || imputes(category)
        || imputes(range) && !is_clamped;
    if terms.default.is_none() && needs && !optional {
        problem("default", "is missing: values that are imputed need one");
    }
}
