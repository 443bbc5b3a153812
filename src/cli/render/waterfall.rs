//! A trace as a tree beside a time axis.

use std::collections::HashSet;

use super::chart::Chart;
use super::text::{columns, escape, fit};
use super::tree::{Row, rows};
use super::{Paint, Style, units};
use crate::cli::view::{SpanView, TraceView};
use crate::model::UnixNanos;

/// Rows of the longest waterfall; of a longer one the middle is left out, but never the highlighted span.
pub const WATERFALL_ROWS_MAX: usize = 200;

/// Columns below which nothing gets narrower; the terminal wraps then.
const WIDTH_MIN: usize = 36;
/// Attributes shown of the highlighted span.
const DETAILS_MAX: usize = 24;

/// `trace` in `width` columns: a headline, one line per span (tree, duration, rank, bar on the axis of the trace; `!` marks
/// errors, `>` the highlighted span, the bar's fill the critical path), and what is known of the highlighted span below.
///
/// Narrow terminals lose the column of ranks (below 100), of services (below 90) and the bars (below 56). Cost:
/// O(n log n) in spans.
pub fn waterfall(trace: &TraceView, width: usize, style: Style) -> String {
    waterfall_of(trace, width, style, WATERFALL_ROWS_MAX)
}

/// `waterfall` with at most `rows_max` rows of the tree, give or take those around the highlighted one.
pub(super) fn waterfall_of(trace: &TraceView, width: usize, style: Style, rows_max: usize) -> String {
    if trace.spans.is_empty() {
        return "no spans stored\n".to_owned();
    }
    let width = width.max(WIDTH_MIN);
    let rows = rows(trace);
    let kept = kept(trace, &rows, rows_max);
    let shown = rows.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(row, _)| row);
    let chart = Chart::new(trace, width, style, shown);

    let mut lines = headline(trace, &chart, style);
    lines.push(chart.axis());
    let mut left_out = 0;
    for (row, kept) in rows.iter().zip(kept) {
        if !kept {
            left_out += usize::from(matches!(row, Row::Span(_)));
            continue;
        }
        lines.extend(gap(&mut left_out));
        lines.push(match row {
            Row::Note(note) => format!("  {}", style.paint(note, Paint::Dim)),
            Row::Span(branch) => chart.line(branch),
        });
    }
    lines.extend(chart.legend());
    if let Some(span) = trace.spans.iter().find(|span| trace.is_highlighted(span)) {
        lines.extend(details(trace, span, width, style));
    }
    lines.join("\n") + "\n"
}

/// Which rows are shown: all, or two thirds from the start, one from the end and those around the highlight.
fn kept(trace: &TraceView, rows: &[Row], rows_max: usize) -> Vec<bool> {
    let tail = rows_max / 3;
    let head = rows_max - tail;
    let highlighted = rows.iter().position(|row| match row {
        Row::Span(branch) => trace.spans.get(branch.at).is_some_and(|span| trace.is_highlighted(span)),
        Row::Note(_) => false,
    });
    let near = |at: usize| highlighted.is_some_and(|highlighted| highlighted.abs_diff(at) <= 1);
    let all = rows.len() <= rows_max;
    (0..rows.len()).map(|at| all || at < head || rows.len() - at <= tail || near(at)).collect()
}

/// The line for the spans left out so far, if any; counting starts again.
fn gap(left_out: &mut usize) -> Option<String> {
    match std::mem::take(left_out) {
        0 => None,
        some => Some(format!("  ... {}", number(some, "more span"))),
    }
}

fn headline(trace: &TraceView, chart: &Chart<'_>, style: Style) -> Vec<String> {
    let services: HashSet<&str> = trace.spans.iter().map(|span| trace.service(span)).collect();
    let errors = trace.spans.iter().filter(|span| span.error).count();
    let mut facts = vec![
        units::time(chart.start, UnixNanos(0)),
        units::duration(chart.length),
        number(trace.spans.len(), "span"),
        number(services.len(), "service"),
    ];
    if errors > 0 {
        facts.push(style.paint(&number(errors, "error"), Paint::Error));
    }
    let id = style.paint(&escape(&trace.trace_id), Paint::Bold);
    vec![format!("trace {id}"), facts.join(", "), String::new()]
}

/// What is known of the highlighted span, its resource last: where to look for the reason.
fn details(trace: &TraceView, span: &SpanView, width: usize, style: Style) -> Vec<String> {
    let ellipsis = style.pick("~", "\u{2026}");
    let title = format!("{}: {}", trace.service(span), span.name);
    let title = fit(&escape(&title), width - 2, ellipsis);
    let mut lines = vec![String::new(), format!("> {}", style.paint(title.trim_end(), Paint::Highlight))];
    lines.extend(standing(trace, span, width - 2, ellipsis).iter().map(|line| format!("  {}", line.trim_end())));
    if !span.status_message.is_empty() {
        let message = fit(&escape(&span.status_message), width - 2, ellipsis);
        lines.push(format!("  {}", style.paint(message.trim_end(), Paint::Error)));
    }
    let resource = trace.resources.get(span.resource).map(|resource| resource.attributes.as_slice());
    let attributes = || span.attributes.iter().chain(resource.unwrap_or_default());
    let shown = || attributes().take(DETAILS_MAX);
    let key_columns = shown().map(|(key, _)| columns(&escape(key))).max().unwrap_or(0).min(width / 2);
    for (key, value) in shown() {
        let key = fit(&escape(key), key_columns, ellipsis);
        let value = fit(&escape(value), width - key_columns - 4, ellipsis);
        lines.push(format!("  {}  {}", style.paint(&key, Paint::Dim), value.trim_end()));
    }
    let left_out = attributes().count().saturating_sub(DETAILS_MAX);
    if left_out > 0 {
        lines.push(format!("  ... {}", number(left_out, "more attribute")));
    }
    lines
}

/// Its rank and its part of the critical path, on one line where that fits into `width` columns.
fn standing(trace: &TraceView, span: &SpanView, width: usize, ellipsis: &str) -> Vec<String> {
    let rank = span.rank.as_ref().map(|rank| {
        let (percentile, count) = (units::rank(rank.percentile), units::count(rank.count));
        format!("{percentile} of {count} {} spans within half an hour", escape(&rank.series))
    });
    let path = match span.on_path {
        Some(own) => Some(format!("{} of its own on the critical path", units::duration(own))),
        None if trace.path_roots > 0 => Some("not on the critical path".to_owned()),
        None => None,
    };
    let facts: Vec<String> = rank.into_iter().chain(path).collect();
    let line = facts.join(", ");
    let lines = if line.is_empty() || columns(&line) <= width { vec![line] } else { facts };
    lines.iter().filter(|line| !line.is_empty()).map(|line| fit(line, width, ellipsis)).collect()
}

fn number(count: usize, what: &str) -> String {
    format!("{} {what}{}", units::count(count as u64), if count == 1 { "" } else { "s" })
}
