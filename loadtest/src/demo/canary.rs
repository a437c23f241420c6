//! A version meets some callers, another one none, and one command goes back.

use anyhow::Context;
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use crate::check::Arms;
use crate::configuration::Route;
use crate::plan::Limit;
use crate::report::say;
use crate::stage::{Caller, DIGITS};

use super::{Demo, first_error};

/// Callers who are asked for, each with a key of its own, and those of the load.
const CENSUS: usize = 900;
const CALLERS: usize = 8;
/// Lines of the report about the shadow that are shown.
const LINES: usize = 6;
/// What the report gets to see.
const WATCH: Duration = Duration::from_millis(1500);

impl Demo<'_> {
    /// A canary with a twentieth of the callers, and a shadow that is subtly wrong.
    pub(super) async fn canary(&mut self) -> anyhow::Result<()> {
        say(format_args!(
            "\nCanary and shadow: {DIGITS} 1 is stable, 5 % of callers get 2, and 3 sees every call"
        ));
        self.stage.serve(&[1, 2, 3]).await?;
        let route = Route::named(DIGITS)
            .arm("stable", (DIGITS, "1"), "95%")
            .arm("canary", (DIGITS, "2"), "5%")
            .shadow("candidate", (DIGITS, "3"));
        self.stage.write_routes(vec![route])?;
        self.typed(&["reload"], usize::MAX).await?;
        let mut arms = Arms::of(DIGITS);
        arms.add("stable", "1");
        arms.add("canary", "2");
        let mut load = self.stage.route_load(DIGITS, CENSUS, arms, &self.expected).await?;
        load.callers = CALLERS;
        let running = load.start(Limit::Stop).await?;
        let first = self.census().await?;
        self.expect_share(&first, 5);
        sleep(WATCH).await;
        self.shadow().await?;
        self.typed(&["route", "set", DIGITS, "canary=25%", "--reason", "well so far"], LINES)
            .await?;
        let grown = self.census().await?;
        self.expect_share(&grown, 25);
        let stayed = first.iter().zip(&grown).all(|(was, is)| !was || *is);
        self.findings.expect(stayed, "whoever was in the canary still is");
        let started = Instant::now();
        self.typed(&["rollback"], LINES).await?;
        let took = started.elapsed().as_secs_f64() * 1e3;
        let back = self.census().await?;
        self.findings.expect(
            back == first,
            format_args!("every caller has its arm from before; the command took {took:.0} ms"),
        );
        let total = running.finish().await?.measured().recorder.total();
        self.answered += total.answered;
        self.findings.expect(
            total.is_clean() && total.checked == total.answered && total.arms.len() == 2,
            format_args!(
                "{} calls meanwhile: {} errors, {} answers not of the arm they name{}{}",
                total.requests(),
                total.failed,
                total.mismatches,
                first_error(&total),
                total.mismatch.iter().map(|text| format!(": {text}")).collect::<String>(),
            ),
        );
        Ok(())
    }

    /// What the gateway found out about the shadow.
    async fn shadow(&mut self) -> anyhow::Result<()> {
        self.typed(&["route", "report", DIGITS], LINES).await?;
        let report = self.stage.command(&["route", "report", DIGITS, "--json"]).await?;
        let report: Value = serde_json::from_str(&report).context("the report")?;
        let shadow = &report["shadows"][0];
        let scores = &shadow["outputs"][0];
        let agreement = scores["agreement"]["share"].as_f64().unwrap_or(1.0);
        let flip = &scores["flips"]["most"][0];
        let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let (live, wrong) = (word(&flip["live"]), word(&flip["shadow"]));
        self.findings.expect(
            shadow["verdict"] == "differs" && (live.as_str(), wrong.as_str()) == ("8", "3"),
            format_args!(
                "version 3 is found out before it answers anybody: labels agree in {:.1} %, most \
                 often it takes {live} for {wrong}",
                agreement * 100.0
            ),
        );
        Ok(())
    }

    /// Runs a command as an operator would type it and shows the first lines of what it prints.
    async fn typed(&self, arguments: &[&str], lines: usize) -> anyhow::Result<()> {
        let shown: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
        let output = self.stage.command(arguments).await?;
        let head = if output.lines().count() > lines {
            format!(" | head -{lines}")
        } else {
            String::new()
        };
        say(format_args!("  $ penstock {}{head}", shown.join(" ")));
        output.lines().take(lines).for_each(|line| say(format_args!("    {line}")));
        Ok(())
    }

    /// For each of some callers, whether the canary answers it.
    async fn census(&mut self) -> anyhow::Result<Vec<bool>> {
        let mut caller: Caller = self.stage.caller(DIGITS).await?;
        let mut members = Vec::with_capacity(CENSUS);
        for key in 0..CENSUS as u64 {
            members.push(caller.arm(Some(key)).await? == "canary");
            self.answered += 1;
        }
        Ok(members)
    }

    fn expect_share(&mut self, members: &[bool], percent: usize) {
        let count = members.iter().filter(|member| **member).count();
        let expected = CENSUS * percent / 100;
        // Four deviations of chance are less than this, at either share.
        let near = count.abs_diff(expected) <= 30 + expected / 8;
        self.findings.expect(near, format_args!("{count} of {CENSUS} callers meet the canary"));
    }
}

/// An argument as a shell wants it.
fn quoted(argument: &str) -> String {
    if argument.contains(' ') { format!("\"{argument}\"") } else { argument.to_owned() }
}
