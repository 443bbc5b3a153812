//! All attributes of chosen spans, beside each other: of the spans, of their resources, and what every span has in few values.

use std::collections::HashMap;

use super::Filter;
use super::ast::{AttributeScope, Field, Intrinsic};
use super::columns::{FieldAnswers, GroupFields};
use super::compile::{Condition, fields_of};
use super::measure::{found_in_heads, may_be_in, next, rows_within};
use super::metrics::MetricsComparison;
use super::row;
use super::scan::{InHeads, first_places, is_first};
use super::value::{Datum, FieldValue};
use crate::block::{AttributeOwner, BlockError, BlockScan, RowGroup};
use crate::latency::counting_instant;
use crate::model::{DurationNanos, Rows, SpanBatch, TimeRange, UnixNanos};
use crate::store::{HeadPart, OpenPartition, StoreError};

/// What every span has: name first, by which spans are counted.
const INTRINSICS: [Intrinsic; 4] = [Intrinsic::Name, Intrinsic::Kind, Intrinsic::Status, Intrinsic::StatusMessage];

/// Which spans are compared with which.
#[derive(Clone, Copy, Debug)]
pub struct CompareScan<'q> {
    /// What must be true of all of them.
    pub filter: &'q Filter,
    /// Which of them are the selection.
    pub comparison: &'q MetricsComparison,
    /// When they are counted (`counting_instant`).
    pub range: TimeRange,
}

/// A span that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComparedSpan {
    /// Its row in the block or batch.
    pub row: u32,
    /// When it is counted.
    pub at: UnixNanos,
    /// How long it took; 0 where its clock ran backwards.
    pub latency: DurationNanos,
    /// Whether it is in the selection.
    pub is_selected: bool,
}

/// Sees every value of every span: the numbers of its attribute and of itself in the `AttributeTable`.
pub type EachCompared<'a> = &'a mut dyn FnMut(ComparedSpan, u32, u32);

/// The attributes that were met and their values, over as many scans as share them. Bounded: what there is no room for is
/// one value of its attribute, `None`.
#[derive(Debug)]
pub struct AttributeTable {
    attributes: Vec<Attribute>,
    numbers: HashMap<Field, u32>,
    values: Vec<(u32, Option<FieldValue>)>,
    bytes: usize,
    bounds: AttributeBounds,
}

/// What a table has room for.
#[derive(Clone, Copy, Debug)]
pub struct AttributeBounds {
    /// Values of each attribute.
    pub values_of_attribute: usize,
    /// Bytes of the names and values of all attributes, and some for each.
    pub bytes: usize,
}

/// An attribute that was met.
#[derive(Debug)]
struct Attribute {
    field: Field,
    values: HashMap<FieldValue, u32>,
    others: Option<u32>,
}

/// What a value takes beside its text.
const VALUE_BYTES: usize = 200;

impl AttributeTable {
    /// The attribute that every span has one value of.
    pub const NAMES: u32 = 0;

    /// An empty one.
    pub fn new(bounds: AttributeBounds) -> Self {
        let mut table = Self { attributes: Vec::new(), numbers: HashMap::new(), values: Vec::new(), bytes: 0, bounds };
        let _first = table.attribute(&Field::Intrinsic(Intrinsic::Name));
        table
    }

    /// By number, those of names first.
    pub fn fields(&self) -> impl Iterator<Item = &Field> {
        self.attributes.iter().map(|attribute| &attribute.field)
    }

    /// By number: the number of its attribute, and the value, which is `None` for all that there was no room for.
    pub fn values(&self) -> &[(u32, Option<FieldValue>)] {
        &self.values
    }

    /// Whether there is no room for the names of all attributes.
    pub fn is_full(&self) -> bool {
        self.bounds.bytes.saturating_mul(2) < self.bytes
    }

    fn attribute(&mut self, field: &Field) -> u32 {
        if let Some(known) = self.numbers.get(field) {
            return *known;
        }
        let new = next(self.attributes.len());
        self.bytes = self.bytes.saturating_add(2 * field.bare_name().len() + VALUE_BYTES);
        self.attributes.push(Attribute { field: field.clone(), values: HashMap::new(), others: None });
        let _none = self.numbers.insert(field.clone(), new);
        new
    }

    /// The number of a value; `None` where there is none.
    fn value(&mut self, number: u32, datum: Datum<'_>) -> Option<u32> {
        let value = datum.into_value()?;
        let attribute = self.attributes.get_mut(number as usize)?;
        if let Some(known) = attribute.values.get(&value) {
            return Some(*known);
        }
        let new = next(self.values.len());
        let bytes = value.text_bytes().saturating_mul(2) + VALUE_BYTES;
        let has_room = attribute.values.len() < self.bounds.values_of_attribute
            && self.bytes.saturating_add(bytes) <= self.bounds.bytes;
        if !has_room {
            let values = &mut self.values;
            return Some(*attribute.others.get_or_insert_with(|| {
                values.push((number, None));
                new
            }));
        }
        self.bytes += bytes;
        let _none = attribute.values.insert(value.clone(), new);
        self.values.push((number, Some(value)));
        Some(new)
    }
}

impl CompareScan<'_> {
    fn selects(&self, at: UnixNanos) -> bool {
        self.comparison.within.is_none_or(|(after, until)| after < at && at <= until)
    }

    /// Calls `each` for every value of the wanted spans of a block, attribute by attribute.
    ///
    /// # Errors
    /// `Block` or `Damaged`; `each` may have been called before.
    pub fn scan_block(
        &self,
        open: &OpenPartition,
        block_no: u64,
        table: &mut AttributeTable,
        each: EachCompared<'_>,
    ) -> Result<(), StoreError> {
        let summary = open.block(block_no);
        if summary.is_some_and(|block| !may_be_in(self.filter, self.range, block.summary())) {
            return Ok(());
        }
        open.scan(block_no, |scan| self.scan_columns(scan, table, each))
    }

    pub(super) fn scan_columns(
        &self,
        scan: &BlockScan<'_>,
        table: &mut AttributeTable,
        each: EachCompared<'_>,
    ) -> Result<(), BlockError> {
        let compared = compared_fields(scan)?;
        let selecting = self.comparison.selection.fields();
        let asked = compared.iter().chain(selecting.iter().copied());
        let fields = fields_of(scan, Some(&self.filter.root), asked)?;
        let horizon = scan.summary().horizon;
        let mut condition = Condition::of(&self.filter.root);
        let mut selection = Condition::of(&self.comparison.selection.root);
        let mut answers: Vec<(u32, FieldAnswers<'_>)> =
            compared.iter().map(|field| (table.attribute(field), FieldAnswers::new(field))).collect();
        for number in 0..scan.n_groups() {
            let group = fields.group(number);
            let within = rows_within(&group, self.range, horizon, &mut condition)?;
            if within.is_empty() {
                continue;
            }
            let spans = self.spans(&group, &within, horizon, &mut selection)?;
            for (attribute, answers) in &mut answers {
                let mut ask = |datum: Datum<'_>| table.value(*attribute, datum).map_or(0, |value| value + 1);
                let values = answers.read(&group, &within, &mut ask)?;
                for span in &spans {
                    let value = values.get(span.1).and_then(|value| value.checked_sub(1));
                    if let Some(value) = value {
                        each(span.0, *attribute, value);
                    }
                }
            }
        }
        Ok(())
    }

    /// The spans of the rows `within`, with their rows in the group.
    fn spans(
        &self,
        fields: &GroupFields<'_>,
        within: &[bool],
        horizon: UnixNanos,
        selection: &mut Condition<'_>,
    ) -> Result<Vec<(ComparedSpan, usize)>, BlockError> {
        let selected = selection.select(fields, within.to_vec())?;
        let (starts, durations) = (fields.group.starts()?, fields.group.durations()?);
        let rows = within.iter().zip(&selected).zip(starts.iter().zip(durations)).enumerate();
        let spans = rows.filter(|(_, ((within, _), _))| **within).map(|(row, ((_, selected), (start, duration)))| {
            let at = counting_instant(UnixNanos(*start), horizon);
            let latency = RowGroup::latency(*start, *duration).unwrap_or_default();
            let is_selected = *selected && self.selects(at);
            (ComparedSpan { row: fields.group.block_row(row), at, latency, is_selected }, row)
        });
        Ok(spans.collect())
    }

    /// Where the wanted spans of heads are, given in arrival order: of several with one key the first.
    pub fn found_in_heads(&self, heads: &[HeadPart]) -> Vec<InHeads> {
        let mut found = found_in_heads(heads, self.filter, self.range);
        let firsts = first_places(heads, &found);
        let batch = |place: &InHeads| heads.get(place.0).and_then(|head| head.batches.get(place.1));
        found.retain(|place| batch(place).is_some_and(|batch| is_first(&firsts, batch, *place)));
        found
    }

    /// Calls `each` for every value of a span of a batch.
    pub fn scan_row(
        &self,
        batch: &SpanBatch,
        row: u32,
        horizon: UnixNanos,
        table: &mut AttributeTable,
        each: EachCompared<'_>,
    ) {
        let Some(span) = batch.spans.get(row as usize) else { return };
        let at = counting_instant(span.start_time_unix_nano, horizon);
        let is_selected = self.selects(at) && self.comparison.selection.matches(batch, row as usize);
        let found = ComparedSpan { row, at, latency: span.latency().unwrap_or_default(), is_selected };
        let mut fields: Vec<Field> = INTRINSICS.map(Field::Intrinsic).to_vec();
        add_keys(&mut fields, batch, span.attributes, AttributeScope::Span);
        add_keys(&mut fields, batch, batch.resource(span).attributes, AttributeScope::Resource);
        for field in &fields {
            let attribute = table.attribute(field);
            if let Some(value) = table.value(attribute, row::of_span(field, batch, span)) {
                each(found, attribute, value);
            }
        }
    }
}

/// Everything that spans of a block are compared by.
fn compared_fields(scan: &BlockScan<'_>) -> Result<Vec<Field>, BlockError> {
    let mut fields: Vec<Field> = INTRINSICS.map(Field::Intrinsic).to_vec();
    let keys = scan.attribute_keys().filter(|(owner, _)| *owner == AttributeOwner::Span);
    let mut keys: Vec<&str> = keys.filter_map(|(_, key)| std::str::from_utf8(key).ok()).collect();
    keys.sort_unstable();
    keys.dedup();
    let key = |key: &str| Field::Attribute { scope: AttributeScope::Span, key: key.to_owned() };
    fields.extend(keys.into_iter().filter(|key| !key.is_empty()).map(key));
    let (scopes, mut of_resources) = (scan.scopes()?, Vec::new());
    for resource in &scopes.resources {
        add_keys(&mut of_resources, scopes, resource.attributes, AttributeScope::Resource);
    }
    fields.extend(of_resources);
    Ok(fields)
}

/// Adds the attributes among some rows that are not there yet.
fn add_keys(fields: &mut Vec<Field>, batch: &SpanBatch, rows: Rows, scope: AttributeScope) {
    for attribute in batch.attributes(rows) {
        let Ok(key) = std::str::from_utf8(batch.text(attribute.key)) else { continue };
        let is_same = |field: &Field| matches!(field, Field::Attribute { scope: known, key: other } if *known == scope && other == key);
        if !key.is_empty() && !fields.iter().any(is_same) {
            fields.push(Field::Attribute { scope, key: key.to_owned() });
        }
    }
}
