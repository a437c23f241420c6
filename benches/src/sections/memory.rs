//! Resident memory: of a gateway after 64 callers above a bare libtorch process with the same
//! model, and what ten thousand idle connections add.

use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::bench::{Bench, DIGITS};
use crate::http::Client;
use crate::load::{Load, Protocol};
use crate::process::Server;
use crate::report::number;
use crate::row::{Demand, Row};
use crate::say::progress;
use crate::stats::Spread;
use crate::torch::Forward;

const MEBIBYTE: f64 = 1_048_576.0;
const IDLE: usize = 10_000;
/// Files that a process opens besides connections.
const OTHER_FILES: u64 = 200;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    // Before the gateway starts, which inherits the limit.
    let room = raise_file_limit();
    progress("resident memory");
    let models = (bench.settings.given.repository.as_path(), &[DIGITS][..]);
    let change = |repository: &crate::repository::Repository| repository.serve_only(DIGITS, 1);
    let (server, repository) = bench.gateway("memory", models, "", change)?;
    let started = server.resident_bytes()?;
    for protocol in [Protocol::Grpc, Protocol::HttpBinary, Protocol::HttpJson] {
        let load = bench.load(protocol, bench.settings.window(1.0));
        bench.loadtest.run(&server, &Load { callers: 64, connections: 64, ..load })?;
    }
    let busy = server.resident_bytes()?;
    let row = Row::new("memory/callers", "after 64 callers over every protocol, above libtorch")
        .measured("MiB", &[busy / MEBIBYTE])
        .in_unit("MiB")
        .demand(Demand::AtMost(40.0))
        .note(format!("{} MiB at the start", number(started / MEBIBYTE)));
    let row = match bench.torch.available() {
        Err(why) => Row { skipped: Some(why), ..row },
        Ok(()) => {
            let way = super::items::way(&server, DIGITS)?;
            let forward = Forward {
                model: &repository.file(DIGITS, 1),
                inputs: &[("64", "FP32")],
                batches: &[1, 64],
                way: &way,
                duration: bench.settings.window(0.3),
                pause: Duration::ZERO,
            };
            let bare = bench.torch.run(&forward)?.bare_resident_bytes;
            let above = Spread::of(&[(busy - bare) / MEBIBYTE]);
            row.against(&[bare / MEBIBYTE]).value("MiB", above)
        }
    };
    let idle = Row::new("memory/idle", format!("{IDLE} idle HTTP connections more"))
        .in_unit("MiB")
        .demand(Demand::AtMost(200.0));
    let idle = match room {
        Err(why) => Row { skipped: Some(why), ..idle },
        Ok(()) => connections(&server, idle)?,
    };
    Ok(vec![row, idle])
}

/// Connections that have had one answer each, and then wait.
fn connections(server: &Server, row: Row) -> anyhow::Result<Row> {
    let before = server.resident_bytes()?;
    let mut open = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut client = Client::connect(&server.http)?;
        client.call("GET", "/v2/health/live", &[], b"")?;
        open.push(client);
    }
    let after = server.resident_bytes()?;
    // All of them are still there: each answers again.
    for client in open.iter_mut().step_by(IDLE / 100) {
        client.call("GET", "/v2/health/live", &[], b"")?;
    }
    Ok(row
        .measured("MiB", &[after / MEBIBYTE])
        .against(&[before / MEBIBYTE])
        .value("MiB", Spread::of(&[(after - before) / MEBIBYTE]))
        .note("each after one answer; the ceiling is the gateway before"))
}

/// Lets this process and those it starts open a file for each connection.
fn raise_file_limit() -> Result<(), String> {
    let needed = u64::try_from(IDLE).unwrap_or(u64::MAX) + OTHER_FILES;
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(hard) = limit.maximum.filter(|hard| *hard < needed) {
        return Err(format!("the hard limit of open files is {hard}, {needed} are needed"));
    }
    limit.current = Some(needed);
    setrlimit(Resource::Nofile, limit).map_err(|error| format!("open files: {error}"))
}
