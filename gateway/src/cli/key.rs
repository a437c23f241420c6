//! `penstock key`: a new API key.

use std::process::ExitCode;

use anyhow::Error;
use serde_json::json;

use crate::identity;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Standard output is the one place where a key ever stands.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let key = identity::new_key().map_err(Error::msg)?;
    let hash = identity::digest(key.as_bytes()).to_string();
    if arguments.json {
        println!("{}", json!({ "key": key, "hash": hash }));
    } else {
        println!("key   {key}\nhash  {hash}");
        println!("\nGive the key to the client; the hash goes into auth.key.hashes.");
    }
    Ok(ExitCode::SUCCESS)
}
