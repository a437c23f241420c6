//! Points in time as people write them, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MINUTE: i64 = 60_000_000;

/// A point in time as it was written: at a fixed place, or so long before now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum When {
    /// Microseconds since 1970, UTC.
    At(i64),
    Before(Duration),
}

impl When {
    /// Microseconds since 1970, UTC.
    pub(in crate::cli) fn micros(self, now: SystemTime) -> i64 {
        match self {
            Self::At(time) => time,
            Self::Before(ago) => now.checked_sub(ago).and_then(micros).unwrap_or(0),
        }
    }
}

/// `2026-11-22`, `2026-11-22T10:00:00Z`, `2026-11-22T12:00:00+02:00`, `now`, or `-90m` for so long
/// ago. A time without a zone is in UTC.
pub(in crate::cli) fn parse(text: &str) -> Result<When, String> {
    let wrong = || {
        format!(
            "'{text}' is no time: write 2026-11-22, 2026-11-22T10:00:00Z, now, or -1h for an hour ago"
        )
    };
    if text == "now" {
        return Ok(When::Before(Duration::ZERO));
    }
    if let Some(ago) = text.strip_prefix('-') {
        return humantime::parse_duration(ago).map(When::Before).map_err(|_| wrong());
    }
    // Ten characters of date, then the time, which alone may be followed by a zone.
    let zone = text.char_indices().skip(11).find(|(_, c)| matches!(c, '+' | '-'));
    let (time, minutes) = match zone {
        Some((at, _)) => (&text[..at], offset(&text[at..]).ok_or_else(wrong)?),
        None => (text, 0),
    };
    let at = match time.len() {
        10 => humantime::parse_rfc3339_weak(&format!("{time}T00:00:00")),
        _ => humantime::parse_rfc3339_weak(time),
    };
    let at = at.ok().and_then(micros).ok_or_else(wrong)?;
    Ok(When::At(at - minutes * MINUTE))
}

/// `+02:00` in minutes.
fn offset(text: &str) -> Option<i64> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let part = |text: &str, end: i64| {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i64>().ok().filter(|number| is_number && *number < end)
    };
    Some(sign * (part(hours, 24)? * 60 + part(minutes, 60)?))
}

fn micros(time: SystemTime) -> Option<i64> {
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

/// A time in seconds, as RFC 3339 has it; `-` for one that cannot be.
pub(in crate::cli) fn shown(micros: i64) -> String {
    match u64::try_from(micros) {
        Ok(since) if micros < i64::MAX => {
            let time = UNIX_EPOCH + Duration::from_micros(since);
            humantime::format_rfc3339_seconds(time).to_string()
        }
        _ => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_709_208_000_000_000;

    #[test]
    fn times_are_read_in_every_way_that_people_write_them() {
        for text in [
            "2024-02-29T12:00:00Z",
            "2024-02-29T12:00:00",
            "2024-02-29 12:00:00",
            "2024-02-29T14:00:00+02:00",
            "2024-02-29T06:30:00-05:30",
        ] {
            assert_eq!(parse(text), Ok(When::At(NOON)), "{text}");
        }
        assert_eq!(parse("2024-02-29"), Ok(When::At(NOON - 12 * 60 * MINUTE)));
        assert_eq!(parse("2024-02-29T12:00:00.25Z"), Ok(When::At(NOON + 250_000)));
    }

    #[test]
    fn times_before_now_count_from_now() {
        let now = UNIX_EPOCH + Duration::from_micros(NOON.unsigned_abs());
        assert_eq!(parse("now").unwrap().micros(now), NOON);
        assert_eq!(parse("-90m").unwrap().micros(now), NOON - 90 * MINUTE);
        assert_eq!(parse("-1day").unwrap().micros(now), NOON - 24 * 60 * MINUTE);
        assert_eq!(parse("-1000y").unwrap().micros(now), 0);
    }

    #[test]
    fn what_is_no_time_is_named() {
        for text in
            ["", "1h", "-", "-h", "yesterday", "2024-02-30", "2024-02-29T12:00:00+2", "10:00", "ä"]
        {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("'{text}' is no time")), "{error}");
        }
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(shown(NOON + 1), "2024-02-29T12:00:00Z");
        assert_eq!([shown(-1), shown(i64::MAX)], ["-", "-"]);
    }
}
