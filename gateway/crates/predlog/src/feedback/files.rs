//! All feedback of a log: that of its files and of the segments that are not converted yet.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{Feedback, lines};
use crate::convert::parse_date;
use crate::read::{ReadError, guarded, held, instance, next_batch, segment_of};
use crate::segment::{Reader, Record};

/// Lines of a batch that is read.
const LINES: usize = 4096;

/// The files of feedback of a log with the day on which it was received, in days since 1970; the
/// oldest first.
///
/// # Errors
///
/// What reading the folders gives.
pub fn files(log: &Path) -> io::Result<Vec<(i64, PathBuf)>> {
    let mut found = Vec::new();
    for folder in entries(&log.join("feedback"))? {
        let name = folder.file_name().and_then(|name| name.to_str());
        let Some(day) = name.and_then(|name| parse_date(name.strip_prefix("date=")?)) else {
            continue;
        };
        found.extend(entries(&folder)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            let is_file = !name.starts_with('.') && name.ends_with(".parquet");
            is_file.then_some((day, path))
        }));
    }
    found.sort_unstable();
    Ok(found)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        // Retention removes folders as well.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        entries => entries?,
    };
    entries.map(|entry| entry.map(|entry| entry.path())).collect()
}

/// Reads all feedback; some may come twice. `wants` says of which days files are read. `take` may
/// end it. Files that cannot be read end nothing and are returned.
pub(super) fn each(
    log: &Path,
    wants: impl Fn(i64) -> bool,
    mut take: impl FnMut(Feedback) -> Result<(), ReadError>,
) -> Result<Vec<ReadError>, ReadError> {
    let damaged = RefCell::new(Vec::new());
    // Before the files: what is converted in between is read twice, or once more below.
    let segments = held(log).map_err(ReadError::io(log))?;
    let own = instance(log).map_err(ReadError::io(log))?.unwrap_or(0);
    let read = |is_wanted: &dyn Fn(&Path) -> bool, take: &mut dyn FnMut(_) -> _| {
        for (day, path) in files(log).map_err(ReadError::io(log))? {
            if wants(day) && is_wanted(&path) {
                file(&path, take, &damaged)?;
            }
        }
        Ok::<_, ReadError>(())
    };
    read(&|_| true, &mut take)?;
    for (number, path) in segments {
        match Reader::open(&path) {
            Ok(mut reader) => loop {
                match reader.next() {
                    Ok(None) => break,
                    Ok(Some(Record::Feedback(told))) => take(told)?,
                    Ok(Some(_)) => {}
                    Err(error) => {
                        damaged.borrow_mut().push(ReadError::io(&path)(error));
                        break;
                    }
                }
            },
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // Converted and deleted since it was listed.
                read(&|path| segment_of(path, own) == Some(number), &mut take)?;
            }
            Err(error) => damaged.borrow_mut().push(ReadError::io(&path)(error)),
        }
    }
    Ok(damaged.into_inner())
}

fn file(
    path: &Path,
    take: &mut dyn FnMut(Feedback) -> Result<(), ReadError>,
    damaged: &RefCell<Vec<ReadError>>,
) -> Result<(), ReadError> {
    let note = |error| {
        damaged.borrow_mut().push(error);
        Ok(())
    };
    let file = match File::open(path) {
        // Its time was over.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return note(ReadError::io(path)(error)),
        Ok(file) => file,
    };
    let open = || ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(LINES).build();
    let mut reader = match guarded(open) {
        Err(error) => return note(ReadError::parquet(path)(error)),
        Ok(reader) => reader,
    };
    loop {
        let batch = match next_batch(&mut reader, path) {
            Err(error) => return note(error),
            Ok(None) => break,
            Ok(Some(batch)) => batch,
        };
        let mut result = Ok(());
        lines::read(&batch, |told| {
            if result.is_ok() {
                result = take(told);
            }
        });
        result?;
    }
    Ok(())
}
