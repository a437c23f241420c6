//! Three times as many calls as the engine can take: how fast it says no, and whether it still
//! gets its own work done.
//!
//! The slow engine is a real one: `digits_cnn` without graph optimisation, a whole batch in each
//! call, so that the arithmetic and not the network is what fills up. The queue is set to hold
//! few calls, so that refusals begin at once.

use toml::Value;

use crate::bench::{Bench, figures};
use crate::load::{Arrivals, Client, Load, Protocol, Window};
use crate::process::Server;
use crate::row::{Demand, Row};
use crate::say::progress;
use crate::stats::{Spread, median};

use super::open::{IN_FLIGHT, pace, unkept};

const MODEL: &str = "digits_cnn";
/// Rows of each call, and of each batch: about 0.7 ms of arithmetic.
const ROWS: usize = 16;
/// Calls that fit into the queue.
const QUEUED: usize = 8;
/// How much more is offered than the engine can do.
const TIMES: f64 = 3.0;
/// With less refused than this part, it was no such overload; two thirds are expected.
const REFUSED: f64 = 0.5;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let clients = [
        ("one-core", "client pinned to one core", Client::LastCore, 1000.0),
        ("both-full", "client on every core", Client::EveryCore, 5000.0),
    ];
    if let Err(why) = bench.loadtest.open_loop() {
        let lines = clients.iter().flat_map(|(key, what, _, limit)| blank(key, what, *limit));
        return Ok(lines.map(|row| Row { skipped: Some(why.clone()), ..row }).collect());
    }
    let server = slow_gateway(bench)?;
    let maxima = maxima(bench, &server)?;
    let maximum = median(&maxima).unwrap_or_default();
    let mut rows = Vec::new();
    for (key, what, client, limit) in clients {
        progress(format_args!("{TIMES} times {maximum:.0} calls/s, {what}"));
        let load = Load {
            callers: IN_FLIGHT,
            arrivals: Arrivals::Open(TIMES * maximum),
            refusals: true,
            client,
            ..calls(bench)
        };
        let windows = (0..bench.settings.rounds)
            .map(|_| bench.loadtest.run(&server, &load))
            .collect::<anyhow::Result<Vec<_>>>()?;
        rows.extend(lines(blank(key, what, limit), &windows, &maxima));
    }
    Ok(rows)
}

/// A gateway with one engine thread, the model pinned to its plain graph and a short queue.
fn slow_gateway(bench: &Bench) -> anyhow::Result<Server> {
    let options = format!("[engine]\ncpu_threads = 1\n[limits]\nqueue_rows = {}\n", QUEUED * ROWS);
    let models = (bench.settings.given.repository.as_path(), &[MODEL][..]);
    let size = i64::try_from(ROWS)?;
    let (server, _) = bench.gateway("overload", models, &options, |repository| {
        repository.edit(MODEL, |manifest| {
            manifest.insert("max_batch_size".to_owned(), size.into());
            let engine = [("device", "cpu"), ("graph", "plain")];
            let engine = engine.map(|(key, value)| (key.to_owned(), Value::from(value)));
            manifest.insert("engine".to_owned(), toml::Table::from_iter(engine).into());
            let sizes = [("batch_sizes".to_owned(), Value::from(vec![1, size]))];
            manifest.insert("warmup".to_owned(), toml::Table::from_iter(sizes).into());
        })
    })?;
    Ok(server)
}

/// Calls with a whole batch each, as many callers as there is room for.
fn calls(bench: &Bench) -> Load<'_> {
    Load {
        callers: QUEUED,
        connections: 4,
        rows: ROWS,
        data: Some(&bench.settings.given.data),
        ..Load::new(Protocol::Grpc, MODEL, bench.settings.window(1.0))
    }
}

/// What the engine gets through when nobody is refused, in calls a second.
fn maxima(bench: &Bench, server: &Server) -> anyhow::Result<Vec<f64>> {
    let check = Load { check: true, duration: bench.settings.window(0.3), ..calls(bench) };
    bench.loadtest.run(server, &check)?;
    let windows = (0..bench.settings.rounds)
        .map(|_| bench.loadtest.run(server, &calls(bench)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(figures(&windows, |window| window.report.requests_per_second))
}

fn blank(key: &str, what: &str, limit: f64) -> [Row; 3] {
    let row = |figure: &str, text: &str| {
        Row::new(format!("overload/{key}/{figure}"), format!("{text}, {what}"))
    };
    [
        row("refused-p50", "refusals, p50").in_unit("µs"),
        row("refused-p99", "refusals, p99").in_unit("µs").demand(Demand::AtMost(limit)),
        row("goodput", "goodput of the maximum").in_unit("×").demand(Demand::AtLeast(0.95)),
    ]
}

fn lines([p50, p99, goodput]: [Row; 3], windows: &[Window], maxima: &[f64]) -> [Row; 3] {
    let refused = |figure: fn(&crate::load::Quantiles) -> f64| {
        let refused = windows.iter().map(|window| window.report.refusals());
        let samples: Option<Vec<f64>> = refused.map(|found| found.as_ref().map(figure)).collect();
        samples.unwrap_or_default()
    };
    let answered = figures(windows, |window| window.report.requests_per_second);
    let share = figures(windows, |window| {
        window.report.failed / (window.report.answered + window.report.failed)
    });
    let share = median(&share).unwrap_or_default();
    let few = (share < REFUSED).then_some("too few calls were refused for such an overload");
    let void = few.or(unkept(windows));
    let pace = format!("{:.0} % refused; {}", share * 100.0, pace(windows));
    [
        p50.value("µs", Spread::of(&refused(|found| found.p50))),
        p99.value("µs", Spread::of(&refused(|found| found.p99))).note(pace).void(void),
        goodput
            .measured("/s", &answered)
            .against(maxima)
            .value("×", Spread::ratio(&answered, maxima))
            .void(void),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(answered_a_second: f64, refused: Option<(f64, f64)>) -> Window {
        let mut report = serde_json::json!({
            "answered": 10, "failed": 20, "requests_per_second": answered_a_second,
            "items_per_second": 1.0, "latency_us": { "p50": 1, "p99": 1 }, "checked": 0,
            "mismatches": 0, "offered_rate": 30.0, "dropped": 0,
        });
        if let Some((p50, p99)) = refused {
            report["refused"] = 20.into();
            report["refused_latency_us"] = serde_json::json!({ "p50": p50, "p99": p99 });
        }
        let report = serde_json::from_value(report).unwrap();
        Window { report, server_us: 1.0, client_us: 1.0 }
    }

    #[test]
    fn refusals_and_goodput_are_judged_apart() {
        let windows = [window(96.0, Some((100.0, 900.0))), window(90.0, Some((100.0, 1500.0)))];
        let [p50, p99, goodput] = lines(blank("k", "w", 1000.0), &windows, &[100.0, 100.0]);
        assert_eq!((p50.met, p99.met, goodput.met), (None, Some(false), Some(false)));
        assert!(p99.note.starts_with("67 % refused"), "{}", p99.note);
    }

    #[test]
    fn an_overload_that_was_none_is_not_judged() {
        let mut mild = window(99.0, Some((100.0, 200.0)));
        mild.report.failed = 1.0;
        let [_, p99, goodput] = lines(blank("k", "w", 1000.0), &[mild], &[100.0]);
        assert_eq!((p99.met, goodput.met), (None, None));
        assert!(p99.note.starts_with("not judged: too few"), "{}", p99.note);
    }

    #[test]
    fn an_overload_without_a_refusal_has_no_latency_of_refusals() {
        let [_, p99, goodput] = lines(blank("k", "w", 1000.0), &[window(99.0, None)], &[100.0]);
        assert_eq!((p99.met, goodput.met), (None, Some(true)));
        assert!(p99.skipped.is_some());
    }
}
