//! Whether models elsewhere fit the arms beside them.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::config::{self, HealthCheck, UpstreamProtocol};
use crate::types::ArmName;
use crate::upstream::Upstreams;
use crate::upstream::tests::fake::Fake;

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), reached)
        .await
        .unwrap_or_else(|_| panic!("waited for: {what}"));
}

fn upstream(name: &str, fake: &Fake) -> config::Upstream {
    let every = Some(Duration::from_millis(20));
    let health = HealthCheck { every, ..HealthCheck::default() };
    let endpoints = vec![fake.address.clone()];
    config::Upstream { health, ..config::Upstream::new(name, UpstreamProtocol::Http, endpoints) }
}

#[tokio::test]
async fn a_model_elsewhere_that_is_not_that_of_its_route_gets_no_calls_until_it_is() {
    let (first, second) =
        (Fake::start(UpstreamProtocol::Http).await, Fake::start(UpstreamProtocol::Http).await);
    second.change(|face| face.shape = vec![-1, 3]);
    let settings = [upstream("one", &first), upstream("other", &second)];
    let upstreams = Upstreams::start(&settings, None).unwrap();
    let seat = |name| Seat::remote(upstreams.get(name).unwrap().model("double", None));
    let names = ["stable", "canary"].map(|name| name.parse::<ArmName>().unwrap());
    let seats = [seat("one"), seat("other")];
    let fitting = |before| {
        let standard = Standard::new(names.iter().zip(&seats), before);
        (seats.clone().map(|seat| seat.fitting(&standard)), standard)
    };
    let ([stable, canary], standard) = fitting(None);
    until("both are known", || seats.iter().all(|seat| seat.backend().is_some())).await;
    assert!(stable.backend().is_some() && canary.backend().is_none());
    let (state, reason) = canary.state();
    assert_eq!(state, "not_ready");
    assert!(reason.starts_with("does not fit arm 'stable': "), "{reason}");
    // Each can change; every look is at what they are now.
    first.change(|face| face.shape = vec![-1, 3]);
    until("it fits", || canary.backend().is_some()).await;
    until("it is well", || canary.state().0 == "ready").await;
    // Whoever changes alone is left out, the first one too; the others go on.
    first.change(|face| face.shape = vec![-1, 4]);
    until("it fits no longer", || stable.backend().is_none()).await;
    assert!(canary.backend().is_some());
    let reason = stable.state().1;
    assert!(reason.starts_with("does not fit arm 'canary': "), "{reason}");
    // A new snapshot knows what the one before took them for.
    let ([stable, canary], _) = fitting(Some(&standard));
    assert!(stable.backend().is_none() && canary.backend().is_some());
    // Once all have changed, that is what they are.
    second.change(|face| face.shape = vec![-1, 4]);
    until("both fit", || stable.backend().is_some() && canary.backend().is_some()).await;
}
