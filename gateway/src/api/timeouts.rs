//! Until when somebody waits for an answer, as the headers of a call say: `penstock-timeout` on
//! both protocols and `grpc-timeout` over gRPC. Of several times the shortest holds.

use std::time::Duration;

use http::HeaderMap;
use http::header::GetAll;
use tokio::time::Instant;

use super::parameters::shorten;
use crate::error::{Kind, Rejection};
use crate::types::Deadline;

/// A duration such as `250ms`, or a number of milliseconds.
const OWN: &str = "penstock-timeout";
/// The timeout of gRPC over HTTP/2.
const GRPC: &str = "grpc-timeout";
/// No duration that anybody means is longer, as text.
const LONGEST: usize = 64;

/// When a call arrived, and until when its headers say that somebody waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub at: Instant,
    pub deadline: Option<Deadline>,
}

/// The times that the headers of a request name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub own: Option<Duration>,
    pub grpc: Option<Duration>,
}

impl Timeouts {
    /// Reads `penstock-timeout`.
    ///
    /// # Errors
    /// `InvalidInput` when it is there and no time.
    pub fn over_http(headers: &HeaderMap) -> Result<Self, Rejection> {
        let own = shortest(headers.get_all(OWN), own).map_err(|value| {
            let value = shorten(&value);
            Rejection::invalid(format!(
                "{OWN} '{value}' must be a duration such as '250ms', or a number of milliseconds"
            ))
        })?;
        Ok(Self { own, grpc: None })
    }

    /// Reads both headers. gRPC implementations differ about a `grpc-timeout` that cannot be
    /// read; here it is refused, as a caller who names a deadline must not wait without one.
    ///
    /// # Errors
    /// `InvalidInput` when one is there and no time.
    pub fn over_grpc(headers: &HeaderMap) -> Result<Self, Rejection> {
        let grpc = shortest(headers.get_all(GRPC), grpc).map_err(|value| {
            let value = shorten(&value);
            Rejection::invalid(format!(
                "{GRPC} '{value}' must be up to 8 digits and one of the units H, M, S, m, u, n"
            ))
        })?;
        Ok(Self { grpc, ..Self::over_http(headers)? })
    }
}

impl Arrival {
    /// Now, without a deadline.
    #[must_use]
    pub fn now() -> Self {
        Self { at: Instant::now(), deadline: None }
    }

    /// The same, with a deadline no later than `time` after the arrival.
    #[must_use]
    pub fn within(self, time: Option<Duration>) -> Self {
        let other = time.and_then(|time| Deadline::after(self.at, time));
        Self { deadline: Deadline::earlier(self.deadline, other), ..self }
    }

    /// How long the deadline leaves, but `limit` at most.
    #[must_use]
    pub fn left(&self, limit: Duration) -> Duration {
        match self.deadline {
            Some(Deadline(at)) => limit.min(at.saturating_duration_since(Instant::now())),
            None => limit,
        }
    }

    /// Lets calls pass that somebody still waits for.
    ///
    /// # Errors
    /// `DeadlineExceeded` for all others.
    pub fn check(&self) -> Result<(), Rejection> {
        match self.deadline {
            Some(deadline) if deadline.has_passed(Instant::now()) => {
                let text = "the deadline passed before the call was read";
                Err(Rejection::new(Kind::DeadlineExceeded, text))
            }
            _ => Ok(()),
        }
    }
}

/// The shortest of the times that a header names.
fn shortest(
    values: GetAll<'_, http::HeaderValue>,
    parse: impl Fn(&[u8]) -> Option<Duration>,
) -> Result<Option<Duration>, String> {
    let mut shortest: Option<Duration> = None;
    for value in values {
        let time = parse(value.as_bytes())
            .ok_or_else(|| String::from_utf8_lossy(value.as_bytes()).into_owned())?;
        shortest = Some(shortest.map_or(time, |other| other.min(time)));
    }
    Ok(shortest)
}

/// A duration as people write it, or whole milliseconds.
fn own(value: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST)?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_millis);
    }
    humantime::parse_duration(text).ok()
}

/// `TimeoutValue TimeoutUnit` of the gRPC protocol over HTTP/2. 0 is no value there, but clients
/// whose deadline has passed send it.
fn grpc(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn every_unit_of_grpc_is_read_exactly() {
        let day = Duration::from_secs(86_400);
        for (text, expected) in [
            ("1H", day / 24),
            ("24H", day),
            ("90M", Duration::from_secs(5400)),
            ("7S", Duration::from_secs(7)),
            ("250m", Duration::from_millis(250)),
            ("00000010u", Duration::from_micros(10)),
            ("99999999n", Duration::from_nanos(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(grpc(text.as_bytes()), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_by_name() {
        for text in ["", "1", "S", "1s", "-1S", "+1S", "1.5S", " 1S", "1S ", "123456789S", "1SS"] {
            let error = Timeouts::over_grpc(&headers(&[(GRPC, text)])).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidInput);
            assert!(error.public_message().starts_with("grpc-timeout '"), "{error}");
        }
        for text in ["", "soon", "-1", "1.5", "5 parsecs", "99999999999999999999"] {
            for read in [Timeouts::over_http, Timeouts::over_grpc] {
                let error = read(&headers(&[(OWN, text)])).unwrap_err();
                assert_eq!(error.kind(), Kind::InvalidInput);
                assert!(error.public_message().starts_with("penstock-timeout '"), "{error}");
            }
        }
    }

    #[test]
    fn our_own_header_takes_durations_and_plain_milliseconds() {
        for (text, millis) in [("250ms", 250), ("250", 250), ("2s", 2000), ("1m 1s", 61_000)] {
            let read = Timeouts::over_http(&headers(&[(OWN, text)])).unwrap();
            assert_eq!(read.own, Some(Duration::from_millis(millis)), "{text}");
        }
        // Over HTTP the header of gRPC means nothing.
        let both = [(OWN, "3s"), (OWN, "2s"), (GRPC, "1S")];
        let read = Timeouts::over_http(&headers(&both)).unwrap();
        assert_eq!(read, Timeouts { own: Some(Duration::from_secs(2)), grpc: None });
        let read = Timeouts::over_grpc(&headers(&both)).unwrap();
        assert_eq!(read.grpc, Some(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_time_holds_and_passes() {
        let second = Duration::from_secs(1);
        let arrival = Arrival::now().within(Some(3 * second)).within(None).within(Some(second));
        assert_eq!(arrival.deadline, Deadline::after(arrival.at, second));
        assert_eq!(arrival.within(Some(Duration::MAX)), arrival);
        assert_eq!((arrival.left(2 * second), arrival.left(second / 2)), (second, second / 2));
        assert_eq!(arrival.check(), Ok(()));
        tokio::time::advance(second).await;
        assert_eq!(arrival.check().unwrap_err().kind(), Kind::DeadlineExceeded);
        assert_eq!(arrival.left(second), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn random_bytes_are_a_time_or_refused(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = own(&value);
            if let Some(time) = grpc(&value) {
                prop_assert!(value.len() <= 9 && value[0].is_ascii_digit());
                prop_assert!(time <= Duration::from_secs(99_999_999 * 3600));
            }
        }

        #[test]
        fn texts_like_times_are_a_time_or_refused(value in "[0-9]{0,22} ?[a-zµHMSmun]{0,5}[0-9 .eE+-]{0,9}") {
            let _ = own(value.as_bytes());
            let _ = grpc(value.as_bytes());
        }

        #[test]
        fn what_is_written_is_read_back(count in 0_u64..100_000_000, unit in 0_usize..6) {
            let (name, nanos) = [
                ('H', 3_600_000_000_000), ('M', 60_000_000_000), ('S', 1_000_000_000),
                ('m', 1_000_000), ('u', 1000), ('n', 1_u128),
            ][unit];
            let read = grpc(format!("{count}{name}").as_bytes()).unwrap();
            prop_assert_eq!(read.as_nanos(), u128::from(count) * nanos);
            let millis = own(count.to_string().as_bytes()).unwrap();
            prop_assert_eq!(millis, Duration::from_millis(count));
        }
    }
}
