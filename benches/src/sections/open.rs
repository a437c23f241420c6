//! Calls that arrive whatever became of those before them, at a part of what a closed loop gets
//! through: what a crowd sees.

use crate::bench::{Bench, Case, figures};
use crate::load::{Arrivals, Load, Protocol, Window};
use crate::report::number;
use crate::row::{Demand, Row};
use crate::say::progress;
use crate::stats::{Spread, median};

/// The part of the maximum that is offered.
const PART: f64 = 0.7;
/// The most calls on their way.
pub(super) const IN_FLIGHT: usize = 256;
/// With a smaller part of the calls sent, the rate was not what was asked for.
const KEPT_UP: f64 = 0.97;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for protocol in [Protocol::Grpc, Protocol::HttpBinary] {
        let key = format!("open/{}/p99-p50", protocol.name());
        let row = Row::new(key, format!("{}, p99 / p50", protocol.title()))
            .in_unit("×")
            .demand(Demand::AtMost(4.0));
        rows.push(match bench.loadtest.open_loop() {
            Err(why) => Row { skipped: Some(why), ..row },
            Ok(()) => measure(bench, protocol, row)?,
        });
    }
    Ok(rows)
}

fn measure(bench: &mut Bench, protocol: Protocol, row: Row) -> anyhow::Result<Row> {
    let maximum = maximum(bench, protocol)?;
    progress(format_args!("{} at {:.0} % of {maximum:.0}/s", protocol.title(), PART * 100.0));
    bench.digits()?;
    let windows = windows(bench, protocol, PART * maximum)?;
    let p50 = figures(&windows, |window| window.report.latency_us.p50);
    let p99 = figures(&windows, |window| window.report.latency_us.p99);
    Ok(row
        .measured("µs", &p99)
        .against(&p50)
        .value("×", Spread::ratio(&p99, &p50))
        .note(format!("{}; the ceiling is p50", pace(&windows)))
        .void(unkept(&windows)))
}

/// What 64 callers in a closed loop get through.
pub(super) fn maximum(bench: &mut Bench, protocol: Protocol) -> anyhow::Result<f64> {
    let connections = if protocol == Protocol::Grpc { 4 } else { 64 };
    let rounds = bench.case(Case { protocol, callers: 64, connections })?;
    let rates = figures(&rounds.penstock, |window| window.report.requests_per_second);
    Ok(median(&rates).unwrap_or_default())
}

fn windows(bench: &mut Bench, protocol: Protocol, rate: f64) -> anyhow::Result<Vec<Window>> {
    let rounds = bench.settings.rounds;
    let duration = bench.settings.window(1.0);
    bench.digits()?;
    let load = Load {
        callers: IN_FLIGHT,
        connections: 4,
        arrivals: Arrivals::Open(rate),
        ..bench.load(protocol, duration)
    };
    let server = bench.penstock()?;
    (0..rounds).map(|_| bench.loadtest.run(server, &load)).collect()
}

/// What was offered and whether the load generator kept up, for a note.
pub(super) fn pace(windows: &[Window]) -> String {
    let sum = |figure: fn(&Window) -> Option<f64>| {
        median(&figures(windows, |window| figure(window).unwrap_or(f64::NAN)))
    };
    let offered = sum(|window| window.report.offered_rate);
    let dropped: f64 = windows.iter().filter_map(|window| window.report.dropped).sum();
    let mut text = match offered {
        Some(offered) => format!("{}/s offered", number(offered)),
        None => "the load generator names no rate".to_owned(),
    };
    if let Some(lag) = sum(|window| Some(window.report.send_lag_us?.p99)) {
        text += &format!(", sent up to {} µs late (p99)", number(lag));
    }
    if dropped > 0.0 {
        text += &format!(", {dropped:.0} calls not sent for want of room");
    }
    text
}

/// Why windows do not show the rate that was asked for, if they do not: a latency at a lower rate
/// says nothing about the demand.
pub(super) fn unkept(windows: &[Window]) -> Option<&'static str> {
    // The load generator counts answers as achieved; refusals are calls that were sent too.
    let kept = |window: &Window| match window.report.dropped {
        Some(dropped) => {
            let sent = window.report.answered + window.report.failed;
            sent >= KEPT_UP * (sent + dropped)
        }
        None => false,
    };
    let all = windows.iter().filter(|window| kept(window)).count();
    // Single windows may meet a busy machine; the median must not.
    (all * 2 <= windows.len()).then_some("the rate was not reached")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(offered: f64, dropped: f64) -> Window {
        let report = serde_json::json!({
            "answered": 900, "failed": 100, "requests_per_second": 1.0, "items_per_second": 1.0,
            "latency_us": { "p50": 1, "p99": 1 }, "checked": 0, "mismatches": 0,
            "offered_rate": offered, "dropped": dropped,
        });
        let report = serde_json::from_value(report).unwrap();
        Window { report, server_us: 1.0, client_us: 1.0 }
    }

    #[test]
    fn windows_below_their_rate_are_not_judged() {
        let (good, late) = (window(1000.0, 3.0), window(1000.0, 300.0));
        assert_eq!(unkept(&[good.clone(), good.clone(), late.clone()]), None);
        assert!(unkept(&[good, late.clone(), late]).is_some());
        assert!(unkept(&[]).is_some());
    }

    #[test]
    fn calls_that_were_not_sent_are_told() {
        assert_eq!(pace(&[window(1000.0, 0.0)]), "1,000/s offered");
        let short = pace(&[window(1000.0, 3.0)]);
        assert_eq!(short, "1,000/s offered, 3 calls not sent for want of room");
    }
}
