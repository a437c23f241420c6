//! How answers name themselves: parameters of the answer, which every client shows, and headers
//! or metadata beside them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::pipeline::Answer;
use crate::types::PredictionText;

/// The header or metadata with the name of the prediction.
pub const PREDICTION_HEADER: HeaderName = HeaderName::from_static("penstock-prediction-id");
/// The header or metadata with the arm that answered.
pub const ARM_HEADER: HeaderName = HeaderName::from_static("penstock-arm");

/// What an answer is called, written out once.
#[derive(Debug)]
pub struct Names<'a> {
    prediction: PredictionText,
    answer: &'a Answer,
}

impl<'a> Names<'a> {
    #[must_use]
    pub fn of(answer: &'a Answer) -> Self {
        Self { prediction: answer.prediction.text(), answer }
    }

    /// The parameters of the answer, in the order in which they are written.
    pub fn parameters(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let routed = self.answer.routed.as_ref();
        let named = [
            ("prediction_id", Some(self.prediction.as_str())),
            ("route", routed.map(|_| self.answer.model.as_str())),
            ("arm", routed.map(|routed| routed.arm())),
            ("fallback", routed.filter(|routed| routed.is_fallback).map(|_| "true")),
            ("sticky", routed.filter(|routed| routed.is_keyless).map(|_| "false")),
        ];
        named.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)))
    }

    /// Names the answer in the headers over HTTP or the metadata over gRPC.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let mut add = |name: HeaderName, text: &str| {
            if let Ok(mut value) = HeaderValue::from_str(text) {
                // Each is new: a table of headers seen before must not keep it (RFC 7541, 6.2.3).
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        };
        add(PREDICTION_HEADER, self.prediction.as_str());
        if let Some(routed) = &self.answer.routed {
            add(ARM_HEADER, routed.arm());
        }
    }
}
