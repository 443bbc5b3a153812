//! Latencies of chosen spans: service, window, filter and group over the blocks and heads of a store.

use std::collections::HashMap;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;

use super::super::SpansWanted;
use super::ast::Field;
use super::columns::{FieldAnswers, GroupFields};
use super::compile::{Condition, fields_of};
use super::value::FieldValue;
use super::{Filter, bounds};
use crate::block::{BlockError, BlockScan, BlockSummary, RowGroup, ServiceCount};
use crate::latency::counting_instant;
use crate::model::{
    Conventions, DurationNanos, SeriesKey, SpanBatch, SpanKey, SpanStatus, TimeRange, UNKNOWN_SERVICE, UnixNanos,
};
use crate::store::{HeadPart, OpenPartition, StoreError};

/// Which spans are wanted. Only those with a latency are ever found.
#[derive(Clone, Debug)]
pub struct RowScan {
    /// What must be true of them.
    pub filter: Option<Filter>,
    /// What they are grouped by.
    pub by: Option<Field>,
    /// When they are counted (`counting_instant`).
    pub range: TimeRange,
    /// Whose they are; `None` takes all services.
    pub service: Option<ServiceChoice>,
    /// Which spans of a service.
    pub spans: SpansWanted,
    /// What makes an entry span of one that is in no block yet.
    pub conventions: Arc<Conventions>,
    /// Latencies that are wanted, such as those of one bucket.
    pub latencies: RangeInclusive<DurationNanos>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceChoice {
    /// `service.name`, `UNKNOWN_SERVICE` for spans without.
    pub name: String,
    /// `service.namespace`; `None` takes every namespace together.
    pub namespace: Option<String>,
}

impl ServiceChoice {
    fn is(&self, namespace: &str, service: &str) -> bool {
        self.name == service && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
    }
}

/// A span that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSpan {
    /// Its row in the block or batch.
    pub row: u32,
    /// When it is counted.
    pub at: UnixNanos,
    /// How long it took.
    pub latency: DurationNanos,
    /// Status ERROR.
    pub is_error: bool,
    /// Its group; `None` without `RowScan::by`, and for spans that have no such field.
    pub group: Option<GroupNo>,
}

/// Number of a group, in the order in which they are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNo(pub u32);

/// The groups that were met, over as many scans as share them.
#[derive(Debug, Default)]
pub struct Groups {
    values: Vec<FieldValue>,
    numbers: HashMap<FieldValue, GroupNo>,
}

impl Groups {
    /// By number.
    pub fn values(&self) -> &[FieldValue] {
        &self.values
    }

    fn number(&mut self, value: FieldValue) -> GroupNo {
        if let Some(known) = self.numbers.get(&value) {
            return *known;
        }
        let new = GroupNo(u32::try_from(self.values.len()).unwrap_or(u32::MAX));
        self.values.push(value.clone());
        let _none = self.numbers.insert(value, new);
        new
    }
}

/// Sees one span; a break ends the scan.
pub type EachFound<'a> = &'a mut dyn FnMut(FoundSpan) -> ControlFlow<()>;

/// Sees one span of a batch: position of its head, and of the batch there.
pub type EachInHeads<'a> = &'a mut dyn FnMut(usize, usize, FoundSpan) -> ControlFlow<()>;

impl RowScan {
    /// Every span.
    pub fn all() -> Self {
        Self {
            filter: None,
            by: None,
            range: TimeRange::ALL,
            service: None,
            spans: SpansWanted::All,
            conventions: Arc::default(),
            latencies: bounds::ANY,
        }
    }

    /// Whether a block can hold spans that are wanted, as far as its summary tells.
    pub fn may_be_in(&self, summary: &BlockSummary) -> bool {
        let counted = |at: UnixNanos| counting_instant(at, summary.horizon);
        let latencies = self.wanted_latencies();
        let named = self.filter.as_ref().and_then(|filter| bounds::service(&filter.root));
        self.range.meets(counted(summary.min_start), counted(summary.max_start))
            && *latencies.start() <= summary.max_latency
            && summary.min_latency <= *latencies.end()
            && !latencies.is_empty()
            && self.is_among(&summary.services)
            && named.is_none_or(|name| summary.services.iter().any(|count| count.service == name))
    }

    /// Whether spans of the wanted service are among these.
    pub fn is_among(&self, services: &[ServiceCount]) -> bool {
        let is = |choice: &ServiceChoice| services.iter().any(|count| choice.is(&count.namespace, &count.service));
        self.service.as_ref().is_none_or(is)
    }

    /// Whether a batch has a resource of the wanted service.
    pub fn names(&self, batch: &SpanBatch) -> bool {
        self.scopes_of_service(batch).is_none_or(|of_scopes| of_scopes.contains(&true))
    }

    fn wanted_latencies(&self) -> RangeInclusive<DurationNanos> {
        match &self.filter {
            Some(filter) => bounds::intersection(&self.latencies, &bounds::latencies(&filter.root)),
            None => self.latencies.clone(),
        }
    }

    /// Calls `each` with the wanted spans of a block, in row order, until it breaks; their groups are numbered in `groups`.
    ///
    /// Reads nothing of a block that its summary excludes; one column of a row group without a wanted latency; of the others
    /// what window, service, filter and group need, in this order and only as long as there is a row left. A field of events
    /// or links needs the whole spans of those rows, some 20 times as much.
    ///
    /// # Errors
    /// `Block` or `Damaged`; `each` may have been called before.
    pub fn scan_block(
        &self,
        open: &OpenPartition,
        block_no: u64,
        groups: &mut Groups,
        each: EachFound<'_>,
    ) -> Result<(), StoreError> {
        if open.block(block_no).is_some_and(|block| !self.may_be_in(block.summary())) {
            return Ok(());
        }
        open.scan(block_no, |scan| self.scan_columns(scan, groups, each))
    }

    pub(super) fn scan_columns(
        &self,
        scan: &BlockScan<'_>,
        groups: &mut Groups,
        each: EachFound<'_>,
    ) -> Result<(), BlockError> {
        let filter = self.filter.as_ref().map(|filter| &filter.root);
        let fields = fields_of(scan, filter, self.by.as_ref())?;
        let mut reading = Reading {
            wanted: self,
            horizon: scan.summary().horizon,
            latencies: self.wanted_latencies(),
            series: self.wanted_series(scan)?,
            is_error: scan.series()?.iter().map(|key| key.status == SpanStatus::Error).collect(),
            condition: filter.map(Condition::of),
            by: self.by.as_ref().map(FieldAnswers::new),
            groups,
        };
        if let Some(condition) = &reading.condition
            && !condition.may_hold(&fields)?
        {
            return Ok(());
        }
        for number in 0..scan.n_groups() {
            if reading.group(&fields.group(number), each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Which series are wanted; `None` when all are.
    fn wanted_series(&self, scan: &BlockScan<'_>) -> Result<Option<Vec<bool>>, BlockError> {
        if self.service.is_none() && self.spans == SpansWanted::All {
            return Ok(None);
        }
        Ok(Some(scan.series()?.iter().map(|key| self.takes(key)).collect()))
    }

    fn takes(&self, key: &SeriesKey<'_>) -> bool {
        self.spans.takes(key) && self.service.as_ref().is_none_or(|choice| choice.is(&key.namespace, &key.service))
    }

    /// Calls `each` with the wanted spans of heads, given in arrival order, until it breaks. Of several spans with one key the
    /// first counts, as in a block, whether it is wanted or not.
    ///
    /// Cost: every span is looked at once, and again when any was found.
    pub fn scan_heads(&self, heads: &[HeadPart], groups: &mut Groups, each: EachInHeads<'_>) {
        let mut found = Vec::new();
        for (head_no, head) in heads.iter().enumerate() {
            for (batch_no, batch) in head.batches.iter().enumerate() {
                let of_service = self.scopes_of_service(batch);
                let rows = (0..).zip(&batch.spans).filter(|(_, span)| {
                    of_service.as_ref().is_none_or(|of| of.get(span.scope as usize).copied().unwrap_or(false))
                });
                found.extend(
                    rows.filter_map(|(row, _)| {
                        self.span(batch, row, head.horizon).map(|span| (head_no, batch_no, span))
                    }),
                );
            }
        }
        let places: Vec<InHeads> =
            found.iter().map(|(head_no, batch_no, span)| (*head_no, *batch_no, span.row)).collect();
        let firsts = first_places(heads, &places);
        for (head_no, batch_no, mut span) in found {
            let Some(batch) = heads.get(head_no).and_then(|head| head.batches.get(batch_no)) else { continue };
            if !is_first(&firsts, batch, (head_no, batch_no, span.row)) {
                continue;
            }
            let value = self.by.as_ref().and_then(|by| by.value(batch, span.row as usize));
            span.group = value.map(|value| groups.number(value));
            if each(head_no, batch_no, span).is_break() {
                return;
            }
        }
    }

    fn scopes_of_service(&self, batch: &SpanBatch) -> Option<Vec<bool>> {
        let choice = self.service.as_ref()?;
        let of_scope = batch.scopes.iter().map(|scope| {
            let resource = batch.resources.get(scope.resource as usize).copied().unwrap_or_default();
            let service = batch.text_lossy(resource.service);
            let service = if service.is_empty() { UNKNOWN_SERVICE } else { service.as_ref() };
            choice.is(&batch.text_lossy(resource.namespace), service)
        });
        Some(of_scope.collect())
    }

    /// The span in a row of a batch, if it is wanted, but for its group and its service.
    fn span(&self, batch: &SpanBatch, row: u32, horizon: UnixNanos) -> Option<FoundSpan> {
        let span = batch.spans.get(row as usize)?;
        let latency = span.latency().filter(|latency| self.latencies.contains(latency))?;
        let at = counting_instant(span.start_time_unix_nano, horizon);
        let wanted = self.range.contains(at)
            && self.spans.takes_span(batch, span, &self.conventions)
            && self.filter.as_ref().is_none_or(|filter| filter.matches(batch, row as usize));
        wanted.then_some(FoundSpan { row, at, latency, is_error: span.is_error(), group: None })
    }
}

/// Where a span of the heads is: head, batch and row.
pub type InHeads = (usize, usize, u32);

/// Whether a span is the first one with its key.
pub(super) fn is_first(firsts: &HashMap<SpanKey, InHeads>, batch: &SpanBatch, place: InHeads) -> bool {
    batch.spans.get(place.2 as usize).is_some_and(|span| firsts.get(&span.key()) == Some(&place))
}

/// Where the key of each found span comes first.
pub(super) fn first_places(heads: &[HeadPart], found: &[InHeads]) -> HashMap<SpanKey, InHeads> {
    let batch = |head: usize, batch: usize| heads.get(head).and_then(|head| head.batches.get(batch));
    let key = |(head, at, row): &InHeads| Some(batch(*head, *at)?.spans.get(*row as usize)?.key());
    let mut firsts: HashMap<SpanKey, InHeads> = HashMap::with_capacity(found.len());
    firsts.extend(found.iter().filter_map(key).map(|key| (key, (usize::MAX, 0, 0))));
    if firsts.is_empty() {
        return firsts;
    }
    for (head_no, head) in heads.iter().enumerate() {
        for (batch_no, batch) in head.batches.iter().enumerate() {
            for (row, span) in (0..).zip(&batch.spans) {
                if let Some(first) = firsts.get_mut(&span.key()) {
                    *first = (head_no, batch_no, row).min(*first);
                }
            }
        }
    }
    firsts
}

/// A block while it is read.
struct Reading<'f> {
    wanted: &'f RowScan,
    horizon: UnixNanos,
    latencies: RangeInclusive<DurationNanos>,
    series: Option<Vec<bool>>,
    /// By series.
    is_error: Vec<bool>,
    condition: Option<Condition<'f>>,
    by: Option<FieldAnswers<'f>>,
    groups: &'f mut Groups,
}

impl Reading<'_> {
    fn group(&mut self, fields: &GroupFields<'_>, each: EachFound<'_>) -> Result<ControlFlow<()>, BlockError> {
        let group = &fields.group;
        let durations = group.durations()?;
        let mut within: Vec<bool> =
            durations.iter().map(|duration| self.latencies.contains(&DurationNanos(*duration))).collect();
        if !within.contains(&true) {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(wanted) = &self.series {
            let is_wanted = |series: &u32| wanted.get(*series as usize).copied().unwrap_or(false);
            for (within, series) in within.iter_mut().zip(group.series()?) {
                *within &= is_wanted(series);
            }
            if !within.contains(&true) {
                return Ok(ControlFlow::Continue(()));
            }
        }
        let starts = group.starts()?;
        for ((within, start), duration) in within.iter_mut().zip(starts).zip(durations) {
            let at = counting_instant(UnixNanos(*start), self.horizon);
            *within &= self.wanted.range.contains(at) && RowGroup::latency(*start, *duration).is_some();
        }
        if let Some(condition) = &mut self.condition {
            within = condition.select(fields, within)?;
        }
        let groups = self.group_numbers(fields, &within)?;
        if !within.contains(&true) {
            return Ok(ControlFlow::Continue(()));
        }
        let times = starts.iter().zip(durations).zip(group.series()?);
        let rows = within.iter().zip(times).enumerate().filter(|(_, (within, _))| **within);
        for (row, (_, ((start, duration), series))) in rows {
            let number = groups.as_ref().and_then(|groups| groups.get(row)).copied().unwrap_or(0);
            let found = FoundSpan {
                row: group.block_row(row),
                at: counting_instant(UnixNanos(*start), self.horizon),
                latency: DurationNanos(*duration),
                is_error: self.is_error.get(*series as usize).copied().unwrap_or(false),
                group: number.checked_sub(1).map(GroupNo),
            };
            if each(found).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Per row: 0 without a group, else its number + 1; nothing without rows or a field to group by.
    fn group_numbers(&mut self, fields: &GroupFields<'_>, within: &[bool]) -> Result<Option<Vec<u32>>, BlockError> {
        let Some(by) = self.by.as_mut().filter(|_| within.contains(&true)) else { return Ok(None) };
        let groups = &mut *self.groups;
        let mut ask = |datum: super::value::Datum<'_>| {
            datum.into_value().map_or(0, |value| groups.number(value).0.saturating_add(1))
        };
        by.read(fields, within, &mut ask).map(Some)
    }
}
