//! What it costs to convert rows of a small model: CPU per row, bytes per row, and bytes of the
//! same rows as JSON in base64 in a Parquet file, which is how KServe logs payloads.
//!
//! `cargo run --release -p predlog --example convert -- [ROWS] [FOLDER]`
#![expect(clippy::print_stdout, reason = "a program that prints what it measured")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use predlog::segment::{Kind, Reader, Writer, frame};
use predlog::{Options, RowRef, Schema, State, Status, TensorRef, TensorSpec, convert};
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};

/// A segment of the gateway's usual size.
const SEGMENT: u64 = 128 << 20;
/// 2026-01-01 00:00 UTC in microseconds.
const START: i64 = 1_767_225_600_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments.next().map_or(Ok(200_000), |rows| rows.parse())?;
    let folder = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("predlog-convert-{}", std::process::id())),
        PathBuf::from,
    );
    let (segments, files) = (folder.join("segments"), folder.join("files"));
    fs::create_dir_all(&segments)?;
    let start = cpu();
    let written = write(&segments, rows)?;
    let each = |bytes: u64| bytes as f64 / rows as f64;
    let micros = |start: f64| (cpu() - start) / rows as f64;
    println!(
        "write segments  {:6.2} µs/row  {:7.1} bytes/row",
        micros(start),
        each(size(&written)?)
    );

    let start = cpu();
    for segment in &written {
        let mut reader = Reader::open(segment)?;
        while reader.next()?.is_some() {}
    }
    println!("read segments   {:6.2} µs/row", micros(start));

    let start = cpu();
    let mut paths = vec![];
    for segment in &written {
        paths.extend(
            convert(segment, &files, &Options::default())?.files.into_iter().map(|file| file.path),
        );
    }
    println!("convert         {:6.2} µs/row  {:7.1} bytes/row", micros(start), each(size(&paths)?));

    let start = cpu();
    let (parquet, raw) = kserve(&folder.join("kserve.parquet"), rows)?;
    println!(
        "base64 of JSON  {:6.2} µs/row  {:7.1} bytes/row in Parquet with zstd, {:.1} bytes/row of text",
        micros(start),
        each(parquet),
        each(raw),
    );
    if std::env::args().nth(2).is_none() {
        fs::remove_dir_all(folder)?;
    }
    Ok(())
}

/// Microseconds of this thread's CPU time.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

fn size(paths: &[PathBuf]) -> std::io::Result<u64> {
    paths.iter().map(|path| Ok(fs::metadata(path)?.len())).sum()
}

fn schema() -> Schema {
    let tensor = |name: &str, scalars: i64| TensorSpec {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![scalars],
        is_batched: true,
        features: vec![],
    };
    Schema {
        model: "digits".to_owned(),
        inputs: vec![tensor("pixels", 64)],
        outputs: vec![tensor("scores", 10)],
    }
}

/// Pixels as those of handwritten digits: 0 to 16, dark at the edges; and ten shares of one.
fn values(random: &mut fastrand::Rng) -> ([f32; 64], [f32; 10]) {
    let pixels = std::array::from_fn(|pixel| {
        let is_edge = matches!(pixel % 8, 0 | 7);
        if is_edge && random.u8(..) > 12 { 0.0 } else { f32::from(random.u8(0..=16)) }
    });
    let scores: [f32; 10] = std::array::from_fn(|_| (random.f32() * 12.0).exp());
    let sum: f32 = scores.iter().sum();
    (pixels, scores.map(|score| score / sum))
}

fn write(folder: &Path, rows: u64) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let schema = schema();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut paths, mut writer, mut records) = (vec![], None::<Writer>, Vec::new());
    let mut number = 0;
    for index in 0..rows {
        if writer.as_ref().is_some_and(|writer| writer.position() > SEGMENT) {
            paths.extend(writer.take().map(|mut writer| writer.close()).transpose()?);
        }
        if writer.is_none() {
            number += 1;
            writer = Some(Writer::create(folder, number, START, 7)?);
            let is_whole =
                frame(Kind::Schema, &mut records, |out| out.extend(schema.encode_to_vec()));
            assert!(is_whole, "a schema is short");
        }
        let (pixels, scores) = values(&mut random);
        row(index, &schema, (&pixels, &scores), &mut random, &mut records)?;
        if records.len() > 1 << 16 || index + 1 == rows {
            if let Some(writer) = &mut writer {
                writer.append(&mut records)?;
            }
            records.clear();
        }
    }
    paths.extend(writer.map(|mut writer| writer.close()).transpose()?);
    Ok(paths)
}

fn row(
    index: u64,
    schema: &Schema,
    (pixels, scores): (&[f32; 64], &[f32; 10]),
    random: &mut fastrand::Rng,
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn Error>> {
    let arrived_us = START + i64::try_from(index)? * 100;
    let mut prediction = [0; 16];
    prediction[..6].copy_from_slice(&(arrived_us / 1000).to_be_bytes()[2..]);
    prediction[6..].copy_from_slice(&std::array::from_fn::<u8, 10, _>(|_| random.u8(..)));
    let bytes = |values: &[f32]| -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let (input, output) = (bytes(pixels), bytes(scores));
    let tensor =
        |name, shape, data| TensorRef { name, datatype: "FP32", shape, data, state: State::Whole };
    let (caller, sticky) = (format!("request-{index}"), format!("{:016x}", random.u64(..) % 5000));
    let queue_us = random.u64(20..400);
    let row = RowRef {
        prediction,
        arrived_us,
        caller_id: &caller,
        protocol: "grpc",
        called: "digits",
        model: "digits",
        version: "3",
        file_hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        route: "digits",
        assigned_arm: if random.bool() { "stable" } else { "canary" },
        arm: "stable",
        draw: "divided",
        bucket: Some(random.u32(..10_000)),
        propensity: Some(0.5),
        sticky_key: &sticky,
        revision: 12,
        status: Status::Answered as i32,
        queue_us,
        engine_us: 180 + random.u64(..60),
        total_us: queue_us + 300,
        batch_size: random.u32(1..64),
        items: 1,
        device: "cpu",
        identity: "5b2d",
        inclusion: 1.0,
        stratum: "all",
        schema: schema.id().0,
        inputs: &[tensor("pixels", &[1, 64], &input)],
        outputs: &[tensor("scores", &[1, 10], &output)],
        ..RowRef::default()
    };
    let is_whole = frame(Kind::Row, out, |out| row.encode(out));
    assert!(is_whole, "a row is short");
    Ok(())
}

/// The bytes of a file that holds the same rows in KServe's way, and of the texts in it.
fn kserve(path: &Path, rows: u64) -> Result<(u64, u64), Box<dyn Error>> {
    let mut random = fastrand::Rng::with_seed(7);
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(16_384))
        .build();
    let mut writer: Option<ArrowWriter<File>> = None;
    let mut raw = 0;
    let mut index = 0;
    while index < rows {
        let count = (rows - index).min(4096);
        let mut columns: [Vec<String>; 3] = Default::default();
        for _ in 0..count {
            let (pixels, scores) = values(&mut random);
            let json = |name: &str, values: &[f32]| -> Result<String, std::fmt::Error> {
                let mut text = String::new();
                write!(
                    text,
                    r#"{{"name":"{name}","shape":[1,{}],"datatype":"FP32","data":{values:?}}}"#,
                    values.len()
                )?;
                Ok(text)
            };
            let id = format!("request-{index}");
            let (pixels, scores) = (json("pixels", &pixels)?, json("scores", &scores)?);
            let request = format!(r#"{{"id":"{id}","inputs":[{pixels}]}}"#);
            let answer = format!(
                r#"{{"id":"{id}","model_name":"digits","model_version":"3","outputs":[{scores}]}}"#
            );
            for (column, text) in
                columns.iter_mut().zip([id, STANDARD.encode(request), STANDARD.encode(answer)])
            {
                raw += text.len() as u64;
                column.push(text);
            }
            index += 1;
        }
        let [ids, requests, answers] = columns.map(|texts| Arc::new(StringArray::from(texts)) as _);
        let batch = RecordBatch::try_from_iter([
            ("id", ids),
            ("request", requests),
            ("response", answers),
        ])?;
        if writer.is_none() {
            let file = File::create(path)?;
            writer = Some(ArrowWriter::try_new(file, batch.schema(), Some(properties.clone()))?);
        }
        if let Some(writer) = &mut writer {
            writer.write(&batch)?;
        }
    }
    writer.map(ArrowWriter::close).transpose()?;
    Ok((fs::metadata(path)?.len(), raw))
}
