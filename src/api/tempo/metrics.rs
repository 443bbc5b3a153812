//! TraceQL metrics as Grafana's Tempo data source asks for them: `/api/metrics/query_range` and `/api/metrics/query`.
//! Names unknown to the data source of May 2025 would break the whole answer, so there are none.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::parameters::{Bad, Parameters};
use super::search::refused;
use super::{DOOR, Doors, json, text};
use crate::api::refusal::query_status;
use crate::model::{DurationNanos, TimeRange, UnixNanos};
use crate::query::traceql::{FieldValue, MetricsQuery};
use crate::query::{MetricsAnswer, MetricsExemplar, MetricsQuestion, MetricsSeries, QueryError};

/// Exemplars of an answer unless something else is asked for, and at most.
const EXEMPLARS_MAX: usize = 100;
/// Points of a range whose step is left to us, about.
const POINTS: u64 = 240;
const SECOND: u64 = 1_000_000_000;
/// How far a range without a start goes back.
const SINCE: DurationNanos = DurationNanos(3_600 * SECOND);
/// Steps that are left to us are multiples of the longest of these that fits, in seconds.
const STEPS_SECS: [u64; 6] = [3_600, 300, 60, 15, 5, 1];
/// Where even a second is too long.
const SHORT_STEP: u64 = 50_000_000;

pub(super) fn router() -> Router<Doors> {
    Router::new().route("/api/metrics/query_range", get(range)).route("/api/metrics/query", get(instant))
}

async fn range(State(doors): State<Doors>, uri: Uri) -> Response {
    match Parameters::of(&uri).and_then(|parameters| range_question(&parameters, doors.query.now())) {
        Ok(question) => answer(&doors, question, range_series).await,
        Err(why) => text(StatusCode::BAD_REQUEST, why),
    }
}

async fn instant(State(doors): State<Doors>, uri: Uri) -> Response {
    match Parameters::of(&uri).and_then(|parameters| instant_question(&parameters, doors.query.now())) {
        Ok(question) => answer(&doors, question, instant_series).await,
        Err(why) => text(StatusCode::BAD_REQUEST, why),
    }
}

async fn answer(doors: &Doors, question: MetricsQuestion, series: fn(&MetricsSeries) -> Value) -> Response {
    let written = doors.ask(DOOR, move |query| {
        let answer = query.metrics(&question)?;
        let whole = Whole { series: OneByOne(&answer.series, series), rest: without_series(&answer) };
        serde_json::to_vec(&whole).map_err(|_| QueryError::Failed)
    });
    written.await.map_or_else(|error| text(query_status(&error), error.to_string()), json)
}

#[derive(Serialize)]
struct Whole<'a> {
    series: OneByOne<'a>,
    #[serde(flatten)]
    rest: Value,
}

/// A point takes ten times as much as a value than as a text, so only one series is one at a time.
struct OneByOne<'a>(&'a [MetricsSeries], fn(&MetricsSeries) -> Value);

impl Serialize for OneByOne<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// An answer but for its series.
pub(super) fn without_series(MetricsAnswer { spans, coverage, .. }: &MetricsAnswer) -> Value {
    let status = if coverage.is_complete() { "COMPLETE" } else { "PARTIAL" };
    json!({
        "metrics": { "completedJobs": 1, "totalJobs": 1, "inspectedSpans": spans.to_string() },
        "status": status,
        "message": coverage.reasons.join("; "),
    })
}

pub(super) fn range_question(parameters: &Parameters, now: UnixNanos) -> Result<MetricsQuestion, Bad> {
    question(parameters, now, |range| Ok(parameters.step()?.unwrap_or_else(|| default_step(range))))
}

/// One interval: the whole range.
pub(super) fn instant_question(parameters: &Parameters, now: UnixNanos) -> Result<MetricsQuestion, Bad> {
    let question = question(parameters, now, |range| Ok(length(range)))?;
    Ok(MetricsQuestion { exemplars_max: 0, ..question })
}

fn question(
    parameters: &Parameters,
    now: UnixNanos,
    step: impl Fn(TimeRange) -> Result<DurationNanos, Bad>,
) -> Result<MetricsQuestion, Bad> {
    let q = parameters.get("q").or_else(|| parameters.get("query")).unwrap_or_default();
    let query: MetricsQuery = q.parse().map_err(|error| refused(&error))?;
    let since = parameters.duration("since")?.unwrap_or(SINCE);
    let end = parameters.time("end", now)?.unwrap_or(now);
    let start = parameters.time("start", now)?.unwrap_or(end.saturating_sub(since));
    let range = TimeRange { start, end };
    if range.end <= range.start {
        return Err("end must be greater than start".to_owned());
    }
    let asked = parameters.get("exemplars").and_then(|text| text.parse().ok()).filter(|asked| *asked != 0);
    let exemplars_max = query.exemplars.or(asked).unwrap_or(EXEMPLARS_MAX).min(EXEMPLARS_MAX);
    Ok(MetricsQuestion { step: step(range)?, query, range, exemplars_max })
}

fn length(range: TimeRange) -> DurationNanos {
    DurationNanos(range.end.0.saturating_sub(range.start.0))
}

fn default_step(range: TimeRange) -> DurationNanos {
    let about = length(range).0 / POINTS;
    let unit = STEPS_SECS.into_iter().map(|secs| secs * SECOND).find(|unit| *unit <= about).unwrap_or(SHORT_STEP);
    DurationNanos((about / unit * unit).max(SHORT_STEP))
}

pub(super) fn instant_series(series: &MetricsSeries) -> Value {
    let value = series.points.first().map_or(0.0, |(_, value)| *value);
    json!({ "labels": labels(&series.labels), "value": double(value) })
}

pub(super) fn range_series(series: &MetricsSeries) -> Value {
    let samples =
        series.points.iter().map(|(at, value)| json!({ "timestampMs": millis(*at), "value": double(*value) }));
    json!({
        "labels": labels(&series.labels),
        "samples": samples.collect::<Vec<_>>(),
        "exemplars": series.exemplars.iter().map(exemplar).collect::<Vec<_>>(),
    })
}

fn exemplar(exemplar: &MetricsExemplar) -> Value {
    let ids = [
        label("trace:id", &Value::from(exemplar.ids.trace_id.to_string())),
        label("span:id", &Value::from(exemplar.ids.span_id.to_string())),
    ];
    let labels: Vec<Value> = ids.into_iter().chain(labels(&exemplar.fields)).collect();
    json!({ "labels": labels, "value": double(exemplar.value), "timestampMs": millis(exemplar.at) })
}

fn millis(at: UnixNanos) -> String {
    (at.0 / 1_000_000).to_string()
}

fn labels(labels: &[(String, FieldValue)]) -> Vec<Value> {
    labels.iter().map(|(key, value)| json!({ "key": key, "value": any_value(value) })).collect()
}

/// JSON of protobuf: what no JSON number is goes as text.
fn double(value: f64) -> Value {
    if value.is_finite() {
        return Value::from(value);
    }
    Value::from(if value.is_nan() {
        "NaN"
    } else if 0.0 < value {
        "Infinity"
    } else {
        "-Infinity"
    })
}

fn label(key: &str, text: &Value) -> Value {
    json!({ "key": key, "value": { "stringValue": text } })
}

/// Only scalars: the data source blanks everything else.
fn any_value(value: &FieldValue) -> Value {
    match value {
        FieldValue::Int(number) => json!({ "intValue": number.to_string() }),
        FieldValue::Float(number) => json!({ "doubleValue": double(number.0) }),
        FieldValue::Bool(value) => json!({ "boolValue": value }),
        other => json!({ "stringValue": other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_is_left_to_us_makes_about_240_round_points() {
        for (range_secs, step_ms) in [
            (30, 100),
            (60, 250),
            (240, 1_000),
            (900, 3_000),
            (3_600, 15_000),
            (86_400, 300_000),
            (30 * 86_400, 10_800_000),
        ] {
            let range = TimeRange { start: UnixNanos(5), end: UnixNanos(5 + range_secs * SECOND) };
            assert_eq!(default_step(range).0, step_ms * 1_000_000, "{range_secs} s");
        }
    }
}
