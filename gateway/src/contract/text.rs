//! The rules for BYTES elements.

use std::collections::HashSet;

use engine::tensor::frame_strings;
use engine::{DataType, Tensor};

use super::columns::{Columns, Spot, columns};
use super::tally::{Labels, Tally};
use super::terms::{InputTerms, Report, Terms};
use super::{Action, Check, Offence, Rule};
use crate::config::value::Scalar;

/// The rules of one BYTES input.
#[derive(Debug)]
struct Texts {
    wide: Scope,
    /// Rules by place in the last dimension, up to the last one that has its own.
    columns: Vec<Scope>,
}

/// The rules of one place.
#[derive(Debug, Clone)]
struct Scope {
    actions: [Option<Action>; Rule::COUNT],
    default: Option<Box<[u8]>>,
    categories: HashSet<Box<[u8]>>,
    longest: usize,
    spot: Spot,
}

/// The rules of a BYTES input.
pub(super) fn text(
    name: &str,
    terms: &InputTerms,
    labels: &mut Labels,
    report: &mut Report,
) -> Box<dyn Check> {
    let Columns { wide, own: columns } =
        columns((name, DataType::Bytes), terms, (labels, report), Scope::build);
    Box::new(Texts { wide, columns })
}

impl Texts {
    fn scope(&self, position: usize, shape: &[usize]) -> &Scope {
        let width = shape.last().copied().unwrap_or(1).max(1);
        self.columns.get(position % width).unwrap_or(&self.wide)
    }
}

impl Check for Texts {
    fn apply(&self, tensor: &Tensor, tally: &mut Tally) -> Result<Option<Tensor>, Offence> {
        let mut mended: Vec<(usize, &[u8])> = Vec::new();
        for (position, element) in tensor.strings().enumerate() {
            let scope = self.scope(position, tensor.shape());
            let Some(rule) = scope.verdict(element) else { continue };
            match scope.actions[rule as usize] {
                Some(Action::Reject) => return Err(scope.offence(rule, position, element)),
                Some(action) => {
                    tally.add(scope.spot.label, rule, action);
                    if action == Action::Impute {
                        mended.push((position, scope.allowed(rule, element)));
                    }
                }
                None => {}
            }
        }
        if mended.is_empty() {
            return Ok(None);
        }
        let mut elements: Vec<&[u8]> = tensor.strings().collect();
        for (position, allowed) in mended {
            elements[position] = allowed;
        }
        Ok(Tensor::from_strings(tensor.shape().to_vec(), &elements).ok())
    }

    fn filled(&self, shape: &[usize]) -> Vec<u8> {
        let count: usize = shape.iter().product();
        let value = |position: usize| {
            let default = self.scope(position, shape).default.as_ref();
            default.or(self.wide.default.as_ref()).map_or(&[][..], |default| default)
        };
        let elements: Vec<&[u8]> = (0..count).map(value).collect();
        frame_strings(&elements).into()
    }

    fn fill_cost(&self) -> usize {
        let defaults = self.columns.iter().chain([&self.wide]).flat_map(|scope| &scope.default);
        let longest = defaults.map(|default| default.len()).max().unwrap_or(0);
        // Its length goes before it.
        size_of::<u32>() + longest + size_of::<&[u8]>()
    }
}

impl Scope {
    fn build(terms: &Terms, spot: Spot, (prefix, report): (&str, &mut Report)) -> Self {
        let mut read = |key: &str, scalar: &Scalar| match scalar {
            Scalar::Text(text) => Some(text.as_bytes().into()),
            _ => {
                report.add(prefix, key, "must be text for BYTES");
                None
            }
        };
        let categories = terms.categories.iter().flat_map(|(categories, _)| categories);
        let categories = categories.filter_map(|one| read("categories", one)).collect();
        let default = terms.default.as_ref().and_then(|default| read("default", default));
        let longest = terms.max_length.map_or(usize::MAX, |(longest, _)| longest);
        let scope = Self { actions: terms.actions(), default, categories, longest, spot };
        if scope.default.as_ref().is_some_and(|default| scope.verdict(default).is_some()) {
            report.add(prefix, "default", "breaks the rules that it stands in for");
        }
        scope
    }

    /// The rule that an element breaks.
    fn verdict(&self, element: &[u8]) -> Option<Rule> {
        let has = |rule: Rule| self.actions[rule as usize].is_some();
        if element.is_empty() && has(Rule::Missing) {
            return Some(Rule::Missing);
        }
        if element.len() > self.longest {
            return Some(Rule::Length);
        }
        (has(Rule::Category) && !self.categories.contains(element)).then_some(Rule::Category)
    }

    /// What stands in for an element that breaks a rule. Too long a one is cut, between
    /// characters where it is UTF-8.
    fn allowed<'a>(&'a self, rule: Rule, element: &'a [u8]) -> &'a [u8] {
        if rule != Rule::Length {
            return self.default.as_deref().unwrap_or_default();
        }
        let cut = str::from_utf8(element).map_or(0, |text| text.floor_char_boundary(self.longest));
        // Nothing left would count as missing.
        &element[..if cut == 0 { self.longest } else { cut }]
    }

    fn offence(&self, rule: Rule, position: usize, element: &[u8]) -> Offence {
        let text = match rule {
            Rule::Missing => "an element is missing".to_owned(),
            Rule::Length => {
                format!(
                    "an element has {} bytes, at most {} are allowed",
                    element.len(),
                    self.longest
                )
            }
            _ => format!("an element is none of {} categories", self.categories.len()),
        };
        Offence {
            label: self.spot.label,
            rule,
            position: Some(position),
            place: self.spot.place.clone(),
            text,
        }
    }
}
