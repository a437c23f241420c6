//! Which files a log has.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::ReadError;
use crate::convert::{COVERED, CRC, Partition, stem};

/// Folders between that of the files and a file: model, version, date and hour.
const DEPTH: usize = 4;

/// The Parquet files of a log with their partitions, the oldest hour first. Files elsewhere than
/// in the folder of a partition are not the log's.
///
/// # Errors
///
/// What reading the folders gives.
pub fn files(log: &Path) -> io::Result<Vec<(Partition, PathBuf)>> {
    let root = log.join("files");
    let mut found = Vec::new();
    walk(&root, DEPTH, &mut |path| {
        let folder = path.parent().and_then(|folder| folder.strip_prefix(&root).ok());
        let partition = folder.and_then(Partition::parse);
        found.extend(partition.map(|partition| (partition, path)));
    })?;
    found.sort_unstable_by(|(a, path), (b, other)| {
        (a.hour, &a.model, &a.version, path).cmp(&(b.hour, &b.model, &b.version, other))
    });
    Ok(found)
}

fn walk(folder: &Path, depth: usize, found: &mut impl FnMut(PathBuf)) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        // Retention removes folders as well.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if depth > 0 && entry.file_type()?.is_dir() {
            walk(&path, depth - 1, found)?;
        } else if depth == 0 && !is_hidden && path.extension().is_some_and(|of| of == "parquet") {
            found(path);
        }
    }
    Ok(())
}

/// Reads of a Parquet file. Its checksum does not cover the footer, and what is damaged there may
/// surprise the reader: that is an error like others.
///
/// # Errors
///
/// Those of `read`, and its panics.
pub(crate) fn guarded<T>(
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, ParquetError> {
    let text = "its footer contradicts its pages";
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General(text.to_owned())))
}

/// What the footer of a Parquet file says.
///
/// # Errors
///
/// Where it cannot be read.
pub(crate) fn footer(file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
    guarded(|| ArrowReaderMetadata::load(file, ArrowReaderOptions::new()))
}

/// Compares the bytes before the footer with their checksum. Files of others have none.
pub(crate) fn summed(mut file: &File, metadata: &ParquetMetaData) -> Result<(), String> {
    let entries = metadata.file_metadata().key_value_metadata();
    let value = |key: &str| {
        entries?.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.as_deref())
    };
    let (Some(crc), Some(covered)) = (value(CRC), value(COVERED)) else { return Ok(()) };
    let covered = covered.parse().map_err(|_| "its footer is damaged".to_owned())?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    file.rewind().map_err(|error| error.to_string())?;
    let mut rest = file.take(covered);
    loop {
        let count = rest.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    if format!("{:08x}", hasher.finalize()) == crc {
        Ok(())
    } else {
        Err("it does not match its checksum".to_owned())
    }
}

/// The next lines of a file.
///
/// # Errors
///
/// Where they cannot be read.
pub(crate) fn next_batch(
    reader: &mut ParquetRecordBatchReader,
    path: &Path,
) -> Result<Option<RecordBatch>, ReadError> {
    guarded(|| Ok(reader.next().transpose()?)).map_err(ReadError::parquet(path))
}

/// The number of the segment that a file is of, by its name, where it is one of this instance.
pub(crate) fn segment_of(path: &Path, instance: u32) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = name.split('-').nth(1)?.parse().ok()?;
    name.starts_with(&stem(instance, number)).then_some(number)
}

/// Which instance's the segments of a log are; `None` where a folder has only files.
///
/// # Errors
///
/// What reading the file gives.
pub fn instance(log: &Path) -> io::Result<Option<u32>> {
    match fs::read_to_string(log.join("instance")) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => {
            let text = text?;
            let first = text.split_whitespace().next();
            Ok(first.and_then(|digits| u32::from_str_radix(digits, 16).ok()))
        }
    }
}
