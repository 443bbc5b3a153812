//! Tables: percentiles with their exemplars, and services.

use comfy_table::presets::{ASCII_FULL_CONDENSED, UTF8_FULL_CONDENSED};
use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};

use super::text::{columns, escape, fit};
use super::{Paint, Style, units};
use crate::cli::view::{
    CoverageView, ExemplarView, GraphView, PercentileView, PinsView, QuantileView, SearchView, ServicesView,
};
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
    if let Some(earlier) = &view.versus {
        let value = |quantile: &QuantileView| {
            let value = units::duration(DurationNanos(quantile.value_ns?));
            Some(format!("{} {value}", units::quantile(quantile.q)))
        };
        let values: Vec<String> = earlier.quantiles.iter().filter_map(value).collect();
        let back = units::duration(view.start_unix_nano.since(earlier.start_unix_nano));
        out.extend([&back, " earlier: ", &spans(earlier.count), "  ", &values.join("  "), "\n"]);
    }
    if !view.groups.is_empty() {
        out.push_str(&group_lines(view, style));
    }
    out + &incomplete(&view.coverage, style)
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

/// The traces that were found, as the server ordered them.
pub fn search_table(view: &SearchView, now: UnixNanos, style: Style) -> String {
    if view.traces.is_empty() {
        return "no such trace in this window; try a longer --last\n".to_owned();
    }
    let mut table = empty_table(style, &["trace", "began", "lasted", "root", "", "matching", "spans", "errors"]);
    for trace in &view.traces {
        let lasted = match trace.duration_ms {
            0 => "< 1 ms".to_owned(),
            millis => units::duration(DurationNanos(millis.saturating_mul(1_000_000))),
        };
        let matching = trace.span_sets.iter().map(|set| set.matched).sum();
        let spans = trace.service_stats.values().map(|counts| counts.span_count).sum();
        let errors = trace.service_stats.values().map(|counts| counts.error_count).sum();
        let _table = table.add_row(vec![
            cell(&trace.trace_id).add_attribute(Attribute::Bold),
            right(&units::age(trace.start_time_unix_nano, now)),
            right(&lasted),
            cell(&trace.root_service_name),
            cell(&trace.root_trace_name),
            right(&units::count(matching)),
            right(&units::count(spans)),
            right(&units::count(errors)),
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

/// One line per group, those that add most to the tail first.
fn group_lines(view: &PercentileView, style: Style) -> String {
    let quantiles = view.groups.first().map(|group| group.quantiles.as_slice()).unwrap_or_default();
    let names: Vec<String> = quantiles.iter().map(|quantile| units::quantile(quantile.q)).collect();
    let mut header = vec!["group", "spans", "in the tail", "expected"];
    header.extend(names.iter().map(String::as_str));
    header.push("exemplar");
    let mut table = empty_table(style, &header);
    for group in &view.groups {
        let label = |(key, value): (&String, &Option<String>)| match value {
            Some(value) => format!("{key}={value}"),
            None => format!("without {key}"),
        };
        let labels: Vec<String> = group.labels.iter().map(label).collect();
        let mut row = vec![
            cell(&labels.join(" ")).add_attribute(Attribute::Bold),
            right(&units::count(group.count)),
            right(&units::count(group.tail_count)),
            right(&format!("{:.1}", group.tail_expected)),
        ];
        let value = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |ns| units::duration(DurationNanos(ns)));
        row.extend(group.quantiles.iter().map(|quantile| right(&value(quantile.value_ns))));
        let tail = group.quantiles.iter().rev().find(|quantile| quantile.q < 1.0).or(group.quantiles.last());
        let exemplar = tail.and_then(|quantile| quantile.exemplars.first());
        row.push(cell(exemplar.map_or("", |exemplar| exemplar.trace_id.as_str())));
        let _table = table.add_row(row);
    }
    let rest = view.rest.map_or_else(String::new, |rest| {
        format!("{} more groups with {}\n", units::count(rest.groups), spans(rest.count))
    });
    format!("\n{table}\n{rest}")
}

/// The service graph, one line per edge.
pub fn graph_table(view: &GraphView, style: Style) -> String {
    if view.edges.is_empty() {
        return "no calls between services in this window; try a longer --last\n".to_owned();
    }
    let mut table =
        empty_table(style, &["client", "server", "type", "calls", "per s", "failed", "p50", "p99", "slowest"]);
    for edge in &view.edges {
        let side = &edge.server_side;
        let value = |q: f64| {
            let found = side.quantiles.iter().find(|quantile| (quantile.q - q).abs() < 1e-9);
            let value = found.and_then(|quantile| quantile.value_ns);
            value.map_or_else(|| "-".to_owned(), |ns| units::duration(DurationNanos(ns)))
        };
        let failed = cell(&units::count(side.error_count)).set_alignment(CellAlignment::Right);
        let _table = table.add_row(vec![
            cell(&edge.client).add_attribute(Attribute::Bold),
            cell(&edge.server).add_attribute(Attribute::Bold),
            cell(&edge.connection_type),
            right(&units::count(side.count)),
            right(&format!("{:.2}", side.rate_per_second)),
            if 0 < side.error_count { failed.fg(Color::Red) } else { failed },
            right(&value(0.5)),
            right(&value(0.99)),
            cell(edge.exemplars.first().map_or("", |exemplar| exemplar.trace_id.as_str())),
        ]);
    }
    format!("{table}\n{}", incomplete(&view.coverage, style))
}

fn incomplete(coverage: &CoverageView, style: Style) -> String {
    if coverage.complete {
        return String::new();
    }
    format!("{} {}\n", style.paint("incomplete:", Paint::Error), escape(&coverage.reasons.join("; ")))
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
