//! What it costs a call to be known by its API key, counted by three rate limits and passed by a
//! circuit breaker: two gateways in turns, one with all of it and one with none.

use crate::bench::{Bench, DIGITS, VERSION, figures};
use crate::load::{Load, Protocol, Window};
use crate::row::{Demand, Row};
use crate::say::progress;
use crate::stats::Spread;

/// CPU time that all of it may cost together, in microseconds.
const LIMIT: f64 = 3.0;
/// The load generator sends this header with the one key `key-000000`, whose hash is below.
const HEADER: &str = "x-api-key";

const WITHOUT: &str = "[breaker]\nenabled = false\n";
const WITH: &str = r#"
[auth]
anonymous = ["predict"]
[[auth.key]]
name = "bench"
tenant = "benches"
hashes = ["sha256:70b4eb9de7bb080f6dc4705f8f1a2ea30da8041ad17bd884ba3e28148bff7e8f"]
[[rate_limit]]
name = "per-client"
key = "identity"
rate = "10000000/s"
[[rate_limit]]
name = "per-tenant"
key = "tenant"
rate = "10000000/s"
[[rate_limit]]
name = "everybody"
key = "global"
cost = "rows"
rate = "10000000/s"
"#;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let models = (bench.settings.given.repository.as_path(), &[DIGITS][..]);
    let (plain, _plain) = bench.gateway("unprotected", models, WITHOUT, |_| Ok(()))?;
    let (guarded, _guarded) = bench.gateway("protected", models, WITH, |_| Ok(()))?;
    let mut rows = Vec::new();
    for (protocol, connections) in [(Protocol::Grpc, 4), (Protocol::HttpBinary, 64)] {
        progress(format_args!("{} with and without protection", protocol.title()));
        let load = Load {
            callers: 64,
            connections,
            version: VERSION,
            key_header: Some(HEADER),
            ..bench.load(protocol, bench.settings.window(1.0))
        };
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..bench.settings.rounds {
            for turn in 0..2 {
                let (server, windows) = match (round + turn) % 2 {
                    0 => (&guarded, &mut with),
                    _ => (&plain, &mut without),
                };
                windows.push(bench.loadtest.run(server, &load)?);
            }
        }
        let cpu = |windows: &[Window]| figures(windows, |window| window.server_us);
        let (with, without) = (cpu(&with), cpu(&without));
        let more = Spread::paired(&with, &without, |with, without| with - without);
        rows.push(
            Row::new(
                format!("protection/{}", protocol.name()),
                format!("{}, key + three limits + breaker", protocol.title()),
            )
            .measured("µs", &with)
            .against(&without)
            .value("µs more", more)
            .demand(Demand::AtMost(LIMIT))
            .note("the ceiling is the same gateway without them; differences of windows in turns"),
        );
    }
    Ok(rows)
}
