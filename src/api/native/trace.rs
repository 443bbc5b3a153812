//! `/spandrel/v1/traces/{id}`: a trace as OTLP/JSON `TracesData`, and what we make of it in a field that readers of OTLP
//! pass over.
//!
//! ```text
//! {"resourceSpans":[..],
//!  "spandrel":{"criticalPath":[{"rootSpanId":"00f0..","spanId":"16e2..","kind":2,"selfTimeNano":41000000}],
//!              "ranks":[{"spanId":"16e2..","kind":2,"percentile":0.973,"count":12345,"series":"checkout POST /pay"}]}}
//! ```
//!
//! `kind` tells two spans with one id apart. `rank=false` leaves the ranks out. What is missing is said in the header
//! `spandrel-coverage`.

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::model::{SpanBatch, TraceId};
use crate::otlp::{self, JsonDialect};
use crate::query::{Coverage, Query, QueryError, SpanRank, critical_paths};

use super::{DOOR, Doors, Failure};
use crate::api::params::{BadParameter, Params};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpandrelJson {
    /// By root, then by start. A trace has several roots when parents are not stored.
    critical_path: Vec<PathSpanJson>,
    /// One for each span that has a rank.
    #[serde(skip_serializing_if = "Option::is_none")]
    ranks: Option<Vec<RankJson>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PathSpanJson {
    root_span_id: String,
    span_id: String,
    kind: i32,
    self_time_nano: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RankJson {
    span_id: String,
    kind: i32,
    /// Part of the `count` spans of the series, in the hour around the trace, that were not slower than this one.
    percentile: f64,
    count: u64,
    series: String,
}

pub(super) async fn trace(State(doors): State<Doors>, Path(id): Path<String>, uri: Uri) -> Result<Response, Failure> {
    let ranked = Params::strict(&uri, &["rank"])?.flag("rank", true)?;
    let id = TraceId::parse_lenient(&id).map_err(|error| BadParameter(error.to_string()))?;
    let found = doors.ask(DOOR, move |query| answer(query, id, ranked)).await?;
    let Some((body, coverage)) = found else {
        let retention = "it was never sent, rejected, or has left with its retention";
        return Err(Failure::new(StatusCode::NOT_FOUND, format!("no span of trace {id} is stored: {retention}")));
    };
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if !coverage.is_complete()
        && let Ok(value) = header::HeaderValue::from_str(&coverage.reasons.join("; "))
    {
        let _none = response.headers_mut().insert("spandrel-coverage", value);
    }
    Ok(response)
}

/// `None` when no span is stored, as far as can be told.
fn answer(query: &Query, id: TraceId, ranked: bool) -> Result<Option<(String, Coverage)>, QueryError> {
    let trace = query.trace(id)?;
    let mut coverage = trace.coverage;
    if trace.batch.spans.is_empty() && coverage.is_complete() {
        return Ok(None);
    }
    let mut ranks = None;
    if ranked {
        let answer = query.ranks(&trace.batch)?;
        coverage.also(answer.coverage);
        ranks = Some(rank_rows(&trace.batch, &answer.ranks));
    }
    let spandrel = SpandrelJson { critical_path: path_rows(&trace.batch), ranks };
    let spandrel = serde_json::to_string(&spandrel).map_err(|_| QueryError::Failed)?;
    let mut body = otlp::encode_json(&trace.batch, JsonDialect::Otlp);
    let _brace = body.pop();
    body.extend([",\"spandrel\":", &spandrel, "}"]);
    Ok(Some((body, coverage)))
}

fn path_rows(batch: &SpanBatch) -> Vec<PathSpanJson> {
    let mut rows = Vec::new();
    for path in critical_paths(batch) {
        let Some(root) = batch.spans.get(path.root) else { continue };
        let spans = path.spans.iter().filter_map(|on_path| Some((on_path, batch.spans.get(on_path.row)?)));
        rows.extend(spans.map(|(on_path, span)| PathSpanJson {
            root_span_id: root.span_id.to_string(),
            span_id: span.span_id.to_string(),
            kind: span.kind,
            self_time_nano: on_path.self_time.0,
        }));
    }
    rows
}

fn rank_rows(batch: &SpanBatch, ranks: &[Option<SpanRank>]) -> Vec<RankJson> {
    let ranked = batch.spans.iter().zip(ranks).filter_map(|(span, rank)| Some((span, rank.as_ref()?)));
    let rows = ranked.map(|(span, rank)| RankJson {
        span_id: span.span_id.to_string(),
        kind: span.kind,
        percentile: rank.percentile(),
        count: rank.count,
        series: format!("{} {}", batch.service_of(span).1, batch.text_lossy(span.name)),
    });
    rows.collect()
}
