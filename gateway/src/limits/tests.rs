//! The limits against reference models, by clocks that tests turn.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::FutureExt;
use governor::clock::FakeRelativeClock;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tokio::time::Instant;

use super::bucket::{Bucket, Decision, Pace};
use super::fair::{Accounts, Entry};
use super::*;
use crate::config::{Config, parse};
use crate::error::Kind;
use crate::types::{Identity, Origin, Peer, Roles};

fn rates(text: &str) -> Rates {
    let parsed = parse(&format!("version = 1\n{text}"), std::path::Path::new(""));
    parsed.map(|Config { rates, .. }| rates).unwrap()
}

fn limiter(text: &str) -> Limiter {
    Limiter::build(&rates(text), None, None)
}

fn caller(name: &str, tenant: &str) -> Caller {
    let mut identity = Identity::anonymous(Roles::all());
    (identity.name, identity.tenant) = (name.into(), tenant.into());
    Caller::new(Arc::new(identity), Peer::plain(Origin::Unix))
}

/// A call of one caller; nothing of it has to wait.
fn call(limiter: &Limiter, caller: &Caller, rows: usize) -> Result<Permits, Rejection> {
    let demand = Demand { caller, model: "digits", rows, bytes: rows * 100 };
    let checks = async {
        limiter.at_head(caller).await?;
        limiter.admit(&demand).await
    };
    checks.now_or_never().expect("local limits never wait")
}

fn kind(result: Result<Permits, Rejection>) -> Option<Kind> {
    result.err().map(|rejection| rejection.kind())
}

fn rate(limiter: &Limiter, name: &str) -> RateReport {
    limiter.report().rates.into_iter().find(|rate| rate.config.name == name).unwrap()
}

fn units(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn pace(rate: &str, burst: u64) -> Pace {
    let text = format!(
        "[[rate_limit]]\nname = 'a'\nkey = 'global'\ncost = 'bytes'\nrate = '{rate}'\nburst = {burst}"
    );
    Pace::new(&rates(&text).limits[0].rate, burst)
}

/// A bucket of tokens in plain integers: it holds nanoseconds, a unit costs `interval` of them.
struct Tokens {
    interval: u128,
    most: u128,
    held: u128,
    at: u128,
}

impl Tokens {
    fn new(pace: &Pace) -> Self {
        let interval = pace.interval.as_nanos();
        let most = interval * u128::from(pace.burst.get());
        Self { interval, most, held: most, at: 0 }
    }

    /// Nothing when the units were there, else how long they take to come.
    fn take(&mut self, now: u128, units: u32) -> Option<u128> {
        self.held = (self.held + now - self.at).min(self.most);
        self.at = now;
        let cost = self.interval * u128::from(units);
        if cost > self.held {
            return Some(cost - self.held);
        }
        self.held -= cost;
        None
    }
}

proptest! {
    #[test]
    fn no_caller_is_ever_over_its_rate_by_more_than_the_burst(
        per_second in 1_u64..5_000_000,
        burst in 1_u64..50,
        // Without room for all, keys 2 and 3 share one allowance; with it, sweeping shows nowhere.
        has_room in any::<bool>(),
        steps in prop::collection::vec((0_u64..4, 0_u32..2000, 1_u32..20, any::<bool>()), 1..300),
    ) {
        let pace = pace(&format!("{per_second}/s"), burst);
        let clock = FakeRelativeClock::default();
        let max_keys = if has_room { 4 } else { 2 };
        let bucket = Bucket::new(&pace, max_keys, clock.clone());
        let mut references: Vec<Tokens> = (0..4).map(|_| Tokens::new(&pace)).collect();
        let mut now = 0;
        for key in 0..2 {
            prop_assert_eq!(bucket.check(key, units(1)), Decision::Admitted);
            references[usize::try_from(key).unwrap()].take(0, 1);
        }
        for (key, scale, cost, swept) in steps {
            let pause = pace.interval * scale / 256;
            clock.advance(pause);
            now += pause.as_nanos();
            if swept && has_room {
                bucket.sweep();
            }
            let cost = cost.min(pace.burst.get());
            let whose = usize::try_from(if has_room { key } else { key.min(2) }).unwrap();
            let reference = &mut references[whose];
            let expected = reference.take(now, cost);
            match bucket.check(key, units(cost)) {
                Decision::Admitted => prop_assert_eq!(expected, None),
                Decision::Limited { wait, remaining } => {
                    prop_assert_eq!(expected, Some(wait.as_nanos()));
                    let held = reference.held / reference.interval;
                    prop_assert_eq!(u128::from(remaining), held);
                }
            }
            prop_assert!(bucket.held() <= max_keys);
        }
    }

    #[test]
    fn a_rate_is_met_within_a_thousandth_and_never_exceeded(
        count in 1_u64..20_000_000_000, burst in 1_u64..10_000_000_000,
    ) {
        let pace = pace(&format!("{count}/s"), burst);
        let given = 1e9 * pace.unit as f64 / pace.interval.as_nanos() as f64;
        prop_assert!(given <= count as f64 * (1.0 + 1e-9), "{given}");
        prop_assert!(given >= count as f64 * 0.998 - 1.0, "{given}");
        prop_assert!(pace.units(burst).is_some() || burst % pace.unit != 0);
        prop_assert!(pace.units(burst.saturating_add(2 * pace.unit)).is_none());
        prop_assert!(u64::from(pace.burst.get()) * pace.unit <= burst.max(pace.unit));
    }
}

#[test]
fn keys_beyond_the_cap_share_one_allowance_until_others_are_swept() {
    let clock = FakeRelativeClock::default();
    let bucket = Bucket::new(&pace("1/s", 2), 3, clock.clone());
    for key in 1..=3 {
        assert_eq!(bucket.check(key, units(2)), Decision::Admitted);
    }
    assert_eq!(bucket.check(10, units(1)), Decision::Admitted);
    assert_eq!(bucket.check(11, units(1)), Decision::Admitted);
    assert!(matches!(bucket.check(12, units(1)), Decision::Limited { .. }));
    assert_eq!((bucket.held(), bucket.overflowed()), (3, 3));
    bucket.sweep();
    assert_eq!(bucket.held(), 3, "none of them is full again");
    clock.advance(Duration::from_secs(3));
    bucket.sweep();
    assert_eq!(bucket.held(), 0);
    assert_eq!(bucket.check(12, units(2)), Decision::Admitted);
    assert_eq!((bucket.held(), bucket.overflowed()), (1, 3));
}

#[test]
fn a_throttled_client_spends_nobody_elses_allowance() {
    // In the file the widest rule stands first.
    let limits = limiter(
        "[[rate_limit]]\nname = 'all'\nkey = 'global'\nrate = '5/h'\n\
         [[rate_limit]]\nname = 'tenant'\nkey = 'tenant'\nrate = '4/h'\n\
         [[rate_limit]]\nname = 'client'\nkey = 'identity'\nrate = '2/h'\n",
    );
    let (greedy, sibling) = (caller("greedy", "t"), caller("sibling", "t"));
    let other = caller("other", "u");
    let answered = (0..100).filter(|_| call(&limits, &greedy, 1).is_ok()).count();
    assert_eq!(answered, 2);
    assert_eq!(kind(call(&limits, &sibling, 1)), None);
    assert_eq!(kind(call(&limits, &sibling, 1)), None);
    assert_eq!(kind(call(&limits, &other, 1)), None);
    let refused = call(&limits, &other, 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::RateLimited);
    assert_eq!(refused.allowance().unwrap().name, "all");
    assert!(refused.retry_after().unwrap() > Duration::from_secs(600));
}

#[test]
fn a_call_that_can_never_pass_is_invalid_and_spends_nothing() {
    let limits = limiter(
        "[[rate_limit]]\nname = 'tenant'\nkey = 'tenant'\nrate = '1/h'\n\
         [[rate_limit]]\nname = 'rows'\nkey = 'global'\nrate = '10/h'\ncost = 'rows'\n",
    );
    let a = caller("a", "t");
    let refused = call(&limits, &a, 11).unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidInput);
    assert!(refused.public_message().contains("'rows' never lets more than 10 through"));
    assert_eq!(kind(call(&limits, &a, 10)), None, "the tenant's only call is still there");
}

#[test]
fn rows_and_bytes_are_costs() {
    let limits = limiter(
        "[[rate_limit]]\nname = 'rows'\nkey = 'identity'\nrate = '10/h'\ncost = 'rows'\n\
         [[rate_limit]]\nname = 'bytes'\nkey = 'identity'\nrate = '800B/h'\ncost = 'bytes'\n",
    );
    let a = caller("a", "t");
    assert_eq!(kind(call(&limits, &a, 6)), None);
    let refused = call(&limits, &a, 5).unwrap_err();
    let allowance = refused.allowance().unwrap();
    assert_eq!((allowance.name.as_str(), allowance.remaining), ("rows", 4));
    let refused = call(&limits, &a, 4).unwrap_err();
    let allowance = refused.allowance().unwrap();
    assert_eq!((allowance.name.as_str(), allowance.remaining), ("bytes", 200));
}

#[test]
fn a_shadowed_limit_only_counts() {
    let limits = limiter(
        "[[rate_limit]]\nname = 'a'\nkey = 'identity'\nrate = '1/h'\nmode = 'shadow'\n\
         [[rate_limit]]\nname = 'b'\nkey = 'global'\nrate = '2/h'\ncost = 'rows'\nmode = 'shadow'\n\
         [[quota]]\nname = 'q'\nkey = 'identity'\nmax_in_flight = 1\nmode = 'shadow'\n",
    );
    let a = caller("a", "t");
    let held: Vec<_> = (0..5).map(|_| call(&limits, &a, 3).unwrap()).collect();
    let report = limits.report();
    let counts = |rate: &RateReport| (rate.admitted, rate.limited, rate.would_limit);
    assert_eq!(counts(&report.rates[0]), (1, 0, 4));
    assert_eq!(counts(&report.rates[1]), (0, 0, 5));
    let quota = &report.quotas[0];
    assert_eq!((quota.admitted, quota.limited, quota.would_limit), (1, 0, 4));
    drop(held);
    assert_eq!(limits.report().quotas[0].keys, 0);
}

#[test]
fn headers_tell_callers_apart_and_calls_without_one_count_together() {
    let limits = limiter(
        "[[rate_limit]]\nname = 'u'\nkey = 'header:x-user-id'\nrate = '1/h'\n\
         [[rate_limit]]\nname = 'r'\nkey = 'header:x-team'\nrate = '3/h'\ncost = 'rows'\n",
    );
    let from = |user: Option<&'static str>, team: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-team", HeaderValue::from_static(team));
        user.map(|user| headers.insert("x-user-id", HeaderValue::from_static(user)));
        let mut caller = caller("a", "t");
        limits.mark(&mut caller, &headers);
        call(&limits, &caller, 1).err().map(|refused| refused.allowance().unwrap().name.clone())
    };
    assert_eq!(from(Some("1"), "x"), None);
    assert_eq!(from(Some("1"), "x").unwrap(), "u");
    assert_eq!(from(Some("2"), "x"), None);
    assert_eq!(from(None, "x"), None);
    assert_eq!(from(None, "y").unwrap(), "u");
    assert_eq!(from(Some("3"), "x").unwrap(), "r");
    assert_eq!(from(Some("4"), "y"), None);
}

#[test]
fn rules_about_some_models_leave_the_others_alone() {
    let limits = limiter(
        "[[rate_limit]]\nname = 'a'\nkey = 'identity'\nrate = '1/h'\nmodels = ['other', 'dig*']\n\
         [[rate_limit]]\nname = 'b'\nkey = 'identity'\nrate = '1/h'\nmodels = ['dig']\n",
    );
    let a = caller("a", "t");
    assert_eq!(kind(call(&limits, &a, 1)), None);
    assert_eq!(call(&limits, &a, 1).unwrap_err().allowance().unwrap().name, "a");
    assert_eq!(rate(&limits, "b").admitted, 0);
}

#[test]
fn a_quota_holds_for_what_is_under_way_and_its_room_comes_back() {
    let limits = limiter(
        "[[quota]]\nname = 'calls'\nkey = 'identity'\nmax_in_flight = 2\n\
         [[quota]]\nname = 'rows'\nkey = 'tenant'\nmax_in_flight = 10\nunit = 'rows'\n\
         [[rate_limit]]\nname = 'tenant'\nkey = 'tenant'\nrate = '6/h'\n",
    );
    let (a, b) = (caller("a", "t"), caller("b", "t"));
    let held = [call(&limits, &a, 4).unwrap(), call(&limits, &a, 4).unwrap()];
    let refused = call(&limits, &a, 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::RateLimited);
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(refused.allowance().unwrap().name, "calls");
    assert_eq!(call(&limits, &b, 3).unwrap_err().allowance().unwrap().name, "rows");
    assert_eq!(rate(&limits, "tenant").admitted, 2, "who waits for room spends no rate");
    assert_eq!(kind(call(&limits, &b, 11)), Some(Kind::InvalidInput));
    drop(held);
    assert_eq!(kind(call(&limits, &b, 10)), None);
    assert!(limits.report().quotas.iter().all(|quota| quota.keys == 0));
}

#[test]
fn a_changed_file_gives_nobody_a_fresh_allowance() {
    let text = |mode: &str, rate: &str| {
        rates(&format!(
            "[[rate_limit]]\nname = 'a'\nkey = 'identity'\nrate = '2/h'\nmode = '{mode}'\n\
             [[rate_limit]]\nname = 'b'\nkey = 'global'\nrate = '{rate}'\n\
             [[quota]]\nname = 'q'\nkey = 'identity'\nmax_in_flight = 1\n\
             [fair_share]\nenabled = true\n"
        ))
    };
    let before = Limiter::build(&text("shadow", "1/h"), None, None);
    let a = caller("a", "t");
    let held = call(&before, &a, 1).unwrap();
    let after = Limiter::build(&text("enforce", "9/h"), None, Some(&before));
    assert_eq!(rate(&after, "a").admitted, 1);
    assert_eq!(rate(&after, "b").keys, 0, "another rate is another allowance");
    assert!(Arc::ptr_eq(before.fair.as_ref().unwrap(), after.fair.as_ref().unwrap()));
    assert_eq!(call(&after, &a, 1).unwrap_err().allowance().unwrap().name, "q");
    drop(held);
    assert_eq!(call(&after, &a, 1).unwrap_err().allowance().unwrap().name, "a");
    assert_eq!(kind(call(&after, &caller("c", "t"), 1)), None);
}

#[test]
fn a_million_keys_stay_within_the_cap_and_slow_nobody_down() {
    let pace = pace("1/m", 1);
    let bucket = Bucket::new(&pace, 100_000, FakeRelativeClock::default());
    assert_eq!(bucket.check(u64::MAX, units(1)), Decision::Admitted);
    for key in 0..1_000_000_u64 {
        bucket.check(key.wrapping_mul(0x9E37_79B9_7F4A_7C15), units(1));
    }
    assert_eq!(bucket.held(), 100_000);
    assert_eq!(bucket.overflowed(), 900_001);
    assert!(matches!(bucket.check(u64::MAX, units(1)), Decision::Limited { .. }));
}

/// A device that serves calls in order, and callers that each try so often.
struct Device {
    accounts: Accounts,
    waiting: VecDeque<(u64, u64)>,
    /// Engine time of all that waits.
    wait: u64,
    served: HashMap<u64, u64>,
    now: Instant,
}

const MS: u64 = 1_000_000;
const ABOVE: u64 = 50 * MS;

impl Device {
    fn new() -> Self {
        let now = Instant::now();
        let accounts = Accounts::new(now);
        Self { accounts, waiting: VecDeque::new(), wait: 0, served: HashMap::new(), now }
    }

    fn offer(&mut self, call: Entry) -> bool {
        let room = (self.wait > ABOVE).then_some(ABOVE);
        let entered = self.accounts.enter(&call, room, self.now);
        if let Some(group) = entered {
            self.waiting.push_back((group, call.nanos));
            self.wait += call.nanos;
        }
        entered.is_some()
    }

    fn run(&mut self, mut time: u64) {
        self.now += Duration::from_nanos(time);
        while let Some((group, left)) = self.waiting.front_mut() {
            let done = time.min(*left);
            (*left, time) = (*left - done, time - done);
            self.wait -= done;
            *self.served.entry(*group).or_default() += done;
            if *left > 0 {
                return;
            }
            // The simulation frees a call's time when it ends; `left` has been counted down.
            let group = *group;
            self.waiting.pop_front();
            self.accounts.leave(group, CALL);
        }
    }
}

/// Engine time of each call.
const CALL: u64 = MS / 5;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_greedy_group_leaves_the_others_their_share(
        weights in prop::collection::vec(0.5_f64..4.0, 2..5),
        greed in 1.5_f64..40.0,
    ) {
        let mut device = Device::new();
        let total: f64 = weights.iter().sum();
        let calls_per_step = (MS / CALL) as f64;
        let mut due = vec![0.0; weights.len()];
        for step in 0..3500 {
            if step == 500 {
                device.served.clear();
            }
            for (index, weight) in weights.iter().enumerate() {
                // The first group floods; the others ask for a little more than their shares.
                let asked = if index == 0 { greed } else { 1.1 * weight / total };
                due[index] += asked * calls_per_step;
                while due[index] >= 1.0 {
                    due[index] -= 1.0;
                    device.offer(Entry { group: index as u64 + 1, weight: *weight, nanos: CALL });
                }
            }
            device.run(MS);
        }
        let all: u64 = device.served.values().sum();
        prop_assert!(all >= 3000 * MS, "nothing is left idle: {}", all);
        for (index, weight) in weights.iter().enumerate().skip(1) {
            let served = device.served.get(&(index as u64 + 1)).copied().unwrap_or(0);
            let (share, fair) = (served as f64 / all as f64, weight / total);
            prop_assert!(share >= fair * 0.92, "{}: {} of {}", index, share, fair);
        }
    }
}

#[test]
fn what_others_leave_is_anybodys() {
    let mut device = Device::new();
    let [a, b] = [1, 2].map(|group| Entry { group, weight: 1.0, nanos: CALL });
    // Alone, a group may fill the queue far beyond the threshold.
    assert!((0..2500).all(|_| device.offer(a)));
    // Once somebody else is about, it has to let its surplus run first.
    assert!(device.offer(b));
    assert!(!device.offer(a));
    device.run(400 * MS);
    assert!(!device.offer(a), "still beyond its share");
    assert!(device.offer(b));
    // With the other one gone for a while it has everything again.
    device.run(102 * MS);
    assert!(device.waiting.is_empty());
    device.run(1200 * MS);
    assert!((0..2500).all(|_| device.offer(a)));
}

#[test]
fn groups_beyond_the_bound_share_an_account_and_leave_no_trace() {
    let mut accounts = Accounts::new(Instant::now());
    let now = Instant::now();
    let entered: Vec<_> = (1..=2000_u64)
        .filter_map(|group| accounts.enter(&Entry { group, weight: 1.0, nanos: 1 }, None, now))
        .collect();
    assert_eq!(entered.len(), 2000);
    assert_eq!(entered.iter().filter(|&&group| group == 0).count(), 2000 - 1024);
    assert_eq!(accounts.len(), 1025);
    for group in entered {
        accounts.leave(group, 1);
    }
    let later = now + Duration::from_secs(2);
    accounts.enter(&Entry { group: 1, weight: 1.0, nanos: 1 }, None, later);
    assert_eq!(accounts.len(), 1);
}

#[test]
fn a_share_is_given_back_when_the_engine_is_done() {
    let text = "[fair_share]\nenabled = true\nabove = '10ms'\n[fair_share.weights]\nbig = 3\n";
    let limits = limiter(text);
    let busy = Pressure {
        device: "cpu",
        threads: 1,
        wait: Duration::from_millis(11),
        row_time: Duration::from_millis(1),
    };
    let (big, small) = (caller("a", "big"), caller("b", "small"));
    let first = limits.share(&small, &busy, 1).unwrap();
    let held: Vec<_> = (0..20).map_while(|_| limits.share(&big, &busy, 1).ok()).collect();
    assert_eq!(held.len(), 8, "three quarters of 10 ms, and the rest of the last call");
    let refused = limits.share(&big, &busy, 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    assert!(refused.retry_after().is_some());
    assert!(limits.share(&big, &Pressure { device: "cuda:0", ..busy }, 1).is_ok());
    drop(held);
    assert!(limits.share(&big, &busy, 7).is_ok());
    drop(first);
    let report = limits.report().fair_share.unwrap();
    assert_eq!(report.refused, 2);
}

#[test]
fn no_rules_cost_one_branch() {
    let limits = Limiter::default();
    let a = caller("a", "t");
    assert!(limits.head.is_empty() && limits.body.is_empty() && !limits.divides_engine_time());
    assert_eq!(kind(call(&limits, &a, 1_000_000)), None);
    let mut marked = a.clone();
    limits.mark(&mut marked, &HeaderMap::new());
    assert_eq!(marked.marks, Marks::default());
}

#[test]
fn figures_of_a_limit_only_grow_whatever_becomes_of_its_allowance() {
    let text = |rate: &str, key: &str| {
        rates(&format!(
            "[[rate_limit]]\nname = 'r'\nkey = 'tenant'\nrate = '{rate}'\n\
             [[quota]]\nname = 'q'\nkey = '{key}'\nmax_in_flight = 9"
        ))
    };
    let caller = caller("a", "t");
    let before = Limiter::build(&text("1/h", "tenant"), None, None);
    call(&before, &caller, 1).unwrap();
    assert_eq!(kind(call(&before, &caller, 1)), Some(Kind::RateLimited));
    let after = Limiter::build(&text("5/h", "identity"), None, Some(&before));
    assert_eq!((rate(&after, "r").admitted, rate(&after, "r").limited), (1, 1));
    assert_eq!(after.report().quotas[0].admitted, 2);
    call(&after, &caller, 1).unwrap();
    assert_eq!(rate(&after, "r").admitted, 2);
}
