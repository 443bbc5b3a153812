//! `/zipkin/api/v2`: what Grafana's Zipkin data source asks, and Zipkin's own page. Errors are plain text.
//!
//! What is missing of an answer is said in the header `spandrel-coverage`.

mod search;
mod spans;

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::model::TraceId;
use crate::query::{Query, QueryError, ServiceCalls, TraceAnswer};

use super::Doors;
use super::open_params::OpenParams;
use super::params::BadParameter;
use super::refusal::{self, SaysWhy};
use super::shown::with_coverage;
use super::text;

const DOOR: &str = "zipkin";

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/zipkin/api/v2/services", get(services))
        .route("/zipkin/api/v2/spans", get(span_names))
        .route("/zipkin/api/v2/remoteServices", get(remote_services))
        .route("/zipkin/api/v2/traces", get(search::search))
        .route("/zipkin/api/v2/traceMany", get(search::by_ids))
        .route("/zipkin/api/v2/trace/{id}", get(trace))
        .route("/zipkin/api/v2/dependencies", get(dependencies))
        // Keys are offered for completion only where a Zipkin is told some; ours is told none.
        .route("/zipkin/api/v2/autocompleteKeys", get(nothing))
        .route("/zipkin/api/v2/autocompleteValues", get(nothing))
}

type Failure = refusal::Failure<AsText>;

/// A line.
#[derive(Debug)]
struct AsText;

impl SaysWhy for AsText {
    fn say(status: StatusCode, why: String) -> Response {
        text(status, why + "\n")
    }
}

async fn services(State(doors): State<Doors>) -> Result<Response, Failure> {
    let rows = doors.ask(DOOR, Query::services).await?;
    let names: BTreeSet<String> = rows.into_iter().map(|row| row.name).collect();
    Ok(Json(names).into_response())
}

fn service(params: &OpenParams) -> Result<String, BadParameter> {
    let missing = || BadParameter("the parameter serviceName is missing".to_owned());
    params.get("serviceName").map(str::to_owned).ok_or_else(missing)
}

async fn span_names(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let service = service(&OpenParams::of(&uri)?)?;
    let answer = doors.ask(DOOR, move |query| query.operations(&service)).await?;
    let mut names: Vec<String> = answer.operations.into_iter().map(|operation| operation.name).collect();
    names.dedup();
    Ok(with_coverage(Json(names).into_response(), &answer.coverage))
}

/// What the service called within the last day.
async fn remote_services(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let params = OpenParams::of(&uri)?;
    let (service, range) = (service(&params)?, params.looking_back(doors.query.now())?);
    let (names, coverage) = doors.ask(DOOR, move |query| query.called_by(&service, range)).await?;
    Ok(with_coverage(Json(names).into_response(), &coverage))
}

async fn trace(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = TraceId::parse_lenient(&id).map_err(|error| BadParameter(error.to_string()))?;
    let found = doors.ask(DOOR, move |query| {
        let answer = query.trace(id)?;
        let mut json = Vec::new();
        spans::write_trace(&answer, &mut json).map_err(|_| QueryError::Failed)?;
        Ok((json, answer))
    });
    let (json, TraceAnswer { batch, coverage }) = found.await?;
    if batch.spans.is_empty() {
        let reasons = std::iter::once(format!("trace {id} is not stored")).chain(coverage.reasons);
        return Err(Failure::new(StatusCode::NOT_FOUND, reasons.collect::<Vec<_>>().join("; ")));
    }
    Ok(with_coverage(written(json), &coverage))
}

fn written(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DependencyJson {
    parent: String,
    child: String,
    call_count: u64,
    error_count: u64,
}

impl From<ServiceCalls> for DependencyJson {
    fn from(calls: ServiceCalls) -> Self {
        let ServiceCalls { client, server, count, error_count } = calls;
        Self { parent: client, child: server, call_count: count, error_count }
    }
}

async fn dependencies(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let range = OpenParams::of(&uri)?.looking_back(doors.query.now())?;
    let answer = doors.ask(DOOR, move |query| query.calls(range)).await?;
    let rows: Vec<DependencyJson> = answer.calls.into_iter().map(DependencyJson::from).collect();
    Ok(with_coverage(Json(rows).into_response(), &answer.coverage))
}

async fn nothing() -> Json<[(); 0]> {
    Json([])
}
