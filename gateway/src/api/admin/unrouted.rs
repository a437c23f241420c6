//! A gateway without routes: there is nothing to change, and it says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use serde_json::{Value, json};
use tracing::info;

use super::operations::{
    Changed, Edit, Effective, Operations, Preview, Refused, Reloaded, Restored, Revision, Standing,
};
use super::routes;
use crate::api::audit::Entry;
use crate::error::{Kind, Rejection};
use crate::routing::RoutePlan;
use crate::types::{ArmName, Share};

#[derive(Debug)]
pub struct Unrouted;

impl Operations for Unrouted {
    fn effective(&self) -> Effective {
        Effective { revision: 0, overlay: false, routes: Vec::new() }
    }

    fn standing(&self, _: &RoutePlan) -> Vec<Standing> {
        Vec::new()
    }

    fn set<'a>(
        &'a self,
        route: &'a str,
        _: &'a BTreeMap<ArmName, Share>,
        _: Edit,
    ) -> BoxFuture<'a, Result<Changed, Refused>> {
        Box::pin(ready(Err(routes::unknown(route).into())))
    }

    fn reset<'a>(&'a self, route: &'a str, _: Edit) -> BoxFuture<'a, Result<Changed, Refused>> {
        Box::pin(ready(Err(routes::unknown(route).into())))
    }

    fn rollback(&self, _: Option<u64>, _: Edit) -> BoxFuture<'_, Result<Restored, Refused>> {
        let text = "there is no revision to go back to";
        Box::pin(ready(Err(Rejection::new(Kind::Conflict, text).into())))
    }

    fn reload(&self, _: Edit) -> BoxFuture<'_, Result<Reloaded, Refused>> {
        let text = "the configuration is read at the start only";
        Box::pin(ready(Err(Rejection::new(Kind::Unsupported, text).into())))
    }

    fn preview(&self, _: String) -> BoxFuture<'_, Preview> {
        Box::pin(ready(Preview::default()))
    }

    fn revisions(&self, _: usize) -> Vec<Revision> {
        Vec::new()
    }

    fn revision(&self, _: u64) -> Option<(Revision, Vec<Arc<RoutePlan>>)> {
        None
    }

    fn report(&self, route: &str) -> Result<Value, Rejection> {
        Err(routes::unknown(route))
    }

    fn reset_report(&self, route: &str) -> Result<(), Rejection> {
        Err(routes::unknown(route))
    }

    fn upstreams(&self) -> Value {
        json!({ "upstreams": [] })
    }

    fn record(&self, entry: Entry) {
        info!(
            author = entry.author,
            from = entry.from,
            what = entry.what,
            event = ?entry.event,
            problem = entry.problem,
            "change"
        );
    }
}
