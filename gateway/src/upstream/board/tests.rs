//! Endpoints that are fast, slow, failing or gone, without a socket.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn board(endpoints: usize) -> Board {
    Board::new(endpoints, Ejection::default(), HealthCheck::default())
}

/// One attempt that ends with a verdict after a time.
fn attempt(board: &mut Board, index: usize, at: Instant, took: Duration, verdict: Verdict) -> bool {
    board.begin(index);
    board.end(index, at, at + took, verdict).is_some()
}

fn fail(board: &mut Board, index: usize, at: Instant, times: u32) -> usize {
    (0..times).filter(|_| attempt(board, index, at, MS, Verdict::Failed)).count()
}

/// How many of 10,000 draws each endpoint gets.
fn draws(board: &Board, now: Instant) -> Vec<usize> {
    let mut counts = vec![0; board.seats.len()];
    for step in 0..10_000_u32 {
        let dice = Dice(f64::from(step % 100) / 100.0, f64::from(step / 100) / 100.0);
        counts[board.pick(now, |_| true, dice).unwrap()] += 1;
    }
    counts
}

#[test]
fn of_two_the_one_with_less_time_and_fewer_calls_is_taken() {
    let now = Instant::now();
    let mut board = board(3);
    for (index, time) in [(0, 1), (1, 10), (2, 10)] {
        attempt(&mut board, index, now, MS * time, Verdict::Answered);
    }
    // The fast one wins each pair that it is in: two of three.
    let later = now + MS * 10;
    let counts = draws(&board, later);
    assert!(counts[0] > 6_400 && counts[0] < 6_900, "{counts:?}");
    // With ten times its calls it is no better than the others, with twenty it is worse.
    for _ in 0..20 {
        board.begin(0);
    }
    assert_eq!(draws(&board, later)[0], 0);
}

#[test]
fn endpoints_that_nobody_knows_are_taken_by_their_calls_alone() {
    let now = Instant::now();
    let mut board = board(2);
    attempt(&mut board, 0, now, MS, Verdict::Answered);
    board.begin(0);
    assert_eq!(draws(&board, now)[1], 10_000, "the new one has no calls");
}

#[test]
fn who_fails_fast_gets_fewer_calls_not_more() {
    let now = Instant::now();
    let mut board = board(2);
    attempt(&mut board, 0, now, MS * 50, Verdict::Answered);
    attempt(&mut board, 1, now, MS * 50, Verdict::Answered);
    attempt(&mut board, 1, now + MS * 50, MS, Verdict::Throttled);
    assert_eq!(draws(&board, now + MS * 60)[1], 0);
    assert_eq!(board.seats[1].state(now + MS * 60), EndpointState::Ready, "it has only had enough");
}

#[test]
fn one_failure_shuns_an_endpoint_for_a_second_and_no_longer() {
    let now = Instant::now();
    let mut board = board(2);
    for index in [0, 1] {
        attempt(&mut board, index, now, MS, Verdict::Answered);
    }
    // One call at a time, every 10 ms; each is answered within a millisecond.
    let failed = now + MS * 10;
    attempt(&mut board, 1, failed, MS, Verdict::Failed);
    let mut back = None;
    for step in 1..300_u32 {
        let at = failed + MS * 10 * step;
        let dice = Dice(f64::from(step % 2) / 2.0, 0.0);
        let index = board.pick(at, |_| true, dice).unwrap();
        attempt(&mut board, index, at, MS, Verdict::Answered);
        if index == 1 && back.is_none() {
            back = Some(at - failed);
        }
    }
    let back = back.expect("it gets calls again");
    assert!(back > MS * 900 && back <= MS * 1020, "{back:?}");
    // Whoever fails again is shunned again.
    let again = failed + MS * 4000;
    attempt(&mut board, 1, again, MS, Verdict::Faulted);
    assert_eq!(draws(&board, again + MS * 500)[1], 0);
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time_within_the_bound() {
    let mut now = Instant::now();
    let mut board = board(2);
    assert_eq!(fail(&mut board, 1, now, 4), 0);
    attempt(&mut board, 1, now, MS, Verdict::Answered);
    assert_eq!(fail(&mut board, 1, now, 4), 0, "an answer in between");
    let mut last = Duration::ZERO;
    for round in 1..100_u32 {
        assert_eq!(fail(&mut board, 1, now, 1), 1, "one failure is enough for who has been out");
        let until = board.seats[1].until.unwrap();
        let time = until - now - MS;
        let middle = Duration::from_secs(10 * u64::from(round)).min(Duration::from_secs(250));
        assert!(time >= middle.mul_f64(0.79) && time <= middle.mul_f64(1.21), "{round} {time:?}");
        assert!(time <= Duration::from_secs(300));
        assert_eq!(draws(&board, until - MS)[1], 0);
        now = until;
        last = time;
    }
    assert!(last > Duration::from_secs(190));
    // It takes a while of good answers until the time starts over.
    attempt(&mut board, 1, now, MS, Verdict::Answered);
    assert!(board.seats[1].ejections > 1);
    attempt(&mut board, 1, now + Duration::from_secs(11), MS, Verdict::Answered);
    assert_eq!(board.seats[1].ejections, 0);
}

#[test]
fn the_only_endpoint_and_the_last_ones_are_never_ejected() {
    let now = Instant::now();
    for (endpoints, max_part, most) in
        [(1, 1.0, 0), (2, 1.0, 1), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (5, 0.2, 1), (5, 0.1, 0)]
    {
        let settings = Ejection { max_part, ..Ejection::default() };
        let mut board = Board::new(endpoints, settings, HealthCheck::default());
        let ejected: usize = (0..endpoints).map(|index| fail(&mut board, index, now, 9)).sum();
        assert_eq!(ejected, most, "{endpoints} {max_part}");
    }
    // One that says it is not well counts like one that is ejected.
    let mut board = board(2);
    board.checked(0, Err("no".into()));
    assert_eq!(fail(&mut board, 1, now, 9), 0);
}

#[test]
fn an_ejected_endpoint_is_better_than_none_and_an_unhealthy_one_is_not() {
    let now = Instant::now();
    let mut board = board(2);
    fail(&mut board, 0, now, 9);
    let one = |board: &Board, fits: fn(usize) -> bool| board.pick(now + MS, fits, Dice(0.5, 0.5));
    assert_eq!(one(&board, |_| true), Some(1));
    assert_eq!(one(&board, |index| index == 0), Some(0));
    board.checked(0, Err("no".into()));
    assert_eq!(one(&board, |index| index == 0), None);
}

#[test]
fn what_began_before_an_ejection_says_nothing_after_it() {
    let now = Instant::now();
    let mut board = board(2);
    board.begin(0);
    fail(&mut board, 0, now, 5);
    let until = board.seats[0].until.unwrap();
    let (before, ejections) = (board.seats[0].consecutive, board.seats[0].ejections);
    board.end(0, now, until + MS, Verdict::Failed);
    assert_eq!((board.seats[0].consecutive, board.seats[0].ejections), (before, ejections));
    assert_eq!(board.seats[0].state(until + MS), EndpointState::Ready);
}

#[test]
fn callers_without_patience_eject_nobody_and_calls_that_hang_do() {
    let now = Instant::now();
    let mut board = board(2);
    attempt(&mut board, 0, now, MS, Verdict::Answered);
    for _ in 0..20 {
        assert!(!attempt(&mut board, 0, now, MS * 900, Verdict::GivenUp));
    }
    let hung = (0..5).filter(|_| attempt(&mut board, 0, now, MS * 1000, Verdict::GivenUp)).count();
    assert_eq!(hung, 1);
}

#[test]
fn health_needs_as_many_checks_in_a_row_as_is_said() {
    let now = Instant::now();
    let mut board = board(1);
    let mut check = |well: bool| {
        board.checked(0, if well { Ok(()) } else { Err("no".into()) });
        board.seats[0].state(now) == EndpointState::Ready
    };
    // Nothing was known before the first.
    assert!(!check(false));
    assert!(!check(true) && !check(false) && !check(true) && check(true));
    assert!(check(false) && check(false) && check(true));
    assert!(check(false) && check(false) && !check(false));
    assert_eq!(board.seats[0].trouble.as_deref(), Some("no"));
    board.checked(0, Ok(()));
    board.checked(0, Ok(()));
    assert_eq!(board.seats[0].trouble, None);
}

proptest! {
    #[test]
    fn calls_come_and_go_and_somebody_is_always_left(
        endpoints in 1_usize..6, max_part in 0.0..=1.0_f64,
        steps in prop::collection::vec((0_u64..4000, 0_usize..6, 0_u8..5), 1..300),
    ) {
        let settings = Ejection { max_part, ..Ejection::default() };
        let mut board = Board::new(endpoints, settings, HealthCheck::default());
        let mut now = Instant::now();
        let mut under_way: Vec<(usize, Instant)> = vec![];
        for (wait, which, verdict) in steps {
            now += Duration::from_millis(wait);
            let picked = board.pick(now, |_| true, Dice::roll());
            prop_assert!(picked.is_some());
            let index = picked.unwrap();
            board.begin(index);
            under_way.push((index, now));
            if which < under_way.len() {
                let (index, started) = under_way.swap_remove(which);
                let verdicts = [Verdict::Failed, Verdict::Failed, Verdict::Answered,
                    Verdict::GivenUp, Verdict::Neutral];
                board.end(index, started, now, verdicts[usize::from(verdict)]);
            }
            for (index, seat) in board.seats.iter().enumerate() {
                let calls = under_way.iter().filter(|(other, _)| *other == index).count();
                prop_assert_eq!(seat.in_flight, calls);
            }
            let [ready, _, ejected] = board.counts(now);
            prop_assert!(ready >= 1);
            prop_assert!(ejected as f64 <= max_part * endpoints as f64 + 1e-6);
        }
    }
}

#[test]
fn who_comes_back_gets_calls_at_once() {
    let mut now = Instant::now();
    let mut board = board(3);
    for index in 0..3 {
        attempt(&mut board, index, now, MS, Verdict::Answered);
    }
    board.begin(0);
    assert_eq!(fail(&mut board, 0, now, 5), 1);
    // One that was under way when it was ejected changes nothing.
    assert_eq!(board.end(0, now, now + MS, Verdict::Failed), None);
    assert_eq!(draws(&board, now + MS)[0], 0);
    now += Ejection::default().time * 2;
    let counts = draws(&board, now);
    assert!(counts[0] > 3_000, "{counts:?}");

    attempt(&mut board, 0, now, MS, Verdict::Answered);
    assert_eq!(fail(&mut board, 1, now, 1), 0);
    assert_eq!(draws(&board, now + MS)[1], 0, "a failure weighs");
    for result in [Err(String::new()), Ok(())] {
        for _ in 0..4 {
            board.checked(1, result.clone());
        }
    }
    let counts = draws(&board, now + MS);
    assert!(counts[1] > 3_000, "{counts:?}");
}
