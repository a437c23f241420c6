//! The rule by which `graph = "auto"` chooses, over measured times alone.
//!
//! Batches form under load, so the largest sizes decide how much a machine can do, and the
//! smallest one how long a caller waits while there is no load. Hence the speeds against the
//! plain form are averaged (geometrically, so that twice as fast and half as fast even out), and
//! each size counts twice as much as the next smaller one. A form that makes a lone item wait
//! half as long again is refused, unless it doubles what the machine can do: that much is worth
//! the wait, less is not. A form must be two hundredths faster than plain to be worth another
//! rounding of the answers; below that it is noise.

use std::time::Duration;

/// Another form is refused where it is this many times as slow on the smallest size ...
const SLOWEST_ALONE: f64 = 1.5;
/// ... unless it is this many times as fast on the largest.
const WORTH_IT: f64 = 2.0;
/// The mean speed from which on another form is worth taking.
const MARGIN: f64 = 1.02;
/// The mean speed from which on no other form needs to be tried.
const CLEAR: f64 = 1.1;

/// The times of two forms on one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heat {
    pub(crate) rows: usize,
    pub(crate) plain: Duration,
    pub(crate) other: Duration,
}

impl Heat {
    /// How many times as fast as plain the other form is.
    pub(crate) fn speed(&self) -> f64 {
        let seconds = |time: Duration| time.as_secs_f64().max(1e-9);
        seconds(self.plain) / seconds(self.other)
    }
}

/// Which of several other forms, each with its heats from the smallest sample to the largest,
/// should run instead of plain.
pub(crate) fn choose(forms: &[&[Heat]]) -> Option<usize> {
    let allowed = forms.iter().enumerate().filter(|(_, heats)| !is_too_slow_alone(heats));
    let speeds = allowed.map(|(index, heats)| (index, mean_speed(heats)));
    speeds
        .filter(|&(_, speed)| speed >= MARGIN)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(index, _)| index)
}

/// Whether a form gains so much that no other needs to be tried.
pub(crate) fn is_clear(heats: &[Heat]) -> bool {
    !is_too_slow_alone(heats) && mean_speed(heats) >= CLEAR
}

/// The speed on the size where the form gains most.
pub(crate) fn largest_gain(heats: &[Heat]) -> f64 {
    heats.iter().map(Heat::speed).fold(0.0, f64::max)
}

/// `optimized: 0.63 times as fast as plain at 1 row, 1.81 at 8, 2.17 at 64`.
pub(crate) fn describe(form: &str, heats: &[Heat]) -> String {
    let mut text = String::new();
    for (index, heat) in heats.iter().enumerate() {
        let (speed, rows) = (heat.speed(), heat.rows);
        text += &match (index, rows) {
            (0, 1) => format!("{form}: {speed:.2} times as fast as plain at 1 row"),
            (0, _) => format!("{form}: {speed:.2} times as fast as plain at {rows} rows"),
            _ => format!(", {speed:.2} at {rows}"),
        };
    }
    if is_too_slow_alone(heats) {
        text += ", too slow where there is no load";
    }
    text
}

fn is_too_slow_alone(heats: &[Heat]) -> bool {
    let (Some(smallest), Some(largest)) = (heats.first(), heats.last()) else {
        return true; // nothing is known of it
    };
    smallest.speed() < 1.0 / SLOWEST_ALONE && largest.speed() < WORTH_IT
}

fn mean_speed(heats: &[Heat]) -> f64 {
    let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for heat in heats {
        sum += weight * heat.speed().ln();
        weights += weight;
        weight *= 2.0;
    }
    if weights > 0.0 { (sum / weights).exp() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Heats of a form with these speeds at 1, 8 and 64 rows.
    fn form(speeds: &[f64]) -> Vec<Heat> {
        let plain = Duration::from_millis(1);
        [1, 8, 64]
            .into_iter()
            .zip(speeds)
            .map(|(rows, speed)| Heat { rows, plain, other: plain.div_f64(*speed) })
            .collect()
    }

    fn chosen(forms: &[&[f64]]) -> Option<usize> {
        let forms: Vec<Vec<Heat>> = forms.iter().map(|speeds| form(speeds)).collect();
        choose(&forms.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    #[test]
    fn the_largest_sizes_count_most() {
        assert_eq!(chosen(&[&[0.8, 1.0, 1.2]]), Some(0));
        assert_eq!(chosen(&[&[1.2, 1.0, 0.8]]), None);
        assert_eq!(chosen(&[&[1.0, 1.3, 1.3], &[1.0, 1.0, 1.6]]), Some(1));
        assert_eq!(chosen(&[&[1.5]]), Some(0), "one size is all there is");
    }

    #[test]
    fn a_form_that_makes_a_lone_item_wait_must_double_the_rest() {
        // The convolutional digits network: slow alone, twice as fast in batches.
        assert_eq!(chosen(&[&[0.62, 1.8, 2.2]]), Some(0));
        assert_eq!(chosen(&[&[0.62, 1.8, 1.9]]), None);
        assert_eq!(chosen(&[&[0.67, 1.8, 1.9]]), Some(0));
        assert_eq!(chosen(&[&[0.5]]), None);
    }

    #[test]
    fn the_slow_one_stands_aside_for_the_next_best() {
        assert_eq!(chosen(&[&[0.5, 1.5, 1.9], &[1.0, 1.1, 1.1]]), Some(1));
    }

    #[test]
    fn noise_changes_nothing() {
        assert_eq!(chosen(&[&[1.01, 1.01, 1.01], &[0.99, 1.0, 1.01]]), None);
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[&[]]), None, "a form without a time is not chosen");
    }

    #[test]
    fn a_clear_gain_needs_no_further_try() {
        assert!(is_clear(&form(&[1.0, 1.2, 1.2])));
        assert!(!is_clear(&form(&[1.0, 1.0, 1.05])));
        assert!(!is_clear(&form(&[0.5, 1.5, 1.9])));
        assert!(!is_clear(&[]));
    }

    #[test]
    fn every_size_is_told() {
        assert_eq!(
            describe("optimized", &form(&[0.5, 1.25, 1.5])),
            "optimized: 0.50 times as fast as plain at 1 row, 1.25 at 8, 1.50 at 64, \
             too slow where there is no load"
        );
    }
}
