//! `penstock route`: shows routes and gives arms other shares, over a running gateway's admin port.

use std::process::ExitCode;

use clap::Subcommand;
use http::Method;
use serde_json::{Map, Value, json};

use super::client::{AdminTarget, Client, segment};
use super::{block_on, shadow_report, table};
use crate::types::{ArmName, Share};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every route with its arms and their shares
    List {
        #[command(flatten)]
        target: AdminTarget,
    },
    /// One route: where its arms lead, how they stand, what sees its calls
    Show {
        route: String,
        /// Which buckets of callers each arm has, of 10000
        #[arg(long)]
        buckets: bool,
        #[command(flatten)]
        target: AdminTarget,
    },
    /// Give arms other shares; those not named share the rest as they did
    Set {
        route: String,
        /// An arm with its new share: canary=10%
        #[arg(required = true, value_name = "ARM=SHARE", value_parser = parse_share)]
        shares: Vec<(ArmName, Share)>,
        #[command(flatten)]
        edit: Edit,
        #[command(flatten)]
        target: AdminTarget,
    },
    /// How the answers of shadows compare with the live ones
    Report {
        route: String,
        /// Count anew from here on
        #[arg(long)]
        reset: bool,
        #[command(flatten)]
        target: AdminTarget,
    },
    /// Drop what was changed by hand: the route is again what the file says
    Reset {
        route: String,
        #[command(flatten)]
        edit: Edit,
        #[command(flatten)]
        target: AdminTarget,
    },
}

/// Who changes something, and why.
#[derive(Debug, clap::Args)]
pub(super) struct Edit {
    /// Refuse where the current revision is another one
    #[arg(long, value_name = "N")]
    expect_revision: Option<u64>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who, for the history, where the gateway does not know its callers
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
}

impl Edit {
    /// What of it was said, as the keys of a body.
    pub(super) fn body(&self) -> Map<String, Value> {
        let said = [
            ("expect_revision", self.expect_revision.map(Value::from)),
            ("reason", self.reason.as_deref().map(Value::from)),
            ("author", self.author.as_deref().map(Value::from)),
        ];
        said.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// The same as a query, with its question mark.
    fn query(&self) -> String {
        let said: Vec<String> = self
            .body()
            .iter()
            .map(|(key, value)| {
                let text = value.as_str().map_or_else(|| value.to_string(), segment);
                // Names and values of a query are divided by these, and a plus is a space there.
                format!("{key}={}", text.replace('&', "%26").replace('+', "%2B"))
            })
            .collect();
        if said.is_empty() { String::new() } else { format!("?{}", said.join("&")) }
    }
}

fn parse_share(text: &str) -> Result<(ArmName, Share), String> {
    let (arm, share) = text.split_once('=').ok_or("is not of the form ARM=SHARE: canary=10%")?;
    Ok((arm.parse()?, share.parse()?))
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    block_on(async {
        match &arguments.command {
            Command::List { target } => list(target).await?,
            Command::Show { route, buckets, target } => show(target, route, *buckets).await?,
            Command::Set { route, shares, edit, target } => {
                set(target, route, shares, edit).await?;
            }
            Command::Report { route, reset, target } => report(target, route, *reset).await?,
            Command::Reset { route, edit, target } => {
                let path = format!("/v1/routes/{}/overlay{}", segment(route), edit.query());
                let client = Client::new(&target.url, &target.access)?;
                print_change(target, &client.call(Method::DELETE, &path).await?);
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn list(target: &AdminTarget) -> anyhow::Result<()> {
    let answer = Client::new(&target.url, &target.access)?.call(Method::GET, "/v1/routes").await?;
    if target.access.json {
        println!("{answer}");
    } else {
        print!("revision {}\n\n{}", answer["revision"], table::render(&arm_rows(&answer)));
    }
    Ok(())
}

/// One row for each arm of each route, for `route list` and `status`.
pub(super) fn arm_rows(answer: &Value) -> Vec<Vec<String>> {
    let heading = ["ROUTE", "ARM", "SHARE", "TARGET", "STATE", "REQUESTS", "FALLBACKS", "SOURCE"];
    let mut rows = vec![table::row(&heading)];
    for route in list_of(&answer["routes"]) {
        for arm in list_of(&route["arms"]) {
            rows.push(vec![
                text(&route["name"]),
                text(&arm["name"]),
                text(&arm["share"]),
                place(&arm["target"]),
                text(&arm["state"]),
                text(&arm["requests"]),
                text(&arm["fallbacks"]),
                text(&route["source"]),
            ]);
        }
        for shadow in list_of(&route["shadows"]) {
            let sample = format!("sees {}", text(&shadow["sample"]));
            let mut row =
                vec![text(&route["name"]), text(&shadow["name"]), sample, place(&shadow["target"])];
            row.push("shadow".to_owned());
            rows.push(row);
        }
    }
    rows
}

async fn show(target: &AdminTarget, name: &str, buckets: bool) -> anyhow::Result<()> {
    let client = Client::new(&target.url, &target.access)?;
    let route = client.call(Method::GET, &format!("/v1/routes/{}", segment(name))).await?;
    if target.access.json {
        println!("{route}");
        return Ok(());
    }
    println!("{name}  revision {}  from the {}", text(&route["revision"]), text(&route["source"]));
    println!("  sticky: {}  salt: {}", text(&route["sticky"]), text(&route["salt"]));
    println!("  fallback: {}\n", text(&route["fallback"]));
    let rows = arm_rows(&json!({ "routes": [&route] }));
    // The columns of the route itself are above.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().take(7).skip(1).cloned().collect()).collect();
    print!("{}", table::render(&rows));
    if buckets {
        println!();
        let mut rows = vec![table::row(&["ARM", "BUCKETS"])];
        for arm in list_of(&route["arms"]) {
            let ranges = list_of(&arm["buckets"])
                .iter()
                .map(|range| format!("{}-{}", range[0], range[1].as_u64().unwrap_or(1) - 1))
                .collect::<Vec<_>>();
            rows.push(vec![text(&arm["name"]), ranges.join(" ")]);
        }
        print!("{}", table::render(&rows));
    }
    Ok(())
}

async fn set(
    target: &AdminTarget,
    route: &str,
    shares: &[(ArmName, Share)],
    edit: &Edit,
) -> anyhow::Result<()> {
    let mut wanted = Map::new();
    for (arm, share) in shares {
        let before = wanted.insert(arm.as_str().to_owned(), share.to_string().into());
        anyhow::ensure!(before.is_none(), "the arm '{arm}' is named twice");
    }
    let mut body = edit.body();
    body.insert("shares".to_owned(), wanted.into());
    let path = format!("/v1/routes/{}", segment(route));
    let client = Client::new(&target.url, &target.access)?;
    let changed = client.send(Method::PATCH, &path, Some(&body.into())).await?;
    print_change(target, &changed);
    Ok(())
}

async fn report(target: &AdminTarget, route: &str, reset: bool) -> anyhow::Result<()> {
    let client = Client::new(&target.url, &target.access)?;
    let path = format!("/v1/routes/{}/report", segment(route));
    let method = if reset { Method::DELETE } else { Method::GET };
    let answer = client.call(method, &path).await?;
    match (target.access.json, reset) {
        (true, _) => println!("{answer}"),
        (false, true) => println!("{route}: the report begins anew"),
        (false, false) => print!("{}", shadow_report::render(&answer)),
    }
    Ok(())
}

/// What a change of routes did.
pub(super) fn print_change(target: &AdminTarget, changed: &Value) {
    if target.access.json {
        println!("{changed}");
        return;
    }
    println!("{}", headline(changed));
    for line in list_of(&changed["diff"]) {
        println!("  {}", text(line));
    }
    for version in list_of(&changed["needs_load"]) {
        println!("  loads {}, which had been unloaded", text(version));
    }
}

/// Which revision is in force after a change.
fn headline(changed: &Value) -> String {
    let nothing = if changed["changed"] == false { "nothing changes, " } else { "" };
    let restored = changed["restored"].as_u64();
    let restored = restored.map(|number| format!(": as revision {number}")).unwrap_or_default();
    format!("{nothing}revision {}{restored}", changed["revision"])
}

/// `digits/versions/2`, or `fleet: digits` for another server.
fn place(target: &Value) -> String {
    let version = match target["version"].as_str() {
        Some(version) => format!("/{version}"),
        None => String::new(),
    };
    match target["upstream"].as_str() {
        Some(upstream) => format!("{upstream}: {}{version}", text(&target["model"])),
        None => format!("{}{version}", text(&target["model"])),
    }
}

/// A list in an answer; nothing where there is none.
pub(super) fn list_of(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A value for people: what comes from elsewhere moves no terminal.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => {
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_given_by_arm() {
        let (arm, share) = parse_share("canary=0.5%").unwrap();
        assert_eq!((arm.as_str(), share.buckets()), ("canary", 50));
        for bad in ["canary", "canary=", "canary=5", "=5%", "Canary=5%", "canary=101%"] {
            assert!(parse_share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_was_not_said_is_not_sent() {
        let mut edit = Edit { expect_revision: None, reason: None, author: None };
        assert_eq!((edit.body().len(), edit.query()), (0, String::new()));
        edit.reason = Some("a & b+c=d?".to_owned());
        edit.expect_revision = Some(7);
        assert_eq!(edit.query(), "?expect_revision=7&reason=a%20%26%20b%2Bc=d%3F");
    }

    #[test]
    fn every_arm_and_shadow_has_a_row() {
        let rows = arm_rows(&json!({ "routes": [{
            "name": "digits", "source": "file",
            "arms": [{ "name": "stable", "share": "95%", "state": "ready", "requests": 3,
                       "fallbacks": 0, "target": { "model": "digits", "version": "1" } },
                     { "name": "canary", "share": "5%", "state": "ready", "requests": 1,
                       "fallbacks": 0,
                       "target": { "upstream": "fleet", "model": "digits", "version": null } }],
            "shadows": [{ "name": "next", "sample": "100%",
                          "target": { "model": "digits", "version": "3" } }],
        }] }));
        assert_eq!(rows.len(), 4);
        assert_eq!(rows[1][..4], ["digits", "stable", "95%", "digits/1"]);
        assert_eq!(rows[2][3], "fleet: digits");
        assert_eq!(rows[3][1..3], ["next", "sees 100%"]);
    }

    #[test]
    fn a_change_that_changes_nothing_says_so() {
        let line = |changed, restored: Option<u64>| {
            headline(&json!({ "revision": 7, "changed": changed, "restored": restored }))
        };
        assert_eq!(line(true, None), "revision 7");
        assert_eq!(line(true, Some(3)), "revision 7: as revision 3");
        assert_eq!(line(false, None), "nothing changes, revision 7");
    }

    #[test]
    fn texts_of_others_move_no_terminal() {
        assert_eq!(text(&json!("a\u{1b}[2Jb")), "a\u{fffd}[2Jb");
    }
}
