//! Walks a TOML table and collects every problem with its path, instead of stopping at the
//! first as a derived deserializer does. A key that nobody asked for is a problem too.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use toml::{Table, Value};

use super::value::FromToml;

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key (`route[1].share`), empty for the file itself.
    pub path: String,
    pub message: String,
}

impl Problem {
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Problem>>,
    asked: RefCell<BTreeSet<String>>,
}

impl Problems {
    pub fn add(&self, path: impl Into<String>, message: impl Into<String>) {
        self.found.borrow_mut().push(Problem::new(path, message));
    }

    /// Every key that was asked for, list indices left out; holds the reference to the code.
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// The value when nothing was wrong, else the problems.
    ///
    /// # Errors
    /// The problems, in the order found.
    pub fn into_result<T>(self, value: T) -> Result<T, Vec<Problem>> {
        let found = self.found.into_inner();
        if found.is_empty() { Ok(value) } else { Err(found) }
    }
}

/// Parses TOML text.
///
/// # Errors
/// The parser's message, with line and column.
pub fn table(text: &str) -> Result<Table, Problem> {
    text.parse::<Table>().map_err(|error| {
        let place = error.span().map(|span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line = before.lines().count().max(1);
            format!("line {line}: ")
        });
        Problem::new("", format!("{}{}", place.unwrap_or_default(), error.message()))
    })
}

/// A table being read. Call [`Section::finish`] last: it reports unknown keys.
#[derive(Debug)]
pub struct Section<'p> {
    path: String,
    table: Table,
    known: BTreeSet<String>,
    problems: &'p Problems,
}

impl<'p> Section<'p> {
    /// The whole file.
    pub fn root(table: Table, problems: &'p Problems) -> Self {
        Self { path: String::new(), table, known: BTreeSet::new(), problems }
    }

    /// Full path of a key in this table.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a problem with a key of this table.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems.add(self.path_of(key), message);
    }

    /// The value of a key, or `None` where it is absent or wrong (which is noted).
    pub fn take<T: FromToml>(&mut self, key: &str) -> Option<T> {
        let value = self.take_value(key)?;
        match T::from_toml(&value) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// The value of a key, or `default` where it is absent.
    pub fn or<T: FromToml>(&mut self, key: &str, default: T) -> T {
        self.take(key).unwrap_or(default)
    }

    /// The value of a key that must be there.
    pub fn required<T: FromToml>(&mut self, key: &str) -> Option<T> {
        if !self.table.contains_key(key) {
            self.note(key);
            self.problem(key, "is missing");
            return None;
        }
        self.take(key)
    }

    /// One of several words, or `default` where the key is absent.
    pub fn choice<T: Copy>(&mut self, key: &str, names: &[(&str, T)], default: T) -> T {
        let Some(word) = self.take::<String>(key) else { return default };
        if let Some((_, value)) = names.iter().find(|(name, _)| *name == word) {
            return *value;
        }
        let known: Vec<_> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.problem(key, format!("is \"{word}\", must be one of {}", known.join(", ")));
        default
    }

    /// Whether the key is there, whatever it holds.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A sub-table; an absent one reads as empty.
    pub fn section(&mut self, key: &str) -> Section<'p> {
        let path = self.path_of(key);
        let table = match self.take_value(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.problem(key, format!("must be a table, is {}", other.type_str()));
                Table::new()
            }
        };
        Section { path, table, known: BTreeSet::new(), problems: self.problems }
    }

    /// An array of tables; absent reads as empty.
    pub fn list(&mut self, key: &str) -> Vec<Section<'p>> {
        let path = self.path_of(key);
        let items = match self.take_value(key) {
            None => vec![],
            Some(Value::Array(items)) => items,
            Some(other) => {
                self.problem(key, format!("must be [[{key}]] tables, is {}", other.type_str()));
                vec![]
            }
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item {
                Value::Table(table) => sections.push(Section {
                    path,
                    table,
                    known: BTreeSet::new(),
                    problems: self.problems,
                }),
                other => {
                    self.problems.add(path, format!("must be a table, is {}", other.type_str()))
                }
            }
        }
        sections
    }

    /// The tables under a key whose own keys the user chose (`[version.3]`).
    pub fn named(&mut self, key: &str) -> Vec<(String, Section<'p>)> {
        let mut parent = self.section(key);
        let names: Vec<String> = parent.table.keys().cloned().collect();
        names.into_iter().map(|name| (name.clone(), parent.section(&name))).collect()
    }

    /// Reports keys that nobody asked for, with the nearest known one.
    pub fn finish(self) {
        for key in self.table.keys() {
            let hint = nearest(key, &self.known).map(|near| format!(", did you mean '{near}'?"));
            self.problem(key, format!("is not a known key{}", hint.unwrap_or_default()));
        }
    }

    fn take_value(&mut self, key: &str) -> Option<Value> {
        self.note(key);
        self.table.remove(key)
    }

    /// Remembers that somebody asked for a key.
    fn note(&mut self, key: &str) {
        self.known.insert(key.to_owned());
        self.problems.asked.borrow_mut().insert(without_indices(&self.path_of(key)));
    }
}

fn without_indices(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut depth = 0_u32;
    for c in path.chars() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

fn nearest<'k>(key: &str, known: &'k BTreeSet<String>) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (distance(key, candidate), candidate.as_str()))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, for short keys.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_are_found_in_one_reading() {
        let problems = Problems::default();
        let text = "port = 'x'\ntypo = 1\n[inner]\nflag = 3\n[[item]]\nname = 1\n[[item]]\n";
        let mut root = Section::root(table(text).unwrap(), &problems);
        root.take::<u64>("port");
        let mut inner = root.section("inner");
        inner.take::<bool>("flag");
        inner.finish();
        for mut item in root.list("item") {
            item.required::<String>("name");
            item.finish();
        }
        root.take::<u64>("type");
        root.finish();
        let found = problems.into_result(()).unwrap_err();
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "port: must be a whole number, is string",
                "inner.flag: must be true or false, is integer",
                "item[0].name: must be text, is integer",
                "item[1].name: is missing",
                "typo: is not a known key, did you mean 'type'?",
            ]
        );
    }

    #[test]
    fn broken_toml_names_the_line() {
        let problem = table("a = 1\nb = = 2\n").unwrap_err();
        assert!(problem.message.starts_with("line 2: "), "{problem}");
    }
}
