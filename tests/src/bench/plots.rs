//! Plots of rows, as SVG: what changes with the number of rules or of flows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::report::Row;

/// Size of a picture, and of its margins: left, right, top, bottom.
const SIZE: [f64; 2] = [860.0, 480.0];
const MARGIN: [f64; 4] = [70.0, 330.0, 40.0, 50.0];
/// Colours that can be told apart, also by the colour-blind (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];
/// Tables that are drawn, by the word behind the number in their cases.
const CHARTS: [(&str, &str); 3] = [("classify", "rules"), ("deny", "rules"), ("established", "flows")];

/// Values by number of rules or flows, by who has them.
type Chart = BTreeMap<String, BTreeMap<u64, f64>>;

/// Writes a picture for each kind of case that has something to draw, and returns their paths.
///
/// # Errors
/// If the folder or a file cannot be written.
pub fn plots(rows: &[Row], folder: &Path) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut paths = Vec::new();
    for (table, word) in CHARTS {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.table == table).collect();
        let unit = rows.first().map_or("", |row| row.unit.as_str());
        for (case, chart) in charts(&rows, word) {
            let path = folder.join(format!("{table}-{}.svg", slug(&case)));
            std::fs::write(&path, svg(&format!("{table}, {case}: {unit} by {word}"), &chart))
                .with_context(|| format!("cannot write {}", path.display()))?;
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The charts of some rows, by what their cases have beside the number: dpufw and its peers in each.
fn charts(rows: &[&Row], word: &str) -> BTreeMap<String, Chart> {
    let mut charts = BTreeMap::<String, Chart>::new();
    for row in rows {
        let Some((number, rest)) = numbered(&row.case, word) else {
            continue;
        };
        let chart = charts.entry(rest).or_default();
        chart
            .entry("dpufw".to_owned())
            .or_default()
            .insert(number, row.dpufw);
        // Some peers say how much they have themselves; dpufw beside itself is a point that is there already, but at TC.
        if !row.peer.starts_with("dpufw") || row.peer.ends_with("at TC") {
            let (at, peer) = numbered(&row.peer, word).unwrap_or((number, row.peer.clone()));
            chart.entry(peer).or_default().insert(at, row.peer_value);
        }
    }
    charts
}

/// A case as part of a file's name.
fn slug(case: &str) -> String {
    let words: Vec<&str> = case
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    words.join("-")
}

/// The number before a word, and the text without both.
fn numbered(text: &str, word: &str) -> Option<(u64, String)> {
    let words: Vec<&str> = text.split(' ').collect();
    let at = words
        .iter()
        .skip(1)
        .position(|found| found.trim_end_matches(',') == word)?;
    let number = words[at].replace(',', "").parse().ok()?;
    let rest = [&words[..at], &words[at + 2..]].concat().join(" ");
    Some((number, rest.trim_end_matches([',', ' ']).to_owned()))
}

/// A logarithmic axis from one power of ten to another, on a stretch of the picture.
#[derive(Clone, Copy)]
struct Axis {
    powers: [f64; 2],
    place: [f64; 2],
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, place: [f64; 2]) -> Self {
        let (low, high) = values
            .filter(|value| *value > 0.0)
            .map(f64::log10)
            .fold((f64::MAX, f64::MIN), |(low, high), power| {
                (low.min(power), high.max(power))
            });
        let low = low.floor();
        Self {
            powers: [low, high.ceil().max(low + 1.0)],
            place,
        }
    }

    fn at(self, value: f64) -> f64 {
        let part = (value.log10() - self.powers[0]) / (self.powers[1] - self.powers[0]);
        self.place[0] + part * (self.place[1] - self.place[0])
    }

    /// The powers of ten on it.
    fn ticks(self) -> impl Iterator<Item = f64> {
        let [low, high] = self.powers;
        (-12_i32..=12)
            .filter(move |power| (low..=high).contains(&f64::from(*power)))
            .map(|power| 10_f64.powi(power))
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of rules and flows")]
fn svg(title: &str, chart: &Chart) -> String {
    let [width, height] = SIZE;
    let [left, right, top, bottom] = MARGIN;
    let points = || chart.values().flatten();
    let x = Axis::over(points().map(|(number, _)| *number as f64), [left, width - right]);
    let y = Axis::over(points().map(|(_, value)| *value), [height - bottom, top]);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n<text x=\"{left}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    // Writing to a string cannot fail, here and below.
    for tick in x.ticks() {
        let (at, from, to, below) = (x.at(tick), y.place[0], y.place[1], y.place[0] + 18.0);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {from:.1}V{to:.1}\" stroke=\"#ddd\"/><text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{tick}</text>"
        );
    }
    for tick in y.ticks() {
        let (at, from, to, before) = (y.at(tick), x.place[0], x.place[1], x.place[0] - 8.0);
        let _ = writeln!(
            text,
            "<path d=\"M{from:.1} {at:.1}H{to:.1}\" stroke=\"#ddd\"/><text x=\"{before:.1}\" y=\"{at:.1}\" text-anchor=\"end\">{tick}</text>"
        );
    }
    for (number, (name, values)) in chart.iter().enumerate() {
        let (colour, legend) = (COLOURS[number % COLOURS.len()], top + 16.0 * number as f64);
        let drawn: Vec<[f64; 2]> = values
            .iter()
            .map(|(at, value)| [x.at(*at as f64), y.at(*value)])
            .collect();
        let line: Vec<String> = drawn.iter().map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            line.join(" ")
        );
        for [x, y] in drawn {
            let _ = writeln!(
                text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{legend:.1}\" fill=\"{colour}\" font-size=\"10\">{}</text>",
            width - right + 12.0,
            escaped(name)
        );
    }
    text + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{charts, numbered, slug, svg};
    use crate::bench::report::Row;

    #[test]
    fn numbers_are_found_before_their_word() {
        let found = |text: &str, word: &str| numbered(text, word).map(|(at, rest)| format!("{at}|{rest}"));
        assert_eq!(
            found("10000 rules, 1000 sources, 0 live flows", "rules").as_deref(),
            Some("10000|1000 sources, 0 live flows")
        );
        assert_eq!(found("udp4, 1000 flows", "flows").as_deref(), Some("1000|udp4"));
        assert_eq!(
            found("nftables, list of 100 rules", "rules").as_deref(),
            Some("100|nftables, list of")
        );
        assert_eq!(found("bare XDP drop", "rules"), None);
    }

    #[test]
    fn a_chart_has_a_line_for_each_series() {
        let row = |case: &str, peer: &str| Row::new("deny", case, peer, "Mpps", [1.0, 2.0]);
        let rows = [
            row("10 rules, few", "bare"),
            row("100 rules, few", "bare"),
            row("100 rules, few", "dpufw with 10 rules"),
        ];
        let charts = charts(&rows.iter().collect::<Vec<_>>(), "rules");
        assert_eq!(charts.keys().collect::<Vec<_>>(), ["few"]);
        let chart = &charts["few"];
        assert_eq!(chart.keys().collect::<Vec<_>>(), ["bare", "dpufw"]);
        assert_eq!(slug("1000 sources, 0 live flows"), "1000-sources-0-live-flows");
        let text = svg("deny", chart);
        assert_eq!(text.matches("<polyline").count(), 2);
        assert_eq!(text.matches("<circle").count(), 4);
    }
}
