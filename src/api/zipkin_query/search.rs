//! `/zipkin/api/v2/traces`: the newest traces with a span like this.

use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;

use super::{DOOR, Doors, Failure, spans, written};
use crate::api::open_params::{MICRO, OpenParams};
use crate::api::params::BadParameter;
use crate::api::shown::with_coverage;
use crate::api::trace_search::{Conditions, TraceSearch, WrittenTraces, whole_traces};
use crate::limits::SEARCH_TRACES_MAX;
use crate::model::{TraceId, UnixNanos};

/// Traces of an answer when nothing is said, as in Zipkin.
const LIMIT: usize = 10;

pub(super) async fn search(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let search = search_of(&OpenParams::of(&uri)?, doors.query.now())?;
    let found = doors.ask(DOOR, move |query| search.run(query, spans::write_trace)).await?;
    Ok(listed(&found))
}

/// `traceIds=a,b`: those of them that are stored.
pub(super) async fn by_ids(State(doors): State<Doors>, uri: Uri) -> Result<Response, Failure> {
    let params = OpenParams::of(&uri)?;
    let ids = params.get("traceIds").unwrap_or_default().split(',');
    let ids: Result<Vec<TraceId>, _> = ids.map(TraceId::parse_lenient).collect();
    let mut ids = ids.map_err(|error| BadParameter(error.to_string()))?;
    if SEARCH_TRACES_MAX < ids.len() {
        return Err(BadParameter(format!("traceIds names {} traces, at most {SEARCH_TRACES_MAX}", ids.len())).into());
    }
    ids.sort_unstable();
    ids.dedup();
    let found = doors.ask(DOOR, move |query| whole_traces(query, &ids, spans::write_trace)).await?;
    Ok(listed(&found))
}

fn listed(found: &WrittenTraces) -> Response {
    with_coverage(written([b"[", found.json.as_slice(), b"]"].concat()), &found.coverage)
}

/// `all` is how older pages say that any name will do.
fn search_of(params: &OpenParams, now: UnixNanos) -> Result<TraceSearch, BadParameter> {
    let mut conditions = Conditions::default();
    let name = |name| params.get(name).filter(|name| *name != "all");
    if let Some(service) = name("serviceName") {
        conditions.service(service);
    }
    if let Some(remote) = name("remoteServiceName") {
        conditions.tag("peer.service", remote)?;
    }
    if let Some(span) = name("spanName") {
        conditions.span_name(span);
    }
    for part in params.get("annotationQuery").unwrap_or_default().split(" and ") {
        match part.trim().split_once('=') {
            Some((key, value)) => conditions.tag(key, value)?,
            None if part.trim().is_empty() => {}
            None => conditions.annotation(part.trim())?,
        }
    }
    for (name, operator) in [("minDuration", ">="), ("maxDuration", "<=")] {
        if let Some(nanos) = params.nanos(name, MICRO)? {
            conditions.duration(name, operator, &format!("{nanos}ns"))?;
        }
    }
    let traces_max = params.count("limit", LIMIT, SEARCH_TRACES_MAX)?;
    Ok(TraceSearch { filter: conditions.filter()?, range: params.looking_back(now)?, traces_max })
}
