//! What a refusal says about coming back, in the headers that both protocols share:
//! `Retry-After` (RFC 9110) and `RateLimit` with its policy
//! (draft-ietf-httpapi-ratelimit-headers-10).

use crate::error::{Allowance, AllowanceUnit, Rejection};

/// Names, in lower case, and values; nothing for most refusals.
pub(super) fn of(rejection: &Rejection) -> Vec<(&'static str, String)> {
    let mut hints = Vec::new();
    if let Some(after) = rejection.retry_after() {
        hints.push(("retry-after", seconds(after).to_string()));
    }
    if let Some(allowance) = rejection.allowance() {
        hints.push(("ratelimit", state(allowance)));
        hints.push(("ratelimit-policy", policy(allowance)));
    }
    hints
}

/// Whole seconds, at least one: coming back earlier is no use.
fn seconds(time: std::time::Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1)
}

fn state(allowance: &Allowance) -> String {
    let Allowance { name, remaining, reset, .. } = allowance;
    format!("\"{name}\";r={remaining};t={}", seconds(*reset))
}

fn policy(allowance: &Allowance) -> String {
    let Allowance { name, quota, .. } = allowance;
    let unit = match allowance.unit {
        // The unit where none is named.
        AllowanceUnit::Requests => "",
        AllowanceUnit::Rows => ";qu=\"rows\"",
        AllowanceUnit::Bytes => ";qu=\"content-bytes\"",
        AllowanceUnit::ConcurrentRequests => ";qu=\"concurrent-requests\"",
        AllowanceUnit::ConcurrentRows => ";qu=\"concurrent-rows\"",
    };
    let window = allowance.window.map(|window| format!(";w={}", window.as_secs()));
    format!("\"{name}\";q={quota}{unit}{}", window.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Kind;

    fn hints(allowance: Allowance) -> Vec<(&'static str, String)> {
        let after = allowance.reset;
        let rejection = Rejection::new(Kind::RateLimited, "no").with_allowance(allowance);
        of(&rejection.with_retry_after(after))
    }

    #[test]
    fn a_limit_is_named_with_its_policy_and_what_is_left() {
        let allowance = Allowance {
            name: "per-client".into(),
            quota: 100,
            window: Some(Duration::from_secs(60)),
            unit: AllowanceUnit::Requests,
            remaining: 0,
            reset: Duration::from_millis(1200),
        };
        assert_eq!(
            hints(allowance.clone()),
            [
                ("retry-after", "2".to_owned()),
                ("ratelimit", "\"per-client\";r=0;t=2".to_owned()),
                ("ratelimit-policy", "\"per-client\";q=100;w=60".to_owned()),
            ]
        );
        let quota = Allowance {
            window: None,
            unit: AllowanceUnit::ConcurrentRequests,
            reset: Duration::from_millis(1),
            ..allowance
        };
        let found = hints(quota);
        assert_eq!(found[0].1, "1");
        assert_eq!(found[2].1, "\"per-client\";q=100;qu=\"concurrent-requests\"");
    }

    #[test]
    fn other_refusals_say_nothing_of_limits() {
        assert_eq!(of(&Rejection::invalid("no")), []);
        let busy = Rejection::new(Kind::Overloaded, "no").with_retry_after(Duration::ZERO);
        assert_eq!(of(&busy), [("retry-after", "1".to_owned())]);
    }
}
