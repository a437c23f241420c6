//! Values as people write them: durations (`250ms`), sizes (`16MiB`), addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use engine::DataType;
use toml::Value;

/// A type that a TOML value may hold.
pub trait FromToml: Sized {
    /// Reads the value.
    ///
    /// # Errors
    /// What it must be, and what it is.
    fn from_toml(value: &Value) -> Result<Self, String>;
}

fn expected<T>(what: &str, value: &Value) -> Result<T, String> {
    Err(format!("must be {what}, is {}", value.type_str()))
}

impl FromToml for String {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_str().map_or_else(|| expected("text", value), |text| Ok(text.to_owned()))
    }
}

impl FromToml for bool {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_bool().map_or_else(|| expected("true or false", value), Ok)
    }
}

impl FromToml for u64 {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(number) => {
                Self::try_from(*number).map_err(|_| format!("is {number}, must not be negative"))
            }
            other => expected("a whole number", other),
        }
    }
}

impl FromToml for usize {
    fn from_toml(value: &Value) -> Result<Self, String> {
        u64::from_toml(value)
            .and_then(|number| Self::try_from(number).map_err(|_| "is too large".to_owned()))
    }
}

impl FromToml for u32 {
    fn from_toml(value: &Value) -> Result<Self, String> {
        u64::from_toml(value)
            .and_then(|number| Self::try_from(number).map_err(|_| "is too large".to_owned()))
    }
}

impl FromToml for i64 {
    fn from_toml(value: &Value) -> Result<Self, String> {
        value.as_integer().map_or_else(|| expected("a whole number", value), Ok)
    }
}

impl FromToml for f64 {
    #[expect(clippy::cast_precision_loss, reason = "a number a person wrote")]
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value {
            Value::Float(number) if number.is_finite() => Ok(*number),
            Value::Integer(number) => Ok(*number as Self),
            other => expected("a finite number", other),
        }
    }
}

/// A single value of no fixed type, as a rule or a parameter has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    Integer(i64),
    /// Never NaN or infinite.
    Float(f64),
    Flag(bool),
    Text(String),
}

impl FromToml for Scalar {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value {
            Value::Integer(number) => Ok(Self::Integer(*number)),
            Value::Float(number) if number.is_finite() => Ok(Self::Float(*number)),
            Value::Boolean(flag) => Ok(Self::Flag(*flag)),
            Value::String(text) => Ok(Self::Text(text.clone())),
            other => expected("a finite number, a text, true or false", other),
        }
    }
}

impl FromToml for Duration {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let Some(text) = value.as_str() else {
            return expected("a duration such as \"250ms\"", value);
        };
        humantime::parse_duration(text)
            .map_err(|_| format!("is \"{text}\", must be a duration such as \"250ms\" or \"5s\""))
    }
}

impl FromToml for SocketAddr {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let Some(text) = value.as_str() else { return expected("an address", value) };
        text.parse()
            .map_err(|_| format!("is \"{text}\", must be address:port such as \"0.0.0.0:8000\""))
    }
}

impl FromToml for DataType {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        text.parse().map_err(|error| format!("{error}"))
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let Some(items) = value.as_array() else { return expected("a list", value) };
        items
            .iter()
            .enumerate()
            .map(|(index, item)| T::from_toml(item).map_err(|e| format!("item {index} {e}")))
            .collect()
    }
}

impl FromToml for BTreeMap<String, Value> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let Some(table) = value.as_table() else { return expected("a table", value) };
        Ok(table.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// A number of bytes, written with a binary unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

impl Size {
    #[must_use]
    pub const fn mib(count: usize) -> Self {
        Self(count << 20)
    }
}

impl FromToml for Size {
    fn from_toml(value: &Value) -> Result<Self, String> {
        const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];
        let Some(text) = value.as_str() else { return expected("a size such as \"16MiB\"", value) };
        let parsed = UNITS.iter().find_map(|(unit, shift)| {
            let count: usize = text.strip_suffix(unit)?.trim().parse().ok()?;
            count.checked_mul(1 << shift)
        });
        parsed.map(Self).ok_or_else(|| {
            format!("is \"{text}\", must be a size such as \"512KiB\", \"16MiB\" or \"1GiB\"")
        })
    }
}

/// A share, written as a percentage from `"0%"` to `"100%"`; held as 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(pub f64);

impl FromToml for Percent {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let Some(text) = value.as_str() else {
            return expected("a percentage such as \"50%\"", value);
        };
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        match number.filter(|number| (0.0..=100.0).contains(number)) {
            Some(number) => Ok(Self(number / 100.0)),
            None => Err(format!("is \"{text}\", must be a percentage such as \"50%\"")),
        }
    }
}

/// A value that the word `"off"` switches off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrOff<T>(pub Option<T>);

impl<T: FromToml> FromToml for OrOff<T> {
    fn from_toml(value: &Value) -> Result<Self, String> {
        if value.as_str() == Some("off") {
            return Ok(Self(None));
        }
        T::from_toml(value).map(|value| Self(Some(value))).map_err(|e| format!("{e}, or \"off\""))
    }
}

/// A count that the word `"auto"` leaves to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrAuto(pub Option<usize>);

impl FromToml for OrAuto {
    fn from_toml(value: &Value) -> Result<Self, String> {
        if value.as_str() == Some("auto") {
            return Ok(Self(None));
        }
        match usize::from_toml(value) {
            Ok(0) => Err("is 0, must be at least 1, or \"auto\"".to_owned()),
            Ok(count) => Ok(Self(Some(count))),
            Err(error) => Err(format!("{error}, or \"auto\"")),
        }
    }
}

/// Cores that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: FromToml>(text: &str) -> Result<T, String> {
        T::from_toml(&Value::String(text.to_owned()))
    }

    #[test]
    fn sizes_and_durations_read_as_people_write_them() {
        assert_eq!(read("16MiB"), Ok(Size::mib(16)));
        assert_eq!(read("512 KiB"), Ok(Size(512 << 10)));
        assert!(read::<Size>("16MB").is_err());
        assert!(read::<Size>("99999999999999999GiB").is_err());
        assert_eq!(read("12.5%"), Ok(Percent(0.125)));
        assert!(read::<Percent>("50").is_err() && read::<Percent>("NaN%").is_err());
        assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
        assert!(read::<Duration>("soon").is_err());
    }

    #[test]
    fn off_and_auto_are_words_not_numbers() {
        assert_eq!(read("off"), Ok(OrOff::<Duration>(None)));
        assert_eq!(read("5s"), Ok(OrOff(Some(Duration::from_secs(5)))));
        assert_eq!(read("auto"), Ok(OrAuto(None)));
        assert!(OrAuto::from_toml(&Value::Integer(0)).is_err());
    }
}
