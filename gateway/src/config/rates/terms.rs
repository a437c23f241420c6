//! The terms of limits: whom calls are counted to, what they cost, and amounts per time.

use std::time::Duration;

use http::HeaderName;
use serde::{Serialize, Serializer};
use toml::Value;

use crate::config::value::{FromToml, Size};

/// Whom calls are counted to, from the narrowest group to the widest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LimitKey {
    Header(HeaderName),
    Identity,
    /// An IPv4 address, or the /64 network of an IPv6 one.
    Address,
    Tenant,
    Model,
    Global,
}

/// What a call uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    Requests,
    Rows,
    /// Of its input tensors.
    Bytes,
}

/// `100/s`, `10MiB/m`, `1000/h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: u64,
    pub per: Duration,
    /// Written as a size, which only bytes are measured in.
    pub is_size: bool,
}

impl LimitKey {
    /// As the file writes it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Header(name) => format!("header:{name}"),
            Self::Identity => "identity".to_owned(),
            Self::Address => "address".to_owned(),
            Self::Tenant => "tenant".to_owned(),
            Self::Model => "model".to_owned(),
            Self::Global => "global".to_owned(),
        }
    }

    /// Narrow groups first: who is refused in his own group spends nothing of a wider one.
    #[must_use]
    pub fn rank(&self) -> u8 {
        match self {
            Self::Header(_) => 0,
            Self::Identity => 1,
            Self::Address => 2,
            Self::Tenant => 3,
            Self::Model => 4,
            Self::Global => 5,
        }
    }

    /// Whether each key stands for one caller, who is known before the body is read.
    #[must_use]
    pub fn is_of_one_caller(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Identity | Self::Address)
    }
}

impl Serialize for LimitKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text())
    }
}

impl FromToml for LimitKey {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        Ok(match text.as_str() {
            "identity" => Self::Identity,
            "address" => Self::Address,
            "tenant" => Self::Tenant,
            "model" => Self::Model,
            "global" => Self::Global,
            other => match other.strip_prefix("header:").map(str::parse::<HeaderName>) {
                Some(Ok(name)) => Self::Header(name),
                Some(Err(_)) => return Err(format!("is \"{other}\", which names no header")),
                None => {
                    return Err(format!(
                        "is \"{other}\", must be \"identity\", \"header:NAME\", \"address\", \
                         \"tenant\", \"model\" or \"global\""
                    ));
                }
            },
        })
    }
}

impl Cost {
    /// As the file writes it.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Rows => "rows",
            Self::Bytes => "bytes",
        }
    }
}

impl Rate {
    /// Nanoseconds in which `amount` comes together.
    #[must_use]
    pub fn time_for(&self, amount: u64) -> u128 {
        self.per.as_nanos() * u128::from(amount) / u128::from(self.count.max(1))
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        to.collect_str(&format_args!("{}/{unit}", self.count))
    }
}

impl FromToml for Rate {
    fn from_toml(value: &Value) -> Result<Self, String> {
        let text = String::from_toml(value)?;
        let wrong =
            || format!("is \"{text}\", must be such as \"100/s\", \"10MiB/m\" or \"1000/h\"");
        let (amount, per) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match per.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        let amount = amount.trim();
        let (count, is_size) = match amount.parse::<u64>() {
            Ok(count) => (count, false),
            Err(_) => (size(amount).ok_or_else(wrong)?, true),
        };
        if count == 0 {
            return Err("is zero, which nothing could pass".to_owned());
        }
        Ok(Self { count, per: Duration::from_secs(seconds), is_size })
    }
}

/// A whole number or a size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amount(pub(super) u64);

impl FromToml for Amount {
    fn from_toml(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            None => u64::from_toml(value).map(Self),
            Some(text) => size(text)
                .map(Self)
                .ok_or_else(|| format!("is \"{text}\", must be a number or a size (\"16MiB\")")),
        }
    }
}

fn size(text: &str) -> Option<u64> {
    let Size(bytes) = Size::from_toml(&Value::String(text.to_owned())).ok()?;
    u64::try_from(bytes).ok()
}
