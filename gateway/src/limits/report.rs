//! What the limits have done so far, for operators and metrics. Never about single callers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Limiter;
use crate::config::{Quota, RateLimit};
use crate::telemetry::metrics;

/// Everything.
#[derive(Debug)]
pub struct Report {
    pub rates: Vec<RateReport>,
    pub quotas: Vec<QuotaReport>,
    pub fair_share: Option<FairShareReport>,
    pub redis: Option<RedisReport>,
}

/// One rate limit.
#[derive(Debug)]
pub struct RateReport {
    pub config: RateLimit,
    /// Keys that have a state of their own.
    pub keys: usize,
    pub admitted: u64,
    pub limited: u64,
    pub would_limit: u64,
    /// Checks that shared a state for want of room.
    pub overflow: u64,
    pub store_errors: u64,
}

/// One quota.
#[derive(Debug)]
pub struct QuotaReport {
    pub config: Quota,
    /// Keys that have something under way.
    pub keys: usize,
    pub admitted: u64,
    pub limited: u64,
    pub would_limit: u64,
}

/// Fair shares.
#[derive(Debug)]
pub struct FairShareReport {
    pub refused: u64,
    /// Groups present, by device.
    pub groups: Vec<(String, usize)>,
}

/// The store of shared limits.
#[derive(Debug)]
pub struct RedisReport {
    pub url: String,
    pub up: bool,
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Limiter {
    /// What has been done so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let rates = self.rules.iter().map(|rule| RateReport {
            config: rule.config.clone(),
            keys: rule.state.bucket.held(),
            admitted: read(&rule.state.counts.admitted),
            limited: read(&rule.state.counts.limited),
            would_limit: read(&rule.state.counts.would_limit),
            overflow: rule.state.bucket.overflowed(),
            store_errors: read(&rule.state.counts.store_errors),
        });
        let quotas = self.quotas.iter().map(|quota| QuotaReport {
            config: quota.config.clone(),
            keys: quota.state.keys(),
            admitted: read(&quota.state.counts.admitted),
            limited: read(&quota.state.counts.limited),
            would_limit: read(&quota.state.counts.would_limit),
        });
        Report {
            rates: rates.collect(),
            quotas: quotas.collect(),
            fair_share: self
                .fair
                .as_ref()
                .map(|fair| FairShareReport { refused: fair.refused(), groups: fair.groups() }),
            redis: self
                .redis
                .as_ref()
                .map(|redis| RedisReport { url: redis.config.url.clone(), up: redis.is_up() }),
        }
    }

    /// Brings the metrics up to date; called before they are rendered.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    pub fn publish(&self) {
        let report = self.report();
        for rate in &report.rates {
            let name = rate.config.name.as_str();
            publish_results(name, (rate.admitted, rate.limited, rate.would_limit));
            metrics::LIMIT_KEYS.gauge(&[name]).set(rate.keys as f64);
            metrics::LIMIT_OVERFLOW.counter(&[name]).absolute(rate.overflow);
            metrics::LIMIT_STORE_ERRORS.counter(&[name]).absolute(rate.store_errors);
        }
        for quota in &report.quotas {
            let name = quota.config.name.as_str();
            publish_results(name, (quota.admitted, quota.limited, quota.would_limit));
            metrics::LIMIT_KEYS.gauge(&[name]).set(quota.keys as f64);
        }
        if let Some(fair) = &report.fair_share {
            metrics::SHARE_REFUSED.counter(&[]).absolute(fair.refused);
        }
        if let Some(redis) = &report.redis {
            metrics::LIMIT_STORE_UP.gauge(&[]).set(f64::from(u8::from(redis.up)));
        }
    }
}

impl Limiter {
    /// Shows nothing held by limits that `next` does not have any more.
    pub fn retire(&self, next: &Self) {
        let names = self.rules.iter().map(|rule| &rule.config.name);
        for name in names.chain(self.quotas.iter().map(|quota| &quota.config.name)) {
            if next.rule(name).is_none() && next.quota(name).is_none() {
                metrics::LIMIT_KEYS.gauge(&[name]).set(0.0);
            }
        }
    }
}

fn publish_results(name: &str, (admitted, limited, would_limit): (u64, u64, u64)) {
    let results = [("admitted", admitted), ("limited", limited), ("would_limit", would_limit)];
    for (result, value) in results {
        metrics::LIMIT_CHECKS.counter(&[name, result]).absolute(value);
    }
}
