//! Routing keys: every call names one of a population, each as often as the next or, as real
//! callers are, a few of them most of the time.

use anyhow::ensure;

use crate::random::Random;

/// The header or metadata entry that carries a key unless the user names another.
pub const HEADER: &str = "penstock-key";
/// A population beyond this is a mistake: the table of shares would fill the memory.
const LARGEST: usize = 10_000_000;

/// How often each key comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Distribution {
    /// Each as often as the next
    Uniform,
    /// The n-th most frequent one n-th as often as the first
    Zipf,
}

/// What keys are drawn from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Population {
    /// How many keys there are.
    pub size: usize,
    pub distribution: Distribution,
    /// The header or metadata entry, in small letters.
    pub header: String,
}

/// Draws keys.
#[derive(Debug, Clone)]
pub struct Keys {
    size: u64,
    /// For each key the share of it and all before; empty when they are even.
    shares: Vec<f64>,
    random: Random,
}

// === impl Population ===

impl Population {
    /// Checks size and header.
    ///
    /// # Errors
    /// When there is no key or the header cannot be sent.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.size > 0, "there must be a key");
        ensure!(self.size <= LARGEST, "{} keys are more than {LARGEST}", self.size);
        let name = &self.header;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "'{name}' is no name of a header: small letters, digits, '-', '_' and '.'"
        );
        // Metadata of such a name carries bytes, which headers of HTTP do not.
        ensure!(!name.ends_with("-bin"), "'{name}' would carry bytes over gRPC");
        let ours = ["host", "content-type", "content-length", "te", "connection", "user-agent"];
        let reserved =
            ours.contains(&name.as_str()) || name.starts_with("grpc-") || name.contains("encoding");
        ensure!(!reserved, "'{name}' is a header of the protocol itself");
        Ok(())
    }
}

/// The text of a key.
#[must_use]
pub fn text(key: u64) -> String {
    format!("key-{key:06}")
}

// === impl Keys ===

impl Keys {
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "populations are far below 2^53")]
    pub fn new(population: &Population, seed: u64) -> Self {
        let mut shares = Vec::new();
        if population.distribution == Distribution::Zipf {
            let mut sum = 0.0;
            shares.reserve_exact(population.size);
            for rank in 1..=population.size {
                sum += 1.0 / rank as f64;
                shares.push(sum);
            }
            for share in &mut shares {
                *share /= sum;
            }
        }
        Self { size: population.size as u64, shares, random: Random::new(seed) }
    }

    /// The number of the next call's key.
    pub fn draw(&mut self) -> u64 {
        if self.shares.is_empty() {
            return self.random.below(self.size);
        }
        let at = self.random.unit();
        let key = self.shares.partition_point(|share| *share <= at) as u64;
        key.min(self.size - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(size: usize, distribution: Distribution, draws: u32) -> Vec<u32> {
        let population = Population { size, distribution, header: HEADER.to_owned() };
        let mut keys = Keys::new(&population, 5);
        let mut counts = vec![0; size];
        for _ in 0..draws {
            counts[usize::try_from(keys.draw()).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_come_equally_often() {
        let counts = counts(10, Distribution::Uniform, 100_000);
        assert!(counts.iter().all(|count| count.abs_diff(10_000) < 500), "{counts:?}");
    }

    #[test]
    fn zipf_keys_come_by_their_rank() {
        let counts = counts(100, Distribution::Zipf, 200_000);
        // 1 + 1/2 + … + 1/100 is 5.187.
        for (rank, expected) in [(1_usize, 38_557_u32), (2, 19_278), (10, 3856)] {
            let count = counts[rank - 1];
            assert!(count.abs_diff(expected) < expected / 10, "rank {rank}: {count}");
        }
        assert!(counts.iter().all(|count| *count > 0));
    }

    #[test]
    fn headers_that_cannot_carry_keys_are_refused() {
        let check = |header: &str| {
            let (size, distribution) = (1, Distribution::Uniform);
            Population { size, distribution, header: header.to_owned() }.check()
        };
        assert!(check("x-user").is_ok());
        for wrong in ["", "X-User", "a b", "a:b", "user-bin", "host", "content-length", "grpc-x"] {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }
}
