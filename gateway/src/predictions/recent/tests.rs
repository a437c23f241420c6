//! Feedback meets its prediction, whichever comes first, and nothing grows without end.

use engine::{DataType, TensorSpec};
use proptest::prelude::*;

use super::*;
use crate::types::OutputSpec;

fn signature(datatype: DataType, shape: &[i64], labels: &[&str]) -> Arc<Signature> {
    let spec = TensorSpec { name: "y".into(), datatype, shape: shape.to_vec() };
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    let output = OutputSpec { spec, labels, tolerance: 0.0, finite: false };
    Arc::new(Signature { inputs: vec![], outputs: vec![output], max_batch_size: 8, splits: false })
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(DataType::Fp32, shape.to_vec(), data.into()).unwrap()
}

fn table(entries: usize) -> Recent {
    Recent::new(&Memory { horizon: Duration::from_secs(60), entries })
}

fn word(item: Option<u32>, label: Label) -> Word {
    Word { item, label: Some(label), reward: None }
}

/// Remembers a prediction of a model of this name, with these classes of two items.
fn remember(recent: &Recent, model: &str, prediction: PredictionId, caller_id: &str) {
    let signature = signature(DataType::Fp32, &[-1, 3], &["cat", "dog", "cow"]);
    let outputs = [floats(&[2, 3], &[0.0, 2.0, 1.0, 0.5, 0.1, f32::NAN])];
    let of = (model, "1", "champion");
    let seen = Seen { of, signature: Some(&signature), outputs: &outputs, items: 2 };
    recent.remember(prediction, caller_id, &seen);
    recent.catch_up();
}

/// How many labels agree, do not, and are beside no class.
fn labels(model: &str) -> [u64; 3] {
    let text = crate::telemetry::metrics::recorder().render();
    ["yes", "no", "unknown"].map(|agrees| {
        let series = format!(
            "penstock_feedback_labels_total{{model=\"{model}\",version=\"1\",arm=\"champion\",agrees=\"{agrees}\"}} "
        );
        text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
    })
}

#[tokio::test(start_paused = true)]
async fn labels_are_held_against_the_classes_that_were_answered() {
    crate::telemetry::metrics::recorder();
    let (recent, id) = (table(1000), PredictionId::new());
    remember(&recent, "held", id, "order-7");
    let tell = |target, word| recent.tell(target, word, false);
    let own = Target::Prediction(*id.as_bytes());
    assert_eq!(tell(own, word(Some(0), Label::Text("dog".into()))), Met::Prediction);
    assert_eq!(tell(own, word(Some(1), Label::Number(0.0))), Met::Prediction);
    assert_eq!(labels("held"), [2, 0, 0]);
    // As a table has numbers that are read as texts.
    assert_eq!(tell(own, word(Some(0), Label::Text("1.0".into()))), Met::Prediction);
    assert_eq!(labels("held"), [3, 0, 0]);
    // Both items, one of which agrees.
    assert_eq!(tell(Target::Caller("order-7"), word(None, Label::Number(1.0))), Met::Prediction);
    assert_eq!(labels("held"), [4, 1, 0]);
    assert_eq!(tell(own, word(Some(2), Label::Number(1.0))), Met::NoItem);
    assert_eq!(tell(Target::Caller("order-8"), word(None, Label::Number(1.0))), Met::Nothing);
    assert_eq!(labels("held"), [4, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn loads_without_number_of_the_same_version_count_for_it() {
    crate::telemetry::metrics::recorder();
    let recent = table(10_000);
    for _ in 0..5000 {
        // Each has another signature: that of a load.
        remember(&recent, "reloaded", PredictionId::new(), "");
    }
    let id = PredictionId::new();
    remember(&recent, "reloaded", id, "");
    recent.tell(Target::Prediction(*id.as_bytes()), word(Some(0), Label::Number(1.0)), false);
    assert_eq!(labels("reloaded"), [1, 0, 0]);
}

#[test]
fn what_a_refused_call_claims_is_no_number_of_items() {
    crate::telemetry::metrics::recorder();
    let recent = table(1000);
    let tell = |row: &RowRef<'_>| {
        let id = PredictionId::new();
        recent.remember(id, "", &Seen::of(row, None, &[]).unwrap());
        recent.catch_up();
        recent.tell(Target::Prediction(*id.as_bytes()), word(None, Label::Number(1.0)), false)
    };
    let row = RowRef { model: "claims", version: "1", arm: "champion", ..RowRef::default() };
    let (refused, answered) = (Status::Refused as i32, Status::Answered as i32);
    assert_eq!(tell(&RowRef { status: refused, items: u32::MAX, ..row.clone() }), Met::Prediction);
    assert_eq!(labels("claims"), [0, 0, 1]);
    // Items of which no class is known are counted at once.
    assert_eq!(tell(&RowRef { status: answered, items: u32::MAX, ..row }), Met::Prediction);
    assert_eq!(labels("claims"), [0, 0, 1 + u64::from(u32::MAX)]);
}

#[tokio::test(start_paused = true)]
async fn feedback_that_comes_first_counts_when_its_prediction_comes() {
    crate::telemetry::metrics::recorder();
    let (recent, id) = (table(1000), PredictionId::new());
    let own = Target::Prediction(*id.as_bytes());
    assert_eq!(recent.tell(own, word(Some(0), Label::Number(1.0)), true), Met::Nothing);
    assert_eq!(recent.tell(own, word(Some(1), Label::Number(1.0)), true), Met::Nothing);
    assert_eq!(recent.tell(own, word(Some(1), Label::Number(1.0)), false), Met::Nothing);
    remember(&recent, "early", id, "");
    assert_eq!(labels("early"), [1, 1, 0]);
    remember(&recent, "early", id, "");
    assert_eq!(labels("early"), [1, 1, 0], "it counts once");
    assert_eq!(recent.early.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn feedback_that_was_counted_takes_no_place_from_what_still_waits() {
    crate::telemetry::metrics::recorder();
    let (recent, model) = (table(64), "places");
    let tell = |id: PredictionId| {
        let target = Target::Prediction(*id.as_bytes());
        assert_eq!(recent.tell(target, word(Some(0), Label::Number(1.0)), true), Met::Nothing);
    };
    let first = PredictionId::new();
    tell(first);
    // Many more than may wait, one after the other.
    for _ in 0..80 {
        let id = PredictionId::new();
        tell(id);
        remember(&recent, model, id, "");
    }
    remember(&recent, model, first, "");
    assert_eq!(labels(model), [81, 0, 0]);
    assert_eq!(recent.early.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn later_feedback_about_the_same_prediction_waits_its_own_time() {
    crate::telemetry::metrics::recorder();
    let (recent, model, id) = (table(64), "again", PredictionId::new());
    let tell = |id: PredictionId| {
        let target = Target::Prediction(*id.as_bytes());
        assert_eq!(recent.tell(target, word(Some(0), Label::Number(1.0)), true), Met::Nothing);
    };
    tell(id);
    remember(&recent, model, id, "");
    assert_eq!(labels(model), [1, 0, 0]);
    // It is forgotten, as there are many others.
    (0..64).for_each(|_| remember(&recent, "others", PredictionId::new(), ""));
    tokio::time::advance(Duration::from_secs(40)).await;
    tell(id);
    // What came first would be too old by now; the later word is not.
    tokio::time::advance(Duration::from_secs(30)).await;
    tell(PredictionId::new());
    remember(&recent, model, id, "");
    assert_eq!(labels(model), [2, 0, 0]);
    assert_eq!(recent.early.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_or_too_much_is_forgotten() {
    let recent = table(640);
    let first = PredictionId::new();
    remember(&recent, "bounds", first, "");
    tokio::time::advance(Duration::from_secs(61)).await;
    let own = Target::Prediction(*first.as_bytes());
    assert_eq!(recent.tell(own, word(None, Label::Number(1.0)), false), Met::Nothing);
    for index in 0..2000 {
        remember(&recent, "bounds", PredictionId::new(), &index.to_string());
        let target = Target::Prediction(*PredictionId::new().as_bytes());
        recent.tell(target, word(None, Label::Number(1.0)), true);
    }
    let table = lock(&recent.table);
    assert_eq!((table.known.len(), table.order.len()), (640, 640));
    assert_eq!(table.early_order.len(), 80);
    let words: usize = table.early.values().map(VecDeque::len).sum();
    assert_eq!((words, recent.early.load(Ordering::Relaxed)), (80, 80));
}

#[test]
fn predictions_that_nobody_asks_for_are_bounded_and_the_latest_are_kept() {
    let recent = table(4 * CHUNK);
    let ids: Vec<_> = (0..20 * CHUNK).map(|_| PredictionId::new()).collect();
    for id in &ids {
        let seen = Seen { of: ("idle", "1", ""), signature: None, outputs: &[], items: 1 };
        recent.remember(*id, "", &seen);
        assert!(recent.behind() <= 4 * CHUNK);
    }
    recent.catch_up();
    assert_eq!(recent.behind(), 0);
    let meets = |id: &PredictionId| {
        recent.tell(Target::Prediction(*id.as_bytes()), word(None, Label::Number(1.0)), false)
    };
    assert_eq!(meets(&ids[0]), Met::Nothing);
    assert!(ids[17 * CHUNK..].iter().all(|id| meets(id) == Met::Prediction));
}

#[test]
fn classes_come_from_labels_from_the_largest_float_or_from_a_whole_number() {
    let of = |signature: &Signature, tensor: &Tensor, items| {
        let classes =
            Classes::of(classes::output_of(signature), std::slice::from_ref(tensor), items);
        (0..items).map(|item| classes.at(item)).collect::<Vec<_>>()
    };
    let logits = signature(DataType::Fp32, &[-1, 2], &[]);
    assert_eq!(of(&logits, &floats(&[2, 2], &[0.0, 1.0, 3.0, 3.0]), 2), [Some(1), Some(0)]);
    assert_eq!(of(&logits, &floats(&[1, 2], &[f32::NAN, f32::NAN]), 1), [None]);
    let regression = signature(DataType::Fp32, &[-1, 1], &[]);
    assert_eq!(of(&regression, &floats(&[1, 1], &[5.0]), 1), [None]);
    let whole = signature(DataType::Int64, &[-1, 1], &[]);
    let data: Vec<u8> = [7_i64, -1].iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(DataType::Int64, vec![2, 1], data.into()).unwrap();
    assert_eq!(of(&whole, &tensor, 2), [Some(7), None]);
    let wide = floats(&[1, 5000], &[0.5; 5000]);
    assert_eq!(of(&signature(DataType::Fp32, &[-1, 5000], &[]), &wide, 1), [None]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of predictions and feedback, all that belongs together meets.
    #[test]
    fn any_order_of_predictions_and_feedback_counts_alike(
        order in Just((0..12_usize).collect::<Vec<_>>()).prop_shuffle(), salt in any::<u32>(),
    ) {
        crate::telemetry::metrics::recorder();
        let (recent, model) = (table(100_000), format!("order-{salt}"));
        let ids: Vec<_> = (0..4).map(|_| PredictionId::new()).collect();
        let before = labels(&model);
        for step in order {
            let id = ids[step % 4];
            match step / 4 {
                0 => remember(&recent, &model, id, ""),
                item => {
                    let target = Target::Prediction(*id.as_bytes());
                    let item = u32::try_from(item - 1).unwrap();
                    recent.tell(target, word(Some(item), Label::Number(1.0)), true);
                }
            }
        }
        let after = labels(&model);
        prop_assert_eq!([after[0] - before[0], after[1] - before[1], after[2] - before[2]], [4, 4, 0]);
    }
}
