//! Columns follow from schemas, and rows that do not fit lose no more than what does not.

use half::{bf16, f16};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::testing::{floats, lines, row, schema, slice, spec, texts, value};
use crate::{Row, State, Status, TensorValue};

fn names(schema: &Schema, limit: usize) -> Vec<String> {
    let columns = Columns::new(schema, limit);
    columns.tensors.iter().flat_map(|tensor| tensor.names.clone()).collect()
}

/// The lines of rows, as one batch.
fn gathered(schema: &Schema, rows: &[Row]) -> Vec<Value> {
    let mut batch = Batch::new(Arc::new(Columns::new(schema, 4)));
    for row in rows {
        let fitted = Fitted::new(batch.columns(), row);
        let mut extras = batch.extras().clone();
        fitted.extras(row, &mut extras);
        batch.add(extras);
        assert!(fitted.is_served_by(batch.extras(), row));
        batch.push(row, &fitted, 0..fitted.lines);
    }
    lines(&[batch.take().unwrap()])
}

#[test]
fn columns_are_called_by_features_or_by_their_place() {
    let mut named = spec("person", "FP32", &[2]);
    named.features = vec!["age".into(), "height".into()];
    let schema = schema(
        vec![named, spec("one", "INT64", &[1]), spec("pixels", "FP32", &[2, 2])],
        vec![spec("scores", "FP32", &[5]), spec("tokens", "INT32", &[-1])],
    );
    let expected = [
        "in_age",
        "in_height",
        "in_one",
        "in_pixels_0",
        "in_pixels_1",
        "in_pixels_2",
        "in_pixels_3",
        "out_scores",
        "out_tokens",
        "out_tokens_shape",
    ];
    assert_eq!(names(&schema, 4), expected);
}

#[test]
fn names_that_readers_would_confuse_are_told_apart_the_same_way_each_time() {
    let schema = schema(
        vec![spec("a", "FP32", &[2]), spec("A_0", "FP32", &[]), spec("a", "FP32", &[])],
        vec![],
    );
    assert_eq!(names(&schema, 4), ["in_a_0", "in_a_1", "in_A_0_2", "in_a"]);
    assert_eq!(names(&schema, 4), names(&schema, 4));
}

#[test]
fn every_type_keeps_its_values() {
    let two = |name: &str, bytes: Vec<u8>| value(name, name, &[2], bytes);
    let inputs = vec![
        two("BOOL", vec![1, 0]),
        two("UINT8", vec![255, 0]),
        two("UINT16", [u16::MAX, 1].map(u16::to_le_bytes).concat()),
        two("UINT32", [u32::MAX, 1].map(u32::to_le_bytes).concat()),
        two("UINT64", [u64::MAX, 1].map(u64::to_le_bytes).concat()),
        two("INT8", vec![0x80, 1]),
        two("INT16", [i16::MIN, 1].map(i16::to_le_bytes).concat()),
        two("INT32", [i32::MIN, 1].map(i32::to_le_bytes).concat()),
        two("INT64", [i64::MIN, 1].map(i64::to_le_bytes).concat()),
        two("FP16", [-1.5, 0.25].map(|of| f16::from_f32(of).to_le_bytes()).concat()),
        two("BF16", [-1.5, 0.25].map(|of| bf16::from_f32(of).to_le_bytes()).concat()),
        two("FP32", [-1.5f32, 0.25].map(f32::to_le_bytes).concat()),
        two("FP64", [-1.5f64, 0.25].map(f64::to_le_bytes).concat()),
        texts("BYTES", &[2], &["ä".as_bytes(), b""]),
    ];
    let specs = DataType::ALL.iter().map(|kind| spec(kind.name(), kind.name(), &[])).collect();
    let schema = schema(specs, vec![]);
    let lines = gathered(&schema, &[Row { inputs, ..row(1, 2, &schema) }]);
    let column =
        |name: &str| json!([lines[0][format!("in_{name}")], lines[1][format!("in_{name}")]]);
    let expected = [
        json!([true, false]),
        json!([255, 0]),
        json!([65_535, 1]),
        json!([u32::MAX, 1]),
        json!([u64::MAX, 1]),
        json!([-128, 1]),
        json!([i16::MIN, 1]),
        json!([i32::MIN, 1]),
        json!([i64::MIN, 1]),
        json!([-1.5, 0.25]),
        json!([-1.5, 0.25]),
        json!([-1.5, 0.25]),
        json!([-1.5, 0.25]),
        json!(["ä", ""]),
    ];
    for (kind, expected) in DataType::ALL.iter().zip(expected) {
        assert_eq!(column(kind.name()), expected, "{kind}");
    }
    assert!(lines[0].get("left_out").is_none());
}

#[test]
fn items_have_lines_of_their_own_and_the_columns_of_their_call() {
    let mut shared = spec("shared", "FP32", &[1]);
    shared.is_batched = false;
    let schema =
        schema(vec![spec("x", "FP32", &[2]), shared], vec![spec("list", "INT8", &[-1, 2])]);
    let call = Row {
        caller_id: "c".into(),
        queue_us: 7,
        inputs: vec![floats("x", &[2, 2], &[1.0, 2.0, 3.0, 4.0]), floats("shared", &[1], &[9.0])],
        outputs: vec![value("list", "INT8", &[2, 1, 2], vec![1, 2, 3, 4])],
        ..row(0xab, 2, &schema)
    };
    let lines = gathered(&schema, &[call]);
    for (item, line) in lines.iter().enumerate() {
        assert_eq!(line["prediction_id"], "abababab-abab-abab-abab-abababababab");
        assert_eq!((&line["item"], &line["items"]), (&json!(item), &json!(2)));
        assert_eq!(
            (&line["caller_id"], &line["queue_us"], &line["status"]),
            (&json!("c"), &json!(7), &json!("answered"))
        );
        assert_eq!((&line["in_shared"], &line["out_list_shape"]), (&json!(9.0), &json!([1, 2])));
        assert_eq!(line["arrived"], "2026-01-01T00:00:00Z");
    }
    assert_eq!([&lines[0]["in_x_0"], &lines[1]["in_x_1"]], [&json!(1.0), &json!(4.0)]);
    assert_eq!([&lines[0]["out_list"], &lines[1]["out_list"]], [&json!([1, 2]), &json!([3, 4])]);
}

#[test]
fn what_does_not_fit_is_named_and_the_rest_is_kept() {
    let schema = schema(
        vec![spec("a", "FP32", &[1]), spec("b", "FP32", &[1])],
        vec![spec("c", "FP32", &[-1])],
    );
    let good = floats("b", &[1, 1], &[5.0]);
    let with = |other: TensorValue| {
        let call = Row { inputs: vec![other, good.clone()], ..row(1, 1, &schema) };
        let line = gathered(&schema, &[call]).remove(0);
        assert_eq!(line["in_b"], 5.0);
        assert!(line.get("in_a").is_none());
        line["left_out"].as_str().unwrap().to_owned()
    };
    let cases = [
        (value("a", "INT32", &[1, 1], vec![0; 4]), "another type (INT32 [1, 1], FP32 [1])"),
        (floats("a", &[2, 1], &[1.0, 2.0]), "another shape"),
        (floats("a", &[1, 2], &[1.0, 2.0]), "another shape"),
        (floats("a", &[], &[1.0]), "another shape"),
        (floats("a", &[1, 1], &[1.0, 2.0]), "another number of bytes"),
        (floats("z", &[1, 1], &[1.0]), "in.z is not in the schema"),
    ];
    for (value, expected) in cases {
        let said = with(value);
        assert!(said.contains(expected), "{said}");
    }
    let left = TensorValue { state: State::LeftOut as i32, ..value("a", "FP32", &[1, 1], vec![]) };
    assert_eq!(with(left), "in.a left out");
}

#[test]
fn redaction_leaves_values_of_the_type_or_a_text_of_the_item() {
    let schema = schema(
        vec![
            spec("a", "FP32", &[1]),
            spec("b", "FP32", &[1]),
            spec("c", "BYTES", &[1]),
            spec("d", "FP32", &[1]),
            spec("e", "INT64", &[2]),
        ],
        vec![],
    );
    let redacted = |value: TensorValue| TensorValue { state: State::Redacted as i32, ..value };
    let inputs = [
        floats("a", &[2, 1], &[10.0, 20.0]),
        texts("b", &[2, 1], &[b"h1", b"h2"]),
        texts("c", &[2, 1], &[b"n", b"m"]),
        value("d", "FP32", &[2, 1], vec![]),
        texts("e", &[2, 2], &[b"1", b"2", b"3", b"4"]),
    ];
    let call = Row { inputs: inputs.map(redacted).to_vec(), ..row(1, 2, &schema) };
    let lines = gathered(&schema, &[row(2, 1, &schema), call]);
    assert!(lines[0].get("in_b_redacted").is_none() && lines[0].get("left_out").is_none());
    let second = &lines[2];
    assert_eq!(
        (&second["in_a"], &second["in_b_redacted"], &second["in_c"]),
        (&json!(20.0), &json!("h2"), &json!("m"))
    );
    assert_eq!(second["in_e_redacted"], r#"["3","4"]"#);
    assert!(second.get("in_b").is_none() && second.get("in_d").is_none());
    assert_eq!(
        second["left_out"],
        "in.a redacted; in.b redacted; in.c redacted; in.d redacted; in.e redacted"
    );
}

#[test]
fn one_hash_of_a_whole_tensor_stands_on_each_line() {
    let schema = schema(vec![spec("a", "FP32", &[3])], vec![]);
    let hash = TensorValue { state: State::Redacted as i32, ..texts("a", &[1], &[b"hash"]) };
    let lines = gathered(&schema, &[Row { inputs: vec![hash], ..row(1, 2, &schema) }]);
    assert!(lines.iter().all(|line| line["in_a_redacted"] == "hash"));
}

#[test]
fn bytes_that_are_no_text_have_a_column_beside_the_texts() {
    let schema = schema(vec![spec("image", "BYTES", &[1]), spec("many", "BYTES", &[-1])], vec![]);
    let call = |id, image: &[u8]| Row {
        inputs: vec![texts("image", &[1, 1], &[image]), texts("many", &[1, 2], &[b"x", image])],
        ..row(id, 1, &schema)
    };
    let lines = gathered(&schema, &[call(1, b"text"), call(2, b"\xff\xd8")]);
    assert_eq!(
        (&lines[0]["in_image"], &lines[0]["in_many"]),
        (&json!("text"), &json!(["x", "text"]))
    );
    assert!(lines[0].get("in_image_binary").is_none());
    assert_eq!(
        (&lines[1]["in_image_binary"], &lines[1]["in_many_binary"]),
        (&json!("ffd8"), &json!(["78", "ffd8"]))
    );
    assert!(lines[1].get("in_image").is_none() && lines[1].get("in_many").is_none());
    assert_eq!(lines[1]["in_many_shape"], json!([2]), "their number is known all the same");
}

#[test]
fn a_refused_call_makes_one_line_whatever_it_claimed() {
    let schema = schema(vec![spec("x", "FP32", &[0])], vec![]);
    let call = Row {
        status: Status::Refused as i32,
        items: u32::MAX,
        inputs: vec![floats("x", &[u64::from(u32::MAX), 0], &[])],
        error: "invalid_input".into(),
        ..row(1, 0, &schema)
    };
    let lines = gathered(&schema, &[Row { items: 0, inputs: vec![], ..call.clone() }, call]);
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["item"], lines[0].get("items")), (&json!(0), None));
    assert_eq!(
        (&lines[1]["error"], &lines[1]["status"]),
        (&json!("invalid_input"), &json!("refused"))
    );
}

#[test]
fn what_nobody_measured_is_null_and_no_nought() {
    let schema = schema(vec![], vec![]);
    let ran = |id, batch_size, queue_us, engine_us| Row {
        batch_size,
        queue_us,
        engine_us,
        ..row(id, 1, &schema)
    };
    // It ran here, it waited for nothing, it ran elsewhere, it was answered without a run.
    let rows = [ran(1, 8, 0, 70), ran(2, 0, 40, 0), ran(3, 0, 0, 900), ran(4, 0, 0, 0)];
    let lines = gathered(&schema, &rows);
    let column = |name: &str| lines.iter().map(|line| line.get(name).cloned()).collect::<Vec<_>>();
    assert_eq!(column("batch_size"), [Some(json!(8)), None, None, None]);
    assert_eq!(column("queue_us"), [Some(json!(0)), Some(json!(40)), None, None]);
    assert_eq!(column("engine_us"), [Some(json!(70)), None, Some(json!(900)), None]);
    assert_eq!(column("revision"), [0; 4].map(|number| Some(json!(number))), "of the first routes");
}

#[test]
fn texts_that_each_line_repeats_count_for_the_room_of_a_batch() {
    let schema = schema(vec![spec("x", "FP32", &[1])], vec![]);
    let text = "t".repeat(10_000);
    let plain =
        Row { inputs: vec![floats("x", &[4000, 1], &[0.5; 4000])], ..row(1, 4000, &schema) };
    let batch = Batch::new(Arc::new(Columns::new(&schema, 4)));
    let room = |row: &Row| batch.room(&Fitted::new(batch.columns(), row), row);
    assert_eq!(room(&plain).min(4000), 4000);
    let caller = Row { caller_id: text.clone(), ..plain.clone() };
    let slices = Row { slices: vec![slice("region", &text)], ..plain };
    for long in [&caller, &slices] {
        assert!(room(long) <= (1 << 20) / 10_000);
    }
    let mut batch = Batch::new(Arc::new(Columns::new(&schema, 4)));
    let fitted = Fitted::new(batch.columns(), &caller);
    batch.push(&caller, &fitted, 0..110);
    assert!(batch.is_full());
}

#[test]
fn slices_have_columns_and_older_lines_null_there() {
    let schema = schema(vec![], vec![]);
    let with = |id, slices: Vec<_>| Row { slices, ..row(id, 1, &schema) };
    let rows = [
        with(1, vec![slice("region", "eu")]),
        with(2, vec![slice("tenant", "t"), slice("region", "us")]),
        with(3, vec![]),
    ];
    let lines = gathered(&schema, &rows);
    let column = |name: &str| lines.iter().map(|line| line.get(name).cloned()).collect::<Vec<_>>();
    assert_eq!(column("slice_region"), [Some(json!("eu")), Some(json!("us")), None]);
    assert_eq!(column("slice_tenant"), [None, Some(json!("t")), None]);
}

proptest! {
    /// Whatever a row holds, it makes its lines, and they are in order.
    #[test]
    fn no_row_is_lost(
        rows in prop::collection::vec((
            0u32..5,
            prop::sample::select(vec!["FP32", "BYTES", "INT8", "FP128"]),
            prop::collection::vec(0u64..4, 0..3),
            prop::collection::vec(any::<u8>(), 0..40),
            0i32..4,
            0i32..7,
        ), 1..6),
        kind in prop::sample::select(vec!["FP32", "BYTES", "INT8", "FP128"]),
        shape in prop::collection::vec(-1i64..4, 0..3),
        is_batched: bool,
    ) {
        let tensor = TensorSpec { is_batched, ..spec("x", kind, &shape) };
        let schema = schema(vec![tensor.clone()], vec![tensor]);
        let rows: Vec<Row> = rows.into_iter().enumerate().map(|(id, (items, kind, shape, data, state, status))| {
            let x = TensorValue { state, ..value("x", kind, &shape, data) };
            Row { inputs: vec![x.clone()], outputs: vec![x], status, ..row(u8::try_from(id).unwrap(), items, &schema) }
        }).collect();
        let columns = Columns::new(&schema, 4);
        let expected: Vec<(usize, usize)> = rows.iter().enumerate().flat_map(|(id, row)| {
            (0..Fitted::new(&columns, row).lines).map(move |line| (id, line))
        }).collect();
        let lines = gathered(&schema, &rows);
        let found: Vec<(usize, usize)> = lines.iter().map(|line| {
            let id = usize::from_str_radix(&line["prediction_id"].as_str().unwrap()[..2], 16).unwrap();
            (id, usize::try_from(line["item"].as_u64().unwrap()).unwrap())
        }).collect();
        prop_assert_eq!(found, expected);
    }
}
