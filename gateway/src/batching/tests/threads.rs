//! Threads that are lost, and those that take their place.

use futures_util::FutureExt;

use super::*;

/// Loses its device, and then panics instead of saying so.
#[derive(Debug)]
struct Treacherous(StubEngine);

impl engine::Model for Treacherous {
    fn run(&self, batch: &Batch) -> Result<engine::Run, engine::EngineError> {
        engine::Model::run(&self.0, batch)?;
        Err(engine::EngineError::new(engine::error::Fault::Device, "the device is lost"))
    }

    fn notes(&self) -> &[String] {
        &[]
    }
}

impl engine::Engine for Treacherous {
    fn platform(&self) -> &'static str {
        "treacherous"
    }

    fn needs_file(&self) -> bool {
        false
    }

    fn prepare_thread(&self) {}

    fn check_device(&self, _device: &str) -> Result<(), engine::EngineError> {
        panic!("scripted panic")
    }

    fn load(
        &self,
        _source: &engine::ModelSource<'_>,
    ) -> Result<Box<dyn engine::Model>, engine::EngineError> {
        Ok(Box::new(Self(self.0.clone())))
    }
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_was_given_up_and_then_panics_has_come_back() {
    let rig = rig(8, 100);
    let stub = StubEngine::default();
    let metrics = Arc::new(VersionMetrics::new("treacherous", "1"));
    let settings = QueueSettings { run_timeout: LIMIT, ..QueueSettings::new("treacherous/1", 8) };
    let (model, engine) = (Treacherous(stub.clone()), Treacherous(stub.clone()));
    let queue = Queue::new(settings, Box::new(model), Arc::new(engine), metrics, &rig.pool);
    stub.push(StubStep::Hang);
    let hangs = queue.submit(rows(&[1]), 1, Schedule::default()).unwrap();
    stub.wait_hanging(1);
    tokio::time::advance(LIMIT * 100).await;
    rig.pool.watch();
    assert_eq!(hangs.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    assert_eq!(rig.stuck.count(), 1);
    stub.release();
    until(|| rig.stuck.panics() > 0);
    // It is no longer counted as stuck.
    until(|| rig.stuck.count() == 0);
    // Panics where nothing was in the slot are no return of anybody.
    let failed = queue.submit(rows(&[1]), 1, Schedule::default()).unwrap().await.unwrap();
    assert_eq!(failed.unwrap_err(), Failure::Panicked);
    assert_eq!((rig.stuck.count(), rig.pool.threads()), (0, (1, 1)));
}

/// Another version on the same threads.
pub(super) fn neighbour(rig: &Rig, settings: QueueSettings) -> (StubEngine, Queue) {
    let stub = StubEngine::default();
    let metrics = Arc::new(VersionMetrics::new("other", "1"));
    let settings = QueueSettings { run_timeout: LIMIT, ..settings };
    let model = Box::new(stub.clone());
    let queue = Queue::new(settings, model, Arc::new(stub.clone()), metrics, &rig.pool);
    (stub, queue)
}

#[tokio::test(start_paused = true)]
async fn a_warm_up_behind_a_neighbour_that_hangs_runs_on_the_fresh_thread() {
    let rig = rig(8, 100);
    let hangs = rig.block();
    let (stub, queue) = neighbour(&rig, QueueSettings::new("other/1", 8));
    let batch = Batch::single(&rows(&[1]), 1);
    let mut warm = Box::pin(queue.warm(&batch, LIMIT));
    assert!((&mut warm).now_or_never().is_none());
    tokio::time::advance(LIMIT * 100).await;
    rig.pool.watch();
    assert_eq!(hangs.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    assert_eq!(warm.await, Ok(()));
    assert_eq!(stub.batches(), [1]);
    rig.stub.release();
}

#[tokio::test]
async fn a_thread_that_goes_to_a_warm_up_leaves_what_waits_to_another() {
    let settings = QueueSettings { instances: 1, ..QueueSettings::new("m/1", 1) };
    let rig = rig_with(2, settings);
    let first = rig.block();
    let second = rig.submit(&[2]);
    let (stub, queue) = neighbour(&rig, QueueSettings::new("other/1", 1));
    // One thread sleeps, for the version has no room for another batch; the busy one will hang
    // in its warm-up.
    stub.push(StubStep::Echo);
    stub.push(StubStep::Hang);
    let batch = Batch::single(&rows(&[1]), 1);
    let warm = |worker| rig.pool.warm(worker, &queue.shared, &batch, LIMIT).unwrap();
    let warmups: Vec<_> = rig.pool.workers().into_iter().map(warm).collect();
    until(|| stub.batches() == [1] && rig.pool.sleeping() == 1);
    rig.stub.release();
    assert!(first.await.unwrap().is_ok());
    let second = tokio::time::timeout(Duration::from_secs(10), second).await;
    assert!(second.expect("a thread is free").unwrap().is_ok());
    stub.wait_hanging(1);
    stub.release();
    for warmup in warmups {
        assert_eq!(warmup.await.unwrap(), Ok(()));
    }
}
