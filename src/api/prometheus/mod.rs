//! What Grafana's Prometheus data source asks, and `promtool`: `/api/v1`. Queries come as a form or in the address.
//!
//! ```text
//! {"status":"success","data":..,"warnings":[..]}
//! {"status":"error","errorType":"bad_data","error":"1:5: parse error: .."}
//! ```

mod lists;
mod parameters;
mod wire;

pub(super) use parameters::millis;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, get, on};
use axum::{Json, Router};
use serde_json::json;

use crate::query::QueryError;
use crate::query::promql::exemplars::ExemplarQuestion;
use crate::query::promql::{Instants, PromError, PromQuery};

use super::Doors;
use super::open_params::OpenParams;
use super::params::BadParameter;
use super::refusal::query_status;

const DOOR: &str = "prometheus";
/// Everything of this door.
const PREFIX: &str = "/api/v1/";

pub(super) fn router() -> Router<Doors> {
    let both = MethodFilter::GET.or(MethodFilter::POST);
    Router::new()
        .route("/api/v1/query", on(both, instant))
        .route("/api/v1/query_range", on(both, range))
        .route("/api/v1/query_exemplars", on(both, exemplars))
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .route("/api/v1/rules", get(|| async { success(&json!({ "groups": [] })) }))
        .route("/api/v1/alerts", get(|| async { success(&json!({ "alerts": [] })) }))
        .merge(lists::router())
        .route("/api/v1/format_query", get(not_here))
        .route("/api/v1/parse_query", get(not_here))
        .route("/api/v1/targets", get(not_here))
        .route("/api/v1/status/{what}", get(not_here))
}

/// Whether a POST to this path asks and changes nothing.
pub(super) fn only_asks(path: &str) -> bool {
    path.starts_with(PREFIX)
}

/// Why there is no answer.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    /// As the clients of Prometheus know it.
    kind: &'static str,
    error: String,
}

impl Failure {
    fn bad_data(error: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "bad_data", error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({ "status": "error", "errorType": self.kind, "error": self.error });
        (self.status, Json(body)).into_response()
    }
}

impl From<BadParameter> for Failure {
    fn from(bad: BadParameter) -> Self {
        Self::bad_data(bad.0)
    }
}

impl From<PromError> for Failure {
    fn from(error: PromError) -> Self {
        let text = error.to_string();
        match error {
            PromError::Parse { .. } | PromError::TooManyPoints => Self::bad_data(text),
            PromError::Query(error) => error.into(),
            _ => Self { status: StatusCode::UNPROCESSABLE_ENTITY, kind: "execution", error: text },
        }
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        let status = query_status(&error);
        let (status, kind) = match &error {
            QueryError::TooLong { .. } | QueryError::NoTurn { .. } => (status, "timeout"),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => (status, "unavailable"),
            _ if status == StatusCode::INTERNAL_SERVER_ERROR => (status, "internal"),
            _ => (StatusCode::UNPROCESSABLE_ENTITY, "execution"),
        };
        Self { status, kind, error: error.to_string() }
    }
}

fn success(data: &serde_json::Value) -> Response {
    Json(json!({ "status": "success", "data": data })).into_response()
}

/// A body that is written already.
fn written(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Of no use here, but asked for: not the plain text of an unknown path.
async fn not_here(uri: Uri) -> Failure {
    Failure { status: StatusCode::NOT_FOUND, kind: "not_found", error: format!("{} is not served here", uri.path()) }
}

/// No `features`: those would mean another product.
async fn buildinfo() -> Response {
    success(&json!({
        "version": "2.50.1", "revision": env!("CARGO_PKG_VERSION"), "branch": "spandrel",
        "buildUser": "", "buildDate": "", "goVersion": "n/a",
    }))
}

fn query_of(params: &OpenParams) -> Result<PromQuery, Failure> {
    let text = params.get("query").ok_or_else(|| BadParameter("parameter 'query' is required".to_owned()))?;
    Ok(text.parse()?)
}

async fn instant(State(doors): State<Doors>, uri: Uri, body: Bytes) -> Result<Response, Failure> {
    let params = OpenParams::of_form(&uri, &body)?;
    let at = parameters::time(&params, "time")?.unwrap_or_else(|| parameters::millis(doors.query.now()));
    answer(&doors, query_of(&params)?, Instants::Instant(at)).await
}

async fn range(State(doors): State<Doors>, uri: Uri, body: Bytes) -> Result<Response, Failure> {
    let params = OpenParams::of_form(&uri, &body)?;
    let query = query_of(&params)?;
    let (start, end) = (parameters::required_time(&params, "start")?, parameters::required_time(&params, "end")?);
    if end < start {
        return Err(Failure::bad_data("end timestamp must not be before start time".to_owned()));
    }
    let step = parameters::step(&params)?;
    answer(&doors, query, Instants::Range { start, end, step }).await
}

async fn answer(doors: &Doors, query: PromQuery, instants: Instants) -> Result<Response, Failure> {
    // It is written on the thread of the question: an answer may have a million numbers.
    let body = doors.ask(DOOR, move |asked| {
        let answer = match asked.promql(&query, instants) {
            Err(PromError::Query(error)) => return Err(error),
            other => other,
        };
        Ok(answer.and_then(|answer| Ok(wire::written(&answer, &instants.all()?, instants))))
    });
    Ok(written(body.await??))
}

async fn exemplars(State(doors): State<Doors>, uri: Uri, body: Bytes) -> Result<Response, Failure> {
    let params = OpenParams::of_form(&uri, &body)?;
    let query = query_of(&params)?;
    let (start, end) = (parameters::required_time(&params, "start")?, parameters::required_time(&params, "end")?);
    if end < start {
        return Err(Failure::bad_data("end timestamp must not be before start timestamp".to_owned()));
    }
    let (latency_min, latency_max) = parameters::latencies(&params)?;
    let most = parameters::limit(&params)?;
    let question = ExemplarQuestion { query, start, end, latency_min, latency_max, most };
    let body = doors.ask(DOOR, move |asked| match asked.prom_exemplars(&question) {
        Err(PromError::Query(error)) => Err(error),
        other => Ok(other.map(|(series, warnings)| wire::exemplars(&series, &warnings))),
    });
    Ok(written(body.await??))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn grafana_5_2_what_a_retry_helps_is_503_and_says_whether_time_was_short() {
        let within = Duration::from_secs(30);
        for (error, kind) in [
            (QueryError::Starting, "unavailable"),
            (QueryError::Abandoned, "unavailable"),
            (QueryError::TooLong { within }, "timeout"),
            (QueryError::NoTurn { within }, "timeout"),
        ] {
            let text = error.to_string();
            let failure = Failure::from(PromError::Query(error));
            assert_eq!((failure.status.as_u16(), failure.kind, failure.error), (503, kind, text));
        }
        assert_eq!(Failure::from(QueryError::Failed).status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
