//! `/api/search`: proto3-JSON of Tempo's `SearchResponse` as of May 2025, and nothing else: the data source refuses keys that
//! it does not know.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::api::refusal::query_status;
use crate::api::{Doors, text};
use crate::query::traceql::{FILTERS_MAX, FieldValue, Problem, SpanQuery, TraceQlError};
use crate::query::{QueryError, SearchAnswer, SearchQuestion, SearchSpan, SearchTrace, TraceConditions};

use super::parameters::{Bad, Parameters};
use super::{DOOR, json, logfmt, wire, with_coverage};

/// Traces of one answer.
const TRACES_MAX: usize = 10_000;
const TRACES_DEFAULT: usize = 20;
/// Spans shown of each trace without `spss`.
const SPANS_DEFAULT: usize = 3;

pub(super) async fn search(State(doors): State<Doors>, uri: Uri) -> Response {
    let question = match Parameters::of(&uri).and_then(|parameters| question(&parameters, &doors)) {
        Ok(question) => question,
        Err(bad) => return text(StatusCode::BAD_REQUEST, bad),
    };
    let found = doors.ask(DOOR, move |query| {
        let answer = query.search(&question)?;
        let traces: Vec<&SearchTrace> = answer.traces.iter().collect();
        let whole = Whole { traces: OneByOne { columns: Columns::of(&traces), traces }, metrics: metrics(&answer) };
        let written = serde_json::to_vec(&whole).map_err(|_| QueryError::Failed)?;
        Ok((written, answer.coverage))
    });
    match found.await {
        Ok((written, coverage)) => with_coverage(json(written), &coverage),
        Err(error) => text(query_status(&error), error.to_string()),
    }
}

pub(super) fn question(parameters: &Parameters, doors: &Doors) -> Result<SearchQuestion, Bad> {
    let old = ["tags", "minDuration", "maxDuration"];
    if let Some(name) = old.into_iter().find(|name| parameters.get(name).is_some())
        && parameters.get("q").is_some()
    {
        return Err(format!("q and {name} exclude each other: write the conditions of {name} into q"));
    }
    let query = if let Some(q) = parameters.get("q") {
        q.parse::<SpanQuery>().map_err(|error| refused(&error))?
    } else {
        let each = parameters.get("tags").map(logfmt::filters).transpose()?.unwrap_or_default();
        if FILTERS_MAX < each.len() {
            return Err(format!("tags has {} pairs, at most {FILTERS_MAX} are taken", each.len()));
        }
        SpanQuery::each(each)
    };
    Ok(SearchQuestion {
        query,
        range: parameters.window(doors.query.now())?,
        trace: TraceConditions {
            duration_min: parameters.duration("minDuration")?,
            duration_max: parameters.duration("maxDuration")?,
        },
        traces_max: parameters.number("limit", TRACES_DEFAULT, 1..=TRACES_MAX)?,
        spans_per_set_max: parameters.number("spss", SPANS_DEFAULT, 0..=usize::MAX)?,
    })
}

/// In the words of Tempo, which editors look for.
pub(super) fn refused(error: &TraceQlError) -> Bad {
    let TraceQlError { line, column, problem } = error;
    match problem {
        Problem::Unsupported { what, because, .. } => {
            format!("unsupported TraceQL: {what} at line {line}, col {column}; {because}")
        }
        problem => format!("invalid TraceQL query: parse error at line {line}, col {column}: {problem}"),
    }
}

/// A `wire::SearchResponse` that is never there as a whole.
#[derive(Serialize)]
struct Whole<'a> {
    traces: OneByOne<'a>,
    metrics: wire::SearchMetrics,
}

struct OneByOne<'a> {
    columns: Columns<'a>,
    traces: Vec<&'a SearchTrace>,
}

impl Serialize for OneByOne<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.traces.iter().map(|trace| self.columns.trace(trace)))
    }
}

impl wire::SearchResponse {
    pub(super) fn of(answer: &SearchAnswer) -> Self {
        Self { traces: traces(&answer.traces.iter().collect::<Vec<_>>()), metrics: Some(metrics(answer)) }
    }
}

fn metrics(answer: &SearchAnswer) -> wire::SearchMetrics {
    let jobs = narrow(answer.jobs);
    wire::SearchMetrics {
        inspected_traces: narrow(answer.traces.len() as u64),
        total_blocks: narrow(answer.inspected_blocks),
        completed_jobs: jobs,
        total_jobs: jobs,
        inspected_spans: answer.inspected_spans,
        ..wire::SearchMetrics::default()
    }
}

/// Traces of one answer: an attribute has one type in all of them.
pub(super) fn traces(traces: &[&SearchTrace]) -> Vec<wire::TraceSearchMetadata> {
    let columns = Columns::of(traces);
    traces.iter().map(|trace| columns.trace(trace)).collect()
}

/// Whether a trace is told in the same way whatever other traces there are in the answer: its attributes are texts.
pub(super) fn is_told_alike(trace: &SearchTrace) -> bool {
    attributes(trace).all(|(_, value)| Column::of(value) == Column::Text)
}

fn attributes(trace: &SearchTrace) -> impl Iterator<Item = &(String, FieldValue)> {
    trace.sets.iter().flat_map(|set| set.attributes.iter().chain(set.spans.iter().flat_map(|span| &span.attributes)))
}

pub(super) fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Type of a column of the table that the data source makes of one attribute; a value of another type breaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Text,
    Number,
    Bool,
}

impl Column {
    fn of(value: &FieldValue) -> Self {
        match value {
            FieldValue::Int(_) | FieldValue::Float(_) => Self::Number,
            FieldValue::Bool(_) => Self::Bool,
            FieldValue::String(_)
            | FieldValue::Duration(_)
            | FieldValue::Status(_)
            | FieldValue::Kind(_)
            | FieldValue::Array(_) => Self::Text,
        }
    }
}

/// By key.
struct Columns<'a>(HashMap<&'a str, Column>);

impl<'a> Columns<'a> {
    fn of(traces: &[&'a SearchTrace]) -> Self {
        let mut columns: HashMap<&str, Column> = HashMap::new();
        for (key, value) in traces.iter().copied().flat_map(attributes) {
            let column = Column::of(value);
            let known = columns.entry(key).or_insert(column);
            if *known != column {
                *known = Column::Text;
            }
        }
        Self(columns)
    }

    fn trace(&self, trace: &SearchTrace) -> wire::TraceSearchMetadata {
        let span = |span: &SearchSpan| wire::Span {
            span_id: span.span_id.to_string(),
            name: span.name.clone(),
            start_time_unix_nano: span.start.0,
            duration_nanos: span.duration.0,
            attributes: self.attributes(&span.attributes),
        };
        let sets = trace.sets.iter().map(|set| wire::SpanSet {
            spans: set.spans.iter().map(span).collect(),
            matched: narrow(set.matched),
            attributes: self.attributes(&set.attributes),
        });
        let services = trace.services.iter().map(|(name, counts)| {
            let counts = wire::ServiceStats { span_count: narrow(counts.spans), error_count: narrow(counts.errors) };
            (name.clone(), counts)
        });
        wire::TraceSearchMetadata {
            trace_id: trace.trace_id.to_string(),
            root_service_name: trace.root_service.clone(),
            root_trace_name: trace.root_name.clone(),
            start_time_unix_nano: trace.start.0,
            duration_ms: narrow(trace.duration.0 / 1_000_000),
            span_sets: sets.collect(),
            service_stats: services.collect(),
        }
    }

    fn attributes(&self, attributes: &[(String, FieldValue)]) -> Vec<wire::KeyValue> {
        let attribute = |(key, value): &(String, FieldValue)| {
            let value = wire::AnyValue { value: Some(self.value(key, value)) };
            wire::KeyValue { key: key.clone(), value: Some(value) }
        };
        attributes.iter().map(attribute).collect()
    }

    fn value(&self, key: &str, value: &FieldValue) -> wire::any_value::Value {
        use wire::any_value::Value as Any;
        match (self.0.get(key), value) {
            (Some(Column::Number), FieldValue::Int(number)) => Any::IntValue(*number),
            (Some(Column::Number), FieldValue::Float(number)) => Any::DoubleValue(number.0),
            (Some(Column::Bool), FieldValue::Bool(value)) => Any::BoolValue(*value),
            (_, FieldValue::Array(elements)) => {
                Any::StringValue(Value::Array(elements.iter().map(element).collect()).to_string())
            }
            _ => Any::StringValue(value.to_string()),
        }
    }
}

fn element(value: &FieldValue) -> Value {
    match value {
        FieldValue::Int(number) => json!(number),
        FieldValue::Float(number) => {
            wire::double::serialize(&number.0, serde_json::value::Serializer).unwrap_or_default()
        }
        FieldValue::Bool(value) => json!(value),
        other => json!(other.to_string()),
    }
}
