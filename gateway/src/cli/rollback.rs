//! `penstock rollback`: puts earlier routes in force again, over a running gateway's admin port.

use std::process::ExitCode;

use http::Method;

use super::block_on;
use super::client::{AdminTarget, Client};
use super::route::{Edit, print_change};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The revision to go back to; absent, the one before the current one
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    #[command(flatten)]
    edit: Edit,
    #[command(flatten)]
    target: AdminTarget,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let target = &arguments.target;
    let mut body = arguments.edit.body();
    body.extend(arguments.to.map(|to| ("to".to_owned(), to.into())));
    block_on(async {
        let client = Client::new(&target.url, &target.access)?;
        let restored = client.send(Method::POST, "/v1/rollback", Some(&body.into())).await?;
        print_change(target, &restored);
        Ok(ExitCode::SUCCESS)
    })
}
