//! A scripted engine for tests: what each run does is decided by the test, and blocking runs
//! wait for an event of the test instead of a clock.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{EngineError, Fault};
use crate::model::{Engine, Model, ModelSource, Run};
use crate::tensor::Tensor;

/// No test waits longer for its runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one run does.
#[derive(Debug, Clone)]
pub enum StubStep {
    /// Answers with the inputs.
    Echo,
    /// Fails with this error.
    Fail(EngineError),
    /// Panics.
    Panic,
    /// Answers with one row, whatever it was sent.
    OneRow,
    /// Answers with tensors like the inputs whose bytes are all ones: NaN in every type that has
    /// it.
    Nan,
    /// Blocks until [`StubEngine::release`], then echoes.
    Hang,
}

/// An engine whose models follow one shared script; an empty script echoes.
#[derive(Debug, Clone, Default)]
pub struct StubEngine {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<StubStep>,
    load_failure: Option<EngineError>,
    panics_preparing: usize,
    poison: Option<u8>,
    snare: Option<u8>,
    batches: Vec<usize>,
    seen: Vec<Vec<u8>>,
    threads: Vec<String>,
    device_failure: Option<EngineError>,
    hanging: usize,
    released: usize,
}

impl StubEngine {
    /// Appends a step; each run takes one.
    pub fn push(&self, step: StubStep) {
        self.lock().script.push_back(step);
    }

    /// Makes every later load fail, or succeed again with `None`.
    pub fn fail_loads(&self, failure: Option<EngineError>) {
        self.lock().load_failure = failure;
    }

    /// Makes the next threads panic while they are prepared.
    pub fn panic_preparing(&self, threads: usize) {
        self.lock().panics_preparing = threads;
    }

    /// Fails every batch that holds this byte anywhere, as a model throws on one bad row.
    pub fn poison(&self, byte: u8) {
        self.lock().poison = Some(byte);
    }

    /// Makes every batch that holds this byte anywhere hang, as [`StubStep::Hang`] does: where
    /// several threads run, nobody knows which of them would take a step.
    pub fn hang_on(&self, byte: u8) {
        self.lock().snare = Some(byte);
    }

    /// The name of the thread of every batch run so far.
    #[must_use]
    pub fn threads(&self) -> Vec<String> {
        self.lock().threads.clone()
    }

    /// Rows of every batch run so far.
    #[must_use]
    pub fn batches(&self) -> Vec<usize> {
        self.lock().batches.clone()
    }

    /// The bytes of the first input of every batch run so far, without padding.
    #[must_use]
    pub fn seen(&self) -> Vec<Vec<u8>> {
        self.lock().seen.clone()
    }

    /// Makes the device fail every later check.
    pub fn lose_device(&self, failure: EngineError) {
        self.lock().device_failure = Some(failure);
    }

    /// Blocks until `count` runs hang at the same time.
    ///
    /// # Panics
    /// When they do not within a minute.
    pub fn wait_hanging(&self, count: usize) {
        let fewer = |state: &mut State| state.hanging < count;
        let waited = self.shared.changed.wait_timeout_while(self.lock(), PATIENCE, fewer);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!waited.timed_out(), "{} runs hang, not {count}", state.hanging);
    }

    /// Lets one hanging run go on.
    pub fn release(&self) {
        self.lock().released += 1;
        self.shared.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hang(&self) {
        let mut state = self.lock();
        state.hanging += 1;
        self.shared.changed.notify_all();
        let mut state = self
            .shared
            .changed
            .wait_while(state, |state| state.released == 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.released -= 1;
        state.hanging -= 1;
    }
}

impl Engine for StubEngine {
    fn platform(&self) -> &'static str {
        "stub"
    }

    fn needs_file(&self) -> bool {
        false
    }

    #[expect(clippy::panic, reason = "a scripted panic is what the test asked for")]
    fn prepare_thread(&self) {
        let mut state = self.lock();
        if state.panics_preparing > 0 {
            state.panics_preparing -= 1;
            drop(state);
            panic!("scripted panic");
        }
    }

    fn check_device(&self, _device: &str) -> Result<(), EngineError> {
        self.lock().device_failure.clone().map_or(Ok(()), Err)
    }

    fn load(&self, _source: &ModelSource<'_>) -> Result<Box<dyn Model>, EngineError> {
        match self.lock().load_failure.clone() {
            Some(failure) => Err(failure),
            None => Ok(Box::new(self.clone())),
        }
    }
}

impl Model for StubEngine {
    #[expect(clippy::panic, reason = "a scripted panic is what the test asked for")]
    fn run(&self, batch: &Batch) -> Result<Run, EngineError> {
        let step = {
            let mut state = self.lock();
            state.batches.push(batch.rows());
            let first = batch.inputs().first();
            let bytes = first.into_iter().flat_map(|input| input.pieces().flatten().copied());
            state.seen.push(bytes.collect());
            let thread = std::thread::current();
            state.threads.push(thread.name().unwrap_or_default().to_owned());
            let holds = |byte: Option<u8>| {
                let mut pieces = batch.inputs().iter().flat_map(|input| input.pieces());
                pieces.any(|piece| byte.is_some_and(|byte| piece.contains(&byte)))
            };
            if holds(state.poison) {
                return Err(EngineError::new(Fault::Run, "poisoned row"));
            }
            if holds(state.snare) {
                StubStep::Hang
            } else {
                state.script.pop_front().unwrap_or(StubStep::Echo)
            }
        };
        match step {
            StubStep::Echo => {}
            StubStep::Fail(error) => return Err(error),
            StubStep::Panic => panic!("scripted panic"),
            StubStep::Hang => self.hang(),
            StubStep::Nan => {
                let mut run = Run::echo(batch)?;
                for output in &mut run.outputs {
                    let ones = vec![0xff; output.data().len()].into();
                    *output = Tensor::new(output.datatype(), output.shape().to_vec(), ones)
                        .map_err(|error| EngineError::new(Fault::Run, error.to_string()))?;
                }
                return Ok(run);
            }
            StubStep::OneRow => {
                let run = Run::echo(batch)?;
                let first =
                    |tensor: Tensor| tensor.split_rows(&[1, batch.rows() - 1]).swap_remove(0);
                return Ok(Run { outputs: run.outputs.into_iter().map(first).collect(), ..run });
            }
        }
        Run::echo(batch)
    }

    fn notes(&self) -> &[String] {
        &[]
    }
}
