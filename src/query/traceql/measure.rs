//! Numbers of chosen spans: filter, window, groups of several fields and a numeric field, over the blocks and heads of a store.
//! Unlike `RowScan`, spans without a latency are found as well.

use std::collections::HashMap;

use super::ast::{Field, Intrinsic};
use super::columns::{FieldAnswers, GroupFields};
use super::compile::{Condition, fields_of};
use super::row;
use super::scan::{InHeads, first_places, is_first};
use super::value::{Datum, FieldValue};
use super::{Filter, bounds};
use crate::block::{BlockError, BlockScan, BlockSummary, RowGroup};
use crate::latency::counting_instant;
use crate::model::{DurationNanos, SpanBatch, TimeRange, UnixNanos};
use crate::store::{HeadPart, OpenPartition, StoreError};

/// How spans without a field are labelled, as in Tempo.
const NIL: &str = "nil";

/// Which spans are wanted, and what of them.
#[derive(Clone, Debug)]
pub struct MeasureScan<'q> {
    /// What must be true of them.
    pub filter: &'q Filter,
    /// When they are counted (`counting_instant`).
    pub range: TimeRange,
    /// What they are grouped by.
    pub by: Vec<&'q Field>,
    /// The field that has to be a number.
    pub value: Option<&'q Field>,
    /// Whether their latencies are wanted: else 0 stands for them, and their column is not read.
    pub with_latency: bool,
}

/// A span that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredSpan {
    /// Its row in the block or batch.
    pub row: u32,
    /// When it is counted.
    pub at: UnixNanos,
    /// How long it took; 0 where its clock ran backwards, or when that is not wanted.
    pub latency: DurationNanos,
    /// Its number in the `GroupTable`; 0 without `by`.
    pub group: u32,
    /// Of `MeasureScan::value`; 0 without.
    pub value: Number,
}

/// A number of a span, never NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A whole one; of durations nanoseconds.
    Whole(i64),
    /// Another.
    Fraction(f64),
}

impl Number {
    fn of(datum: &Datum<'_>) -> Option<Self> {
        match datum {
            Datum::Int(number) | Datum::Duration(number) => Some(Self::Whole(*number)),
            Datum::Float(number) if !number.is_nan() => Some(Self::Fraction(*number)),
            _ => None,
        }
    }

    /// As a double.
    pub fn get(self) -> f64 {
        match self {
            Self::Whole(number) => number as f64,
            Self::Fraction(number) => number,
        }
    }
}

/// The groups that were met, over as many scans as share them: every combination of values of the fields.
#[derive(Debug, Default)]
pub struct GroupTable {
    levels: Vec<Level>,
}

/// What a value takes in memory beside its text.
const VALUE_BYTES: usize = 100;

/// One field, and the combinations up to it.
#[derive(Debug, Default)]
struct Level {
    values: Vec<FieldValue>,
    numbers: HashMap<FieldValue, u32>,
    /// Combination up to the field before, and number of the value; of the first field there are none.
    pairs: Vec<(u32, u32)>,
    pair_numbers: HashMap<(u32, u32), u32>,
    /// Of the values.
    bytes: usize,
}

/// The number of what is met for the first time.
pub(super) fn next(known: usize) -> u32 {
    u32::try_from(known).unwrap_or(u32::MAX)
}

impl Level {
    fn number(&mut self, datum: Datum<'_>) -> u32 {
        // A span without the field and one that says "nil" are one group, as nothing in an answer tells them apart.
        let value = datum.into_value().unwrap_or_else(|| FieldValue::String(NIL.to_owned()));
        if let Some(known) = self.numbers.get(&value) {
            return *known;
        }
        let new = next(self.values.len());
        self.bytes = self.bytes.saturating_add(2 * value.text_bytes() + VALUE_BYTES);
        self.values.push(value.clone());
        let _none = self.numbers.insert(value, new);
        new
    }

    fn pair(&mut self, pair: (u32, u32)) -> u32 {
        let new = next(self.pairs.len());
        let pairs = &mut self.pairs;
        *self.pair_numbers.entry(pair).or_insert_with(|| {
            pairs.push(pair);
            new
        })
    }
}

impl GroupTable {
    fn prepare(&mut self, n_fields: usize) {
        self.levels.resize_with(n_fields.max(self.levels.len()), Level::default);
    }

    /// How many there are.
    pub fn n_groups(&self) -> usize {
        self.levels.last().map_or(1, |last| last.pairs.len().max(last.values.len()))
    }

    /// Bytes that the values take.
    pub fn bytes(&self) -> usize {
        self.levels.iter().map(|level| level.bytes).sum()
    }

    /// The values of a group, in the order of the fields.
    pub fn values(&self, group: u32) -> Vec<FieldValue> {
        let (mut combination, mut values) = (group, Vec::new());
        for (at, level) in self.levels.iter().enumerate().rev() {
            let (before, value) = match level.pairs.get(combination as usize) {
                Some(pair) if 0 < at => *pair,
                _ => (0, combination),
            };
            values.extend(level.values.get(value as usize).cloned());
            combination = before;
        }
        values.reverse();
        values
    }
}

/// The spans that were found in a row group.
pub struct MeasuredRows<'a> {
    first_row: u32,
    horizon: UnixNanos,
    within: &'a [bool],
    starts: &'a [u64],
    /// Empty when they are not wanted.
    durations: &'a [u64],
    /// Empty when there is nothing to group by.
    groups: &'a [u32],
    values: Option<&'a Values<'a>>,
}

impl MeasuredRows<'_> {
    /// In row order.
    pub fn spans(&self) -> impl Iterator<Item = MeasuredSpan> {
        let rows = self.within.iter().zip(self.starts).enumerate().filter(|(_, (within, _))| **within);
        rows.map(|(row, (_, start))| MeasuredSpan {
            row: self.first_row.saturating_add(next(row)),
            at: counting_instant(UnixNanos(*start), self.horizon),
            latency: self.durations.get(row).and_then(|of| RowGroup::latency(*start, *of)).unwrap_or_default(),
            group: self.groups.get(row).copied().unwrap_or(0),
            value: self.values.map_or(Number::Whole(0), |values| values.of_row(row)),
        })
    }
}

/// Sees the spans of a row group.
pub type EachMeasured<'a> = &'a mut dyn FnMut(&MeasuredRows<'_>);

/// Sees one span of a batch: position of its head, and of the batch there.
pub type EachMeasuredInHeads<'a> = &'a mut dyn FnMut(usize, usize, MeasuredSpan);

/// Whether spans of a block can be counted in a window and meet a filter, as far as its summary tells.
pub(super) fn may_be_in(filter: &Filter, range: TimeRange, summary: &BlockSummary) -> bool {
    let counted = |at: UnixNanos| counting_instant(at, summary.horizon);
    let latencies = bounds::latencies(&filter.root);
    let named = bounds::service(&filter.root);
    // Without bounds spans without a latency may be wanted, of which the summary says nothing.
    let may_last = latencies == bounds::ANY
        || !latencies.is_empty()
            && *latencies.start() <= summary.max_latency
            && summary.min_latency <= *latencies.end();
    may_last
        && range.meets(counted(summary.min_start), counted(summary.max_start))
        && named.is_none_or(|name| summary.services.iter().any(|count| count.service == name))
}

impl MeasureScan<'_> {
    /// Calls `each` with the wanted spans of each row group of a block, in row order; their groups are numbered in `groups`.
    ///
    /// Reads nothing of a block that its summary excludes, and of others the columns that filter, groups and value need.
    ///
    /// # Errors
    /// `Block` or `Damaged`; `each` may have been called before.
    pub fn scan_block(
        &self,
        open: &OpenPartition,
        block_no: u64,
        groups: &mut GroupTable,
        each: EachMeasured<'_>,
    ) -> Result<(), StoreError> {
        let summary = open.block(block_no);
        if summary.is_some_and(|block| !may_be_in(self.filter, self.range, block.summary())) {
            return Ok(());
        }
        open.scan(block_no, |scan| self.scan_columns(scan, groups, each))
    }

    pub(super) fn scan_columns(
        &self,
        scan: &BlockScan<'_>,
        groups: &mut GroupTable,
        each: EachMeasured<'_>,
    ) -> Result<(), BlockError> {
        groups.prepare(self.by.len());
        let asked = self.by.iter().copied().chain(self.value);
        let fields = fields_of(scan, Some(&self.filter.root), asked)?;
        let mut reading = Reading {
            horizon: scan.summary().horizon,
            range: self.range,
            condition: Condition::of(&self.filter.root),
            by: self.by.iter().map(|field| FieldAnswers::new(field)).collect(),
            value: self.value.map(Values::of),
            with_latency: self.with_latency,
            groups,
        };
        if reading.condition.may_hold(&fields)? {
            for number in 0..scan.n_groups() {
                reading.group(&fields.group(number), each)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with the wanted spans of heads, given in arrival order. Of several spans with one key the first counts,
    /// as in a block, whether it is wanted or not.
    pub fn scan_heads(&self, heads: &[HeadPart], groups: &mut GroupTable, each: EachMeasuredInHeads<'_>) {
        groups.prepare(self.by.len());
        let found = found_in_heads(heads, self.filter, self.range);
        let firsts = first_places(heads, &found);
        for (head_no, batch_no, row) in found {
            let Some(head) = heads.get(head_no) else { continue };
            let Some(batch) = head.batches.get(batch_no) else { continue };
            if is_first(&firsts, batch, (head_no, batch_no, row))
                && let Some(span) = self.measured(batch, row, head.horizon, groups)
            {
                each(head_no, batch_no, span);
            }
        }
    }

    /// What a span of a batch says, whatever it is and whenever it is counted; `None` where it has no number.
    pub fn measured_row(
        &self,
        batch: &SpanBatch,
        row: u32,
        horizon: UnixNanos,
        groups: &mut GroupTable,
    ) -> Option<MeasuredSpan> {
        groups.prepare(self.by.len());
        self.measured(batch, row, horizon, groups)
    }

    fn measured(
        &self,
        batch: &SpanBatch,
        row: u32,
        horizon: UnixNanos,
        groups: &mut GroupTable,
    ) -> Option<MeasuredSpan> {
        let span = batch.spans.get(row as usize)?;
        let value = match self.value {
            Some(field) => Number::of(&row::of_span(field, batch, span))?,
            None => Number::Whole(0),
        };
        let mut group = 0;
        for (at, (field, level)) in self.by.iter().zip(&mut groups.levels).enumerate() {
            let number = level.number(row::of_span(field, batch, span));
            group = if at == 0 { number } else { level.pair((group, number)) };
        }
        let at = counting_instant(span.start_time_unix_nano, horizon);
        let latency = span.latency().filter(|_| self.with_latency).unwrap_or_default();
        Some(MeasuredSpan { row, at, latency, group, value })
    }
}

/// Where spans of heads are that are counted in a window and meet a filter: head, batch and row.
pub(super) fn found_in_heads(heads: &[HeadPart], filter: &Filter, range: TimeRange) -> Vec<InHeads> {
    let mut found = Vec::new();
    for (head_no, head) in heads.iter().enumerate() {
        for (batch_no, batch) in head.batches.iter().enumerate() {
            let counted = (0..)
                .zip(&batch.spans)
                .filter(|(_, span)| range.contains(counting_instant(span.start_time_unix_nano, head.horizon)));
            let wanted = counted.filter(|(row, _)| filter.matches(batch, *row as usize));
            found.extend(wanted.map(|(row, _)| (head_no, batch_no, row)));
        }
    }
    found
}

/// The rows of a group that are counted in a window and meet a condition; empty when none are.
pub(super) fn rows_within(
    fields: &GroupFields<'_>,
    range: TimeRange,
    horizon: UnixNanos,
    condition: &mut Condition<'_>,
) -> Result<Vec<bool>, BlockError> {
    let starts = fields.group.starts()?;
    let within: Vec<bool> =
        starts.iter().map(|start| range.contains(counting_instant(UnixNanos(*start), horizon))).collect();
    let within = if within.contains(&true) { condition.select(fields, within)? } else { Vec::new() };
    Ok(if within.contains(&true) { within } else { Vec::new() })
}

/// A block while it is read.
struct Reading<'f> {
    horizon: UnixNanos,
    range: TimeRange,
    condition: Condition<'f>,
    by: Vec<FieldAnswers<'f>>,
    value: Option<Values<'f>>,
    with_latency: bool,
    groups: &'f mut GroupTable,
}

impl Reading<'_> {
    fn group(&mut self, fields: &GroupFields<'_>, each: EachMeasured<'_>) -> Result<(), BlockError> {
        let within = rows_within(fields, self.range, self.horizon, &mut self.condition)?;
        if within.is_empty() {
            return Ok(());
        }
        let within = match &mut self.value {
            Some(values) => values.read(fields, within)?,
            None => within,
        };
        let numbers = self.group_numbers(fields, &within)?;
        each(&MeasuredRows {
            first_row: fields.group.block_row(0),
            horizon: self.horizon,
            within: &within,
            starts: fields.group.starts()?,
            durations: if self.with_latency { fields.group.durations()? } else { &[] },
            groups: &numbers,
            values: self.value.as_ref(),
        });
        Ok(())
    }

    /// Per row the number of its group; nothing without fields to group by.
    fn group_numbers(&mut self, fields: &GroupFields<'_>, within: &[bool]) -> Result<Vec<u32>, BlockError> {
        let mut numbers: Vec<u32> = Vec::new();
        for (at, (answers, level)) in self.by.iter_mut().zip(&mut self.groups.levels).enumerate() {
            let of_field = answers.read(fields, within, &mut |datum| level.number(datum))?;
            if at == 0 {
                numbers = of_field;
                continue;
            }
            let rows = numbers.iter_mut().zip(&of_field).zip(within).filter(|(_, within)| **within);
            let mut last = ((u32::MAX, u32::MAX), 0);
            for ((number, value), _) in rows {
                let pair = (*number, *value);
                if last.0 != pair {
                    last = (pair, level.pair(pair));
                }
                *number = last.1;
            }
        }
        Ok(numbers)
    }
}

/// The numbers of the rows of a group.
struct Values<'f> {
    field: &'f Field,
    answers: FieldAnswers<'f>,
    /// Of the block, as they were met.
    met: Vec<Number>,
    /// By row: 0 for none, else a position in `met` + 1.
    rows: Vec<u32>,
    /// By row: durations need no more than their column.
    latencies: Vec<u64>,
}

impl<'f> Values<'f> {
    fn of(field: &'f Field) -> Self {
        let answers = FieldAnswers::new(field);
        Self { field, answers, met: Vec::new(), rows: Vec::new(), latencies: Vec::new() }
    }

    /// Leaves the rows that have a number.
    fn read(&mut self, fields: &GroupFields<'_>, mut within: Vec<bool>) -> Result<Vec<bool>, BlockError> {
        if *self.field == Field::Intrinsic(Intrinsic::Duration) {
            let (starts, durations) = (fields.group.starts()?, fields.group.durations()?);
            for (within, (start, duration)) in within.iter_mut().zip(starts.iter().zip(durations)) {
                *within &= RowGroup::latency(*start, *duration).is_some();
            }
            durations.clone_into(&mut self.latencies);
            return Ok(within);
        }
        let met = &mut self.met;
        let mut ask = |datum: Datum<'_>| {
            let Some(number) = Number::of(&datum) else { return 0 };
            met.push(number);
            next(met.len())
        };
        self.rows = self.answers.read(fields, &within, &mut ask)?;
        for (within, number) in within.iter_mut().zip(&self.rows) {
            *within &= *number != 0;
        }
        Ok(within)
    }

    fn of_row(&self, row: usize) -> Number {
        if let Some(latency) = self.latencies.get(row) {
            return Number::Whole(i64::try_from(*latency).unwrap_or(i64::MAX));
        }
        let met = self.rows.get(row).and_then(|number| self.met.get((*number as usize).checked_sub(1)?));
        met.copied().unwrap_or(Number::Whole(0))
    }
}

/// What spans of a block say of some fields, by row, ascending: of events and links the first that says something.
///
/// # Errors
/// `Block` or `Damaged`.
pub fn fields_of_rows(
    open: &OpenPartition,
    block_no: u64,
    rows: &[u32],
    asked: &[&Field],
) -> Result<Vec<Vec<Option<FieldValue>>>, StoreError> {
    open.scan(block_no, |scan| {
        let fields = fields_of(scan, None, asked.iter().copied())?;
        let mut found = Vec::with_capacity(rows.len());
        // A group is opened once for all of its rows, which lie together.
        let (mut first, mut left) = (0, rows);
        for number in 0..scan.n_groups() {
            let group = fields.group(number);
            let end = first + group.group.n_rows();
            let (of_group, others) = left.split_at(left.partition_point(|row| (*row as usize) < end));
            for row in of_group {
                found.push(values_of_row(&group, *row as usize - first, asked)?);
            }
            (first, left) = (end, others);
        }
        Ok(found)
    })
}

fn values_of_row(group: &GroupFields<'_>, row: usize, asked: &[&Field]) -> Result<Vec<Option<FieldValue>>, BlockError> {
    if asked.iter().any(|field| field.is_of_items()) {
        let span = group.group.spans(&[row])?;
        return Ok(asked.iter().map(|field| field.first_value(&span, 0)).collect());
    }
    asked.iter().map(|field| Ok(group.datum(field, row)?.into_value())).collect()
}
