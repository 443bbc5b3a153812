//! Numbers over time, drawn in the terminal; and numbers of one instant, one a line.

use super::text::{columns, escape, fit};
use super::{Paint, Style, units};
use crate::cli::view::{MetricsSeriesView, MetricsView};
use crate::model::{DurationNanos, UnixNanos};

/// Series that are drawn: more cannot be told apart.
const DRAWN_MAX: usize = 8;
/// Lines of the plot.
const ROWS: usize = 13;
/// Steps of the axis of values; lines between two are whole.
const TICKS: u32 = 4;
const ROWS_PER_TICK: usize = (ROWS - 1) / TICKS as usize;
/// Columns of the plot, at least.
const COLUMNS_MIN: usize = 20;
/// Columns of the longest title of a series.
const TITLE_COLUMNS_MAX: usize = 80;
/// Lines of a list of numbers.
const LISTED_MAX: usize = 100;
const COLOURS: [u8; DRAWN_MAX] = [32, 34, 35, 36, 33, 92, 94, 95];

/// What a number stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// So many per second.
    PerSecond,
    /// What it says.
    #[default]
    Plain,
}

impl Unit {
    fn shown(self, value: f64) -> String {
        match self {
            Self::Seconds if (0.0..1e9).contains(&value) => {
                let duration = std::time::Duration::from_secs_f64(value);
                units::duration(DurationNanos(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
            }
            Self::Seconds => format!("{} s", units::number(value)),
            Self::PerSecond => format!("{}/s", units::number(value)),
            Self::Plain => units::number(value),
        }
    }
}

/// The series over time: the plot, what each mark is, a trace to open, and what the numbers leave out.
pub fn metrics_plot(view: &MetricsView, unit: Unit, now: UnixNanos, width: usize, style: Style) -> String {
    let with_points: Vec<&MetricsSeriesView> = view.series.iter().filter(|series| !series.samples.is_empty()).collect();
    if with_points.is_empty() {
        return format!("no numbers in this window; try a longer --last\n{}", partial(view, style));
    }
    let mut by_height = with_points.clone();
    by_height.sort_by(|a, b| highest(b).total_cmp(&highest(a)));
    by_height.truncate(DRAWN_MAX);
    // In the server's order, so that colours stay.
    let drawn: Vec<&MetricsSeriesView> =
        with_points.iter().copied().filter(|one| by_height.iter().any(|kept| std::ptr::eq(*kept, *one))).collect();
    let mut out = plot(&drawn, unit, now, width, style);
    out.push_str(&legend(&drawn, unit, width, style));
    let left = with_points.len() - drawn.len();
    if 0 < left {
        let line = format!("and {left} lower ones; topk({DRAWN_MAX}) or a filter shows others, --json all of them");
        out.extend([&style.paint(&line, Paint::Dim), "\n"]);
    }
    out.push_str(&example(&with_points, unit, now));
    out + &partial(view, style)
}

/// The numbers of an instant, the largest first.
pub fn metrics_list(view: &MetricsView, unit: Unit, style: Style) -> String {
    if view.series.is_empty() {
        return format!("no numbers in this window; try a longer --last\n{}", partial(view, style));
    }
    let mut sorted: Vec<&MetricsSeriesView> = view.series.iter().collect();
    sorted.sort_by(|a, b| b.value.total_cmp(&a.value));
    let shown: Vec<(String, String)> =
        sorted.iter().take(LISTED_MAX).map(|one| (unit.shown(one.value), escape(&one.title()).into_owned())).collect();
    let widest = shown.iter().map(|(value, _)| columns(value)).max().unwrap_or(0);
    let mut out = String::new();
    for (value, title) in &shown {
        out.extend([&" ".repeat(widest - columns(value)), &style.paint(value, Paint::Bold), "  ", title, "\n"]);
    }
    let left = sorted.len() - shown.len();
    if 0 < left {
        out.extend([&style.paint(&format!("and {left} smaller ones; --json shows all of them"), Paint::Dim), "\n"]);
    }
    out + &partial(view, style)
}

fn partial(view: &MetricsView, style: Style) -> String {
    if view.status != "PARTIAL" {
        return String::new();
    }
    format!("{}\n", style.paint(&format!("incomplete: {}", escape(&view.message)), Paint::Slow))
}

fn finite(series: &MetricsSeriesView) -> impl Iterator<Item = f64> {
    series.samples.iter().map(|sample| sample.value).filter(|value| value.is_finite())
}

fn highest(series: &MetricsSeriesView) -> f64 {
    finite(series).fold(f64::NEG_INFINITY, f64::max)
}

/// A round number that is not less: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|step| step * power);
    // 0.1 + 0.2 is a little above 0.3.
    steps.into_iter().find(|step| value <= step * (1.0 + 1e-9)).unwrap_or(value)
}

/// The ends of the axis of values: round, and 0 where nothing is below it.
fn axis_of(drawn: &[&MetricsSeriesView]) -> (f64, f64) {
    let values = || drawn.iter().flat_map(|series| finite(series));
    let (low, high) = (values().fold(0.0, f64::min), values().fold(0.0, f64::max));
    let round = |value: f64| if 0.0 < value { round_up(value) } else { 0.0 };
    let (low, high) = (-round(-low), round(high));
    if low < high { (low, high) } else { (low, low + 1.0) }
}

/// The share of `part` in `whole`, of so many cells.
fn cell(part: f64, whole: f64, cells: usize) -> usize {
    let last = cells.saturating_sub(1) as f64;
    let at = (part / whole * last).round().clamp(0.0, last);
    // In `0..cells`, which is small.
    format!("{at:.0}").parse().unwrap_or(0)
}

fn plot(drawn: &[&MetricsSeriesView], unit: Unit, now: UnixNanos, width: usize, style: Style) -> String {
    let times = || drawn.iter().flat_map(|series| series.samples.iter().map(|sample| sample.at));
    let (first, last) = (times().min().unwrap_or_default(), times().max().unwrap_or_default());
    let (low, high) = axis_of(drawn);
    let ticks: Vec<String> =
        (0..=TICKS).map(|at| unit.shown(low + (high - low) * f64::from(at) / f64::from(TICKS))).collect();
    let margin = ticks.iter().map(|tick| columns(tick)).max().unwrap_or(0);
    let n_columns = width.saturating_sub(margin + 3).max(COLUMNS_MIN);
    let mut cells: Vec<Vec<Option<usize>>> = vec![vec![None; n_columns]; ROWS];
    let length = last.since(first).0.max(1) as f64;
    for (number, series) in drawn.iter().enumerate() {
        for sample in series.samples.iter().filter(|sample| sample.value.is_finite()) {
            let column =
                if first == last { n_columns / 2 } else { cell(sample.at.since(first).0 as f64, length, n_columns) };
            let row = cell(sample.value - low, high - low, ROWS);
            if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                *cell = Some(number);
            }
        }
    }
    let mut out = String::new();
    for (row, line) in cells.iter().enumerate().rev() {
        let tick = (row % ROWS_PER_TICK == 0).then(|| ticks.get(row / ROWS_PER_TICK)).flatten();
        let (tick, edge) = (
            tick.map_or("", String::as_str),
            if tick.is_some() { style.pick("+", "\u{2524}") } else { style.pick("|", "\u{2502}") },
        );
        let marks: String =
            line.iter().map(|cell| cell.map_or_else(|| " ".to_owned(), |number| mark(number, style))).collect();
        let line = format!("{}{tick} {edge}{marks}", " ".repeat(margin - columns(tick)));
        out.extend([line.trim_end(), "\n"]);
    }
    let (dash, corner) = (style.pick("-", "\u{2500}"), style.pick("+", "\u{2514}"));
    let (first, last) = (units::time(first, now), units::time(last, now));
    let between = n_columns.saturating_sub(first.len() + last.len()).max(1);
    let times = if first == last { first } else { format!("{first}{}{last}", " ".repeat(between)) };
    let margin = " ".repeat(margin);
    out.extend([&margin, " ", corner, &dash.repeat(n_columns), "\n", &margin, "  ", &times, "\n"]);
    out
}

/// The mark of a drawn series: a letter where no colour tells them apart.
fn mark(number: usize, style: Style) -> String {
    let letter = char::from(b"abcdefgh".get(number).copied().unwrap_or(b'*')).to_string();
    if !style.color {
        return letter;
    }
    let colour = COLOURS.get(number).copied().unwrap_or(37);
    style.paint(style.pick(&letter, "\u{25cf}"), Paint::Service(colour))
}

fn legend(drawn: &[&MetricsSeriesView], unit: Unit, width: usize, style: Style) -> String {
    let titles: Vec<String> = drawn.iter().map(|series| escape(&series.title()).into_owned()).collect();
    let longest = titles.iter().map(|title| columns(title)).max().unwrap_or(0);
    let room = longest.min(TITLE_COLUMNS_MAX).min(width.saturating_sub(40).max(COLUMNS_MIN));
    let mut out = String::new();
    for (number, (series, title)) in drawn.iter().zip(&titles).enumerate() {
        let last = series.samples.last().map_or(0.0, |sample| sample.value);
        let count = finite(series).count().max(1) as f64;
        let mean = finite(series).sum::<f64>() / count;
        let numbers = [("last", last), ("mean", mean), ("max", highest(series))];
        let numbers: Vec<String> =
            numbers.iter().map(|(name, value)| format!("{name} {:>9}", unit.shown(*value))).collect();
        let title = fit(title, room, style.pick("~", "\u{2026}"));
        out.extend([&mark(number, style), " ", &title, "  ", &numbers.join("  "), "\n"]);
    }
    out
}

/// The exemplar with the largest value, and how to open it.
fn example(series: &[&MetricsSeriesView], unit: Unit, now: UnixNanos) -> String {
    let exemplars = series.iter().flat_map(|series| &series.exemplars);
    let Some(one) = exemplars.max_by(|a, b| a.value.total_cmp(&b.value)) else { return String::new() };
    format!(
        "e.g. {} at {}, {}: spandrel trace {}\n",
        escape(one.label("name")),
        units::time(one.at, now),
        unit.shown(one.value),
        escape(one.label("trace:id")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::view::{LabelView, MetricsExemplarView, SampleView};

    const START: u64 = 1_795_463_700_000_000_000;

    fn series(service: &str, values: &[f64]) -> MetricsSeriesView {
        let label = |key: &str, value: &str| LabelView { key: key.to_owned(), value: value.to_owned() };
        let at = |minute: u64| UnixNanos(START + minute * 60_000_000_000);
        let samples = (0..).zip(values).map(|(minute, value)| SampleView { at: at(minute), value: *value });
        let labels = vec![label("trace:id", "06d984e490ce8942aadfad071f523953"), label("name", "POST /pay")];
        MetricsSeriesView {
            labels: vec![label("service", service)],
            samples: samples.collect(),
            value: values.first().copied().unwrap_or_default(),
            exemplars: vec![MetricsExemplarView {
                labels,
                at: at(1),
                value: values.first().copied().unwrap_or_default(),
            }],
        }
    }

    fn view() -> MetricsView {
        let values: Vec<f64> = (0..16_i32).map(|at| f64::from(at) / 15.0).collect();
        MetricsView {
            series: vec![series("cart", &values), series("a\x1b[2Jb", &[0.25, 0.5])],
            status: "PARTIAL".to_owned(),
            message: "block 7 could not be read".to_owned(),
        }
    }

    #[test]
    fn a_plot_has_its_axes_its_marks_and_what_they_are() {
        let (ascii, now) = (Style { color: false, ascii: true }, UnixNanos(START));
        let plot = metrics_plot(&view(), Unit::PerSecond, now, 60, ascii);
        let lines: Vec<&str> = plot.lines().collect();
        assert_eq!(
            [0, 3, 6, 9, 12].map(|line| lines[line].chars().take(10).collect::<String>()),
            [" 1.00/s + ", "0.750/s + ", "0.500/s + ", "0.250/s +b", "    0/s +a"]
        );
        assert_eq!(
            lines[0].chars().position(|c| c == 'a'),
            lines[13].chars().count().checked_sub(1),
            "the last is last"
        );
        assert_eq!(
            lines[14..],
            [
                "         19:55:00Z                                20:10:00Z",
                "a service=cart       last    1.00/s  mean   0.500/s  max    1.00/s",
                "b service=a\\x1b[2Jb  last   0.500/s  mean   0.375/s  max   0.500/s",
                "e.g. POST /pay at 19:56:00Z, 0.250/s: spandrel trace 06d984e490ce8942aadfad071f523953",
                "incomplete: block 7 could not be read",
            ]
        );
    }

    #[test]
    fn numbers_of_an_instant_are_listed_the_largest_first() {
        let plain = Style { color: false, ascii: true };
        assert_eq!(
            metrics_list(&view(), Unit::Seconds, plain),
            "250 ms  service=a\\x1b[2Jb\n  0 ns  service=cart\nincomplete: block 7 could not be read\n"
        );
        let nothing = MetricsView::default();
        assert_eq!(metrics_list(&nothing, Unit::Plain, plain), "no numbers in this window; try a longer --last\n");
    }

    #[test]
    fn the_axis_of_values_ends_with_a_round_number_and_holds_0() {
        let axis = |values: &[f64]| axis_of(&[&series("a", values)]);
        assert_eq!(axis(&[3.0, 7.0]), (0.0, 10.0));
        assert_eq!(axis(&[0.3, 0.1 + 0.1]), (0.0, 0.5));
        assert_eq!(axis(&[-0.4, 120.0]), (-0.5, 200.0));
        assert_eq!(axis(&[0.0, f64::INFINITY]), (0.0, 1.0));
    }
}
