//! Looks for the highest rate that a server sustains: doubles until it does not, then halves the
//! distance. It measures nothing itself.

/// A search under way.
#[derive(Debug, Clone)]
pub struct Search {
    /// The highest rate that was sustained.
    good: Option<f64>,
    /// The lowest rate that was not.
    bad: Option<f64>,
    next: f64,
    lowest: f64,
    highest: f64,
    /// It ends when the two are this close, as a part.
    precision: f64,
}

impl Search {
    #[must_use]
    pub fn new(start: f64, (lowest, highest): (f64, f64), precision: f64) -> Self {
        let next = start.clamp(lowest, highest);
        Self { good: None, bad: None, next, lowest, highest, precision }
    }

    /// The rate to try; `None` when it is found, or there is none.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        let done = match (self.good, self.bad) {
            (Some(good), Some(bad)) => bad / good <= 1.0 + self.precision,
            (Some(good), None) => good >= self.highest,
            (None, Some(bad)) => bad <= self.lowest,
            (None, None) => false,
        };
        (!done).then_some(self.next)
    }

    /// Takes the result of the rate that was to be tried.
    pub fn tried(&mut self, sustained: bool) {
        let bound = if sustained { &mut self.good } else { &mut self.bad };
        *bound = Some(self.next);
        self.next = match (self.good, self.bad) {
            (Some(good), None) => (good * 2.0).min(self.highest),
            (None, Some(bad)) => (bad / 2.0).max(self.lowest),
            // In the middle as a ratio: rates are compared by ratios.
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (None, None) => self.next,
        };
    }

    /// The highest rate that was sustained so far.
    #[must_use]
    pub fn best(&self) -> Option<f64> {
        self.good
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a server that sustains rates up to a limit; returns the best and all that were
    /// tried.
    fn search(limit: f64, start: f64) -> (Option<f64>, Vec<f64>) {
        let mut search = Search::new(start, (1.0, 100_000.0), 0.05);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.tried(rate <= limit);
        }
        (search.best(), tried)
    }

    #[test]
    fn it_doubles_and_then_closes_in() {
        let (best, tried) = search(3000.0, 100.0);
        let best = best.unwrap();
        assert!(best <= 3000.0 && best * 1.05 >= 3000.0, "{best}");
        assert_eq!(tried[..6], [100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0]);
        assert!(tried.len() <= 12, "{tried:?}");
    }

    #[test]
    fn a_start_that_is_too_high_comes_down() {
        let (best, tried) = search(70.0, 1000.0);
        let best = best.unwrap();
        assert!(best <= 70.0 && best * 1.05 >= 70.0, "{best}");
        assert_eq!(tried[..3], [1000.0, 500.0, 250.0]);
    }

    #[test]
    fn it_ends_at_the_bounds() {
        assert_eq!(search(0.0, 100.0).0, None);
        assert_eq!(search(f64::MAX, 100.0).0, Some(100_000.0));
    }
}
