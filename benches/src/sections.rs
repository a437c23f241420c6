//! The parts of the table, a module each.

use crate::bench::Bench;
use crate::row::Row;

mod cpu;
mod items;
mod latency;
mod memory;
mod open;
mod overload;
mod protection;
mod stages;
mod swap;

/// A part of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// Server CPU per request over gRPC
    Grpc,
    /// Server CPU per request over HTTP, binary and JSON
    Http,
    /// Latency at one caller above bare echo and bare forward
    Latency,
    /// Latency in open loop at 70 % of the maximum
    Open,
    /// Refusals and goodput at three times what the engine can do
    Overload,
    /// Latency during a swap every second
    Swap,
    /// Resident memory above a bare libtorch process, and of idle connections
    Memory,
    /// Items a second against a bare libtorch loop
    Items,
    /// What each stage of a call costs
    Stages,
    /// What knowing, limiting and guarding callers costs
    Protection,
}

impl Name {
    /// In the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Grpc,
        Self::Http,
        Self::Latency,
        Self::Items,
        Self::Open,
        Self::Overload,
        Self::Memory,
        Self::Swap,
        Self::Stages,
        Self::Protection,
    ];

    /// As on the command line.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
            Self::Latency => "latency",
            Self::Open => "open",
            Self::Overload => "overload",
            Self::Swap => "swap",
            Self::Memory => "memory",
            Self::Items => "items",
            Self::Stages => "stages",
            Self::Protection => "protection",
        }
    }

    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Grpc => "Server CPU per request, digits MLP over gRPC, against bare tonic",
            Self::Http => "Server CPU per request, digits MLP over HTTP, against bare hyper",
            Self::Latency => "Latency at one caller above bare echo + bare forward at its cadence",
            Self::Open => "Open loop at 70 % of the maximum",
            Self::Overload => "Three times the load that the engine can take",
            Self::Swap => "p99 with a hot swap every second, open loop at 30 %",
            Self::Memory => "Resident memory",
            Self::Items => "Items a second, one engine thread, saturated, against a libtorch loop",
            Self::Stages => "CPU budget per stage, 64 callers",
            Self::Protection => "CPU of API keys, rate limits and circuit breakers, 64 callers",
        }
    }

    /// Measures it.
    ///
    /// # Errors
    /// When a window failed: a figure would then mean nothing.
    pub fn measure(self, bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Grpc => cpu::grpc(bench),
            Self::Http => cpu::http(bench),
            Self::Latency => latency::rows(bench),
            Self::Open => open::rows(bench),
            Self::Overload => overload::rows(bench),
            Self::Swap => swap::rows(bench),
            Self::Memory => memory::rows(bench),
            Self::Items => items::rows(bench),
            Self::Stages => stages::rows(bench),
            Self::Protection => protection::rows(bench),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_part_is_in_the_table_under_the_name_of_the_command_line() {
        assert_eq!(Name::ALL.len(), Name::value_variants().len());
        for name in Name::ALL {
            assert_eq!(Name::from_str(name.key(), false), Ok(name));
        }
    }
}
