//! The words that rows have for calls.

use std::time::Duration;

use super::Place;
use crate::error::Kind;
use crate::predictions::{Names, RowRef, Sides, Status};
use crate::snapshot::{Assigned, Backend, Draw};
use crate::telemetry::Outcome;
use crate::types::{Signature, Timings};

pub(super) const NO_TENSORS: Sides<'static> = Sides { has_inputs: false, outputs: &[] };

pub(super) const NO_TIME: Timings = Timings {
    queue: Duration::ZERO,
    input: Duration::ZERO,
    infer: Duration::ZERO,
    output: Duration::ZERO,
    batch: 0,
};

/// What runs a call, in the words of rows.
#[derive(Default)]
pub(super) struct Runner<'a> {
    pub(super) model: &'a str,
    pub(super) version: &'a str,
    pub(super) file_hash: &'a str,
    pub(super) device: &'a str,
}

impl<'a> Runner<'a> {
    pub(super) fn of(backend: Option<&'a Backend>, digits: &'a mut itoa::Buffer) -> Self {
        let Some(backend) = backend else { return Self::default() };
        let model = backend.model();
        match backend {
            Backend::Local(served) => Self {
                model,
                version: digits.format(served.version.0),
                file_hash: served.sha256.as_deref().unwrap_or(""),
                device: &served.manifest.device,
            },
            Backend::Remote(_) => Self { model, ..Self::default() },
        }
    }
}

/// What the scalars of a backend's tensors are called. Of one elsewhere nobody says so here: they
/// are called as those of an arm of the same route that takes and gives the same.
pub(super) fn names(backend: Option<&Backend>, assigned: Option<&Assigned>) -> Names {
    let of = |backend: &Backend| match backend {
        Backend::Local(served) => {
            let features = &served.manifest.features;
            [features.inputs.clone(), features.outputs.clone()]
        }
        Backend::Remote(_) => Names::default(),
    };
    let Some(backend) = backend else { return Names::default() };
    let own = of(backend);
    if own.iter().flatten().any(|names| !names.is_empty()) {
        return own;
    }
    let arms = assigned.into_iter().flat_map(|assigned| &assigned.route.arms);
    let alike = |other: &Backend| {
        let (own, other) = (backend.signature(), other.signature());
        let outputs = |signature: &Signature| -> Vec<_> {
            signature.outputs.iter().map(|output| output.spec.clone()).collect()
        };
        (own.max_batch_size > 0) == (other.max_batch_size > 0)
            && own.inputs == other.inputs
            && outputs(own) == outputs(other)
    };
    let mut others = arms.filter_map(|arm| arm.seat.backend());
    others
        .find(|other| matches!(other, Backend::Local(_)) && alike(other))
        .map_or_else(Names::default, |other| of(&other))
}

/// What a row says of the route that a call took.
pub(super) fn routed(assigned: Option<&Assigned>, place: Place) -> RowRef<'_> {
    let Some(assigned) = assigned else {
        return RowRef { draw: "direct", revision: place.revision, ..RowRef::default() };
    };
    RowRef {
        route: assigned.route.name().as_str(),
        assigned_arm: assigned.arm().name.as_str(),
        draw: match assigned.draw {
            Draw::Divided => "divided",
            Draw::Keyless => "keyless",
            Draw::Forced => "forced",
        },
        bucket: place.bucket,
        // Nobody drew an arm that its caller named.
        propensity: (assigned.draw != Draw::Forced)
            .then(|| assigned.route.plan.route.arms[assigned.index].share.part()),
        revision: place.revision,
        ..RowRef::default()
    }
}

/// How a call ended, and the class of its error.
pub(super) fn ended(outcome: Outcome) -> (i32, &'static str) {
    let (status, error) = match outcome {
        Outcome::Answered => (Status::Answered, ""),
        Outcome::Replayed => (Status::Replayed, ""),
        Outcome::Refused(kind) => {
            let status = match kind {
                Kind::Cancelled => Status::Cancelled,
                Kind::EngineFailed | Kind::ArmFailed | Kind::Internal => Status::Failed,
                _ => Status::Refused,
            };
            (status, kind.label())
        }
    };
    (status as i32, error)
}

/// A name that nobody knows, as far as rows have it.
pub(super) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(128)]
}

pub(super) fn engine_us(timings: &Timings) -> u64 {
    micros(timings.input + timings.infer + timings.output)
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
