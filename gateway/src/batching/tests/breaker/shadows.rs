//! What shadows and the breaker of a version that answers live calls, too, have to do with each
//! other.

use super::*;

const SHADOW: Schedule = Schedule { priority: None, deadline: None, shadow: true };

/// With threads for shadows, and with none.
fn rigs(settings: config::Breaker) -> [Guarded; 2] {
    [1, 0].map(|shadow| {
        let rig = rig_of(Threads { live: 1, shadow }, QueueSettings::new("m/1", 8));
        guard(rig, settings, (DataType::Uint8, false), false)
    })
}

impl Guarded {
    fn shadow(&self, value: u8) -> Result<Done, Failure> {
        self.rig.submit_as(&[value], SHADOW).blocking_recv().unwrap()
    }

    fn refused(&self) -> Option<Kind> {
        let result = self.rig.queue.submit(rows(&[1]), 1, SHADOW);
        result.err().map(|rejection| rejection.kind())
    }
}

#[test]
fn whatever_shadows_do_counts_for_no_breaker() {
    for guarded in rigs(FIRST_FAILURE) {
        for fault in [Fault::Run, Fault::Device] {
            guarded.fail(fault);
            assert!(guarded.shadow(1).is_err());
        }
        guarded.rig.stub.push(StubStep::Panic);
        assert_eq!(guarded.shadow(1).unwrap_err(), Failure::Panicked);
        assert!(guarded.shadow(1).is_ok());
        assert_eq!((guarded.breaker.state(), guarded.counts()), (State::Closed, (0, 0)));
        guarded.fail(Fault::Run);
        assert!(guarded.call(&[1]).is_err());
        assert_eq!(guarded.breaker.status().reason, Some(Reason::Consecutive));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shadow_that_hangs_counts_for_no_breaker() {
    let [guarded, _] = rigs(FIRST_FAILURE);
    let rig = &guarded.rig;
    rig.stub.push(StubStep::Hang);
    let hangs = rig.submit_as(&[1], SHADOW);
    rig.stub.wait_hanging(1);
    tokio::time::advance(LIMIT * 100).await;
    rig.pool.watch();
    assert_eq!(hangs.await.unwrap().unwrap_err(), Failure::TimedOut(LIMIT));
    assert_eq!((guarded.breaker.state(), guarded.counts()), (State::Closed, (0, 0)));
    rig.stub.release();
}

#[test]
fn shadows_are_refused_exactly_while_live_calls_would_be_and_decide_no_trial() {
    let soon = config::Breaker { open_time: Duration::from_millis(1), ..FIRST_FAILURE };
    for guarded in rigs(soon) {
        guarded.breaker.hold_open();
        assert_eq!(guarded.refused(), Some(Kind::CircuitOpen));
        guarded.breaker.reset();
        guarded.fail(Fault::Run);
        assert!(guarded.call(&[1]).is_err());
        until(|| guarded.breaker.state() != State::Open);
        // Its time is over: a version that is nothing but a shadow by now runs again.
        assert!(guarded.shadow(1).is_ok());
        guarded.fail(Fault::Run);
        assert!(guarded.shadow(1).is_err());
        let trial = guarded.breaker.admit(Instant::now(), None).unwrap();
        assert!(trial.has_trial(), "no shadow took it");
        assert_eq!(guarded.refused(), Some(Kind::CircuitOpen));
        drop(trial);
        assert!(guarded.shadow(1).is_ok());
        assert_eq!(guarded.breaker.state(), State::HalfOpen, "nothing was decided");
        assert!(guarded.call(&[1]).is_ok());
        assert_eq!(guarded.breaker.state(), State::Closed);
    }
}

#[test]
fn shadows_that_wait_when_the_breaker_opens_do_not_run() {
    for guarded in rigs(LONE) {
        guarded.rig.stub.hang_on(99);
        let first = guarded.rig.submit_as(&[99], SHADOW);
        guarded.rig.stub.wait_hanging(1);
        let waits = guarded.rig.submit_as(&[1], SHADOW);
        guarded.breaker.hold_open();
        guarded.rig.stub.release();
        assert_eq!(answer(first), [99]);
        assert!(matches!(waits.blocking_recv().unwrap(), Err(Failure::CircuitOpen(_))));
        assert_eq!(guarded.rig.stub.batches(), [1]);
    }
}
