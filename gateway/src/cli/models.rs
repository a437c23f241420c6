//! `penstock models`: list, show, load and unload over a running gateway's HTTP port.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use serde_json::{Value, json};

use super::client::{Client, Target, segment};
use super::{block_on, table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every model and version with its state
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Signature, file hash, lineage and figures of one model
    Show {
        model: String,
        /// Which version; absent, the one that calls without a version reach
        #[arg(long = "version", value_name = "N")]
        number: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Load a model as its policy says, or one version beside those that serve
    Load {
        model: String,
        #[arg(long = "version", value_name = "N")]
        number: Option<String>,
        #[command(flatten)]
        target: Target,
    },
    /// Unload a model, or one version of it
    Unload {
        model: String,
        #[arg(long = "version", value_name = "N")]
        number: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    block_on(async {
        match &arguments.command {
            Command::List { target } => list(target).await?,
            Command::Show { model, number, target } => {
                show(target, model, number.as_deref()).await?
            }
            Command::Load { model, number, target } => {
                change(target, model, number.as_deref(), "load").await?;
            }
            Command::Unload { model, number, target } => {
                change(target, model, number.as_deref(), "unload").await?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The index as table rows, for `models list` and `status`.
pub(super) fn index_rows(index: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![table::row(&["MODEL", "VERSION", "STATE", "REASON"])];
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    for entry in index.as_array().into_iter().flatten() {
        let reason = entry["reason"].as_str().unwrap_or("").to_owned();
        rows.push(vec![
            text(&entry["name"]),
            text(&entry["version"]),
            text(&entry["state"]),
            reason,
        ]);
    }
    rows
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let index = Client::new(&target.url, &target.access)?
        .call(Method::POST, "/v2/repository/index")
        .await?;
    if target.access.json {
        println!("{index}");
    } else {
        print!("{}", table::render(&index_rows(&index)));
    }
    Ok(())
}

async fn show(target: &Target, model: &str, version: Option<&str>) -> anyhow::Result<()> {
    let mut path = format!("/v2/models/{}", segment(model));
    if let Some(version) = version {
        path += &format!("/versions/{}", segment(version));
    }
    let client = Client::new(&target.url, &target.access)?;
    let metadata = client.call(Method::GET, &path).await?;
    let statistics = client.call(Method::GET, &format!("{path}/stats")).await?;
    if target.access.json {
        println!("{}", json!({ "metadata": metadata, "statistics": statistics["model_stats"] }));
        return Ok(());
    }
    let properties = &metadata["properties"];
    println!("{model}  version {}", properties["version"].as_str().unwrap_or("-"));
    for (heading, tensors) in [("inputs", &metadata["inputs"]), ("outputs", &metadata["outputs"])] {
        println!("\n{heading}");
        for tensor in tensors.as_array().into_iter().flatten() {
            let text = |key: &str| tensor[key].as_str().unwrap_or("-").to_owned();
            println!("  {} {}{}", text("name"), text("datatype"), tensor["shape"]);
        }
    }
    println!("\nfacts");
    for (key, value) in properties.as_object().into_iter().flatten() {
        println!("  {key}: {}", value.as_str().unwrap_or("-"));
    }
    println!("\nfigures");
    let mut rows = vec![table::row(&["  VERSION", "ANSWERED", "FAILED", "ITEMS", "BATCHES"])];
    for stats in statistics["model_stats"].as_array().into_iter().flatten() {
        rows.push(vec![
            format!("  {}", stats["version"].as_str().unwrap_or("-")),
            stats["inference_stats"]["success"]["count"].to_string(),
            stats["inference_stats"]["fail"]["count"].to_string(),
            stats["inference_count"].to_string(),
            stats["execution_count"].to_string(),
        ]);
    }
    print!("{}", table::render(&rows));
    Ok(())
}

async fn change(
    target: &Target,
    model: &str,
    version: Option<&str>,
    verb: &str,
) -> anyhow::Result<()> {
    let version = version.map(|version| format!("/versions/{}", segment(version)));
    let path = format!(
        "/v2/repository/models/{}{}/{verb}",
        segment(model),
        version.as_deref().unwrap_or("")
    );
    Client::new(&target.url, &target.access)?.call(Method::POST, &path).await?;
    if target.access.json {
        println!("{}", json!({ "model": model, "done": verb }));
    } else {
        println!("{model}: {verb}ed");
    }
    Ok(())
}
