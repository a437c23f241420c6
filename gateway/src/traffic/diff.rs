//! What changes from some routes to others, in words.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::config::{Arm, Fallback, Guarantee, Route, Sticky, Target, VersionChoice};
use crate::routing::{RoutePlan, Source, moved, reshuffles};
use crate::types::Share;

/// Most lines of a diff; more are counted.
const MOST: usize = 500;

/// The lines that say how routes change, both lists in the order of names.
pub(super) fn diff(before: &[Arc<RoutePlan>], after: &[Arc<RoutePlan>]) -> Vec<String> {
    let mut lines = Vec::new();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.route.name.cmp(&new.route.name),
        };
        let gone = if order.is_le() { old.next() } else { None };
        let came = if order.is_ge() { new.next() } else { None };
        match (gone, came) {
            (Some(old), Some(new)) if Arc::ptr_eq(old, new) => {}
            (Some(old), Some(new)) => changed(old, new, &mut lines),
            (Some(old), None) => lines.push(format!("route '{}': removed", old.route.name)),
            (None, new) => lines.extend(new.map(|new| added(&new.route))),
        }
    }
    lines
}

/// Cuts a long diff, saying how much is missing.
pub(super) fn bounded(mut lines: Vec<String>) -> Vec<String> {
    let more = lines.len().saturating_sub(MOST);
    if more > 0 {
        lines.truncate(MOST);
        lines.push(format!("… and {more} more lines"));
    }
    lines
}

fn added(route: &Route) -> String {
    let arms = route.arms.iter();
    let arms: Vec<_> =
        arms.map(|arm| format!("{} {} ({})", arm.name, arm.share, target(&arm.target))).collect();
    format!("route '{}': added: {}", route.name, arms.join(", "))
}

fn changed(old: &RoutePlan, new: &RoutePlan, lines: &mut Vec<String>) {
    let name = &new.route.name;
    let mut say = |what: String| lines.push(format!("route '{name}': {what}"));
    arms(&old.route, &new.route, &mut say);
    shadows(&old.route, &new.route, &mut say);
    settings(&old.route, &new.route, &mut say);
    if reshuffles(&old.route, &new.route) {
        say("warning: all callers are divided anew".to_owned());
    } else {
        let moved = Share::of_buckets(moved(&old.divided(), &new.divided())).unwrap_or(Share::ALL);
        if moved > Share::NONE {
            say(format!("{moved} of its callers change arms"));
        }
    }
    match (old.source, new.source) {
        (Source::Overlay, Source::File) => say("as the file says again".to_owned()),
        (Source::File, Source::Overlay) => say("differs from the file now".to_owned()),
        _ => {}
    }
}

fn arms(old: &Route, new: &Route, say: &mut impl FnMut(String)) {
    let find = |arms: &[Arm], arm: &Arm| arms.iter().find(|a| a.name == arm.name).cloned();
    for arm in old.arms.iter().filter(|arm| find(&new.arms, arm).is_none()) {
        say(format!("arm '{}' removed (had {})", arm.name, arm.share));
    }
    for arm in &new.arms {
        let Some(before) = find(&old.arms, arm) else {
            say(format!("arm '{}' added: {} ({})", arm.name, arm.share, target(&arm.target)));
            continue;
        };
        if before.share != arm.share {
            say(format!("{} {} -> {}", arm.name, before.share, arm.share));
        }
        if before.target != arm.target {
            let (from, to) = (target(&before.target), target(&arm.target));
            say(format!("arm '{}' goes to {to} (was {from})", arm.name));
        }
        match (&before.buckets, &arm.buckets) {
            (Some(_), None) => say(format!("buckets of arm '{}' are no longer pinned", arm.name)),
            (before, after) if before != after => {
                say(format!("buckets of arm '{}' are pinned", arm.name));
            }
            _ => {}
        }
    }
}

fn shadows(old: &Route, new: &Route, say: &mut impl FnMut(String)) {
    for shadow in old.shadows.iter().filter(|s| !new.shadows.iter().any(|n| n.name == s.name)) {
        say(format!("shadow '{}' removed", shadow.name));
    }
    for shadow in &new.shadows {
        let to = target(&shadow.target);
        match old.shadows.iter().find(|before| before.name == shadow.name) {
            None => say(format!("shadow '{}' added: {} ({to})", shadow.name, shadow.sample)),
            Some(before) if before.target != shadow.target => {
                say(format!("shadow '{}' goes to {to}", shadow.name));
            }
            Some(before) if before.sample != shadow.sample => {
                say(format!("shadow '{}' {} -> {}", shadow.name, before.sample, shadow.sample));
            }
            Some(before) if before != shadow => {
                say(format!("limits of shadow '{}' changed", shadow.name));
            }
            Some(_) => {}
        }
    }
}

fn settings(old: &Route, new: &Route, say: &mut impl FnMut(String)) {
    if old.sticky != new.sticky {
        say(format!("sticky {} -> {}", sticky(&old.sticky), sticky(&new.sticky)));
    }
    if old.salt != new.salt {
        say(format!("salt '{}' -> '{}'", old.salt, new.salt));
    }
    if old.fallback != new.fallback {
        say(format!("fallback {} -> {}", fallback(&old.fallback), fallback(&new.fallback)));
    }
    if old.log != new.log {
        say(format!("prediction log {} -> {}", guarantee(old.log), guarantee(new.log)));
    }
    if old.testers != new.testers {
        say("testers changed".to_owned());
    }
}

/// Where answers come from, in words.
#[must_use]
pub fn target(target: &Target) -> String {
    match target {
        Target::Local { model, version: VersionChoice::Latest } => format!("{model}/latest"),
        Target::Local { model, version: VersionChoice::Number(number) } => {
            format!("{model}/{number}")
        }
        Target::Local { model, version: VersionChoice::Label(label) } => format!("{model}/{label}"),
        Target::Upstream { upstream, model, version: None } => format!("{upstream}: {model}"),
        Target::Upstream { upstream, model, version: Some(version) } => {
            format!("{upstream}: {model}/{version}")
        }
    }
}

fn guarantee(guarantee: Option<Guarantee>) -> &'static str {
    guarantee.map_or("as all", Guarantee::word)
}

fn sticky(sticky: &Sticky) -> String {
    match sticky {
        Sticky::Off => "off".to_owned(),
        Sticky::Header(name) => format!("header:{name}"),
        Sticky::Parameter(name) => format!("parameter:{name}"),
        Sticky::Identity => "identity".to_owned(),
    }
}

fn fallback(fallback: &Fallback) -> String {
    match fallback {
        Fallback::Refuse => "refuse".to_owned(),
        Fallback::Arm(name) => name.to_string(),
        // Its values may have changed and not their number.
        Fallback::Static(outputs) => format!("static ({} outputs)", outputs.len()),
    }
}
