//! The results of a run: everything that is printed and stored, as JSON and as Markdown.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::row::{Demand, Row};
use crate::stats::Spread;

/// Medians that moved by less mean nothing on a shared machine.
const NOISE: f64 = 0.15;

/// All of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// When it began, UTC.
    pub date: String,
    pub commit: String,
    pub machine: Machine,
    pub versions: Vec<(String, String)>,
    /// Rounds, seconds and other settings that the figures depend on.
    pub settings: Vec<(String, String)>,
    /// The stored results that it is compared with.
    pub compared_with: Option<String>,
    pub sections: Vec<Section>,
}

/// Where it ran. Neither the host's name nor a path is part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub kernel: String,
    pub memory_gib: u64,
}

/// Lines that belong together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Section {
    pub key: String,
    pub title: String,
    pub rows: Vec<Row>,
}

impl Report {
    /// Every row.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sections.iter().flat_map(|section| &section.rows)
    }

    /// Takes over the values of older results, row by row.
    pub fn compare_with(&mut self, name: String, older: &Self) {
        for row in self.sections.iter_mut().flat_map(|section| &mut section.rows) {
            let same = older.rows().find(|other| other.key == row.key);
            let comparable = same.filter(|other| other.value_unit == row.value_unit);
            row.previous = comparable.and_then(|other| Some(other.value?.median));
        }
        self.compared_with = Some(name);
    }

    /// How many demands there are: met, missed, without a figure.
    #[must_use]
    pub fn score(&self) -> (usize, usize, usize) {
        let demanded: Vec<_> = self.rows().filter(|row| row.demand.is_some()).collect();
        let count = |met| demanded.iter().filter(|row| row.met == met).count();
        (count(Some(true)), count(Some(false)), count(None))
    }

    /// The stored form for people.
    #[must_use]
    pub fn markdown(&self) -> String {
        let Machine { cpu, cores, kernel, memory_gib } = &self.machine;
        let list = |pairs: &[(String, String)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(name, value)| format!("{name} {value}")).collect();
            pairs.join(", ")
        };
        let mut text = format!(
            "# Ratios of {}\n\ncommit {} · {cpu}, {cores} cores, {memory_gib} GiB · {kernel}  \n\
             {}  \n{}\n\n",
            self.date,
            self.commit,
            list(&self.versions),
            list(&self.settings),
        );
        let (met, missed, without) = self.score();
        text += &format!("Demands: {met} met, {missed} missed, {without} without a figure.\n");
        text += "Figures are medians over interleaved rounds, with the smallest and largest in \
                 brackets; [how they are taken](../METHODOLOGY.md).\n";
        match &self.compared_with {
            Some(name) => text += &format!("Changes are against {name}.\n"),
            None => text += "There were no older results to compare with.\n",
        }
        for section in &self.sections {
            text += &format!("\n## {}\n\n", section.title);
            text += &section.markdown();
        }
        text
    }
}

impl Section {
    fn markdown(&self) -> String {
        let mut lines = vec![
            ["what", "Penstock", "ceiling", "value", "demand", "", "before", "note"]
                .map(str::to_owned)
                .to_vec(),
        ];
        lines.extend(self.rows.iter().map(cells));
        table(&lines)
    }
}

fn cells(row: &Row) -> Vec<String> {
    let figure = |spread: Option<Spread>, unit: &str| {
        spread.map(|spread| spread_text(spread, unit)).unwrap_or_default()
    };
    let demand = match row.demand {
        Some(Demand::AtMost(limit)) => format!("≤ {} {}", number(limit), row.value_unit),
        Some(Demand::AtLeast(limit)) => format!("≥ {} {}", number(limit), row.value_unit),
        None => String::new(),
    };
    let verdict = match row.met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "",
    };
    let before = row.previous.map(number).unwrap_or_default();
    let before = match row.change() {
        Some(change) if change.abs() >= NOISE => format!("{before} ({:+.0} %)", change * 100.0),
        _ => before,
    };
    let note = match &row.skipped {
        Some(why) if row.note.is_empty() => format!("skipped: {why}"),
        Some(why) => format!("skipped: {why}; {}", row.note),
        None => row.note.clone(),
    };
    vec![
        row.what.clone(),
        figure(row.penstock, &row.unit),
        figure(row.ceiling, &row.unit),
        figure(row.value, &row.value_unit),
        demand.trim_end().to_owned(),
        verdict.to_owned(),
        before,
        // A bar would end the cell, a line break the table.
        note.replace('|', "/").replace('\n', " "),
    ]
}

fn spread_text(spread: Spread, unit: &str) -> String {
    let Spread { median, low, high, rounds } = spread;
    let gap = if unit.is_empty() { "" } else { " " };
    if rounds < 2 {
        return format!("{}{gap}{unit}", number(median));
    }
    format!("{}{gap}{unit} [{}–{}]", number(median), number(low), number(high))
}

/// Three digits or so, as much as such figures are good for.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => grouped(value),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.01 => format!("{value:.2}"),
        size if size < 1e-9 => "0".to_owned(),
        _ => format!("{value:.4}"),
    }
}

fn grouped(value: f64) -> String {
    let plain = format!("{:.0}", value.abs());
    let mut text = String::new();
    for (index, digit) in plain.chars().enumerate() {
        if index > 0 && (plain.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0.0 { format!("-{text}") } else { text }
}

/// A Markdown table with columns as wide as their widest cell; the first line is the heading.
fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0).max(3)
        })
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        writeln!(text, "| {} |", cells.join(" | ")).expect("a String takes any text");
        if index == 0 {
            let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            writeln!(text, "| {} |", rule.join(" | ")).expect("a String takes any text");
        }
    }
    text
}

#[cfg(test)]
mod tests;
