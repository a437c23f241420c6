//! Calls as they were recorded, from the lines of Parquet files and from segments that are not
//! converted yet: what was asked and answered as tensors again, in the order of arrival.
//!
//! Files and segments are merged as they are read, the one that is furthest behind first. Rows are
//! written when calls end, so those of one file are in order but for the time that calls take: so
//! many calls are read ahead that they come out by arrival. Memory is bounded by these.

mod file;
mod line;
mod merge;
mod values;

use std::sync::Arc;

use crate::columns::Columns;
use crate::{Row, Schema};

pub use merge::{Calls, Counts, calls};

/// A call of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// As it was written. Tensors that the log does not hold have no bytes, and their
    /// [`State`](crate::State) says why; what redaction left of a tensor as another type is not
    /// read back from files. Numbers are the same bit for bit, but for the payloads of NaN of 16
    /// bits, which files have as 32.
    pub row: Row,
    /// What its tensors were declared to be; `None` where the log does not know.
    pub schema: Option<Arc<Schema>>,
    /// Tensors that are not held as they were sent.
    pub missing: Vec<Missing>,
    /// Items of which there are no lines.
    pub lost_items: u32,
}

/// A tensor that is not held as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Missing {
    pub is_input: bool,
    /// As the call had it.
    pub tensor: String,
    pub why: Why,
}

/// Why a tensor is not held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// It is larger than the log takes.
    LeftOut,
    /// The log's rules drop or change it.
    Redacted,
    /// It was not what the schema says.
    Unfit,
}

/// What separates the entries of the column `left_out`, and how they end.
const BETWEEN: &str = "; ";
const LEFT_OUT: &str = " left out";
const REDACTED: &str = " redacted";
const UNFIT: &str = " does not fit its schema";
const UNKNOWN: &str = " is not in the schema";

/// Reads the column `left_out`.
fn missing(columns: &Columns, left_out: &str) -> Vec<Missing> {
    if left_out.is_empty() {
        return vec![];
    }
    let mut missing = Vec::new();
    for tensor in &columns.tensors {
        let name = format!("{}.{}", tensor.side.prefix(), tensor.spec.name);
        let is_said = |what: &str| {
            let entry = format!("{name}{what}");
            left_out
                .match_indices(&entry)
                .any(|(at, _)| at == 0 || left_out[..at].ends_with(BETWEEN))
        };
        let all = [(LEFT_OUT, Why::LeftOut), (UNFIT, Why::Unfit), (REDACTED, Why::Redacted)];
        if let Some((_, why)) = all.into_iter().find(|(what, _)| is_said(what)) {
            let (is_input, tensor) = (tensor.is_input(), tensor.spec.name.clone());
            missing.push(Missing { is_input, tensor, why });
        }
    }
    for entry in left_out.split(BETWEEN) {
        let Some((side, tensor)) =
            entry.strip_suffix(UNKNOWN).and_then(|name| name.split_once('.'))
        else {
            continue;
        };
        let (is_input, tensor) = (side == "in", tensor.to_owned());
        missing.push(Missing { is_input, tensor, why: Why::Unfit });
    }
    missing
}

#[cfg(test)]
mod tests;
