//! The spans that stay, from the blocks they lie in to new ones.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use crate::block::{self, Block, BlockError, BlockSummary, RowRef};
use crate::latency::counting_instant;
use crate::model::{SpanBatch, TraceId, UnixNanos};

use super::super::checkpoint::{Source as BlockSource, encode_block};
use super::super::pack::PackWriter;
use super::super::pages::{Checkpoint, Kind, Place};
use super::super::pairing::Waiting;
use super::super::slots::Counting;
use super::super::{HeadPart, OpenPartition, StoreError};
use super::Input;
use super::choice::TracesThatStay;

/// Spans that are copied at once, each time into a block: bounds the memory.
const ROWS_AT_ONCE: usize = 16 * 1024;

/// What was copied.
#[derive(Debug, Default)]
pub(super) struct Copied {
    pub(super) moves: Moves,
    /// Those of the pinned traces that have spans here.
    pub(super) pinned: BTreeSet<TraceId>,
    pub(super) checkpoint: Checkpoint,
}

/// Where spans that an exemplar may lead to stand now.
#[derive(Debug, Default)]
pub(super) struct Moves(BTreeMap<(usize, u32), Vec<Move>>);

/// From a row of the block at hand to (block, row); ordered by the old row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Move {
    row: u32,
    to: (u32, u32),
}

impl Moves {
    /// The place of what was in `row` of `block` of an input; `None` when it is not here, or no exemplar may lead to it.
    pub(super) fn place(&self, input: usize, block: u32, row: u32) -> Option<(u32, u32)> {
        let moves = self.0.get(&(input, block))?;
        let at = moves.binary_search_by_key(&row, |moved| moved.row).ok()?;
        moves.get(at).map(|moved| moved.to)
    }

    fn sort(&mut self) {
        self.0.values_mut().for_each(|moves| moves.sort_unstable());
    }
}

/// Copies every span of `staying` services and of `traces`, exactly as they are.
pub(super) fn copy(
    inputs: &[Input],
    staying: &BTreeSet<String>,
    traces: &TracesThatStay,
    counting: &Counting,
    out: &mut PackWriter,
) -> Result<Copied, StoreError> {
    let mut copier =
        Copier { out, counting, buffer: Vec::new(), spans: 0, horizon: UnixNanos(0), done: Copied::default() };
    for (number, input) in inputs.iter().enumerate() {
        let sequence = &mut copier.done.checkpoint.sequence;
        *sequence = (*sequence).max(input.manifest.last_sequence);
        for block_no in input.open.block_numbers() {
            let rows = rows_that_stay(&input.open, block_no, staying, traces, &mut copier.done.pinned)?;
            if !rows.is_empty() {
                copier.take(number, &input.open, block_no, &rows)?;
            }
        }
    }
    copier.flush()?;
    let mut done = copier.done;
    done.checkpoint.pages = copier.out.block_pages();
    done.moves.sort();
    Ok(done)
}

/// Rows of a block with whether exemplars may lead to them, ascending.
fn rows_that_stay(
    open: &OpenPartition,
    block_no: u64,
    staying: &BTreeSet<String>,
    traces: &TracesThatStay,
    pinned: &mut BTreeSet<TraceId>,
) -> Result<Vec<(u32, bool)>, StoreError> {
    let mut rows: BTreeMap<u32, bool> = BTreeMap::new();
    for (trace, run) in open.trace_runs(block_no)? {
        let is_pinned = traces.pinned.contains(&trace);
        if is_pinned {
            let _known = pinned.insert(trace);
        }
        if is_pinned || traces.straddling.contains(&trace) {
            rows.extend(run.map(|row| (row, is_pinned)));
        }
    }
    if !staying.is_empty() {
        let series = open.series(block_no)?;
        let wanted: Vec<bool> = series.iter().map(|key| staying.contains(&*key.service)).collect();
        rows.extend(open.rows_of_series(block_no, &wanted)?.into_iter().map(|row| (row, true)));
    }
    Ok(rows.into_iter().collect())
}

/// Spans of one block on their way.
struct Source {
    input: usize,
    block: u32,
    rows: Vec<(u32, bool)>,
    batch: Arc<SpanBatch>,
}

/// Collects rows of several blocks, so that a few rows of each do not become many small ones.
struct Copier<'a> {
    out: &'a mut PackWriter,
    counting: &'a Counting,
    buffer: Vec<Source>,
    spans: usize,
    /// Of the buffer: no instant of its spans is changed by it.
    horizon: UnixNanos,
    done: Copied,
}

impl Copier<'_> {
    fn take(
        &mut self,
        input: usize,
        open: &OpenPartition,
        block_no: u64,
        rows: &[(u32, bool)],
    ) -> Result<(), StoreError> {
        let old: Arc<Block> = open.readable_block(block_no)?;
        let is_clamped = clamps(old.summary());
        if is_clamped {
            self.flush()?;
        }
        self.horizon = self.horizon.max(old.summary().horizon);
        let mut rest = rows;
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(rest.len().min(ROWS_AT_ONCE.saturating_sub(self.spans).max(1)));
            rest = behind;
            let numbers: Vec<u32> = some.iter().map(|(row, _)| *row).collect();
            let batch = Arc::new(open.spans(block_no, &numbers)?);
            if batch.spans.len() != some.len() {
                let what = format!("{} of {} rows of block {block_no} can be read", batch.spans.len(), some.len());
                return Err(StoreError::Damaged { path: open.pages.path().to_path_buf(), what });
            }
            self.spans += some.len();
            let block = u32::try_from(block_no).unwrap_or(u32::MAX);
            self.buffer.push(Source { input, block, rows: some.to_vec(), batch });
            if ROWS_AT_ONCE <= self.spans {
                let horizon = self.horizon;
                self.flush()?;
                self.horizon = horizon;
            }
        }
        if is_clamped { self.flush() } else { Ok(()) }
    }

    /// Writes what was collected: one block as a rule. Of two spans with one identity, which two partitions may hold, each
    /// goes into a block of its own, so that either keeps its row.
    fn flush(&mut self) -> Result<(), StoreError> {
        let mut sources = std::mem::take(&mut self.buffer);
        let horizon = std::mem::replace(&mut self.horizon, UnixNanos(0));
        self.spans = 0;
        while !sources.is_empty() {
            let batches: Vec<Arc<SpanBatch>> = sources.iter().map(|source| Arc::clone(&source.batch)).collect();
            let spans: usize = batches.iter().map(|batch| batch.spans.len()).sum();
            let rows = block::order(&batches).rows;
            let part = HeadPart { spans: spans as u64, horizon, batches, ..HeadPart::default() };
            self.put(&sources, &part, &rows)?;
            sources = if rows.len() < spans { left_over(&sources, &rows) } else { Vec::new() };
        }
        Ok(())
    }

    fn put(&mut self, sources: &[Source], part: &HeadPart, rows: &[RowRef]) -> Result<(), StoreError> {
        let block_no = self.done.checkpoint.blocks + 1;
        let source = BlockSource { part, counting: self.counting, dir: self.out.path() };
        // What its spans say of calls is in the roll-ups already.
        let sections = match encode_block(&source, rows, block_no, &mut Waiting::default().pairing()) {
            Err(StoreError::Block { source: BlockError::TooLarge { .. }, .. }) if 1 < rows.len() => {
                let (front, back) = rows.split_at(rows.len() / 2);
                self.put(sources, part, front)?;
                return self.put(sources, part, back);
            }
            encoded => encoded?,
        };
        for (section, bytes) in sections {
            self.out.put_section(Place { kind: Kind::Block, id: block_no, section: section.0 }, &bytes)?;
        }
        self.done.checkpoint.blocks = block_no;
        self.done.checkpoint.spans += rows.len() as u64;
        let block = u32::try_from(block_no).unwrap_or(u32::MAX);
        for (row, from) in (0..).zip(rows) {
            let Some(source) = sources.get(from.batch as usize) else { continue };
            if let Some((old_row, true)) = source.rows.get(from.row as usize).copied() {
                let moves = self.done.moves.0.entry((source.input, source.block)).or_default();
                moves.push(Move { row: old_row, to: (block, row) });
            }
        }
        Ok(())
    }
}

/// Whether the horizon of a block says when a span of it counts: then no other horizon will do.
fn clamps(summary: &BlockSummary) -> bool {
    counting_instant(summary.max_start, summary.horizon) != summary.max_start || summary.min_index_time.is_unset()
}

/// The rows that are not among those written, as sources of their own.
fn left_over(sources: &[Source], written: &[RowRef]) -> Vec<Source> {
    let written: HashSet<RowRef> = written.iter().copied().collect();
    let mut left = Vec::new();
    for (batch, source) in (0..).zip(sources) {
        let missing = |row: &u32| !written.contains(&RowRef { batch, row: *row });
        let missing: Vec<u32> = (0..).take(source.rows.len()).filter(missing).collect();
        if missing.is_empty() {
            continue;
        }
        let rows = missing.iter().filter_map(|row| source.rows.get(*row as usize).copied()).collect();
        let mut copier = crate::model::SpanCopier::default();
        copier.copy(&source.batch, missing);
        left.push(Source { input: source.input, block: source.block, rows, batch: Arc::new(copier.batch) });
    }
    left
}
