//! Which folder a row's lines are in.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::Row;

/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;
/// Hours since 1970 at the end of the year 9999, the last that dates can be written of.
const LAST: i64 = 2_932_897 * 24 - 1;

/// A model's version in an hour.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// `none` for calls that came to no model.
    pub model: String,
    pub version: String,
    /// Since 1970, UTC.
    pub hour: i64,
}

impl Partition {
    pub(crate) fn of(row: &Row) -> Self {
        let text = |text: &str| if text.is_empty() { "none" } else { text }.to_owned();
        Self {
            model: text(&row.model),
            version: text(&row.version),
            hour: row.arrived_us.div_euclid(HOUR).clamp(0, LAST),
        }
    }

    /// Its first microsecond since 1970, UTC.
    #[must_use]
    pub fn start_us(&self) -> i64 {
        self.hour * HOUR
    }

    /// The first microsecond after it.
    #[must_use]
    pub fn end_us(&self) -> i64 {
        self.start_us() + HOUR
    }

    /// `model=M/version=V/date=YYYY-MM-DD/hour=HH`; what is special in paths is escaped as in
    /// addresses, as Hive does.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(format!("model={}", escaped(&self.model)))
            .join(format!("version={}", escaped(&self.version)))
            .join(date_folder(self.hour.div_euclid(24)))
            .join(format!("hour={:02}", self.hour.rem_euclid(24)))
    }

    /// Reads what [`Partition::folder`] wrote.
    #[must_use]
    pub fn parse(folder: &std::path::Path) -> Option<Self> {
        let mut parts = folder.iter().map(|part| part.to_str());
        let mut next = |key: &str| parts.next()??.strip_prefix(key)?.strip_prefix('=');
        let (model, version) = (unescaped(next("model")?)?, unescaped(next("version")?)?);
        let (date, hour) = (next("date")?, next("hour")?.parse::<i64>().ok()?);
        Some(Self { model, version, hour: parse_date(date)? * 24 + hour })
    }
}

/// Days since 1970 of a time in microseconds since then, within what dates can be written of.
pub(crate) fn day(time_us: i64) -> i64 {
    time_us.div_euclid(HOUR).clamp(0, LAST).div_euclid(24)
}

/// `date=YYYY-MM-DD`, of days since 1970.
pub(crate) fn date_folder(day: i64) -> String {
    let (year, month, day) = date(day);
    format!("date={year:04}-{month:02}-{day:02}")
}

/// Days since 1970 of `YYYY-MM-DD`.
pub(crate) fn parse_date(date: &str) -> Option<i64> {
    let mut numbers = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    Some(days(numbers.next()??, numbers.next()??, numbers.next()??))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Year, month and day of a day since 1970. Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms" (<https://howardhinnant.github.io/date_algorithms.html>).
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Days since 1970; the other way round, from the same source.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(arrived_us: i64) -> Row {
        Row { model: "a/b c".into(), version: "3".into(), arrived_us, ..Row::default() }
    }

    #[test]
    fn a_row_is_in_the_folder_of_its_hour() {
        // 2024-02-29 23:59:59.999999
        let partition = Partition::of(&at(1_709_251_199_999_999));
        let expected = "model=a%2Fb%20c/version=3/date=2024-02-29/hour=23";
        assert_eq!(partition.folder(), PathBuf::from(expected));
        assert_eq!(
            Partition::of(&at(1_709_251_200_000_000)).folder().iter().nth(2).unwrap(),
            "date=2024-03-01"
        );
    }

    #[test]
    fn a_call_that_came_to_no_model_and_a_clock_gone_wild_have_folders_too() {
        let folder = |row: &Row| Partition::of(row).folder().to_str().unwrap().to_owned();
        assert_eq!(folder(&Row::default()), "model=none/version=none/date=1970-01-01/hour=00");
        assert!(folder(&at(i64::MIN)).ends_with("date=1970-01-01/hour=00"));
        assert!(folder(&at(i64::MAX)).ends_with("date=9999-12-31/hour=23"));
    }

    proptest! {
        #[test]
        fn folders_read_as_they_were_written(
            model in "\\PC{1,12}", version in "\\PC{1,4}", arrived_us in 0..LAST * HOUR,
        ) {
            let partition = Partition::of(&Row { model, version, arrived_us, ..Row::default() });
            prop_assert_eq!(Partition::parse(&partition.folder()), Some(partition.clone()));
            prop_assert!(partition.start_us() <= arrived_us && arrived_us < partition.start_us() + HOUR);
        }
    }
}
