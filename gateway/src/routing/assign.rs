//! From a caller's key to a bucket, and from a bucket to an arm.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Ranges;
use crate::types::{ArmName, BUCKETS, Share};

/// What a route's keys are hashed with: routes of other names or salts divide the same callers
/// independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    arms: u64,
    /// Another one, so that who is seen by shadows has nothing to do with who is in which arm.
    shadows: u64,
}

impl Seed {
    #[must_use]
    pub fn of(route: &str, salt: &str) -> Self {
        // No name of a route holds a zero byte.
        let text = [route, salt].join("\0");
        let seed = |purpose| xxh3_64_with_seed(text.as_bytes(), purpose);
        Self { arms: seed(0), shadows: seed(1) }
    }

    /// The bucket of a key, below [`BUCKETS`].
    #[must_use]
    pub fn bucket(self, key: &[u8]) -> u16 {
        bucket(key, self.arms)
    }

    /// What decides which shadows see the calls of a key; one for all shadows of a route.
    #[must_use]
    pub fn lot(self, key: &[u8]) -> Lot {
        Lot(bucket(key, self.shadows))
    }
}

/// Which samples a call falls into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lot(u16);

impl Lot {
    /// Whether shadows with this sample see the call. Smaller samples are part of larger ones, so
    /// several shadows of a route see the same calls.
    #[must_use]
    pub fn is_in(self, sample: Share) -> bool {
        self.0 < sample.buckets()
    }
}

/// Multiply-shift of the hash's upper half: no division, and as even as 2^32 allows.
fn bucket(key: &[u8], seed: u64) -> u16 {
    let hash = xxh3_64_with_seed(key, seed) >> 32;
    u16::try_from((hash * u64::from(BUCKETS)) >> 32).unwrap_or(BUCKETS - 1)
}

/// Which arm each bucket belongs to. A few bytes for each range, found by halving.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// First bucket behind each range, in order.
    ends: Box<[u16]>,
    /// The arm of each range, by its index.
    arms: Box<[usize]>,
}

impl Table {
    /// Joins the buckets of all arms.
    ///
    /// # Errors
    /// Which bucket is in two arms or in none.
    pub fn new(arms: &[(ArmName, Ranges)]) -> Result<Self, String> {
        let of_arm = |(index, (_, ranges)): (usize, &'_ (ArmName, Ranges))| {
            ranges.pairs().iter().map(|pair| (*pair, index)).collect::<Vec<_>>()
        };
        let mut ranges: Vec<_> = arms.iter().enumerate().flat_map(of_arm).collect();
        ranges.sort_unstable();
        let mut covered = 0;
        for &((from, to), index) in &ranges {
            if from > covered {
                return Err(format!("bucket {covered} is in no arm"));
            }
            if from < covered {
                return Err(format!("bucket {from} is in '{}' and in another arm", arms[index].0));
            }
            covered = to;
        }
        if covered < BUCKETS {
            return Err(format!("bucket {covered} is in no arm"));
        }
        let (ends, arms) = ranges.into_iter().map(|((_, to), index)| (to, index)).unzip();
        let (ends, arms): (Vec<_>, Vec<_>) = (ends, arms);
        Ok(Self { ends: ends.into(), arms: arms.into() })
    }

    /// The arm of a bucket, by its index in the arms that the table was made of.
    #[must_use]
    pub fn arm_of(&self, bucket: u16) -> usize {
        let bucket = bucket.min(BUCKETS - 1);
        self.arms[self.ends.partition_point(|end| *end <= bucket)]
    }
}
