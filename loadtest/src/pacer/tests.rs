//! The pace on a clock of numbers: a made-up server answers after a time, and stalls.

use std::collections::BinaryHeap;

use super::*;
use crate::arrivals::{Arrivals, Ramp};

const fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn open(rate: f64, seconds: u64, bound: usize) -> Pacer {
    let ramp = Ramp { from: rate, to: rate, duration: Duration::from_secs(seconds) };
    let schedule = Schedule::new(ramp, Arrivals::Constant, (1.0, 0.0), 1);
    Pacer::Open(Open::new(schedule, bound, ms(60_000)))
}

/// Runs a pacer against a server whose answer to a call sent at a moment comes at another.
/// Returns the latency of each call from the moment it was due, and the pacer.
fn simulate(
    mut pacer: Pacer,
    end: Duration,
    answer: impl Fn(Duration) -> Duration,
) -> (Vec<Duration>, Pacer) {
    let mut latencies = Vec::new();
    let mut flying: BinaryHeap<std::cmp::Reverse<Duration>> = BinaryHeap::new();
    let mut now = Duration::ZERO;
    while now < end {
        match pacer.turn(now, flying.len()) {
            Turn::Send(due) => {
                let at = answer(now);
                latencies.push(at - due);
                flying.push(std::cmp::Reverse(at));
            }
            Turn::Wait(until) => {
                let answered = flying.peek().map(|at| at.0);
                now = until.into_iter().chain(answered).min().unwrap_or(end);
                while flying.peek().is_some_and(|at| at.0 <= now) {
                    flying.pop();
                }
            }
        }
    }
    (latencies, pacer)
}

fn above(latencies: &[Duration], limit: Duration) -> usize {
    latencies.iter().filter(|latency| **latency > limit).count()
}

#[test]
fn a_stall_shows_in_every_call_that_was_due_meanwhile() {
    // 1 ms an answer, but nothing between second 2 and second 3.
    let stalling = |sent: Duration| {
        if (ms(2000)..ms(3000)).contains(&sent) { ms(3001) } else { sent + ms(1) }
    };
    // Callers that wait notice it once each.
    let (closed, _) = simulate(Pacer::Closed(Closed::new(4, 4, ms(10_000))), ms(10_000), stalling);
    assert_eq!(above(&closed, ms(10)), 4);
    // 100 calls were due in that second, whether there is room for all of them in flight or not.
    for bound in [1000, 4] {
        let (latencies, pacer) = simulate(open(100.0, 10, bound), ms(10_000), stalling);
        assert_eq!(latencies.len(), 1000);
        assert!((99..=103).contains(&above(&latencies, ms(10))), "{}", above(&latencies, ms(10)));
        let mut sorted = latencies;
        sorted.sort();
        // The calls due meanwhile waited from 1 s down to nothing.
        assert!(sorted[949] > ms(450) && sorted[999] > ms(990), "{:?}", sorted[949]);
        assert_eq!(pacer.unsent(ms(10_000)), 0);
    }
}

#[test]
fn calls_that_never_found_room_are_counted() {
    // Each answer takes a second and one call may fly: 10 of 1000 go out.
    let (latencies, pacer) = simulate(open(100.0, 10, 1), ms(10_000), |sent| sent + ms(1000));
    assert_eq!(latencies.len(), 10);
    assert_eq!(pacer.unsent(ms(10_000)), 990);
}

#[test]
fn calls_too_late_for_anyone_to_wait_are_given_up_and_counted() {
    let Pacer::Open(mut pacer) = open(100.0, 10, 1) else { unreachable!() };
    pacer.patience = ms(500);
    let (latencies, pacer) = simulate(Pacer::Open(pacer), ms(10_000), |sent| sent + ms(1000));
    assert!(latencies.iter().all(|latency| *latency <= ms(1500)));
    assert_eq!(latencies.len() as u64 + pacer.unsent(ms(10_000)), 1000);
}

#[test]
fn a_closed_loop_keeps_its_callers_busy() {
    let (latencies, pacer) =
        simulate(Pacer::Closed(Closed::new(3, 3, ms(1000))), ms(1000), |sent| sent + ms(10));
    assert_eq!(latencies.len(), 300);
    assert_eq!(pacer.unsent(ms(1000)), 0);
}

#[test]
fn callers_join_and_leave_along_a_ramp() {
    let mut up = Closed::new(0, 10, ms(1000));
    assert_eq!([0, 49, 51, 500, 999].map(|now| up.callers(ms(now))), [0, 0, 1, 5, 10]);
    let Turn::Wait(Some(first)) = up.turn(ms(0), 0) else { panic!("nobody is there yet") };
    assert_eq!(up.turn(first, 0), Turn::Send(first));
    let mut down = Closed::new(10, 0, ms(1000));
    assert_eq!(down.turn(ms(500), 5), Turn::Wait(None));
    assert_eq!(down.turn(ms(500), 4), Turn::Send(ms(500)));
}

#[test]
fn a_caller_pauses_after_a_failure_and_the_others_go_on() {
    let mut pacer = Pacer::Closed(Closed::new(2, 2, ms(1000)));
    pacer.pause(ms(10));
    assert_eq!(pacer.turn(ms(0), 0), Turn::Send(ms(0)));
    assert_eq!(pacer.turn(ms(0), 1), Turn::Wait(Some(ms(10))));
    assert_eq!(pacer.turn(ms(10), 1), Turn::Send(ms(10)));
}
