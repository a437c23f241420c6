//! Bare servers: what the network stack alone costs. Written with the libraries' defaults and
//! nothing of Penstock's, so that they stay what anybody would write.

use std::io::Read as _;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

use crate::say::say;

pub mod answers;
pub mod hyper_echo;
pub mod tonic_echo;

/// Worker threads of the multi-thread flavour, one for each core of the smallest machine that
/// figures are quoted for.
const WORKERS: usize = 2;

/// Which runtime a bare server runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavor {
    /// tokio's multi-thread runtime with two workers: the usual server
    Multi,
    /// One current-thread runtime: no wake-up crosses threads
    Current,
}

impl Flavor {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Multi => "multi",
            Self::Current => "current",
        }
    }

    fn runtime(self) -> anyhow::Result<Runtime> {
        let mut builder = match self {
            Self::Multi => Builder::new_multi_thread(),
            Self::Current => Builder::new_current_thread(),
        };
        // Ignored by the current-thread runtime.
        builder.worker_threads(WORKERS).enable_all().build().context("no runtime")
    }
}

/// Tells the driver where this server listens.
fn announce(address: std::net::SocketAddr) {
    say(serde_json::json!({ "address": address.to_string() }));
}

/// Ends the process with its driver: when standard input is closed, nobody is left to stop it.
fn end_with_the_driver() -> anyhow::Result<()> {
    let watch = || {
        let mut rest = Vec::new();
        drop(std::io::stdin().read_to_end(&mut rest));
        end()
    };
    std::thread::Builder::new().name("driver".to_owned()).spawn(watch).context("no thread")?;
    Ok(())
}

#[expect(clippy::exit, reason = "a server that only its driver ends has nothing to clean up")]
fn end() {
    std::process::exit(0)
}
