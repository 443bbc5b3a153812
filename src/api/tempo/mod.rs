//! What Grafana's Tempo data source asks: a trace by its id (`/api/traces/{id}`, `/api/v2/traces/{id}`), search, numbers
//! over time, and which tags there are with which values. Errors are plain text, which the data source shows as they are.
//!
//! The same questions over gRPC are in `stream`.

mod logfmt;
mod metrics;
mod parameters;
mod search;
mod stream;
mod tags;
mod wire;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prost::Message;

use crate::model::TraceId;
use crate::otlp::{self, JsonDialect};
use crate::query::Coverage;

use super::refusal::{Refusal, query_status};
use super::{Doors, text};

const DOOR: &str = "tempo";
/// The API version that old data sources compare with; not ours.
const TEMPO_VERSION: &str = "2.8.0";

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/api/echo", get(|| async { text(StatusCode::OK, "echo") }))
        .route("/api/status/buildinfo", get(buildinfo))
        .route("/api/traces/{id}", get(trace_v1))
        .route("/api/v2/traces/{id}", get(trace_v2))
        .route("/api/search", get(search::search))
        .merge(tags::router())
        .merge(metrics::router())
        .merge(stream::router())
}

/// Whether a POST to this path asks and changes nothing.
pub(super) fn only_asks(path: &str) -> bool {
    path.starts_with(stream::SERVICE)
}

async fn buildinfo() -> Response {
    axum::Json(serde_json::json!({
        "version": TEMPO_VERSION, "revision": env!("CARGO_PKG_VERSION"), "branch": "spandrel",
        "buildUser": "", "buildDate": "", "goVersion": "n/a",
    }))
    .into_response()
}

/// How an answer is to be encoded. Protobuf only for those who ask for it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Protobuf,
    Json,
}

fn accepted(headers: &HeaderMap) -> Encoding {
    let accept = headers.get(header::ACCEPT).map(header::HeaderValue::as_bytes).unwrap_or_default();
    let protobuf = accept.to_ascii_lowercase().windows(8).any(|window| window == b"protobuf");
    if protobuf { Encoding::Protobuf } else { Encoding::Json }
}

/// An encoded trace and what is missing of it; `None` when nothing of it is stored.
type Encoded = Option<(Vec<u8>, Coverage)>;

async fn trace_v1(State(doors): State<Doors>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let encoding = accepted(&headers);
    match encoded_trace(&doors, &id, encoding).await {
        Ok(Some((trace, _))) if encoding == Encoding::Protobuf => protobuf(trace),
        Ok(Some((spans, _))) => json([br#"{"batches":"#, spans.as_slice(), b"}"].concat()),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(refused) => refused,
    }
}

async fn trace_v2(State(doors): State<Doors>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let encoding = accepted(&headers);
    let (trace, coverage) = match encoded_trace(&doors, &id, encoding).await {
        Ok(Some(found)) => found,
        Ok(None) => return text(StatusCode::NOT_FOUND, format!("trace {id} is not stored")),
        Err(refused) => return refused,
    };
    let partial = !coverage.is_complete();
    let message = coverage.reasons.join("; ");
    if encoding == Encoding::Protobuf {
        let metrics = Some(wire::TraceByIdMetrics { inspected_bytes: trace.len() as u64 });
        return protobuf(
            wire::TraceByIdResponse { trace, metrics, status: i32::from(partial), message }.encode_to_vec(),
        );
    }
    let mut body = [br#"{"trace":{"resourceSpans":"#, trace.as_slice(), br#"},"metrics":{}"#].concat();
    if partial {
        let message = serde_json::Value::from(message);
        body.extend_from_slice(format!(r#","status":"PARTIAL","message":{message}"#).as_bytes());
    }
    body.push(b'}');
    json(body)
}

async fn encoded_trace(doors: &Doors, id: &str, encoding: Encoding) -> Result<Encoded, Response> {
    let id = TraceId::parse_lenient(id).map_err(|error| text(StatusCode::BAD_REQUEST, error.to_string()))?;
    let found = doors.ask(DOOR, move |query| {
        let answer = query.trace(id)?;
        if answer.batch.spans.is_empty() && answer.coverage.is_complete() {
            return Ok(None);
        }
        let batch = otlp::for_tempo(answer.batch);
        let bytes = match encoding {
            Encoding::Protobuf => otlp::encode_traces(&batch, otlp::Utf8::Replaced),
            Encoding::Json => {
                let mut spans = String::new();
                otlp::write_resource_spans_json(&batch, JsonDialect::Tempo, &mut spans);
                spans.into_bytes()
            }
        };
        Ok(Some((bytes, answer.coverage)))
    });
    found.await.map_err(|error| text(query_status(&error), error.to_string()))
}

fn protobuf(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/protobuf")], body).into_response()
}

fn json(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// The message that answers, and what is missing of it.
type Answer<M> = Result<(M, Coverage), Refusal>;

fn as_json<M: serde::Serialize>(answer: Answer<M>) -> Response {
    match answer {
        Ok((message, coverage)) => with_coverage(axum::Json(message).into_response(), &coverage),
        Err(refusal) => text(refusal.status, refusal.message),
    }
}

/// What is missing has no place in these answers: strict clients refuse keys that they do not know.
fn with_coverage(mut response: Response, coverage: &Coverage) -> Response {
    if !coverage.is_complete()
        && let Ok(value) = header::HeaderValue::from_str(&coverage.reasons.join("; "))
    {
        let _none = response.headers_mut().insert("spandrel-coverage", value);
    }
    response
}
