//! What came of the calls: counts, errors by kind and latencies, by phase of the run. Every load
//! thread has its own; they are added up at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::check::Verdict;

/// Latencies are kept to three digits, from 1 µs to two minutes: longer than a call may take.
const LONGEST_MICROS: u64 = 120_000_000;

/// Where in a run a call fell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the first change of the server, or in a run without any.
    Before,
    /// It met a change.
    During,
    /// After a change, while there was none.
    After,
}

impl Phase {
    pub const ALL: [Self; 3] = [Self::Before, Self::During, Self::After];

    /// The phase of a call between two moments, each given as the number of beginnings and ends
    /// of changes until then.
    #[must_use]
    pub const fn between(start: u64, end: u64) -> Self {
        match start {
            _ if start != end || start % 2 == 1 => Self::During,
            0 => Self::Before,
            _ => Self::After,
        }
    }
}

/// Everything that a run counts.
#[derive(Debug, Clone)]
pub struct Recorder {
    tallies: [Tally; 3],
}

/// The counts of some calls.
#[derive(Debug, Clone)]
pub struct Tally {
    /// Calls with a usable answer, right or wrong.
    pub answered: u64,
    /// Calls without.
    pub failed: u64,
    /// Rows in answered calls.
    pub items: u64,
    pub errors: BTreeMap<Cow<'static, str>, ErrorCount>,
    /// Of answered calls, in microseconds.
    pub latency: Histogram<u64>,
    /// Of calls that were refused for an overload or a limit.
    pub refused: Histogram<u64>,
    /// Answered calls by the version that answered.
    pub versions: BTreeMap<String, u64>,
    /// Answers that were read as a whole by the arm that they name.
    pub arms: BTreeMap<String, u64>,
    /// Rows whose largest output is their label, of those that have one.
    pub correct: u64,
    pub labelled: u64,
    /// Answers compared with what their version gives for these rows.
    pub checked: u64,
    pub mismatches: u64,
    /// The first of them.
    pub mismatch: Option<String>,
}

/// Failed calls of one kind.
#[derive(Debug, Clone)]
pub struct ErrorCount {
    pub count: u64,
    /// What the first of them said.
    pub example: String,
}

// === impl Recorder ===

impl Default for Recorder {
    fn default() -> Self {
        Self { tallies: std::array::from_fn(|_| Tally::default()) }
    }
}

impl Recorder {
    /// The counts that a call of this phase goes to.
    pub fn of(&mut self, phase: Phase) -> &mut Tally {
        &mut self.tallies[phase as usize]
    }

    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, others) in self.tallies.iter_mut().zip(&other.tallies) {
            mine.merge(others);
        }
    }

    /// The calls of one phase.
    #[must_use]
    pub fn phase(&self, phase: Phase) -> &Tally {
        &self.tallies[phase as usize]
    }

    /// All calls.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for phase in Phase::ALL {
            total.merge(self.phase(phase));
        }
        total
    }
}

// === impl Tally ===

/// A histogram of microseconds.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are valid")
}

/// Records a time in a histogram of microseconds.
pub fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            answered: 0,
            failed: 0,
            items: 0,
            errors: BTreeMap::new(),
            latency: histogram(),
            refused: histogram(),
            versions: BTreeMap::new(),
            arms: BTreeMap::new(),
            correct: 0,
            labelled: 0,
            checked: 0,
            mismatches: 0,
            mismatch: None,
        }
    }
}

impl Tally {
    /// Counts a call that was answered by a version with so many rows.
    pub fn answer(&mut self, latency: Duration, rows: u64, version: &str) {
        self.answered += 1;
        self.items += rows;
        record(&mut self.latency, latency);
        count(&mut self.versions, version);
    }

    /// Counts what an answer is worth.
    pub fn judge(&mut self, verdict: Verdict) {
        self.correct += verdict.correct;
        self.labelled += verdict.labelled;
        self.checked += u64::from(verdict.checked);
        if let Some(arm) = verdict.arm {
            count(&mut self.arms, &arm);
        }
        if let Some(mismatch) = verdict.mismatch {
            self.mismatches += 1;
            self.mismatch.get_or_insert(mismatch);
        }
    }

    /// Counts a call that failed; its text is asked for only if it is the first of its kind.
    pub fn fail(&mut self, kind: Cow<'static, str>, text: impl FnOnce() -> String) {
        self.failed += 1;
        let first = || ErrorCount { count: 0, example: text() };
        self.errors.entry(kind).or_insert_with(first).count += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.items += other.items;
        for (kind, more) in &other.errors {
            let first = || ErrorCount { count: 0, example: more.example.clone() };
            self.errors.entry(kind.clone()).or_insert_with(first).count += more.count;
        }
        self.latency.add(&other.latency).expect("both have the same bounds");
        self.refused.add(&other.refused).expect("both have the same bounds");
        for (mine, others) in [(&mut self.versions, &other.versions), (&mut self.arms, &other.arms)]
        {
            for (name, count) in others {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
        self.correct += other.correct;
        self.labelled += other.labelled;
        self.checked += other.checked;
        self.mismatches += other.mismatches;
        if self.mismatch.is_none() {
            self.mismatch.clone_from(&other.mismatch);
        }
    }

    /// Every call.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.answered + self.failed
    }

    /// No call failed and no answer was wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.mismatches == 0
    }

    /// The latency in microseconds below which that part of the answers stayed; 0 without any.
    #[must_use]
    pub fn quantile(&self, part: f64) -> u64 {
        self.latency.value_at_quantile(part)
    }
}

/// One more of a name, which is allocated only the first time.
fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(recorder: &mut Recorder, phase: Phase, micros: u64, version: &str) {
        recorder.of(phase).answer(Duration::from_micros(micros), 2, version);
    }

    fn fail(recorder: &mut Recorder, kind: &'static str, text: &str) {
        recorder.of(Phase::Before).fail(kind.into(), || text.to_owned());
    }

    #[test]
    fn quantiles_come_from_answered_calls_alone() {
        let mut recorder = Recorder::default();
        for micros in 1..=1000 {
            answer(&mut recorder, Phase::Before, micros, "1");
        }
        fail(&mut recorder, "HTTP 503", "full");
        let total = recorder.total();
        assert_eq!((total.requests(), total.answered, total.failed), (1001, 1000, 1));
        assert_eq!(total.items, 2000);
        assert_eq!((total.quantile(0.5), total.quantile(0.99)), (500, 990));
        assert_eq!(total.latency.max(), 1000);
    }

    #[test]
    fn phases_are_kept_apart_and_add_up() {
        let mut recorder = Recorder::default();
        answer(&mut recorder, Phase::Before, 10, "1");
        answer(&mut recorder, Phase::During, 50, "1");
        answer(&mut recorder, Phase::After, 20, "2");
        assert_eq!(recorder.phase(Phase::During).latency.max(), 50);
        let versions: Vec<_> = recorder.total().versions.into_iter().collect();
        assert_eq!(versions, [("1".to_owned(), 2), ("2".to_owned(), 1)]);
    }

    #[test]
    fn a_call_that_meets_a_change_counts_as_during() {
        assert_eq!(Phase::between(0, 0), Phase::Before);
        assert_eq!(Phase::between(2, 2), Phase::After);
        for (start, end) in [(0, 1), (1, 1), (1, 2), (0, 2), (2, 5)] {
            assert_eq!(Phase::between(start, end), Phase::During);
        }
    }

    #[test]
    fn errors_are_counted_by_kind_with_the_first_text() {
        let mut recorder = Recorder::default();
        fail(&mut recorder, "HTTP 503", "the queue is full");
        fail(&mut recorder, "HTTP 503", "not ready");
        fail(&mut recorder, "no connection", "refused");
        let errors = recorder.total().errors;
        assert_eq!(errors["HTTP 503"].count, 2);
        assert_eq!(errors["HTTP 503"].example, "the queue is full");
        assert_eq!(errors["no connection"].count, 1);
        assert!(!recorder.total().is_clean());
    }

    #[test]
    fn wrong_answers_are_answers_and_the_first_is_kept() {
        let mut recorder = Recorder::default();
        for text in ["first", "second"] {
            answer(&mut recorder, Phase::Before, 1, "1");
            let mismatch = Some(text.to_owned());
            let verdict = Verdict { checked: true, mismatch, ..Verdict::default() };
            recorder.of(Phase::Before).judge(verdict);
        }
        let total = recorder.total();
        assert_eq!((total.answered, total.checked, total.mismatches), (2, 2, 2));
        assert_eq!(total.mismatch.as_deref(), Some("first"));
        assert!(!total.is_clean());
    }

    #[test]
    fn nothing_recorded_is_zero_everywhere() {
        let total = Recorder::default().total();
        assert_eq!((total.requests(), total.quantile(0.99), total.latency.max()), (0, 0, 0));
        assert!(total.is_clean());
    }
}
