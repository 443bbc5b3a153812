//! The columns of a waterfall, and one line of it.

use super::text::{columns, escape, fit};
use super::tree::{Branch, Row};
use super::{Paint, Style, service_paint, units};
use crate::cli::view::{SpanView, TraceView};
use crate::model::{DurationNanos, UnixNanos};

/// From this width on ranks are shown.
const WIDTH_RANK: usize = 100;
/// From this width on services have a column of their own.
const WIDTH_SERVICE: usize = 90;
/// From this width on there are bars, of at least a quarter of it.
const WIDTH_BAR: usize = 56;
const SERVICE_COLUMNS_MAX: usize = 16;
const DURATION_COLUMNS: usize = 8;
const MARK_COLUMNS: usize = 2;
/// `p99.99`.
const RANK_COLUMNS: usize = 6;

/// Where everything goes.
pub(super) struct Chart<'a> {
    trace: &'a TraceView,
    style: Style,
    /// Start of the axis: the first span that has a start.
    pub(super) start: UnixNanos,
    /// Length of the axis: to the last end.
    pub(super) length: DurationNanos,
    /// 0 = no such column.
    service_columns: usize,
    name_columns: usize,
    /// 0 = no such column.
    rank_columns: usize,
    /// 0 = no such column.
    bar_columns: usize,
}

impl<'a> Chart<'a> {
    /// Names get what those of the `shown` rows need, bars the rest, within `width` columns.
    pub(super) fn new(trace: &'a TraceView, width: usize, style: Style, shown: impl Iterator<Item = &'a Row>) -> Self {
        let timed = || trace.spans.iter().filter(|span| !span.start.is_unset());
        let start = timed().map(|span| span.start).min().unwrap_or_default();
        let end = timed().map(|span| span.end.max(span.start)).max().unwrap_or_default();
        let length = end.since(start);
        let mut chart =
            Self { trace, style, start, length, service_columns: 0, name_columns: 0, rank_columns: 0, bar_columns: 0 };
        if width >= WIDTH_SERVICE {
            let longest = trace.resources.iter().map(|resource| columns(&escape(&resource.service))).max();
            chart.service_columns = longest.unwrap_or(0).clamp("service".len(), SERVICE_COLUMNS_MAX) + 1;
        }
        if width >= WIDTH_RANK && trace.spans.iter().any(|span| span.rank.is_some()) {
            chart.rank_columns = RANK_COLUMNS + 1;
        }
        let room = width - MARK_COLUMNS - chart.service_columns - DURATION_COLUMNS - chart.rank_columns - 2;
        if width < WIDTH_BAR {
            chart.name_columns = room;
            return chart;
        }
        let longest = shown.map(|row| chart.needed(row)).max().unwrap_or(0);
        chart.name_columns = longest.clamp("span".len(), room - width / 4);
        chart.bar_columns = room - chart.name_columns;
        chart
    }

    fn needed(&self, row: &Row) -> usize {
        let Row::Span(branch) = row else { return 0 };
        self.trace.spans.get(branch.at).map_or(0, |span| columns(&self.label(branch, span)))
    }

    /// The tree's lines and the name, the service before it where it has no column.
    fn label(&self, branch: &Branch, span: &SpanView) -> String {
        let (prefix, name) = (branch.prefix(self.style.ascii), escape(&span.name));
        if self.service_columns > 0 {
            return format!("{prefix}{name}");
        }
        format!("{prefix}{}: {name}", escape(self.trace.service(span)))
    }

    /// The titles of the columns; of the bars the ends of their axis.
    pub(super) fn axis(&self) -> String {
        let service = fit("service", self.service_columns, "");
        let service = if self.service_columns > 0 { service } else { String::new() };
        let name = fit("span", self.name_columns, "");
        let scale = match self.bar_columns {
            0 => String::new(),
            columns => format!("0{:>width$}", units::duration(self.length), width = columns - 1),
        };
        let marks = " ".repeat(MARK_COLUMNS);
        let rank = format!("{:>width$}", "rank", width = self.rank_columns);
        let rank = if self.rank_columns > 0 { rank } else { String::new() };
        let line = format!("{marks}{service}{name} {:>DURATION_COLUMNS$}{rank} {scale}", "duration");
        self.style.paint(line.trim_end(), Paint::Dim)
    }

    /// One span.
    pub(super) fn line(&self, branch: &Branch) -> String {
        let Some(span) = self.trace.spans.get(branch.at) else { return String::new() };
        let highlighted = self.trace.is_highlighted(span);
        let ellipsis = self.style.pick("~", "\u{2026}");
        let service = escape(self.trace.service(span));
        let service_colour = service_paint(&service);
        let service = match self.service_columns.checked_sub(1) {
            Some(width) => self.style.paint(&fit(&service, width, ellipsis), service_colour) + " ",
            None => String::new(),
        };
        let standing_out = match (span.error, highlighted) {
            (true, _) => Some(Paint::Error),
            (false, true) => Some(Paint::Highlight),
            (false, false) => None,
        };
        let label = fit(&self.label(branch, span), self.name_columns, ellipsis);
        let label = standing_out.map_or_else(|| label.clone(), |paint| self.style.paint(&label, paint));
        let marks = [
            self.style.paint(if highlighted { ">" } else { " " }, Paint::Highlight),
            self.style.paint(if span.error { "!" } else { " " }, Paint::Error),
        ]
        .concat();
        let duration = span.duration().map_or_else(|| "?".to_owned(), units::duration);
        let (before, bar) = self.bar(span);
        let bar = self.style.paint(&bar, standing_out.unwrap_or(service_colour));
        let rank = self.rank(span);
        let line = format!("{marks}{service}{label} {duration:>DURATION_COLUMNS$}{rank} {:before$}{bar}", "");
        line.trim_end().to_owned()
    }

    /// Red from p99 on, yellow from p95 on.
    fn rank(&self, span: &SpanView) -> String {
        let percentile = span.rank.as_ref().map(|rank| rank.percentile);
        let shown = format!("{:>width$}", percentile.map(units::rank).unwrap_or_default(), width = self.rank_columns);
        match percentile {
            _ if self.rank_columns == 0 => String::new(),
            Some(percentile) if percentile >= 0.99 => self.style.paint(&shown, Paint::Slowest),
            Some(percentile) if percentile >= 0.95 => self.style.paint(&shown, Paint::Slow),
            Some(_) | None => shown,
        }
    }

    /// What the bars tell, where they tell spans apart.
    pub(super) fn legend(&self) -> Option<String> {
        if self.bar_columns == 0 || self.trace.path_roots == 0 {
            return None;
        }
        let [on, _, beside, _] = self.glyphs();
        let of = if self.trace.path_roots == 1 { "" } else { " of its tree" };
        let legend = format!("{on} on the critical path{of}, {beside} beside it");
        Some(format!("  {}", self.style.paint(&legend, Paint::Dim)))
    }

    /// Of bars and of thin marks on the critical path, and of those beside it.
    fn glyphs(&self) -> [&'static str; 4] {
        if self.style.ascii { ["#", "|", "-", ":"] } else { ["\u{2588}", "\u{258f}", "\u{2591}", "\u{250a}"] }
    }

    /// Empty columns, then the bar: every column that the span touches, or a thin mark where it is short.
    fn bar(&self, span: &SpanView) -> (usize, String) {
        if self.bar_columns == 0 || span.start.is_unset() {
            return (0, String::new());
        }
        let cells = self.bar_columns as u128;
        let length = u128::from(self.length.0.max(1));
        let from = u128::from(span.start.since(self.start).0) * cells;
        let lasting = u128::from(span.duration().unwrap_or_default().0) * cells;
        let first = (from / length).min(cells - 1);
        let end = (from + lasting).div_ceil(length).clamp(first + 1, cells);
        let column = |cell: u128| usize::try_from(cell).unwrap_or(self.bar_columns);
        let [on, thin_on, beside, thin_beside] = self.glyphs();
        let is_on_path = span.on_path.is_some() || self.trace.path_roots == 0;
        let (full, thin) = if is_on_path { (on, thin_on) } else { (beside, thin_beside) };
        let bar = if lasting * 2 < length { thin.to_owned() } else { full.repeat(column(end - first)) };
        (column(first), bar)
    }
}
