//! Routes against the repository: whether what their arms and shadows name is there, and whether
//! callers can take the one for the other.

use std::sync::Arc;

use crate::config::{Problem, Route, Target, VersionChoice};
use crate::models::Models;
use crate::routing::{RoutePlan, Source};
use crate::types::Signature;

pub(super) const HEADING: [&str; 5] = ["ROUTE", "ARM", "TARGET", "SHARE", "BUCKETS"];

/// Names in a message, at most.
const SHOWN: usize = 10;

/// Every arm and shadow that the repository cannot answer for.
pub(super) fn check(routes: &[Route], models: &Models) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, route) in routes.iter().enumerate() {
        let arms = route.arms.iter().map(|arm| ("arm", &arm.name, &arm.target));
        let shadows = route.shadows.iter().map(|it| ("shadow", &it.name, &it.target));
        // The first whose signature is known here; upstreams are asked when they are called.
        let mut first = None;
        for (at, (kind, name, target)) in arms.enumerate().chain(shadows.enumerate()) {
            let path = format!("route[{index}].{kind}[{at}]");
            let signature = match signature(target, models) {
                Ok(Some(signature)) => signature,
                Ok(None) => continue,
                Err((key, text)) => {
                    problems.push(Problem::new(format!("{path}.{key}"), text));
                    continue;
                }
            };
            let (expected, other) = first.get_or_insert((signature.clone(), name));
            if let Some(text) = expected.incompatibility(&signature) {
                let text = format!("does not fit '{other}': {text}");
                problems.push(Problem::new(path, text));
            }
        }
    }
    problems
}

/// The signature of what answers; `None` where it is not known or its model is a problem of its
/// own. Else what is wrong, with its key.
fn signature(
    target: &Target,
    models: &Models,
) -> Result<Option<Arc<Signature>>, (&'static str, String)> {
    let Target::Local { model, version } = target else { return Ok(None) };
    let folder = match models.get(model) {
        None => return Err(("model", format!("is \"{model}\", the repository has no such model"))),
        Some(Err(_)) => return Ok(None),
        Some(Ok(folder)) => folder,
    };
    let labels = &folder.manifest.labels;
    match version {
        VersionChoice::Number(number) if !folder.versions.contains_key(number) => {
            let known = listed(folder.versions.keys());
            Err(("version", format!("is \"{number}\", '{model}' has {known}")))
        }
        VersionChoice::Label(label) if !labels.contains_key(label) => {
            let known = listed(labels.keys());
            Err(("version", format!("is \"{label}\", the labels of '{model}' are {known}")))
        }
        _ => Ok(Some(folder.manifest.signature.clone())),
    }
}

fn listed<T: ToString>(names: impl ExactSizeIterator<Item = T>) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let names: Vec<String> = names.take(SHOWN).map(|name| name.to_string()).collect();
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (_, 0) => names.join(", "),
        _ => format!("{} and {more} more", names.join(", ")),
    }
}

/// Labels of versions that are not there.
pub(super) fn check_labels(models: &Models) -> Vec<Problem> {
    let found = models.iter().filter_map(|(name, model)| Some((name, model.as_ref().ok()?)));
    let problems = found.flat_map(|(name, folder)| {
        let missing = folder.manifest.labels.iter();
        let missing = missing.filter(|(_, version)| !folder.versions.contains_key(version));
        missing.map(move |(label, version)| {
            let known = listed(folder.versions.keys());
            let text = format!("labels.{label}: is {version}, the folder has {known}");
            Problem::new(format!("repository/{name}"), text)
        })
    });
    problems.collect()
}

/// A line for each arm and shadow, with the buckets that a gateway without earlier ones gives it.
pub(super) fn rows(routes: &[Route]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for route in routes {
        let plan = RoutePlan::new(route.clone(), None, Source::File).ok();
        let ranges = plan.map_or_else(Vec::new, |plan| plan.ranges);
        for (index, arm) in route.arms.iter().enumerate() {
            let buckets = ranges.get(index).map_or_else(String::new, ToString::to_string);
            rows.push(vec![
                route.name.to_string(),
                arm.name.to_string(),
                arm.target.to_string(),
                arm.share.to_string(),
                buckets,
            ]);
        }
        for shadow in &route.shadows {
            let name = format!("{} (shadow)", shadow.name);
            let (target, sample) = (shadow.target.to_string(), shadow.sample.to_string());
            rows.push(vec![route.name.to_string(), name, target, sample, "-".to_owned()]);
        }
    }
    rows
}
