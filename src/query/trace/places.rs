//! Where the spans of some traces lie: rows of blocks and of heads, found in one pass over each index.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::super::{Coverage, Query, QueryError};
use crate::limits::{BLOCK_SPANS_MAX, TRACE_SPANS_MAX};
use crate::model::{SpanBatch, TraceId};
use crate::store::{OpenPartition, Partition, Snapshot, StoreError, TraceBlocks};

/// Spans of the traces that are read together, some 500 bytes each; a trace that alone has more is read by itself.
pub(super) const SPANS_AT_ONCE: u64 = 2 * BLOCK_SPANS_MAX as u64;

/// Spans that are read only by a question whose turn it is: any number of others may read fewer meanwhile.
pub(super) const READS_MUCH: u64 = 8 * 1024;

/// A trace by its position among those that are looked for.
pub(super) type TraceNo = usize;

/// A block with spans of the traces.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) partition: &'a Arc<Partition>,
    pub(super) block_no: u64,
    /// Ascending by rows.
    pub(super) runs: Vec<Run>,
}

/// The rows of a trace in a block.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) trace: TraceNo,
    pub(super) rows: Range<u32>,
    /// No block behind this one has more of the trace.
    pub(super) is_last: bool,
}

/// Traces that are read together.
#[derive(Debug, Default)]
pub(super) struct Chunk<'a> {
    /// Of its traces, in blocks.
    pub(super) spans: u64,
    /// In the order of the snapshot.
    pub(super) places: Vec<Place<'a>>,
    /// Traces that no block has.
    pub(super) in_no_block: Vec<TraceNo>,
}

/// The spans of heads that belong to a trace.
#[derive(Debug)]
pub(super) struct HeadRows<'a> {
    batches: Vec<&'a SpanBatch>,
    /// Trace, batch and row, ascending.
    rows: Vec<(TraceNo, usize, u32)>,
}

impl<'a> HeadRows<'a> {
    fn of(snapshot: &'a Snapshot, ids: &[TraceId]) -> Self {
        let batches: Vec<&SpanBatch> =
            snapshot.heads.iter().flat_map(|head| &head.batches).map(AsRef::as_ref).collect();
        let position = |id: TraceId| match ids {
            [one] => (*one == id).then_some(0),
            several => several.binary_search(&id).ok(),
        };
        let mut rows = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            for (row, span) in (0..).zip(&batch.spans) {
                if let Some(trace) = position(span.trace_id) {
                    rows.push((trace, number, row));
                }
            }
        }
        rows.sort_unstable();
        Self { batches, rows }
    }

    /// The batches with spans of a trace, in order of arrival, each with their rows.
    pub(super) fn of_trace(&self, trace: TraceNo) -> impl Iterator<Item = (&'a SpanBatch, impl Iterator<Item = u32>)> {
        let start = self.rows.partition_point(|(known, ..)| *known < trace);
        let end = self.rows.partition_point(|(known, ..)| *known <= trace);
        let of_batches = self.rows.get(start..end).unwrap_or_default().chunk_by(|(_, a, _), (_, b, _)| a == b);
        of_batches.filter_map(|rows| {
            let (_, batch, _) = rows.first()?;
            Some((*self.batches.get(*batch)?, rows.iter().map(|(_, _, row)| *row)))
        })
    }
}

/// What could not be read, by trace.
#[derive(Debug)]
pub(super) struct Failures<'a> {
    query: &'a Query,
    /// The last one, by its partition's identity: the same failure of many traces is one.
    last: Option<(u64, String, Coverage)>,
    of_traces: HashMap<TraceNo, Coverage>,
}

impl Failures<'_> {
    pub(super) fn note(
        &mut self,
        traces: impl IntoIterator<Item = TraceNo>,
        partition: &Partition,
        what: &str,
        error: &StoreError,
    ) {
        let is_known = |(of, known, _): &&(u64, String, Coverage)| *of == partition.identity() && known == what;
        let known = self.last.as_ref().filter(is_known).map(|(_, _, coverage)| coverage.clone());
        let coverage = known.unwrap_or_else(|| {
            let mut coverage = Coverage::default();
            self.query.unreadable(&mut coverage, what, error);
            self.last = Some((partition.identity(), what.to_owned(), coverage.clone()));
            coverage
        });
        for trace in traces {
            self.of_traces.entry(trace).or_default().also(coverage.clone());
        }
    }

    pub(super) fn take(&mut self, trace: TraceNo) -> Coverage {
        self.of_traces.remove(&trace).unwrap_or_default()
    }
}

/// Everything about the whereabouts of traces.
#[derive(Debug)]
pub(super) struct Places<'a> {
    pub(super) chunks: Vec<Chunk<'a>>,
    pub(super) heads: HeadRows<'a>,
    pub(super) failures: Failures<'a>,
}

impl<'a> Places<'a> {
    /// `ids` ascend, each once.
    pub(super) fn of(
        query: &'a Query,
        snapshot: &'a Snapshot,
        ids: &[TraceId],
        spans_at_once: u64,
    ) -> Result<Self, QueryError> {
        let mut finding =
            Finding { ids, places: Vec::new(), failures: Failures { query, last: None, of_traces: HashMap::new() } };
        for (partition, visible) in &snapshot.partitions {
            let wanted = Candidates::of(partition.blocks_of_traces(ids));
            if wanted.is_none() {
                continue;
            }
            match query.store()?.open_partition(partition) {
                Ok(open) => finding.in_blocks(partition, &open, *visible, &wanted),
                Err(error) => {
                    let what = format!("partition {}", partition.name());
                    finding.failures.note(wanted.all(), partition, &what, &error);
                }
            }
        }
        let Finding { mut places, failures, .. } = finding;
        mark_last(&mut places, ids.len());
        Ok(Self { chunks: in_chunks(places, ids.len(), spans_at_once), heads: HeadRows::of(snapshot, ids), failures })
    }
}

/// The traces that blocks of a partition may have.
#[derive(Debug, Default)]
struct Candidates {
    /// Ascending.
    anywhere: Vec<TraceNo>,
    /// Ascending in each block.
    by_block: BTreeMap<u64, Vec<TraceNo>>,
}

impl Candidates {
    fn of(blocks: Vec<TraceBlocks>) -> Self {
        let mut candidates = Self::default();
        for (trace, blocks) in blocks.into_iter().enumerate() {
            match blocks {
                TraceBlocks::Known(blocks) => {
                    for block_no in blocks {
                        candidates.by_block.entry(block_no).or_default().push(trace);
                    }
                }
                TraceBlocks::Unknown => candidates.anywhere.push(trace),
            }
        }
        candidates
    }

    fn is_none(&self) -> bool {
        self.anywhere.is_empty() && self.by_block.is_empty()
    }

    fn all(&self) -> Vec<TraceNo> {
        let mut all: Vec<TraceNo> = self.anywhere.iter().chain(self.by_block.values().flatten()).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The blocks that have to be asked, ascending, when the first `visible` count for traces that may be anywhere.
    fn blocks(&self, visible: u64) -> Vec<u64> {
        if self.anywhere.is_empty() {
            return self.by_block.keys().copied().collect();
        }
        let behind = self.by_block.keys().copied().filter(|block_no| visible < *block_no);
        (1..=visible).chain(behind).collect()
    }

    fn in_block(&self, block_no: u64, visible: u64) -> Vec<TraceNo> {
        let anywhere = if block_no <= visible { self.anywhere.as_slice() } else { &[] };
        let mut traces: Vec<TraceNo> =
            anywhere.iter().chain(self.by_block.get(&block_no).into_iter().flatten()).copied().collect();
        traces.sort_unstable();
        traces
    }
}

struct Finding<'a, 'b> {
    ids: &'b [TraceId],
    places: Vec<Place<'a>>,
    failures: Failures<'a>,
}

impl<'a> Finding<'a, '_> {
    fn in_blocks(&mut self, partition: &'a Arc<Partition>, open: &OpenPartition, visible: u64, wanted: &Candidates) {
        for block_no in wanted.blocks(visible) {
            let traces = wanted.in_block(block_no, visible);
            let runs = self.runs(partition, open, block_no, &traces);
            if !runs.is_empty() {
                self.places.push(Place { partition, block_no, runs });
            }
        }
    }

    fn runs(&mut self, partition: &Partition, open: &OpenPartition, block_no: u64, traces: &[TraceNo]) -> Vec<Run> {
        let ids: Vec<TraceId> = traces.iter().filter_map(|trace| self.ids.get(*trace)).copied().collect();
        match open.rows_of_traces(block_no, &ids) {
            Ok(found) => {
                let run = |(at, rows): (usize, Range<u32>)| {
                    let end = rows.start.saturating_add(u32::try_from(TRACE_SPANS_MAX).unwrap_or(u32::MAX));
                    Some(Run { trace: *traces.get(at)?, rows: rows.start..rows.end.min(end), is_last: false })
                };
                found.into_iter().filter_map(run).collect()
            }
            Err(error) => match traces {
                [trace] => {
                    self.failures.note([*trace], partition, &format!("block {block_no}"), &error);
                    Vec::new()
                }
                // They may lie in different row groups.
                several => {
                    let alone = |trace| self.runs(partition, open, block_no, std::slice::from_ref(trace));
                    several.iter().flat_map(alone).collect()
                }
            },
        }
    }
}

fn mark_last(places: &mut [Place<'_>], n_traces: usize) {
    let mut seen = vec![false; n_traces];
    for run in places.iter_mut().rev().flat_map(|place| &mut place.runs) {
        if let Some(seen) = seen.get_mut(run.trace) {
            run.is_last = !std::mem::replace(seen, true);
        }
    }
}

/// Traces that begin in the same blocks together, so that a block is read for one chunk, or two.
fn in_chunks(places: Vec<Place<'_>>, n_traces: usize, spans_at_once: u64) -> Vec<Chunk<'_>> {
    let mut n_spans = vec![0_u64; n_traces];
    for run in places.iter().flat_map(|place| &place.runs) {
        if let Some(n_spans) = n_spans.get_mut(run.trace) {
            *n_spans += u64::from(run.rows.end - run.rows.start);
        }
    }
    let mut chunk_of: Vec<Option<usize>> = vec![None; n_traces];
    let (mut chunk, mut n_in_chunk) = (0, 0);
    for run in places.iter().flat_map(|place| &place.runs) {
        let (Some(of_trace @ None), Some(n_spans)) = (chunk_of.get_mut(run.trace), n_spans.get(run.trace)) else {
            continue;
        };
        if 0 < n_in_chunk && spans_at_once < n_in_chunk + n_spans {
            (chunk, n_in_chunk) = (chunk + 1, 0);
        }
        n_in_chunk += n_spans;
        *of_trace = Some(chunk);
    }
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    chunks.resize_with(chunk + 1, Chunk::default);
    for Place { partition, block_no, runs } in places {
        for run in runs {
            let chunk = chunk_of.get(run.trace).copied().flatten().and_then(|chunk| chunks.get_mut(chunk));
            let Some(Chunk { spans, places, .. }) = chunk else { continue };
            *spans += u64::from(run.rows.end - run.rows.start);
            match places.last_mut().filter(|last| last.block_no == block_no && Arc::ptr_eq(last.partition, partition)) {
                Some(place) => place.runs.push(run),
                None => places.push(Place { partition, block_no, runs: vec![run] }),
            }
        }
    }
    if let Some(last) = chunks.last_mut() {
        last.in_no_block = (0..n_traces).filter(|trace| chunk_of.get(*trace).is_some_and(Option::is_none)).collect();
    }
    chunks
}
