//! `penstock status`: one screen about a running gateway.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::client::call;
use super::models::index_rows;
use super::{FAILED, Target, block_on, table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: Target,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let target = &arguments.target;
    block_on(async {
        let server = call(&target.url, Method::GET, "/v2").await?;
        let health = call(&target.url, Method::GET, "/v2/health/ready").await?;
        let index = call(&target.url, Method::POST, "/v2/repository/index").await?;
        let statistics = call(&target.url, Method::GET, "/v2/models/stats").await?;
        let ready = health["ready"].as_bool().unwrap_or(false);
        if target.json {
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
        // Scripts ask by the exit status.
        Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    })
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
