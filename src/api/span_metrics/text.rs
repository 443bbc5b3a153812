//! OpenMetrics 1.0 (`https://prometheus.io/docs/specs/om/open_metrics_spec/`).

use std::fmt::Write as _;

use crate::query::promql::catalogue::Metric;
use crate::query::promql::exemplars::PromExemplar;
use crate::query::promql::labels::Labels;
use crate::query::promql::number_text;
use crate::query::promql::series::Millis;
use crate::query::promql::totals::{Total, Totals, exemplar_millis, secs_of};

pub(super) fn written(totals: &Totals) -> String {
    let mut out = String::new();
    for subject in totals.subjects() {
        let of_subject = || totals.series.iter().filter(move |((known, _), _)| *known == subject);
        if let Some(metric) = subject.counter() {
            family(&mut out, metric, "counter");
            for ((_, labels), total) in of_subject() {
                counter(&mut out, metric.name, labels, total.count, totals.since, total.exemplar.as_ref());
            }
        }
        if let Some(metric) = subject.failures() {
            family(&mut out, metric, "counter");
            for ((_, labels), total) in of_subject() {
                counter(&mut out, metric.name, labels, total.failed, totals.since, None);
            }
        }
        if let Some(metric) = subject.histogram() {
            family(&mut out, metric, "histogram");
            for ((_, labels), total) in of_subject() {
                histogram(&mut out, metric.name, labels, total, totals.since);
            }
        }
    }
    out.push_str("# EOF\n");
    out
}

/// Writing into memory does not fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _in_memory = write!($out, $($arg)*); }};
}

fn family(out: &mut String, metric: &Metric, kind: &str) {
    let name = metric.name.strip_suffix("_total").unwrap_or(metric.name);
    put!(out, "# TYPE {name} {kind}\n# HELP {name} {}\n", metric.help);
}

fn labels_text(out: &mut String, labels: &Labels, bound: Option<&str>) {
    out.push('{');
    let bound = bound.map(|bound| ("le", bound));
    for (number, (name, value)) in labels.iter().chain(bound).enumerate() {
        let between = if number == 0 { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        put!(out, "{between}{name}=\"{value}\"");
    }
    out.push('}');
}

fn instant(out: &mut String, at: Millis) {
    put!(out, "{}.{:03}", at / 1_000, at % 1_000);
}

fn end(out: &mut String, exemplar: Option<&PromExemplar>) {
    if let Some(one) = exemplar {
        let value = number_text(secs_of(one.latency));
        put!(out, " # {{trace_id=\"{}\",span_id=\"{}\"}} {value} ", one.trace_id, one.span_id);
        instant(out, exemplar_millis(one));
    }
    out.push('\n');
}

fn created(out: &mut String, name: &str, labels: &Labels, since: Millis) {
    put!(out, "{name}_created");
    labels_text(out, labels, None);
    out.push(' ');
    instant(out, since);
    out.push('\n');
}

fn counter(out: &mut String, name: &str, labels: &Labels, value: u64, since: Millis, exemplar: Option<&PromExemplar>) {
    out.push_str(name);
    labels_text(out, labels, None);
    put!(out, " {value}");
    end(out, exemplar);
    created(out, name.strip_suffix("_total").unwrap_or(name), labels, since);
}

fn histogram(out: &mut String, name: &str, labels: &Labels, total: &Total, since: Millis) {
    for bucket in total.buckets() {
        put!(out, "{name}_bucket");
        labels_text(out, labels, Some(bucket.bound));
        put!(out, " {}", bucket.count);
        end(out, bucket.exemplar);
    }
    put!(out, "{name}_count");
    labels_text(out, labels, None);
    put!(out, " {}\n{name}_sum", total.timed);
    labels_text(out, labels, None);
    put!(out, " {}\n", number_text(total.sum_secs()));
    created(out, name, labels, since);
}
