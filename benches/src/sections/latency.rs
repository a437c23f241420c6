//! What a lone caller waits for beyond the network stack and the model: its latency above a bare
//! echo's plus that of a bare forward, run as seldom as that caller calls.

use std::time::Duration;

use anyhow::Context;

use crate::bench::{Bench, Case, DIGITS, Rounds, figures};
use crate::load::{Protocol, Quantiles, Window};
use crate::report::number;
use crate::row::{Demand, Row};
use crate::stats::Spread;
use crate::torch::{self, Forward};

const PROTOCOLS: [Protocol; 3] = [Protocol::Grpc, Protocol::HttpBinary, Protocol::HttpJson];

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for protocol in PROTOCOLS {
        let rounds = bench.case(Case { protocol, callers: 1, connections: 1 })?.clone();
        match bench.torch.available() {
            Ok(()) => {
                let forwards = forwards(bench, &rounds)?;
                rows.extend(lines(protocol, &rounds, Some(&forwards)));
            }
            Err(why) => {
                let skipped = lines(protocol, &rounds, None);
                rows.extend(skipped.map(|row| Row { skipped: Some(why.clone()), ..row }));
            }
        }
    }
    Ok(rows)
}

/// A forward for each round. Between two of them passes what passes for this caller: the time of
/// an echo, in which the model's memory leaves the caches.
fn forwards(bench: &mut Bench, rounds: &Rounds) -> anyhow::Result<Vec<torch::Quantiles>> {
    let duration = bench.settings.window(0.5);
    let digits = bench.digits()?;
    let model = digits.repository.file(DIGITS, 1);
    let way = super::items::way(&digits.penstock, DIGITS)?;
    let mut forwards = Vec::new();
    for window in &rounds.multi {
        let forward = Forward {
            model: &model,
            inputs: &[("64", "FP32")],
            batches: &[1],
            way: &way,
            duration,
            pause: Duration::from_secs_f64(window.report.latency_us.p50 / 1e6),
        };
        let cold = bench.torch.run(&forward)?.cold();
        forwards.push(cold.context("the bare libtorch loop gave no cold runs")?);
    }
    Ok(forwards)
}

fn lines(protocol: Protocol, rounds: &Rounds, forwards: Option<&[torch::Quantiles]>) -> [Row; 2] {
    type Pick = fn(&Quantiles) -> f64;
    type PickForward = fn(&torch::Quantiles) -> f64;
    let quantiles: [(&str, f64, Pick, PickForward); 2] = [
        ("p50", 50.0, |found| found.p50, |run| run.p50_us),
        ("p99", 120.0, |found| found.p99, |run| run.p99_us),
    ];
    quantiles.map(|(name, limit, pick, pick_forward)| {
        let of = |windows: &[Window]| figures(windows, |window| pick(&window.report.latency_us));
        let (penstock, echo) = (of(&rounds.penstock), of(&rounds.multi));
        let row = Row::new(
            format!("latency/{}/{name}", protocol.name()),
            format!("{}, {name}", protocol.title()),
        )
        .measured("µs", &penstock)
        .in_unit("µs")
        .demand(Demand::AtMost(limit));
        let Some(forwards) = forwards else { return row.against(&echo) };
        let forward: Vec<f64> = forwards.iter().map(pick_forward).collect();
        let floor: Vec<f64> = echo.iter().zip(&forward).map(|(echo, run)| echo + run).collect();
        let above = Spread::paired(&penstock, &floor, |whole, floor| whole - floor);
        let middle = |samples: &[f64]| {
            Spread::of(samples).map_or_else(|| "?".to_owned(), |spread| number(spread.median))
        };
        row.against(&floor).value("µs", above).demand(Demand::AtMost(limit)).note(format!(
            "echo {} + forward {}",
            middle(&echo),
            middle(&forward)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(p50: f64, p99: f64) -> Window {
        let report = serde_json::json!({
            "answered": 10, "failed": 0, "requests_per_second": 1.0, "items_per_second": 1.0,
            "latency_us": { "p50": p50, "p99": p99 }, "checked": 0, "mismatches": 0,
        });
        let report = serde_json::from_value(report).unwrap();
        Window { report, server_us: 1.0, client_us: 1.0 }
    }

    #[test]
    fn the_floor_is_echo_and_forward_of_the_same_round() {
        let rounds = Rounds {
            penstock: vec![window(150.0, 300.0), window(190.0, 300.0)],
            multi: vec![window(90.0, 120.0), window(120.0, 120.0)],
            current: Vec::new(),
        };
        let run = |p50_us| torch::Quantiles { p50_us, p99_us: 30.0 };
        let [p50, p99] = lines(Protocol::Grpc, &rounds, Some(&[run(20.0), run(30.0)]));
        let value = p50.value.unwrap();
        assert!((value.low - 40.0).abs() < 1e-9 && (value.high - 40.0).abs() < 1e-9);
        assert_eq!((p50.met, p99.met), (Some(true), Some(false)));
    }

    #[test]
    fn without_a_forward_there_is_no_value_to_judge() {
        let rounds = Rounds {
            penstock: vec![window(1.0, 2.0)],
            multi: vec![window(1.0, 2.0)],
            ..Default::default()
        };
        let [p50, _] = lines(Protocol::Grpc, &rounds, None);
        assert_eq!((p50.value, p50.met), (None, None));
    }
}
