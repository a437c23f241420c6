//! For benches and examples: libtorch's own forward in a loop and nothing else, which is the
//! ceiling that an engine can reach, and a way to measure two things beside each other.

use std::time::Duration;

use engine::error::Fault;
use engine::{Batch, EngineError, EngineOptions, Graph, Precision};

use crate::clock::{Effort, Stopwatch};
use crate::ffi::{Inputs, Module};
use crate::run::{RunError, fill};

/// A module in one form, with no check of what it takes and gives.
#[derive(Debug)]
pub struct Bare(Module);

/// Inputs that stay where the module runs.
#[derive(Debug)]
pub struct BareInputs(Inputs);

impl Bare {
    /// Loads a module onto the CPU or a CUDA device of this index. `options.graph` names a single
    /// form; `auto` and `both` stand for the plain one.
    ///
    /// # Errors
    /// When libtorch cannot load or transform the module.
    pub fn load(
        file: &[u8],
        cuda: Option<u8>,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        let failed = |failure| EngineError::from(RunError::Native(failure));
        let mut module = Module::load(file, cuda, options.threads).map_err(failed)?;
        let reduced = options.precision == Precision::Bf16;
        if reduced || options.channels_last {
            module = module.convert(reduced, options.channels_last).map_err(failed)?;
        }
        if matches!(options.graph, Graph::Frozen | Graph::Optimized) {
            module = module.transform(options.graph == Graph::Optimized).map_err(failed)?;
        }
        Ok(Self(module))
    }

    /// Brings a batch to where and how the module takes it.
    ///
    /// # Errors
    /// When memory or the device fails.
    pub fn inputs(&self, batch: &Batch) -> Result<BareInputs, EngineError> {
        Ok(BareInputs(fill(&self.0, batch)?))
    }

    /// Runs forward `times` over on the same inputs and drops the answers.
    ///
    /// # Errors
    /// When the model throws.
    pub fn run(&self, inputs: &BareInputs, times: usize) -> Result<(), EngineError> {
        self.0.repeat(&inputs.0, times).map_err(|failure| RunError::Native(failure).into())
    }
}

/// Mean times of one call each, measured in turns.
#[derive(Debug, Clone, PartialEq)]
pub struct Beside {
    /// The median of the slices' means, for each of what was measured.
    pub medians: Vec<Duration>,
    /// How many times as fast as the first each was: the median over the turns, each of which
    /// compares slices that lie beside each other in time.
    pub speeds: Vec<f64>,
    /// The same by processor time of the calling thread, which others on the machine disturb
    /// less; it says nothing of calls whose work happens on other threads or on a device.
    pub thread_speeds: Vec<f64>,
}

/// Measures several calls beside each other, in short slices that take turns, so that whatever
/// else the machine does hits them alike.
///
/// # Errors
/// That of a call, the first time one fails.
pub fn measure(
    calls: &mut [&mut dyn FnMut(usize) -> Result<(), EngineError>],
    total: Duration,
) -> Result<Beside, EngineError> {
    /// Long enough not to measure the clock, short enough for many turns.
    const SLICE: Duration = Duration::from_millis(20);
    if calls.is_empty() {
        return Err(EngineError::new(Fault::Input, "nothing to measure"));
    }
    let mut times = Vec::with_capacity(calls.len());
    for call in &mut *calls {
        call(2)?; // the first run of a shape is slow
        let mut watch = Stopwatch::start();
        call(1)?;
        let once = watch.lap().max(Duration::from_nanos(100));
        let fit = SLICE.as_nanos() / once.as_nanos();
        times.push(usize::try_from(fit).unwrap_or(1).max(1));
    }
    let mut turns: Vec<Vec<[f64; 2]>> = Vec::new();
    let mut effort = Effort::start();
    let mut spent = Duration::ZERO;
    while turns.len() < 3 || spent < total {
        let mut turn = Vec::with_capacity(calls.len());
        for (call, &times) in calls.iter_mut().zip(&times) {
            let mut watch = Stopwatch::start();
            effort.lap();
            call(times)?;
            let (slice, worked) = (watch.lap(), effort.lap());
            spent += slice;
            #[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
            let mean = |time: Duration| time.as_secs_f64().max(1e-9) / times as f64;
            turn.push([mean(slice), mean(worked)]);
        }
        turns.push(turn);
    }
    let median = |value: &dyn Fn(&[[f64; 2]]) -> f64| {
        let mut values: Vec<f64> = turns.iter().map(|turn| value(turn)).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let each = 0..calls.len();
    let speeds = |clock: usize| {
        each.clone().map(|call| median(&|turn| turn[0][clock] / turn[call][clock])).collect()
    };
    let time = |call: usize| Duration::from_secs_f64(median(&|turn| turn[call][0]));
    Ok(Beside {
        medians: each.clone().map(time).collect(),
        speeds: speeds(0),
        thread_speeds: speeds(1),
    })
}

/// Times of single calls with a pause before each, as a server without load makes them: what the
/// processor kept of the last one has cooled.
///
/// # Errors
/// That of the call.
pub fn cold(
    mut call: impl FnMut() -> Result<(), EngineError>,
    pause: Duration,
    total: Duration,
) -> Result<Vec<Duration>, EngineError> {
    let mut times = Vec::new();
    let mut watch = Stopwatch::start();
    let mut spent = Duration::ZERO;
    while times.is_empty() || spent < total {
        std::thread::sleep(pause);
        spent += watch.lap();
        call()?;
        let time = watch.lap();
        spent += time;
        times.push(time);
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_take_turns_and_the_first_is_the_measure() {
        let (mut first, mut second) = (0, 0);
        let mut a = |times| {
            first += times;
            Ok(())
        };
        let mut b = |times| {
            second += times;
            Ok(())
        };
        let beside = measure(&mut [&mut a, &mut b], Duration::ZERO).unwrap();
        assert_eq!(beside.medians.len(), 2);
        assert!((beside.speeds[0] - 1.0).abs() < 1e-9);
        assert!(first > 3 && second > 3, "both ran in every turn");
    }

    #[test]
    fn a_failure_ends_the_measurement() {
        let mut fails = |_| Err(EngineError::new(Fault::Run, "no"));
        let error = measure(&mut [&mut fails], Duration::from_secs(3600)).unwrap_err();
        assert_eq!(error.message(), "no");
        assert!(measure(&mut [], Duration::ZERO).is_err());
    }
}
