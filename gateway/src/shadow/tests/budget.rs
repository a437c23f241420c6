//! Where the budget of a shadow ends, and the thread that compares.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{floats, pair, singles};
use crate::config;
use crate::shadow::comparer::Comparer;
use crate::shadow::{Lane, Ledger, Pair, Place};
use crate::telemetry::{ShadowOutcome, metrics};
use crate::types::Share;

fn lane(name: &str, max_in_flight: usize, max_bytes: usize) -> Arc<Lane> {
    let model: crate::types::ModelName = "digits".parse().unwrap();
    let version = config::VersionChoice::Latest;
    let shadow = config::Shadow {
        name: name.parse().unwrap(),
        target: config::Target::Local { model: model.clone(), version },
        sample: Share::ALL,
        max_in_flight,
        max_bytes,
        timeout: Duration::from_secs(5),
    };
    Lane::new(&model, &shadow)
}

fn answers(shadow: [f32; 2]) -> Pair {
    let signature = floats(&[-1, 2]);
    pair(&signature, vec![singles(&[1, 2], &[1.0, 0.0])], vec![singles(&[1, 2], &shadow)])
}

#[test]
fn what_is_under_way_is_bounded_in_calls_and_bytes() {
    let lane = lane("bounds", 2, 100);
    let first = lane.try_enter(60).unwrap();
    assert!(lane.try_enter(41).is_none(), "too many bytes");
    let mut second = lane.try_enter(40).unwrap();
    assert!(lane.try_enter(0).is_none(), "too many calls");
    second.resize(300);
    first.end(ShadowOutcome::Expired);
    assert!(lane.try_enter(1).is_none(), "the answer was larger than the budget");
    drop(second);
    lane.skip(ShadowOutcome::Pressure);
    let counts = lane.counts();
    assert_eq!((counts.sampled, counts.submitted), (6, 2));
    assert_eq!((counts.in_flight, counts.in_flight_bytes), (0, 0));
    let dropped = [("abandoned", 1), ("bytes", 2), ("expired", 1), ("full", 1), ("pressure", 1)];
    assert_eq!(counts.dropped, dropped.into_iter().collect());
}

#[tokio::test]
async fn what_was_handed_over_is_in_the_report_and_in_the_metrics() {
    let recorder = metrics::recorder();
    let (lane, ledger) = (lane("handed-over", 64, 1 << 20), Arc::new(Ledger::new()));
    let comparer = Comparer::start().unwrap();
    for index in 0..64_u8 {
        let mut pair = answers(if index % 4 == 0 { [0.0, 1.0] } else { [1.0, 0.0] });
        if index >= 60 {
            pair.shadow = Err(crate::error::Kind::EngineFailed);
        }
        comparer.submit(&ledger, lane.try_enter(8).unwrap(), pair);
    }
    comparer.flush().await;
    let report = ledger.report().with_lane(lane.counts());
    let counts = report.lane.unwrap();
    assert_eq!((counts.compared, counts.failed, counts.in_flight), (60, 4, 0));
    let agreement = report.outputs[0].agreement.unwrap();
    assert_eq!((agreement.count, agreement.of), (45, 60));
    lane.publish(&ledger);
    let text = recorder.render();
    for line in [
        r#"penstock_shadow_requests_total{route="digits",shadow="handed-over",outcome="compared"} 60"#,
        r#"penstock_shadow_agreement{route="digits",shadow="handed-over",output="y"} 0.75"#,
        r#"penstock_shadow_relative_difference{route="digits",shadow="handed-over",output="y"} 0.25"#,
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    lane.retire(&ledger);
    let gone = r#"penstock_shadow_agreement{route="digits",shadow="handed-over",output="y"} NaN"#;
    assert!(recorder.render().contains(gone));
}

#[test]
fn a_thread_that_is_behind_costs_no_memory() {
    let (lane, ledger) = (lane("behind", 64, 1 << 20), Arc::new(Ledger::new()));
    let (comparer, mut received) = Comparer::channel(2);
    for _ in 0..5 {
        comparer.submit(&ledger, lane.try_enter(8).unwrap(), answers([1.0, 0.0]));
    }
    let counts = lane.counts();
    assert_eq!(counts.dropped, [("behind", 3)].into_iter().collect());
    assert_eq!((counts.in_flight, counts.in_flight_bytes), (2, 32), "both answers are held");
    received.close();
    drop(received);
    comparer.submit(&ledger, lane.try_enter(8).unwrap(), answers([1.0, 0.0]));
    let counts = lane.counts();
    assert_eq!((counts.in_flight, counts.dropped["abandoned"]), (0, 3));
}

#[test]
fn the_thread_compares_what_it_has_and_ends_with_the_last_handle() {
    let (lane, ledger) = (lane("last", 64, 1 << 20), Arc::new(Ledger::new()));
    let (comparer, received) = Comparer::channel(8);
    let other = comparer.clone();
    comparer.submit(&ledger, lane.try_enter(8).unwrap(), answers([1.0, 0.0]));
    let thread = crate::tasks::thread("compare", move || super::super::comparer::run(received));
    drop(comparer);
    other.submit(&ledger, lane.try_enter(8).unwrap(), answers([1.0, 0.0]));
    drop(other);
    thread.unwrap().join().unwrap();
    assert_eq!(lane.counts().compared, 2);
}

proptest! {
    #[test]
    fn every_sampled_call_is_in_flight_or_has_one_outcome(
        steps in prop::collection::vec((0_usize..6, 0_usize..60), 0..60),
        max_calls in 0_usize..5, max_bytes in 0_usize..100,
    ) {
        let lane = lane("law", max_calls, max_bytes);
        let mut places: Vec<(Place, usize)> = Vec::new();
        for (step, size) in steps {
            match step {
                0 | 1 => {
                    let held: usize = places.iter().map(|(_, bytes)| bytes).sum();
                    let fits = places.len() < max_calls && held + size <= max_bytes;
                    let place = lane.try_enter(size);
                    prop_assert_eq!(place.is_some(), fits);
                    places.extend(place.map(|place| (place, size)));
                }
                2 => lane.skip(ShadowOutcome::CircuitOpen),
                3 => lane.reset(),
                4 => drop(places.pop()),
                _ => if let Some((place, _)) = places.pop() {
                    place.end(ShadowOutcome::ALL[size % 9]);
                }
            }
            let counts = lane.counts();
            let dropped: u64 = counts.dropped.values().sum();
            let ended = counts.compared + counts.failed + dropped;
            prop_assert_eq!(counts.sampled, counts.in_flight as u64 + ended);
            prop_assert_eq!(counts.in_flight, places.len());
            let held: usize = places.iter().map(|(_, bytes)| bytes).sum();
            prop_assert_eq!(counts.in_flight_bytes, held);
        }
    }
}
