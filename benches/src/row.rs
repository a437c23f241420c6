//! One line of the table: what was measured, its ceiling, the value that counts, and the demand.

use serde::{Deserialize, Serialize};

use crate::stats::Spread;

/// What a value is held against.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    AtMost(f64),
    AtLeast(f64),
}

/// A line of the table. Without a value it says why in `skipped`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Stays the same between runs, so that they can be compared.
    pub key: String,
    pub what: String,
    /// The unit of `penstock` and `ceiling`.
    pub unit: String,
    pub penstock: Option<Spread>,
    pub ceiling: Option<Spread>,
    /// What the demand is about; in `value_unit`.
    pub value: Option<Spread>,
    pub value_unit: String,
    pub demand: Option<Demand>,
    pub met: Option<bool>,
    pub note: String,
    pub skipped: Option<String>,
    /// The value's median in the stored results before this run.
    #[serde(default)]
    pub previous: Option<f64>,
}

impl Demand {
    #[must_use]
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl Row {
    /// A line without figures yet.
    #[must_use]
    pub fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            what: what.into(),
            unit: String::new(),
            penstock: None,
            ceiling: None,
            value: None,
            value_unit: String::new(),
            demand: None,
            met: None,
            note: String::new(),
            skipped: None,
            previous: None,
        }
    }

    /// A line that has no figures, and why.
    #[must_use]
    pub fn skipped(
        key: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { skipped: Some(why.into()), ..Self::new(key, what) }
    }

    /// What Penstock gave, in this unit.
    #[must_use]
    pub fn measured(mut self, unit: &str, samples: &[f64]) -> Self {
        unit.clone_into(&mut self.unit);
        self.penstock = Spread::of(samples);
        self
    }

    /// What the ceiling gave, in the same unit.
    #[must_use]
    pub fn against(mut self, samples: &[f64]) -> Self {
        self.ceiling = Spread::of(samples);
        self
    }

    /// The value that counts. A value that is no number is a line without a result.
    #[must_use]
    pub fn value(mut self, unit: &str, value: Option<Spread>) -> Self {
        unit.clone_into(&mut self.value_unit);
        if value.is_none() && self.skipped.is_none() {
            self.skipped = Some("the figures give no number".to_owned());
        }
        self.value = value;
        self.judge()
    }

    /// The unit of a value that may be missing.
    #[must_use]
    pub fn in_unit(mut self, unit: &str) -> Self {
        unit.clone_into(&mut self.value_unit);
        self
    }

    /// What the value has to reach.
    #[must_use]
    pub fn demand(mut self, demand: impl Into<Option<Demand>>) -> Self {
        self.demand = demand.into();
        self.judge()
    }

    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Takes the verdict back where the figure was not taken as it should have been. Called last.
    #[must_use]
    pub fn void(mut self, why: Option<&str>) -> Self {
        if let Some(why) = why {
            self.met = None;
            self.note = format!("not judged: {why}; {}", self.note);
        }
        self
    }

    fn judge(mut self) -> Self {
        self.met = self.demand.zip(self.value).map(|(demand, value)| demand.is_met(value.median));
        self
    }

    /// How much the value changed since the stored results, as a part of what it was.
    #[must_use]
    pub fn change(&self) -> Option<f64> {
        let (now, before) = (self.value?.median, self.previous?);
        (before.abs() > f64::EPSILON).then(|| (now - before) / before.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_met_at_its_limit() {
        assert!(Demand::AtMost(1.2).is_met(1.2) && !Demand::AtMost(1.2).is_met(1.21));
        assert!(Demand::AtLeast(0.9).is_met(0.9) && !Demand::AtLeast(0.9).is_met(0.89));
    }

    #[test]
    fn a_row_is_judged_by_the_median_in_either_order_of_building() {
        let value = Spread::of(&[1.0, 1.1, 9.0]);
        let first = Row::new("a", "a").value("×", value).demand(Demand::AtMost(1.2));
        let last = Row::new("a", "a").demand(Demand::AtMost(1.2)).value("×", value);
        assert_eq!((first.met, last.met), (Some(true), Some(true)));
        assert_eq!(Row::new("a", "a").demand(Demand::AtMost(1.2)).met, None);
    }

    #[test]
    fn a_figure_that_was_not_taken_as_it_should_is_not_judged() {
        let row = Row::new("a", "a").value("×", Spread::of(&[1.0])).demand(Demand::AtMost(2.0));
        assert_eq!(row.clone().void(None).met, Some(true));
        let void = row.void(Some("the client was late"));
        assert_eq!((void.met, void.note.starts_with("not judged: the client")), (None, true));
    }

    #[test]
    fn a_row_without_a_number_says_so() {
        let row = Row::new("a", "a").value("×", Spread::of(&[f64::NAN]));
        assert!(row.skipped.is_some() && row.met.is_none());
    }

    #[test]
    fn a_change_is_a_part_of_what_was_before() {
        let mut row = Row::new("a", "a").value("×", Spread::of(&[1.5]));
        assert_eq!(row.change(), None);
        row.previous = Some(1.2);
        assert!((row.change().unwrap() - 0.25).abs() < 1e-9);
        row.previous = Some(0.0);
        assert_eq!(row.change(), None);
    }
}
