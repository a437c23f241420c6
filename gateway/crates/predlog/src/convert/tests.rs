//! A segment gives the same files each time, whatever it holds and whatever was there.

use std::os::unix::fs::PermissionsExt;

use parquet::file::reader::{FileReader, SerializedFileReader};
use tempfile::TempDir;

use super::*;
use crate::testing::{
    HOUR, START, begin, contents, feedback, floats, ids, row, schema, segment, slice, spec, texts,
    told,
};
use crate::{Feedback, TensorValue};

fn numbers() -> Schema {
    schema(vec![spec("x", "FP32", &[2])], vec![spec("y", "FP32", &[1])])
}

fn call(id: u8) -> Row {
    Row {
        inputs: vec![floats("x", &[1, 2], &[f32::from(id), 0.5])],
        outputs: vec![floats("y", &[1, 1], &[0.25])],
        ..row(id, 1, &numbers())
    }
}

fn all_ids(converted: &Converted) -> Vec<u8> {
    let lines: Vec<_> = converted.files.iter().flat_map(|file| contents(&file.path)).collect();
    ids(&lines)
}

/// What the names of a segment's files have of the segment itself.
fn tag(segment: &Path) -> String {
    format!("{:08x}", Reader::open(segment).unwrap().tag())
}

fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn rows_go_to_the_folder_of_their_model_version_and_hour() {
    let log = TempDir::new().unwrap();
    let other = schema(vec![], vec![]);
    let rows = [
        call(1),
        Row { version: "2".into(), ..call(2) },
        Row { arrived_us: START + HOUR, ..call(3) },
        Row {
            model: String::new(),
            version: String::new(),
            schema: 0,
            inputs: vec![],
            outputs: vec![],
            ..call(4)
        },
        Row { schema: other.id().0, inputs: vec![], outputs: vec![], ..call(5) },
    ];
    let segment = segment(log.path(), 17, &[&numbers(), &other], &rows);
    let out = log.path().join("files");
    let options = Options { instance: 0xab, ..Options::default() };
    let converted = convert(&segment, log.path(), &options).unwrap();
    assert_eq!((converted.rows, converted.gaps.len()), (5, 0));
    let (id, second) = (numbers().id(), other.id());
    let stem = format!("000000ab-00000017-{}", tag(&segment));
    let mut paths: Vec<_> = converted
        .files
        .iter()
        .map(|file| file.path.strip_prefix(&out).unwrap().to_str().unwrap().to_owned())
        .collect();
    paths.sort();
    let mut expected = vec![
        format!("model=m/version=1/date=2026-01-01/hour=00/{stem}-{id}.parquet"),
        format!("model=m/version=1/date=2026-01-01/hour=00/{stem}-{second}.parquet"),
        format!("model=m/version=1/date=2026-01-01/hour=01/{stem}-{id}.parquet"),
        format!("model=m/version=2/date=2026-01-01/hour=00/{stem}-{id}.parquet"),
        format!("model=none/version=none/date=2026-01-01/hour=00/{stem}-0000000000000000.parquet"),
    ];
    expected.sort();
    assert_eq!(paths, expected);
    assert_eq!(all_ids(&converted), [1, 2, 3, 4, 5]);
    for file in &converted.files {
        assert_eq!(file.bytes, file.path.metadata().unwrap().len());
        assert_eq!(
            file.path.metadata().unwrap().permissions().mode() & 0o007,
            0,
            "others read nothing"
        );
    }
}

#[test]
fn a_segment_that_is_converted_again_gives_the_same_files_and_no_others() {
    let log = TempDir::new().unwrap();
    let out = log.path().join("files");
    let rows: Vec<Row> =
        (0..9).map(|id| Row { arrived_us: START + i64::from(id % 3) * HOUR, ..call(id) }).collect();
    let first = segment(log.path(), 1, &[&numbers()], &rows);
    let second = segment(log.path(), 2, &[&numbers()], &[call(77)]);
    convert(&first, log.path(), &Options::default()).unwrap();
    let neighbour = convert(&second, log.path(), &Options::default()).unwrap();
    let before = tree(&out);
    // As a conversion that died or had other settings would leave them.
    let folder = neighbour.files[0].path.parent().unwrap();
    let stem = format!("00000000-00000001-{}", tag(&first));
    for name in [
        format!("{stem}-ffffffffffffffff.parquet"),
        format!(".{stem}-ffffffffffffffff.parquet.tmp"),
    ] {
        fs::write(folder.join(name), "old").unwrap();
    }
    let again = convert(&first, log.path(), &Options::default()).unwrap();
    assert_eq!(tree(&out), before);
    assert_eq!(again.files.iter().map(|file| file.rows).sum::<u64>(), 9);
}

#[test]
fn folders_that_were_copied_write_files_of_different_names() {
    // The same instance and number, and rows of the same hour.
    let logs = [1, 2].map(|id| {
        let log = TempDir::new().unwrap();
        let segment = segment(log.path(), 1, &[&numbers()], &[call(id)]);
        let converted = convert(&segment, log.path(), &Options::default()).unwrap();
        let name = converted.files[0].path.file_name().unwrap().to_owned();
        (log, name)
    });
    assert_ne!(logs[0].1, logs[1].1);
}

#[test]
fn more_partitions_than_open_files_lose_and_double_nothing() {
    let log = TempDir::new().unwrap();
    let rows: Vec<Row> =
        (0..60).map(|id| Row { version: (id % 7).to_string(), ..call(id) }).collect();
    let segment = segment(log.path(), 1, &[&numbers()], &rows);
    for open_files in [1, 2, 7, 16] {
        let out = log.path().join(format!("files-{open_files}"));
        let options = Options { open_files, ..Options::default() };
        let converted = convert(&segment, &out, &options).unwrap();
        assert_eq!((converted.files.len(), converted.rows), (7, 60));
        assert_eq!(all_ids(&converted), (0..60).collect::<Vec<u8>>());
    }
}

#[test]
fn columns_that_come_late_begin_another_file() {
    let log = TempDir::new().unwrap();
    // More than a batch, so that lines are in a file when the column comes.
    let mut rows: Vec<Row> =
        (0..6000).map(|index| call(u8::try_from(index % 200).unwrap())).collect();
    rows.push(Row { slices: vec![slice("region", "eu")], ..call(250) });
    rows.push(call(251));
    let segment = segment(log.path(), 1, &[&numbers()], &rows);
    let converted = convert(&segment, log.path(), &Options::default()).unwrap();
    assert_eq!(converted.files.iter().map(|file| file.rows).collect::<Vec<_>>(), [6000, 2]);
    assert!(converted.files[1].path.to_str().unwrap().ends_with("-2.parquet"));
    let lines = contents(&converted.files[1].path);
    assert_eq!((&lines[0]["slice_region"], lines[1].get("slice_region")), (&"eu".into(), None));
}

#[test]
fn row_groups_stay_within_their_bounds() {
    let log = TempDir::new().unwrap();
    let wide = schema(vec![spec("t", "BYTES", &[1])], vec![]);
    // Texts that do not repeat and hardly compress.
    let text = |index: u64| {
        (0..64u64)
            .map(|part| {
                format!(
                    "{:016x}",
                    xxhash_rust::xxh3::xxh3_64(&[index, part].map(u64::to_le_bytes).concat())
                )
            })
            .collect::<String>()
    };
    let rows: Vec<Row> = (0..6000)
        .map(|index| Row {
            version: (index % 3).to_string(),
            inputs: vec![texts("t", &[1, 1], &[text(index).as_bytes()])],
            ..row(1, 1, &wide)
        })
        .collect();
    let segment = segment(log.path(), 1, &[&wide], &rows);
    let groups = |options: Options, name: &str| -> Vec<i64> {
        let converted = convert(&segment, &log.path().join(name), &options).unwrap();
        assert_eq!(converted.files.iter().map(|file| file.rows).sum::<u64>(), 6000);
        converted
            .files
            .iter()
            .flat_map(|file| {
                let reader =
                    SerializedFileReader::new(fs::File::open(&file.path).unwrap()).unwrap();
                reader
                    .metadata()
                    .row_groups()
                    .iter()
                    .map(|group| group.total_byte_size())
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    assert_eq!(groups(Options::default(), "large").len(), 3);
    // A batch is a MiB: a row group ends with the first one that reaches the limit.
    let small = groups(Options { row_group_bytes: 1 << 19, ..Options::default() }, "small");
    assert!(small.len() >= 6 && small.iter().all(|bytes| *bytes < 3 << 19), "{small:?}");
    let together = groups(Options { memory: 1 << 20, ..Options::default() }, "together");
    assert!(together.len() > 3, "{together:?}");
}

#[test]
fn what_is_whole_of_a_damaged_segment_is_saved_and_the_rest_named() {
    let log = TempDir::new().unwrap();
    let rows: Vec<Row> = (0..50).map(call).collect();
    let segment = segment(log.path(), 1, &[&numbers()], &rows);
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    let converted = convert(&segment, log.path(), &Options::default()).unwrap();
    assert_eq!(converted.gaps.len(), 1);
    let saved = all_ids(&converted);
    assert!(saved.len() >= 20 && saved.len() < 50, "{saved:?}");
    assert_eq!(saved.len() as u64, converted.rows);
}

#[test]
fn rows_whose_schema_is_gone_say_so() {
    let log = TempDir::new().unwrap();
    let segment = segment(log.path(), 1, &[], &[call(1)]);
    let converted = convert(&segment, log.path(), &Options::default()).unwrap();
    let lines = contents(&converted.files[0].path);
    assert_eq!(lines[0]["left_out"], "in.x is not in the schema; out.y is not in the schema");
}

#[test]
fn a_call_of_many_items_is_split_over_batches() {
    let log = TempDir::new().unwrap();
    let items = 10_000_u32;
    let values: Vec<f32> = (0..items * 2).map(|value| value as f32).collect();
    let many = Row {
        inputs: vec![floats("x", &[items.into(), 2], &values)],
        outputs: vec![TensorValue { state: 1, ..floats("y", &[items.into(), 1], &[]) }],
        ..row(1, items, &numbers())
    };
    let segment = segment(log.path(), 1, &[&numbers()], &[call(0), many]);
    let converted = convert(&segment, log.path(), &Options::default()).unwrap();
    assert_eq!(converted.files[0].rows, 10_001);
    let lines = contents(&converted.files[0].path);
    for (item, line) in lines[1..].iter().enumerate() {
        assert_eq!(line["item"].as_u64(), Some(item as u64));
        assert_eq!(line["in_x_1"].as_f64(), Some(item as f64 * 2.0 + 1.0));
    }
}

#[test]
fn a_conversion_that_fails_leaves_nothing_half_done() {
    let log = TempDir::new().unwrap();
    let out = log.path().join("files");
    let segment = segment(log.path(), 1, &[&numbers()], &[call(1)]);
    fs::write(&out, "a file, no folder").unwrap();
    let error = convert(&segment, log.path(), &Options::default()).unwrap_err();
    assert!(error.to_string().contains("files"), "{error}");
    fs::remove_file(&out).unwrap();
    let folder = out.join("model=m/version=1/date=2026-01-01/hour=00");
    let name = format!("00000000-00000001-{}-{}.parquet", tag(&segment), numbers().id());
    // A folder where the file should be: it is written and cannot get its name.
    fs::create_dir_all(folder.join(name).join("x")).unwrap();
    convert(&segment, log.path(), &Options::default()).unwrap_err();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the file without a name is gone");
}

#[test]
fn feedback_goes_to_the_folder_of_the_day_on_which_it_was_received() {
    let log = TempDir::new().unwrap();
    let told = |id: u8, received_us| Feedback { received_us, ..told(id) };
    let all = [told(1, START), told(2, START + 23 * HOUR), told(3, START + 24 * HOUR)];
    let mut writer = begin(log.path(), 9, &[&numbers()], &[call(1)]);
    writer.append(&mut feedback(&all)).unwrap();
    let segment = writer.close().unwrap();
    let options = Options { instance: 0xab, ..Options::default() };
    let converted = convert(&segment, log.path(), &options).unwrap();
    assert_eq!((converted.rows, converted.files.len(), converted.feedback), (1, 1, 3));
    let folder = log.path().join("feedback");
    let name = format!("000000ab-00000009-{}-feedback.parquet", tag(&segment));
    let paths = ["date=2026-01-01", "date=2026-01-02"].map(|day| folder.join(day).join(&name));
    assert_eq!(converted.feedback_files, paths);
    let lines = contents(&paths[0]);
    assert_eq!(
        lines[0],
        serde_json::json!({
            "prediction_id": "01010101-0101-0101-0101-010101010101",
            "feedback_id": "1",
            "label_text": "1",
            "reward": 1.0,
            "event_time": "2026-01-01T00:00:00.000001Z",
            "received": "2026-01-01T00:00:00Z",
            "source": "test",
        })
    );
    assert_eq!(ids(&lines), [1, 2]);
    assert_eq!(ids(&contents(&paths[1])), [3]);
    let before = tree(log.path());
    fs::write(folder.join("date=2026-01-01").join(format!(".{name}.tmp")), "old").unwrap();
    convert(&segment, log.path(), &options).unwrap();
    assert_eq!(tree(log.path()), before);
}
