//! Permits: who holds the trial, and what is told.

use std::time::Duration;

use super::*;

const BAD: Sample =
    Sample { outcome: Some(Outcome::Failure), time: Duration::ZERO, with_nan: 0, without_nan: 0 };
const GOOD: Sample = Sample { outcome: Some(Outcome::Success), without_nan: 1, ..BAD };

fn breaker() -> Arc<Breaker> {
    let settings = Settings { consecutive: 1, probes: 1, ..Settings::default() };
    Breaker::seeded("m/1", settings, BreakerMetrics::new("breaker_tests", "1"), 7)
}

fn call(breaker: &Arc<Breaker>) -> Result<Permit, Rejection> {
    breaker.admit(Instant::now(), None)
}

fn finish(breaker: &Breaker, permit: &Permit, sample: Sample) {
    breaker.record(Instant::now(), permit, sample);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_told_when_to_try_again_and_what_is_open() {
    let breaker = breaker();
    finish(&breaker, &call(&breaker).unwrap(), BAD);
    let refused = call(&breaker).unwrap_err();
    assert_eq!(refused.kind(), Kind::CircuitOpen);
    assert_eq!(refused.to_string(), "the circuit breaker of m/1 is open, try again later");
    let after = refused.retry_after().unwrap();
    assert!(after >= Duration::from_millis(800) && after <= Duration::from_millis(1200));
    tokio::time::advance(after).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(call(&breaker).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_dropped_makes_room_and_other_permits_give_nothing_back() {
    let breaker = breaker();
    let early = call(&breaker).unwrap();
    finish(&breaker, &call(&breaker).unwrap(), BAD);
    tokio::time::advance(Duration::from_secs(2)).await;
    let trial = call(&breaker).unwrap();
    drop((early, trial.part(), Permit::default()));
    assert!(call(&breaker).is_err(), "the trial is still under way");
    drop(trial);
    let next = call(&breaker).unwrap();
    finish(&breaker, &next, GOOD);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn calls_that_no_breaker_has_seen_count_for_none() {
    let breaker = breaker();
    finish(&breaker, &Permit::default(), BAD);
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn an_operator_opens_and_closes_it() {
    let breaker = breaker();
    breaker.hold_open();
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(call(&breaker).unwrap_err().retry_after(), Some(Duration::from_secs(60)));
    let status = breaker.status();
    assert!(status.held && status.state == State::Open && status.reason == Some(Reason::Operator));
    breaker.reset();
    assert!(call(&breaker).is_ok());
}

#[tokio::test(start_paused = true)]
async fn other_settings_leave_an_open_breaker_open_and_hold_from_then_on() {
    let breaker = breaker();
    finish(&breaker, &call(&breaker).unwrap(), BAD);
    let before = breaker.status();
    let settings = Settings { consecutive: 3, probes: 2, ..Settings::default() };
    breaker.reconfigure(settings);
    assert_eq!(breaker.status().retry_after, before.retry_after);
    tokio::time::advance(Duration::from_secs(2)).await;
    for state in [State::HalfOpen, State::Closed] {
        let trial = call(&breaker).unwrap();
        finish(&breaker, &trial, GOOD);
        assert_eq!(breaker.state(), state, "two trials, as it says now");
    }
    for state in [State::Closed, State::Closed, State::Open] {
        finish(&breaker, &call(&breaker).unwrap(), BAD);
        assert_eq!(breaker.state(), state);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_settings_forget_nothing_and_others_count_rates_anew() {
    let settings = Settings { consecutive: 100, ..Settings::default() };
    let breaker = Breaker::seeded("m/1", settings, BreakerMetrics::new("breaker_tests", "2"), 7);
    for _ in 0..19 {
        finish(&breaker, &call(&breaker).unwrap(), BAD);
    }
    breaker.reconfigure(settings);
    assert_eq!(breaker.status().counts.samples, 19);
    breaker.reconfigure(Settings { window: Duration::from_secs(60), ..settings });
    let status = breaker.status();
    assert_eq!((status.counts.samples, status.consecutive), (0, 19));
    finish(&breaker, &call(&breaker).unwrap(), BAD);
    assert_eq!(breaker.state(), State::Closed, "one of one is no rate");
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_switched_off_lets_all_pass_unless_an_operator_holds_it() {
    let off = Settings { enabled: false, ..Settings::default() };
    let open = breaker();
    finish(&open, &call(&open).unwrap(), BAD);
    open.reconfigure(off);
    assert_eq!(open.state(), State::Closed);
    let tried = breaker();
    finish(&tried, &call(&tried).unwrap(), BAD);
    tokio::time::advance(Duration::from_secs(2)).await;
    let trial = call(&tried).unwrap();
    tried.reconfigure(off);
    assert!(call(&tried).is_ok(), "nobody waits for the trial");
    drop(trial);
    let held = breaker();
    held.hold_open();
    held.reconfigure(off);
    assert!(held.status().held && call(&held).is_err());
}
