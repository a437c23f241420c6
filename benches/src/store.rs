//! The folder of results: a JSON file for comparisons and a Markdown file for people, named by
//! date.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::report::Report;

/// The name of a run's files, without an ending, from `2026-11-21T14:35:07Z`.
#[must_use]
pub fn name(date: &str) -> String {
    let minute = date.get(..16).unwrap_or(date);
    minute.replace('T', "-").replace(':', "")
}

/// The newest stored results, with their name.
///
/// # Errors
/// When they cannot be read.
pub fn newest(folder: &Path) -> anyhow::Result<Option<(String, Report)>> {
    let mut names = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "json") && is_dated(&path) {
                names.push(path);
            }
        }
    }
    let Some(path) = names.into_iter().max() else { return Ok(None) };
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let report = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Some((stem.into_owned(), report)))
}

/// Writes both files and returns the Markdown's path.
///
/// # Errors
/// When they cannot be written.
pub fn write(folder: &Path, report: &Report) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let stem = name(&report.date);
    let json = folder.join(format!("{stem}.json"));
    fs::write(&json, serde_json::to_string_pretty(report)? + "\n")
        .with_context(|| json.display().to_string())?;
    let markdown = folder.join(format!("{stem}.md"));
    fs::write(&markdown, report.markdown()).with_context(|| markdown.display().to_string())?;
    Ok(markdown)
}

/// Other files may lie beside the results; theirs begin with the year and are `ratios`' alone in
/// having nothing behind the minute.
fn is_dated(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem.len() == "2026-11-21-1435".len() && stem.chars().all(|c| c.is_ascii_digit() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Machine;

    fn report(date: &str) -> Report {
        let (cpu, kernel) = ("A CPU".to_owned(), "Linux 6".to_owned());
        Report {
            date: date.to_owned(),
            commit: "abc".to_owned(),
            machine: Machine { cpu, cores: 2, kernel, memory_gib: 1 },
            versions: Vec::new(),
            settings: Vec::new(),
            compared_with: None,
            sections: Vec::new(),
        }
    }

    #[test]
    fn files_are_named_by_the_minute() {
        assert_eq!(name("2026-11-21T14:35:07Z"), "2026-11-21-1435");
    }

    #[test]
    fn the_newest_results_are_found_among_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        assert!(newest(&path.join("absent")).unwrap().is_none());
        for date in ["2026-11-21T14:35:07Z", "2027-01-02T03:04:05Z", "2026-12-31T23:59:59Z"] {
            write(path, &report(date)).unwrap();
        }
        fs::write(path.join("peers-2029-01-01-0000.json"), "{}").unwrap();
        fs::write(path.join("2029-01-01-0000-peers.json"), "{}").unwrap();
        let (name, newest) = newest(path).unwrap().unwrap();
        assert_eq!(
            (name.as_str(), newest.date.as_str()),
            ("2027-01-02-0304", "2027-01-02T03:04:05Z")
        );
        assert!(path.join("2026-12-31-2359.md").exists());
    }

    #[test]
    fn results_that_cannot_be_read_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("2026-11-21-1435.json"), "{").unwrap();
        let error = format!("{:#}", newest(folder.path()).unwrap_err());
        assert!(error.contains("2026-11-21-1435.json"), "{error}");
    }
}
