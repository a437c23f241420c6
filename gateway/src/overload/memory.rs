//! How much memory is left: of the control group that the process runs in, or of the machine.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Overload;
use crate::config;
use crate::telemetry::metrics;

/// How often memory is looked at.
const EVERY: Duration = Duration::from_millis(250);
/// A watermark is left this much below it, as a share of the limit, so that it does not flutter.
const BELOW: f64 = 0.02;

/// How short memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    None,
    /// Calls of low priority and large bodies are refused.
    Soft,
    /// All predictions are refused.
    Hard,
}

/// The last look at memory.
#[derive(Debug)]
pub struct Memory {
    /// Shares of the limit; none while overload control is off.
    watermarks: Option<(f64, f64)>,
    pressure: AtomicU8,
    used: AtomicU64,
    limit: AtomicU64,
}

/// What there is to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    pub pressure: &'static str,
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

/// Where the figures come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    /// A folder of a control group of version 2.
    Unified(PathBuf),
    /// A folder of the memory controller of version 1.
    Legacy(PathBuf),
    /// The process against the machine: the group has no limit.
    Process,
}

impl Pressure {
    /// Its word in the status.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Soft => "soft",
            Self::Hard => "hard",
        }
    }
}

impl Memory {
    pub(super) fn new(settings: &config::Overload) -> Self {
        let watermarks = (settings.memory_soft, settings.memory_hard);
        Self {
            watermarks: settings.enabled.then_some(watermarks),
            pressure: AtomicU8::new(0),
            used: AtomicU64::new(0),
            limit: AtomicU64::new(0),
        }
    }

    #[must_use]
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::Soft,
            _ => Pressure::Hard,
        }
    }

    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            pressure: self.pressure().name(),
            used_bytes: self.used.load(Ordering::Relaxed),
            limit_bytes: self.limit.load(Ordering::Relaxed),
        }
    }

    /// Notes what is used of the limit, in bytes, and says when the pressure changes.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub fn note(&self, used: u64, limit: u64) {
        self.used.store(used, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        let Some((soft, hard)) = self.watermarks else { return };
        let before = self.pressure();
        let share = used as f64 / limit.max(1) as f64;
        let is_above = |mark: f64, pressure: Pressure| {
            share >= if before >= pressure { mark - BELOW } else { mark }
        };
        let now = if is_above(hard, Pressure::Hard) {
            Pressure::Hard
        } else if is_above(soft, Pressure::Soft) {
            Pressure::Soft
        } else {
            Pressure::None
        };
        if now == before {
            return;
        }
        self.pressure.store(now as u8, Ordering::Relaxed);
        if now > before {
            warn!(used, limit, pressure = now.name(), "memory is short, calls are refused");
        } else {
            info!(used, limit, pressure = now.name(), "memory is less short than it was");
        }
    }

    pub(super) fn publish(&self) {
        metrics::MEMORY_PRESSURE.gauge(&[]).set(f64::from(self.pressure() as u8));
    }
}

/// Looks at memory for as long as the process lives.
pub async fn watch(overload: Arc<Overload>) -> Infallible {
    let source = Source::find(Path::new("/"));
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some((used, limit)) = source.read(Path::new("/")) {
            overload.memory().note(used, limit);
        }
    }
}

impl Source {
    /// The group that the process is in, if it has a limit. `root` is `/`, but for tests.
    fn find(root: &Path) -> Self {
        let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mount = root.join("sys/fs/cgroup");
        let candidates = groups.lines().flat_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) =
                (fields.next().unwrap_or(""), fields.next().unwrap_or("").trim_start_matches('/'));
            // Inside a container the path may be that of the host, and its own group the mount.
            let folders = |mount: &Path| [mount.join(path), mount.to_owned()];
            match controllers {
                "" => folders(&mount).map(Self::Unified).to_vec(),
                "memory" => folders(&mount.join("memory")).map(Self::Legacy).to_vec(),
                _ => vec![],
            }
        });
        let mut limited = candidates.filter(|source| source.read(root).is_some());
        limited.next().unwrap_or(Self::Process)
    }

    /// What is used and what there is; `None` where it cannot be read or has no limit.
    fn read(&self, root: &Path) -> Option<(u64, u64)> {
        let number = |path: PathBuf| std::fs::read_to_string(path).ok()?.trim().parse().ok();
        let machine = || table(root.join("proc/meminfo"), "MemTotal:").map(|kib| kib << 10);
        let (used, cache, limit): (u64, Option<u64>, u64) = match self {
            Self::Unified(folder) => (
                number(folder.join("memory.current"))?,
                table(folder.join("memory.stat"), "inactive_file"),
                number(folder.join("memory.max"))?,
            ),
            Self::Legacy(folder) => (
                number(folder.join("memory.usage_in_bytes"))?,
                table(folder.join("memory.stat"), "total_inactive_file"),
                // Without a limit a huge number stands there.
                number(folder.join("memory.limit_in_bytes"))
                    .filter(|limit| machine().is_none_or(|all| *limit <= all))?,
            ),
            Self::Process => {
                let resident = table(root.join("proc/self/status"), "VmRSS:")? << 10;
                (resident, None, machine()?)
            }
        };
        // Files that nobody reads any more go first when memory is wanted.
        Some((used.saturating_sub(cache.unwrap_or(0)), limit))
    }
}

/// The number behind a word, in files of a word and a number a line.
fn table(path: PathBuf, word: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut lines = text.lines().map(str::split_ascii_whitespace);
    lines.find_map(|mut fields| (fields.next()? == word).then(|| fields.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const PROCESS: [(&str, &str); 2] = [
        ("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\n"),
        ("proc/self/status", "Name: x\nVmRSS:\t     300 kB\n"),
    ];

    fn root(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, text) in PROCESS.iter().chain(files) {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn read(files: &[(&str, &str)]) -> Option<(u64, u64)> {
        let root = root(files);
        Source::find(root.path()).read(root.path())
    }

    #[test]
    fn the_limit_of_the_own_group_counts_without_the_cache() {
        let group = "sys/fs/cgroup/system.slice/penstock.service";
        let files = [
            ("proc/self/cgroup".to_owned(), "0::/system.slice/penstock.service\n"),
            (format!("{group}/memory.current"), "5000\n"),
            (format!("{group}/memory.max"), "9000\n"),
            (format!("{group}/memory.stat"), "anon 3000\ninactive_file 1500\nactive_file 1\n"),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        assert_eq!(read(&files), Some((3500, 9000)));
    }

    #[test]
    fn inside_a_container_the_mount_is_the_own_group() {
        let files = [
            ("proc/self/cgroup", "0::/../../host/path\n"),
            ("sys/fs/cgroup/memory.current", "70\n"),
            ("sys/fs/cgroup/memory.max", "100\n"),
        ];
        assert_eq!(read(&files), Some((70, 100)));
        let legacy = [
            ("proc/self/cgroup", "7:cpu:/docker/1\n3:memory:/docker/1\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "80\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "100\n"),
            ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 30\n"),
        ];
        assert_eq!(read(&legacy), Some((50, 100)));
    }

    #[test]
    fn a_group_without_a_limit_leaves_the_machine() {
        let expected = Some((300 << 10, 1000 << 10));
        assert_eq!(read(&[]), expected);
        let unlimited = [
            ("proc/self/cgroup", "0::/a\n"),
            ("sys/fs/cgroup/a/memory.current", "70\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
        ];
        assert_eq!(read(&unlimited), expected);
        let legacy = [
            ("proc/self/cgroup", "3:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "80\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(read(&legacy), expected);
        assert!(Source::find(Path::new("/")).read(Path::new("/")).is_some(), "this machine");
    }

    #[test]
    fn watermarks_do_not_flutter() {
        let overload = super::super::tests::overload("");
        let memory = overload.memory();
        for (used, expected) in [
            (849, Pressure::None),
            (850, Pressure::Soft),
            (835, Pressure::Soft),
            (829, Pressure::None),
            (960, Pressure::Hard),
            (935, Pressure::Hard),
            (929, Pressure::Soft),
            (100, Pressure::None),
        ] {
            memory.note(used, 1000);
            assert_eq!(memory.pressure(), expected, "{used}");
        }
        let off = super::super::tests::overload("[overload]\nenabled = false\n");
        off.memory().note(1000, 1000);
        assert_eq!(off.memory().pressure(), Pressure::None);
    }
}
