//! One feedback as somebody told it, and the check of what it says.

use std::fmt;

use humantime::parse_rfc3339;
use predlog::feedback::parse_id;
use predlog::{Feedback, Label};

/// Longest texts, in bytes.
const LONGEST_ID: usize = 128;
const LONGEST_SOURCE: usize = 128;
const LONGEST_TEXT: usize = 1024;
/// How far ahead of the gateway's clock an event may be: one from the next century would be the
/// latest for ever.
const AHEAD_US: i64 = 24 * 3600 * 1_000_000;

/// One feedback, as both protocols give it; `None` is what was not said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    pub prediction_id: Option<String>,
    pub caller_id: Option<String>,
    pub item: Option<i64>,
    pub label: Option<Given>,
    pub reward: Option<f64>,
    pub event_time: Option<String>,
    pub id: Option<String>,
    pub source: Option<String>,
    pub note: Option<String>,
}

/// What the answer should have been.
#[derive(Debug, Clone, PartialEq)]
pub enum Given {
    Text(String),
    Number(f64),
    Flag(bool),
}

/// What is wrong with one feedback of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// From 0.
    pub index: usize,
    /// Empty where it is no single field.
    pub field: String,
    pub text: String,
}

impl Wrong {
    #[must_use]
    pub fn new(index: usize, field: &str, text: impl Into<String>) -> Self {
        Self { index, field: field.to_owned(), text: text.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, field, text } = self;
        match field.is_empty() {
            true => write!(f, "feedback[{index}]: {text}"),
            false => write!(f, "feedback[{index}].{field}: {text}"),
        }
    }
}

impl Told {
    fn check_texts(&self, add: &mut impl FnMut(&str, String)) {
        let texts = [
            ("caller_id", &self.caller_id, LONGEST_TEXT),
            ("id", &self.id, LONGEST_ID),
            ("source", &self.source, LONGEST_SOURCE),
            ("note", &self.note, LONGEST_TEXT),
        ];
        for (field, text, longest) in texts {
            match text {
                Some(text) if text.len() > longest => {
                    add(field, format!("has more than {longest} bytes"));
                }
                Some(text) if text.is_empty() && field != "note" => add(field, "is empty".into()),
                _ => {}
            }
        }
    }

    /// Checks everything that it says, and gives it an id if it has none: one that is made of what
    /// is kept, as anybody could try what else it might be made of. `kept` is what the log keeps
    /// of a caller's id, if anything.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn checked(
        self,
        (index, now_us): (usize, i64),
        kept: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Feedback, Vec<Wrong>> {
        let mut wrong = vec![];
        let mut add = |field: &str, text: String| wrong.push(Wrong::new(index, field, text));
        self.check_texts(&mut add);
        let prediction = match (&self.prediction_id, &self.caller_id) {
            (Some(_), Some(_)) => {
                add("caller_id", "does not go with prediction_id: name one of them".into());
                None
            }
            (None, None) => {
                add("prediction_id", "is required, or caller_id in its place".into());
                None
            }
            (None, Some(_)) => None,
            (Some(text), None) => parse_id(text).or_else(|| {
                add("prediction_id", "is not a UUID as answers have it".into());
                None
            }),
        };
        let item = self.item.and_then(|item| match i32::try_from(item) {
            Ok(number) if number >= 0 => Some(number.unsigned_abs()),
            _ => {
                add("item", format!("must be 0 to {}", i32::MAX));
                None
            }
        });
        if self.label.is_none() && self.reward.is_none() {
            add("label", "is required, or reward, or both".into());
        }
        let label = self.label.and_then(|given| match given {
            Given::Text(text) if text.len() > LONGEST_TEXT => {
                add("label", format!("has more than {LONGEST_TEXT} bytes"));
                None
            }
            Given::Text(text) => Some(Label::Text(text)),
            Given::Number(number) if !number.is_finite() => {
                add("label", "must be finite".into());
                None
            }
            Given::Number(number) => Some(Label::Number(number)),
            Given::Flag(flag) => Some(Label::Number(f64::from(u8::from(flag)))),
        });
        if self.reward.is_some_and(|reward| !reward.is_finite()) {
            add("reward", "must be finite".into());
        }
        let event_us = self.event_time.map(|text| match microseconds(&text) {
            Some(time) if time > now_us.saturating_add(AHEAD_US) => {
                add("event_time", "is more than a day ahead".into());
                0
            }
            Some(time) => time,
            None => {
                let text = "is no time as RFC 3339 has it, from 1970 on: 2026-01-31T12:00:00Z";
                add("event_time", text.into());
                0
            }
        });
        let caller_id = self.caller_id.filter(|id| !id.is_empty()).map(|id| kept(&id));
        if let Some(None) = caller_id {
            add("caller_id", "is not kept by the log: name the prediction_id".into());
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let mut feedback = Feedback {
            prediction: prediction.map_or_else(Default::default, |id| id.to_vec().into()),
            caller_id: caller_id.flatten().unwrap_or_default(),
            item,
            id: String::new(),
            label,
            reward: self.reward,
            event_us: event_us.unwrap_or_default(),
            received_us: 0,
            source: self.source.unwrap_or_default(),
            note: self.note.unwrap_or_default(),
        };
        feedback.id = self.id.unwrap_or_else(|| feedback.digest());
        (feedback.event_us, feedback.received_us) = (event_us.unwrap_or(now_us), now_us);
        Ok(feedback)
    }
}

/// A time as RFC 3339 has it, in microseconds since 1970, UTC.
fn microseconds(text: &str) -> Option<i64> {
    let (local, behind_us) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (sign, zone) = zone.split_at_checked(1)?;
            let (hours, minutes) = zone.split_once(':')?;
            let number = |digits: &str, end: i64| {
                let is_two = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
                digits.parse::<i64>().ok().filter(|number| is_two && *number < end)
            };
            let minutes = number(hours, 24)? * 60 + number(minutes, 60)?;
            let sign = match sign {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            (local, sign * minutes * 60_000_000)
        }
    };
    let time = parse_rfc3339(&format!("{}Z", local.to_ascii_uppercase())).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_micros()).ok()?.checked_sub(behind_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0199aa00-0001-7abc-8def-0123456789ab";
    const NOW: i64 = 1_800_000_000_000_000;

    fn keep(id: &str) -> Option<String> {
        Some(id.to_owned())
    }

    fn told() -> Told {
        Told {
            prediction_id: Some(ID.into()),
            label: Some(Given::Text("cat".into())),
            ..Told::default()
        }
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        let noon = 1_769_860_800_000_000;
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "2026-01-31T13:30:00+01:30",
            "2026-01-31T07:00:00.000000-05:00",
        ] {
            assert_eq!(microseconds(text), Some(noon), "{text}");
        }
        assert_eq!(microseconds("2026-01-31T12:00:00.25Z"), Some(noon + 250_000));
        for text in [
            "",
            "Z",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00*01:00",
            "2026-01-31T12:00:00+0100",
            "1769860800",
            "1969-01-31T12:00:00Z",
            "2026-02-30T12:00:00Z",
            "ä+01:00",
        ] {
            assert_eq!(microseconds(text), None, "{text}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_named_with_its_place() {
        let wrong = |told: Told| {
            let wrong = told.checked((3, NOW), keep).unwrap_err();
            wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let all = Told {
            prediction_id: Some("7".into()),
            caller_id: None,
            item: Some(-1),
            label: Some(Given::Number(f64::NAN)),
            reward: Some(f64::INFINITY),
            event_time: Some("yesterday".into()),
            id: Some(String::new()),
            source: Some("s".repeat(LONGEST_SOURCE + 1)),
            note: Some("n".repeat(LONGEST_TEXT + 1)),
        };
        let text = wrong(all);
        for field in
            ["prediction_id", "item", "label", "reward", "event_time", "id", "source", "note"]
        {
            assert!(text.contains(&format!("feedback[3].{field}: ")), "{field}: {text}");
        }
        assert!(wrong(Told { label: None, ..told() }).contains("label: is required, or reward"));
        assert!(wrong(Told { caller_id: Some("c".into()), ..told() }).contains("name one of them"));
        assert!(
            wrong(Told { prediction_id: None, ..told() }).contains("prediction_id: is required")
        );
        let ahead = Told { event_time: Some("2099-01-01T00:00:00Z".into()), ..told() };
        assert!(wrong(ahead).contains("ahead"));
    }

    #[test]
    fn what_has_no_id_is_known_by_all_that_it_says_and_not_by_when_it_came() {
        let id = |told: Told, now| told.checked((0, now), keep).unwrap().id;
        assert_eq!(id(told(), NOW), id(told(), NOW + 1));
        let other = Told { note: Some("n".into()), ..told() };
        assert_ne!(id(other, NOW), id(told(), NOW));
        assert_eq!(id(Told { id: Some("own".into()), ..told() }, NOW), "own");
    }

    #[test]
    fn ids_are_made_of_what_is_kept_of_those_of_callers() {
        let told =
            |text: &str| Told { prediction_id: None, caller_id: Some(text.into()), ..told() };
        let hashed = |_: &str| Some("5f2a".to_owned());
        let id = |text: &str| told(text).checked((0, NOW), hashed).unwrap();
        assert_eq!(id("order-1"), id("order-2"));
        assert_eq!(id("order-1").caller_id, "5f2a");
        assert_ne!(id("5f2a").id, told("order-1").checked((0, NOW), keep).unwrap().id);
        assert_eq!(id("order-1").id, told("5f2a").checked((0, NOW), keep).unwrap().id);
        let dropped = told("order-1").checked((0, NOW), |_| None).unwrap_err();
        assert!(dropped[0].text.contains("is not kept by the log"), "{dropped:?}");
    }

    #[test]
    fn flags_are_numbers_and_events_without_a_time_are_of_when_they_came() {
        let flag = Told { label: Some(Given::Flag(true)), ..told() };
        let feedback = flag.checked((0, NOW), keep).unwrap();
        assert_eq!(feedback.label, Some(Label::Number(1.0)));
        assert_eq!((feedback.event_us, feedback.received_us), (NOW, NOW));
    }
}
