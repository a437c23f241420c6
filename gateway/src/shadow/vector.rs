//! Two vectors of floats side by side, in one pass over their bytes.

use engine::DataType;

use super::elements::{BLOCK, Blocks, read};

/// Largest elements that are compared as a set.
const MOST_TOP: usize = 5;

/// The bytes of one vector.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vector<'a> {
    pub(super) datatype: DataType,
    pub(super) data: &'a [u8],
}

/// What one pass found. Differences are shadow minus live, over elements that are finite in both.
#[derive(Debug, Default, Clone)]
pub(super) struct Sides {
    /// Elements finite in both.
    pub(super) finite: u64,
    pub(super) absolute: f64,
    pub(super) signed: f64,
    pub(super) largest_difference: f64,
    /// The largest finite live magnitude.
    pub(super) magnitude: f64,
    dot: f64,
    live_square: f64,
    shadow_square: f64,
    /// Elements that are not finite, and not the same in both.
    pub(super) odd: u64,
    pub(super) live: Side,
    pub(super) shadow: Side,
}

/// What is about one side alone.
#[derive(Debug, Default, Clone)]
pub(super) struct Side {
    pub(super) has_nan: bool,
    pub(super) has_infinite: bool,
    top: Top,
}

/// The largest elements in falling order, the first of equals first.
#[derive(Debug, Default, Clone)]
struct Top {
    values: [f64; MOST_TOP],
    classes: [u32; MOST_TOP],
    length: usize,
}

/// How many of the largest elements are compared as a set; with all of them it would always be
/// the same set.
pub(super) fn top_of(classes: usize) -> usize {
    classes.saturating_sub(1).min(MOST_TOP)
}

impl Sides {
    /// Compares vectors of the same length; `top` is how many of the largest to look for.
    pub(super) fn compare(
        live: Vector<'_>,
        shadow: Vector<'_>,
        top: usize,
        blocks: &mut Blocks,
    ) -> Self {
        let mut sides = Self::default();
        let step = |vector: Vector<'_>| BLOCK * vector.datatype.size().unwrap_or(1);
        let pieces = live.data.chunks(step(live)).zip(shadow.data.chunks(step(shadow)));
        for (block, (live_data, shadow_data)) in pieces.enumerate() {
            let lives = read(live.datatype, live_data, &mut blocks.live);
            let shadows = read(shadow.datatype, shadow_data, &mut blocks.shadow);
            sides.add(lives, shadows);
            if top > 0 {
                sides.live.top.offer_all(block * BLOCK, lives, top);
                sides.shadow.top.offer_all(block * BLOCK, shadows, top);
            }
        }
        sides
    }

    fn add(&mut self, lives: &[f64], shadows: &[f64]) {
        // Zero times what is not finite is NaN, and stays it.
        let mut odd = 0.0;
        for (live, shadow) in lives.iter().zip(shadows) {
            odd += live * 0.0 + shadow * 0.0;
        }
        if f64::is_nan(odd) {
            for (&live, &shadow) in lives.iter().zip(shadows) {
                self.add_odd(live, shadow);
            }
            return;
        }
        self.finite += lives.len() as u64;
        for (&live, &shadow) in lives.iter().zip(shadows) {
            self.add_finite(live, shadow);
        }
    }

    fn add_finite(&mut self, live: f64, shadow: f64) {
        let difference = shadow - live;
        self.signed += difference;
        self.absolute += difference.abs();
        self.largest_difference = self.largest_difference.max(difference.abs());
        self.magnitude = self.magnitude.max(live.abs());
        self.dot += live * shadow;
        self.live_square += live * live;
        self.shadow_square += shadow * shadow;
    }

    fn add_odd(&mut self, live: f64, shadow: f64) {
        if live.is_finite() && shadow.is_finite() {
            self.finite += 1;
            return self.add_finite(live, shadow);
        }
        for (side, value) in [(&mut self.live, live), (&mut self.shadow, shadow)] {
            side.has_nan |= value.is_nan();
            side.has_infinite |= value.is_infinite();
        }
        let same = (live.is_nan() && shadow.is_nan()) || live.total_cmp(&shadow).is_eq();
        self.odd += u64::from(!same);
    }

    /// The mean difference as a part of the largest live magnitude; `None` where there is none.
    pub(super) fn mean_relative(&self) -> Option<f64> {
        let mean = self.absolute / self.finite.max(1) as f64;
        self.relative(mean)
    }

    /// The largest difference in the same way; all of it where live is zero and the shadow not.
    pub(super) fn largest_relative(&self) -> f64 {
        self.relative(self.largest_difference).unwrap_or(1.0)
    }

    fn relative(&self, difference: f64) -> Option<f64> {
        match (difference > 0.0, self.magnitude > 0.0) {
            (false, _) => Some(0.0),
            (true, true) => Some(difference / self.magnitude),
            (true, false) => None,
        }
    }

    /// The cosine of their angle; two zero vectors are alike, one alone is not. `None` where an
    /// element is not finite, or their squares are beyond floats.
    pub(super) fn cosine(&self) -> Option<f64> {
        if [&self.live, &self.shadow].iter().any(|side| side.has_nan || side.has_infinite) {
            return None;
        }
        let lengths = (self.live_square * self.shadow_square).sqrt();
        if !lengths.is_finite() {
            return None;
        }
        if lengths > 0.0 {
            return Some((self.dot / lengths).clamp(-1.0, 1.0));
        }
        let is_zero = |square: f64| square <= 0.0;
        let alike = is_zero(self.live_square) && is_zero(self.shadow_square);
        Some(f64::from(u8::from(alike)))
    }

    /// Jaccard's share of the largest elements: those in both sets of those in any.
    pub(super) fn top_overlap(&self) -> Option<f64> {
        let (live, shadow) = (self.live.top.classes(), self.shadow.top.classes());
        let both = live.iter().filter(|class| shadow.contains(class)).count();
        let any = live.len() + shadow.len() - both;
        (any > 0).then(|| both as f64 / any as f64)
    }
}

impl Side {
    /// The class of the largest element; a vector with NaN has none.
    pub(super) fn label(&self) -> Option<u32> {
        self.top.classes().first().copied().filter(|_| !self.has_nan)
    }
}

impl Top {
    fn classes(&self) -> &[u32] {
        &self.classes[..self.length]
    }

    fn offer_all(&mut self, first: usize, values: &[f64], most: usize) {
        for (index, &value) in values.iter().enumerate() {
            let is_full = self.length >= most;
            if value.is_nan() || (is_full && value <= self.values[self.length - 1]) {
                continue;
            }
            let class = u32::try_from(first + index).unwrap_or(u32::MAX);
            self.insert(class, value, most);
        }
    }

    fn insert(&mut self, class: u32, value: f64, most: usize) {
        let place = self.values[..self.length].iter().position(|known| value > *known);
        let place = place.unwrap_or(self.length);
        self.length = (self.length + 1).min(most);
        self.values.copy_within(place..self.length - 1, place + 1);
        self.classes.copy_within(place..self.length - 1, place + 1);
        self.values[place] = value;
        self.classes[place] = class;
    }
}
