//! A head becomes a block: columns, index, latency slots and exemplars in one atomic batch, together with the journal
//! sequence that they cover.

use std::collections::HashMap;
use std::sync::Arc;

use crate::block::{self, Block, RowRef, SectionId};
use crate::clock;
use crate::latency::{Resolution, SlotTableBuilder, TableTooLarge, counting_instant};
use crate::model::{PEEL_DIMENSIONS, Rows, SpanBatch};

use super::engine::{Batch, BlockSections, Checkpoint, Kind};
use super::{FrozenHead, HeadPart, Store, StoreError, files};

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checkpointed {
    /// Spans in the new block.
    pub spans: u64,
    /// Spans left out because the head held them twice.
    pub duplicates: u64,
    /// Those of them that differed from the first copy in more than their key.
    pub conflicting: u64,
}

impl Store {
    /// Writes a frozen head as the next block of its partition and shows the block in place of the head.
    ///
    /// # Errors
    /// `Block`, `Engine` or `Damaged`; the spans stay in memory and in the journal, and questions still see them.
    pub fn checkpoint(&self, frozen: &Arc<FrozenHead>) -> Result<Checkpointed, StoreError> {
        let started = clock::instant();
        let partition = &frozen.partition;
        if partition.is_failing() {
            // sled remembers its first failure until it is opened again, but still answers questions; opening takes space.
            files::probe_space(partition.dir())?;
            let _another_attempt_when_a_question_holds_it = partition.close_alone();
        }
        let open = partition.open(&self.config)?;
        let before = open.checkpoint();
        if frozen.part.last_sequence <= before.sequence {
            // The attempt before said that it failed, and yet it was written.
            let mut state = self.state.write();
            partition.show_blocks(before.blocks);
            state.frozen.retain(|known| !Arc::ptr_eq(known, frozen));
            partition.set_failing(false);
            return Ok(Checkpointed::default());
        }
        let block_no = before.blocks + 1;
        let (outcome, batch, checkpoint) = build(&frozen.part, before, partition.dir())?;
        let bytes = batch.bytes();
        let applied = open.engine.apply(batch);
        partition.set_failing(applied.is_err());
        applied?;
        partition.add_block_bytes(bytes);
        let sections = BlockSections { engine: &open.engine, block_no };
        let block = Block::open(&sections).map_err(|source| block_error(partition.dir(), block_no, source))?;
        {
            let mut state = self.state.write();
            open.add_block(Arc::new(block), checkpoint);
            partition.show_blocks(checkpoint.blocks);
            state.frozen.retain(|known| !Arc::ptr_eq(known, frozen));
        }
        self.counters.spans_stored.add(outcome.spans);
        let same = outcome.duplicates - outcome.conflicting;
        for (reason, spans) in [("duplicate", same), ("conflicting_duplicate", outcome.conflicting)] {
            if 0 < spans {
                self.counters.spans_duplicate.add(reason, spans);
            }
        }
        self.counters.checkpoints.add(1);
        self.counters.checkpoint_nanos.add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Ok(outcome)
    }
}

fn build(
    part: &HeadPart,
    before: Checkpoint,
    dir: &std::path::Path,
) -> Result<(Checkpointed, Batch, Checkpoint), StoreError> {
    let block_no = before.blocks + 1;
    let ordered = block::order(&part.batches);
    let encoded = block::encode(&part.batches, &ordered.rows, part.horizon)
        .map_err(|source| block_error(dir, block_no, source))?;
    let mut batch = Batch::default();
    for (section, bytes) in &encoded.sections {
        batch.put_section(Kind::Block, block_no, section.0, bytes);
    }
    let slots = latency_slots(part, &ordered.rows, &encoded.row_series)
        .map_err(|source| StoreError::Latency { path: dir.to_path_buf(), source: Box::new(source) })?;
    batch.put_section(Kind::Block, block_no, SectionId::LATENCY.0, &slots);
    let spans = ordered.rows.len() as u64;
    let checkpoint = Checkpoint {
        sequence: part.last_sequence,
        blocks: block_no,
        spans: before.spans + spans,
        pages: before.pages + batch.pages(),
    };
    batch.put_checkpoint(checkpoint);
    let outcome = Checkpointed { spans, duplicates: ordered.duplicates, conflicting: ordered.conflicting_duplicates };
    Ok((outcome, batch, checkpoint))
}

/// Histograms and exemplars of the block's rows, of exactly those rows.
fn latency_slots(part: &HeadPart, rows: &[RowRef], row_series: &[u32]) -> Result<Vec<u8>, TableTooLarge> {
    let mut builder = SlotTableBuilder::new(Resolution::TenSeconds);
    let mut places: HashMap<(u32, u32), u64> = HashMap::new();
    for ((row_no, row), series) in (0..).zip(rows).zip(row_series) {
        let Some(batch) = part.batches.get(row.batch as usize) else { continue };
        let Some(span) = batch.spans.get(row.row as usize) else { continue };
        let Some(latency) = span.latency() else { continue };
        let place = *places
            .entry((row.batch, batch.scope(span).resource))
            .or_insert_with(|| place_hash(batch, batch.resource(span).attributes));
        let at = counting_instant(span.start_time_unix_nano, part.horizon);
        builder.record(*series, at, latency, row_no, place ^ u64::from(span.is_error()));
    }
    builder.finish()
}

/// Equal for resources that agree in every peel dimension.
fn place_hash(batch: &SpanBatch, attributes: Rows) -> u64 {
    let mut place = Vec::new();
    for dimension in PEEL_DIMENSIONS {
        let value = batch.string_attribute(attributes, dimension);
        place.extend_from_slice(value.as_deref().unwrap_or_default().as_bytes());
        place.push(0);
    }
    xxhash_rust::xxh3::xxh3_64(&place)
}

pub(super) fn block_error(dir: &std::path::Path, block_no: u64, source: block::BlockError) -> StoreError {
    StoreError::Block { path: dir.to_path_buf(), block_no, source }
}
