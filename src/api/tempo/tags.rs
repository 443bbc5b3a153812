//! Which tags there are, and their values: `/api/v2/search/tags`, `/api/v2/search/tag/{tag}/values`, and both in their first
//! version.

use std::collections::BTreeSet;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use axum::routing::get;

use crate::api::Doors;
use crate::api::refusal::Refusal;
use crate::model::TimeRange;
use crate::query::traceql::{AttributeScope, Field, FieldValue, Filter, Intrinsic};
use crate::query::{Coverage, TagNames, TagValues, TagValuesQuestion};

use super::parameters::{Bad, Parameters};
use super::{Answer, DOOR, as_json, wire};

/// Names of a scope, or values, in one answer.
const LISTED_MAX: usize = 10_000;
/// What every span or trace has (Tempo `pkg/search/util.go`).
const INTRINSICS: [&str; 25] = [
    "duration",
    "event:name",
    "event:timeSinceStart",
    "instrumentation:name",
    "instrumentation:version",
    "kind",
    "link:spanID",
    "link:traceID",
    "name",
    "rootName",
    "rootServiceName",
    "span:duration",
    "span:id",
    "span:kind",
    "span:name",
    "span:parentID",
    "span:status",
    "span:statusMessage",
    "status",
    "statusMessage",
    "trace:duration",
    "trace:id",
    "trace:rootName",
    "trace:rootService",
    "traceDuration",
];
const SCOPES: [&str; 6] = ["resource", "span", "event", "link", "instrumentation", "intrinsic"];
/// True of a root.
const IS_ROOT: &str = "{ span:parentID = \"0000000000000000\" }";

pub(super) fn router() -> Router<Doors> {
    Router::new()
        .route("/api/v2/search/tags", get(names_v2_json))
        .route("/api/v2/search/tag/{*tag}", get(values_v2_json))
        .route("/api/search/tags", get(names_v1_json))
        .route("/api/search/tag/{*tag}", get(values_v1_json))
}

/// What both kinds of question take.
struct Asked {
    limit: usize,
    range: TimeRange,
    scope: Option<String>,
    filter: Option<Filter>,
}

impl Asked {
    fn of(parameters: &Parameters, doors: &Doors) -> Result<Self, Bad> {
        let scope = parameters.get("scope").filter(|scope| *scope != "none");
        if let Some(scope) = scope.filter(|scope| !SCOPES.contains(scope)) {
            return Err(format!("invalid scope {scope:?}: known are {}", SCOPES.join(", ")));
        }
        Ok(Self {
            // 0 is no limit of one's own.
            limit: match parameters.number("limit", 0, 0..=usize::MAX)? {
                0 => LISTED_MAX,
                limit => limit.min(LISTED_MAX),
            },
            range: parameters.window(doors.query.now())?,
            scope: scope.map(str::to_owned),
            // Often unfinished: it is what stands in an editor.
            filter: parameters.get("q").and_then(|q| q.parse().ok()),
        })
    }
}

async fn names_v2_json(State(doors): State<Doors>, uri: Uri) -> Response {
    as_json(async { names_v2(&doors, &Parameters::of(&uri)?).await }.await)
}

async fn names_v1_json(State(doors): State<Doors>, uri: Uri) -> Response {
    as_json(async { names_v1(&doors, &Parameters::of(&uri)?).await }.await)
}

async fn values_v2_json(State(doors): State<Doors>, Path(rest): Path<String>, uri: Uri) -> Response {
    as_json(async { values_v2(&doors, tag(&rest)?, &Parameters::of(&uri)?).await }.await)
}

async fn values_v1_json(State(doors): State<Doors>, Path(rest): Path<String>, uri: Uri) -> Response {
    as_json(async { values_v1(&doors, tag(&rest)?, &Parameters::of(&uri)?).await }.await)
}

/// From the end of the path; it may hold slashes.
fn tag(rest: &str) -> Result<&str, Refusal> {
    let path = || format!("no such path: {rest}; the values of a tag are at /api/v2/search/tag/{{tag}}/values");
    rest.strip_suffix("/values")
        .ok_or_else(|| Refusal::with_status(tonic::Code::NotFound, StatusCode::NOT_FOUND, &path()))
}

pub(super) async fn names_v2(doors: &Doors, parameters: &Parameters) -> Answer<wire::SearchTagsV2Response> {
    let (asked, names) = names(doors, parameters).await?;
    let intrinsics = INTRINSICS.iter().take(asked.limit).map(|name| (*name).to_owned()).collect();
    let of_scopes = [names.resource, names.span, names.event, names.link, names.instrumentation, intrinsics];
    let is_wanted = |name: &str| asked.scope.as_deref().is_none_or(|scope| scope == name);
    let scopes = SCOPES.into_iter().zip(of_scopes).filter(|(name, _)| is_wanted(name));
    let scopes = scopes.map(|(name, tags)| wire::TagScope { name: name.to_owned(), tags: tags.into_iter().collect() });
    let metrics = Some(wire::TagMetrics::default());
    Ok((wire::SearchTagsV2Response { scopes: scopes.collect(), metrics }, names.coverage))
}

pub(super) async fn names_v1(doors: &Doors, parameters: &Parameters) -> Answer<wire::SearchTagsResponse> {
    let (asked, names) = names(doors, parameters).await?;
    let union = names.resource.union(&names.span).take(asked.limit).cloned();
    Ok((wire::SearchTagsResponse { tag_names: union.collect(), metrics: None }, names.coverage))
}

async fn names(doors: &Doors, parameters: &Parameters) -> Result<(Asked, TagNames), Refusal> {
    let asked = Asked::of(parameters, doors)?;
    let (range, limit) = (asked.range, asked.limit);
    let found = doors.ask(DOOR, move |query| query.tag_names(range, limit)).await;
    found.map(|names| (asked, names)).map_err(|error| Refusal::of_query(&error))
}

pub(super) async fn values_v2(
    doors: &Doors,
    tag: &str,
    parameters: &Parameters,
) -> Answer<wire::SearchTagValuesV2Response> {
    let found = values(doors, tag, parameters, Tag::scoped).await?;
    let tag_values = found.values.iter().map(typed).collect();
    let metrics = Some(wire::TagMetrics::default());
    Ok((wire::SearchTagValuesV2Response { tag_values, metrics }, found.coverage))
}

pub(super) async fn values_v1(
    doors: &Doors,
    tag: &str,
    parameters: &Parameters,
) -> Answer<wire::SearchTagValuesResponse> {
    let found = values(doors, tag, parameters, Tag::unscoped).await?;
    let values: BTreeSet<String> = found.values.iter().map(ToString::to_string).collect();
    Ok((wire::SearchTagValuesResponse { tag_values: values.into_iter().collect(), metrics: None }, found.coverage))
}

/// The values of a tag. Some data sources encode it twice: what has no value is decoded once more.
async fn values(
    doors: &Doors,
    tag: &str,
    parameters: &Parameters,
    tag_of: fn(&str) -> Tag,
) -> Result<TagValues, Refusal> {
    let mut found = TagValues::default();
    let twice = decoded(tag);
    for tag in std::iter::once(tag).chain(twice.as_deref()) {
        let asked = Asked::of(parameters, doors)?;
        found = match tag_of(tag) {
            Tag::Listed(mut values) => {
                values.truncate(asked.limit);
                TagValues { values: values.into_iter().collect(), coverage: Coverage::default() }
            }
            Tag::Fields { fields, among } => {
                let filter = match (asked.filter, among) {
                    (Some(filter), Some(among)) => Some(filter.and(among)),
                    (filter, among) => filter.or(among),
                };
                let question = TagValuesQuestion { fields, filter, range: asked.range, values_max: asked.limit };
                let answer = doors.ask(DOOR, move |query| query.tag_values(&question)).await;
                answer.map_err(|error| Refusal::of_query(&error))?
            }
        };
        if !found.values.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// What a tag means.
enum Tag {
    /// Its values are known without a look; none for what nobody chooses from a list.
    Listed(Vec<FieldValue>),
    /// Those of some fields, of these spans alone.
    Fields { fields: Vec<Field>, among: Option<Filter> },
}

impl Tag {
    /// As TraceQL writes it.
    fn scoped(tag: &str) -> Self {
        let of_roots = |field: &str| match (field.parse(), IS_ROOT.parse()) {
            (Ok(field), Ok(among)) => Self::Fields { fields: vec![field], among: Some(among) },
            _ => Self::Listed(Vec::new()),
        };
        match tag {
            "rootName" | "trace:rootName" => return of_roots("name"),
            "rootServiceName" | "trace:rootService" => return of_roots("resource.service.name"),
            _ => {}
        }
        match Field::of_tag(tag) {
            Some(Field::Attribute { scope: AttributeScope::Unscoped, key }) => Self::of_any_scope(&key),
            Some(Field::Intrinsic(intrinsic)) => Self::intrinsic(intrinsic),
            Some(field) => Self::Fields { fields: vec![field], among: None },
            None => Self::Listed(Vec::new()),
        }
    }

    /// The name of an attribute, or of an intrinsic as Grafana 10 writes it.
    fn unscoped(tag: &str) -> Self {
        match tag {
            "name" | "status" | "kind" | "statusMessage" | "rootName" | "rootServiceName" => Self::scoped(tag),
            key => Self::of_any_scope(key),
        }
    }

    fn of_any_scope(key: &str) -> Self {
        let scopes = [AttributeScope::Span, AttributeScope::Resource, AttributeScope::Instrumentation];
        let fields = scopes.map(|scope| Field::Attribute { scope, key: key.to_owned() });
        Self::Fields { fields: fields.into(), among: None }
    }

    fn intrinsic(intrinsic: Intrinsic) -> Self {
        match intrinsic {
            Intrinsic::Status => Self::Listed((0..=2).map(FieldValue::Status).collect()),
            Intrinsic::Kind => Self::Listed((0..=5).map(FieldValue::Kind).collect()),
            // Nearly every span has another one.
            Intrinsic::Duration
            | Intrinsic::SpanId
            | Intrinsic::ParentId
            | Intrinsic::TraceId
            | Intrinsic::EventTimeSinceStart
            | Intrinsic::LinkTraceId
            | Intrinsic::LinkSpanId => Self::Listed(Vec::new()),
            named => Self::Fields { fields: vec![Field::Intrinsic(named)], among: None },
        }
    }
}

/// A value with the type that decides how an editor writes it.
fn typed(value: &FieldValue) -> wire::TagValue {
    let name = match value {
        FieldValue::Int(_) => "int",
        FieldValue::Float(_) => "float",
        FieldValue::Bool(_) => "bool",
        FieldValue::Duration(_) => "duration",
        FieldValue::Status(_) | FieldValue::Kind(_) => "keyword",
        FieldValue::String(_) | FieldValue::Array(_) => "string",
    };
    wire::TagValue { r#type: name.to_owned(), value: value.to_string() }
}

/// Percent-decoded; `None` when that changes nothing or is no text.
fn decoded(tag: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(tag.len());
    let mut rest = tag.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = behind.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = behind.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok().filter(|decoded| decoded != tag)
}
