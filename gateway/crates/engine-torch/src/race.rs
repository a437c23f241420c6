//! How long two forms of one module take, measured beside each other on the samples.

use std::time::Duration;

use crate::choice::Heat;
use crate::clock::{Effort, Stopwatch};
use crate::ffi::Module;
use crate::run::{Shape, run};
use crate::verify::Reference;

/// How long two forms race on one sample; the rounds at least and at most.
const RACE: Duration = Duration::from_millis(100);
const ROUNDS: std::ops::Range<usize> = 2..400;

/// The times of both on every sample, from the smallest to the largest.
///
/// Both take turns, so that whatever else the machine does hits them alike, and the best round of
/// each counts. Both have run on the samples before. Where all of a run happens on the calling
/// thread its processor time counts: a model may be loaded while others keep every core busy.
pub(crate) fn race(
    plain: &Module,
    other: &Module,
    shape: &Shape,
    references: &[Reference<'_>],
) -> Vec<Heat> {
    let mut heats: Vec<Heat> =
        references.iter().filter_map(|sample| heat(plain, other, shape, sample)).collect();
    heats.sort_by_key(|heat| heat.rows);
    heats
}

/// `None` where a form fails on what it has answered before.
fn heat(plain: &Module, other: &Module, shape: &Shape, sample: &Reference<'_>) -> Option<Heat> {
    let mut best = [Duration::MAX; 2];
    let mut watch = Stopwatch::start();
    let mut effort = Effort::start();
    let mut spent = Duration::ZERO;
    for round in 0..ROUNDS.end {
        if round >= ROUNDS.start && spent > RACE {
            break;
        }
        effort.lap();
        for (module, best) in [plain, other].into_iter().zip(&mut best) {
            let run = run(module, shape, sample.batch).ok()?;
            let time = effort.lap();
            *best = if shape.on_caller { time } else { run.infer }.min(*best);
        }
        spent += watch.lap();
    }
    Some(Heat { rows: sample.batch.rows(), plain: best[0], other: best[1] })
}
