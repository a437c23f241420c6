//! How answers name themselves: parameters of the answer, which every client shows, and headers
//! or metadata beside them.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::pipeline::Answer;

/// The header or metadata with the name of the prediction.
pub const PREDICTION_HEADER: HeaderName = HeaderName::from_static("penstock-prediction-id");
/// The header or metadata with the arm that answered.
pub const ARM_HEADER: HeaderName = HeaderName::from_static("penstock-arm");

/// The parameters of an answer, in the order in which they are written.
pub fn parameters(answer: &Answer) -> impl Iterator<Item = (&'static str, String)> {
    let routed = answer.routed.as_ref();
    let fallback = routed.filter(|routed| routed.is_fallback).map(|_| "true".to_owned());
    let sticky = routed.filter(|routed| routed.is_keyless).map(|_| "false".to_owned());
    let named = [
        ("prediction_id", Some(answer.prediction.to_string())),
        ("route", routed.map(|_| answer.model.to_string())),
        ("arm", routed.map(|routed| routed.arm().to_owned())),
        ("fallback", fallback),
        ("sticky", sticky),
    ];
    named.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)))
}

/// Names an answer in the headers over HTTP or the metadata over gRPC.
pub fn mark(headers: &mut HeaderMap, answer: &Answer) {
    let mut add = |name: HeaderName, text: &str| {
        if let Ok(mut value) = HeaderValue::from_str(text) {
            // Each is new: a table of headers seen before must not keep it (RFC 7541, 6.2.3).
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    };
    add(PREDICTION_HEADER, &answer.prediction.to_string());
    if let Some(routed) = &answer.routed {
        add(ARM_HEADER, routed.arm());
    }
}
