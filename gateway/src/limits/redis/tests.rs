//! Pauses, and which connection a failure counts against. A real Redis: `tests/clients`.

use super::*;

#[test]
fn connections_that_do_not_last_are_tried_ever_more_seldom() {
    let mut pauses = Pauses::default();
    let mut spent = Duration::ZERO;
    let mut attempts = 0;
    while spent < Duration::from_secs(60) {
        // Each is lost at once. The shortest that jitter leaves.
        spent += pauses.after(Duration::from_millis(1)) / 2;
        attempts += 1;
    }
    assert!(attempts <= 65, "{attempts}");
    assert_eq!(pauses.after(HEALTHY / 2), LONGEST_PAUSE);
    assert_eq!(pauses.after(HEALTHY), FIRST_PAUSE, "it was well in between");
}

#[test]
fn late_failures_of_an_old_connection_leave_the_new_one_alone() {
    let slot = Slot::default();
    slot.put("old");
    let old = slot.link().unwrap();
    assert_eq!([0; 3].map(|_| slot.failed(&old)), [false, false, true]);
    assert!(slot.link().is_none());
    slot.put("new");
    assert_eq!([0; 9].map(|_| slot.failed(&old)), [false; 9]);
    let new = slot.link().unwrap();
    assert_eq!(new.connection, "new");
    assert!(!slot.failed(&new), "it has failed once itself");
    new.succeeded();
    assert_eq!([0; 3].map(|_| slot.failed(&new)), [false, false, true], "in a row");
}
