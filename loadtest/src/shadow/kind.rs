//! The shadows that are tried, and what the gateway has to say about each.

use serde_json::Value;

use crate::stage::DIGITS;

/// A shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    /// None, but a thread beside the gateway that takes what time is left.
    Spinner,
    /// The version that answers.
    Same,
    /// Takes 100 ms for each batch.
    Slow,
    /// Fails whatever it is given.
    Throws,
    /// Answers NaN.
    Nan,
}

impl Kind {
    pub(super) const BAD: [Self; 3] = [Self::Slow, Self::Throws, Self::Nan];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Spinner => "none, idle spin",
            Self::Same => "the same model",
            Self::Slow => "takes 100 ms",
            Self::Throws => "throws",
            Self::Nan => "answers NaN",
        }
    }

    /// Model and version.
    pub(super) const fn target(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::None | Self::Spinner => None,
            Self::Same => Some((DIGITS, "2")),
            Self::Slow => Some(("digits_slow", "1")),
            Self::Throws => Some(("digits_throws", "1")),
            Self::Nan => Some(("digits_nan", "1")),
        }
    }

    /// What the report ought to say and does not.
    pub(super) fn untold(self, report: &Value) -> Option<String> {
        let count = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
        let calls = count("/calls");
        let told = match self {
            Self::None | Self::Spinner => true,
            Self::Same => {
                let (agree, of) =
                    (count("/outputs/0/agreement/count"), count("/outputs/0/agreement/of"));
                count("/failed/count") == 0 && agree == of && of > 0
            }
            Self::Slow => number("/latency/shadow_seconds/median") > 0.05,
            Self::Throws => calls > 0 && count("/failed/count") == calls,
            Self::Nan => {
                let rows = count("/outputs/0/rows");
                rows > 0 && count("/outputs/0/nan/shadow") == rows
            }
        };
        (!told).then(|| format!("{}: the report does not show it: {report}", self.name()))
    }
}

/// The verdict of a report with its first finding.
pub(super) fn told(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match text(&report["verdict"]) {
        verdict if verdict.is_empty() => String::new(),
        verdict => format!("{verdict}: {}", text(&report["findings"][0])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_has_to_say_what_is_wrong() {
        let good = json!({ "calls": 9, "failed": { "count": 0, "of": 9 },
            "outputs": [{ "rows": 9, "agreement": { "count": 9, "of": 9 },
                "nan": { "live": 0, "shadow": 0 } }],
            "latency": { "shadow_seconds": { "median": 0.001 } } });
        assert_eq!(Kind::Same.untold(&good), None);
        for bad in Kind::BAD {
            assert!(bad.untold(&good).is_some(), "{bad:?}");
        }
        let mut fails = good.clone();
        fails["failed"]["count"] = json!(9);
        assert_eq!(Kind::Throws.untold(&fails), None);
        assert!(Kind::Same.untold(&fails).is_some());
        let mut nan = good.clone();
        nan["outputs"][0]["nan"]["shadow"] = json!(9);
        assert_eq!(Kind::Nan.untold(&nan), None);
        let mut slow = good;
        slow["latency"]["shadow_seconds"]["median"] = json!(0.1);
        assert_eq!(Kind::Slow.untold(&slow), None);
        assert!(Kind::Same.untold(&Value::Null).is_some());
    }
}
