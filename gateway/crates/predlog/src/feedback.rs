//! Feedback: what became of a prediction, told later.

use bytes::Bytes;

/// What somebody says of a prediction. Empty texts and `None` are what was not said.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Feedback {
    /// 16 bytes of the prediction's id; empty where [`caller_id`](Self::caller_id) names it.
    #[prost(bytes = "bytes", tag = "1")]
    pub prediction: Bytes,
    /// The id that the caller gave the request.
    #[prost(string, tag = "2")]
    pub caller_id: String,
    /// Which item of the prediction; `None`: all of them.
    #[prost(uint32, optional, tag = "3")]
    pub item: Option<u32>,
    /// What this feedback is known by: told again, it is the same.
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

#[cfg(test)]
mod tests {
    use prost::Message;

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
}
