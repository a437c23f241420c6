//! `penstock reload`: lets a running gateway read its configuration file again.

use std::process::ExitCode;

use http::Method;
use serde_json::json;

use super::client::{AdminTarget, Client, Refused};
use super::route::{list_of, text};
use super::{BAD_CONFIG, block_on};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    target: AdminTarget,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let target = &arguments.target;
    let body = match &arguments.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let result = block_on(async {
        let client = Client::new(&target.url, &target.access)?;
        client.send(Method::POST, "/v1/reload", Some(&body)).await
    });
    let reloaded = match result {
        Ok(reloaded) => reloaded,
        Err(error) => return refused(error, target.access.json),
    };
    if target.access.json {
        println!("{reloaded}");
        return Ok(ExitCode::SUCCESS);
    }
    match reloaded["changed"].as_bool() {
        Some(true) => println!("revision {}", text(&reloaded["revision"])),
        _ => println!("nothing changes, revision {}", text(&reloaded["revision"])),
    }
    for line in list_of(&reloaded["diff"]) {
        println!("  {}", text(line));
    }
    Ok(ExitCode::SUCCESS)
}

/// A file with problems ends like `penstock check`, with one line for each.
fn refused(error: anyhow::Error, json: bool) -> anyhow::Result<ExitCode> {
    let Some(Refused(answer)) = error.downcast_ref() else { return Err(error) };
    let problems = list_of(&answer["problems"]);
    if problems.is_empty() {
        return Err(error);
    }
    if json {
        println!("{answer}");
    } else {
        eprintln!("penstock: {}", text(&answer["error"]));
        for problem in problems {
            match problem["path"].as_str() {
                Some("") | None => eprintln!("  {}", text(&problem["message"])),
                Some(_) => {
                    eprintln!("  {}: {}", text(&problem["path"]), text(&problem["message"]));
                }
            }
        }
    }
    Ok(ExitCode::from(BAD_CONFIG))
}
