//! Charts as inline SVG: lines over a grid, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 44.0;
/// Lines on the grid's upright axis.
const STEPS: u32 = 5;
/// Told apart by those who see red and green alike, too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];

/// A line of a chart.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Across from 0 to 1, upwards in the unit of the axis.
    pub(super) points: Vec<(f64, f64)>,
}

/// The colour of the so-manieth series.
pub(super) fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Text that stands for itself in HTML.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c => safe.push(c),
        }
    }
    safe
}

/// Lines with names for places across; `show` writes a value of the upright axis.
pub(super) fn lines(
    title: &str,
    series: &[Series],
    across: &[(f64, String)],
    show: &dyn Fn(f64) -> String,
) -> String {
    let values = series.iter().flat_map(|line| &line.points).map(|point| point.1);
    let top = round_up(values.fold(0.0, f64::max));
    let x = |part: f64| LEFT + part * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(title, HEIGHT);
    for step in 0..=STEPS {
        let value = top * f64::from(step) / f64::from(STEPS);
        let (at, right, beside) = (y(value), WIDTH - RIGHT, LEFT - 8.0);
        put(
            &mut svg,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            ),
        );
        put(
            &mut svg,
            format_args!(
                "<text class=\"end\" x=\"{beside}\" y=\"{:.1}\">{}</text>",
                at + 4.0,
                show(value)
            ),
        );
    }
    for (part, name) in across {
        let (at, below) = (x(*part), HEIGHT - BOTTOM + 18.0);
        put(
            &mut svg,
            format_args!("<text class=\"mid\" x=\"{at:.1}\" y=\"{below:.1}\">{name}</text>"),
        );
    }
    for (index, line) in series.iter().enumerate() {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(part, value)| format!("{:.1},{:.1}", x(*part), y(*value)))
            .collect();
        let (stroke, name) = (colour(index), escape(&line.name));
        put(
            &mut svg,
            format_args!(
                "<polyline fill=\"none\" stroke=\"{stroke}\" stroke-width=\"2\" points=\"{}\"><title>{name}</title></polyline>",
                points.join(" ")
            ),
        );
        let at = LEFT + 4.0 + 150.0 * f64::from(u32::try_from(index).unwrap_or(0));
        put(
            &mut svg,
            format_args!(
                "<text x=\"{at:.1}\" y=\"{:.1}\" fill=\"{stroke}\">{name}</text>",
                HEIGHT - 6.0
            ),
        );
    }
    svg + "</svg>\n"
}

/// A bar for each name, with its value written beside it.
pub(super) fn bars(title: &str, bars: &[(String, f64, String)]) -> String {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 230.0;
    const VALUES: f64 = 150.0;
    let top = bars.iter().map(|bar| bar.1).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let rows = f64::from(u32::try_from(bars.len()).unwrap_or(u32::MAX));
    let mut svg = open(title, rows * ROW + 8.0);
    for (index, (name, value, shown)) in bars.iter().enumerate() {
        let at = f64::from(u32::try_from(index).unwrap_or(u32::MAX)) * ROW + 4.0;
        let width = (value / top * (WIDTH - NAMES - VALUES)).max(1.0);
        let (base, after) = (at + 15.0, NAMES + width + 6.0);
        put(
            &mut svg,
            format_args!(
                "<text class=\"end\" x=\"{}\" y=\"{base:.1}\">{}</text>",
                NAMES - 8.0,
                escape(name)
            ),
        );
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{NAMES}\" y=\"{at:.1}\" width=\"{width:.1}\" height=\"20\" fill=\"{}\"/>",
                colour(index)
            ),
        );
        put(
            &mut svg,
            format_args!("<text x=\"{after:.1}\" y=\"{base:.1}\">{}</text>", escape(shown)),
        );
    }
    svg + "</svg>\n"
}

fn open(title: &str, height: f64) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\"><title>{title}</title>\n")
}

fn put(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a text takes everything");
}

/// The next round number: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, top) in [(0.0, 1.0), (1.0, 1.0), (3.0, 5.0), (70.0, 100.0), (1999.0, 2000.0)] {
            assert!((round_up(value) - top).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_a_chart() {
        let chart = bars("<script>", &[("a\"<b>".to_owned(), 1.0, "&".to_owned())]);
        assert!(!chart.contains("<script>") && !chart.contains("<b>"));
        assert!(chart.contains("a&quot;&lt;b&gt;") && chart.contains("&amp;"));
    }
}
