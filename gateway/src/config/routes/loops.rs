//! Routes that would send calls back to themselves, as far as the file shows it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::{Route, Target};
use crate::config::listen::Listen;
use crate::config::reader::Problems;
use crate::config::upstreams::{Upstream, split_endpoint};

/// Finds arms and shadows whose upstream is this gateway and whose model leads back to their
/// route.
pub(in crate::config) fn check(
    routes: &[Route],
    upstreams: &[Upstream],
    listen: &Listen,
    problems: &Problems,
) {
    let doors: Vec<SocketAddr> = [listen.http, listen.grpc].into_iter().flatten().collect();
    let is_ours = |upstream: &&Upstream| {
        upstream.endpoints.iter().any(|endpoint| doors.iter().any(|door| meets(endpoint, *door)))
    };
    let ours: BTreeSet<&str> =
        upstreams.iter().filter(is_ours).map(|upstream| upstream.name.as_str()).collect();
    if ours.is_empty() {
        return;
    }
    let by_name: BTreeMap<&str, &Route> =
        routes.iter().map(|route| (route.name.as_str(), route)).collect();
    let next = |target| leads_to(target, &ours, &by_name);
    for (index, route) in routes.iter().enumerate() {
        let arms =
            route.arms.iter().enumerate().map(|(at, arm)| (format!("arm[{at}]"), &arm.target));
        let shadows = route.shadows.iter().enumerate();
        let shadows = shadows.map(|(at, shadow)| (format!("shadow[{at}]"), &shadow.target));
        for (path, target) in arms.chain(shadows) {
            if next(target).is_some_and(|first| reaches(first, route, next)) {
                let text = "is this gateway itself, and its model leads back to this route";
                problems.add(format!("route[{index}].{path}.upstream"), text);
            }
        }
    }
}

/// Whether calls of `first` may come to `goal`.
fn reaches<'r>(
    first: &'r Route,
    goal: &Route,
    next: impl Fn(&'r Target) -> Option<&'r Route>,
) -> bool {
    let (mut open, mut seen) = (vec![first], BTreeSet::new());
    while let Some(route) = open.pop() {
        if route.name == goal.name {
            return true;
        }
        if seen.insert(&route.name) {
            let arms = route.arms.iter().map(|arm| &arm.target);
            let all = arms.chain(route.shadows.iter().map(|shadow| &shadow.target));
            open.extend(all.filter_map(&next));
        }
    }
    false
}

/// The route of this gateway that gets the calls of a target, if one does: numbers of versions and
/// labels that are no arm's name go past it.
fn leads_to<'r>(
    target: &Target,
    ours: &BTreeSet<&str>,
    by_name: &BTreeMap<&str, &'r Route>,
) -> Option<&'r Route> {
    let Target::Upstream { upstream, model, version } = target else { return None };
    let route = by_name.get(model.as_str()).filter(|_| ours.contains(upstream.as_str()))?;
    let passes = version
        .as_ref()
        .is_none_or(|version| route.arms.iter().any(|arm| arm.name.as_str() == version));
    passes.then_some(*route)
}

/// Whether a connection to an endpoint ends at a door of this process.
fn meets(endpoint: &str, door: SocketAddr) -> bool {
    let Some((host, port)) = split_endpoint(endpoint) else { return false };
    if port != door.port() {
        return false;
    }
    let here = door.ip().is_unspecified() || door.ip().is_loopback();
    match host.parse::<IpAddr>() {
        Ok(host) if host.is_loopback() => door.ip().is_unspecified() || host == door.ip(),
        Ok(host) if host.is_unspecified() => here,
        Ok(host) => host == door.ip(),
        Err(_) => host.eq_ignore_ascii_case("localhost") && here,
    }
}
