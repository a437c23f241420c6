//! What the log takes of calls: the part of its configuration that a reload may change, with the
//! key of hashes read.

use std::sync::Arc;

use predlog::segment::LONGEST;
use sha2::{Digest as _, Sha256};

use super::redact::Hasher;
use super::schema::Schemas;
use crate::config::{
    self, Field, Guarantee, HashKey, How, LogSampling, Problem, Redact, Slice, SliceSource,
};

/// Bytes of a key of hashes, at least.
const SHORTEST_KEY: usize = 16;

/// What is in force for the calls that come now.
#[derive(Debug)]
pub struct Settings {
    pub(super) guarantee: Guarantee,
    pub(super) sampling: LogSampling,
    pub(super) slices: Vec<(Slice, Rule)>,
    pub(super) caller_id: Rule,
    pub(super) idempotency_key: Rule,
    /// What stands for those that callers are known by; nothing without a key.
    pub(super) identity: Option<Hasher>,
    pub(super) sticky_key: Option<Hasher>,
    pub(super) hasher: Option<Hasher>,
    pub(super) tensors: Vec<Redact>,
    /// Larger tensors are left out, in bytes.
    pub(super) tensor_limit: usize,
    /// So are all tensors of a row that have more together.
    pub(super) row_limit: usize,
    pub(super) commit_timeout: std::time::Duration,
    pub(super) schemas: Schemas,
    /// What it was made from, and with which key.
    config: config::PredictionLog,
    key: Option<KeyDigest>,
}

/// Tells keys apart, and shows nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub(super) fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }
}

/// What becomes of a text.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) how: Option<How>,
    pub(super) hasher: Option<Hasher>,
}

impl Rule {
    /// Of what is kept as it is.
    pub(super) const KEEP: Self = Self { how: None, hasher: None };
}

impl Settings {
    /// Gets ready what a configuration says.
    ///
    /// # Errors
    /// When the key of hashes is not there, or too short to keep anything secret.
    pub fn new(config: &config::PredictionLog) -> Result<Arc<Self>, Problem> {
        let key = config.hash_key.as_ref().map(read_key).transpose();
        let key = key.map_err(|text| Problem::new("prediction_log.hash_key", text))?;
        Ok(Self::keyed(config, key.as_deref()))
    }

    /// The same with another key.
    pub(super) fn with_key(&self, key: &[u8]) -> Arc<Self> {
        Self::keyed(&self.config, Some(key))
    }

    /// Where the key of hashes is.
    pub(super) fn key_place(&self) -> Option<&HashKey> {
        self.config.hash_key.as_ref()
    }

    pub(super) fn key_digest(&self) -> Option<&KeyDigest> {
        self.key.as_ref()
    }

    fn keyed(config: &config::PredictionLog, key: Option<&[u8]>) -> Arc<Self> {
        let hasher = key.map(Hasher::new);
        let own = |field: &str| hasher.as_ref().map(|hasher| hasher.of(field));
        let rule = |field: &str, wanted: &dyn Fn(&Field) -> bool| {
            let found = config.redact.iter().find(|rule| wanted(&rule.field));
            Rule { how: found.map(|rule| rule.how), hasher: own(field) }
        };
        let of_slice = |slice: &Slice| {
            rule(&format!("slice.{}", slice.name()), &|field| match (field, &slice.source) {
                (Field::Slice(name), _) => name == slice.name(),
                (Field::Header(name), SliceSource::Header(own)) => name == own.as_str(),
                _ => false,
            })
        };
        Arc::new(Self {
            guarantee: config.guarantee,
            sampling: config.sampling.clone(),
            slices: config.slices.iter().map(|slice| (slice.clone(), of_slice(slice))).collect(),
            caller_id: rule("caller_id", &|field| *field == Field::CallerId),
            idempotency_key: rule("idempotency_key", &|field| *field == Field::IdempotencyKey),
            identity: own("identity"),
            sticky_key: own("sticky_key"),
            hasher,
            tensors: config.redact.clone(),
            tensor_limit: config.tensor_limit,
            // One row leaves room for others.
            row_limit: (config.queue_bytes / 4).min(LONGEST / 2),
            commit_timeout: config.commit_timeout,
            schemas: Schemas::default(),
            config: config.clone(),
            key: key.map(KeyDigest::of),
        })
    }
}

/// Reads a key of hashes.
///
/// # Errors
/// When it is not there, or too short.
pub(super) fn read_key(place: &HashKey) -> Result<Vec<u8>, String> {
    let key = match place {
        HashKey::Env(name) => config::environment::secret(name)
            .map(String::into_bytes)
            .ok_or_else(|| format!("the environment has no {name}"))?,
        HashKey::File(path) => {
            let text = std::fs::read(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            text.trim_ascii_end().to_vec()
        }
    };
    if key.len() < SHORTEST_KEY {
        return Err(format!("the key has less than {SHORTEST_KEY} bytes"));
    }
    Ok(key)
}
