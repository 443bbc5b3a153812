//! The tables of resources and scopes: one row per distinct content, whatever batch it came in.

use std::collections::HashMap;

use crate::block::codec::{Packer, put_blob, put_text, put_varint, zigzag};
use crate::block::columns::ValueType;
use crate::model::{Rows, SpanBatch, Value};

/// Rows by content. The content is what is stored.
#[derive(Default)]
struct Table {
    rows: Vec<Vec<u8>>,
    by_content: HashMap<Vec<u8>, u32>,
}

impl Table {
    fn row(&mut self, content: Vec<u8>) -> u32 {
        if let Some(known) = self.by_content.get(&content) {
            return *known;
        }
        let row = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(content.clone());
        let _none = self.by_content.insert(content, row);
        row
    }

    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.rows.len() as u64);
        for row in &self.rows {
            put_text(out, row);
        }
    }
}

/// Resources and scopes of a block.
pub(super) struct Scopes {
    resource_table: Table,
    scope_table: Table,
    /// Per batch and row of its scopes, the row here; scopes that do not exist share the slot behind the last.
    known: Vec<Vec<Option<u32>>>,
}

impl Scopes {
    pub(super) fn new(n_batches: usize) -> Self {
        Self { resource_table: Table::default(), scope_table: Table::default(), known: vec![Vec::new(); n_batches] }
    }

    /// The row of a batch's scope. The content is looked at once per batch and scope.
    pub(super) fn row(&mut self, batch: &SpanBatch, batch_idx: u32, scope: u32) -> u32 {
        let slot = (scope as usize).min(batch.scopes.len());
        if let Some(known) = self.known.get(batch_idx as usize).and_then(|known| known.get(slot)).copied().flatten() {
            return known;
        }
        let row = self.add(batch, scope);
        if let Some(known) = self.known.get_mut(batch_idx as usize) {
            known.resize(batch.scopes.len() + 1, None);
            if let Some(known) = known.get_mut(slot) {
                *known = Some(row);
            }
        }
        row
    }

    pub(super) fn n_scopes(&self) -> usize {
        self.scope_table.rows.len()
    }

    pub(super) fn encode(&self, packer: &mut Packer) -> Vec<u8> {
        let mut raw = Vec::new();
        self.resource_table.encode(&mut raw);
        self.scope_table.encode(&mut raw);
        let mut out = Vec::new();
        put_blob(&mut out, &raw, packer);
        out
    }

    fn add(&mut self, batch: &SpanBatch, scope: u32) -> u32 {
        let scope = batch.scopes.get(scope as usize).copied().unwrap_or_default();
        let resource = batch.resources.get(scope.resource as usize).copied().unwrap_or_default();
        let mut content = Vec::new();
        for text in [resource.service, resource.namespace, resource.schema_url, resource.entity_refs] {
            put_text(&mut content, batch.text(text));
        }
        put_varint(&mut content, u64::from(resource.dropped_attributes_count));
        put_attributes(&mut content, batch, resource.attributes);
        let resource = self.resource_table.row(content);

        let mut content = Vec::new();
        put_varint(&mut content, u64::from(resource));
        for text in [scope.name, scope.version, scope.schema_url] {
            put_text(&mut content, batch.text(text));
        }
        put_varint(&mut content, u64::from(scope.dropped_attributes_count));
        put_attributes(&mut content, batch, scope.attributes);
        self.scope_table.row(content)
    }
}

/// Attributes inline: `n:varint (key:text type:u8 value)*`.
fn put_attributes(out: &mut Vec<u8>, batch: &SpanBatch, rows: Rows) {
    let attributes = batch.attributes(rows);
    put_varint(out, attributes.len() as u64);
    for attribute in attributes {
        put_text(out, batch.text(attribute.key));
        out.push(ValueType::of(attribute.value) as u8);
        match attribute.value {
            Value::Empty => {}
            Value::Bool(value) => out.push(u8::from(value)),
            Value::Int(value) => put_varint(out, zigzag(value.cast_unsigned())),
            Value::Double(value) => out.extend_from_slice(&value.to_bits().to_be_bytes()),
            Value::String(text) | Value::Bytes(text) | Value::Nested(text) => put_text(out, batch.text(text)),
        }
    }
}
