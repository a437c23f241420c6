//! What recognising a caller costs. Run it by itself, built for speed:
//! `cargo test --release -p penstock --no-default-features costs_of_recognising -- --ignored --nocapture`

use std::hint::black_box;

use jsonwebtoken::Algorithm;
use tokio::time::Instant;

use super::issuer::{Issuer, claims, set};
use super::{FIRST, bearer, client, digest, far, headers, identities};
use crate::config::Control;
use crate::types::Peer;
use http::HeaderMap;

use super::Identities;

fn nanoseconds(all: &Identities, headers: &HeaderMap, peer: &Peer) -> f64 {
    const CALLS: u32 = 200_000;
    for _ in 0..CALLS / 10 {
        black_box(all.identify(black_box(headers), peer)).unwrap();
    }
    let began = Instant::now();
    for _ in 0..CALLS {
        black_box(all.identify(black_box(headers), peer)).unwrap();
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}

#[test]
#[ignore = "a measurement"]
fn costs_of_recognising() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = identities("", folder.path(), Control::Local);
    println!("anonymous        {:6.0} ns", nanoseconds(&nobody, &HeaderMap::new(), &far()));
    let issuer = Issuer::new(Algorithm::RS256, "a");
    std::fs::write(folder.path().join("jwks"), set(&[&issuer])).unwrap();
    let others: String =
        (0..1000).map(|i| client(&format!("c{i}"), &[&format!("key-number-{i}")])).collect();
    let jwt = "[auth.jwt]\njwks_file = 'jwks'\naudience = ['penstock']\n";
    let text = format!("{others}{}{jwt}", client("jobs", &[FIRST]));
    let all = identities(&text, folder.path(), Control::Local);
    println!("key, of 1001     {:6.0} ns", nanoseconds(&all, &bearer(FIRST), &far()));
    let key = headers(&[("x-api-key", FIRST)]);
    println!("x-api-key        {:6.0} ns", nanoseconds(&all, &key, &far()));
    let token = issuer.token(&claims());
    let bytes = token.len();
    println!("token, {bytes} bytes {:6.0} ns", nanoseconds(&all, &bearer(&token), &far()));
    let began = Instant::now();
    for _ in 0..200_000 {
        black_box(digest(black_box(token.as_bytes())));
    }
    println!("  its digest     {:6.0} ns", began.elapsed().as_secs_f64() * 1e9 / 200_000.0);
    let began = Instant::now();
    for i in 0..200 {
        let mut claims = claims();
        claims["jti"] = i.into();
        let token = bearer(&issuer.token(&claims));
        black_box(all.identify(&token, &far())).unwrap();
    }
    println!("signed and checked {:6.0} µs", began.elapsed().as_secs_f64() * 1e6 / 200.0);
}
