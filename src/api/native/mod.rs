//! `/spandrel/v1`: our own API, for the CLI, scripts and pages. JSON; nanosecond times are strings, durations numbers.

mod answers;
mod export;
mod pins;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::model::{TimeRange, TraceId};
use crate::otlp::{self, JsonDialect};
use crate::query::{PercentileQuestion, Quantile, QueryError};

use super::Doors;
use super::params::{BadParameter, Params};
use super::refusal::query_status;
use answers::{CoverageJson, PercentileJson, ServicesJson, StatusJson};

pub(super) const DOOR: &str = "native";
/// Without a window: the last quarter of an hour.
const DEFAULT_START: &str = "-15m";
const DEFAULT_QUANTILES: &str = "0.5,0.9,0.99,0.999,1";
const EXEMPLARS: usize = 5;
const EXEMPLARS_MAX: usize = 100;
/// Quantiles of one question.
const QUANTILES_MAX: usize = 100;

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/spandrel/v1/services", get(services))
        .route("/spandrel/v1/percentile", get(percentile))
        .route("/spandrel/v1/traces/{id}", get(trace))
        .route("/spandrel/v1/status", get(status))
        .route("/spandrel/v1/export", get(export::export))
        .route("/spandrel/v1/pins", pins::all())
        .route("/spandrel/v1/pins/{id}", pins::one())
}

/// Why there is no answer, as JSON.
#[derive(Debug)]
struct Failure(StatusCode, String);

#[derive(Serialize)]
struct FailureJson<'a> {
    error: &'a str,
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(FailureJson { error: &self.1 })).into_response()
    }
}

impl From<BadParameter> for Failure {
    fn from(bad: BadParameter) -> Self {
        Self(StatusCode::BAD_REQUEST, bad.0)
    }
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Self {
        Self(query_status(&error), error.to_string())
    }
}

async fn services(State(doors): State<Doors>, uri: Uri) -> Result<Json<ServicesJson>, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let rows = doors.ask(DOOR, crate::query::Query::services).await?;
    Ok(Json(ServicesJson::from(rows)))
}

async fn percentile(State(doors): State<Doors>, uri: Uri) -> Result<Json<PercentileJson>, Failure> {
    let known = ["service", "namespace", "q", "start", "end", "exemplars"];
    let params = Params::strict(&uri, &known)?;
    let question = percentile_question(&params, doors.query.now())?;
    let answer = doors.ask(DOOR, move |query| query.percentile(&question)).await?;
    Ok(Json(PercentileJson::from(answer)))
}

fn percentile_question(params: &Params, now: crate::model::UnixNanos) -> Result<PercentileQuestion, Failure> {
    let Some(service) = params.get("service") else {
        return Err(
            BadParameter("parameter \"service\" is missing; /spandrel/v1/services lists them".to_owned()).into()
        );
    };
    let mut quantiles = Vec::new();
    for text in params.get("q").unwrap_or(DEFAULT_QUANTILES).split(',') {
        let number: f64 = text.trim().parse().map_err(|_| {
            BadParameter(format!("q={text} is not a number; use quantiles from 0 to 1, such as q=0.5,0.99"))
        })?;
        quantiles.push(Quantile::try_from(number).map_err(QueryError::from)?);
    }
    if QUANTILES_MAX < quantiles.len() {
        return Err(BadParameter(format!("{} quantiles; at most {QUANTILES_MAX} at once", quantiles.len())).into());
    }
    Ok(PercentileQuestion {
        service: service.to_owned(),
        namespace: params.get("namespace").map(str::to_owned),
        quantiles,
        range: TimeRange { start: params.time("start", now, DEFAULT_START)?, end: params.time("end", now, "now")? },
        exemplars_max: params.number("exemplars", EXEMPLARS, EXEMPLARS_MAX)?,
    })
}

/// OTLP/JSON `TracesData`; what is missing is said in the header `spandrel-coverage`.
async fn trace(State(doors): State<Doors>, Path(id): Path<String>, uri: Uri) -> Result<Response, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let id = TraceId::parse_lenient(&id).map_err(|error| BadParameter(error.to_string()))?;
    let (answer, body) = doors
        .ask(DOOR, move |query| {
            let answer = query.trace(id)?;
            let body = otlp::encode_json(&answer.batch, JsonDialect::Otlp);
            Ok((answer, body))
        })
        .await?;
    if answer.batch.spans.is_empty() && answer.coverage.is_complete() {
        return Err(QueryError::UnknownTrace { trace: id }.into());
    }
    let mut response = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    if !answer.coverage.is_complete()
        && let Ok(value) = header::HeaderValue::from_str(&answer.coverage.reasons.join("; "))
    {
        let _none = response.headers_mut().insert("spandrel-coverage", value);
    }
    Ok(response)
}

async fn status(State(doors): State<Doors>, uri: Uri) -> Result<Json<StatusJson>, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let store = doors.ask(DOOR, crate::query::Query::status).await?;
    Ok(Json(StatusJson::new(&doors, store)))
}

impl From<crate::query::Coverage> for CoverageJson {
    fn from(coverage: crate::query::Coverage) -> Self {
        Self { complete: coverage.is_complete(), reasons: coverage.reasons }
    }
}
