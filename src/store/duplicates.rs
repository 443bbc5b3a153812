//! A span that was sent again in another request: what an earlier block of the partition holds is not stored again.
//!
//! The filters of the earlier blocks answer for nearly all traces; only traces that two blocks share are looked at, and
//! of those only the identities. So no histogram of a partition ever counts a span twice.

use std::sync::Arc;

use crate::block::{RowRef, same_content, span_at};
use crate::model::{SpanBatch, SpanKey};
use crate::telemetry::Counters;

use super::{OpenPartition, StoreError};

/// Spans compared with their stored copies at once: bounds what a request that is sent again as a whole costs.
const COMPARED_AT_ONCE: usize = 4_096;

/// Spans that were left out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repeats {
    pub(super) duplicates: u64,
    /// Those of them that differ from the stored copy in more than their key.
    pub(super) conflicting: u64,
}

/// Takes those rows out of `rows`, which ascend by key, that a block of the partition holds.
///
/// A block that cannot be read is passed over: its spans are then stored a second time, and shown once.
pub(super) fn leave_out_stored(
    open: &OpenPartition,
    batches: &[Arc<SpanBatch>],
    rows: &mut Vec<RowRef>,
    counters: &Counters,
) -> Repeats {
    let mut repeats = Repeats::default();
    for block_no in open.block_numbers() {
        match repeats_of(open, block_no, batches, rows) {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                repeats.duplicates += found.len() as u64;
                repeats.conflicting += conflicting(open, block_no, batches, rows, &found);
                let mut repeated = found.iter().map(|(at, _)| *at).peekable();
                let mut positions = 0..rows.len();
                rows.retain(|_| positions.next().is_some_and(|at| repeated.next_if_eq(&at).is_none()));
            }
            Err(error) => {
                counters.damaged_reads.add(1);
                tracing::error!(block_no, error = &error as &dyn std::error::Error, "not asked about repeated spans");
            }
        }
    }
    repeats
}

/// Positions in `rows` of the spans that the block holds, and their rows there.
fn repeats_of(
    open: &OpenPartition,
    block_no: u64,
    batches: &[Arc<SpanBatch>],
    rows: &[RowRef],
) -> Result<Vec<(usize, u32)>, StoreError> {
    let block = open.readable_block(block_no)?;
    let (mut positions, mut keys): (Vec<usize>, Vec<SpanKey>) = (Vec::new(), Vec::new());
    let mut last = None;
    for (at, row) in rows.iter().enumerate() {
        let Some((_, span)) = span_at(batches, *row) else { continue };
        let may_hold = match last {
            Some((trace, known)) if trace == span.trace_id => known,
            _ => block.may_hold(span.trace_id),
        };
        last = Some((span.trace_id, may_hold));
        if may_hold {
            positions.push(at);
            keys.push(span.key());
        }
    }
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let stored = open.rows_of_keys(block_no, &keys)?;
    Ok(stored.into_iter().filter_map(|(at, row)| Some((*positions.get(at)?, row))).collect())
}

/// How many of the repeats differ from their stored copy; those that cannot be read count as equal.
fn conflicting(
    open: &OpenPartition,
    block_no: u64,
    batches: &[Arc<SpanBatch>],
    rows: &[RowRef],
    found: &[(usize, u32)],
) -> u64 {
    let mut conflicting = 0;
    for some in found.chunks(COMPARED_AT_ONCE) {
        let stored_rows: Vec<u32> = some.iter().map(|(_, row)| *row).collect();
        let Ok(stored) = open.spans(block_no, &stored_rows) else { continue };
        for ((at, _), kept) in some.iter().zip(&stored.spans) {
            let sent = rows.get(*at).and_then(|row| span_at(batches, *row));
            conflicting += u64::from(sent.is_some_and(|sent| !same_content((&stored, kept), sent)));
        }
    }
    conflicting
}
