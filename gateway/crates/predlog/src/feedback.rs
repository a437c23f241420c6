//! Feedback: what became of a prediction, told later; how it is stored, and what is known by it.
//!
//! It is written into segments beside rows and converted to
//! `feedback/date=YYYY-MM-DD/<instance>-<segment>-<tag>-feedback.parquet`, by the day on which it was
//! received.

mod files;
mod labels;
pub(crate) mod lines;

use std::cmp::Ordering;

use bytes::Bytes;
use prost::Message;
use xxhash_rust::xxh3::xxh3_128;

pub use files::files;
pub use labels::{Joined, Labels, Range};

/// What somebody says of a prediction. Empty texts and `None` are what was not said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Feedback {
    /// 16 bytes of the prediction's id; empty where [`caller_id`](Self::caller_id) names it.
    #[prost(bytes = "bytes", tag = "1")]
    pub prediction: Bytes,
    /// The id that the caller gave the request.
    #[prost(string, tag = "2")]
    pub caller_id: String,
    /// Which item of the prediction, from 0; `None`: all of them.
    #[prost(uint32, optional, tag = "3")]
    pub item: Option<u32>,
    /// What its source knows it by: told again, it is the same.
    #[prost(string, tag = "4")]
    pub id: String,
    #[prost(oneof = "Label", tags = "5, 6")]
    pub label: Option<Label>,
    #[prost(double, optional, tag = "7")]
    pub reward: Option<f64>,
    /// When it came true. Microseconds since 1970, UTC.
    #[prost(int64, tag = "8")]
    pub event_us: i64,
    /// When it reached the gateway. Microseconds since 1970, UTC.
    #[prost(int64, tag = "9")]
    pub received_us: i64,
    /// Who says so.
    #[prost(string, tag = "10")]
    pub source: String,
    #[prost(string, tag = "11")]
    pub note: String,
}

/// What the answer should have been.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Label {
    #[prost(string, tag = "5")]
    Text(String),
    #[prost(double, tag = "6")]
    Number(f64),
}

impl Feedback {
    /// What it is known by: its id and its source, as events are by the CloudEvents specification,
    /// and what it is about, so that nobody's numbers get in the way of those about other calls.
    #[must_use]
    pub fn key(&self) -> u128 {
        let item = self.item.map_or(-1, i64::from).to_le_bytes();
        let texts = [&self.prediction[..], self.caller_id.as_bytes(), self.source.as_bytes()];
        let mut bytes = item.to_vec();
        for text in texts {
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text);
        }
        bytes.extend_from_slice(self.id.as_bytes());
        xxh3_128(&bytes)
    }

    /// An id for feedback without one: a digest of all that it says. To be asked before
    /// times are filled in of which nothing was said.
    #[must_use]
    pub fn digest(&self) -> String {
        format!("{:032x}", xxh3_128(&self.encode_to_vec()))
    }

    /// By when it was received; what was received at the same time has an order too.
    fn cmp_received(&self, other: &Self) -> Ordering {
        (self.received_us.cmp(&other.received_us))
            .then_with(|| self.event_us.cmp(&other.event_us))
            .then_with(|| self.encode_to_vec().cmp(&other.encode_to_vec()))
    }

    /// By when it came true, and then by when it was received.
    fn cmp_events(&self, other: &Self) -> Ordering {
        self.event_us.cmp(&other.event_us).then_with(|| self.cmp_received(other))
    }
}

/// Reads the usual text of a UUID, in letters of either case.
#[must_use]
pub fn parse_id(text: &str) -> Option<[u8; 16]> {
    let hyphens = [8, 13, 18, 23];
    let is_formed = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match hyphens.contains(&at) {
            true => byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    let digits: String = text.chars().filter(|char| *char != '-').collect();
    let number = is_formed.then(|| u128::from_str_radix(&digits, 16).ok())?;
    Some(number?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_reads_as_it_was_written() {
        let labels = [None, Some(Label::Text(String::new())), Some(Label::Number(0.0))];
        for (label, reward) in labels.into_iter().zip([None, Some(0.0), Some(-1.5)]) {
            let feedback = Feedback {
                prediction: vec![7; 16].into(),
                caller_id: "order-17".into(),
                item: Some(0),
                id: "refund-3".into(),
                label,
                reward,
                event_us: -1,
                received_us: 1_800_000_000_000_000,
                source: "shop".into(),
                note: "came back".into(),
            };
            assert_eq!(Feedback::decode(feedback.encode_to_vec().as_slice()).unwrap(), feedback);
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written_and_nothing_else_is() {
        let text = "0199aa00-0001-7abc-8def-0123456789ab";
        let id = parse_id(text).unwrap();
        assert_eq!((id[0], id[1], id[15]), (0x01, 0x99, 0xab));
        assert_eq!(parse_id(&text.to_uppercase()), Some(id));
        let without = text.replace('-', "");
        for wrong in ["", &without, &text[1..], &text.replace('9', "g"), &text.replace('9', "+")] {
            assert_eq!(parse_id(wrong), None, "{wrong}");
        }
    }
}
