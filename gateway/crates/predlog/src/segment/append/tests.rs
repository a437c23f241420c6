//! Appending to storage that fails.

use proptest::prelude::*;

use super::super::frame::{HEAD, frame};
use super::super::frames::Frames;
use super::super::{Head, Kind};
use super::*;

impl Storage for &mut Vec<u8> {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A disk with little room.
#[derive(Debug)]
struct Disk {
    bytes: Vec<u8>,
    room: usize,
    can_cut: bool,
    can_sync: bool,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let fits = bytes.len().min(self.room - self.bytes.len());
        if fits == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for Disk {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        if !self.can_cut {
            return Err(io::Error::other("cannot cut"));
        }
        self.bytes.truncate(usize::try_from(length).unwrap());
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.can_sync { Ok(()) } else { Err(io::Error::other("cannot sync")) }
    }
}

fn disk(room: usize) -> Appender<Disk> {
    let bytes = Head::new(0, 0, 5).bytes().to_vec();
    Appender::new(Disk { bytes, room, can_cut: true, can_sync: true }, 5, HEAD as u64)
}

fn records(payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut framed = Vec::new();
    for payload in payloads {
        frame(Kind::Row, &mut framed, |out| out.extend_from_slice(payload));
    }
    framed
}

fn read(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Frames::new(io::Cursor::new(bytes)).unwrap();
    let mut payloads = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        payloads.push(frame.payload.to_vec());
    }
    assert_eq!(frames.gaps(), []);
    payloads
}

#[test]
fn what_cannot_be_cut_off_at_once_is_cut_off_before_anything_else() {
    let mut appender = disk(HEAD + 100);
    appender.append(&mut records(&[vec![1; 20]])).unwrap();
    let whole = appender.position();
    appender.storage.can_cut = false;
    let failed = appender.append(&mut records(&[vec![2; 50]])).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::StorageFull);
    assert!(failed.to_string().contains("could not be cut off: cannot cut"), "{failed}");
    assert!(appender.storage.bytes.len() as u64 > whole);
    appender.storage.room = 1000;
    assert_eq!(appender.append(&mut records(&[vec![3]])).unwrap_err().to_string(), "cannot cut");
    assert_eq!(appender.end().unwrap_err().to_string(), "cannot cut");
    assert_eq!(appender.position(), whole);
    appender.storage.can_cut = true;
    appender.append(&mut records(&[vec![4]])).unwrap();
    assert_eq!(read(&appender.storage.bytes), [vec![1; 20], vec![4]]);
    assert_eq!(appender.position(), appender.storage.bytes.len() as u64);
}

#[test]
fn half_a_record_is_refused_and_leaves_nothing() {
    let mut appender = disk(10_000);
    let mut framed = records(&[vec![1; 20], vec![2; 20]]);
    for cut in 1..framed.len() {
        let result = appender.append(&mut framed[..cut]);
        assert_eq!(result.is_ok(), cut == framed.len() / 2);
    }
    assert_eq!(read(&appender.storage.bytes), [vec![1; 20]]);
}

#[test]
fn after_a_failed_sync_nothing_is_taken_for_saved() {
    let mut appender = disk(1000);
    appender.sync().unwrap();
    appender.storage.can_sync = false;
    appender.sync().unwrap_err();
    appender.storage.can_sync = true;
    appender.sync().unwrap_err();
}

proptest! {
    #[test]
    fn a_disk_that_is_full_at_any_byte_takes_every_record_once_when_it_is_not(
        batches in prop::collection::vec(
            prop::collection::vec((0..30_000usize, any::<u8>()), 0..8), 1..12),
        rooms in prop::collection::vec(0..40_000usize, 0..60),
    ) {
        let mut appender = disk(HEAD);
        let mut rooms = rooms.into_iter();
        let mut expected = Vec::new();
        for batch in batches {
            let batch: Vec<Vec<u8>> =
                batch.into_iter().map(|(length, fill)| vec![fill; length]).collect();
            let mut framed = records(&batch);
            while let Err(error) = appender.append(&mut framed) {
                prop_assert_eq!(error.kind(), ErrorKind::StorageFull);
                prop_assert_eq!(&read(&appender.storage.bytes), &expected);
                appender.storage.room += rooms.next().unwrap_or(1 << 20);
            }
            expected.extend(batch);
            prop_assert_eq!(appender.position(), appender.storage.bytes.len() as u64);
        }
        while appender.end().is_err() {
            appender.storage.room += 7;
        }
        prop_assert_eq!(&read(&appender.storage.bytes), &expected);
    }
}
