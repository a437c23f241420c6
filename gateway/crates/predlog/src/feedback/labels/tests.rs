//! The same is known of predictions, in whichever order feedback came and wherever it is kept.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::convert::{Options, convert};
use crate::testing::{HOUR, START, begin, feedback, told};

const DAY: i64 = 24 * HOUR;

/// Writes a segment of feedback.
fn segment(log: &Path, number: u64, all: &[Feedback]) -> std::path::PathBuf {
    let mut writer = begin(log, number, &[], &[]);
    writer.append(&mut feedback(all)).unwrap();
    writer.close().unwrap()
}

fn ids(labels: &Labels) -> Vec<String> {
    let mut ids: Vec<_> = labels.iter().map(|told| told.id.clone()).collect();
    ids.sort();
    ids
}

#[test]
fn files_and_segments_are_read_as_one_and_each_feedback_once() {
    let log = TempDir::new().unwrap();
    fs::write(log.path().join("instance"), "00000000 4\n").unwrap();
    let first = segment(log.path(), 1, &[told(1), told(2)]);
    convert(&first, log.path(), &Options::default()).unwrap();
    fs::remove_file(first).unwrap();
    // Converted, and not removed yet.
    let second = segment(log.path(), 2, &[told(3), told(1)]);
    convert(&second, log.path(), &Options::default()).unwrap();
    segment(log.path(), 3, &[told(4)]);
    let mut open = begin(log.path(), 4, &[], &[]);
    open.append(&mut feedback(&[told(5)])).unwrap();
    let labels = Labels::read(log.path(), &Range::default()).unwrap();
    assert_eq!(ids(&labels), ["1", "2", "3", "4", "5"]);
    assert_eq!(labels.of(&[3; 16], "", 7).unwrap().latest, &told(3));
    assert_eq!(labels.of(&[9; 16], "3", 0), None);
}

#[test]
fn a_damaged_file_costs_no_other_and_is_named() {
    let log = TempDir::new().unwrap();
    let first = segment(log.path(), 1, &[told(1)]);
    convert(&first, log.path(), &Options::default()).unwrap();
    fs::remove_file(first).unwrap();
    segment(log.path(), 2, &[told(2)]);
    let (_, file) = files::files(log.path()).unwrap().remove(0);
    fs::write(file.with_file_name("00000000-00000009-feedback.parquet"), "PAR1 or not").unwrap();
    let labels = Labels::read(log.path(), &Range::default()).unwrap();
    assert_eq!(ids(&labels), ["1", "2"]);
    let [damage] = labels.damage() else { panic!("{:?}", labels.damage()) };
    assert!(damage.contains("00000009-feedback.parquet"), "{damage}");
}

#[test]
fn ids_are_told_apart_by_what_they_are_about() {
    let about = |prediction: u8, item| Feedback {
        prediction: vec![prediction; 16].into(),
        item,
        id: "1".into(),
        ..told(1)
    };
    let all = vec![about(1, None), about(2, None), about(1, Some(0)), about(1, Some(0))];
    assert_eq!(Labels::of_all(all).len(), 3);
}

#[test]
fn feedback_reads_from_files_as_it_was_written() {
    let log = TempDir::new().unwrap();
    let all = [
        Feedback { item: Some(3), label: Some(Label::Number(-0.5)), reward: None, ..told(1) },
        Feedback { prediction: vec![].into(), caller_id: "order-7".into(), ..told(2) },
        Feedback { label: Some(Label::Text(String::new())), note: "ü".into(), ..told(3) },
        Feedback { label: None, source: String::new(), event_us: -1, ..told(4) },
    ];
    let segment = segment(log.path(), 1, &all);
    convert(&segment, log.path(), &Options::default()).unwrap();
    fs::remove_file(segment).unwrap();
    let labels = Labels::read(log.path(), &Range::default()).unwrap();
    let mut read: Vec<_> = labels.iter().cloned().collect();
    read.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(read, all);
}

#[test]
fn a_range_takes_what_was_received_in_it_and_reads_no_other_days() {
    let log = TempDir::new().unwrap();
    let on = |id, day| Feedback { received_us: START + day * DAY, ..told(id) };
    let first = segment(log.path(), 1, &[on(1, 0), on(2, 1), on(3, 2)]);
    convert(&first, log.path(), &Options::default()).unwrap();
    fs::remove_file(first).unwrap();
    segment(log.path(), 2, &[on(4, 1), on(5, 5)]);
    let damaged = log.path().join("feedback/date=2026-01-03/00000000-00000001-feedback.parquet");
    fs::write(damaged, "no Parquet").unwrap();
    let read = |from: i64, until: i64, most| {
        let (from_us, until_us) = (Some(START + from * DAY), Some(START + until * DAY));
        Labels::read(log.path(), &Range { from_us, until_us, most })
    };
    let labels = read(1, 2, 9).unwrap();
    assert_eq!((ids(&labels), labels.damage()), (vec!["2".to_owned(), "4".to_owned()], &[][..]));
    assert!(matches!(read(1, 2, 1), Err(ReadError::TooMany(1))));
    assert_eq!(read(2, 3, 9).unwrap().damage().len(), 1, "the damaged day is asked for");
}

#[test]
fn what_was_received_first_counts_of_what_has_the_same_id_and_source() {
    let later = Feedback { received_us: START + 1, reward: Some(-1.0), ..told(1) };
    let other = Feedback { source: "other".into(), ..later.clone() };
    let labels = Labels::of_all(vec![later.clone(), told(1), later, other.clone()]);
    assert_eq!((labels.len(), labels.told_again()), (2, 2));
    let joined = labels.of(&[1; 16], "", 0).unwrap();
    assert_eq!((joined.latest, joined.count), (&other, 2));
}

#[test]
fn the_latest_event_says_the_label_and_the_latest_with_a_reward_says_the_reward() {
    let at = |id: &str, seconds: i64| Feedback {
        id: id.into(),
        event_us: START + seconds,
        label: None,
        reward: None,
        ..told(1)
    };
    let (label, reward) = (|text: &str| Some(Label::Text(text.into())), Some(2.5));
    let mut all = vec![
        Feedback { label: label("first"), ..at("a", 1) },
        Feedback { label: label("last"), ..at("b", 3) },
        Feedback { label: label("of the caller"), reward, ..at("c", 2) },
        Feedback { label: label("of another item"), item: Some(1), ..at("d", 9) },
    ];
    (all[2].prediction, all[2].caller_id) = (vec![].into(), "order-7".into());
    let labels = Labels::of_all(all);
    let of = |caller, item| {
        let joined = labels.of(&[1; 16], caller, item).unwrap();
        let Some(Label::Text(text)) = joined.label else { panic!("{joined:?}") };
        (text.clone(), joined.reward, joined.count)
    };
    assert_eq!(of("order-7", 0), ("last".to_owned(), reward, 3));
    assert_eq!(of("", 0), ("last".to_owned(), None, 2));
    assert_eq!(of("order-8", 1), ("of another item".to_owned(), None, 3));
    assert_eq!(labels.of(&[2; 16], "order-7", 0).unwrap().reward, reward);
}

prop_compose! {
    fn any_feedback()(
        by_caller: bool, target in 0..3_u8, item in proptest::option::of(0..2_u32), id in 0..4_u8,
        label in proptest::option::of(0..3_u8), reward in proptest::option::of(0..3_u8),
        event in 0..3_i64, received in 0..3_i64,
    ) -> Feedback {
        Feedback {
            prediction: if by_caller { vec![].into() } else { vec![target; 16].into() },
            caller_id: if by_caller { target.to_string() } else { String::new() },
            item,
            id: id.to_string(),
            label: label.map(|label| Label::Number(f64::from(label))),
            reward: reward.map(f64::from),
            event_us: event,
            received_us: received,
            ..Feedback::default()
        }
    }
}

/// What is known of an item, by the rules alone.
fn by_hand(all: &[Feedback], (prediction, caller, item): (u8, &str, u32)) -> Vec<Feedback> {
    let mut counted: Vec<&Feedback> = vec![];
    for told in all {
        if all.iter().all(|other| other.key() != told.key() || !other.cmp_received(told).is_lt())
            && !counted.contains(&told)
        {
            counted.push(told);
        }
    }
    let is_about = |told: &Feedback| match told.prediction.first() {
        Some(first) => *first == prediction,
        None => told.caller_id == caller,
    };
    let mut about: Vec<Feedback> = counted
        .into_iter()
        .filter(|told| is_about(told) && told.item.is_none_or(|own| own == item))
        .cloned()
        .collect();
    about.sort_by(|a, b| b.cmp_events(a));
    about
}

proptest! {
    #[test]
    fn any_order_and_repetition_of_feedback_gives_the_same(
        all in proptest::collection::vec(any_feedback(), 0..12),
        again in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        order in any::<u64>(),
    ) {
        let mut mixed = all.clone();
        if !all.is_empty() {
            mixed.extend(again.iter().map(|index| index.get(&all).clone()));
        }
        fastrand::Rng::with_seed(order).shuffle(&mut mixed);
        let (one, other) = (Labels::of_all(all.clone()), Labels::of_all(mixed));
        for prediction in 0..4_u8 {
            for caller in ["", "0", "1", "2"] {
                for item in 0..3 {
                    let expected = by_hand(&all, (prediction, caller, item));
                    let joined = one.of(&[prediction; 16], caller, item);
                    prop_assert_eq!(joined, other.of(&[prediction; 16], caller, item));
                    prop_assert_eq!(joined.map(|joined| joined.latest), expected.first());
                    prop_assert_eq!(joined.map_or(0, |joined| joined.count), expected.len());
                    prop_assert_eq!(
                        joined.and_then(|joined| joined.label),
                        expected.iter().find_map(|told| told.label.as_ref())
                    );
                    prop_assert_eq!(
                        joined.and_then(|joined| joined.reward),
                        expected.iter().find_map(|told| told.reward)
                    );
                }
            }
        }
    }
}
