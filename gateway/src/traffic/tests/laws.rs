//! What holds after any sequence of changes.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Deed {
    /// Canary shares of the routes in the file; those beyond are not in it.
    Apply(Vec<u16>),
    Set(usize, u16),
    Drop(usize),
    Rollback(u64),
    Restart(Vec<u16>),
    Crash(usize, u16, Step),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let file = || prop::collection::vec(prop::sample::select(vec![0, 1, 500, 3333, 9999]), 0..=3);
    let step = prop::sample::select(vec![Step::Create, Step::Rename, Step::SyncFolder, Step::Done]);
    let deed = prop_oneof![
        2 => file().prop_map(Deed::Apply),
        4 => (0..3_usize, 0..=BUCKETS).prop_map(|(route, share)| Deed::Set(route, share)),
        1 => (0..3_usize).prop_map(Deed::Drop),
        2 => (0..12_u64).prop_map(Deed::Rollback),
        1 => file().prop_map(Deed::Restart),
        1 => (0..3_usize, 0..=BUCKETS, step).prop_map(|(r, s, step)| Deed::Crash(r, s, step)),
    ];
    prop::collection::vec(deed, 1..14)
}

fn file(canaries: &[u16]) -> Vec<Route> {
    NAMES.iter().zip(canaries).map(|(name, canary)| route(name, *canary)).collect()
}

/// The current routes are the file and what was changed by hand, and nothing else.
fn check(rig: &Rig, canaries: &[u16]) {
    let current = rig.traffic.current();
    let file = by_name(file(canaries));
    for plan in &current.plans {
        let name = &plan.route.name;
        let in_file = file.get(name);
        plan.table().unwrap();
        for (arm, ranges) in plan.route.arms.iter().zip(&plan.ranges) {
            assert_eq!(arm.share.buckets(), ranges.len());
        }
        match plan.source {
            Source::File => assert_eq!(in_file, Some(&plan.route)),
            Source::Overlay => assert_ne!(in_file, Some(&plan.route)),
        }
        assert_eq!(plan.source == Source::Overlay, current.overlay.contains_key(name));
    }
    for (name, entry) in &current.overlay {
        assert_eq!(entry.file.as_ref(), file.get(name));
        assert!(current.plan(name.as_str()).is_some() || file.contains_key(name));
    }
    for name in file.keys() {
        let is_there = current.plan(name.as_str()).is_some();
        assert!(is_there || current.overlay.contains_key(name), "{name} is lost");
    }
    let committed = rig.target.committed.lock().unwrap();
    assert_eq!(committed.last(), Some(&(current.number, current.plans.clone())));
}

/// An arm that grew has all the callers it had.
fn nobody_left_what_grew(before: &Revision, after: &Revision) {
    for (old, new) in
        before.plans.iter().filter_map(|p| Some((p, after.plan(p.route.name.as_str())?)))
    {
        for ((name, had), (_, has)) in old.divided().iter().zip(new.divided()) {
            if has.len() >= had.len() {
                assert!(had.without(&has).is_empty(), "callers left '{name}', which grew");
            }
        }
    }
}

async fn run(deeds: Vec<Deed>) {
    let mut canaries = vec![500, 500];
    let mut rig = Rig::new(file(&canaries)).await;
    let mut known: HashMap<u64, Arc<Revision>> = HashMap::new();
    for deed in deeds {
        let before = rig.traffic.current();
        known.insert(before.number, before.clone());
        match deed {
            Deed::Apply(next) => {
                rig.apply(file(&next)).await.unwrap();
                canaries = next;
                nobody_left_what_grew(&before, &rig.traffic.current());
            }
            Deed::Set(route, share) => {
                let share = Share::of_buckets(share).unwrap().to_string();
                let is_there = before.plan(NAMES[route]).is_some();
                let result = rig.set(NAMES[route], &[("canary", &share)]).await;
                assert_eq!(result.is_ok(), is_there);
                nobody_left_what_grew(&before, &rig.traffic.current());
            }
            Deed::Drop(route) => {
                drop(rig.traffic.drop_overlay(NAMES[route].parse().unwrap(), by()).await);
                nobody_left_what_grew(&before, &rig.traffic.current());
            }
            Deed::Rollback(to) => {
                let result = rig.traffic.rollback(Some(to), by()).await;
                let Some(wanted) = known.get(&to) else { continue };
                assert_eq!(result.unwrap().restored, Some(to));
                let divided = |revision: &Revision| -> Vec<_> {
                    revision.plans.iter().map(|p| (p.route.clone(), p.ranges.clone())).collect()
                };
                assert_eq!(divided(&rig.traffic.current()), divided(wanted));
            }
            Deed::Restart(next) => {
                rig = rig.restart(file(&next)).await;
                canaries = next;
                nobody_left_what_grew(&before, &rig.traffic.current());
            }
            Deed::Crash(route, share, step) => {
                rig.traffic.store.set_fault(Fault::Crashes(step));
                let share = Share::of_buckets(share).unwrap().to_string();
                drop(rig.set(NAMES[route], &[("canary", &share)]).await);
                rig = rig.restart(file(&canaries)).await;
                let after = rig.traffic.current();
                let is_new = after
                    .plan(NAMES[route])
                    .is_some_and(|p| p.route.arms[1].share.to_string() == share);
                assert!(after == before || is_new, "{after:?} after {before:?}");
            }
        }
        check(&rig, &canaries);
        let after = rig.traffic.current();
        assert!(after.number >= before.number);
        assert!(after.number > before.number || after == before, "a revision never changes");
    }
    let numbers: Vec<_> =
        rig.traffic.revisions(100).await.unwrap().iter().map(|r| r.number).collect();
    assert!(numbers.is_sorted_by(|newer, older| newer > older), "{numbers:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn routes_are_the_file_and_the_overlay_whatever_happens(deeds in deeds()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(deeds));
    }
}
