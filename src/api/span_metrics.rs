//! `/metrics/spans`: the metrics of the catalogue for a Prometheus of somebody's own, counted since the start of this process.
//!
//! As OpenMetrics text, with classic buckets at powers of two of nanoseconds and exemplars; as protobuf, for who asks for that
//! first, with native histograms (schema 3) beside the classic buckets.

mod protobuf;
mod text;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::query::QueryError;
use crate::query::promql::PromError;
use crate::query::promql::totals::Totals;

use super::Doors;
use super::prometheus::millis;
use super::refusal::query_status;

const DOOR: &str = "span_metrics";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

pub(super) fn router() -> Router<Doors> {
    Router::new().route("/metrics/spans", get(span_metrics))
}

/// Prometheus names protobuf first when it wants native histograms.
fn wants_protobuf(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.trim_start().starts_with("application/vnd.google.protobuf")
}

async fn span_metrics(State(doors): State<Doors>, headers: HeaderMap) -> Response {
    let is_protobuf = wants_protobuf(&headers);
    let totals = std::sync::Arc::clone(&doors.totals);
    let written = doors.ask(DOOR, move |query| {
        let mut totals = totals.lock();
        match query.advance(&mut totals, Totals::due(millis(query.now()))) {
            Err(PromError::Query(error)) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "span metrics could not be counted");
                return Err(QueryError::Failed);
            }
            Ok(()) => {}
        }
        Ok(if is_protobuf { protobuf::written(&totals) } else { text::written(&totals).into_bytes() })
    });
    match written.await {
        Ok(body) => ([(header::CONTENT_TYPE, if is_protobuf { PROTOBUF } else { OPEN_METRICS })], body).into_response(),
        Err(error) if matches!(error, QueryError::Starting) => {
            super::text(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
        }
        Err(error) => super::text(query_status(&error), error.to_string()),
    }
}
