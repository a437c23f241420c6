//! Picks a form for each batch under `graph = "both"`, by what runs of its size took so far.
//!
//! For every power of two of rows and each form there is a moving average of run times, which
//! starts with what the load measured. A batch runs in the form that its size is served by;
//! now and then the other one is measured again, at a bounded cost, and takes over only where it
//! was clearly faster several times in a row. Reads no clock, holds no lock: threads that meet
//! may lose each other's measurement, which the next one makes good.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::choice::Heat;

/// A bin for each power of two that a batch can have.
const BINS: usize = 24;
/// One in so many runs of a size measures the other form, and fewer where that is slower: what
/// measuring costs stays below this share of the time.
const EXPLORE: f64 = 256.0;
/// One in so many, while the other form looks better and has to prove it.
const PROVE: u32 = 16;
/// The other form must be so many times as fast to count as better.
const CLEARLY: f64 = 1.1;
/// So many measurements in a row must say so.
const PROOFS: u32 = 3;
/// Weight of a new measurement in the moving average.
const SHARE: f64 = 0.125;
/// A measurement moves the average as if it were at most this share away from it. Interrupted
/// runs would otherwise make the form that runs most, and is interrupted most, look slow.
const REACH: f64 = 0.25;

/// Which of two loaded forms a batch runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Other,
}

/// The cost model of both forms.
#[derive(Debug)]
pub(crate) struct Picker {
    bins: [Bin; BINS],
}

#[derive(Debug, Default)]
struct Bin {
    /// Average times in nanoseconds, `f64` bits, by form.
    means: [AtomicU64; 2],
    /// The form that serves this size.
    serving: AtomicU32,
    /// Runs since the other form was measured.
    since: AtomicU32,
    /// Measurements in a row that spoke for the other form.
    proofs: AtomicU32,
}

impl Picker {
    /// Starts with what the load measured; sizes in between and beyond are estimated from it.
    pub(crate) fn new(heats: &[Heat]) -> Self {
        let bins = std::array::from_fn(|index| {
            let rows = exp2(index);
            let bin = Bin::default();
            let means = [
                estimate(heats, rows, |heat| heat.plain),
                estimate(heats, rows, |heat| heat.other),
            ];
            bin.means[0].store(means[0].to_bits(), Ordering::Relaxed);
            bin.means[1].store(means[1].to_bits(), Ordering::Relaxed);
            bin.serving.store(u32::from(means[1] < means[0]), Ordering::Relaxed);
            bin
        });
        Self { bins }
    }

    /// The form for a batch of so many rows.
    pub(crate) fn pick(&self, rows: usize) -> Form {
        let bin = &self.bins[bin(rows)];
        let serving = Form::from(bin.serving.load(Ordering::Relaxed));
        let since = bin.since.fetch_add(1, Ordering::Relaxed);
        let behind = bin.mean(serving.opposite()) / bin.mean(serving).max(1.0);
        let due = if behind * CLEARLY < 1.0 { f64::from(PROVE) } else { EXPLORE * behind.max(1.0) };
        if f64::from(since) + 1.0 < due {
            return serving;
        }
        bin.since.store(0, Ordering::Relaxed);
        serving.opposite()
    }

    /// Notes how long a batch of so many rows took in a form.
    pub(crate) fn record(&self, rows: usize, form: Form, time: Duration) {
        let bin = &self.bins[bin(rows)];
        let before = bin.mean(form);
        let time = time.as_secs_f64() * 1e9;
        let reach = REACH * before;
        let mean = before + SHARE * (time - before).clamp(-reach, reach);
        bin.means[form as usize].store(mean.to_bits(), Ordering::Relaxed);
        if form as u32 == bin.serving.load(Ordering::Relaxed) {
            return;
        }
        // Both the average and this very measurement must say so.
        let bar = bin.mean(form.opposite());
        if mean * CLEARLY >= bar || time * CLEARLY >= bar {
            bin.proofs.store(0, Ordering::Relaxed);
        } else if bin.proofs.fetch_add(1, Ordering::Relaxed) + 1 >= PROOFS {
            bin.proofs.store(0, Ordering::Relaxed);
            bin.serving.store(form as u32, Ordering::Relaxed);
        }
    }
}

impl Bin {
    fn mean(&self, form: Form) -> f64 {
        f64::from_bits(self.means[form as usize].load(Ordering::Relaxed))
    }
}

impl Form {
    fn from(number: u32) -> Self {
        if number == 0 { Self::Plain } else { Self::Other }
    }

    fn opposite(self) -> Self {
        match self {
            Self::Plain => Self::Other,
            Self::Other => Self::Plain,
        }
    }
}

/// The bin of 1 row is 0, of 2 is 1, of 3 and 4 is 2, and so on.
fn bin(rows: usize) -> usize {
    let bits = usize::BITS - (rows.max(1) - 1).leading_zeros();
    (bits as usize).min(BINS - 1)
}

fn exp2(exponent: usize) -> f64 {
    f64::from(1_u32 << exponent)
}

/// The time for so many rows, in nanoseconds: between two measured sizes on the straight line
/// through both, beyond them in proportion to the rows.
#[expect(clippy::cast_precision_loss, reason = "rows are few")]
fn estimate(heats: &[Heat], rows: f64, time: impl Fn(&Heat) -> Duration) -> f64 {
    let known: Vec<(f64, f64)> = heats
        .iter()
        .map(|heat| (heat.rows.max(1) as f64, time(heat).as_secs_f64() * 1e9))
        .collect();
    let above = known.iter().position(|point| point.0 >= rows);
    match (above, known.last()) {
        (Some(0), _) => known[0].1,
        (Some(index), _) => {
            let ((low, from), (high, to)) = (known[index - 1], known[index]);
            from + (to - from) * (rows - low) / (high - low)
        }
        (None, Some(&(most, longest))) => longest * rows / most,
        (None, None) => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(time: u64) -> Duration {
        Duration::from_micros(time)
    }

    fn heat(rows: usize, plain: u64, other: u64) -> Heat {
        Heat { rows, plain: micros(plain), other: micros(other) }
    }

    /// The convolutional digits network, as measured.
    fn digits() -> Picker {
        Picker::new(&[heat(1, 77, 123), heat(8, 360, 220), heat(64, 2870, 1400)])
    }

    /// Runs batches of a size that take these times, and counts those in the other form.
    fn drive(picker: &Picker, rows: usize, batches: usize, times: [u64; 2]) -> usize {
        let run = |_| {
            let form = picker.pick(rows);
            picker.record(rows, form, micros(times[form as usize]));
            usize::from(form == Form::Other)
        };
        (0..batches).map(run).sum()
    }

    #[test]
    fn every_size_starts_in_the_form_that_the_load_found_faster() {
        let picker = digits();
        let forms = [1, 2, 4, 7, 8, 33, 64, 500, usize::MAX].map(|rows| picker.pick(rows));
        let (plain, other) = (Form::Plain, Form::Other);
        // At 2 rows the lines still lie 115 to 136 µs, at 4 they lie 198 to 165.
        assert_eq!(forms, [plain, plain, other, other, other, other, other, other, other]);
    }

    #[test]
    fn the_other_form_is_measured_again_at_a_bounded_cost() {
        let picker = digits();
        let others = drive(&picker, 64, 25_600, [2870, 1400]);
        let plain = 25_600 - others;
        assert!((40..=60).contains(&plain), "{plain} of 25600, at twice the time each");
        let alone = drive(&picker, 1, 25_600, [77, 123]);
        assert!((50..=70).contains(&alone), "{alone} of 25600, at 1.6 times the time each");
    }

    #[test]
    fn noise_never_switches() {
        let picker = digits();
        // Single wild measurements on both sides, and forms within a tenth of each other.
        for round in 0..2000 {
            let form = picker.pick(1);
            let time = if round % 7 == 0 {
                500
            } else if form == Form::Other {
                75
            } else {
                77
            };
            picker.record(1, form, micros(time));
        }
        assert_eq!(picker.bins[0].serving.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_form_that_became_clearly_faster_takes_over_and_keeps_its_place() {
        let picker = digits();
        let first = drive(&picker, 1, 20_000, [300, 60]);
        assert!(first > 5_000, "taken over within the first thousands: {first}");
        let then = drive(&picker, 1, 10_000, [300, 60]);
        assert!(then > 9_900, "{then}");
        assert_eq!(digits().pick(8), Form::Other);
        assert_eq!(picker.pick(8), Form::Other, "other sizes keep theirs");
    }

    #[test]
    fn one_measured_size_serves_all() {
        let picker = Picker::new(&[heat(8, 100, 50)]);
        assert_eq!(picker.pick(1), Form::Other);
        assert_eq!(picker.pick(4096), Form::Other);
        assert_eq!(Picker::new(&[]).pick(3), Form::Plain, "nothing known: as exported");
    }
}
