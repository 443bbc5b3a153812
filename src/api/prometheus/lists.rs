//! What there is: series, labels, their values, and what the metrics are.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{MethodFilter, get, on};
use serde::Serialize;
use serde_json::json;

use crate::query::Query;
use crate::query::promql::PromError;
use crate::query::promql::catalogue::Metric;
use crate::query::promql::listing::{Listing, ListingQuestion};

use super::super::Doors;
use super::super::open_params::OpenParams;
use super::super::params::BadParameter;
use super::{DOOR, Failure, parameters, success};

pub(super) fn router() -> Router<Doors> {
    let both = MethodFilter::GET.or(MethodFilter::POST);
    Router::new()
        .route("/api/v1/series", on(both, series))
        .route("/api/v1/labels", on(both, labels))
        .route("/api/v1/label/{name}/values", get(values))
        .route("/api/v1/metadata", get(metadata))
}

fn question(doors: &Doors, params: &OpenParams) -> Result<ListingQuestion, Failure> {
    let selectors = params.all("match[]").map(str::parse).collect::<Result<Vec<_>, PromError>>()?;
    let now = parameters::millis(doors.query.now());
    Ok(ListingQuestion {
        selectors,
        start: parameters::time(params, "start")?.unwrap_or(0),
        end: parameters::time(params, "end")?.unwrap_or(now),
        most: parameters::limit(params)?,
    })
}

async fn answered<T: Serialize + Send + 'static>(
    doors: &Doors,
    ask: impl FnOnce(&Query) -> Result<Listing<T>, PromError> + Send + 'static,
) -> Result<Response, Failure> {
    let listed = doors.ask(DOOR, move |query| match ask(query) {
        Err(PromError::Query(error)) => Err(error),
        other => Ok(other),
    });
    let Listing { rows, warnings } = listed.await??;
    if warnings.is_empty() {
        return Ok(success(&json!(rows)));
    }
    let body = json!({ "status": "success", "data": rows, "warnings": warnings });
    Ok(axum::response::IntoResponse::into_response(axum::Json(body)))
}

async fn series(State(doors): State<Doors>, uri: Uri, body: Bytes) -> Result<Response, Failure> {
    let params = OpenParams::of_form(&uri, &body)?;
    let question = question(&doors, &params)?;
    if question.selectors.is_empty() {
        return Err(BadParameter("no match[] parameter provided".to_owned()).into());
    }
    let ask = move |query: &Query| {
        let Listing { rows, warnings } = query.prom_series(&question)?;
        let map = |labels: &crate::query::promql::labels::Labels| -> BTreeMap<String, String> {
            labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        Ok(Listing { rows: rows.iter().map(map).collect(), warnings })
    };
    answered(&doors, ask).await
}

async fn labels(State(doors): State<Doors>, uri: Uri, body: Bytes) -> Result<Response, Failure> {
    let question = question(&doors, &OpenParams::of_form(&uri, &body)?)?;
    answered(&doors, move |query| query.prom_labels(&question)).await
}

async fn values(State(doors): State<Doors>, Path(name): Path<String>, uri: Uri) -> Result<Response, Failure> {
    let question = question(&doors, &OpenParams::of(&uri)?)?;
    let name = unescaped(&name).unwrap_or(name);
    answered(&doors, move |query| query.prom_values(&name, &question)).await
}

/// A name that clients escape because it is no legacy one: `U__` in front, `__` for `_`, `_2e_` for `.`.
fn unescaped(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("U__")?;
    let mut plain = String::new();
    while let Some(at) = rest.find('_') {
        let (before, behind) = rest.split_at(at);
        plain.push_str(before);
        let behind = behind.strip_prefix('_')?;
        rest = if let Some(behind) = behind.strip_prefix('_') {
            plain.push('_');
            behind
        } else {
            let (code, behind) = behind.split_once('_')?;
            plain.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
            behind
        };
    }
    plain.push_str(rest);
    Some(plain)
}

async fn metadata(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let params = OpenParams::of(&uri)?;
    let most = parameters::limit(&params)?;
    let all = doors.query.prom_metrics();
    let wanted = all.filter(|metric| params.get("metric").is_none_or(|name| name == metric.name));
    let row = |metric: &Metric| (metric.name, [json!({ "type": metric.type_text(), "help": metric.help, "unit": "" })]);
    Ok(success(&json!(wanted.take(most).map(row).collect::<BTreeMap<_, _>>())))
}
