//! `penstock status`: one screen about a running gateway.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{Client, Target};
use super::models::index_rows;
use super::{FAILED, block_on, table};

/// A gateway that has not answered by then is not well. Below the limit of usual health checks.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ask for nothing but readiness, which needs no role: for health checks
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    target: Target,
}

/// Scripts and health checks ask by the exit status: success when the gateway is ready.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let json = arguments.target.access.json;
    let ready = block_on(async {
        let client = Client::new(&arguments.target.url, &arguments.target.access)?;
        let shown = async {
            if arguments.ready { readiness(&client, json).await } else { all(&client, json).await }
        };
        let limit = || format!("no answer within {} s", PATIENCE.as_secs());
        timeout(PATIENCE, shown).await.with_context(limit)?
    })?;
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn readiness(client: &Client, json: bool) -> anyhow::Result<bool> {
    let health = client.call(Method::GET, "/v2/health/ready").await?;
    let ready = health["ready"].as_bool().unwrap_or(false);
    match (json, ready) {
        (true, _) => println!("{health}"),
        (false, true) => println!("ready"),
        (false, false) => println!("not ready"),
    }
    Ok(ready)
}

async fn all(client: &Client, json: bool) -> anyhow::Result<bool> {
    let server = client.call(Method::GET, "/v2").await?;
    let health = client.call(Method::GET, "/v2/health/ready").await?;
    let index = client.call(Method::POST, "/v2/repository/index").await?;
    let statistics = client.call(Method::GET, "/v2/models/stats").await?;
    if json {
        let shown = json!({
            "server": server,
            "health": health,
            "index": index,
            "statistics": statistics["model_stats"],
        });
        println!("{shown}");
    } else {
        print(&server, &health, &index, &statistics["model_stats"]);
    }
    Ok(health["ready"].as_bool().unwrap_or(false))
}

fn print(server: &Value, health: &Value, index: &Value, statistics: &Value) {
    println!(
        "{} {}  live: {}  ready: {}\n",
        server["name"].as_str().unwrap_or("-"),
        server["version"].as_str().unwrap_or("-"),
        health["live"],
        health["ready"],
    );
    println!("{}", table::render(&index_rows(index)));
    let heading =
        ["MODEL", "VERSION", "ANSWERED", "FAILED", "ITEMS", "BATCHES", "QUEUE µs", "INFER µs"];
    let mut rows = vec![table::row(&heading)];
    for stats in statistics.as_array().into_iter().flatten() {
        let inference = &stats["inference_stats"];
        rows.push(vec![
            stats["name"].as_str().unwrap_or("-").to_owned(),
            stats["version"].as_str().unwrap_or("-").to_owned(),
            inference["success"]["count"].to_string(),
            inference["fail"]["count"].to_string(),
            stats["inference_count"].to_string(),
            stats["execution_count"].to_string(),
            mean_microseconds(&inference["queue"]),
            mean_microseconds(&inference["compute_infer"]),
        ]);
    }
    print!("{}", table::render(&rows));
}

fn mean_microseconds(total: &Value) -> String {
    let count = total["count"].as_f64().unwrap_or(0.0);
    if count > 0.0 {
        format!("{:.0}", total["ns"].as_f64().unwrap_or(0.0) / count / 1e3)
    } else {
        "-".into()
    }
}
