//! Tables: percentiles with their exemplars, and services.

use comfy_table::presets::{ASCII_FULL_CONDENSED, UTF8_FULL_CONDENSED};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use super::text::{columns, escape, fit};
use super::{Paint, Style, units};
use crate::cli::view::{ExemplarView, PercentileView, PinsView, QuantileView, ServicesView};
use crate::model::{DurationNanos, UnixNanos};

/// Columns of the longest text in a cell.
const CELL_COLUMNS_MAX: usize = 48;
/// The default peel dimensions, those that most often hold the cause first.
const SHORT_KEYS: [(&str, &str); 7] = [
    ("cloud.availability_zone", "zone"),
    ("k8s.node.name", "node"),
    ("service.version", "version"),
    ("k8s.pod.name", "pod"),
    ("host.name", "host"),
    ("cloud.region", "region"),
    ("deployment.environment.name", "environment"),
];

/// The percentiles of a service, each with its best exemplar: a headline, a table with one line per quantile (then one
/// per group), and what the numbers leave out. `now` is what ages are counted from.
pub fn percentile_table(view: &PercentileView, now: UnixNanos, style: Style) -> String {
    let mut out = headline(view, now, style);
    if view.count == 0 {
        out.push_str("no spans in this window\n");
    } else {
        out.push_str(&quantile_lines(&view.quantiles, now, style));
    }
    for group in &view.groups {
        let labels: Vec<_> = group.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let title = format!("\n{}", escape(&labels.join(" ")));
        let title = style.paint(&title, Paint::Bold);
        out.extend([title.as_str(), "  ", &spans(group.count), "\n"]);
        if group.count > 0 {
            out.push_str(&quantile_lines(&group.quantiles, now, style));
        }
    }
    if !view.coverage.complete {
        let reasons = view.coverage.reasons.join("; ");
        out.extend([&style.paint("incomplete:", Paint::Error), " ", &escape(&reasons), "\n"]);
    }
    out
}

/// The services, as the server ordered them.
pub fn services_table(view: &ServicesView, now: UnixNanos, style: Style) -> String {
    if view.services.is_empty() {
        return "no services yet\n".to_owned();
    }
    let mut table = empty_table(style, &["service", "namespace", "spans", "last seen"]);
    for service in &view.services {
        let _table = table.add_row(vec![
            cell(&service.name).add_attribute(Attribute::Bold),
            cell(&service.namespace),
            right(&units::count(service.span_count)),
            right(&units::age(service.last_seen_unix_nano, now)),
        ]);
    }
    format!("{table}\n")
}

/// The pins, as the server ordered them.
pub fn pins_table(view: &PinsView, now: UnixNanos, style: Style) -> String {
    if view.pins.is_empty() {
        return "no trace is pinned\n".to_owned();
    }
    let mut table = empty_table(style, &["trace", "pinned", "until", "note"]);
    for pin in &view.pins {
        let until = pin.expires_unix_nano.as_ref().and_then(|expires| expires.parse().ok()).map(UnixNanos);
        let _table = table.add_row(vec![
            cell(&pin.trace_id).add_attribute(Attribute::Bold),
            right(&units::age(pin.pinned_at_unix_nano, now)),
            cell(&until.map_or_else(|| "for ever".to_owned(), |until| units::time(until, now))),
            cell(&pin.note),
        ]);
    }
    format!("{table}\n")
}

fn headline(view: &PercentileView, now: UnixNanos, style: Style) -> String {
    let length = units::duration(view.end_unix_nano.since(view.start_unix_nano));
    format!(
        "{}  {} to {} ({length})  {}\n",
        style.paint(&escape(&view.service), Paint::Bold),
        units::time(view.start_unix_nano, now),
        units::time(view.end_unix_nano, now),
        spans(view.count),
    )
}

fn spans(count: u64) -> String {
    format!("{} {}", units::count(count), if count == 1 { "span" } else { "spans" })
}

fn quantile_lines(quantiles: &[QuantileView], now: UnixNanos, style: Style) -> String {
    let header = ["", "latency", style.pick("+-", "\u{b1}"), "rank", "exemplar", "lasted", "when", "where"];
    let mut table = empty_table(style, &header);
    for quantile in quantiles {
        let latency = quantile.value_ns.map_or_else(|| "-".to_owned(), |value| units::duration(DurationNanos(value)));
        let mut row = vec![
            cell(&units::quantile(quantile.q)).add_attribute(Attribute::Bold),
            right(&latency),
            right(&relative_error(quantile.relative_error_max)),
            right(&quantile.rank.map_or_else(|| "-".to_owned(), units::count)),
        ];
        match quantile.exemplars.first() {
            Some(exemplar) => row.extend(exemplar_cells(exemplar, now)),
            None => row.push(cell("none kept")),
        }
        let _table = table.add_row(row);
    }
    format!("{table}\n")
}

fn exemplar_cells(exemplar: &ExemplarView, now: UnixNanos) -> [Cell; 4] {
    let near = if exemplar.in_bucket { "" } else { " (nearest)" };
    let when = format!("{}, {}", units::time(exemplar.time_unix_nano, now), units::age(exemplar.time_unix_nano, now));
    let id = cell(&exemplar.trace_id);
    [
        if exemplar.error { id.fg(Color::Red) } else { id.fg(Color::Cyan) },
        right(&format!("{}{near}", units::duration(DurationNanos(exemplar.duration_ns)))),
        cell(&when),
        cell(&place(exemplar)),
    ]
}

/// The exemplar's attributes under short keys, the most telling first: `error zone=eu-1b pod=checkout-5f`.
fn place(exemplar: &ExemplarView) -> String {
    let known = SHORT_KEYS.iter().filter_map(|(key, short)| Some((*short, exemplar.attributes.get(*key)?)));
    let is_known = |key: &str| SHORT_KEYS.iter().any(|(known, _)| *known == key);
    let others = exemplar.attributes.iter().filter(|(key, _)| !is_known(key));
    let others = others.map(|(key, value)| (key.rsplit('.').next().unwrap_or(key), value));
    let attributes = known.chain(others).map(|(key, value)| format!("{key}={value}"));
    exemplar.error.then(|| "error".to_owned()).into_iter().chain(attributes).collect::<Vec<_>>().join(" ")
}

fn relative_error(share: Option<f64>) -> String {
    let Some(share) = share else { return "-".to_owned() };
    let percent = format!("{:.3}", share * 100.0);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}

fn empty_table(style: Style, header: &[&str]) -> Table {
    let mut table = Table::new();
    let _styled = table
        .load_style(if style.ascii { ASCII_FULL_CONDENSED } else { UTF8_FULL_CONDENSED })
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(Cell::new));
    // The caller knows whether the output is a terminal; the library must not guess.
    let _styled = if style.color { table.enforce_styling() } else { table.force_no_tty() };
    table
}

fn cell(text: &str) -> Cell {
    let safe = escape(text);
    let width = columns(&safe).min(CELL_COLUMNS_MAX);
    Cell::new(fit(&safe, width, "~"))
}

fn right(text: &str) -> Cell {
    cell(text).set_alignment(CellAlignment::Right)
}
