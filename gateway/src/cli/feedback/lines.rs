//! Feedback in files: JSON lines, or CSV with a line of names. Every line that is wrong is named.

use std::io::{BufRead, Read};

use anyhow::Context;
use serde_json::{Map, Number, Value};

use crate::feedback::{Told, Wrong, from_json};

/// A line is not read beyond this.
const LONGEST: u64 = 1 << 20;

/// One feedback, as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    pub(super) value: Value,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) number: u64,
    pub(super) text: String,
}

/// Calls back with every line: what it says, or all that is wrong with it.
///
/// # Errors
/// When the file cannot be read any further, or `with` fails.
pub(super) fn json(
    mut input: impl BufRead,
    now_us: i64,
    mut with: impl FnMut(Result<Line, Vec<Bad>>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut number = 0;
    loop {
        text.clear();
        number += 1;
        let read = input.by_ref().take(LONGEST).read_until(b'\n', &mut text);
        if read.with_context(|| format!("line {number} cannot be read"))? == 0 {
            return Ok(());
        }
        if text.len() as u64 == LONGEST && !text.ends_with(b"\n") {
            input.skip_until(b'\n').with_context(|| format!("line {number} cannot be read"))?;
            with(Err(vec![Bad { number, text: format!("is longer than {LONGEST} bytes") }]))?;
            continue;
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        with(match serde_json::from_slice(&text) {
            Ok(value) => checked(number, value, now_us),
            Err(error) => Err(vec![Bad { number, text: format!("is not JSON: {error}") }]),
        })?;
    }
}

/// The same for CSV. Columns are called as the fields of JSON; `label_text` and `label_number` say
/// which kind a label is, and `label` is a text. Empty cells say nothing.
///
/// # Errors
/// As [`json`], and for a column that there is not.
pub(super) fn csv(
    input: impl Read,
    now_us: i64,
    mut with: impl FnMut(Result<Line, Vec<Bad>>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).from_reader(input);
    let names = reader.headers().context("the line of names cannot be read")?.clone();
    for name in &names {
        anyhow::ensure!(COLUMNS.contains(&name), "no feedback has a column '{name}'");
    }
    let mut record = csv::StringRecord::new();
    loop {
        let number = reader.position().line();
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => {
                let number = record.position().map_or(number, csv::Position::line);
                let value = object(&names, &record).map_err(|text| vec![Bad { number, text }]);
                with(value.and_then(|value| checked(number, value, now_us)))?;
            }
            Err(error) if error.is_io_error() => {
                return Err(error).with_context(|| format!("line {number} cannot be read"));
            }
            Err(error) => with(Err(vec![Bad { number, text: error.to_string() }]))?,
        }
    }
}

const COLUMNS: [&str; 11] = [
    "prediction_id",
    "caller_id",
    "item",
    "label",
    "label_text",
    "label_number",
    "reward",
    "event_time",
    "id",
    "source",
    "note",
];

fn object(names: &csv::StringRecord, record: &csv::StringRecord) -> Result<Value, String> {
    let mut fields = Map::new();
    for (name, cell) in names.iter().zip(record).filter(|(_, cell)| !cell.is_empty()) {
        let number = || {
            let number = cell.trim().parse().ok().and_then(Number::from_f64);
            number.map(Value::Number).ok_or_else(|| format!("{name}: '{cell}' is no number"))
        };
        let (field, value) = match name {
            "item" => {
                let item = cell.trim().parse::<i64>();
                ("item", item.map_err(|_| format!("item: '{cell}' is no whole number"))?.into())
            }
            "reward" => ("reward", number()?),
            "label_number" => ("label", number()?),
            "label_text" => ("label", cell.into()),
            name => (name, cell.into()),
        };
        if fields.insert(field.to_owned(), value).is_some() {
            return Err(format!("{field} is there twice"));
        }
    }
    Ok(Value::Object(fields))
}

/// What the gateway would say of it too.
fn checked(number: u64, value: Value, now_us: i64) -> Result<Line, Vec<Bad>> {
    let bad = |wrong: Vec<Wrong>| {
        let text = |Wrong { field, text, .. }: Wrong| match field.is_empty() {
            true => text,
            false => format!("{field}: {text}"),
        };
        wrong.into_iter().map(|wrong| Bad { number, text: text(wrong) }).collect::<Vec<_>>()
    };
    let told: Told = from_json(0, value.clone()).map_err(bad)?;
    told.checked((0, now_us), |id| Some(id.to_owned())).map_err(bad)?;
    Ok(Line { number, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000_000_000;

    fn gather(
        read: impl FnOnce(&mut dyn FnMut(Result<Line, Vec<Bad>>) -> anyhow::Result<()>),
    ) -> (Vec<Line>, Vec<Bad>) {
        let (mut good, mut bad) = (vec![], vec![]);
        read(&mut |line| {
            match line {
                Ok(line) => good.push(line),
                Err(found) => bad.extend(found),
            }
            Ok(())
        });
        (good, bad)
    }

    #[test]
    fn every_bad_line_of_json_is_named_and_the_others_are_read() {
        let long = format!("{{\"note\": \"{}\"}}\n", "x".repeat(1 << 20));
        let text = [
            "{\"caller_id\": \"a\", \"label\": 1}\n\n{\"caller_id\": \"b\"}\nnonsense\n",
            &long,
            "{\"caller_id\": \"c\", \"lable\": 1, \"item\": -0.5}\n{\"caller_id\": \"d\", \"reward\": 2}",
        ]
        .concat();
        let (good, bad) = gather(|with| json(text.as_bytes(), NOW, with).unwrap());
        assert_eq!(good.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 7]);
        let numbers: Vec<_> = bad.iter().map(|bad| bad.number).collect();
        assert_eq!(numbers, [3, 4, 5, 6, 6], "{bad:?}");
        assert!(bad[0].text.starts_with("label: is required"), "{bad:?}");
        assert!(bad.iter().any(|bad| bad.text == "lable: there is no such field"), "{bad:?}");
    }

    #[test]
    fn csv_has_labels_of_both_kinds_and_its_bad_lines_are_named() {
        let text = "caller_id, item ,label_text,label_number,reward,note\n\
                    a,0,cat,,,\"one\ntwo\"\nb,,,2.5,-1,\nc,x,cat,,,\nd,,cat,1,,\ne,,,,,\nf,1\n";
        let (good, bad) = gather(|with| csv(text.as_bytes(), NOW, with).unwrap());
        let values: Vec<_> = good.into_iter().map(|line| line.value).collect();
        let first = json!({"caller_id": "a", "item": 0, "label": "cat", "note": "one\ntwo"});
        assert_eq!(values, [first, json!({"caller_id": "b", "label": 2.5, "reward": -1.0})]);
        let numbers: Vec<_> = bad.iter().map(|bad| bad.number).collect();
        assert_eq!(numbers, [5, 6, 7, 8], "{bad:?}");
        let error = csv("caller,label\n".as_bytes(), NOW, |_| Ok(())).unwrap_err();
        assert!(error.to_string().contains("'caller'"), "{error}");
    }
}
