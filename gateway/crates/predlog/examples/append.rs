//! What a row of the log costs until it is in a segment, and back:
//!
//! `cargo run --release -p predlog --example append -- [FOLDER]`
//!
//! Rows are those of the digits model: 64 numbers in, 10 out. A lane's part (encoding and
//! framing) is told apart from the writer's (appending in batches), and both from reading. The
//! folder, that of temporary files unless one is named, decides what syncing costs.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use predlog::segment::{Kind, Reader, Record, Writer, frame};
use predlog::{RowRef, State, Status, TensorRef};

const ROWS: u32 = 500_000;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let parent = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = parent.join(format!("penstock-append-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let mut out = io::stdout();
    for batch in [1, 64, 1000] {
        let result = (0..ROUNDS).map(|_| round(&folder, batch)).collect::<io::Result<Vec<_>>>();
        let rounds = result.inspect_err(|_| drop(std::fs::remove_dir_all(&folder)))?;
        // The quickest round: what else runs on the machine only adds.
        let least = |of: fn(&Round) -> Duration| {
            let nanos = rounds.iter().map(|round| of(round).as_nanos()).min();
            nanos.unwrap_or_default() / u128::from(ROWS)
        };
        writeln!(
            out,
            "batches of {batch}: {} bytes and per row {} ns framed, {} ns appended, {} ns closed, {} ns read",
            rounds[0].bytes / u64::from(ROWS),
            least(|round| round.framed),
            least(|round| round.appended),
            least(|round| round.closed),
            least(|round| round.read),
        )?;
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

struct Round {
    bytes: u64,
    framed: Duration,
    appended: Duration,
    closed: Duration,
    read: Duration,
}

fn round(folder: &std::path::Path, batch: u32) -> io::Result<Round> {
    let mut writer = Writer::create(folder, 1, 0, 0)?;
    let (mut framed, mut appended) = (Duration::ZERO, Duration::ZERO);
    let (input, output) = ([7; 64 * 4], [7; 10 * 4]);
    let mut lane = Vec::with_capacity(1 << 20);
    for first in (0..ROWS).step_by(batch as usize) {
        lane.clear();
        framed += timed(|| {
            for number in first..(first + batch).min(ROWS) {
                digits(&mut lane, number, &input, &output);
            }
        })
        .0;
        let (took, result) = timed(|| writer.append(&mut lane));
        appended += took;
        result?;
    }
    let bytes = writer.position();
    let (closed, path) = timed(|| writer.close());
    let path = path?;
    let (read, count) = timed(|| count(&path));
    if count? != ROWS {
        return Err(io::Error::other("rows were lost"));
    }
    std::fs::remove_file(path)?;
    Ok(Round { bytes, framed, appended, closed, read })
}

fn digits(lane: &mut Vec<u8>, number: u32, input: &[u8], output: &[u8]) {
    let mut prediction = [0; 16];
    prediction[..4].copy_from_slice(&number.to_le_bytes());
    let tensor =
        |name, shape, data| TensorRef { name, datatype: "FP32", shape, data, state: State::Whole };
    let row = RowRef {
        prediction,
        arrived_us: 1_800_000_000_000_000 + i64::from(number),
        protocol: "grpc",
        called: "digits",
        model: "digits",
        version: "3",
        file_hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        status: Status::Answered as i32,
        queue_us: 120,
        engine_us: 80,
        total_us: 260,
        batch_size: 16,
        items: 1,
        device: "cpu",
        inclusion: 1.0,
        stratum: "all",
        schema: 0x1234_5678_9abc_def0,
        inputs: &[tensor("pixels", &[1, 64], input)],
        outputs: &[tensor("scores", &[1, 10], output)],
        ..RowRef::default()
    };
    frame(Kind::Row, lane, |lane| row.encode(lane));
}

fn count(path: &std::path::Path) -> io::Result<u32> {
    let (mut reader, mut rows) = (Reader::open(path)?, 0);
    while let Some(record) = reader.next()? {
        rows += u32::from(matches!(record, Record::Row(_)));
    }
    Ok(rows)
}

#[expect(clippy::disallowed_types, reason = "it measures, and there is no tokio here")]
fn timed<T>(run: impl FnOnce() -> T) -> (Duration, T) {
    let start = std::time::Instant::now();
    let result = run();
    (start.elapsed(), result)
}
