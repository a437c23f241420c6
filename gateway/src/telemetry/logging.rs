//! The gateway's own log: lines on standard error, for people or as JSON, with a filter that the
//! logging extension of the protocol can change while the gateway runs.

use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{Log, LogFormat, environment};

type Filter = reload::Handle<EnvFilter, Registry>;

static FILTER: OnceLock<Filter> = OnceLock::new();

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

/// Sets up the log once; later calls change nothing.
pub fn init(log: &Log) {
    let directives = environment::log_filter().unwrap_or_else(|| log.level.clone());
    let (filter, handle) = reload::Layer::new(EnvFilter::new(directives));
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let installed = match log.format {
        LogFormat::Json => registry.with(layer.json()).try_init(),
        LogFormat::Pretty => registry.with(layer.with_target(false)).try_init(),
    };
    if installed.is_ok() && FILTER.set(handle).is_ok() {
        *lock() = Settings::of_level(&log.level);
    }
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
