//! `penstock revisions`: which routes were in force when, over a running gateway's admin port.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::client::{AdminTarget, Client};
use super::route::{list_of, text};
use super::{block_on, table};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many, the newest first
    #[arg(default_value_t = 20)]
    number: usize,
    #[command(flatten)]
    target: AdminTarget,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let target = &arguments.target;
    let path = format!("/v1/revisions?limit={}", arguments.number);
    let answer = block_on(async {
        Client::new(&target.url, &target.access)?.call(Method::GET, &path).await
    })?;
    if target.access.json {
        println!("{answer}");
    } else {
        print!("{}", table::render(&rows(&answer)));
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(answer: &Value) -> Vec<Vec<String>> {
    let mut rows = vec![table::row(&["REVISION", "TIME", "AUTHOR", "CAUSE", "CHANGE", "REASON"])];
    for revision in list_of(&answer["revisions"]) {
        let diff: Vec<String> = list_of(&revision["diff"]).iter().map(text).collect();
        let current = if revision["revision"] == answer["revision"] { "*" } else { "" };
        rows.push(vec![
            format!("{}{current}", text(&revision["revision"])),
            text(&revision["time"]),
            text(&revision["author"]),
            text(&revision["cause"]),
            diff.join("; "),
            text(&revision["reason"]),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_current_revision_is_marked() {
        let revision = |number: u64| {
            json!({ "revision": number, "time": "2026-11-21T10:00:00Z", "author": "ada",
                    "cause": "set", "reason": "", "diff": ["a", "b"] })
        };
        let rows = rows(&json!({ "revision": 2, "revisions": [revision(2), revision(1)] }));
        assert_eq!(rows[1][0], "2*");
        assert_eq!(rows[2][0], "1");
        assert_eq!(rows[1][4], "a; b");
    }
}
