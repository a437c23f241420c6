//! Rows and feedback join to the same, whatever the order and wherever they are kept.

use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::convert::{Options, convert};
use crate::feedback::Range;
use crate::testing::{START, begin, feedback, floats, row, schema, spec, told};
use crate::{Label, Row};

fn numbers() -> crate::Schema {
    schema(vec![spec("x", "FP32", &[1])], vec![])
}

fn call(id: u8) -> Row {
    let x = floats("x", &[2, 1], &[f32::from(id), 0.5]);
    let caller_id = format!("order-{id}");
    Row { inputs: vec![x], caller_id, ..row(id, 2, &numbers()) }
}

/// A segment with these, converted or not.
fn segment(log: &Path, number: u64, rows: &[Row], all: &[Feedback], is_converted: bool) {
    let mut writer = begin(log, number, &[&numbers()], rows);
    writer.append(&mut feedback(all)).unwrap();
    let segment = writer.close().unwrap();
    if is_converted {
        convert(&segment, log, &Options::default()).unwrap();
        fs::remove_file(segment).unwrap();
    }
}

fn read(log: &Path) -> Labels {
    Labels::read(log, &Range::default()).unwrap()
}

fn joined(log: &Path, columns: &[&str], only_known: bool) -> (Summary, Vec<Value>) {
    let columns = columns.iter().map(|name| (*name).to_owned()).collect();
    let query = Query { columns, ..Query::default() };
    let mut out = vec![];
    let summary =
        export(log, query, (&read(log), only_known), Format::JsonLines, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let mut lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(ToString::to_string);
    (summary, lines)
}

#[test]
fn each_item_is_a_line_with_what_is_known_of_it() {
    let log = TempDir::new().unwrap();
    let by_caller = Feedback {
        prediction: vec![].into(),
        caller_id: "order-2".into(),
        item: Some(1),
        label: Some(Label::Number(3.5)),
        reward: None,
        ..told(9)
    };
    segment(log.path(), 1, &[call(1), call(2), call(3)], &[told(1)], true);
    segment(log.path(), 2, &[], &[by_caller, told(7)], false);
    let (summary, lines) = joined(log.path(), &["in_x"], false);
    assert_eq!(summary, Summary { lines: 6, with_feedback: 3 });
    let of = |x: f64| lines.iter().filter(|line| line["in_x"] == x).collect::<Vec<_>>();
    let known = json!({
        "in_x": 1.0, "feedback_id": "1", "label_text": "1", "reward": 1.0, "feedback": 1,
        "event_time": "2026-01-01T00:00:00.000001Z", "received": "2026-01-01T00:00:00Z",
        "source": "test",
    });
    assert_eq!(of(1.0), [&known]);
    assert_eq!(of(2.0), [&json!({"in_x": 2.0, "feedback": 0})]);
    assert_eq!(of(0.5).iter().filter(|line| line["label_number"] == 3.5).count(), 1);
    let (summary, lines) = joined(log.path(), &[], true);
    assert_eq!(summary, Summary { lines: 3, with_feedback: 3 });
    assert!(lines.iter().all(|line| line["feedback"] == 1 && line["model"] == "m"), "{lines:?}");
}

#[test]
fn what_belongs_to_no_line_is_told_whatever_is_exported() {
    let log = TempDir::new().unwrap();
    let item = |item, id: &str| Feedback { item: Some(item), id: id.into(), ..told(1) };
    let all = [told(1), told(5), item(1, "in"), item(2, "beyond")];
    segment(log.path(), 1, &[call(1)], &all, false);
    let labels = read(log.path());
    let rest = unmatched(log.path(), &labels).unwrap().feedback;
    let mut ids: Vec<_> = rest.iter().map(|told| told.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["5", "beyond"]);
    let mut out = vec![];
    assert_eq!(export_feedback(rest, Format::Csv, &mut out).unwrap(), 2);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with("prediction_id,caller_id,item,feedback_id,label_text,"), "{text}");
    assert!(text.contains("05050505-0505-0505-0505-050505050505"), "{text}");
}

#[test]
fn what_cannot_be_read_takes_away_nothing_of_what_belongs_to_no_line() {
    let log = TempDir::new().unwrap();
    segment(log.path(), 1, &[call(1)], &[], true);
    segment(log.path(), 2, &[call(2)], &[told(1), told(2), told(5)], true);
    let damaged = crate::read::files(log.path()).unwrap()[0].1.clone();
    fs::write(&damaged, "no Parquet").unwrap();
    let labels = read(log.path());
    let rest = unmatched(log.path(), &labels).unwrap();
    let ids: Vec<_> = rest.feedback.iter().map(|told| told.id.as_str()).collect();
    assert_eq!(ids, ["1", "5"], "those of the other file are matched");
    let [problem] = &rest.problems[..] else { panic!("{:?}", rest.problems) };
    assert!(problem.to_string().contains(damaged.to_str().unwrap()), "{problem}");
}

#[test]
fn parquet_and_csv_have_the_columns_of_rows_and_feedback() {
    let log = TempDir::new().unwrap();
    segment(log.path(), 1, &[call(1)], &[told(1)], true);
    let query = || Query { columns: vec!["in_x".into()], ..Query::default() };
    let labels = read(log.path());
    let mut out = vec![];
    export(log.path(), query(), (&labels, false), Format::Csv, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let names = "in_x,feedback_id,label_text,label_number,reward,event_time,received,source,note,\
                 feedback";
    assert_eq!(text.lines().next(), Some(names));
    let mut out = vec![];
    let summary = export(log.path(), query(), (&labels, false), Format::Parquet, &mut out).unwrap();
    assert_eq!((summary.lines, &out[..4]), (2, b"PAR1".as_slice()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_order_and_repetition_of_rows_and_feedback_joins_to_the_same(
        order in Just((0..10_usize).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec(0..6_u8, 0..4),
        cut in 0..10_usize, is_converted: [bool; 2],
    ) {
        let rows: Vec<Row> = (0..4).map(call).collect();
        let mut all: Vec<Feedback> = (0..6).map(told).collect();
        all[4] = Feedback { prediction: vec![1; 16].into(), event_us: START + 99, ..told(4) };
        all[5] = Feedback { prediction: vec![].into(), caller_id: "order-2".into(), ..told(5) };
        let straight = TempDir::new().unwrap();
        segment(straight.path(), 1, &rows, &all, false);
        let mixed = TempDir::new().unwrap();
        fs::write(mixed.path().join("instance"), "00000000 3\n").unwrap();
        for (number, part) in [(1, &order[..cut]), (2, &order[cut..])] {
            let rows: Vec<Row> =
                part.iter().filter(|at| **at < 4).map(|at| rows[*at].clone()).collect();
            let mut some: Vec<Feedback> =
                part.iter().filter(|at| **at >= 4).map(|at| all[*at - 4].clone()).collect();
            some.extend(again.iter().map(|at| all[usize::from(*at)].clone()));
            let is_converted = is_converted[usize::from(number == 2)];
            segment(mixed.path(), number, &rows, &some, is_converted);
        }
        prop_assert_eq!(joined(mixed.path(), &[], false), joined(straight.path(), &[], false));
        let (a, b) = (read(mixed.path()), read(straight.path()));
        prop_assert_eq!(
            unmatched(mixed.path(), &a).unwrap().feedback,
            unmatched(straight.path(), &b).unwrap().feedback
        );
    }
}
