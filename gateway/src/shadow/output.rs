//! What comparing one output has shown so far.

use engine::{DataType, Tensor};

use super::Proportion;
use super::elements::Blocks;
use super::flips::FlipTable;
use super::report::{Cosine, Difference, Flip, Flips, OddRows, OutputKind, OutputReport, TopK};
use super::spread::Spread;
use super::vector::{Sides, Vector, top_of};
use super::worst::{Deviation, What, class_name};
use crate::codec::finite::has_floats;
use crate::codec::numbers::to_integers;
use crate::types::OutputSpec;

/// Most elements of a last dimension that are taken for classes without declared labels.
const MOST_CLASSES: usize = 10_000;
/// Flips that a report lists.
const MOST_FLIPS: usize = 50;

/// Why the outputs of both sides cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mismatch {
    Shape,
    Datatype,
}

/// The figures of one output.
#[derive(Debug)]
pub(super) struct OutputTally {
    pub(super) name: String,
    pub(super) labels: Vec<String>,
    pub(super) labels_differ: bool,
    kind: OutputKind,
    datatypes: (DataType, DataType),
    rows: u64,
    agreement: Tally,
    equal_elements: Tally,
    within_tolerance: Tally,
    flips: FlipTable,
    top: Mean,
    k: usize,
    absolute: Mean,
    signed: Mean,
    largest: f64,
    relative: Mean,
    cosine: Mean,
    least_cosine: f64,
    angles: Spread,
    nan: OddRows,
    infinite: OddRows,
}

/// So many out of so many.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    count: u64,
    of: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Mean {
    sum: f64,
    count: u64,
}

/// Both sides of one output, which have the same shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensors<'a> {
    pub(super) live: &'a Tensor,
    pub(super) shadow: &'a Tensor,
    /// Whether dimension 0 holds items.
    pub(super) batches: bool,
}

impl Tally {
    fn add(&mut self, holds: bool) {
        self.count += u64::from(holds);
        self.of += 1;
    }

    fn report(self) -> Option<Proportion> {
        Proportion::new(self.count, self.of)
    }
}

impl Mean {
    fn add(&mut self, sum: f64, count: u64) {
        self.sum += sum;
        self.count += count;
    }

    fn report(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

impl Tensors<'_> {
    fn rows(&self) -> usize {
        if self.batches { self.live.rows() } else { 1 }
    }

    /// How to compare it, and in vectors of how many elements.
    fn layout(&self, spec: &OutputSpec) -> (OutputKind, usize) {
        let shape = self.live.shape();
        let inner = if self.batches { shape.get(1..).unwrap_or(&[]) } else { shape };
        let whole = inner.iter().product();
        if !has_floats(self.live.datatype()) {
            return (OutputKind::Exact, whole);
        }
        let last = inner.last().copied().unwrap_or(1);
        // A size that calls choose is a length, and large ranks are pictures.
        let is_chosen = spec.spec.shape.last() == Some(&-1);
        let may_be_classes = last <= MOST_CLASSES && inner.len() <= 2 && !is_chosen;
        match (last > 1 && (may_be_classes || !spec.labels.is_empty()), whole) {
            (true, _) => (OutputKind::Classes, last),
            (false, ..=1) => (OutputKind::Scalar, 1),
            (false, _) => (OutputKind::Vector, whole),
        }
    }
}

impl OutputTally {
    pub(super) fn new(live: &OutputSpec) -> Self {
        let none = OddRows { live: 0, shadow: 0 };
        Self {
            name: live.spec.name.clone(),
            labels: live.labels.clone(),
            labels_differ: false,
            kind: OutputKind::Exact,
            datatypes: (live.spec.datatype, live.spec.datatype),
            rows: 0,
            agreement: Tally::default(),
            equal_elements: Tally::default(),
            within_tolerance: Tally::default(),
            flips: FlipTable::default(),
            top: Mean::default(),
            k: 0,
            absolute: Mean::default(),
            signed: Mean::default(),
            largest: 0.0,
            relative: Mean::default(),
            cosine: Mean::default(),
            least_cosine: 1.0,
            angles: Spread::default(),
            nan: none,
            infinite: none,
        }
    }

    /// Counts both sides of one call. Floats of different sizes are compared as numbers, other
    /// types must be the same. Gives the row that is furthest off, if any is off by more than
    /// the declared tolerance.
    pub(super) fn compare(
        &mut self,
        spec: &OutputSpec,
        tensors: Tensors<'_>,
        blocks: &mut Blocks,
    ) -> Result<Option<Deviation>, Mismatch> {
        let Tensors { live, shadow, .. } = tensors;
        let (one, other) = (live.datatype(), shadow.datatype());
        if one != other && !(has_floats(one) && has_floats(other)) {
            return Err(Mismatch::Datatype);
        }
        if live.shape() != shadow.shape() {
            return Err(Mismatch::Shape);
        }
        let (kind, width) = tensors.layout(spec);
        (self.kind, self.datatypes) = (kind, (one, other));
        self.rows += tensors.rows() as u64;
        if live.elements() == 0 {
            return Ok(None);
        }
        Ok(match kind {
            OutputKind::Exact => self.compare_exactly(tensors, width),
            _ => self.compare_floats(spec, tensors, width, blocks),
        })
    }

    fn compare_exactly(&mut self, tensors: Tensors<'_>, width: usize) -> Option<Deviation> {
        let (live, shadow) = (tensors.live, tensors.shadow);
        let mut first = None;
        let mut row = |this: &mut Self, index: usize, equal: usize| {
            this.agreement.add(equal == width);
            this.equal_elements.count += equal as u64;
            this.equal_elements.of += width as u64;
            if equal < width && first.is_none() {
                first = Some(index);
            }
        };
        match live.datatype().size() {
            Some(size) => {
                let rows = live.data().chunks(width * size).zip(shadow.data().chunks(width * size));
                for (index, (live, shadow)) in rows.enumerate() {
                    let pairs = live.chunks(size).zip(shadow.chunks(size));
                    row(self, index, pairs.filter(|(live, shadow)| live == shadow).count());
                }
            }
            None => {
                let mut pairs = live.strings().zip(shadow.strings());
                for index in 0..tensors.rows() {
                    let pairs = pairs.by_ref().take(width);
                    row(self, index, pairs.filter(|(live, shadow)| live == shadow).count());
                }
            }
        }
        let row = first?;
        let value = |tensor: &Tensor| to_integers(tensor)?.get(row).copied();
        let values = if width == 1 { value(live).zip(value(shadow)) } else { None };
        let what = values.map_or(What::Unequal, |(live, shadow)| What::Value { live, shadow });
        Some(Deviation { score: 1.0, row, what })
    }

    fn compare_floats(
        &mut self,
        spec: &OutputSpec,
        tensors: Tensors<'_>,
        width: usize,
        blocks: &mut Blocks,
    ) -> Option<Deviation> {
        let Tensors { live, shadow, .. } = tensors;
        let top = if self.kind == OutputKind::Classes { top_of(width) } else { 0 };
        self.k = top;
        let vectors_of_row = live.elements() / width / tensors.rows();
        let step = |tensor: &Tensor| width * tensor.datatype().size().unwrap_or(1);
        let pieces = live.data().chunks(step(live)).zip(shadow.data().chunks(step(shadow)));
        let mut worst: Option<Deviation> = None;
        let mut odd = [false; 4];
        for (index, (one, other)) in pieces.enumerate() {
            let one = Vector { datatype: live.datatype(), data: one };
            let other = Vector { datatype: shadow.datatype(), data: other };
            let sides = Sides::compare(one, other, top, blocks);
            self.count(&sides, spec.tolerance);
            let (live, shadow) = (&sides.live, &sides.shadow);
            let found = [live.has_nan, shadow.has_nan, live.has_infinite, shadow.has_infinite];
            odd = std::array::from_fn(|kind| odd[kind] | found[kind]);
            if (index + 1) % vectors_of_row == 0 {
                self.count_odd(std::mem::take(&mut odd));
            }
            let row = index / vectors_of_row;
            let found = deviation(&sides, top > 0, spec.tolerance);
            if let Some((score, what)) = found
                && worst.is_none_or(|worst| score > worst.score)
            {
                worst = Some(Deviation { score, row, what });
            }
        }
        worst
    }

    fn count_odd(&mut self, [live_nan, shadow_nan, live_infinite, shadow_infinite]: [bool; 4]) {
        self.nan.live += u64::from(live_nan);
        self.nan.shadow += u64::from(shadow_nan);
        self.infinite.live += u64::from(live_infinite);
        self.infinite.shadow += u64::from(shadow_infinite);
    }

    /// Counts one vector.
    fn count(&mut self, sides: &Sides, tolerance: f64) {
        if self.kind == OutputKind::Classes {
            self.count_labels(sides);
        }
        let is_within = sides.odd == 0 && sides.largest_relative() <= tolerance;
        self.within_tolerance.add(is_within);
        self.absolute.add(sides.absolute, sides.finite);
        self.signed.add(sides.signed, sides.finite);
        self.largest = self.largest.max(sides.largest_difference);
        if let Some(relative) = sides.mean_relative().filter(|_| sides.finite > 0) {
            self.relative.add(relative, 1);
        }
        if self.kind == OutputKind::Scalar {
            return;
        }
        if let Some(cosine) = sides.cosine() {
            self.cosine.add(cosine, 1);
            self.least_cosine = self.least_cosine.min(cosine);
            self.angles.add(1.0 - cosine);
        }
    }

    /// Where live has no label there is nothing to agree with; a shadow without one disagrees.
    fn count_labels(&mut self, sides: &Sides) {
        let Some(live) = sides.live.label() else { return };
        let shadow = sides.shadow.label();
        self.agreement.add(shadow == Some(live));
        let Some(shadow) = shadow else { return };
        if shadow != live {
            self.flips.add(live, shadow);
        }
        if let Some(overlap) = sides.top_overlap() {
            self.top.add(overlap, 1);
        }
    }

    /// The share of the gauge, and the mean relative difference.
    pub(super) fn gauges(&self) -> (Option<f64>, Option<f64>) {
        (self.agreement.report().map(|agreement| agreement.share), self.relative.report())
    }

    pub(super) fn report(&self) -> OutputReport {
        let (live, shadow) = self.datatypes;
        let has_classes = self.kind == OutputKind::Classes;
        OutputReport {
            name: self.name.clone(),
            kind: self.kind,
            datatype: live.name(),
            shadow_datatype: (live != shadow).then(|| shadow.name()),
            labels_differ: self.labels_differ,
            rows: self.rows,
            agreement: self.agreement.report(),
            equal_elements: self.equal_elements.report(),
            within_tolerance: self.within_tolerance.report(),
            top_k: self.top.report().map(|overlap| TopK { k: self.k, overlap }),
            flips: has_classes.then(|| self.report_flips()),
            difference: self.report_difference(),
            cosine: self.report_cosine(),
            nan: self.nan,
            infinite: self.infinite,
        }
    }

    fn report_flips(&self) -> Flips {
        let most = self.flips.most(MOST_FLIPS).into_iter().map(|((live, shadow), found)| Flip {
            live: class_name(&self.labels, live),
            shadow: class_name(&self.labels, shadow),
            count: found.count,
            error: found.error,
        });
        Flips { total: self.flips.total(), different: self.flips.len(), most: most.collect() }
    }

    fn report_difference(&self) -> Option<Difference> {
        Some(Difference {
            mean: self.absolute.report()?,
            max: self.largest,
            mean_signed: self.signed.report()?,
            mean_relative: self.relative.report(),
        })
    }

    fn report_cosine(&self) -> Option<Cosine> {
        let at = |part: f64| self.angles.quantile(part).map(|angle| 1.0 - angle.min(2.0));
        Some(Cosine {
            vectors: self.angles.count(),
            mean: self.cosine.report()?,
            min: self.least_cosine,
            p1: at(0.99)?,
            p10: at(0.9)?,
            median: at(0.5)?,
        })
    }
}

/// How far one vector is off, unless by no more than the tolerance.
fn deviation(sides: &Sides, has_classes: bool, tolerance: f64) -> Option<(f64, What)> {
    let (largest, relative) = (sides.largest_difference, sides.largest_relative());
    let is_worse = |live: bool, shadow: bool| shadow && !live;
    if is_worse(sides.live.has_nan, sides.shadow.has_nan)
        || is_worse(sides.live.has_infinite, sides.shadow.has_infinite)
    {
        return Some((2.0, What::NotFinite));
    }
    let live = sides.live.label().filter(|_| has_classes);
    let shadow = sides.shadow.label();
    if let Some(live) = live
        && shadow != Some(live)
    {
        let what = What::Label { live, shadow, difference: largest };
        return Some((1.0 + relative.min(0.999), what));
    }
    (relative > tolerance).then(|| (relative.min(0.999), What::Difference { largest, relative }))
}
