//! The messages around spans: request, resources, scopes.
//!
//! A message whose parts may come in any order is walked twice: first for what the inner rows refer to, then for the
//! inner rows. The second walk only hops over lengths.

use std::collections::HashSet;

use super::attribute::AttributeList;
use super::decode::{Decoder, Stop, row_count};
use super::outcome::Warning;
use super::wire::{Reader, Wire, low_u32};
use crate::limits::{EVENT_ATTRIBUTES_MAX, SPAN_ATTRIBUTES_MAX};
use crate::model::{Resource, Rows, Scope, Text, Value};

/// Nominal bytes of a `ResourceSpans`.
const COST_RESOURCE: u64 = 80;
/// Nominal bytes of a `ScopeSpans`.
const COST_SCOPE: u64 = 128;
/// Nominal bytes of a `Span`.
const COST_SPAN: u64 = 264;

impl Decoder<'_> {
    pub(super) fn request(&mut self) -> Result<(), Stop> {
        // Texts are paid for once, as the body they lie in.
        self.charge(self.body.len() as u64)?;
        let mut reader = Reader::new(self.body);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Bytes(piece)) => self.resource_spans(piece)?,
                (1, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn resource_spans(&mut self, piece: Text) -> Result<(), Stop> {
        self.charge(COST_RESOURCE)?;
        let mut resource = Resource::default();
        let mut list = AttributeList::new(self.attributes.len(), SPAN_ATTRIBUTES_MAX);
        let mut refs = EntityRefs::default();
        let mut n_scopes = 0_u32;
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Bytes(piece)) => self.resource(piece, &mut resource, &mut list, &mut refs)?,
                (2, Wire::Bytes(_)) => n_scopes += 1,
                (3, Wire::Bytes(url)) => resource.schema_url = url,
                (1000, _) => self.warn(Warning::DeprecatedField),
                (1..=3, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        resource.schema_url = self.text(self.source(), resource.schema_url);
        resource.attributes = self.end_attributes(&list);
        resource.dropped_attributes_count = resource.dropped_attributes_count.saturating_add(list.n_dropped);
        resource.entity_refs = self.entity_refs(&refs)?;
        self.counters.entity_ref_missing += self.unresolved_refs(&resource)?;
        self.name_service(&mut resource)?;
        let row = row_count(&self.resources);
        self.resources.push(resource);
        if n_scopes == 0 {
            self.counters.empty_envelopes += 1;
            return Ok(());
        }
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            if let (2, Wire::Bytes(piece)) = (field.number, field.wire) {
                self.scope_spans(piece, row)?;
            }
        }
        Ok(())
    }

    fn resource(
        &mut self,
        piece: Text,
        resource: &mut Resource,
        list: &mut AttributeList,
        refs: &mut EntityRefs,
    ) -> Result<(), Stop> {
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Bytes(piece)) => self.attribute(list, piece)?,
                (2, Wire::Varint(count)) => resource.dropped_attributes_count = low_u32(count),
                (3, Wire::Bytes(piece)) => {
                    self.check_entity_ref(piece)?;
                    refs.add(self.body, field.start, reader.at());
                }
                (1..=3, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_entity_ref(&mut self, piece: Text) -> Result<(), Stop> {
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1..=4, Wire::Bytes(text)) if std::str::from_utf8(self.arena(text)).is_err() => {
                    self.warn(Warning::InvalidUtf8);
                }
                (1..=4, Wire::Bytes(_)) => {}
                (1..=4, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        Ok(())
    }

    fn entity_refs(&mut self, refs: &EntityRefs) -> Result<Text, Stop> {
        if refs.scattered.is_empty() {
            return Ok(refs.together);
        }
        self.push_extra(&refs.scattered)
    }

    /// How many entity references have no type, or name a key that the resource does not have. They stay as sent.
    fn unresolved_refs(&self, resource: &Resource) -> Result<u32, Stop> {
        if resource.entity_refs.len == 0 {
            return Ok(0);
        }
        let own = self.attributes.get(resource.attributes.start as usize..).unwrap_or_default();
        let keys: HashSet<&[u8]> = own.iter().map(|attribute| self.arena(attribute.key)).collect();
        let refs = self.arena(resource.entity_refs);
        let mut unresolved = 0;
        let mut reader = Reader::new(refs);
        while let Some(field) = reader.field()? {
            let Wire::Bytes(piece) = field.wire else { continue };
            let (mut has_type, mut has_keys) = (false, true);
            let mut inner = Reader::of(refs, piece);
            while let Some(field) = inner.field()? {
                let Wire::Bytes(text) = field.wire else { continue };
                match field.number {
                    2 => has_type = 0 < text.len,
                    3 | 4 => has_keys &= keys.contains(text_of(refs, text)),
                    _ => {}
                }
            }
            unresolved += u32::from(!has_type || !has_keys);
        }
        Ok(unresolved)
    }

    /// Sets `service` and `namespace` from the attributes.
    fn name_service(&mut self, resource: &mut Resource) -> Result<(), Stop> {
        resource.service = match self.last_value(resource.attributes, b"service.name") {
            Some(Value::String(name)) => self.shown(name)?,
            Some(Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) | Value::Nested(_)) => {
                self.warn(Warning::ServiceNameType);
                Text::default()
            }
            Some(Value::Empty) | None => Text::default(),
        };
        if resource.service.len == 0 {
            self.counters.service_name_missing += 1;
        }
        if let Some(Value::String(namespace)) = self.last_value(resource.attributes, b"service.namespace") {
            resource.namespace = self.shown(namespace)?;
        }
        Ok(())
    }

    fn last_value(&self, rows: Rows, key: &[u8]) -> Option<Value> {
        let own = self.attributes.get(rows.start as usize..)?;
        own.iter().rev().find(|attribute| self.arena(attribute.key) == key).map(|attribute| attribute.value)
    }

    /// The text itself, or a copy with U+FFFD for what is no UTF-8.
    fn shown(&mut self, text: Text) -> Result<Text, Stop> {
        let bytes = self.arena(text);
        if std::str::from_utf8(bytes).is_ok() {
            return Ok(text);
        }
        let lossy = String::from_utf8_lossy(bytes).into_owned();
        self.push_extra(lossy.as_bytes())
    }

    fn scope_spans(&mut self, piece: Text, resource: u32) -> Result<(), Stop> {
        self.charge(COST_SCOPE)?;
        let mut scope = Scope { resource, ..Scope::default() };
        let mut list = AttributeList::new(self.attributes.len(), EVENT_ATTRIBUTES_MAX);
        let mut n_spans = 0_u32;
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Bytes(piece)) => self.scope(piece, &mut scope, &mut list)?,
                (2, Wire::Bytes(_)) => n_spans += 1,
                (3, Wire::Bytes(url)) => scope.schema_url = url,
                (1..=3, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        scope.name = self.text(self.source(), scope.name);
        scope.version = self.text(self.source(), scope.version);
        scope.schema_url = self.text(self.source(), scope.schema_url);
        scope.attributes = self.end_attributes(&list);
        scope.dropped_attributes_count = scope.dropped_attributes_count.saturating_add(list.n_dropped);
        let row = row_count(&self.scopes);
        self.scopes.push(scope);
        if n_spans == 0 {
            self.counters.empty_envelopes += 1;
            return Ok(());
        }
        self.charge(COST_SPAN.saturating_mul(u64::from(n_spans)))?;
        self.spans.reserve(n_spans as usize);
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            if let (2, Wire::Bytes(piece)) = (field.number, field.wire) {
                self.span_or_rejection(piece, row)?;
            }
        }
        Ok(())
    }

    fn scope(&mut self, piece: Text, scope: &mut Scope, list: &mut AttributeList) -> Result<(), Stop> {
        let mut reader = Reader::of(self.body, piece);
        while let Some(field) = reader.field()? {
            match (field.number, field.wire) {
                (1, Wire::Bytes(name)) => scope.name = name,
                (2, Wire::Bytes(version)) => scope.version = version,
                (3, Wire::Bytes(piece)) => self.attribute(list, piece)?,
                (4, Wire::Varint(count)) => scope.dropped_attributes_count = low_u32(count),
                (1..=4, _) => return Err(field.wrong_wire().into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn text_of(source: &[u8], text: Text) -> &[u8] {
    source.get(text.start as usize..text.start.saturating_add(text.len) as usize).unwrap_or_default()
}

/// The `entity_refs` of a resource: one piece of the body while they stand together, else a copy.
#[derive(Debug, Default)]
struct EntityRefs {
    together: Text,
    /// All of them as soon as anything stands between two.
    scattered: Vec<u8>,
}

impl EntityRefs {
    /// Adds the encoded field in `start..end` of the body.
    fn add(&mut self, body: &[u8], start: usize, end: usize) {
        let field = body.get(start..end).unwrap_or_default();
        let before = (self.together.start as usize, (self.together.start + self.together.len) as usize);
        if self.together.len == 0 || (self.scattered.is_empty() && before.1 == start) {
            let first = if self.together.len == 0 { start } else { before.0 };
            // Offsets of a body fit, see `run`.
            let (first, end) = (u32::try_from(first).unwrap_or(u32::MAX), u32::try_from(end).unwrap_or(u32::MAX));
            self.together = Text { start: first, len: end.saturating_sub(first) };
            return;
        }
        if self.scattered.is_empty() {
            self.scattered.extend_from_slice(body.get(before.0..before.1).unwrap_or_default());
        }
        self.scattered.extend_from_slice(field);
    }
}
