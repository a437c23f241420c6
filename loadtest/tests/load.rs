//! Loads on servers that answer, refuse, lie, stall and break, over every wire.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::Ordering;
use std::time::Duration;

use penstock_loadtest::arrivals::Arrivals;
use penstock_loadtest::dataset::Recipe;
use penstock_loadtest::job::{Job, Named};
use penstock_loadtest::keys::{Distribution, Population};
use penstock_loadtest::plan::{Drive, Limit, LoadStage};
use penstock_loadtest::recording::Recording;
use penstock_loadtest::run::Protocol;
use penstock_loadtest::target::Target;

#[path = "load/server.rs"]
mod server;

use server::{Manner, Server};

const WIRES: [Protocol; 4] =
    [Protocol::HttpJson, Protocol::HttpBinary, Protocol::Grpc, Protocol::Mixed];

fn job(server: &Server, protocol: Protocol) -> Job {
    let target = Target { http: server.http.clone(), grpc: server.grpc.clone() };
    Job {
        targets: vec![Named { name: "server".to_owned(), target }],
        model: "double".to_owned(),
        version: String::new(),
        protocol,
        connections: 2,
        threads: 1,
        patience: Duration::from_secs(60),
        data: None,
        recipe: Recipe { rows: 2, ..Recipe::default() },
        expect: None,
        check_all: true,
        keys: None,
        seed: 1,
    }
}

fn stage(drive: Drive, limit: Limit) -> LoadStage {
    LoadStage { name: "load".to_owned(), drive, limit, warm_up: false }
}

fn requests(callers: usize, count: u64) -> LoadStage {
    stage(Drive::callers(callers), Limit::Requests(count))
}

fn open(rate: f64, bound: usize, limit: Limit) -> LoadStage {
    let arrivals = Arrivals::Constant;
    stage(Drive::Open { from: rate, to: rate, arrivals, bound }, limit)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    assert!(reached.is_ok(), "waited for: {what}");
}

async fn perform(job: &Job, stage: LoadStage) -> Recording {
    let targets = job.perform(&[stage], 1).await.unwrap();
    targets[0].outcomes[0].measured()
}

#[tokio::test]
async fn every_wire_answers_every_request_and_every_answer_is_checked() {
    for protocol in WIRES {
        let server = Server::start(|_| Manner::Answer).await;
        for threads in [1, 3] {
            let job = Job { expect: Some(vec![]), threads, ..job(&server, protocol) };
            let recording = perform(&job, requests(8, 300)).await;
            let total = recording.recorder.total();
            assert_eq!((total.answered, total.failed), (300, 0), "{protocol:?} {:?}", total.errors);
            assert_eq!((total.checked, total.mismatches), (300, 0), "{:?}", total.mismatch);
            assert_eq!((total.items, total.versions["1"]), (600, 300));
            assert!(recording.is_clean() && recording.offered_rate().is_none());
            assert!(recording.cpu > Duration::ZERO);
        }
    }
}

#[tokio::test]
async fn wrong_answers_are_found() {
    for protocol in WIRES {
        // What is expected is learnt from the first calls: one for each of the 32 rows.
        let lies = |call| if call >= 32 && call % 10 == 0 { Manner::Lie } else { Manner::Answer };
        let server = Server::start(lies).await;
        let job = Job { expect: Some(vec![]), ..job(&server, protocol) };
        let total = perform(&job, requests(4, 100)).await.recorder.total();
        assert_eq!((total.answered, total.mismatches), (100, 10), "{protocol:?}");
        assert!(total.mismatch.unwrap().contains("output 'y'[0]"));
    }
}

#[tokio::test]
async fn refusals_are_counted_apart_with_their_latency() {
    for (protocol, kind) in [
        (Protocol::HttpJson, "HTTP 503"),
        (Protocol::HttpBinary, "HTTP 503"),
        (Protocol::Grpc, "gRPC Unavailable"),
    ] {
        let some = |call| if call % 4 == 0 { Manner::Refuse } else { Manner::Answer };
        let server = Server::start(some).await;
        let total = perform(&job(&server, protocol), requests(4, 100)).await.recorder.total();
        assert_eq!((total.answered, total.failed), (75, 25), "{protocol:?}");
        assert_eq!((total.refused.len(), total.latency.len()), (25, 75));
        assert_eq!(total.errors[kind].count, 25);
        assert!(total.errors[kind].example.contains("full"));
    }
}

#[tokio::test]
async fn a_server_that_parts_after_an_answer_costs_no_call() {
    let parts = |call| if call % 10 == 9 { Manner::Part } else { Manner::Answer };
    let server = Server::start(parts).await;
    let recording = perform(&job(&server, Protocol::HttpJson), requests(2, 100)).await;
    assert_eq!(recording.recorder.total().answered, 100);
    // Two at first, one for the metadata, and one for each that was closed but perhaps the last.
    let connections = server.state.connections.load(Ordering::Relaxed);
    assert!((11..=13).contains(&connections), "{connections}");
}

#[tokio::test]
async fn a_broken_connection_fails_its_calls_and_is_opened_again() {
    for protocol in WIRES {
        let breaks = |call| if call % 25 == 24 { Manner::Break } else { Manner::Answer };
        let server = Server::start(breaks).await;
        let total = perform(&job(&server, protocol), requests(4, 200)).await.recorder.total();
        assert_eq!(total.requests(), 200, "{protocol:?}");
        assert!(total.failed >= 8 && total.answered >= 100, "{:?}", total.errors);
        let kinds: Vec<_> = total.errors.keys().map(ToString::to_string).collect();
        assert_eq!(kinds, ["connection broke"]);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_named_as_such_and_ends_the_wait() {
    for protocol in [Protocol::HttpJson, Protocol::Grpc] {
        let server = Server::start(|_| Manner::Answer).await;
        let load = {
            let job = job(&server, protocol);
            let load = job.load(&job.targets[0].target).await.unwrap();
            load.begin(vec![requests(2, 1_000_000)]).await.unwrap()
        };
        let watch = load.watch();
        until("calls are answered", || watch.look().1 >= 100).await;
        drop(server);
        // Dropping a task needs its runtime to come round.
        until("calls fail", || watch.look().2 >= 10).await;
        drop(load);
    }
}

#[tokio::test]
async fn calls_without_an_answer_end_in_time() {
    for protocol in [Protocol::HttpJson, Protocol::Grpc] {
        let hangs = |call| if call == 5 { Manner::Hang } else { Manner::Answer };
        let server = Server::start(hangs).await;
        let job = Job { patience: Duration::from_millis(300), ..job(&server, protocol) };
        let total = perform(&job, requests(1, 10)).await.recorder.total();
        assert_eq!(total.requests(), 10);
        assert!(total.errors["no answer in time"].count >= 1, "{:?}", total.errors);
        assert!(total.answered >= 5);
    }
}

#[tokio::test]
async fn a_stall_shows_in_the_open_loop_for_every_call_that_was_due_meanwhile() {
    for (protocol, bound) in
        [(Protocol::HttpBinary, 200), (Protocol::Grpc, 200), (Protocol::Grpc, 2)]
    {
        let stall = Duration::from_millis(500);
        let stalls = move |call| if call == 100 { Manner::Stall(stall) } else { Manner::Answer };
        let server = Server::start(stalls).await;
        let stage = open(400.0, bound, Limit::Requests(400));
        let recording = perform(&job(&server, protocol), stage).await;
        let total = recording.recorder.total();
        assert_eq!((total.answered, recording.sending.dropped), (400, 0));
        // 200 calls were due while it stalled; half of them waited half of that time or longer,
        // whether they could go out at once or had no room.
        let slow = total.latency.count_between(240_000, u64::MAX);
        assert!(slow >= 95, "{slow} of {protocol:?} {bound}");
        assert!(total.quantile(0.99) >= 480_000);
        if bound == 2 {
            // They went out late, which is told.
            assert!(recording.sending.lag.value_at_quantile(0.99) >= 450_000);
        }
    }
}

#[tokio::test]
async fn calls_that_find_no_room_until_the_end_are_counted_as_dropped() {
    let server = Server::start(|_| Manner::Stall(Duration::from_millis(700))).await;
    let stage = open(200.0, 1, Limit::Time(Duration::from_millis(500)));
    let recording = perform(&job(&server, Protocol::HttpJson), stage).await;
    let total = recording.recorder.total();
    assert_eq!((total.requests(), recording.sending.sent), (1, 1));
    assert_eq!(recording.sending.dropped, 99);
    assert!((recording.offered_rate().unwrap() - 200.0).abs() < 1e-6);
    assert!(recording.achieved_rate(&total) < 1.0);
    assert!(!recording.is_clean());
}

#[tokio::test]
async fn no_call_is_dropped_where_there_is_room_up_to_the_end() {
    for protocol in WIRES {
        let server = Server::start(|_| Manner::Answer).await;
        // The last call is due 1 ms before the end.
        let stage = open(1000.0, 400, Limit::Time(Duration::from_millis(300)));
        let recording = perform(&job(&server, protocol), stage).await;
        let total = recording.recorder.total();
        let counts = (total.answered, recording.sending.sent, recording.sending.dropped);
        assert_eq!(counts, (300, 300, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn keys_of_the_population_arrive_in_their_header() {
    for protocol in WIRES {
        let server = Server::start(|_| Manner::Answer).await;
        let (distribution, header) = (Distribution::Zipf, "x-user".to_owned());
        let keys = Some(Population { size: 10, distribution, header });
        let job = Job { keys, ..job(&server, protocol) };
        let total = perform(&job, requests(4, 500)).await.recorder.total();
        assert_eq!((total.answered, total.failed), (500, 0), "{protocol:?}");
        let keys = server.state.keys.lock().unwrap();
        assert_eq!((keys.len(), keys.values().sum::<u64>()), (10, 500));
        assert!(keys["key-000000"] > 2 * keys["key-000009"], "{keys:?}");
    }
}

#[tokio::test]
async fn targets_take_turns_and_a_warm_up_does_not_count() {
    let servers =
        [Server::start(|_| Manner::Answer).await, Server::start(|_| Manner::Refuse).await];
    let mut job = job(&servers[0], Protocol::HttpJson);
    job.targets.extend(self::job(&servers[1], Protocol::HttpJson).targets);
    job.targets[1].name = "refusing".to_owned();
    let warm_up = LoadStage { warm_up: true, ..requests(2, 10) };
    let targets = job.perform(&[warm_up, requests(2, 20)], 3).await.unwrap();
    for (target, (answered, failed)) in targets.iter().zip([(20, 0), (0, 20)]) {
        assert_eq!(target.outcomes.len(), 3);
        for outcome in &target.outcomes {
            let total = outcome.measured().recorder.total();
            assert_eq!((total.answered, total.failed), (answered, failed), "{}", target.name);
        }
    }
    let json = penstock_loadtest::compare::json(&targets);
    assert_eq!(json["targets"][1]["name"], "refusing");
    assert_eq!(json["targets"][1]["ratio"]["requests_per_second"], 0.0);
    assert_eq!(json["targets"][1]["median"]["error_share"], 1.0);
}

#[tokio::test]
async fn the_command_prints_every_field_and_writes_its_page() {
    let server = Server::start(|_| Manner::Answer).await;
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.html");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_penstock-loadtest"))
        .args(["run", "--url", &server.http, "--grpc", &server.grpc, "--model", "double"])
        .args(["--rate", "500", "--arrivals", "constant", "--requests", "50", "--json"])
        .args(["--protocol", "mixed", "--rows", "2", "--html"])
        .arg(&page)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no progress where no terminal is");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for field in [
        "seconds",
        "requests",
        "answered",
        "failed",
        "errors",
        "requests_per_second",
        "items_per_second",
        "latency_us",
        "versions",
        "accuracy",
        "checked",
        "mismatches",
        "model",
        "protocol",
        "callers",
        "rows",
        "offered_rate",
        "achieved_rate",
        "dropped",
        "send_lag_us",
        "refused_latency_us",
        "client_cpu_us_per_request",
        "stages",
        "timeline",
    ] {
        assert!(report.get(field).is_some(), "{field}");
    }
    for field in ["p50", "p90", "p99", "p99.9", "max", "mean"] {
        assert!(report["latency_us"][field].is_number(), "{field}");
    }
    assert_eq!((report["requests"].as_u64(), report["answered"].as_u64()), (Some(50), Some(50)));
    assert!(std::fs::read_to_string(page).unwrap().contains("Latency by percentile"));
}

#[tokio::test]
async fn a_scenario_that_does_not_hold_fails_the_command() {
    let server =
        Server::start(|call| if call == 3 { Manner::Refuse } else { Manner::Answer }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("scenario.toml");
    for (share, good) in [("0.0", false), ("0.5", true)] {
        let text = format!(
            "model = \"double\"\n[[targets]]\nhttp = \"{}\"\n\
             [[stages]]\ncallers = 1\nrequests = 10\n[assert]\nerror_share = {share}\n",
            server.http
        );
        std::fs::write(&file, text).unwrap();
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_penstock-loadtest"))
            .arg("scenario")
            .arg(&file)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.success(), good, "{text}");
        assert_eq!(text.contains("FAIL"), !good, "{text}");
    }
}
