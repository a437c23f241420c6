//! Server CPU per request on the digits model, against the bare network stack.

use crate::bench::{Bench, Case, Rounds, figures};
use crate::load::{Protocol, Window};
use crate::report::number;
use crate::row::{Demand, Row};
use crate::stats::{Spread, median};

/// Over gRPC, where the number of connections changes the answer.
pub(super) fn grpc(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let cases = [(64, 4, Some(1.2)), (64, 64, Some(1.7)), (16, 4, Some(1.8)), (1, 1, None)];
    let mut rows = Vec::new();
    for (callers, connections, limit) in cases {
        rows.extend(pair(bench, Case { protocol: Protocol::Grpc, callers, connections }, limit)?);
    }
    Ok(rows)
}

/// Over HTTP; a row of JSON is 64 numbers.
pub(super) fn http(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (protocol, at_64) in [(Protocol::HttpBinary, 1.4), (Protocol::HttpJson, 1.5)] {
        for (callers, limit) in [(64, Some(at_64)), (16, Some(1.9)), (1, None)] {
            rows.extend(pair(bench, Case { protocol, callers, connections: callers }, limit)?);
        }
    }
    Ok(rows)
}

/// A case against both flavours of its ceiling; the demand is on the first.
fn pair(bench: &mut Bench, case: Case, limit: Option<f64>) -> anyhow::Result<[Row; 2]> {
    let rounds = bench.case(case)?;
    let Case { protocol, callers, connections } = case;
    let key = format!("cpu/{}/{callers}/{connections}", protocol.name());
    let what = format!("{}, {callers} on {connections}", protocol.title());
    let multi = row(&key, &what, rounds, &rounds.multi).demand(limit.map(Demand::AtMost));
    let key = format!("{key}/current");
    let what = format!("{what}, current-thread");
    Ok([multi.note(note(rounds)), row(&key, &what, rounds, &rounds.current)])
}

fn row(key: &str, what: &str, rounds: &Rounds, ceiling: &[Window]) -> Row {
    let server = |windows| figures(windows, |window: &Window| window.server_us);
    let (penstock, ceiling) = (server(&rounds.penstock), server(ceiling));
    Row::new(key, what)
        .measured("µs", &penstock)
        .against(&ceiling)
        .value("×", Spread::ratio(&penstock, &ceiling))
}

/// What the ratio does not show: rates, latencies and what the client spent.
fn note(rounds: &Rounds) -> String {
    let middle = |windows: &[Window], figure: fn(&Window) -> f64| {
        median(&figures(windows, figure)).map_or_else(|| "?".to_owned(), number)
    };
    let side = |windows: &[Window]| {
        format!(
            "{}/s, p50 {} p99 {} µs, client {} µs",
            middle(windows, |window| window.report.requests_per_second),
            middle(windows, |window| window.report.latency_us.p50),
            middle(windows, |window| window.report.latency_us.p99),
            middle(windows, |window| window.client_us),
        )
    };
    format!("{}; ceiling {}", side(&rounds.penstock), side(&rounds.multi))
}
