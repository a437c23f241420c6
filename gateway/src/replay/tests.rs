//! Recorded calls through an identity model: answers are what they were, or what was written down
//! as recorded was another one.

use std::fs;

use engine::IdentityEngine;
use predlog::row::Slice;
use predlog::segment::{Kind as Record, Writer, frame};
use predlog::{Feedback, Label, Row, Schema, State, Status, TensorSpec, TensorValue};
use prost::Message;
use tempfile::TempDir;

use super::*;
use crate::config::Config;

const MANIFEST: &str = "platform = 'identity'\nmax_batch_size = 8\n\
    [[input]]\nname = 'x'\ndtype = 'FP32'\nshape = [-1, 2]\n\
    [[output]]\nname = 'y'\ndtype = 'FP32'\nshape = [-1, 2]\nlabels = ['no', 'yes']\n";

/// A repository with a model `m`, and a log beside it.
struct Rig {
    folder: TempDir,
}

fn tensor(name: &str, values: &[f32]) -> TensorValue {
    TensorValue {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![values.len() as u64 / 2, 2],
        data: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        state: State::Whole as i32,
    }
}

fn schema() -> Schema {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![2],
        is_batched: true,
        features: vec![],
    };
    Schema { model: "m".into(), inputs: vec![spec("x")], outputs: vec![spec("y")] }
}

/// A call with these inputs that was answered with them.
fn row(id: u8, values: &[f32]) -> Row {
    Row {
        prediction: vec![id; 16].into(),
        arrived_us: 1_767_225_600_000_000 + i64::from(id) * 1_000_000,
        model: "m".into(),
        version: "1".into(),
        device: "cpu".into(),
        status: Status::Answered as i32,
        inclusion: 1.0,
        items: u32::try_from(values.len() / 2).unwrap(),
        schema: schema().id().0,
        inputs: vec![tensor("x", values)],
        outputs: vec![tensor("y", values)],
        ..Row::default()
    }
}

fn id(number: u8) -> String {
    crate::types::PredictionId::from_bytes([number; 16]).to_string()
}

impl Rig {
    fn new(more: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let model = folder.path().join("models/m");
        fs::create_dir_all(model.join("1")).unwrap();
        fs::write(model.join("model.toml"), format!("{MANIFEST}{more}")).unwrap();
        Self { folder }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn write(&self, schemas: &[Schema], rows: &[Row], feedback: &[Feedback]) {
        let segments = self.log().join("segments");
        fs::create_dir_all(&segments).unwrap();
        let mut records = Vec::new();
        for schema in schemas {
            assert!(frame(Record::Schema, &mut records, |out| out.extend(schema.encode_to_vec())));
        }
        for row in rows {
            assert!(frame(Record::Row, &mut records, |out| out.extend(row.encode_to_vec())));
        }
        for feedback in feedback {
            assert!(
                frame(Record::Feedback, &mut records, |out| out.extend(feedback.encode_to_vec()))
            );
        }
        let mut writer = Writer::create(&segments, 1, 0, 0).unwrap();
        writer.append(&mut records).unwrap();
        writer.close().unwrap();
    }

    fn replay(&self) -> Replay {
        Replay {
            log: self.log(),
            query: Query { model: Some("m".into()), ..Query::default() },
            route: None,
            limit: None,
            speed: Speed::Max,
            max_in_flight: 4,
            tolerance: None,
            label_output: None,
            most_feedback: 1000,
            examples: 20,
        }
    }

    async fn run(&self, replay: Replay) -> Report {
        let mut config = Config::for_repository(&self.folder.path().join("models"));
        config.engine.cpu_threads = 1;
        let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(IdentityEngine)];
        let model = "m".parse().unwrap();
        let target = Target::Here(Local::load(&config, engines, &model, None).await.unwrap());
        let report = replay.run(&target).await.unwrap();
        target.close().await;
        report
    }
}

fn causes(report: &Report) -> Vec<(&str, &str, u64)> {
    let mut causes: Vec<_> = (report.not_replayed.causes.iter())
        .map(|of| (of.cause, of.field.as_deref().unwrap_or(""), of.calls))
        .collect();
    causes.sort_unstable();
    causes
}

#[tokio::test]
async fn the_same_version_answers_bit_for_bit_and_what_differs_is_named() {
    let rig = Rig::new("[engine]\ndeterministic = true\n");
    let mut rows: Vec<Row> =
        (1..=40).map(|number| row(number, &[f32::from(number), 1.0])).collect();
    // As if another build had answered: a little off, far off.
    rows[2].outputs = vec![tensor("y", &[3.000_001, 1.0])];
    rows[4].outputs = vec![tensor("y", &[5.0, 9.0])];
    rig.write(&[schema()], &rows, &[]);
    let report = rig.run(rig.replay()).await;
    let same = &report.sameness;
    assert_eq!((same.calls, same.identical, same.within_tolerance), (40, 38, 1));
    assert_eq!((same.beyond_tolerance, same.failed), (1, 0));
    assert_eq!((same.had_to_be_identical, same.not_identical), (40, 2));
    assert!((same.largest_difference - 8.0).abs() < 1e-9, "{}", same.largest_difference);
    let named: Vec<_> = same.first.iter().map(|first| first.prediction.clone()).collect();
    assert_eq!(named, [id(3), id(5)]);
    assert_eq!(same.first[1].summary, "yes → no, largest difference 8.000e0");
    assert!(!report.is_same() && report.metrics.is_none());
    assert_eq!(report.comparison.calls, 40);
    assert_eq!(report.log.calls, 40);
}

#[tokio::test]
async fn a_version_that_need_not_be_the_same_may_be_off_within_its_tolerance() {
    let rig = Rig::new("");
    let off = Row { outputs: vec![tensor("y", &[3.000_001, 1.0])], ..row(1, &[3.0, 1.0]) };
    rig.write(&[schema()], &[off, row(2, &[1.0, 2.0, 3.0, 4.0])], &[]);
    let report = rig.run(rig.replay()).await;
    assert_eq!((report.sameness.had_to_be_identical, report.sameness.within_tolerance), (0, 1));
    assert!(report.is_same() && report.sameness.first.is_empty());
    let strict = Replay { tolerance: Some(0.0), ..rig.replay() };
    let report = rig.run(strict).await;
    assert_eq!(report.sameness.beyond_tolerance, 1);
    assert!(!report.is_same());
}

#[tokio::test]
async fn what_cannot_be_asked_again_is_counted_by_cause_and_field() {
    let rig = Rig::new("");
    let mut other = schema();
    other.inputs[0].datatype = "INT64".into();
    let with = |state: State| TensorValue {
        data: vec![].into(),
        state: state as i32,
        ..tensor("x", &[1.0, 2.0])
    };
    let of = |number: u8| row(number, &[1.0, 2.0]);
    let ended = |number, status: Status| Row { status: status as i32, ..of(number) };
    let rows = [
        of(1),
        Row { shadow: "next".into(), ..of(2) },
        Row { amends: true, ..of(3) },
        Row { caller_id: "replay-0199aa00-0001-7abc-8def-0123456789ab".into(), ..of(4) },
        Row { arm: "static".into(), version: "static".into(), ..of(5) },
        ended(6, Status::Refused),
        ended(7, Status::Failed),
        ended(8, Status::Cancelled),
        ended(9, Status::Replayed),
        Row { inputs: vec![with(State::Redacted)], ..of(10) },
        Row { inputs: vec![with(State::Redacted)], ..of(11) },
        Row { inputs: vec![with(State::LeftOut)], ..of(12) },
        Row {
            schema: other.id().0,
            inputs: vec![TensorValue {
                datatype: "INT64".into(),
                shape: vec![1, 2],
                data: vec![0; 16].into(),
                ..tensor("x", &[])
            }],
            ..of(13)
        },
        Row { schema: 5, ..of(14) },
        Row { inputs: vec![], ..of(15) },
        Row { outputs: vec![TensorValue { name: "y".into(), ..with(State::Redacted) }], ..of(16) },
        // It came twice.
        of(1),
    ];
    rig.write(&[schema(), other], &rows, &[]);
    let report = rig.run(rig.replay()).await;
    let expected = [
        ("amendment", "", 1),
        ("cancelled", "", 1),
        ("declared", "", 1),
        ("failed", "", 1),
        ("input_left_out", "in.x", 1),
        ("input_missing", "", 1),
        ("input_redacted", "in.x", 2),
        ("input_unfit", "in.x", 1),
        ("no_output", "out.y", 1),
        ("refused", "", 1),
        ("repeat", "", 1),
        ("replay", "", 1),
        ("schema_differs", "in.x", 1),
        ("shadow", "", 1),
    ];
    assert_eq!(causes(&report), expected);
    assert_eq!((report.sameness.identical, report.not_replayed.calls), (1, 15));
    assert_eq!(report.log.repeats, 1);
    let detail = report.not_replayed.causes.iter().find(|of| of.cause == "schema_differs").unwrap();
    assert_eq!(detail.detail.as_deref(), Some("is INT64, the version takes FP32"));
}

#[tokio::test]
async fn answers_are_held_against_labels_by_weight_where_calls_were_sampled() {
    let rig = Rig::new("");
    let recorded = |number: u8, values: &[f32], answer: &[f32], inclusion: f64| Row {
        outputs: vec![tensor("y", answer)],
        inclusion,
        ..row(number, values)
    };
    let rows = [
        // Two items: 'yes' and 'no', as it was.
        recorded(1, &[0.0, 1.0, 1.0, 0.0], &[0.0, 1.0, 1.0, 0.0], 1.0),
        // It was 'no' and is 'yes'; stands for four calls.
        recorded(2, &[0.0, 1.0], &[1.0, 0.0], 0.25),
    ];
    let told = |number: u8, item, label: &str| Feedback {
        prediction: vec![number; 16].into(),
        item: Some(item),
        id: format!("{number}-{item}"),
        label: Some(Label::Text(label.into())),
        reward: Some(f64::from(number)),
        ..Feedback::default()
    };
    let feedback = [told(1, 0, "yes"), told(1, 1, "yes"), told(2, 0, "yes")];
    rig.write(&[schema()], &rows, &feedback);
    let report = rig.run(rig.replay()).await;
    let metrics = report.metrics.unwrap();
    let accuracy = metrics.accuracy.unwrap();
    let counts = |of: Option<crate::shadow::Proportion>| of.map(|of| (of.count, of.of));
    assert_eq!(counts(accuracy.recorded), Some((1, 3)));
    assert_eq!(counts(accuracy.replayed), Some((2, 3)));
    // 1 of 1 + 1 + 4, and 1 + 4 of them.
    let is = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-9;
    assert!(is(accuracy.recorded_weighted, 1.0 / 6.0) && is(accuracy.replayed_weighted, 5.0 / 6.0));
    assert_eq!((metrics.output.as_str(), metrics.labelled_items), ("y", 3));
    let [yes] = &metrics.confusion[..] else { panic!("{:?}", metrics.confusion) };
    let count = |answer: &str, items| Count { answer: answer.into(), items };
    assert_eq!((yes.label.as_str(), yes.items), ("yes", 3));
    assert_eq!(yes.recorded, [count("no", 2), count("yes", 1)]);
    assert_eq!(yes.replayed, [count("yes", 2), count("no", 1)]);
    let reward = metrics.reward.unwrap();
    assert!(is(reward.mean, 10.0 / 6.0) && is(reward.mean_where_same, 1.0));
    assert_eq!((report.sampling.sampled_calls, report.sampling.metrics_are_weighted), (1, true));
    // A call whose answer was not the same beyond tolerance is one that differs.
    assert_eq!(report.sameness.beyond_tolerance, 1);
    let none = Replay { most_feedback: 0, ..rig.replay() };
    assert!(rig.run(none).await.metrics.is_none());
}

#[tokio::test]
async fn calls_of_a_route_alone_and_only_so_many_are_replayed() {
    let rig = Rig::new("");
    let of = |number: u8, route: &str| Row {
        route: route.into(),
        slices: vec![Slice { name: "region".into(), value: "eu".into() }],
        ..row(number, &[1.0, 2.0])
    };
    let rows: Vec<Row> = (1..=6).map(|n| of(n, if n % 2 == 0 { "shop" } else { "" })).collect();
    rig.write(&[schema()], &rows, &[]);
    let of_route = Replay { route: Some("shop".into()), ..rig.replay() };
    let report = rig.run(of_route).await;
    assert_eq!((report.sameness.calls, report.not_replayed.calls), (3, 0));
    let few = Replay { limit: Some(2), ..rig.replay() };
    assert_eq!(rig.run(few).await.sameness.calls, 2);
}

#[tokio::test]
async fn a_version_that_is_not_there_is_named_and_labels_name_versions() {
    let rig = Rig::new("[labels]\nstable = 1\n");
    let config = Config::for_repository(&rig.folder.path().join("models"));
    let load = async |version: &'static str| {
        let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(IdentityEngine)];
        Local::load(&config, engines, &"m".parse().unwrap(), Some(version)).await
    };
    assert_eq!(load("stable").await.unwrap().asked().version.as_deref(), Some("1"));
    for (version, expected) in [("9", "no version 9"), ("canary", "no label")] {
        let error = load(version).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_keep_the_distance_that_they_had() {
    let mut pace = Pace { speed: Speed::Times(2.0), first: None, lag: Duration::ZERO };
    let begun = Instant::now();
    assert_eq!(pace.due(5_000_000), begun);
    assert_eq!(pace.due(8_000_000), begun + Duration::from_millis(1500));
    // What came earlier is not waited for.
    assert_eq!(pace.due(1_000_000), begun);
    tokio::time::advance(Duration::from_secs(3)).await;
    pace.note(begun + Duration::from_secs(1));
    assert_eq!(pace.lag, Duration::from_secs(2));
}
