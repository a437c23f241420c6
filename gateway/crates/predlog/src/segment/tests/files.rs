//! Segments as files: written, closed, recovered, read.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};

use super::*;

fn schema() -> Schema {
    Schema { model: "digits".into(), inputs: vec![], outputs: vec![] }
}

fn row(number: u64) -> Vec<u8> {
    let mut framed = Vec::new();
    let row = crate::RowRef { revision: number, model: "digits", ..Default::default() };
    frame(Kind::Row, &mut framed, |out| row.encode(out));
    framed
}

fn records(path: &Path) -> (Vec<Record>, Option<Damage>) {
    let mut reader = Reader::open(path).unwrap();
    let mut records = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        records.push(record);
    }
    (records, reader.damage())
}

fn rows(path: &Path) -> Vec<u64> {
    let revision = |record| match record {
        Record::Row(row) => row.revision,
        other => panic!("{other:?}"),
    };
    records(path).0.into_iter().map(revision).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_segment_reads_as_it_was_written_while_and_after_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let feedback = Feedback { id: "f".into(), ..Default::default() };
    let mut framed = Vec::new();
    frame(Kind::Schema, &mut framed, |out| schema().encode(out).unwrap());
    framed.extend(row(1));
    frame(Kind::Feedback, &mut framed, |out| feedback.encode(out).unwrap());

    let mut writer = Writer::create(folder.path(), 7, -5, 9).unwrap();
    writer.append(&mut framed).unwrap();
    assert_eq!(names(folder.path()), ["00000007.open"]);
    let open = list_open(folder.path()).unwrap().remove(0).1;
    assert_eq!(writer.position(), fs::metadata(&open).unwrap().len());
    let (live, damage) = records(&open);
    assert_eq!((live.len(), damage), (3, None));
    writer.sync().unwrap();
    let path = writer.close().unwrap();
    assert_eq!(writer.close().unwrap(), path);
    assert_eq!(writer.append(&mut framed).unwrap_err().kind(), ErrorKind::InvalidInput);

    assert_eq!(list(folder.path()).unwrap(), [(7, path.clone())]);
    let (closed, damage) = records(&path);
    assert_eq!((&closed, damage), (&live, None));
    assert_eq!(closed[0], Record::Schema(schema().id(), schema()));
    assert!(matches!(&closed[1], Record::Row(row) if row.revision == 1));
    assert_eq!(closed[2], Record::Feedback(feedback));
    let reader = Reader::open(&path).unwrap();
    assert_eq!((reader.head().created_us, reader.head().instance), (-5, 9));
}

#[test]
fn numbers_that_are_taken_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    let taken = |number| Writer::create(folder.path(), number, 0, 0).unwrap_err().kind();
    assert_eq!(taken(1), ErrorKind::AlreadyExists);
    writer.close().unwrap();
    assert_eq!(taken(1), ErrorKind::AlreadyExists);
    Writer::create(folder.path(), 123_456_789, 0, 0).unwrap().close().unwrap();
    fs::write(folder.path().join("notes.segment"), "").unwrap();
    let numbers: Vec<u64> = list(folder.path()).unwrap().into_iter().map(|one| one.0).collect();
    assert_eq!(numbers, [1, 123_456_789]);
}

#[test]
fn a_segment_that_lost_its_end_says_so_even_where_its_records_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    writer.append(&mut row(1)).unwrap();
    let whole = writer.position();
    writer.append(&mut row(2)).unwrap();
    let path = writer.close().unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(whole).unwrap();
    assert_eq!(rows(&path), [1]);
    let damage = Damage { offset: whole, length: 0, reason: Reason::Cut };
    assert_eq!(records(&path).1, Some(damage));
}

#[test]
fn records_of_later_versions_are_passed_over_and_what_cannot_be_understood_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    let mut later = Vec::new();
    super::frame::frame_as(9, &mut later, |out| out.extend_from_slice(b"?"));
    writer.append(&mut later).unwrap();
    let offset = writer.position();
    let mut bad = Vec::new();
    frame(Kind::Row, &mut bad, |out| out.extend_from_slice(&[0xff; 3]));
    writer.append(&mut bad).unwrap();
    writer.append(&mut row(3)).unwrap();
    let path = writer.close().unwrap();
    assert_eq!(rows(&path), [3]);
    let length = (HEADER + 3) as u64;
    assert_eq!(records(&path).1, Some(Damage { offset, length, reason: Reason::Unreadable }));
    let mut reader = Reader::open(&path).unwrap();
    while reader.next().unwrap().is_some() {}
    assert_eq!(reader.unknown(), 1);
}

#[test]
fn an_end_that_is_being_written_is_no_damage_until_the_segment_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    writer.append(&mut [row(1), row(2)].concat()).unwrap();
    let open = list_open(folder.path()).unwrap().remove(0).1;
    let whole = fs::metadata(&open).unwrap().len();
    for cut in 1..row(2).len() as u64 {
        OpenOptions::new().write(true).open(&open).unwrap().set_len(whole - cut).unwrap();
        assert_eq!((rows(&open), records(&open).1), (vec![1], None), "{cut}");
    }
    let closed = closed_path(folder.path(), 1);
    fs::rename(&open, &closed).unwrap();
    assert_eq!(records(&closed).1.unwrap().reason, Reason::Torn);
    fs::rename(&closed, &open).unwrap();
    // Also while its head is being written.
    for length in (0..HEAD as u64).rev() {
        OpenOptions::new().write(true).open(&open).unwrap().set_len(length).unwrap();
        assert_eq!((rows(&open), records(&open).1), (vec![], None), "{length}");
    }
    fs::rename(open, &closed).unwrap();
    assert_eq!(records(&closed).1.unwrap().reason, Reason::Head);
}

#[test]
fn a_segment_is_always_whole_for_those_who_read_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    let open = list_open(folder.path()).unwrap().remove(0).1;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..400 {
                writer.append(&mut (0..50).flat_map(|_| row(number)).collect::<Vec<_>>()).unwrap();
            }
            writer.close().unwrap();
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        let mut before = 0;
        loop {
            let was_done = done.load(std::sync::atomic::Ordering::SeqCst);
            let (records, damage) = records(&open);
            assert_eq!(damage, None);
            assert!(records.len() >= before);
            before = records.len();
            if was_done {
                break;
            }
        }
        assert_eq!(before, 20_000);
    });
}

#[test]
fn a_format_of_a_later_version_is_left_alone_and_holds_up_no_other_segment() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Head::new(1, 2, 3).bytes();
    bytes[8] = 2;
    let sum = crc32fast::hash(&bytes[..HEAD - 4]).to_le_bytes();
    bytes[HEAD - 4..].copy_from_slice(&sum);
    let path = folder.path().join("00000001.open");
    fs::write(&path, bytes).unwrap();
    assert_eq!(Reader::open(&path).unwrap_err().kind(), ErrorKind::Unsupported);
    let mut writer = Writer::create(folder.path(), 2, 0, 0).unwrap();
    writer.append(&mut row(1)).unwrap();
    drop(writer);
    let recovered = recover(folder.path()).unwrap();
    assert_eq!(recovered[0].path, path);
    assert!(recovered[0].problem.as_ref().is_some_and(|text| text.contains("format 2")));
    assert_eq!((recovered[1].rows, &recovered[1].problem), (1, &None));
    assert_eq!(names(folder.path()), ["00000001.open", "00000002.segment"]);
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_crash_at_any_byte_keeps_whole_records_once_and_recovery_may_crash_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    let mut ends = vec![];
    for number in 0..5 {
        writer.append(&mut row(number)).unwrap();
        ends.push(writer.position());
    }
    let closed = writer.close().unwrap();
    let bytes = fs::read(&closed).unwrap();
    fs::remove_file(&closed).unwrap();
    let open = folder.path().join("00000001.open");
    for cut in 0..=bytes.len() {
        fs::write(&open, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut as u64).count();
        let recovered = recover(folder.path()).unwrap();
        if cut <= HEAD {
            assert!(recovered.is_empty() && names(folder.path()).is_empty(), "{cut} bytes");
            continue;
        }
        assert_eq!((recovered.len(), recovered[0].rows), (1, whole as u64));
        let boundary = ends.iter().copied().chain([HEAD as u64, bytes.len() as u64]);
        let end = boundary.filter(|end| *end <= cut as u64).max().unwrap();
        let lost = cut as u64 - end;
        assert_eq!(recovered[0].damage.map_or(0, |damage| damage.length), lost, "{cut} bytes");
        // Recovery that is itself cut off before the rename does the same again, whatever the
        // disk put behind what it wrote.
        fs::rename(&recovered[0].path, &open).unwrap();
        let behind = [0; 8][cut % 9..].to_vec();
        OpenOptions::new().append(true).open(&open).unwrap().write_all(&behind).unwrap();
        let again = recover(folder.path()).unwrap();
        assert_eq!(again[0].rows, whole as u64);
        assert_eq!(again[0].damage.map_or(0, |damage| damage.length), behind.len() as u64);
        assert!(recover(folder.path()).unwrap().is_empty());
        assert_eq!(rows(&closed), (0..whole as u64).collect::<Vec<_>>());
        assert_eq!(records(&closed).1, None, "{cut} bytes");
        assert_eq!(names(folder.path()), ["00000001.segment"]);
        fs::remove_file(&closed).unwrap();
    }
}

#[test]
fn recovery_keeps_what_is_whole_behind_damage_and_readers_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path(), 1, 0, 0).unwrap();
    let mut ends = vec![];
    for number in 0..5 {
        writer.append(&mut row(number)).unwrap();
        ends.push(writer.position());
    }
    drop(writer);
    let open = folder.path().join("00000001.open");
    let mut bytes = fs::read(&open).unwrap();
    bytes[usize::try_from(ends[1]).unwrap() + HEADER] ^= 1;
    bytes.extend(vec![0; 5000]);
    fs::write(&open, bytes).unwrap();
    let recovered = recover(folder.path()).unwrap().remove(0);
    assert_eq!(recovered.rows, 4);
    let cut = Damage { offset: ends[4], length: 5000, reason: Reason::RecordHead };
    assert_eq!(recovered.damage, Some(cut));
    assert_eq!(rows(&recovered.path), [0, 1, 3, 4]);
    let length = ends[2] - ends[1];
    let middle = Damage { offset: ends[1], length, reason: Reason::Payload };
    assert_eq!(records(&recovered.path).1, Some(middle));
}

#[test]
fn a_file_without_anything_whole_is_kept_and_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("00000001.open"), [0; 9000]).unwrap();
    let recovered = recover(folder.path()).unwrap().remove(0);
    assert_eq!((recovered.rows, recovered.damage), (0, None));
    assert_eq!(fs::read(&recovered.path).unwrap(), [0; 9000]);
    let (found, damage) = records(&recovered.path);
    assert!(found.is_empty());
    assert_eq!(damage, Some(Damage { offset: 0, length: 9000, reason: Reason::Head }));
}
