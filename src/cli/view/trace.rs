//! A trace read from OTLP JSON.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::{text, unix_nanos};
use crate::model::{DurationNanos, STATUS_CODE_ERROR, UNKNOWN_SERVICE, UnixNanos};

/// The stored spans of one trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TraceView {
    /// 32 hex digits; empty when there are no spans.
    pub trace_id: String,
    /// In the order of the answer.
    pub spans: Vec<SpanView>,
    /// What the spans' `resource` counts through.
    pub resources: Vec<ResourceView>,
    /// How many trees the critical path was looked for in: one when all parents are stored, 0 when the server did not say.
    pub path_roots: usize,
    /// Span to mark, 16 lower-case hex digits: the exemplar that led here. Not part of the answer; set it yourself.
    pub highlight: Option<String>,
}

/// Who sent spans.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResourceView {
    /// `service.name`, `unknown_service` when missing.
    pub service: String,
    /// All of them, in order; what is no string is written as JSON.
    pub attributes: Vec<(String, String)>,
}

/// One span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpanView {
    /// Position in `TraceView::resources`.
    pub resource: usize,
    /// 16 lower-case hex digits.
    pub span_id: String,
    /// The same; empty for a root.
    pub parent_span_id: String,
    /// As sent.
    pub name: String,
    /// OTLP number.
    pub kind: i32,
    /// As sent; 0 = not set.
    pub start: UnixNanos,
    /// As sent; 0 = not set.
    pub end: UnixNanos,
    /// Status code ERROR.
    pub error: bool,
    /// Message of the status.
    pub status_message: String,
    /// All of them, in order; what is no string is written as JSON.
    pub attributes: Vec<(String, String)>,
    /// Where it stands among its series, if that was answered.
    pub rank: Option<RankView>,
    /// How long the trace depended on this very span; `None` when it is not on the critical path.
    pub on_path: Option<DurationNanos>,
}

/// How slow a span was among those of its series, in the hour around the trace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct RankView {
    /// Part of the spans that were not slower, in `0..=1`.
    pub percentile: f64,
    /// Spans compared with.
    pub count: u64,
    /// Service and name.
    pub series: String,
}

impl SpanView {
    /// How long it took; `None` when its clock ran backwards or a time is not set.
    pub fn duration(&self) -> Option<DurationNanos> {
        let length = self.end.0.checked_sub(self.start.0).map(DurationNanos);
        length.filter(|_| !self.start.is_unset())
    }
}

impl TraceView {
    /// Reads `{"resourceSpans":[..]}`: ids in hex, times as strings of nanoseconds, enums as numbers or names.
    ///
    /// # Errors
    /// Says where the text is no JSON or not of that shape.
    pub fn from_otlp_json(json: &str) -> Result<Self, serde_json::Error> {
        let read: TracesData = serde_json::from_str(json)?;
        let mut trace = Self::default();
        for resource_spans in read.resource_spans {
            let resource = trace.resources.len();
            trace.resources.push(ResourceView::from(resource_spans.resource));
            let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
            for span in spans {
                if trace.trace_id.is_empty() {
                    trace.trace_id = span.trace_id.to_ascii_lowercase();
                }
                trace.spans.push(span.view(resource));
            }
        }
        if let Some(made) = read.spandrel {
            trace.add(made);
        }
        Ok(trace)
    }

    /// Gives each span what the answer says of it; of spans with one id and kind to the first.
    fn add(&mut self, made: Spandrel) {
        let mut spans: HashMap<(String, i32), &mut SpanView> = HashMap::with_capacity(self.spans.len());
        for span in &mut self.spans {
            let _first = spans.entry((span.span_id.clone(), span.kind)).or_insert(span);
        }
        let mut roots = HashSet::new();
        for on_path in made.critical_path {
            let _new = roots.insert(on_path.root);
            if let Some(span) = spans.get_mut(&(on_path.id.to_ascii_lowercase(), on_path.kind)) {
                span.on_path = Some(DurationNanos(on_path.self_time_nano));
            }
        }
        for ranked in made.ranks {
            if let Some(span) = spans.get_mut(&(ranked.id.to_ascii_lowercase(), ranked.kind)) {
                span.rank = Some(ranked.rank);
            }
        }
        self.path_roots = roots.len();
    }

    /// Whether `span` is the one to mark.
    pub fn is_highlighted(&self, span: &SpanView) -> bool {
        self.highlight.as_deref().is_some_and(|wanted| wanted.eq_ignore_ascii_case(&span.span_id))
    }

    /// `service.name` of a span.
    pub fn service(&self, span: &SpanView) -> &str {
        self.resources.get(span.resource).map_or(UNKNOWN_SERVICE, |resource| resource.service.as_str())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TracesData {
    /// Not optional: an error object has no spans either, and must not look like an empty trace.
    resource_spans: Vec<ResourceSpans>,
    /// Missing in an answer of an older server, or of another one.
    #[serde(default)]
    spandrel: Option<Spandrel>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spandrel {
    critical_path: Vec<OnPath>,
    ranks: Vec<Ranked>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct OnPath {
    #[serde(rename = "rootSpanId")]
    root: String,
    #[serde(rename = "spanId")]
    id: String,
    kind: i32,
    self_time_nano: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Ranked {
    #[serde(rename = "spanId")]
    id: String,
    kind: i32,
    #[serde(flatten)]
    rank: RankView,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ScopeSpans {
    spans: Vec<Span>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Span {
    trace_id: String,
    #[serde(rename = "spanId")]
    id: String,
    #[serde(rename = "parentSpanId")]
    parent: String,
    name: String,
    kind: Value,
    #[serde(deserialize_with = "unix_nanos")]
    start_time_unix_nano: UnixNanos,
    #[serde(deserialize_with = "unix_nanos")]
    end_time_unix_nano: UnixNanos,
    attributes: Vec<KeyValue>,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: Value,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct KeyValue {
    key: String,
    value: Value,
}

impl From<Resource> for ResourceView {
    fn from(resource: Resource) -> Self {
        let attributes = pairs(resource.attributes);
        let named = attributes.iter().find(|(key, name)| key == "service.name" && !name.is_empty());
        let service = named.map_or_else(|| UNKNOWN_SERVICE.to_owned(), |(_, name)| name.clone());
        Self { service, attributes }
    }
}

impl Span {
    fn view(self, resource: usize) -> SpanView {
        let parent = self.parent.to_ascii_lowercase();
        SpanView {
            resource,
            span_id: self.id.to_ascii_lowercase(),
            parent_span_id: if parent.bytes().all(|digit| digit == b'0') { String::new() } else { parent },
            name: self.name,
            kind: kind(&self.kind),
            start: self.start_time_unix_nano,
            end: self.end_time_unix_nano,
            error: self.status.code == STATUS_CODE_ERROR || self.status.code == "STATUS_CODE_ERROR",
            status_message: self.status.message,
            attributes: pairs(self.attributes),
            rank: None,
            on_path: None,
        }
    }
}

fn kind(value: &Value) -> i32 {
    const NAMES: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
    let name = value.as_str().and_then(|name| name.strip_prefix("SPAN_KIND_"));
    let named = name.and_then(|name| NAMES.iter().position(|known| *known == name));
    let number = named.map_or_else(|| value.as_i64(), |at| i64::try_from(at).ok());
    number.and_then(|number| i32::try_from(number).ok()).unwrap_or(0)
}

fn pairs(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes.into_iter().map(|attribute| (attribute.key, any_value(attribute.value))).collect()
}

/// `{"stringValue":"eu-1b"}` is `eu-1b`, `{"intValue":"7"}` is `7`; arrays and lists stay JSON.
fn any_value(value: Value) -> String {
    match value {
        Value::Object(members) => members.into_iter().next().map(|(_, inner)| text(inner)).unwrap_or_default(),
        other => text(other),
    }
}
