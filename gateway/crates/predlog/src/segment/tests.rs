//! What is written is read, whatever happens to the file in between; nothing else is.

use std::io::{Cursor, Read, Seek, SeekFrom};

use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::append::Appender;
use super::frame::{END, End, HEAD, HEADER, seal};
use super::frames::Frames;
use super::*;

const KEY: u64 = 0x5eed_0123_4567_89ab;

/// A closed segment, with the places at which its records and its end begin.
struct Image {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    payloads: Vec<Vec<u8>>,
}

fn image(payloads: Vec<Vec<u8>>) -> Image {
    let mut bytes = Head::new(1, 2, KEY).bytes().to_vec();
    let mut starts = Vec::new();
    let mut appender = Appender::new(&mut bytes, KEY, HEAD as u64);
    for payload in &payloads {
        let mut framed = Vec::new();
        assert!(frame(Kind::Row, &mut framed, |out| out.extend_from_slice(payload)));
        starts.push(usize::try_from(appender.position()).unwrap());
        appender.append(&mut framed).unwrap();
    }
    starts.push(usize::try_from(appender.position()).unwrap());
    appender.end().unwrap();
    Image { bytes, starts, payloads }
}

/// Payloads that differ, some with what looks like records and the end of a file.
fn payloads(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let payload = (0..6000usize, 0..4usize, any::<u64>());
    prop::collection::vec(payload, count).prop_map(|all| {
        let made = all.into_iter().enumerate().map(|(index, (length, forged, seed))| {
            let mut payload = (index as u64).to_le_bytes().to_vec();
            for part in 0..forged as u64 {
                let mut forged = Vec::new();
                frame(Kind::Row, &mut forged, |out| out.extend_from_slice(b"forged"));
                seal(&mut forged, seed ^ part);
                payload.extend(&forged);
                payload.extend(End { key: seed ^ part, at: seed % 100_000 }.bytes());
                payload.extend(&forged);
            }
            payload.resize(payload.len() + length, seed.to_le_bytes()[0]);
            payload
        });
        made.collect()
    })
}

struct Found {
    payloads: Vec<Vec<u8>>,
    gaps: Vec<Damage>,
    has_ended: bool,
}

fn read(bytes: &[u8]) -> Found {
    let mut frames = Frames::new(Cursor::new(bytes)).unwrap();
    let mut payloads = Vec::new();
    while let Some(frame) = frames.next().unwrap() {
        payloads.push(frame.payload.to_vec());
    }
    let gaps = frames.gaps().to_vec();
    for gap in &gaps {
        assert!(gap.offset + gap.length <= bytes.len() as u64, "{gap}");
    }
    assert!(gaps.windows(2).all(|pair| pair[0].offset + pair[0].length <= pair[1].offset));
    Found { payloads, gaps, has_ended: frames.has_ended() }
}

/// Whether `some` are among `all`, each once and in their order.
fn are_among(some: &[Vec<u8>], all: &[Vec<u8>]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| one == other))
}

#[test]
fn a_whole_segment_reads_as_it_was_written() {
    let image = image(vec![b"".to_vec(), b"a".to_vec(), vec![7; 200_000], b"b".to_vec()]);
    let read = read(&image.bytes);
    assert_eq!(read.payloads, image.payloads);
    assert!(read.has_ended);
    assert_eq!(read.gaps, []);
}

#[test]
fn any_changed_byte_is_named_and_gives_nothing_that_was_not_written() {
    let image = image((0u8..20).map(|index| vec![index; 7 * usize::from(index)]).collect());
    for at in 0..image.bytes.len() {
        for bits in [0x01, 0x80, 0xff] {
            let mut bytes = image.bytes.clone();
            bytes[at] ^= bits;
            let read = read(&bytes);
            assert!(are_among(&read.payloads, &image.payloads), "byte {at}");
            let near = |gap: &Damage| (gap.offset..gap.offset + gap.length).contains(&(at as u64));
            assert!(read.gaps.iter().any(near), "byte {at}: {:?}", read.gaps);
            // Records before it are read.
            let before = image.starts.iter().filter(|start| **start <= at).count();
            assert!(read.payloads.len() + 2 >= before, "byte {at}");
        }
    }
}

#[test]
fn a_damaged_payload_costs_its_record_alone() {
    let image = image((0u8..9).map(|index| vec![index; 100]).collect());
    let at = image.starts[4] + HEADER + 50;
    let mut bytes = image.bytes;
    bytes[at] ^= 1;
    let mut expected = image.payloads;
    expected.remove(4);
    let read = read(&bytes);
    assert_eq!(read.payloads, expected);
    let (offset, length) = (image.starts[4] as u64, (HEADER + 100) as u64);
    assert_eq!(read.gaps, [Damage { offset, length, reason: Reason::Payload }]);
}

#[test]
fn a_damaged_head_of_a_record_costs_that_record_alone() {
    let image = image((0..2000u32).map(|index| index.to_le_bytes().repeat(50)).collect());
    for byte in 0..HEADER {
        let mut bytes = image.bytes.clone();
        bytes[image.starts[1000] + byte] ^= 1;
        let mut expected = image.payloads.clone();
        expected.remove(1000);
        let read = read(&bytes);
        assert_eq!(read.payloads, expected);
        let (offset, length) = (image.starts[1000] as u64, (HEADER + 200) as u64);
        assert_eq!(read.gaps, [Damage { offset, length, reason: Reason::RecordHead }]);
        assert!(read.has_ended);
    }
}

#[test]
fn whole_records_that_are_taken_away_or_put_in_are_noticed_at_the_end() {
    let image = image((0u8..9).map(|index| vec![index; 100]).collect());
    let (from, to) = (image.starts[3], image.starts[5]);
    let (mut less, mut more) = (image.bytes.clone(), image.bytes.clone());
    less.drain(from..to);
    more.splice(from..from, image.bytes[from..to].to_vec());
    for bytes in [less, more] {
        let offset = (bytes.len() - END) as u64;
        let read = read(&bytes);
        assert_eq!(read.gaps, [Damage { offset, length: 0, reason: Reason::Displaced }]);
        assert!(read.has_ended);
    }
}

#[test]
fn without_its_first_page_a_closed_segment_reads_from_the_next_record_on() {
    let image = image((0..2000u32).map(|index| index.to_le_bytes().repeat(50)).collect());
    let mut bytes = image.bytes;
    bytes[..4096].fill(0);
    let read = read(&bytes);
    assert_eq!(read.gaps.len(), 1, "{:?}", read.gaps);
    assert_eq!((read.gaps[0].offset, read.gaps[0].reason), (0, Reason::Head));
    let lost = image.starts.iter().filter(|start| **start < 4096).count();
    assert_eq!(read.payloads, image.payloads[lost..]);
}

#[test]
fn a_damaged_head_of_a_file_costs_nothing_but_itself_whether_the_file_was_closed_or_not() {
    let image = image((0u8..9).map(|index| vec![index; 100]).collect());
    let open = &image.bytes[..image.bytes.len() - END];
    for at in 0..HEAD {
        for whole in [&image.bytes[..], open] {
            let mut bytes = whole.to_vec();
            bytes[at] ^= 1;
            let read = read(&bytes);
            // The key stands here, and in the end of a file that was closed.
            let has_key = whole.len() > open.len() || !(28..36).contains(&at);
            assert_eq!(read.payloads.len(), if has_key { 9 } else { 0 }, "byte {at}");
            assert_eq!((read.gaps[0].offset, read.gaps[0].reason), (0, Reason::Head));
        }
    }
}

#[test]
fn the_longest_record_is_read_and_longer_ones_are_not_written() {
    let mut framed = Vec::new();
    assert!(frame(Kind::Row, &mut framed, |out| out.extend_from_slice(b"before")));
    let whole = framed.len();
    assert!(!frame(Kind::Row, &mut framed, |out| out.resize(out.len() + LONGEST + 1, 1)));
    assert_eq!(framed.len(), whole);
    assert!(frame(Kind::Row, &mut framed, |out| out.resize(out.len() + LONGEST, 1)));
    let mut bytes = Head::new(1, 2, KEY).bytes().to_vec();
    Appender::new(&mut bytes, KEY, HEAD as u64).append(&mut framed).unwrap();
    let mut frames = Frames::new(Cursor::new(&bytes)).unwrap();
    assert_eq!(frames.next().unwrap().unwrap().payload, b"before".as_slice());
    assert_eq!(frames.next().unwrap().unwrap().payload.len(), LONGEST);
    assert_eq!(frames.next().unwrap(), None);
}

/// A disk of which some blocks cannot be read any more.
struct Failing<'a> {
    bytes: Cursor<&'a [u8]>,
    bad: Vec<u64>,
    failures: usize,
}

const BLOCK: u64 = 4096;

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let at = self.bytes.position();
        if self.bad.contains(&(at / BLOCK)) {
            self.failures += 1;
            return Err(io::Error::from_raw_os_error(5));
        }
        let next = self.bad.iter().map(|block| block * BLOCK).filter(|bad| *bad > at).min();
        let most =
            next.map_or(into.len(), |next| into.len().min(usize::try_from(next - at).unwrap()));
        self.bytes.read(&mut into[..most])
    }
}

impl Seek for Failing<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

#[test]
fn what_a_disk_cannot_read_costs_what_stands_near_it() {
    let image = image((0..6000u32).map(|index| index.to_le_bytes().repeat(50)).collect());
    let blocks = image.bytes.len() as u64 / BLOCK;
    for bad in [vec![0], vec![17], vec![20, 21, 22], vec![blocks], vec![3, 90, 200]] {
        let mut disk = Failing { bytes: Cursor::new(&image.bytes), bad: bad.clone(), failures: 0 };
        let mut frames = Frames::new(&mut disk).unwrap();
        let mut payloads = Vec::new();
        while let Some(frame) = frames.next().unwrap() {
            payloads.push(frame.payload.to_vec());
        }
        assert!(are_among(&payloads, &image.payloads), "{bad:?}");
        // Those that reach into what is bad, which may be a little more than the blocks that are.
        let most = bad.len() * (4096 / (HEADER + 200) + 2);
        assert!(payloads.len() >= 6000 - most, "{bad:?}: {}", payloads.len());
        let named = |block: &u64| {
            let at = (block * BLOCK).max(1);
            frames.gaps().iter().any(|gap| (gap.offset..gap.offset + gap.length).contains(&at))
        };
        assert!(bad.iter().all(named), "{bad:?}: {:?}", frames.gaps());
        let is_told = |gap: &Damage| matches!(gap.reason, Reason::Disk | Reason::Head);
        assert!(frames.gaps().iter().all(is_told), "{:?}", frames.gaps());
    }
}

#[test]
fn a_disk_of_which_nothing_can_be_read_is_not_asked_for_every_block() {
    let image = image((0..6000u32).map(|index| index.to_le_bytes().repeat(500)).collect());
    let blocks = image.bytes.len() as u64 / BLOCK;
    assert!(blocks > 2500);
    let bytes = Cursor::new(&image.bytes[..]);
    let mut disk = Failing { bytes, bad: (10..=blocks).collect(), failures: 0 };
    let mut frames = Frames::new(&mut disk).unwrap();
    while frames.next().unwrap().is_some() {}
    assert_eq!(frames.gaps().len(), 1);
    assert!(disk.failures < 40, "{}", disk.failures);
}

#[test]
fn gaps_without_number_take_bounded_memory() {
    let image = image((0..5000u32).map(|index| index.to_le_bytes().to_vec()).collect());
    let mut bytes = image.bytes;
    for start in image.starts.iter().step_by(2).skip(1) {
        bytes[start + HEADER] ^= 1;
    }
    let read = read(&bytes);
    assert!(are_among(&read.payloads, &image.payloads));
    assert!(read.payloads.len() >= 2490);
    assert_eq!(read.gaps.len(), 1024);
    let last = read.gaps.last().unwrap();
    assert!(last.offset + last.length > bytes.len() as u64 * 9 / 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_cut_anywhere_reads_as_what_was_first_written(
        payloads in payloads(0..40), at in any::<Index>(),
    ) {
        let image = image(payloads);
        let at = at.index(image.bytes.len());
        let read = read(&image.bytes[..at]);
        let length = image.bytes.len();
        let ends = image.starts.iter().skip(1).chain([&length]);
        let whole = image.starts.iter().zip(ends).filter(|(start, end)| {
            **end <= at && **start < length - END
        }).count();
        prop_assert_eq!(&read.payloads, &image.payloads[..whole]);
        prop_assert!(!read.has_ended);
        prop_assert_eq!(read.gaps.is_empty(), at == HEAD || image.starts.contains(&at));
    }

    #[test]
    fn damage_of_any_kind_is_named_and_costs_what_it_touches_alone(
        payloads in payloads(1..60),
        from in any::<Index>(), length in prop_oneof![1..20usize, 1..5000usize, 1..100_000usize],
        how in 0..3, fill in prop_oneof![Just(0), any::<u8>()],
    ) {
        let image = image(payloads);
        let from = from.index(image.bytes.len());
        let to = (from + length).min(image.bytes.len());
        let mut bytes = image.bytes.clone();
        match how {
            0 => bytes[from..to].fill(fill),
            1 => bytes[from..to].iter_mut().for_each(|byte| *byte ^= fill | 1),
            _ => drop(bytes.drain(from..to)),
        }
        let read = read(&bytes);
        prop_assert!(are_among(&read.payloads, &image.payloads));
        // Without the head of the file and its end, nothing tells its records.
        let end = image.starts.last().copied().unwrap();
        let has_key = from >= HEAD || (to <= end && how < 2);
        let places = image.starts.windows(2).map(|pair| (pair[0], pair[1]));
        let whole = places.filter(|(start, behind)| *behind <= from || *start >= to).count();
        prop_assert!(!has_key || read.payloads.len() >= whole);
        let is_named = !read.gaps.is_empty() || !read.has_ended;
        prop_assert!(is_named || bytes == image.bytes, "{:?}", read.gaps);
    }

    #[test]
    fn bytes_that_were_put_in_cost_the_record_that_they_tear_and_are_named(
        payloads in payloads(1..60), at in any::<Index>(), length in 1..100_000usize,
        from in any::<Index>(), is_own in any::<bool>(),
    ) {
        let image = image(payloads);
        let at = at.index(image.bytes.len() - HEAD) + HEAD;
        let from = from.index(image.bytes.len());
        let to = (from + length).min(image.bytes.len());
        let put_in = if is_own { image.bytes[from..to].to_vec() } else { vec![7; length] };
        let mut bytes = image.bytes.clone();
        bytes.splice(at..at, put_in);
        let read = read(&bytes);
        // Records of the file that were put in again are what was written.
        prop_assert!(read.payloads.iter().all(|payload| image.payloads.contains(payload)));
        let pairs = image.starts.windows(2).zip(&image.payloads);
        let mut whole = pairs.filter(|(place, _)| place[1] <= at || place[0] >= at);
        prop_assert!(whole.all(|(_, payload)| read.payloads.contains(payload)));
        prop_assert!(!read.gaps.is_empty() || !read.has_ended);
    }

    #[test]
    fn bytes_of_any_kind_are_read_without_harm(
        bytes in prop::collection::vec(any::<u8>(), 0..4000), has_head in any::<bool>(),
    ) {
        let head = Head::new(1, 2, KEY).bytes();
        let bytes = [if has_head { &head[..] } else { &[] }, &bytes[..]].concat();
        prop_assert!(read(&bytes).payloads.is_empty());
    }
}

mod files;
