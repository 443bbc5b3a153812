//! A head becomes a block, or several: columns, index, latency slots and exemplars in one atomic batch, together with the journal
//! sequence that they cover.

use std::path::Path;
use std::sync::Arc;

use crate::block::{self, Block, BlockError, RowRef, SectionId};
use crate::clock;
use crate::limits::BLOCK_SPANS_MAX;

use super::engine::Batch;
use super::pages::{BlockSections, Checkpoint, Kind, Place};
use super::pairing::{Paired, Pairing};
use super::slots::Counting;
use super::{FrozenHead, HeadPart, OpenPartition, Store, StoreError, duplicates, files, slots};

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checkpointed {
    /// Spans in the new block.
    pub spans: u64,
    /// Spans left out because the head held them twice, or a block of the partition holds them.
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
        let outcome = if frozen.part.last_sequence <= open.checkpoint().sequence {
            // The attempt before said that it failed, and yet it was written.
            Ok(Written {
                outcome: Checkpointed { spans: frozen.part.spans, ..Checkpointed::default() },
                ..Written::default()
            })
        } else {
            open.write_block(&frozen.part, &self.counting)
        };
        partition.set_failing(outcome.is_err());
        let Written { outcome: written, bytes, paired } = outcome?;
        partition.add_block_bytes(bytes);
        {
            let mut state = self.state.write();
            partition.show_blocks(open.checkpoint().blocks);
            state.frozen.retain(|known| !Arc::ptr_eq(known, frozen));
            self.counting.take_over(paired);
        }
        self.counters.spans_stored.add(written.spans);
        let same = written.duplicates - written.conflicting;
        for (reason, spans) in [("duplicate", same), ("conflicting_duplicate", written.conflicting)] {
            if 0 < spans {
                self.counters.spans_duplicate.add(reason, spans);
            }
        }
        self.counters.checkpoints.add(1);
        self.counters.checkpoint_nanos.add(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        Ok(written)
    }
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    outcome: Checkpointed,
    bytes: u64,
    /// For the one who shows the blocks.
    pub(super) paired: Paired,
}

impl OpenPartition {
    /// Writes the spans of `part` that no block holds yet as the next block, or as several when they are too many for one,
    /// and notes what is covered; all of it at once. One thread at a time.
    pub(super) fn write_block(&self, part: &HeadPart, counting: &Counting) -> Result<Written, StoreError> {
        let before = self.checkpoint();
        let mut ordered = block::order(&part.batches);
        let repeats = duplicates::leave_out_stored(self, &part.batches, &mut ordered.rows, &counting.counters);
        let spans = ordered.rows.len() as u64;
        let outcome = Checkpointed {
            spans,
            duplicates: ordered.duplicates + repeats.duplicates,
            conflicting: ordered.conflicting_duplicates + repeats.conflicting,
        };
        let mut batch = Batch::default();
        let mut checkpoint = Checkpoint { sequence: part.last_sequence, ..before };
        let source = Source { part, counting, dir: self.pages.path() };
        let waiting = Arc::clone(&counting.waiting.lock());
        let mut pairing = waiting.pairing();
        let mut pieces = pieces(&ordered.rows);
        while let Some(rows) = pieces.pop() {
            let block_no = checkpoint.blocks + 1;
            match put_block(&mut batch, block_no, rows, &source, &mut pairing) {
                Ok(()) => (checkpoint.blocks, checkpoint.spans) = (block_no, checkpoint.spans + rows.len() as u64),
                // What was acknowledged has to fit: smaller blocks hold less.
                Err(StoreError::Block { source: BlockError::TooLarge { .. }, .. }) if 1 < rows.len() => {
                    let (front, back) = rows.split_at(rows.len() / 2);
                    pieces.extend([back, front]);
                }
                Err(error) => return Err(error),
            }
        }
        let paired = pairing.into_paired();
        checkpoint.pages += batch.pages();
        batch.put_checkpoint(checkpoint);
        let bytes = batch.bytes();
        self.engine()?.apply(batch)?;
        for block_no in before.blocks + 1..=checkpoint.blocks {
            let block = Block::open(&BlockSections { pages: &self.pages, block_no })
                .map_err(|source| block_error(self.pages.path(), block_no, source))?;
            self.add_block(block_no, Arc::new(block));
        }
        self.set_checkpoint(checkpoint);
        Ok(Written { outcome, bytes, paired })
    }
}

/// A block's worth of rows each, the last ones first. A head ends with a whole request, so it may be larger than a block.
fn pieces(rows: &[RowRef]) -> Vec<&[RowRef]> {
    rows.chunks(BLOCK_SPANS_MAX).rev().collect()
}

/// What blocks are made of.
pub(super) struct Source<'a> {
    pub(super) part: &'a HeadPart,
    pub(super) counting: &'a Counting,
    pub(super) dir: &'a Path,
}

/// Either everything of the block is in the batch afterwards, or nothing.
fn put_block(
    batch: &mut Batch,
    block_no: u64,
    rows: &[RowRef],
    source: &Source<'_>,
    pairing: &mut Pairing<'_>,
) -> Result<(), StoreError> {
    for (section, bytes) in encode_block(source, rows, block_no, pairing)? {
        batch.put_section(Place { kind: Kind::Block, id: block_no, section: section.0 }, &bytes);
    }
    Ok(())
}

/// All sections of a block, its latency slots among them.
pub(super) fn encode_block(
    source: &Source<'_>,
    rows: &[RowRef],
    block_no: u64,
    pairing: &mut Pairing<'_>,
) -> Result<Vec<(SectionId, Vec<u8>)>, StoreError> {
    let Source { part, counting, dir } = *source;
    let encoded = block::encode(&part.batches, rows, part.horizon, &counting.conventions)
        .map_err(|source| block_error(dir, block_no, source))?;
    let latency = slots::block_latency(part, rows, &encoded, counting, pairing)
        .map_err(|source| StoreError::Latency { path: dir.to_path_buf(), source: Box::new(source) })?;
    let mut sections = encoded.sections;
    sections.extend([(SectionId::LATENCY, latency.slots), (SectionId::FAMILIES, latency.families)]);
    Ok(sections)
}

fn block_error(dir: &Path, block_no: u64, source: BlockError) -> StoreError {
    StoreError::Block { path: dir.to_path_buf(), block_no, source }
}
