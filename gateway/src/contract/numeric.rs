//! The rules for numbers. A block (a row where features have rules of their own) is compared as a
//! whole with the bounds of its places; only one that holds something wrong is gone through value
//! by value.

use engine::{Tensor, TensorSpec};

use super::columns::{Columns, Spot, columns};
use super::element::Element;
use super::tally::{Labels, Tally};
use super::terms::{InputTerms, Report, Terms};
use super::{Action, Check, Offence, Rule};
use crate::config::value::Scalar;

/// Values of a block where all have the same rules.
const BLOCK: usize = 4096;

/// The rules of one input whose values have `N` bytes.
#[derive(Debug)]
struct Numbers<T, const N: usize> {
    wide: Scope<T>,
    /// Rules by place in the last dimension, up to the last one that has its own.
    columns: Vec<Scope<T>>,
    /// Their bounds, one behind the other.
    lows: Vec<T>,
    highs: Vec<T>,
    has_categories: bool,
}

/// The rules of one place.
#[derive(Debug, Clone)]
struct Scope<T> {
    actions: [Option<Action>; Rule::COUNT],
    /// No value outside is allowed; those inside are, unless there are categories.
    low: T,
    high: T,
    default: Option<T>,
    /// Sorted; empty where the rule is not there.
    categories: Vec<T>,
    /// For messages.
    range: String,
    spot: Spot,
}

/// The rules of a numeric input.
pub(super) fn numeric<T: Element<N>, const N: usize>(
    spec: &TensorSpec,
    terms: &InputTerms,
    labels: &mut Labels,
    report: &mut Report,
) -> Box<dyn Check> {
    let datatype = spec.datatype.name();
    let build = |terms: &Terms, spot: Spot, report: (&str, &mut Report)| -> Scope<T> {
        Scope::<T>::build(terms, datatype, spot, report)
    };
    let Columns { wide, own: columns } =
        columns((&spec.name, spec.datatype), terms, (labels, report), build);
    let has_categories = columns.iter().chain([&wide]).any(|scope| !scope.categories.is_empty());
    let (lows, highs) = columns.iter().map(|scope| (scope.low, scope.high)).unzip();
    Box::new(Numbers::<T, N> { wide, columns, lows, highs, has_categories })
}

impl<T: Element<N>, const N: usize> Numbers<T, N> {
    /// Whether no value of a block breaks a rule.
    fn is_clean(&self, block: &[[u8; N]]) -> bool {
        let (own, rest) = block.split_at(self.columns.len().min(block.len()));
        let bounds = self.lows.iter().zip(&self.highs);
        let own_ok = own
            .iter()
            .zip(bounds)
            .fold(true, |ok, (value, (low, high))| ok & T::read(*value).within(*low, *high));
        let (low, high) = (self.wide.low, self.wide.high);
        let rest_ok = rest.iter().fold(true, |ok, value| ok & T::read(*value).within(low, high));
        own_ok & rest_ok && (!self.has_categories || self.are_known(block))
    }

    fn are_known(&self, block: &[[u8; N]]) -> bool {
        block.iter().enumerate().all(|(index, value)| {
            let scope = self.scope(index);
            scope.categories.is_empty() || scope.knows(T::read(*value))
        })
    }

    fn scope(&self, index: usize) -> &Scope<T> {
        self.columns.get(index).unwrap_or(&self.wide)
    }

    /// Values of a block, which never crosses a row where places differ.
    fn block(&self, shape: &[usize]) -> usize {
        match self.columns.is_empty() {
            true => BLOCK,
            false => shape.last().copied().unwrap_or(1).max(1),
        }
    }
}

impl<T: Element<N>, const N: usize> Check for Numbers<T, N> {
    fn apply(&self, tensor: &Tensor, tally: &mut Tally) -> Result<Option<Tensor>, Offence> {
        let block = self.block(tensor.shape());
        let values = tensor.data().as_chunks::<N>().0;
        let mut mended: Option<Vec<u8>> = None;
        for (number, values_of_block) in values.chunks(block).enumerate() {
            if self.is_clean(values_of_block) {
                continue;
            }
            for (index, value) in values_of_block.iter().enumerate() {
                let (value, scope) = (T::read(*value), self.scope(index));
                let Some(rule) = scope.verdict(value) else { continue };
                let position = number * block + index;
                match scope.actions[rule as usize] {
                    Some(Action::Reject) => return Err(scope.offence(rule, position, value)),
                    Some(action) => {
                        tally.add(scope.spot.label, rule, action);
                        if action == Action::Impute {
                            let data = mended.get_or_insert_with(|| tensor.data().to_vec());
                            let allowed = scope.allowed(rule, value).write();
                            data[position * N..][..N].copy_from_slice(&allowed);
                        }
                    }
                    None => {}
                }
            }
        }
        let same =
            |data: Vec<u8>| Tensor::new(tensor.datatype(), tensor.shape().to_vec(), data.into());
        Ok(mended.and_then(|data| same(data).ok()))
    }

    fn filled(&self, shape: &[usize]) -> Vec<u8> {
        let block = self.block(shape);
        let count: usize = shape.iter().product();
        let value = |index: usize| {
            let scope = self.scope(index % block);
            scope.default.or(self.wide.default).unwrap_or(scope.low).write()
        };
        // All blocks are alike: the first one is made, the others are copies.
        let first: Vec<u8> = (0..block.min(count)).flat_map(value).collect();
        let mut data = first.repeat(count.div_ceil(block));
        data.truncate(count * N);
        data
    }

    fn fill_cost(&self) -> usize {
        N
    }
}

impl<T> Scope<T> {
    fn build<const N: usize>(
        terms: &Terms,
        datatype: &str,
        spot: Spot,
        (prefix, report): (&str, &mut Report),
    ) -> Self
    where
        T: Element<N>,
    {
        let mut problem = |key: &str, text: String| report.add(prefix, key, text);
        let mut bounds = match terms.finite {
            Some(_) => (T::LEAST, T::GREATEST),
            None => (T::LOWEST, T::HIGHEST),
        };
        let mut range = String::new();
        if let Some((low, high, _)) = &terms.range {
            match T::between(low, high) {
                Some(between) => bounds = between,
                None => problem("range", format!("no {datatype} lies between its ends")),
            }
            range = format!("{} to {}", bounds.0.show(), bounds.1.show());
        }
        let mut categories = Vec::new();
        for category in terms.categories.iter().flat_map(|(categories, _)| categories) {
            match T::exact(category) {
                Some(value) => categories.push(value),
                None => problem("categories", format!("{} is no {datatype}", shown(category))),
            }
        }
        categories
            .sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
        if let (Some(first), Some(last)) = (categories.first(), categories.last()) {
            bounds = (*first, *last);
        }
        let default = terms.default.as_ref().and_then(|default| {
            let value = T::exact(default);
            if value.is_none() {
                problem("default", format!("{} is no {datatype}", shown(default)));
            }
            value
        });
        let (low, high) = bounds;
        let actions = terms.actions();
        let scope = Self { actions, low, high, default, categories, range, spot };
        if let Some(value) = default.filter(|value| scope.verdict(*value).is_some()) {
            let text = format!("{} breaks the rules that it stands in for", value.show());
            report.add(prefix, "default", text);
        }
        scope
    }

    /// The rule that a value breaks.
    fn verdict<const N: usize>(&self, value: T) -> Option<Rule>
    where
        T: Element<N>,
    {
        let has = |rule: Rule| self.actions[rule as usize].is_some();
        if value.is_nan() {
            let rules = [Rule::Missing, Rule::Finite, Rule::Range, Rule::Category];
            return rules.into_iter().find(|rule| has(*rule));
        }
        if has(Rule::Finite) && !value.within(T::LEAST, T::GREATEST) {
            return Some(Rule::Finite);
        }
        if has(Rule::Range) && !value.within(self.low, self.high) {
            return Some(Rule::Range);
        }
        (has(Rule::Category) && !self.knows(value)).then_some(Rule::Category)
    }

    fn knows<const N: usize>(&self, value: T) -> bool
    where
        T: Element<N>,
    {
        /// Beyond, halving beats going through.
        const FEW: usize = 16;
        match self.categories.len() {
            ..=FEW => self.categories.contains(&value),
            _ => self
                .categories
                .binary_search_by(|known| {
                    known.partial_cmp(&value).unwrap_or(std::cmp::Ordering::Less)
                })
                .is_ok(),
        }
    }

    /// What stands in for a value that breaks a rule.
    fn allowed<const N: usize>(&self, rule: Rule, value: T) -> T
    where
        T: Element<N>,
    {
        let nearest = if value < self.low { self.low } else { self.high };
        match rule {
            // Never NaN: a range that is imputed has a rule for missing values beside it.
            Rule::Range => nearest,
            _ => self.default.unwrap_or(self.low),
        }
    }

    fn offence<const N: usize>(&self, rule: Rule, position: usize, value: T) -> Offence
    where
        T: Element<N>,
    {
        let value = value.show();
        let text = match rule {
            Rule::Missing => "a value is missing".to_owned(),
            Rule::Finite => format!("the value {value} is not finite"),
            Rule::Range => format!("the value {value} is not in the range {}", self.range),
            Rule::Category | Rule::Length => {
                format!("the value {value} is none of {} categories", self.categories.len())
            }
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

fn shown(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Integer(number) => number.to_string(),
        Scalar::Float(number) => format!("{number:?}"),
        Scalar::Flag(flag) => flag.to_string(),
        Scalar::Text(text) => format!("\"{text}\""),
    }
}
