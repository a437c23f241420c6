//! What becomes of segments, step by step: each test of a crash does the steps up to it, and then
//! starts anew on the same folder.

mod disk;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Mutex;

use predlog::segment::{Kind, Writer, frame};
use predlog::{RowRef, Status as Ended};
use tempfile::TempDir;

use super::convert::Made;
use super::*;

/// A day whose rows no test keeps for too long, and its hours in files.
const DAY: i64 = 1_763_769_600_000_000;
const INSTANCE: u32 = 0xabcd;

/// A log's folder with what works on it, as one process has it.
struct Process {
    parts: Arc<Parts>,
    converter: Converter,
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir_all(folder.path().join("segments")).unwrap();
    folder
}

/// A closed segment with so many rows; from the fourth on of other versions too.
fn segment(folder: &TempDir, number: u64, rows: u64) {
    let segments = folder.path().join("segments");
    let mut writer = Writer::create(&segments, number, DAY, INSTANCE.into()).unwrap();
    let mut framed = vec![];
    for row in 0..rows {
        let prediction = u128::from(number * 1000 + row).to_be_bytes();
        let status = Ended::Answered as i32;
        let model = "digits";
        let version = match row {
            3 => "2",
            4 => "3",
            _ => "1",
        };
        let row = RowRef {
            prediction,
            arrived_us: DAY,
            model,
            version,
            status,
            items: 1,
            ..RowRef::default()
        };
        frame(Kind::Row, &mut framed, |out| row.encode(out));
    }
    writer.append(&mut framed).unwrap();
    writer.close().unwrap();
}

fn process(folder: &TempDir, has_store: bool) -> Process {
    process_with(folder, has_store, Box::new(convert::Parquet::new(INSTANCE)))
}

fn process_with(folder: &TempDir, has_store: bool, format: Box<dyn Convert>) -> Process {
    let folder = folder.path().to_owned();
    let outbox = has_store.then(|| Arc::new(Outbox::open(folder.join("outbox")).unwrap()));
    let parts = Arc::new(Parts {
        backlog: Arc::new(Backlog::new(folder.join("segments"))),
        space: Space::new(Box::new(|_| {}), 0),
        metrics: Arc::default(),
        outbox,
        disk: Disk { keep: None, ..Disk::default() },
        folder,
    });
    let converter = Converter {
        folder: parts.folder.clone(),
        backlog: parts.backlog.clone(),
        outbox: parts.outbox.clone(),
        format,
        metrics: parts.metrics.clone(),
        _lock: None,
    };
    parts.tidy(true);
    Process { parts, converter }
}

impl Process {
    fn claim(&self) -> backlog::Claim {
        self.parts.backlog.look().unwrap();
        self.parts.backlog.claim(Duration::ZERO).unwrap()
    }

    fn convert_all(&self) {
        self.parts.backlog.look().unwrap();
        while let Some(claim) = self.parts.backlog.claim(Duration::ZERO) {
            self.converter.work(&claim);
        }
    }
}

/// Every file below a folder by its path in it, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

/// What a reader would see.
fn parquet(folder: &TempDir) -> BTreeMap<String, Vec<u8>> {
    let all = files(folder.path());
    all.into_iter().filter(|(name, _)| name.ends_with(".parquet")).collect()
}

fn segments(folder: &TempDir) -> Vec<String> {
    files(&folder.path().join("segments")).into_keys().collect()
}

#[test]
fn a_segment_goes_when_its_files_are_there() {
    let folder = folder();
    segment(&folder, 1, 3);
    segment(&folder, 2, 3);
    process(&folder, false).convert_all();
    assert_eq!(segments(&folder), [""; 0]);
    let names: Vec<_> = parquet(&folder).into_keys().collect();
    assert_eq!(names.len(), 2);
    for (name, number) in names.iter().zip(1..) {
        assert!(
            name.starts_with("files/model=digits/version=1/date=2025-11-22/hour=00/"),
            "{name}"
        );
        assert_eq!(retention::segment_of(name), Some(number), "{name}");
    }
}

#[test]
fn a_segment_without_rows_leaves_no_file() {
    let folder = folder();
    segment(&folder, 1, 0);
    process(&folder, true).convert_all();
    assert_eq!(files(folder.path()), BTreeMap::new());
}

/// How far a process came with a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Came {
    Nowhere,
    /// Of several files one has its name.
    ToTheFirstFile,
    ToFiles,
    ToTheNote,
    ToTheEnd,
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing_and_leaves_nothing_twice() {
    let original = folder();
    segment(&original, 1, 5);
    let bytes = fs::read(original.path().join("segments/00000001.segment")).unwrap();
    process(&original, true).convert_all();
    let expected = parquet(&original);
    assert_eq!(expected.len(), 3);
    for came in
        [Came::Nowhere, Came::ToTheFirstFile, Came::ToFiles, Came::ToTheNote, Came::ToTheEnd]
    {
        let folder = folder();
        fs::write(folder.path().join("segments/00000001.segment"), &bytes).unwrap();
        let first = process(&folder, true);
        let claim = first.claim();
        if came > Came::Nowhere {
            let made = first.converter.make(&claim).unwrap();
            if came == Came::ToTheFirstFile {
                for file in &made.files[1..] {
                    let path = folder.path().join(file);
                    let name = path.file_name().unwrap().to_str().unwrap();
                    fs::rename(&path, path.with_file_name(format!(".{name}.tmp"))).unwrap();
                }
            }
            if came >= Came::ToTheNote {
                first.converter.note(&claim, &made).unwrap();
            }
            if came >= Came::ToTheEnd {
                first.converter.retire(&claim, &made).unwrap();
            }
        }
        drop(first);
        let second = process(&folder, true);
        second.convert_all();
        assert_eq!(segments(&folder), [""; 0], "{came:?}");
        assert!(parquet(&folder) == expected, "{came:?}");
        let left = files(&folder.path().join("files"));
        assert_eq!(left.len(), expected.len(), "nothing half done is left: {came:?}");
        let outbox = second.parts.outbox.as_ref().unwrap();
        assert_eq!(outbox.figures().0, expected.len(), "{came:?}");
        assert!(expected.keys().all(|name| outbox.holds(name)));
    }
}

#[test]
fn what_a_crash_cut_off_is_removed_at_the_next_start() {
    let folder = folder();
    let hour = folder.path().join("files/model=digits/version=1/date=2025-11-22/hour=00");
    fs::create_dir_all(&hour).unwrap();
    fs::create_dir_all(folder.path().join("outbox")).unwrap();
    fs::write(hour.join(".0000abcd-00000001-00.parquet.tmp"), "half").unwrap();
    fs::write(folder.path().join("outbox/00000001.tmp"), "{").unwrap();
    process(&folder, true);
    assert_eq!(files(folder.path()), BTreeMap::new());
}

#[test]
fn what_can_be_read_of_a_damaged_segment_is_kept_and_the_rest_put_aside() {
    let folder = folder();
    segment(&folder, 1, 50);
    let path = folder.path().join("segments/00000001.segment");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(&path, bytes).unwrap();
    let process = process(&folder, false);
    process.convert_all();
    assert_eq!(segments(&folder), ["00000001.damaged"]);
    assert_eq!(parquet(&folder).len(), 3);
    process.convert_all();
    assert_eq!(parquet(&folder).len(), 3);
}

#[test]
fn a_segment_with_records_of_a_later_version_is_put_aside_and_not_deleted() {
    let folder = folder();
    let segments = folder.path().join("segments");
    let mut writer = Writer::create(&segments, 1, DAY, INSTANCE.into()).unwrap();
    let mut framed = vec![];
    let row = RowRef { arrived_us: DAY, model: "m", version: "1", items: 1, ..RowRef::default() };
    frame(Kind::Row, &mut framed, |out| row.encode(out));
    let at = framed.len();
    frame(Kind::Feedback, &mut framed, |out| out.extend_from_slice(b"of tomorrow"));
    // The kind.
    framed[at + 8] = 9;
    writer.append(&mut framed).unwrap();
    writer.close().unwrap();
    process(&folder, false).convert_all();
    assert_eq!(self::segments(&folder), ["00000001.damaged"]);
    assert_eq!(parquet(&folder).len(), 1);
}

/// Converts when it is let.
struct Slow {
    real: convert::Parquet,
    begun: std::sync::mpsc::SyncSender<()>,
    go_on: Mutex<std::sync::mpsc::Receiver<()>>,
}

impl Convert for Slow {
    fn convert(&self, segment: &Path, folder: &Path) -> Result<Made, String> {
        self.begun.send(()).unwrap();
        self.go_on.lock().unwrap().recv().unwrap();
        self.real.convert(segment, folder)
    }
}

#[tokio::test]
async fn nobody_gets_the_folder_while_a_segment_is_being_converted_there() {
    let place = TempDir::new().unwrap();
    let folder = predlog::Folder::open(place.path()).unwrap();
    segment(&place, 1, 3);
    let ((begun, begins), (go_on, goes_on)) =
        (std::sync::mpsc::sync_channel(1), std::sync::mpsc::sync_channel(1));
    let settings = Settings {
        folder: place.path().to_owned(),
        lock: Some(folder.lock().clone()),
        instance: INSTANCE,
        disk: Disk { keep: None, keep_size: None, min_free: 0 },
        store: None,
        hold: Box::new(|_| {}),
    };
    let real = convert::Parquet::new(INSTANCE);
    let format = Box::new(Slow { real, begun, go_on: Mutex::new(goes_on) });
    let delivery = Delivery::start_with(settings, format).unwrap();
    drop(folder);
    begins.recv().unwrap();
    delivery.finish(Duration::ZERO).await;
    assert!(predlog::Folder::open(place.path()).is_err());
    go_on.send(()).unwrap();
    while predlog::Folder::open(place.path()).is_err() {
        sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(segments(&place), [""; 0], "it went on to the end");
}

/// Fails or panics for some segments.
struct Faulty {
    real: convert::Parquet,
    faults: Mutex<Vec<&'static str>>,
}

impl Convert for Faulty {
    fn convert(&self, segment: &Path, folder: &Path) -> Result<Made, String> {
        let fault = self.faults.lock().unwrap().pop();
        assert_ne!(fault, Some("panic"), "as asked");
        fault.map_or_else(|| self.real.convert(segment, folder), |fault| Err(fault.to_owned()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_cannot_be_converted_holds_up_no_other_and_is_tried_again() {
    let folder = folder();
    segment(&folder, 1, 1);
    segment(&folder, 2, 1);
    let real = convert::Parquet::new(INSTANCE);
    let faults = Mutex::new(vec!["no space", "panic"]);
    let process = process_with(&folder, false, Box::new(Faulty { real, faults }));
    process.converter.work(&process.claim());
    assert_eq!(process.claim().number, 2, "the first one pauses");
    tokio::time::advance(Duration::from_secs(1)).await;
    let first = process.claim();
    assert_eq!(first.number, 1);
    process.converter.work(&first);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(process.parts.backlog.claim(Duration::ZERO), None, "pauses grow");
    tokio::time::advance(Duration::from_secs(1)).await;
    process.converter.work(&process.claim());
    assert_eq!(segments(&folder), ["00000002.segment"]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_too_long_for_the_thread_that_yields_is_taken_by_another() {
    let folder = folder();
    segment(&folder, 1, 1);
    segment(&folder, 2, 1);
    let process = process(&folder, false);
    let backlog = &process.parts.backlog;
    let patience = Duration::from_secs(60);
    assert_eq!(process.claim().number, 1, "the one that yields is starved with it");
    assert_eq!(backlog.claim(patience), None);
    tokio::time::advance(patience).await;
    assert_eq!(backlog.claim(patience).unwrap().number, 2);
    assert_eq!(backlog.claim(patience), None, "nobody works on what another one does");
}

#[tokio::test]
async fn a_gateway_converts_delivers_and_ends() {
    let (folder, target) = (folder(), TempDir::new().unwrap());
    segment(&folder, 1, 3);
    let url = format!("file://{}", target.path().display());
    let text = format!("version = 1\n[prediction_log.store]\nurl = '{url}'");
    let config = crate::config::parse(&text, Path::new("")).unwrap().prediction_log.unwrap();
    let delivery = Delivery::start(Settings {
        folder: folder.path().to_owned(),
        lock: None,
        instance: INSTANCE,
        disk: Disk { keep: None, keep_size: None, min_free: 0 },
        store: config.store,
        hold: Box::new(|_| {}),
    });
    let delivery = delivery.unwrap();
    segment(&folder, 2, 3);
    delivery.wake();
    delivery.clone().finish(Duration::from_secs(30)).await;
    assert_eq!(delivery.status().segments, 0);
    assert_eq!(delivery.status().undelivered_files, 0);
    assert_eq!(parquet(&folder), BTreeMap::new());
    let arrived: Vec<_> = files(target.path()).into_keys().collect();
    assert_eq!(arrived.len(), 3, "{arrived:?}");
    assert_eq!(arrived[0], "_penstock/0000abcd");
    assert!(arrived[1].starts_with("files/model=digits/version=1/date="), "{arrived:?}");
}
