//! Pauses, which connection a failure counts against, and names of keys. A real Redis: `tests/clients`.

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

#[test]
fn names_of_keys_tell_nothing_without_the_secret_that_gateways_share() {
    let folder = tempfile::tempdir().unwrap();
    let hash = |name: &str, secret: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, secret).unwrap();
        let key_secret_file = Some(path);
        keyed_hash(&config::Redis { key_secret_file, ..config::Redis::default() })
    };
    let plain = keyed_hash(&config::Redis::default()).unwrap();
    let one = hash("one", "0123456789abcdef").unwrap();
    let same = hash("same", "0123456789abcdef\n").unwrap();
    let other = hash("other", "0123456789abcdeg").unwrap();
    for value in [Value::Text(b"alice"), Value::Address(0x0a00_0001), Value::Absent] {
        let ids = [&plain, &one, &other].map(|hash| id(hash.clone(), &value));
        assert_eq!(id(same.clone(), &value), ids[1], "all gateways find the same");
        assert!(ids[0] != ids[1] && ids[1] != ids[2], "{value:?}: {ids:x?}");
    }
    let error = hash("short", "0123456789abcde\n").unwrap_err();
    assert!(error.ends_with("short has less than 16 bytes"), "{error}");
}
