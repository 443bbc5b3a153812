//! What a span of a batch has of a field. The plain way, which everything faster is compared with.

use std::borrow::Cow;

use super::ast::{AttributeScope, Field, Intrinsic};
use super::value::Datum;
use crate::model::{DurationNanos, Rows, Span, SpanBatch, Value};
use crate::otlp::{ArrayElement, array_elements};

/// The value of `field` for `span` of `batch`.
pub(super) fn of_span<'a>(field: &Field, batch: &'a SpanBatch, span: &Span) -> Datum<'a> {
    match field {
        Field::Intrinsic(intrinsic) => intrinsic_of(*intrinsic, batch, span),
        Field::Attribute { scope, key } => match scope {
            AttributeScope::Span => attribute(batch, span.attributes, key),
            AttributeScope::Unscoped => match attribute(batch, span.attributes, key) {
                Datum::Nil => attribute(batch, batch.resource(span).attributes, key),
                found => found,
            },
            AttributeScope::Resource | AttributeScope::Instrumentation => of_scope(field, batch, span.scope),
            AttributeScope::Event => {
                let events = batch.events(span.events).iter();
                several(events.map(|event| attribute(batch, event.attributes, key)))
            }
            AttributeScope::Link => {
                let links = batch.links(span.links).iter();
                several(links.map(|link| attribute(batch, link.attributes, key)))
            }
            // A span alone has no parent.
            AttributeScope::Parent | AttributeScope::ParentSpan | AttributeScope::ParentResource => Datum::Nil,
        },
    }
}

/// The value of a field that all spans of a scope share, for row `scope` of the batch's scopes.
pub(super) fn of_scope<'a>(field: &Field, batch: &'a SpanBatch, scope: u32) -> Datum<'a> {
    let scope = batch.scopes.get(scope as usize).copied().unwrap_or_default();
    match field {
        Field::Intrinsic(Intrinsic::InstrumentationName) => Datum::String(batch.text_lossy(scope.name)),
        Field::Intrinsic(Intrinsic::InstrumentationVersion) => Datum::String(batch.text_lossy(scope.version)),
        Field::Attribute { scope: AttributeScope::Instrumentation, key } => attribute(batch, scope.attributes, key),
        // The resource's half of an attribute without a scope, too.
        Field::Attribute { scope: AttributeScope::Resource | AttributeScope::Unscoped, key } => {
            let resource = batch.resources.get(scope.resource as usize).copied().unwrap_or_default();
            attribute(batch, resource.attributes, key)
        }
        Field::Intrinsic(_) | Field::Attribute { .. } => Datum::Nil,
    }
}

fn intrinsic_of<'a>(intrinsic: Intrinsic, batch: &'a SpanBatch, span: &Span) -> Datum<'a> {
    let text = |text: String| Datum::String(Cow::Owned(text));
    match intrinsic {
        Intrinsic::Duration => latency(span.latency()),
        Intrinsic::Name => Datum::String(batch.text_lossy(span.name)),
        Intrinsic::Status => Datum::Status(span.status_code),
        Intrinsic::StatusMessage => Datum::String(batch.text_lossy(span.status_message)),
        Intrinsic::Kind => Datum::Kind(span.kind),
        Intrinsic::SpanId => text(span.span_id.to_string()),
        Intrinsic::ParentId => text(span.parent_span_id.to_string()),
        Intrinsic::TraceId => text(span.trace_id.to_string()),
        Intrinsic::InstrumentationName | Intrinsic::InstrumentationVersion => {
            of_scope(&Field::Intrinsic(intrinsic), batch, span.scope)
        }
        Intrinsic::EventName => {
            let events = batch.events(span.events).iter();
            several(events.map(|event| Datum::String(batch.text_lossy(event.name))))
        }
        Intrinsic::EventTimeSinceStart => several(batch.events(span.events).iter().map(|event| {
            let (at, start) = (i128::from(event.time_unix_nano.0), i128::from(span.start_time_unix_nano.0));
            i64::try_from(at - start).map_or(Datum::Nil, Datum::Duration)
        })),
        Intrinsic::LinkTraceId => several(batch.links(span.links).iter().map(|link| text(link.trace_id.to_string()))),
        Intrinsic::LinkSpanId => several(batch.links(span.links).iter().map(|link| text(link.span_id.to_string()))),
        // Nor a trace.
        Intrinsic::TraceDuration
        | Intrinsic::RootName
        | Intrinsic::RootService
        | Intrinsic::ChildCount
        | Intrinsic::NestedSetLeft
        | Intrinsic::NestedSetRight
        | Intrinsic::NestedSetParent => Datum::Nil,
    }
}

/// A latency; one above 292 years counts as that.
pub(super) fn latency(latency: Option<DurationNanos>) -> Datum<'static> {
    latency.map_or(Datum::Nil, |latency| Datum::Duration(i64::try_from(latency.0).unwrap_or(i64::MAX)))
}

fn several<'a>(values: impl Iterator<Item = Datum<'a>>) -> Datum<'a> {
    Datum::Several(values.filter(Datum::exists).collect())
}

/// The last attribute named `key`, as `SpanBatch::string_attribute` takes it.
fn attribute<'a>(batch: &'a SpanBatch, rows: Rows, key: &str) -> Datum<'a> {
    let attributes = batch.attributes(rows).iter();
    let found = attributes.rev().find(|attribute| batch.text(attribute.key) == key.as_bytes());
    match found.map(|attribute| attribute.value) {
        None | Some(Value::Empty | Value::Bytes(_)) => Datum::Nil,
        Some(Value::String(text)) => Datum::String(batch.text_lossy(text)),
        Some(Value::Bool(value)) => Datum::Bool(value),
        Some(Value::Int(number)) => Datum::Int(number),
        Some(Value::Double(number)) => Datum::Float(number),
        Some(Value::Nested(encoded)) => array(batch.text(encoded)),
    }
}

/// An encoded array; what is none of one type is missing.
pub(super) fn array(encoded: &[u8]) -> Datum<'static> {
    let Some(elements) = array_elements(encoded) else { return Datum::Nil };
    let element = |element| match element {
        ArrayElement::String(bytes) => Datum::String(Cow::Owned(String::from_utf8_lossy(bytes).into_owned())),
        ArrayElement::Bool(value) => Datum::Bool(value),
        ArrayElement::Int(number) => Datum::Int(number),
        ArrayElement::Double(number) => Datum::Float(number),
    };
    let elements: Vec<Datum<'static>> = elements.into_iter().map(element).collect();
    let is_like_first = |element: &Datum<'_>| {
        elements.first().is_some_and(|first| std::mem::discriminant(first) == std::mem::discriminant(element))
    };
    if !elements.is_empty() && elements.iter().all(is_like_first) { Datum::Array(elements) } else { Datum::Nil }
}
