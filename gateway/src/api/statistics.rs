//! The statistics extension: what each version has done, in the protocol's message.

use std::sync::Arc;
use std::time::Duration;

use proto::inference::{
    InferBatchStatistics, InferStatistics, ModelStatistics, ModelStatisticsResponse,
    StatisticDuration,
};

use super::Api;
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;
use crate::models::stats::Total;
use crate::types::{Caller, ModelName};

impl Api {
    /// Statistics of one version, of all ready versions of a model, or (`model` empty) of all that
    /// the caller may use.
    ///
    /// # Errors
    /// `PermissionDenied` to whom they are not for, `NotFound` or `NotReady` for what is not there.
    pub fn statistics(
        &self,
        caller: &Caller,
        model: &str,
        version: Option<&str>,
    ) -> Result<ModelStatisticsResponse, Rejection> {
        match model {
            "" => self.authorize_reading(caller)?,
            model => self.authorize_reading_of(caller, model)?,
        }
        let snapshot = self.pipeline.snapshots.load();
        let version = version.filter(|version| !version.is_empty());
        let model_stats = match (model, version) {
            ("", None) => {
                let seen = |served: &&Arc<ServedVersion>| sees(caller, served);
                snapshot.ready().filter(seen).map(|served| statistics(served)).collect()
            }
            ("", Some(_)) => return Err(Rejection::invalid("a version needs a model's name")),
            (model, _) if snapshot.model(model).is_none() && snapshot.route(model).is_some() => {
                let text = format!(
                    "route '{model}' has no model of its name, and statistics are of models"
                );
                return Err(Rejection::new(Kind::NotFound, text));
            }
            (model, Some(_)) => vec![statistics(snapshot.find(model, version)?)],
            (model, None) => {
                let served = snapshot.model(model).ok_or_else(|| ModelName::unknown(model))?;
                if served.ready.is_empty() {
                    let text = format!("model '{model}' has no ready version");
                    return Err(Rejection::new(Kind::NotReady, text));
                }
                served.ready.values().map(|served| statistics(served)).collect()
            }
        };
        Ok(ModelStatisticsResponse { model_stats })
    }
}

fn sees(caller: &Caller, served: &ServedVersion) -> bool {
    caller.identity.may_call(served.model.as_str())
}

fn statistics(served: &ServedVersion) -> ModelStatistics {
    let stats = &served.stats;
    let executions = served.queue.executions();
    ModelStatistics {
        name: served.model.to_string(),
        version: served.version.to_string(),
        last_inference: stats.last_inference(),
        inference_count: stats.inferences(),
        execution_count: executions.values().map(|batch| batch.count).sum(),
        inference_stats: Some(InferStatistics {
            success: Some(total(&stats.success)),
            fail: Some(total(&stats.fail)),
            queue: Some(total(&stats.queue)),
            compute_input: Some(total(&stats.input)),
            compute_infer: Some(total(&stats.infer)),
            compute_output: Some(total(&stats.output)),
            cache_hit: Some(StatisticDuration::default()),
            cache_miss: Some(StatisticDuration::default()),
        }),
        batch_stats: executions
            .into_iter()
            .map(|(rows, batch)| InferBatchStatistics {
                batch_size: rows as u64,
                compute_input: Some(duration(batch.count, batch.input)),
                compute_infer: Some(duration(batch.count, batch.infer)),
                compute_output: Some(duration(batch.count, batch.output)),
            })
            .collect(),
        ..ModelStatistics::default()
    }
}

fn total(total: &Total) -> StatisticDuration {
    StatisticDuration { count: total.count(), ns: total.nanoseconds() }
}

fn duration(count: u64, time: Duration) -> StatisticDuration {
    StatisticDuration { count, ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
}
