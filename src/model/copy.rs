//! Copying spans from one batch into another, each resource and scope once.

use std::collections::HashMap;

use super::{Attribute, Resource, Rows, Scope, Span, SpanBatch, Text, Value};

/// Collects spans of many batches into one. Resources and scopes of equal content become one row.
///
/// Cost per span: O(its attributes, events and links); per new resource or scope of a source: one hash of its content.
#[derive(Debug, Default)]
pub struct SpanCopier {
    /// What was collected.
    pub batch: SpanBatch,
    /// Content of a resource or scope -> its row in `batch`.
    resources: HashMap<Vec<u8>, u32>,
    scopes: HashMap<Vec<u8>, u32>,
    /// Rows of the source that `copy_all` is reading -> rows of `batch`.
    scope_rows: HashMap<u32, u32>,
}

impl SpanCopier {
    /// Appends the spans of `source` that `wanted` names, in that order. Rows that do not exist are passed over.
    pub fn copy(&mut self, source: &SpanBatch, wanted: impl IntoIterator<Item = u32>) {
        self.scope_rows.clear();
        for row in wanted {
            let Some(span) = source.spans.get(row as usize) else { continue };
            let scope = self.scope_row(source, span.scope);
            let copied = Span {
                scope,
                name: self.text(source, span.name),
                trace_state: self.text(source, span.trace_state),
                status_message: self.text(source, span.status_message),
                attributes: self.attributes(source, span.attributes),
                events: self.events(source, span.events),
                links: self.links(source, span.links),
                ..*span
            };
            self.batch.spans.push(copied);
        }
    }

    fn scope_row(&mut self, source: &SpanBatch, row: u32) -> u32 {
        if let Some(known) = self.scope_rows.get(&row) {
            return *known;
        }
        let scope = source.scopes.get(row as usize).copied().unwrap_or_default();
        let resource = self.resource_row(source, scope.resource);
        let mut content = resource.to_be_bytes().to_vec();
        write_text(source, scope.name, &mut content);
        write_text(source, scope.version, &mut content);
        write_text(source, scope.schema_url, &mut content);
        write_attributes(source, scope.attributes, scope.dropped_attributes_count, &mut content);
        let copied = if let Some(known) = self.scopes.get(&content) {
            *known
        } else {
            let copied = Scope {
                resource,
                name: self.text(source, scope.name),
                version: self.text(source, scope.version),
                attributes: self.attributes(source, scope.attributes),
                dropped_attributes_count: scope.dropped_attributes_count,
                schema_url: self.text(source, scope.schema_url),
            };
            let new = row_count(&self.batch.scopes);
            self.batch.scopes.push(copied);
            let _none = self.scopes.insert(content, new);
            new
        };
        let _none = self.scope_rows.insert(row, copied);
        copied
    }

    fn resource_row(&mut self, source: &SpanBatch, row: u32) -> u32 {
        let resource = source.resources.get(row as usize).copied().unwrap_or_default();
        let mut content = Vec::new();
        write_text(source, resource.schema_url, &mut content);
        write_text(source, resource.entity_refs, &mut content);
        write_attributes(source, resource.attributes, resource.dropped_attributes_count, &mut content);
        if let Some(known) = self.resources.get(&content) {
            return *known;
        }
        let copied = Resource {
            attributes: self.attributes(source, resource.attributes),
            dropped_attributes_count: resource.dropped_attributes_count,
            schema_url: self.text(source, resource.schema_url),
            entity_refs: self.text(source, resource.entity_refs),
            service: self.text(source, resource.service),
            namespace: self.text(source, resource.namespace),
        };
        let new = row_count(&self.batch.resources);
        self.batch.resources.push(copied);
        let _none = self.resources.insert(content, new);
        new
    }

    fn text(&mut self, source: &SpanBatch, text: Text) -> Text {
        if text.len == 0 {
            return Text::default();
        }
        // Past 4 GiB the text is lost, not the span; answers are bounded far below that.
        self.batch.push_bytes(source.text(text)).unwrap_or_default()
    }

    fn attributes(&mut self, source: &SpanBatch, rows: Rows) -> Rows {
        let start = row_count(&self.batch.attributes);
        for attribute in source.attributes(rows) {
            let key = self.text(source, attribute.key);
            let value = match attribute.value {
                Value::String(text) => Value::String(self.text(source, text)),
                Value::Bytes(text) => Value::Bytes(self.text(source, text)),
                Value::Nested(text) => Value::Nested(self.text(source, text)),
                scalar @ (Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_)) => scalar,
            };
            self.batch.attributes.push(Attribute { key, value });
        }
        Rows { start, len: row_count(&self.batch.attributes) - start }
    }

    fn events(&mut self, source: &SpanBatch, rows: Rows) -> Rows {
        let start = row_count(&self.batch.events);
        for event in source.events(rows) {
            let name = self.text(source, event.name);
            let attributes = self.attributes(source, event.attributes);
            self.batch.events.push(super::Event { name, attributes, ..*event });
        }
        Rows { start, len: row_count(&self.batch.events) - start }
    }

    fn links(&mut self, source: &SpanBatch, rows: Rows) -> Rows {
        let start = row_count(&self.batch.links);
        for link in source.links(rows) {
            let trace_state = self.text(source, link.trace_state);
            let attributes = self.attributes(source, link.attributes);
            self.batch.links.push(super::Link { trace_state, attributes, ..*link });
        }
        Rows { start, len: row_count(&self.batch.links) - start }
    }
}

fn row_count<T>(table: &[T]) -> u32 {
    u32::try_from(table.len()).unwrap_or(u32::MAX)
}

fn write_text(source: &SpanBatch, text: Text, content: &mut Vec<u8>) {
    content.extend_from_slice(&text.len.to_be_bytes());
    content.extend_from_slice(source.text(text));
}

/// Injective: equal bytes only for equal attributes.
fn write_attributes(source: &SpanBatch, rows: Rows, dropped: u32, content: &mut Vec<u8>) {
    content.extend_from_slice(&dropped.to_be_bytes());
    for attribute in source.attributes(rows) {
        write_text(source, attribute.key, content);
        match attribute.value {
            Value::Empty => content.push(0),
            Value::String(text) => {
                content.push(1);
                write_text(source, text, content);
            }
            Value::Bool(value) => content.extend_from_slice(&[2, u8::from(value)]),
            Value::Int(value) => {
                content.push(3);
                content.extend_from_slice(&value.to_be_bytes());
            }
            Value::Double(value) => {
                content.push(4);
                content.extend_from_slice(&value.to_bits().to_be_bytes());
            }
            Value::Bytes(text) => {
                content.push(5);
                write_text(source, text, content);
            }
            Value::Nested(text) => {
                content.push(6);
                write_text(source, text, content);
            }
        }
    }
}
