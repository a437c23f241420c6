//! The main job, shown on real data: real digits through every door with the accuracy that was
//! measured at export, hot swaps under load, a bad version refused, a canary and a shadow with one
//! command each, a clean stop.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::check::Expected;
use crate::findings::Findings;
use crate::metrics::Metrics;
use crate::plan::Limit;
use crate::recorder::{Phase, Tally};
use crate::recording::{Recording, rate};
use crate::report::{self, mebibytes, micros, row, say, table};
use crate::repository::RepositoryCopy;
use crate::run::Protocol;
use crate::stage::{DIGITS, Scene, Stage};

mod canary;

/// What is measured for accuracy: every version that is approved, and another model.
const MEASURED: [(&str, u64); 3] = [(DIGITS, 1), (DIGITS, 2), ("digits_cnn", 1)];
/// Callers that send every digit once.
const PASS_CALLERS: usize = 8;
/// Callers during the swaps.
const SWAP_CALLERS: usize = 32;
/// To which version each swap goes; version 1 serves before.
const SWAPS: [u64; 5] = [2, 1, 2, 1, 2];
const BEFORE_SWAPS: Duration = Duration::from_millis(1500);
const BETWEEN_SWAPS: Duration = Duration::from_millis(700);
/// A version that cannot be loaded.
const BAD: u64 = 9;

struct Demo<'a> {
    stage: &'a Stage,
    findings: Findings,
    expected: Arc<Expected>,
    /// Calls that were answered so far.
    answered: u64,
}

/// Shows everything and says whether every expectation held.
///
/// # Errors
/// When something fails that the rest depends on.
pub async fn run(scene: &Scene) -> anyhow::Result<bool> {
    let started = Instant::now();
    let repository = RepositoryCopy::of(&scene.repository)?;
    repository.serve_only(DIGITS, &[1])?;
    let stage = Stage::with_routes(scene, repository, Vec::new()).await?;
    let mut findings = show(&stage).await.map_err(|error| stage.explain(&error))?;
    stop(stage, &mut findings).await?;
    say(format_args!("\n{findings}, in {:.1} s", started.elapsed().as_secs_f64()));
    Ok(findings.is_good())
}

async fn show(stage: &Stage) -> anyhow::Result<Findings> {
    show_start(stage).await?;
    let expected = stage.learn().await?;
    let learnt = expected.versions().len() * stage.data(DIGITS).await?.len();
    let answered = learnt as u64;
    let mut demo = Demo { stage, findings: Findings::default(), expected, answered };
    demo.accuracy().await?;
    demo.hot_swap().await?;
    demo.bad_version().await?;
    demo.canary().await?;
    demo.metrics().await?;
    Ok(demo.findings)
}

async fn stop(stage: Stage, findings: &mut Findings) -> anyhow::Result<()> {
    say("\nStop");
    let (status, took) = stage.gateway.stop().await?;
    let claim = format!("SIGTERM: {status} after {:.2} s", took.as_secs_f64());
    findings.expect(status.success(), claim);
    Ok(())
}

async fn show_start(stage: &Stage) -> anyhow::Result<()> {
    let gateway = &stage.gateway;
    let summary = &gateway.summary;
    let libtorch = summary.libtorch.as_deref().unwrap_or("none");
    say(format_args!(
        "Start: penstock {} serves after {:.1} s as process {}",
        summary.version,
        gateway.start_time.as_secs_f64(),
        gateway.process_id(),
    ));
    say(format_args!(
        "  http {}  grpc {}  metrics {}\n  libtorch {libtorch}, {}",
        summary.http, summary.grpc, summary.metrics, summary.cuda
    ));
    let mut rows = vec![row(&["MODEL", "VERSION", "STATE"])];
    for entry in stage.target.index().await?.iter().filter(|entry| !entry.state.is_empty()) {
        rows.push(row(&[&entry.name, &entry.version, &entry.state]));
    }
    say(table(&rows));
    Ok(())
}

impl Demo<'_> {
    /// Every digit once, over each protocol, to each version.
    async fn accuracy(&mut self) -> anyhow::Result<()> {
        let rows = self.stage.data(DIGITS).await?.len();
        say(format_args!(
            "\nAccuracy: {rows} real digits once over each protocol, {PASS_CALLERS} callers"
        ));
        let heading =
            row(&["MODEL", "PROTOCOL", "CORRECT", "AT EXPORT", "P50", "P99", "REQUESTS/S"]);
        let mut lines = vec![heading];
        let mut equal = true;
        let mut failed = 0;
        for (model, version) in MEASURED {
            let (correct, all) = self.stage.repository.recorded_accuracy(model, version)?;
            for protocol in [Protocol::HttpJson, Protocol::HttpBinary, Protocol::Grpc] {
                let recording = self.pass((model, version), protocol).await?;
                let total = recording.recorder.total();
                failed += total.failed;
                equal &= (total.correct, total.labelled) == (correct, all);
                lines.push(vec![
                    format!("{model} {version}"),
                    protocol.name().to_owned(),
                    format!("{}/{}", total.correct, total.labelled),
                    format!("{correct}/{all}"),
                    micros(total.quantile(0.5)),
                    micros(total.quantile(0.99)),
                    format!("{:.0}", rate(total.answered, recording.elapsed)),
                ]);
            }
        }
        say(table(&lines));
        self.findings.expect(failed == 0, format_args!("{failed} errors"));
        self.findings.expect(equal, "every accuracy equals what PyTorch measured at export");
        Ok(())
    }

    async fn pass(
        &mut self,
        (model, version): (&str, u64),
        protocol: Protocol,
    ) -> anyhow::Result<Recording> {
        let version = version.to_string();
        let load = self.stage.load((model, &version), protocol, PASS_CALLERS, None).await?;
        let recording = load.run(Limit::Requests(load.data.len() as u64)).await?;
        self.answered += recording.recorder.total().answered;
        Ok(recording)
    }

    /// Swaps back and forth while callers of both protocols go on.
    async fn hot_swap(&mut self) -> anyhow::Result<()> {
        say(format_args!(
            "\nHot swap: {SWAP_CALLERS} callers, half HTTP, half gRPC, {DIGITS} goes 1 → 2 → 1 → …"
        ));
        self.stage.serve(&[1]).await?;
        let target = (DIGITS, "");
        let expected = Some(&self.expected);
        let load = self.stage.load(target, Protocol::Mixed, SWAP_CALLERS, expected).await?;
        let running = load.start(Limit::Stop).await?;
        sleep(BEFORE_SWAPS).await;
        let mut swaps = Vec::new();
        let mut stale = 0;
        for version in SWAPS {
            running.mark_change();
            let took = self.stage.serve(&[version]).await?;
            running.mark_change();
            swaps.push(format!("→ {version} in {:.0} ms", took.as_secs_f64() * 1e3));
            stale += u64::from(self.stage.answering().await? != version.to_string());
            self.answered += 1;
            sleep(BETWEEN_SWAPS).await;
        }
        let recording = running.finish().await?.measured();
        let total = recording.recorder.total();
        self.answered += total.answered;
        say(format_args!("  {}", swaps.join("   ")));
        say(phases(&recording));
        self.findings.expect(
            total.failed == 0,
            format_args!(
                "{} errors in {} calls{}",
                total.failed,
                total.requests(),
                first_error(&total)
            ),
        );
        self.findings.expect(
            total.mismatches == 0 && total.checked == total.answered && total.checked > 0,
            format_args!(
                "{} mismatches in {} answers, each held against the version it names{}",
                total.mismatches,
                total.checked,
                total.mismatch.iter().map(|text| format!(": {text}")).collect::<String>(),
            ),
        );
        self.findings.expect(total.versions.len() == 2, "both versions answered");
        self.findings.expect(stale == 0, "after each swap the new version answered");
        Ok(())
    }

    /// A broken file beside the version that serves.
    async fn bad_version(&mut self) -> anyhow::Result<()> {
        say(format_args!("\nA bad version: {DIGITS} {BAD}, its model file cut in half"));
        self.stage.repository.add_truncated(DIGITS, 2, BAD)?;
        let refusal = self.stage.serve(&[2, BAD]).await;
        match &refusal {
            Ok(_) => say("  the load call succeeded"),
            Err(error) => say(format_args!("  {}", error.root_cause())),
        }
        self.findings.expect(refusal.is_err(), "the load call is refused");
        let index = self.stage.target.index().await?;
        let entry = |version: u64| {
            let version = version.to_string();
            index.iter().find(|entry| entry.name == DIGITS && entry.version == version)
        };
        let reason = entry(BAD).map(|entry| entry.reason.as_str()).unwrap_or_default();
        let shown = entry(BAD).is_some_and(|entry| entry.state == "UNAVAILABLE");
        self.findings.expect(
            shown && !reason.is_empty(),
            format_args!("the index shows {BAD} UNAVAILABLE with its reason"),
        );
        let serves = entry(2).is_some_and(|entry| entry.state == "READY");
        let answering = self.stage.answering().await?;
        self.answered += 1;
        let (correct, all) = self.stage.repository.recorded_accuracy(DIGITS, 2)?;
        let total = self.pass((DIGITS, 2), Protocol::Mixed).await?.recorder.total();
        self.findings.expect(
            serves && answering == "2" && (total.correct, total.labelled) == (correct, all),
            format_args!("2 goes on serving: {}/{} correct", total.correct, total.labelled),
        );
        Ok(())
    }

    /// A few figures of the gateway's own, one of them against our count.
    async fn metrics(&mut self) -> anyhow::Result<()> {
        say("\nMetrics");
        let metrics = Metrics::scrape(&self.stage.gateway.summary.metrics).await?;
        let digits = [&format!("model=\"{DIGITS}\"")[..]];
        let calls = metrics.sum("penstock_requests_total", &[]);
        let answered = metrics.sum("penstock_requests_total", &["outcome=\"answered\""]);
        let rows = metrics.sum("penstock_batch_rows_sum", &digits);
        let batches = metrics.sum("penstock_batch_rows_count", &digits);
        say(table(&[
            row(&[
                "penstock_requests_total",
                &format!("{calls:.0}, {answered:.0} of them answered"),
            ]),
            row(&[
                "penstock_batch_rows",
                &format!("{batches:.0} batches of {:.1} rows on average", rows / batches),
            ]),
            row(&[
                "penstock_model_swaps_total",
                &format!("{:.0}", metrics.sum("penstock_model_swaps_total", &digits)),
            ]),
            row(&[
                "process_cpu_seconds_total",
                &format!("{:.1}", metrics.sum("process_cpu_seconds_total", &[])),
            ]),
            row(&["resident memory", &mebibytes(self.stage.gateway.resident_memory()?)]),
        ]));
        let ours = self.answered;
        self.findings.expect(
            format!("{answered:.0}") == ours.to_string()
                && format!("{calls:.0}") == ours.to_string(),
            format_args!("the gateway counted every call: we had {ours} answers"),
        );
        Ok(())
    }
}

/// Answers and latencies before, during and after the swaps.
fn phases(recording: &Recording) -> String {
    let heading = ["CALLS", "NUMBER", "VERSION 1", "VERSION 2", "P50", "P99", "LONGEST"];
    let mut rows = vec![row(&heading)];
    for phase in Phase::ALL {
        let tally = recording.recorder.phase(phase);
        let by = |version| tally.versions.get(version).copied().unwrap_or(0).to_string();
        let name = match phase {
            Phase::Before => "before the first swap",
            Phase::During => "that met a swap",
            Phase::After => "between and after",
        };
        let latency = [tally.quantile(0.5), tally.quantile(0.99), tally.latency.max()].map(micros);
        let counts = [name.to_owned(), tally.requests().to_string(), by("1"), by("2")];
        rows.push(counts.into_iter().chain(latency).collect());
    }
    let total = recording.recorder.total();
    let overall = rate(total.answered, recording.elapsed);
    format!(
        "{}\n  {overall:.0} requests/s over {:.1} s; {}",
        table(&rows),
        recording.elapsed.as_secs_f64(),
        report::versions(&total)
    )
}

fn first_error(total: &Tally) -> String {
    let first = total.errors.iter().next();
    first.map(|(kind, error)| format!(", such as {kind}: {}", error.example)).unwrap_or_default()
}
