//! Reads a TOML table key by key and collects every problem with its path, instead of stopping at
//! the first.

use std::time::Duration;

use toml::{Table, Value};

/// A table being read; what nobody took is unknown.
pub(super) struct Reader<'a> {
    path: String,
    table: Table,
    problems: &'a mut Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: String, table: Table, problems: &'a mut Vec<String>) -> Self {
        Self { path, table, problems }
    }

    /// The path of a key.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a problem of a key.
    pub(super) fn problem(&mut self, key: &str, problem: impl std::fmt::Display) {
        let path = self.at(key);
        self.problems.push(format!("{path}: {problem}"));
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    /// A value as something makes it, which says why it cannot.
    pub(super) fn with<T>(
        &mut self,
        key: &str,
        make: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        match make(value) {
            Ok(made) => Some(made),
            Err(problem) => {
                self.problem(key, problem);
                None
            }
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.with(key, |value| match value {
            Value::String(text) => Ok(text),
            other => Err(format!("is {}, a text is wanted", other.type_str())),
        })
    }

    pub(super) fn truth(&mut self, key: &str) -> Option<bool> {
        self.with(key, |value| {
            value
                .as_bool()
                .ok_or_else(|| format!("is {}, true or false is wanted", value.type_str()))
        })
    }

    /// A whole number from 1 on.
    pub(super) fn count(&mut self, key: &str) -> Option<usize> {
        self.with(key, |value| count(&value))
    }

    pub(super) fn time(&mut self, key: &str) -> Option<Duration> {
        let text = self.text(key)?;
        match humantime::parse_duration(&text) {
            Ok(time) => Some(time),
            Err(error) => {
                self.problem(key, format_args!("'{text}' is no time such as \"5s\": {error}"));
                None
            }
        }
    }

    /// A table below a key, read by a function.
    pub(super) fn below<T>(
        &mut self,
        key: &str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        let path = self.at(key);
        match self.take(key)? {
            Value::Table(table) => {
                let mut reader = Reader::new(path, table, self.problems);
                let made = read(&mut reader);
                reader.finish();
                Some(made)
            }
            other => {
                self.problem(key, format_args!("is {}, a table is wanted", other.type_str()));
                None
            }
        }
    }

    /// Each table of a list below a key.
    pub(super) fn each(&mut self, key: &str, mut read: impl FnMut(&mut Reader<'_>)) -> usize {
        let path = self.at(key);
        let items = match self.take(key) {
            None => return 0,
            Some(Value::Array(items)) => items,
            Some(other) => {
                let kind = other.type_str();
                self.problem(key, format_args!("is {kind}, a list of tables is wanted"));
                return 0;
            }
        };
        let count = items.len();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Value::Table(table) = item else {
                self.problems.push(format!("{path}: a table is wanted"));
                continue;
            };
            let mut reader = Reader::new(path, table, self.problems);
            read(&mut reader);
            reader.finish();
        }
        count
    }

    /// What is left.
    pub(super) fn rest(&mut self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.table).into_iter().collect()
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(mut self) {
        for (key, _) in self.rest() {
            self.problem(&key, "is no key here");
        }
    }
}

/// A whole number from 1 on.
pub(super) fn count(value: &Value) -> Result<usize, String> {
    let number = value.as_integer().and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| *number > 0);
    number.ok_or_else(|| format!("{value} is no whole number from 1 on"))
}

/// A number, whole or not.
pub(super) fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Float(number) => Ok(*number),
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^53")]
        Value::Integer(number) => Ok(*number as f64),
        other => Err(format!("is {}, a number is wanted", other.type_str())),
    }
}
