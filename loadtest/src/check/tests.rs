//! Answers against labels and expectations.

use super::*;
use crate::answer;
use crate::dataset::Column;
use crate::target::TensorInfo;

fn data() -> Arc<Dataset> {
    let column = Column {
        name: "x".to_owned(),
        datatype: "FP32".to_owned(),
        shapes: vec![vec![1]],
        rows: vec![bytes::Bytes::from_static(&[0; 4]); 3],
    };
    Arc::new(Dataset { inputs: vec![column], labels: Some(vec![1, 0, 1]), batched: true })
}

fn metadata() -> Metadata {
    let info = |name: &str, shape: &[i64]| TensorInfo {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: shape.to_vec(),
    };
    let (inputs, outputs) = (vec![info("x", &[-1, 1])], vec![info("y", &[-1, 2])]);
    Metadata { name: "m".to_owned(), versions: vec![], inputs, outputs }
}

fn expected() -> Arc<Expected> {
    let mut expected = Expected::default();
    for (version, sign) in [("1", 1.0), ("2", -1.0)] {
        let rows = vec![vec![sign, 100.0], vec![2.0 * sign, 100.0], vec![3.0 * sign, 100.0]];
        let outputs = BTreeMap::from([("y".to_owned(), rows)]);
        expected.add(ExpectedFile { version: version.to_owned(), outputs }, 3).unwrap();
    }
    Arc::new(expected)
}

fn answer(version: &str, values: &str) -> Answer {
    let body = format!(
        r#"{{"model_version":"{version}","outputs":[
            {{"name":"y","datatype":"FP32","shape":[1,2],"data":{values}}}]}}"#
    );
    answer::from_http(&body.into(), None).unwrap()
}

fn judge(rows: usize, version: &str) -> Judge {
    Judge::new(&metadata(), &data(), rows, version)
}

#[test]
fn the_largest_element_is_held_against_the_label() {
    let verdict = judge(2, "").judge(answer("1", "[0.0,9.0,0.5,0.75]"), 0, None);
    assert_eq!((verdict.correct, verdict.labelled), (1, 2));
    assert!(!verdict.checked && verdict.mismatch.is_none());
}

#[test]
fn a_model_without_class_outputs_has_no_accuracy() {
    let mut metadata = metadata();
    metadata.outputs[0].shape = vec![-1, 1];
    let judge = Judge::new(&metadata, &data(), 1, "");
    assert_eq!(judge.judge(answer("1", "[1.0]"), 0, None).labelled, 0);
}

#[test]
fn an_answer_is_held_against_the_version_it_names() {
    let judge = judge(1, "").expecting(expected());
    assert_eq!(judge.judge(answer("1", "[2.0,100.0]"), 1, None).mismatch, None);
    assert_eq!(judge.judge(answer("2", "[-2.0,100.0]"), 1, None).mismatch, None);
    let verdict = judge.judge(answer("2", "[2.0,100.0]"), 1, None);
    assert!(verdict.checked);
    assert_eq!(
        verdict.mismatch.as_deref(),
        Some("version 2, row 1, output 'y'[0]: got 2, alone -2")
    );
}

#[test]
fn the_tolerance_is_relative_to_the_largest_element() {
    let judge = judge(1, "").expecting(expected());
    assert_eq!(judge.judge(answer("1", "[1.0009,100.0]"), 0, None).mismatch, None);
    assert!(judge.judge(answer("1", "[1.0011,100.0]"), 0, None).mismatch.is_some());
}

#[test]
fn rows_of_a_batch_are_compared_each_with_its_own_around_the_end() {
    let judge = judge(2, "").expecting(expected());
    assert_eq!(judge.judge(answer("1", "[3.0,100.0,1.0,100.0]"), 2, None).mismatch, None);
    let swapped = judge.judge(answer("1", "[1.0,100.0,3.0,100.0]"), 2, None).mismatch;
    assert!(swapped.unwrap().starts_with("version 1, row 2,"));
}

#[test]
fn strange_answers_are_mismatches() {
    let judge = judge(1, "").expecting(expected());
    for (version, values) in [("3", "[1.0,100.0]"), ("1", "[1.0]"), ("1", "[]"), ("1", "[\"a\"]")] {
        let mismatch = judge.judge(answer(version, values), 0, None).mismatch;
        assert!(mismatch.is_some(), "{version} {values}");
    }
}

#[test]
fn another_version_than_the_one_asked_is_a_mismatch() {
    let judge = judge(1, "2");
    assert_eq!(judge.judge(answer("2", "[0.0,1.0]"), 0, None).mismatch, None);
    assert!(judge.judge(answer("1", "[0.0,1.0]"), 0, None).mismatch.is_some());
}

#[test]
fn not_a_number_equals_only_itself() {
    assert_eq!(difference(&[f64::NAN, 1.0], &[f64::NAN, 1.0]), None);
    assert_eq!(difference(&[f64::NAN], &[1.0]), Some(0));
    assert_eq!(difference(&[1.0], &[f64::NAN]), Some(0));
    assert_eq!(difference(&[f64::INFINITY], &[f64::INFINITY]), None);
}

#[test]
fn a_file_must_cover_every_row() {
    let outputs = BTreeMap::from([("y".to_owned(), vec![vec![1.0]])]);
    let file = ExpectedFile { version: "1".to_owned(), outputs };
    let error = Expected::default().add(file, 3).unwrap_err();
    assert_eq!(error.to_string(), "output 'y' has 1 rows, the data has 3");
}
