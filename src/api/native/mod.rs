//! `/spandrel/v1`: our own API, for the CLI, scripts and pages. JSON; nanosecond times are strings, durations numbers.

mod answers;
mod export;
mod graph;
mod heatmap;
mod percentile;
mod pins;
mod trace;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::Doors;
use super::params::Params;
use super::refusal::{self, SaysWhy};
use answers::{CoverageJson, PercentileJson, ServicesJson, StatusJson};

pub(super) const DOOR: &str = "native";

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/spandrel/v1/services", get(services))
        .route("/spandrel/v1/percentile", get(percentile))
        .route("/spandrel/v1/graph", get(graph::graph))
        .route("/spandrel/v1/heatmap", get(heatmap::heatmap))
        .route("/spandrel/v1/traces/{id}", get(trace::trace))
        .route("/spandrel/v1/status", get(status))
        .route("/spandrel/v1/export", get(export::export))
        .route("/spandrel/v1/pins", pins::all())
        .route("/spandrel/v1/pins/{id}", pins::one())
}

type Failure = refusal::Failure<AsError>;

/// `{"error": "..."}`
#[derive(Debug)]
struct AsError;

#[derive(Serialize)]
struct FailureJson<'a> {
    error: &'a str,
}

impl SaysWhy for AsError {
    fn say(status: StatusCode, why: String) -> Response {
        (status, Json(FailureJson { error: &why })).into_response()
    }
}

async fn services(State(doors): State<Doors>, uri: Uri) -> Result<Json<ServicesJson>, Failure> {
    let _none = Params::strict(&uri, &[])?;
    let rows = doors.ask(DOOR, crate::query::Query::services).await?;
    Ok(Json(ServicesJson::from(rows)))
}

async fn percentile(State(doors): State<Doors>, uri: Uri) -> Result<Json<PercentileJson>, Failure> {
    let params = Params::strict(&uri, &percentile::PARAMETERS)?;
    let question = percentile::question(&params, &doors)?;
    let step = question.step;
    let answer = doors.ask(DOOR, move |query| query.percentile(&question)).await?;
    Ok(Json(PercentileJson::new(answer, step)))
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
