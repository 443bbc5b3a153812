//! Everything that counts toward a question with a filter, or grouped by any field: span by span, from the columns of
//! blocks and the rows of heads.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::latency::{Bucket, Exemplar};
use crate::model::DurationNanos;
use crate::store::{Snapshot, StoreError};

use super::contributions::{Contributions, Sink};
use super::selection::{GroupLabel, Target};
use super::traceql::{FoundSpan, Groups, RowScan};
use super::walk::{Opened, Places};
use super::{Query, QueryError, coverage_of};

/// A question that reads spans ends after this.
pub(super) const WITHIN: Duration = Duration::from_secs(30);
/// Groups of one question, some hundred bytes each.
const GROUPS_MAX: usize = 50_000;

impl Contributions {
    /// Gives `sink` every span that `scan` finds; the labels of its groups have `key`.
    ///
    /// # Errors
    /// `Starting`; `TooLong` after 30 s, `TooManyGroups` beyond 50,000.
    pub(super) fn scan(
        query: &Query,
        snapshot: &Snapshot,
        scan: &RowScan,
        key: Option<&str>,
        sink: &mut dyn Sink,
    ) -> Result<Self, QueryError> {
        let mut found = Self { coverage: coverage_of(snapshot), ..Self::default() };
        let mut groups = Groups::default();
        let began = clock::instant();
        let grouped = scan.by.is_some();
        for opened in open_all(query, snapshot, scan, &mut found)? {
            let blocks = opened.open.blocks(opened.visible);
            let base = opened.base;
            found.places.opens.push(opened);
            for (block_no, _) in blocks {
                query.may_go_on(began, WITHIN)?;
                if GROUPS_MAX < groups.values().len() {
                    return Err(QueryError::TooManyGroups {
                        key: key.unwrap_or_default().to_owned(),
                        groups_max: GROUPS_MAX,
                    });
                }
                let Some(opened) = found.places.opens.last() else { continue };
                let block = base.saturating_add(u32::try_from(block_no).unwrap_or(u32::MAX));
                let read = scan.scan_block(&opened.open, block_no, &mut groups, &mut |span| {
                    give(sink, block, &span, grouped);
                    ControlFlow::Continue(())
                });
                if let Err(error) = read {
                    query.unreadable(&mut found.coverage, &format!("block {block_no}"), &error);
                }
            }
        }
        let mut numbers = Vec::new();
        for head in &snapshot.heads {
            let add = |batch| found.places.add_head(batch, head.horizon);
            numbers.push(head.batches.iter().map(add).collect::<Vec<u32>>());
        }
        scan.scan_heads(&snapshot.heads, &mut groups, &mut |head, batch, span| {
            if let Some(block) = numbers.get(head).and_then(|numbers| numbers.get(batch)) {
                give(sink, *block, &span, grouped);
            }
            ControlFlow::Continue(())
        });
        found.service_is_known |= snapshot.heads.iter().flat_map(|head| &head.batches).any(|batch| scan.names(batch));
        if let Some(key) = key.filter(|_| grouped) {
            // The first one is for spans without a value.
            let values = groups.values().iter().map(|value| Some(value.to_string()));
            found.groups.labels = std::iter::once(None).chain(values).map(|value| (key.to_owned(), value)).collect();
        }
        Ok(found)
    }
}

fn give(sink: &mut dyn Sink, block: u32, span: &FoundSpan, grouped: bool) {
    let group = grouped.then(|| span.group.map_or(0, |group| group.0.saturating_add(1)));
    let exemplar = Exemplar { latency: span.latency, block, row: span.row };
    sink.span(Target { whole: true, groups: group.as_slice() }, span.at, span.is_error, exemplar);
}

/// Every partition that may hold such spans.
pub(super) fn open_all(
    query: &Query,
    snapshot: &Snapshot,
    scan: &RowScan,
    found: &mut Contributions,
) -> Result<Vec<Opened>, QueryError> {
    let store = query.store()?;
    let mut opens: Vec<Opened> = Vec::new();
    for (partition, visible) in &snapshot.partitions {
        let manifest = partition.manifest();
        if let Some(manifest) = &manifest {
            let (known, has_left) = (scan.is_among(&manifest.services), scan.is_among(&manifest.left));
            let has_left = has_left && !manifest.left.is_empty();
            found.service_is_known |= known || has_left;
            if has_left && manifest.meets(scan.range) {
                let left =
                    "spans of the window have left with their retention: only those of pinned traces are counted";
                found.coverage.missing(left.to_owned());
            }
            if !(known || has_left) || !manifest.meets(scan.range) {
                continue;
            }
        }
        match store.open_partition(partition) {
            Ok(open) => {
                let base = opens
                    .last()
                    .map_or(0, |last| last.base.saturating_add(u32::try_from(last.visible).unwrap_or(u32::MAX)));
                if manifest.is_none() {
                    let blocks = open.blocks(*visible);
                    let summaries = blocks.iter().filter_map(|(_, block)| Some(block.as_ref()?.summary()));
                    found.service_is_known |= summaries.into_iter().any(|summary| scan.is_among(&summary.services));
                }
                let (identity, visible) = (partition.identity(), *visible);
                opens.push(Opened { identity, open, visible, manifest, base, has_left: false });
            }
            Err(error) => {
                query.unreadable(&mut found.coverage, &format!("partition {}", partition.name()), &error);
            }
        }
    }
    Ok(opens)
}

/// The exact look-up among the spans of a filter.
pub(super) fn in_bucket(
    places: &Places,
    scan: &RowScan,
    bucket: Bucket,
    group: Option<&GroupLabel>,
    wanted: usize,
) -> Result<Vec<Exemplar>, StoreError> {
    let scan = RowScan { latencies: latencies_of(bucket), ..scan.clone() };
    let (mut found, mut groups) = (Vec::new(), Groups::default());
    for opened in places.opens.iter().rev() {
        for block_no in (1..=opened.visible).rev() {
            let mut spans = Vec::new();
            scan.scan_block(&opened.open, block_no, &mut groups, &mut |span| {
                spans.push(span);
                ControlFlow::Continue(())
            })?;
            let block = opened.base.saturating_add(u32::try_from(block_no).unwrap_or(u32::MAX));
            spans.retain(|span| is_in(group, span, &groups));
            found.extend(spans.into_iter().map(|span| Exemplar { latency: span.latency, block, row: span.row }));
            if wanted <= found.len() {
                return Ok(found);
            }
        }
    }
    for (block, batch, horizon) in places.heads() {
        let head = crate::store::HeadPart { batches: vec![Arc::clone(batch)], horizon, ..Default::default() };
        let mut spans = Vec::new();
        scan.scan_heads(&[head], &mut groups, &mut |_, _, span| {
            spans.push(span);
            ControlFlow::Continue(())
        });
        spans.retain(|span| is_in(group, span, &groups));
        found.extend(spans.into_iter().map(|span| Exemplar { latency: span.latency, block, row: span.row }));
    }
    Ok(found)
}

fn is_in(group: Option<&GroupLabel>, span: &FoundSpan, groups: &Groups) -> bool {
    group.is_none_or(|(_, wanted)| {
        let value = span.group.and_then(|number| groups.values().get(number.0 as usize));
        value.map(ToString::to_string) == *wanted
    })
}

fn latencies_of(bucket: Bucket) -> RangeInclusive<DurationNanos> {
    // The top bucket takes everything longer as well.
    let high = if bucket == Bucket::TOP { DurationNanos(u64::MAX) } else { bucket.high() };
    bucket.low()..=high
}
