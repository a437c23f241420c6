//! `penstock status`: one screen about a running gateway.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{Client, Target};
use super::models::index_rows;
use super::route::{arm_rows, text};
use super::{FAILED, block_on, table};

/// A gateway that has not answered by then is not well. Below the limit of usual health checks.
const PATIENCE: Duration = Duration::from_secs(8);

/// An admin port that has not answered by then is done without.
const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

/// What the admin port says.
struct Operated {
    routes: Value,
    config: Value,
    rollback: Value,
    prediction_log: Value,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ask for nothing but readiness, which needs no role: for health checks
    #[arg(long)]
    ready: bool,
    /// Address of the admin port, for routes and the state of the configuration; absent, port 8003
    /// of the same machine where the HTTP port is 8000
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Scripts and health checks ask by the exit status: success when the gateway is ready.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let json = arguments.target.access.json;
    let ready = block_on(async {
        let client = Client::new(&arguments.target.url, &arguments.target.access)?;
        let shown = async {
            if arguments.ready {
                return readiness(&client, json).await;
            }
            let operated = operated(arguments).await?;
            all(&client, operated.as_ref(), json).await
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

/// What the admin port says, if it says anything: not everybody who may look at models reaches it.
///
/// # Errors
/// When it says nothing and was named.
async fn operated(arguments: &Arguments) -> anyhow::Result<Option<Operated>> {
    let url = match &arguments.admin {
        Some(url) => url.clone(),
        None => match beside(&arguments.target.url) {
            Some(url) => url,
            None => return Ok(None),
        },
    };
    let asked = async {
        let client = Client::new(&url, &arguments.target.access)?;
        let routes = client.call(Method::GET, "/v1/routes").await?;
        let status = client.call(Method::GET, "/v1/status").await?;
        let part = |name| status.get(name).cloned().unwrap_or_default();
        let (config, rollback) = (part("config"), part("rollback"));
        let prediction_log = part("prediction_log");
        anyhow::Ok(Operated { routes, config, rollback, prediction_log })
    };
    let asked = timeout(ADMIN_PATIENCE, asked).await;
    match (asked, &arguments.admin) {
        (Ok(Ok(operated)), _) => Ok(Some(operated)),
        (_, None) => Ok(None),
        (Ok(Err(error)), Some(_)) => Err(error),
        (Err(_), Some(url)) => bail!("no answer from {url} within {ADMIN_PATIENCE:?}"),
    }
}

/// The admin port as it is where nobody moved the ports.
fn beside(url: &str) -> Option<String> {
    Some(format!("{}:8003", url.trim_end_matches('/').strip_suffix(":8000")?))
}

async fn all(client: &Client, operated: Option<&Operated>, json: bool) -> anyhow::Result<bool> {
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
            "routes": operated.map(|operated| &operated.routes),
            "config": operated.map(|operated| &operated.config),
            "rollback": operated.map(|operated| &operated.rollback),
            "prediction_log": operated.map(|operated| &operated.prediction_log),
        });
        println!("{shown}");
    } else {
        print(&server, &health, &index, &statistics["model_stats"]);
        if let Some(operated) = operated {
            print!("{}", operated.shown());
        }
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

impl Operated {
    fn shown(&self) -> String {
        let mut shown = format!("\nroutes: revision {}", text(&self.routes["revision"]));
        let error = &self.config["last_error"];
        match error.is_null() {
            true => shown += "  configuration: in force\n",
            // One line, whatever is wrong: `penstock reload` and `penstock check` have the rest.
            false => shown += &format!("  configuration: NOT applied, {}\n", text(error)),
        }
        let loads: Vec<_> = self.rollback["needs_load"].as_array().into_iter().flatten().collect();
        if !loads.is_empty() {
            let loads: Vec<_> = loads.into_iter().map(text).collect();
            let (number, loads) = (text(&self.rollback["revision"]), loads.join(", "));
            shown += &format!("a rollback to revision {number} takes a load of {loads}\n");
        }
        shown += &self.prediction_log_shown();
        let rows = arm_rows(&self.routes);
        if rows.len() > 1 {
            shown += &format!("\n{}", table::render(&rows));
        }
        shown
    }

    fn prediction_log_shown(&self) -> String {
        let log = &self.prediction_log;
        if log.is_null() {
            return String::new();
        }
        let writing = match log["is_writing"].as_bool() {
            Some(false) => "NOT written, the disk is short of space",
            _ => "written",
        };
        let (segments, files) = (text(&log["segments"]), text(&log["undelivered_files"]));
        let free = log["free_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 30);
        format!(
            "prediction log: {writing}  to convert: {segments} segments  to deliver: {files} files  \
             free: {free:.1} GiB\n"
        )
    }
}

fn mean_microseconds(total: &Value) -> String {
    let count = total["count"].as_f64().unwrap_or(0.0);
    if count > 0.0 {
        format!("{:.0}", total["ns"].as_f64().unwrap_or(0.0) / count / 1e3)
    } else {
        "-".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_port_of_another_gateway_is_not_asked() {
        assert_eq!(beside("http://[::1]:8000/").as_deref(), Some("http://[::1]:8003"));
        assert_eq!(beside("https://a.example:8443"), None);
        assert_eq!(beside("http://a.example:18000"), None);
    }

    #[test]
    fn a_file_that_is_not_in_force_is_shown() {
        let operated = |error: Value| Operated {
            routes: json!({ "revision": 7, "routes": [] }),
            config: json!({ "last_error": error }),
            rollback: Value::Null,
            prediction_log: Value::Null,
        };
        assert!(operated(Value::Null).shown().contains("revision 7  configuration: in force"));
        let loads = json!({ "revision": 6, "needs_load": ["digits/2"] });
        let cold = Operated { rollback: loads, ..operated(Value::Null) }.shown();
        assert!(cold.contains("\na rollback to revision 6 takes a load of digits/2\n"), "{cold}");
        assert!(!operated(Value::Null).shown().contains("rollback"));
        let shown = operated(json!("route[0].arm: is missing")).shown();
        assert!(shown.contains("NOT applied, route[0].arm: is missing"), "{shown}");
        assert!(!shown.contains("prediction log"), "{shown}");
        let log = json!({ "segments": 2, "undelivered_files": 3, "free_bytes": 1 << 29, "is_writing": false });
        let full = Operated { prediction_log: log, ..operated(Value::Null) }.shown();
        let said = "prediction log: NOT written, the disk is short of space  to convert: 2 segments  \
                    to deliver: 3 files  free: 0.5 GiB\n";
        assert!(full.contains(said), "{full}");
    }
}
