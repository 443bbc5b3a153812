//! `/jaeger/api`: what Grafana's Jaeger data source asks, and Jaeger's own page.
//!
//! ```text
//! {"data":["shop"],"total":1,"limit":0,"offset":0,"errors":null}
//! {"data":null,"total":0,"limit":0,"offset":0,"errors":[{"code":404,"msg":"trace not found"}]}
//! ```
//!
//! What is missing of an answer is said in a trace's `warnings`, else in the header `spandrel-coverage`.

mod search;
mod spans;

use std::collections::BTreeSet;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::model::{SpanKind, TraceId};
use crate::query::{Coverage, OperationsAnswer, Query, QueryError, ServiceCalls};

use super::Doors;
use super::open_params::OpenParams;
use super::params::BadParameter;
use super::refusal::{self, SaysWhy};
use super::shown::with_coverage;

const DOOR: &str = "jaeger";

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/jaeger/api/services", get(services))
        .route("/jaeger/api/services/{service}/operations", get(operation_names))
        .route("/jaeger/api/operations", get(operations))
        .route("/jaeger/api/traces", get(search::search))
        .route("/jaeger/api/traces/{id}", get(trace))
        .route("/jaeger/api/dependencies", get(dependencies))
}

/// Every answer of Jaeger's. Pages are not cut: `limit` and `offset` are 0.
#[derive(Serialize)]
struct Envelope<T> {
    data: Option<T>,
    total: usize,
    limit: usize,
    offset: usize,
    errors: Option<[ErrorJson; 1]>,
}

#[derive(Serialize)]
struct ErrorJson {
    code: u16,
    msg: String,
}

type Failure = refusal::Failure<AsErrors>;

/// An envelope without data.
#[derive(Debug)]
struct AsErrors;

impl SaysWhy for AsErrors {
    fn say(status: StatusCode, why: String) -> Response {
        let errors = Some([ErrorJson { code: status.as_u16(), msg: why }]);
        (status, Json(Envelope::<()> { data: None, total: 0, limit: 0, offset: 0, errors })).into_response()
    }
}

fn list<T: Serialize>(rows: Vec<T>) -> Response {
    let total = rows.len();
    Json(Envelope { data: Some(rows), total, limit: 0, offset: 0, errors: None }).into_response()
}

async fn services(State(doors): State<Doors>) -> Result<Response, Failure> {
    let rows = doors.ask(DOOR, Query::services).await?;
    let names: BTreeSet<String> = rows.into_iter().map(|row| row.name).collect();
    Ok(list(names.into_iter().collect()))
}

async fn operations_of(doors: &Doors, service: String) -> Result<OperationsAnswer, Failure> {
    Ok(doors.ask(DOOR, move |query| query.operations(&service)).await?)
}

async fn operation_names(State(doors): State<Doors>, Path(service): Path<String>) -> Result<Response, Failure> {
    let answer = operations_of(&doors, service).await?;
    let mut names: Vec<String> = answer.operations.into_iter().map(|operation| operation.name).collect();
    names.dedup();
    Ok(with_coverage(list(names), &answer.coverage))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OperationJson {
    name: String,
    span_kind: &'static str,
}

/// The newer form, with kinds: `?service=shop&spanKind=server`.
async fn operations(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let params = OpenParams::of(&uri)?;
    let service = params.get("service").ok_or_else(|| BadParameter("parameter 'service' is required".to_owned()))?;
    let answer = operations_of(&doors, service.to_owned()).await?;
    let kind = params.get("spanKind").map(str::to_ascii_lowercase);
    let is_wanted = |known: SpanKind| kind.as_deref().is_none_or(|kind| kind == known.as_str());
    let wanted = answer.operations.into_iter().filter(|operation| is_wanted(operation.kind));
    let rows = wanted.map(|operation| OperationJson { name: operation.name, span_kind: operation.kind.as_str() });
    Ok(with_coverage(list(rows.collect()), &answer.coverage))
}

/// `start` and `end` only speed up the look-up in Jaeger's stores; ours needs no window.
async fn trace(State(doors): State<Doors>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = TraceId::parse_lenient(&id).map_err(|error| BadParameter(error.to_string()))?;
    let found = doors.ask(DOOR, move |query| {
        let answer = query.trace(id)?;
        if answer.batch.spans.is_empty() {
            return Ok(Err(answer.coverage));
        }
        let mut json = Vec::new();
        spans::write_trace(&answer, &mut json).map_err(|_| QueryError::Failed)?;
        Ok(Ok(json))
    });
    match found.await? {
        Ok(json) => Ok(traces(&json, 1)),
        Err(coverage) => Err(not_found(&coverage)),
    }
}

fn not_found(coverage: &Coverage) -> Failure {
    let reasons = std::iter::once("trace not found").chain(coverage.reasons.iter().map(String::as_str));
    Failure::new(StatusCode::NOT_FOUND, reasons.collect::<Vec<_>>().join("; "))
}

/// The envelope around traces that are written already, with commas between them.
fn traces(json: &[u8], total: usize) -> Response {
    let end = format!(r#"],"total":{total},"limit":0,"offset":0,"errors":null}}"#);
    let body = [br#"{"data":["#, json, end.as_bytes()].concat();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DependencyJson {
    parent: String,
    child: String,
    call_count: u64,
}

impl From<ServiceCalls> for DependencyJson {
    fn from(calls: ServiceCalls) -> Self {
        Self { parent: calls.client, child: calls.server, call_count: calls.count }
    }
}

async fn dependencies(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let range = OpenParams::of(&uri)?.looking_back(doors.query.now())?;
    let answer = doors.ask(DOOR, move |query| query.calls(range)).await?;
    let rows: Vec<DependencyJson> = answer.calls.into_iter().map(DependencyJson::from).collect();
    Ok(with_coverage(list(rows), &answer.coverage))
}
