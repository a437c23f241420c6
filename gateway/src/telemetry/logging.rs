//! The gateway's own log: lines on standard error, for people or as JSON, with a filter that the
//! logging extension of the protocol can change while the gateway runs. Nobody who logs waits for
//! it to be written: see `writer`.

mod writer;

use std::io::{IsTerminal, Write as _};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing::error;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use super::metrics;
use crate::config::{Log, LogFormat, environment};
use writer::Writer;

/// Longest wait for the log to be written at the end.
const FLUSH: Duration = Duration::from_secs(1);

type Filter = reload::Handle<EnvFilter, Registry>;

static FILTER: OnceLock<Filter> = OnceLock::new();
static WRITER: OnceLock<Writer> = OnceLock::new();

/// What the logging extension shows and changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    pub error: bool,
    pub warning: bool,
    pub info: bool,
    pub verbose: u32,
}

static SETTINGS: Mutex<Settings> =
    Mutex::new(Settings { error: true, warning: true, info: true, verbose: 0 });

/// Sets up the log once; later calls change nothing. Metrics must be there before.
///
/// # Errors
/// When the system has no thread to give.
pub fn init(log: &Log) -> std::io::Result<()> {
    if WRITER.get().is_some() {
        return Ok(());
    }
    let writer = Writer::start(std::io::stderr(), metrics::LOG_LINES_LOST.counter(&[]))?;
    let directives = environment::log_filter().unwrap_or_else(|| log.level.clone());
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives));
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(writer.clone()).with_ansi(colours);
    let installed = match log.format {
        LogFormat::Json => registry.with(layer.json()).try_init(),
        LogFormat::Pretty => registry.with(layer.with_target(false)).try_init(),
    };
    if installed.is_ok() && FILTER.set(handle).is_ok() && WRITER.set(writer).is_ok() {
        *lock() = Settings::of_level(&log.level);
    }
    Ok(())
}

/// Logs panics from now on: the standard hook writes to standard error itself, and would wait.
pub fn log_panics() {
    std::panic::set_hook(Box::new(panicked));
}

/// Writes the process's last words, one line, behind what was logged so far.
pub fn last_words(line: &str) {
    match WRITER.get() {
        Some(writer) => writer.put(format!("{line}\n").as_bytes()),
        None => drop(writeln!(std::io::stderr(), "{line}")),
    }
}

/// Waits until what was logged so far is written, for at most a second: what is left by then has
/// no reader, and the process has to end all the same.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        let _is_written = writer.flush(FLUSH);
    }
}

fn panicked(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    error!(
        thread = thread.name().unwrap_or("unnamed"),
        place = info.location().map(tracing::field::display),
        text = info.payload_as_str().unwrap_or("no text"),
        "panic"
    );
}

/// The settings in force.
#[must_use]
pub fn settings() -> Settings {
    *lock()
}

/// Changes the filter of the running gateway. Severities are a ladder: who wants one gets those
/// above it too, and [`settings`] then says so.
pub fn change(settings: Settings) {
    let settings = Settings::of_level(settings.directive());
    *lock() = settings;
    if let Some(filter) = FILTER.get() {
        // The subscriber lives as long as the process, so the handle cannot have lost it.
        drop(filter.reload(EnvFilter::new(settings.directive())));
    }
}

fn lock() -> std::sync::MutexGuard<'static, Settings> {
    SETTINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Settings {
    fn of_level(level: &str) -> Self {
        Self {
            error: level != "off",
            warning: !matches!(level, "off" | "error"),
            info: !matches!(level, "off" | "error" | "warn"),
            verbose: match level {
                "trace" => 2,
                "debug" => 1,
                _ => 0,
            },
        }
    }

    /// The severities are a ladder here: the lowest one that is on decides.
    fn directive(self) -> &'static str {
        match self {
            Self { verbose: 2.., .. } => "trace",
            Self { verbose: 1, .. } => "debug",
            Self { info: true, .. } => "info",
            Self { warning: true, .. } => "warn",
            Self { error: true, .. } => "error",
            _ => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_settings_agree() {
        for level in ["off", "error", "warn", "info", "debug", "trace"] {
            assert_eq!(Settings::of_level(level).directive(), level);
        }
        let silent = Settings { error: false, warning: false, info: false, verbose: 0 };
        assert_eq!(silent.directive(), "off");
    }
}
