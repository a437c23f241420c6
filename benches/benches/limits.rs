//! What limits cost a call: none at all, one, several, and a flood of keys. Each bench asserts
//! its result.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use penstock::config;
use penstock::limits::{Demand, Limiter};
use penstock::types::{Caller, Identity, Origin, Peer, Roles};

fn limiter(rules: &str) -> Arc<Limiter> {
    let config = config::parse(&format!("version = 1\n{rules}"), Path::new("")).unwrap();
    Limiter::start(&config.rates, None).unwrap()
}

fn caller(name: &str) -> Caller {
    let mut identity = Identity::anonymous(Roles::all());
    name.clone_into(&mut identity.name);
    Caller::new(Arc::new(identity), Peer::plain(Origin::Unix))
}

/// Runs what never waits, without the cost of an event loop.
fn now<F: Future>(work: F) -> F::Output {
    let ready = match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    };
    ready.unwrap()
}

/// All that limits do for a call: marks, head, body, and the permits' drop.
async fn call(limiter: &Limiter, caller: &mut Caller, headers: &HeaderMap) {
    limiter.mark(caller, headers);
    limiter.at_head(caller).await.unwrap();
    let demand = Demand { caller, model: "digits", rows: 1, bytes: 256 };
    drop(limiter.admit(&demand).await.unwrap());
}

const RATE: &str = "rate = '1000000/s'\nburst = 1000000000\n";

fn checks(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let rule = |key: &str| format!("[[rate_limit]]\nname = '{key}'\nkey = '{key}'\n{RATE}");
    let header = format!("[[rate_limit]]\nname = 'h'\nkey = 'header:x-user-id'\n{RATE}");
    let quota = "[[quota]]\nname = 'q'\nkey = 'identity'\nmax_in_flight = 10\n";
    let mut headers = HeaderMap::new();
    headers.insert("x-user-id", HeaderValue::from_static("alice@example.com"));
    let mut group = c.benchmark_group("limits");
    for (name, rules) in [
        ("none", String::new()),
        ("identity", rule("identity")),
        ("header", header.clone()),
        ("identity, tenant, global", rule("identity") + &rule("tenant") + &rule("global")),
        ("quota", quota.to_owned()),
        ("all of them", header + &rule("identity") + &rule("tenant") + &rule("global") + quota),
    ] {
        let limiter = limiter(&rules);
        let mut caller = caller("alice");
        group.bench_function(name, |b| {
            b.iter(|| now(call(&limiter, &mut caller, &headers)));
        });
        let limited: u64 = limiter.report().rates.iter().map(|rate| rate.limited).sum();
        assert_eq!(limited, 0);
    }
    group.finish();
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A caller with a state of its own, before and after a million others have come by.
fn flood(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _inside = runtime.enter();
    let rule =
        "[[rate_limit]]\nname = 'a'\nkey = 'identity'\nrate = '1000000/h'\nburst = 400000000\n";
    let limiter = limiter(rule);
    let headers = HeaderMap::new();
    let mut known = caller("known");
    let mut group = c.benchmark_group("limits in a flood");
    group.bench_function("before", |b| {
        b.iter(|| now(call(&limiter, &mut known, &headers)));
    });
    let before = resident_kib();
    for number in 0..1_000_000 {
        let caller = caller(&number.to_string());
        now(limiter.at_head(&caller)).unwrap();
    }
    let report = limiter.report();
    assert_eq!((report.rates[0].keys, report.rates[0].overflow), (100_000, 900_001));
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 << 10, "a million keys took {grown} KiB");
    group.bench_function(format!("after a million keys, which took {grown} KiB"), |b| {
        b.iter(|| now(call(&limiter, &mut known, &headers)));
    });
    group.finish();
}

criterion_group!(benches, checks, flood);
criterion_main!(benches);
