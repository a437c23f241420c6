//! Allowances that several gateways share, in Redis: the same algorithm as a script, which the
//! server runs as one step by its own clock, so that neither races nor jumps of a gateway's clock
//! let anybody through.
//!
//! A server that fails a few times is left alone: calls find no connection and lose no time,
//! while one task tries to reach it and brings it back once it runs the script within the time
//! limit. The pauses between attempts grow and are jittered; only a connection that lasted makes
//! them short again, so a server that takes connections and fails calls is not stormed.
//!
//! Names of keys hold SHA-256 of what limits tell callers apart by, keyed with a secret that the
//! gateways share if there is one. Without it the hashes are plain: nobody can choose colliding
//! ones, but whoever can list keys finds addresses and other guessable values by trying.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Script};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::bucket::{Decision, Pace};
use super::seed::Value;
use crate::config;
use crate::tasks;

/// Failures in a row before calls stop asking.
const PATIENCE: u32 = 3;
/// Pauses between attempts to reach the server: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a connection lasts that the next loss starts from the first pause again.
const HEALTHY: Duration = Duration::from_secs(10);
/// Bytes of the secret for names of keys, at least.
const SECRET: usize = 16;
/// For one attempt: a new connection takes longer than a check.
const CONNECT: Duration = Duration::from_secs(1);

/// GCRA over KEYS[1]. ARGV: microseconds that the call's cost takes to fill up, those of a whole
/// burst. Answers with 1 and what is left, or 0 and how long to wait, in microseconds.
///
/// Times are in microseconds since a day in 2026, which keeps fractions of them exact enough in
/// doubles. A state beyond what any admitted call can leave comes from a clock that was set back,
/// or from a longer burst before the configuration changed; it counts as just used up.
const SCRIPT: &str = r"
local time = redis.call('TIME')
local now = (tonumber(time[1]) - 1790000000) * 1000000 + tonumber(time[2])
local cost, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
full = math.min(math.max(full, now), now + burst)
local wait = full + cost - burst - now
if wait > 0.5 then
  return {0, math.ceil(wait), math.floor(burst - (full - now))}
end
full = full + cost
redis.call('SET', KEYS[1], string.format('%.17g', full), 'PX', math.ceil((full - now) / 1000) + 1)
return {1, 0, math.floor(burst - (full - now))}
";

/// The connection to the server.
pub(super) struct Redis {
    pub(super) config: config::Redis,
    client: Client,
    script: Script,
    /// With the secret for names of keys, if any, taken in.
    hash: Sha256,
    slot: Slot<MultiplexedConnection>,
    lost: Notify,
}

/// Whose allowance in which rule.
#[derive(Debug)]
pub(super) struct SharedKey<'a> {
    pub(super) rule: &'a str,
    pub(super) value: &'a Value<'a>,
}

impl Redis {
    /// Starts to connect; calls find no connection until it stands.
    ///
    /// # Errors
    /// When the URL or a file cannot be read, or the secret for names of keys is too short.
    pub(super) fn start(config: config::Redis) -> Result<Arc<Self>, String> {
        let redis = Arc::new(Self {
            client: client(&config)?,
            hash: keyed_hash(&config)?,
            script: Script::new(SCRIPT),
            slot: Slot::default(),
            lost: Notify::new(),
            config,
        });
        tasks::spawn("redis", keep_connected(Arc::downgrade(&redis)));
        Ok(redis)
    }

    /// Takes `units` from a shared allowance; `None` when the server did not say in time.
    pub(super) async fn check(
        &self,
        key: &SharedKey<'_>,
        pace: &Pace,
        units: NonZeroU32,
    ) -> Option<Decision> {
        let mut link = self.slot.link()?;
        let interval = pace.interval.as_secs_f64() * 1e6;
        let cost = interval * f64::from(units.get());
        let mut call = self.script.key(self.name(key));
        call.arg(cost).arg(interval * f64::from(pace.burst.get()));
        let asked = call.invoke_async::<(u8, u64, u64)>(&mut link.connection);
        match timeout(self.config.timeout, asked).await {
            Ok(Ok((admitted, wait, left))) => {
                link.succeeded();
                Some(match admitted {
                    1 => Decision::Admitted,
                    _ => Decision::Limited {
                        wait: Duration::from_micros(wait),
                        remaining: whole_units(left, pace),
                    },
                })
            }
            Ok(Err(error)) => {
                self.failed(&link, &error.to_string());
                None
            }
            Err(_) => {
                self.failed(&link, "no answer within the time limit");
                None
            }
        }
    }

    /// Whether calls ask the server now.
    pub(super) fn is_up(&self) -> bool {
        self.slot.link().is_some()
    }

    fn name(&self, key: &SharedKey<'_>) -> String {
        let id = id(self.hash.clone(), key.value);
        format!("{}:limit:{}:{id:032x}", self.config.prefix, key.rule)
    }

    fn failed(&self, link: &Link<MultiplexedConnection>, why: &str) {
        // Only whoever takes the connection away says so.
        if self.slot.failed(link) {
            let (url, limit) = (&self.config.url, self.config.timeout);
            warn!(url, ?limit, why, "Redis fails: shared limits do as on_error says");
            self.lost.notify_one();
        }
    }

    async fn connect(&self) -> Result<(), String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(CONNECT));
        let opened = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = opened.map_err(|error| error.to_string())?;
        let loaded = self.script.load_async(&mut connection).await;
        loaded.map_err(|error| error.to_string())?;
        // A server that answers may still be slow, full, read-only, or allow us too little: only
        // the script itself shows. Without a cost it always writes, and what expires at once.
        let mut probe = self.script.key(format!("{}:limit:probe", self.config.prefix));
        probe.arg(0).arg(0);
        let asked = probe.invoke_async::<(u8, u64, u64)>(&mut connection);
        match timeout(self.config.timeout, asked).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer within the time limit".to_owned()),
        }
        self.slot.put(connection);
        Ok(())
    }
}

/// The connection that calls use; empty while the server is not to be asked.
struct Slot<C>(Mutex<Option<Link<C>>>);

/// A connection and the failures in a row on it. Calls on one that has been replaced count
/// nothing against its successor.
#[derive(Clone)]
struct Link<C> {
    connection: C,
    failures: Arc<AtomicU32>,
}

impl<C: Clone> Slot<C> {
    fn link(&self) -> Option<Link<C>> {
        self.lock().clone()
    }

    fn put(&self, connection: C) {
        *self.lock() = Some(Link { connection, failures: Arc::default() });
    }

    /// Counts a failure; whether the connection was taken away for it.
    fn failed(&self, link: &Link<C>) -> bool {
        if link.failures.fetch_add(1, Ordering::Relaxed) + 1 < PATIENCE {
            return false;
        }
        let same = |current: &mut Link<C>| Arc::ptr_eq(&current.failures, &link.failures);
        self.lock().take_if(same).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Link<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Default for Slot<C> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<C> Link<C> {
    fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("config", &self.config).finish_non_exhaustive()
    }
}

fn whole_units(micros: u64, pace: &Pace) -> u32 {
    let nanos = u128::from(micros) * 1000 / pace.interval.as_nanos().max(1);
    u32::try_from(nanos).unwrap_or(u32::MAX)
}

fn client(config: &config::Redis) -> Result<Client, String> {
    let wrong = |error: &dyn fmt::Display| format!("redis.url: {error}");
    let mut info = config.url.as_str().into_connection_info().map_err(|e| wrong(&e))?;
    if let Some(path) = &config.password_file {
        let text = String::from_utf8(read("password_file", path)?)
            .map_err(|_| format!("redis.password_file: {} is no text", path.display()))?;
        let settings = info.redis_settings().clone().set_password(text.trim_end());
        info = info.set_redis_settings(settings);
    }
    Client::open(info).map_err(|error| wrong(&error))
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error| format!("redis.{key}: cannot read {}: {error}", path.display());
    std::fs::read(path).map_err(wrong)
}

/// The hash that names of keys go on from. The secret is hashed to a fixed length first; half of
/// each digest is kept back ([`id`]), so that nobody can go on from a name either.
fn keyed_hash(config: &config::Redis) -> Result<Sha256, String> {
    let mut hash = Sha256::new();
    if let Some(path) = &config.key_secret_file {
        let text = read("key_secret_file", path)?;
        let secret = text.trim_ascii_end();
        if secret.len() < SECRET {
            let path = path.display();
            return Err(format!("redis.key_secret_file: {path} has less than {SECRET} bytes"));
        }
        hash.update(Sha256::digest(secret));
    }
    Ok(hash)
}

/// What stands for a value in the name of its key: nobody can choose values that collide.
fn id(mut hash: Sha256, value: &Value<'_>) -> u128 {
    match value {
        Value::Text(text) => {
            hash.update([0]);
            hash.update(text);
        }
        Value::Address(address) => {
            hash.update([1]);
            hash.update(address.to_be_bytes());
        }
        Value::Absent => hash.update([2]),
    }
    let digest = hash.finalize();
    u128::from_be_bytes(std::array::from_fn(|i| digest[i]))
}

/// Connects whenever there is no connection, for as long as anybody uses the store.
async fn keep_connected(redis: Weak<Redis>) {
    let mut pauses = Pauses::default();
    let mut told = false;
    loop {
        let Some(store) = redis.upgrade() else { return };
        let connected = store.connect().await;
        let began = Instant::now();
        match connected {
            Ok(()) => {
                info!(url = store.config.url, "shared limits are in Redis");
                told = false;
                drop(store);
                until_lost(&redis).await;
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    warn!(url = store.config.url, error, "cannot use Redis, trying on");
                }
                drop(store);
            }
        }
        sleep(jittered(pauses.after(began.elapsed()))).await;
    }
}

/// Waits until the connection is lost or nobody uses the store.
async fn until_lost(redis: &Weak<Redis>) {
    while let Some(store) = redis.upgrade().filter(|store| store.is_up()) {
        // Looks again now and then whether anybody still uses the store.
        drop(timeout(LONGEST_PAUSE, store.lost.notified()).await);
    }
}

/// The pauses before attempts to reach the server.
struct Pauses(Duration);

impl Pauses {
    /// The next one, after a connection that lasted so long.
    fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= HEALTHY {
            self.0 = FIRST_PAUSE;
        }
        let next = (self.0 * 2).min(LONGEST_PAUSE);
        std::mem::replace(&mut self.0, next)
    }
}

impl Default for Pauses {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

/// Between half of a pause and the whole, so that gateways do not come back in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0_u8) % 1024;
    pause / 2 + pause.mul_f64(0.5) * u32::try_from(random).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests;
