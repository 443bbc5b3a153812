//! `tempopb.StreamingQuerier`: the questions of Tempo's HTTP API over gRPC, on the same port.
//!
//! A call is turned into the parameters of its HTTP counterpart and answered by the same code, so that both say the same and
//! refuse with the same words. What a field leaves at zero is a parameter that is not given.

mod call;
mod early;
mod pieces;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::Doors;
use crate::api::refusal::Refusal;
use crate::query::QueryError;

use super::parameters::Parameters;
use super::{DOOR, logfmt, metrics, search, tags, wire};

use call::{Last, call, not_grpc};
use early::{EarlyTraces, TELL_EVERY};

/// What the paths of the calls begin with.
pub(super) const SERVICE: &str = "/tempopb.StreamingQuerier/";

pub(super) fn router() -> Router<Doors> {
    let path = |method: &str| format!("{SERVICE}{method}");
    Router::new()
        .route(&path("Search"), post(search_traces).fallback(not_grpc))
        .route(&path("SearchTags"), post(search_tags).fallback(not_grpc))
        .route(&path("SearchTagsV2"), post(search_tags_v2).fallback(not_grpc))
        .route(&path("SearchTagValues"), post(search_tag_values).fallback(not_grpc))
        .route(&path("SearchTagValuesV2"), post(search_tag_values_v2).fallback(not_grpc))
        .route(&path("MetricsQueryRange"), post(metrics_query_range).fallback(not_grpc))
        .route(&path("MetricsQueryInstant"), post(metrics_query_instant).fallback(not_grpc))
}

async fn search_traces(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::SearchRequest, early| {
        let question = search::question(&Parameters::from(asked), &doors)?;
        let found = doors.ask(DOOR, move |query| {
            let mut traces = EarlyTraces::new(early, question.traces_max, TELL_EVERY);
            let found = query.search_with(&question, &mut |progress| traces.report(progress))?;
            Ok(traces.last(&found))
        });
        found.await.map_err(|error| Refusal::of_query(&error))
    })
    .await
}

async fn search_tags(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::SearchTagsRequest, _early| {
        let (names, coverage) = tags::names_v1(&doors, &asked.into()).await?;
        Ok(Last { messages: pieces::tags(names), coverage })
    })
    .await
}

async fn search_tags_v2(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::SearchTagsRequest, _early| {
        let (names, coverage) = tags::names_v2(&doors, &asked.into()).await?;
        Ok(Last { messages: pieces::tags_v2(names), coverage })
    })
    .await
}

async fn search_tag_values(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::SearchTagValuesRequest, _early| {
        let tag = asked.tag_name.clone();
        let (values, coverage) = tags::values_v1(&doors, &tag, &asked.into()).await?;
        Ok(Last { messages: pieces::values(values), coverage })
    })
    .await
}

async fn search_tag_values_v2(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::SearchTagValuesRequest, _early| {
        let tag = asked.tag_name.clone();
        let (values, coverage) = tags::values_v2(&doors, &tag, &asked.into()).await?;
        Ok(Last { messages: pieces::values_v2(values), coverage })
    })
    .await
}

async fn metrics_query_range(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::QueryRangeRequest, _early| {
        let question = metrics::range_question(&asked.into(), doors.query.now())?;
        let answered = doors.ask(DOOR, move |query| {
            let answer = query.metrics(&question)?;
            let one = |found| message(metrics::range_series(found));
            let series = answer.series.iter().map(one).collect::<Result<_, _>>()?;
            let response = message(metrics::without_series(&answer))?;
            Ok(Last { messages: pieces::range(series, &response), coverage: answer.coverage })
        });
        answered.await.map_err(|error| Refusal::of_query(&error))
    })
    .await
}

async fn metrics_query_instant(State(doors): State<Doors>, request: Request) -> Response {
    call(doors, request, async |doors, asked: wire::QueryInstantRequest, _early| {
        let question = metrics::instant_question(&asked.into(), doors.query.now())?;
        let answered = doors.ask(DOOR, move |query| {
            let answer = query.metrics(&question)?;
            let one = |found| message(metrics::instant_series(found));
            let series = answer.series.iter().map(one).collect::<Result<_, _>>()?;
            let response = message(metrics::without_series(&answer))?;
            Ok(Last { messages: pieces::instant(series, response), coverage: answer.coverage })
        });
        answered.await.map_err(|error| Refusal::of_query(&error))
    })
    .await
}

/// The message whose JSON this is; every key must be known.
fn message<M: DeserializeOwned>(json: Value) -> Result<M, QueryError> {
    serde_json::from_value(json).map_err(|error| {
        tracing::error!(%error, "an answer of the HTTP API is not that of proto/tempo.proto");
        QueryError::Failed
    })
}

impl From<wire::SearchRequest> for Parameters {
    fn from(asked: wire::SearchRequest) -> Self {
        let [start, end] = seconds(asked.start, asked.end);
        let millis =
            |number| Some(number).filter(|number| *number != 0).map_or_else(String::new, |ms: u32| format!("{ms}ms"));
        Self::given([
            ("q", asked.query),
            ("tags", logfmt::written(asked.tags.iter())),
            ("minDuration", millis(asked.min_duration_ms)),
            ("maxDuration", millis(asked.max_duration_ms)),
            ("limit", number(asked.limit)),
            ("spss", number(asked.spans_per_span_set)),
            ("start", start),
            ("end", end),
        ])
    }
}

impl From<wire::SearchTagsRequest> for Parameters {
    fn from(asked: wire::SearchTagsRequest) -> Self {
        let [start, end] = seconds(asked.start, asked.end);
        let limit = number(asked.max_tags_per_scope);
        Self::given([("scope", asked.scope), ("q", asked.query), ("limit", limit), ("start", start), ("end", end)])
    }
}

impl From<wire::SearchTagValuesRequest> for Parameters {
    fn from(asked: wire::SearchTagValuesRequest) -> Self {
        let [start, end] = seconds(asked.start, asked.end);
        Self::given([("q", asked.query), ("limit", number(asked.max_tag_values)), ("start", start), ("end", end)])
    }
}

impl From<wire::QueryRangeRequest> for Parameters {
    fn from(asked: wire::QueryRangeRequest) -> Self {
        let step = if asked.step == 0 { String::new() } else { format!("{}ns", asked.step) };
        Self::given([
            ("q", asked.query),
            ("start", nanos(asked.start)),
            ("end", nanos(asked.end)),
            ("step", step),
            ("exemplars", number(asked.exemplars)),
        ])
    }
}

impl From<wire::QueryInstantRequest> for Parameters {
    fn from(asked: wire::QueryInstantRequest) -> Self {
        Self::given([("q", asked.query), ("start", nanos(asked.start)), ("end", nanos(asked.end))])
    }
}

fn number(number: u32) -> String {
    if number == 0 { String::new() } else { number.to_string() }
}

/// A window of unix seconds; only both zeros are none.
fn seconds(start: u32, end: u32) -> [String; 2] {
    if (start, end) == (0, 0) { Default::default() } else { [start.to_string(), end.to_string()] }
}

/// With so many digits that no time is taken for one in seconds.
fn nanos(at: u64) -> String {
    if at == 0 { String::new() } else { format!("{at:020}") }
}
