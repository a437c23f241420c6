//! Open loop at 30 % of the maximum, with the model swapped between two versions every second
//! and without.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::bench::{Bench, DIGITS, figures};
use crate::http;
use crate::load::{Arrivals, Load, Protocol, Window};
use crate::process::Server;
use crate::repository::Repository;
use crate::row::{Demand, Row};
use crate::say::progress;
use crate::stats::Spread;

use super::open::{IN_FLIGHT, maximum, pace, unkept};

/// The part of the maximum that is offered.
const PART: f64 = 0.3;
const EVERY: Duration = Duration::from_secs(1);
/// Swaps that a window has to hold, so that p99 means something.
const SWAPS: usize = 2;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let row = Row::new("swap/p99", "gRPC, p99 with swaps / without")
        .in_unit("×")
        .demand(Demand::AtMost(1.5));
    if let Err(why) = bench.loadtest.open_loop() {
        return Ok(vec![Row { skipped: Some(why), ..row }]);
    }
    let rate = PART * maximum(bench, Protocol::Grpc)?;
    progress(format_args!("a swap every second at {rate:.0}/s"));
    let models = (bench.settings.given.repository.as_path(), &[DIGITS][..]);
    let change = |repository: &Repository| repository.serve_only(DIGITS, 1);
    let (server, repository) = bench.gateway("swap", models, "", change)?;
    let load = Load {
        callers: IN_FLIGHT,
        connections: 4,
        arrivals: Arrivals::Open(rate),
        version: "",
        ..bench.load(Protocol::Grpc, duration(bench.settings.seconds))
    };
    let (mut calm, mut swapped, mut swaps) = (Vec::new(), Vec::new(), 0);
    for _ in 0..bench.settings.rounds {
        calm.push(bench.loadtest.run(&server, &load)?);
        let (window, count) = under_swaps(bench, (&server, &repository), &load)?;
        swapped.push(window);
        swaps += count;
    }
    let void = unkept(&calm).or(unkept(&swapped));
    let p99 = |windows: &[Window]| figures(windows, |window| window.report.latency_us.p99);
    let (calm, with) = (p99(&calm), p99(&swapped));
    Ok(vec![
        row.measured("µs", &with)
            .against(&calm)
            .value("×", Spread::ratio(&with, &calm))
            .note(format!("{swaps} swaps; {}; the ceiling is no swap", pace(&swapped)))
            .void(void),
    ])
}

/// Long enough for a few swaps.
fn duration(seconds: f64) -> Duration {
    let swaps = u32::try_from(SWAPS).unwrap_or(u32::MAX);
    Duration::from_secs_f64(seconds * 2.0).max(EVERY * swaps + EVERY / 2)
}

/// A window during which the model is swapped again and again, and how often it was.
fn under_swaps(
    bench: &Bench,
    gateway: (&Server, &Repository),
    load: &Load<'_>,
) -> anyhow::Result<(Window, usize)> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let swaps = scope.spawn(|| swap_until(&over, gateway));
        let window = bench.loadtest.run(gateway.0, load);
        over.store(true, Ordering::Relaxed);
        swaps.thread().unpark();
        let swaps = swaps.join().map_err(|_| anyhow::anyhow!("the swaps panicked"))??;
        let window = window?;
        ensure!(
            swaps >= SWAPS && window.report.versions.len() >= 2,
            "only {swaps} swaps, versions {:?} answered",
            window.report.versions.keys()
        );
        Ok((window, swaps))
    })
}

/// Swaps as an operator does, by the manifest and a load call, once a second.
fn swap_until(
    over: &AtomicBool,
    (server, repository): (&Server, &Repository),
) -> anyhow::Result<usize> {
    let path = format!("/v2/repository/models/{DIGITS}/load");
    let mut swaps = 0;
    let swap = |version| {
        repository.serve_only(DIGITS, version)?;
        http::call(&server.http, "POST", &path, &[], b"{}").context("a swap")
    };
    loop {
        thread::park_timeout(EVERY);
        if over.load(Ordering::Relaxed) {
            // The next window begins with the version that the first began with.
            swap(1)?;
            return Ok(swaps);
        }
        swaps += 1;
        swap(if swaps % 2 == 1 { 2 } else { 1 })?;
    }
}
