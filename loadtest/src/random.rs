//! Random numbers that a seed repeats: SplitMix64 (Steele, Lea, Flood 2014), enough for inputs,
//! arrivals and keys, without a dependency.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 up to, without, 1.
    #[expect(clippy::cast_precision_loss, reason = "the 53 bits that are left are exact")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From 0 up to, without, a bound that is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a product is as even as the bits are (Lemire 2019, without rejection).
        let product = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(product >> 64).expect("half of 128 bits")
    }

    /// A wait with a mean of 1 between events that know nothing of each other.
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers() {
        let stream = |seed| {
            let mut random = Random::new(seed);
            (0..4).map(|_| random.bits()).collect::<Vec<_>>()
        };
        assert_eq!(stream(7), stream(7));
        assert_ne!(stream(7), stream(8));
    }

    #[test]
    fn numbers_below_a_bound_are_even() {
        let mut random = Random::new(1);
        let mut counts = [0_u32; 5];
        for _ in 0..50_000 {
            counts[usize::try_from(random.below(5)).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 400), "{counts:?}");
    }

    #[test]
    fn exponential_waits_have_mean_and_variance_of_one() {
        let mut random = Random::new(1);
        let waits: Vec<f64> = (0..50_000).map(|_| random.exponential()).collect();
        let mean = waits.iter().sum::<f64>() / 50_000.0;
        let variance = waits.iter().map(|wait| (wait - mean).powi(2)).sum::<f64>() / 50_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!((variance - 1.0).abs() < 0.06, "{variance}");
    }
}
