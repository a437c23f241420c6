//! The lock-free accounting of a queue under every interleaving of its threads:
//! `cargo test -p penstock --no-default-features --features loom --test loom`.

mod sync {
    pub(super) use loom::sync::Arc;
    pub(super) use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
}

#[expect(dead_code, reason = "the test calls what threads race for, not all of the module")]
#[path = "../src/batching/load.rs"]
mod load;

use load::Load;
use loom::thread;
use sync::Arc;

/// Preemptions that one interleaving may have: more have never been needed to break such code, and
/// without a bound three threads take hours.
const PREEMPTIONS: usize = 3;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(body);
}

fn left(load: &Load) -> (usize, usize, usize) {
    (load.calls(), load.rows(), load.bytes())
}

/// The engine takes the call while its caller goes away: the room comes back once.
#[test]
fn a_room_is_given_back_once_whoever_is_first() {
    model(|| {
        let load = Arc::new(Load::default());
        let place = Load::take(&load, 2, 10, (4, 100)).unwrap();
        let hold = place.hold().unwrap();
        let engine = thread::spawn(move || drop(place));
        drop(hold);
        engine.join().unwrap();
        assert_eq!(left(&load), (0, 0, 0));
        assert!(!load.needs_sweep(0), "nobody is dead who is out of the queue");
    });
}

/// Two callers compete for the last room while a third gives his back: never beyond the bound,
/// and nothing is left in the end.
#[test]
fn admission_keeps_the_bounds_and_forgets_nothing() {
    model(|| {
        let load = Arc::new(Load::default());
        let first = Load::take(&load, 1, 1, (2, 100)).unwrap();
        let admitted: Vec<_> = (0..2)
            .map(|_| {
                let load = load.clone();
                thread::spawn(move || Load::take(&load, 1, 1, (2, 100)).ok())
            })
            .collect();
        let hold = first.hold();
        drop(hold);
        let places: Vec<_> =
            admitted.into_iter().filter_map(|caller| caller.join().unwrap()).collect();
        assert!(load.rows() <= 2 && load.rows() == places.len());
        drop(places);
        drop(first);
        assert_eq!(left(&load), (0, 0, 0));
        assert!(!load.needs_sweep(0));
    });
}
