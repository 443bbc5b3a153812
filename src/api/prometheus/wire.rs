//! Answers as Prometheus writes them. Keys stand in the order that clients rely on: `resultType` before `result`,
//! `seriesLabels` before `exemplars`.

use std::io::Write as _;

use crate::query::promql::exemplars::SeriesExemplars;
use crate::query::promql::histogram::Histogram;
use crate::query::promql::labels::Labels;
use crate::query::promql::series::{Millis, Samples, Series};
use crate::query::promql::{Instants, PromAnswer, PromValue, number_text};

/// The whole body of an answer.
pub(super) fn written(answer: &PromAnswer, grid: &[Millis], instants: Instants) -> Vec<u8> {
    let mut out = br#"{"status":"success","data":{"resultType":"#.to_vec();
    let is_range = matches!(instants, Instants::Range { .. });
    let first = grid.first().copied().unwrap_or(0);
    match &answer.value {
        PromValue::Scalar(numbers) if is_range => {
            out.extend_from_slice(br#""matrix","result":["#);
            let values = numbers.iter().copied().map(Some).collect();
            matrix(&mut out, &Series { labels: Labels::default(), samples: Samples::Floats(values) }, grid);
            out.push(b']');
        }
        PromValue::Scalar(numbers) => {
            out.extend_from_slice(br#""scalar","result":"#);
            pair(&mut out, first, &number_text(numbers.first().copied().unwrap_or(f64::NAN)));
        }
        PromValue::Text(text) => {
            out.extend_from_slice(br#""string","result":"#);
            pair(&mut out, first, text);
        }
        PromValue::Vector(series) => {
            let kind: &[u8] = if is_range { br#""matrix","result":["# } else { br#""vector","result":["# };
            out.extend_from_slice(kind);
            list(&mut out, series, |out, one| if is_range { matrix(out, one, grid) } else { vector(out, one, first) });
            out.push(b']');
        }
    }
    out.push(b'}');
    warnings(&mut out, &answer.warnings);
    out.push(b'}');
    out
}

/// The whole body of exemplars.
pub(super) fn exemplars(series: &[SeriesExemplars], missing: &[String]) -> Vec<u8> {
    let mut out = br#"{"status":"success","data":["#.to_vec();
    list(&mut out, series, |out, one| {
        out.extend_from_slice(br#"{"seriesLabels":"#);
        labels(out, &one.labels);
        out.extend_from_slice(br#","exemplars":["#);
        list(out, &one.exemplars, |out, exemplar| {
            #[expect(clippy::cast_precision_loss, reason = "latencies are below 2^53 ns")]
            let secs = exemplar.latency.0 as f64 / 1e9;
            let (trace, span) = (exemplar.trace_id, exemplar.span_id);
            let _in_memory = write!(out, r#"{{"labels":{{"trace_id":"{trace}","span_id":"{span}"}},"value":""#);
            let _in_memory = write!(out, r#"{}","timestamp":"#, number_text(secs));
            timestamp(out, Millis::try_from(exemplar.at.0 / 1_000_000).unwrap_or(Millis::MAX));
            out.push(b'}');
        });
        out.extend_from_slice(b"]}");
    });
    out.push(b']');
    warnings(&mut out, missing);
    out.push(b'}');
    out
}

fn list<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    for (number, item) in items.iter().enumerate() {
        if 0 < number {
            out.push(b',');
        }
        write(out, item);
    }
}

fn warnings(out: &mut Vec<u8>, warnings: &[String]) {
    if !warnings.is_empty() {
        out.extend_from_slice(br#","warnings":["#);
        list(out, warnings, |out, warning| text(out, warning));
        out.push(b']');
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Texts have no key that could be no text.
    let _in_memory = serde_json::to_writer(out, text);
}

fn labels(out: &mut Vec<u8>, labels: &Labels) {
    let pairs: Vec<(&str, &str)> = labels.iter().collect();
    out.push(b'{');
    list(out, &pairs, |out, (name, value)| {
        text(out, name);
        out.push(b':');
        text(out, value);
    });
    out.push(b'}');
}

/// Seconds, with the milliseconds that there are.
fn timestamp(out: &mut Vec<u8>, at: Millis) {
    let _in_memory = match (at.abs() / 1_000, at.abs() % 1_000) {
        (secs, 0) => write!(out, "{}{secs}", if at < 0 { "-" } else { "" }),
        (secs, millis) => write!(out, "{}{secs}.{millis:03}", if at < 0 { "-" } else { "" }),
    };
}

fn pair(out: &mut Vec<u8>, at: Millis, value: &str) {
    out.push(b'[');
    timestamp(out, at);
    out.push(b',');
    text(out, value);
    out.push(b']');
}

fn vector(out: &mut Vec<u8>, series: &Series, at: Millis) {
    out.extend_from_slice(br#"{"metric":"#);
    labels(out, &series.labels);
    match &series.samples {
        Samples::Floats(values) => {
            out.extend_from_slice(br#","value":"#);
            pair(out, at, &number_text(values.first().copied().flatten().unwrap_or(f64::NAN)));
        }
        Samples::Histograms(values) | Samples::Buckets(values) => {
            out.extend_from_slice(br#","histogram":"#);
            if let Some(Some(histogram)) = values.first() {
                histogram_at(out, at, histogram);
            }
        }
    }
    out.push(b'}');
}

fn matrix(out: &mut Vec<u8>, series: &Series, grid: &[Millis]) {
    out.extend_from_slice(br#"{"metric":"#);
    labels(out, &series.labels);
    match &series.samples {
        Samples::Floats(values) => {
            out.extend_from_slice(br#","values":["#);
            let there: Vec<(Millis, f64)> =
                grid.iter().zip(values).filter_map(|(at, value)| Some((*at, (*value)?))).collect();
            list(out, &there, |out, (at, value)| pair(out, *at, &number_text(*value)));
        }
        Samples::Histograms(values) | Samples::Buckets(values) => {
            out.extend_from_slice(br#","histograms":["#);
            let there: Vec<(Millis, &Histogram)> =
                grid.iter().zip(values).filter_map(|(at, value)| Some((*at, value.as_deref()?))).collect();
            list(out, &there, |out, (at, histogram)| histogram_at(out, *at, histogram));
        }
    }
    out.extend_from_slice(b"]}");
}

fn histogram_at(out: &mut Vec<u8>, at: Millis, histogram: &Histogram) {
    out.push(b'[');
    timestamp(out, at);
    let (count, sum) = (number_text(histogram.count()), number_text(histogram.sum()));
    let _in_memory = write!(out, r#",{{"count":"{count}","sum":"{sum}","buckets":["#);
    list(out, &histogram.cells(), |out, cell| {
        let (lower, upper, count) = (number_text(cell.lower), number_text(cell.upper), number_text(cell.count));
        // 0: above the lower bound, to the upper one.
        let _in_memory = write!(out, r#"[0,"{lower}","{upper}","{count}"]"#);
    });
    out.extend_from_slice(b"]}]");
}
