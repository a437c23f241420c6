//! What is printed and stored, and the comparison with older results.

use super::*;

fn spread(value: f64) -> Option<Spread> {
    Spread::of(&[value, value * 1.5, value * 0.5])
}

fn report(rows: Vec<Row>) -> Report {
    Report {
        date: "2026-11-21T14:35:00Z".to_owned(),
        commit: "3ea34d3".to_owned(),
        machine: Machine {
            cpu: "A CPU".to_owned(),
            cores: 2,
            kernel: "Linux 6.18".to_owned(),
            memory_gib: 24,
        },
        versions: vec![("penstock".to_owned(), "0.1.0".to_owned())],
        settings: vec![("rounds".to_owned(), "5".to_owned())],
        compared_with: None,
        sections: vec![Section { key: "grpc".to_owned(), title: "gRPC".to_owned(), rows }],
    }
}

fn ratio(key: &str, value: f64, limit: f64) -> Row {
    Row::new(key, key).value("×", spread(value)).demand(Demand::AtMost(limit))
}

#[test]
fn demands_stand_beside_values_with_their_verdict() {
    let text = report(vec![
        ratio("fast", 1.1, 1.2).measured("µs", &[13.0]).against(&[12.0]),
        ratio("slow", 1.5, 1.2),
        Row::skipped("gone", "gone", "no | model").demand(Demand::AtLeast(0.97)),
    ])
    .markdown();
    let line = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("| {key}"))).unwrap();
        line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    let fast = line("fast");
    assert_eq!(fast[2..7], ["13.0 µs", "12.0 µs", "1.10 × [0.55–1.65]", "≤ 1.20 ×", "met"]);
    assert_eq!(line("slow")[6], "**missed**");
    let gone = line("gone");
    assert_eq!((gone[5].as_str(), gone[6].as_str()), ("≥ 0.97", ""));
    assert_eq!(gone[8], "skipped: no / model");
    assert!(text.contains("Demands: 1 met, 1 missed, 1 without a figure."), "{text}");
}

#[test]
fn values_are_compared_by_key_and_only_in_the_same_unit() {
    let older = report(vec![ratio("a", 1.0, 2.0), Row::new("b", "b").value("µs", spread(5.0))]);
    let mut newer = report(vec![
        ratio("a", 1.3, 2.0),
        Row::new("b", "b").value("ms", spread(5.0)),
        ratio("c", 1.0, 2.0),
    ]);
    newer.compare_with("older".to_owned(), &older);
    let previous: Vec<_> = newer.rows().map(|row| row.previous).collect();
    assert_eq!(previous, [Some(1.0), None, None]);
    let text = newer.markdown();
    assert!(text.contains("1.00 (+30 %)"), "{text}");
    assert!(text.contains("against older"), "{text}");
}

#[test]
fn a_change_within_the_noise_is_not_shown_as_one() {
    let older = report(vec![ratio("a", 1.0, 2.0)]);
    let mut newer = report(vec![ratio("a", 1.1, 2.0)]);
    newer.compare_with("older".to_owned(), &older);
    assert!(!newer.markdown().contains('%'), "{}", newer.markdown());
}

#[test]
fn results_come_back_from_json() {
    let stored = serde_json::to_string(&report(vec![ratio("a", 1.0, 2.0)])).unwrap();
    let again: Report = serde_json::from_str(&stored).unwrap();
    assert_eq!(again.rows().next(), Some(&ratio("a", 1.0, 2.0)));
}

#[test]
fn numbers_keep_three_digits_or_so() {
    let texts = [0.0, 0.001_25, 0.5, 13.56, 999.6, 1_234_567.0, -1234.0].map(number);
    assert_eq!(texts, ["0", "0.0013", "0.50", "13.6", "1,000", "1,234,567", "-1,234"]);
}

#[test]
fn columns_line_up() {
    let lines = [vec!["a".to_owned(), "é".to_owned()], vec!["long".to_owned(), "x".to_owned()]];
    assert_eq!(table(&lines), "| a    | é   |\n| ---- | --- |\n| long | x   |\n");
}
