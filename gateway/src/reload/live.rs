//! Configurations in force in a gateway: limits and circuit breakers go on with their state.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Applied, Apply, Asked, Prepared};
use crate::config::{Config, Problem};
use crate::control::Control;
use crate::limits::Limiter;
use crate::tasks;

/// Applies configurations to what a gateway serves.
#[derive(Debug)]
pub struct Live {
    pub control: Arc<Control>,
}

impl Apply for Live {
    fn prepare<'a>(
        &'a self,
        new: &'a Config,
        _: &'a Asked,
    ) -> BoxFuture<'a, Result<Prepared, Vec<Problem>>> {
        let prepare = async {
            let control = self.control.clone();
            let (rates, breaker, before) = (new.rates.clone(), new.breaker, control.limiter());
            let known = before.clone();
            // It reads files: the password and the secret of shared limits.
            let started = tasks::blocking(move || Limiter::start(&rates, Some(&known))).await;
            let limiter = started.map_err(|text| vec![Problem::new("redis", text)])?;
            let commit = async move {
                before.retire(&limiter);
                let revision = control.commit_settings(limiter, breaker);
                Ok(Applied { revision })
            };
            Ok(commit.boxed())
        };
        prepare.boxed()
    }

    fn revision(&self) -> u64 {
        self.control.revision()
    }
}
