//! The feedback of a segment becomes a file for each day on which it was received.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::file::{File, Saved};
use super::{Conversion, ConvertError, date_folder, day};
use crate::Feedback;
use crate::feedback::lines;

/// Lines of a batch.
const LINES: usize = 4096;

/// The files of a segment: hardly ever more than two, since segments are written for minutes.
pub(super) struct FeedbackFiles<'a> {
    conversion: &'a Conversion<'a>,
    days: BTreeMap<i64, Day>,
    count: u64,
}

#[derive(Default)]
struct Day {
    gathered: Vec<Feedback>,
    file: Option<File>,
}

impl<'a> FeedbackFiles<'a> {
    pub(super) fn new(conversion: &'a Conversion<'a>) -> Self {
        Self { conversion, days: BTreeMap::new(), count: 0 }
    }

    pub(super) fn push(&mut self, told: Feedback) -> Result<(), ConvertError> {
        self.count += 1;
        let number = day(told.received_us);
        let day = self.days.entry(number).or_default();
        day.gathered.push(told);
        if day.gathered.len() >= LINES { day.flush(self.conversion, number) } else { Ok(()) }
    }

    /// The files, and how much feedback there was.
    pub(super) fn finish(self) -> Result<(Vec<PathBuf>, u64), ConvertError> {
        let mut paths = Vec::with_capacity(self.days.len());
        for (number, mut day) in self.days {
            day.flush(self.conversion, number)?;
            if let Some(file) = day.file {
                let Saved { path, .. } = file.finish()?;
                paths.push(path);
            }
        }
        Ok((paths, self.count))
    }
}

impl Day {
    fn flush(&mut self, conversion: &Conversion<'_>, day: i64) -> Result<(), ConvertError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let batch = lines::batch(&self.gathered)?;
        self.gathered.clear();
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let stem = &conversion.stem;
                let folder = conversion.feedback.join(date_folder(day));
                let path = folder.join(format!("{stem}feedback.parquet"));
                none.insert(File::create(&path, &batch.schema(), vec![], conversion.options)?)
            }
        };
        file.write(&batch)
    }
}
