//! Start: journals are replayed behind what their databases cover, the rest is sealed or goes on.

use std::sync::Arc;

use crate::journal::{self, Disk, Journal, JournalConfig, RecordHeader, RecordLabel, Recovered as Found};
use crate::store::{Partition, Store};
use crate::telemetry::Counters;

use super::retry_window::{Known, WINDOW};
use super::{Exported, Ingest, IngestConfig, Shared, StartError, payload};

/// What the writer and the sealer begin with.
pub(super) struct Recovered {
    /// Takes everything from now on.
    pub(super) partition: Arc<Partition>,
    pub(super) journal: Journal,
    /// Older partitions whose sealing was interrupted.
    pub(super) to_seal: Vec<Arc<Partition>>,
}

pub(super) fn recover(ingest: &Ingest, store: &Arc<Store>) -> Result<Recovered, StartError> {
    let mut last_sequence = store.partitions().iter().filter_map(|p| p.manifest()).map(|m| m.last_sequence).max();
    let mut to_seal = store.unsealed();
    let mut segment_no = 0;
    for (at, partition) in to_seal.iter().enumerate() {
        let (sequence, segment) = replay(ingest, store, partition)?;
        last_sequence = last_sequence.max(Some(sequence));
        segment_no = segment;
        if at + 1 < to_seal.len()
            && let Some(frozen) = store.freeze(partition)
        {
            let _done = store.checkpoint(&frozen)?;
        }
    }
    let partition = if let Some(active) = to_seal.pop() {
        active
    } else {
        segment_no = 0;
        store.start_partition()?
    };
    let journal =
        open_journal(&ingest.config, Arc::clone(&ingest.disk), &partition, segment_no, last_sequence.unwrap_or(0) + 1);
    Ok(Recovered { partition, journal, to_seal })
}

/// A journal that goes on in `partition` behind segment `segment_no`.
pub(super) fn open_journal(
    config: &IngestConfig,
    disk: Arc<dyn Disk>,
    partition: &Partition,
    segment_no: u64,
    next_sequence: u64,
) -> Journal {
    let config = JournalConfig {
        dir: partition.journal_dir(),
        segment_bytes: config.journal_segment_bytes,
        durability: config.durability,
    };
    Journal::new(config, disk, segment_no, next_sequence)
}

/// The sequence that the first record of a partition follows: where the one before it ends. Retention or quarantine may
/// have taken that one; then the journal begins where it begins.
pub(super) fn sequence_before(store: &Store, partition: &Partition) -> Result<u64, StartError> {
    if partition.seq() <= 1 {
        return Ok(0);
    }
    let Some(before) = store.partitions().into_iter().find(|known| known.last_seq() + 1 == partition.seq()) else {
        let first = journal::first_record(&partition.journal_dir())?;
        return Ok(first.map_or(0, |first| first.saturating_sub(1)));
    };
    match before.manifest() {
        Some(sealed) => Ok(sealed.last_sequence),
        None => Ok(store.open_partition(&before)?.covered_sequence()),
    }
}

/// Returns the last sequence of the partition and the number of its newest segment.
fn replay(ingest: &Ingest, store: &Arc<Store>, partition: &Arc<Partition>) -> Result<(u64, u64), StartError> {
    let covered = store.open_partition(partition)?.covered_sequence().max(sequence_before(store, partition)?);
    let remembered_since = ingest.clock.now().saturating_sub(WINDOW);
    let mut spans = 0;
    let mut visit = |header: &RecordHeader, payload: Option<&[u8]>| {
        let kept = match payload {
            Some(payload) => {
                let batch = payload::decode(payload)?;
                let kept = batch.spans.len() as u64;
                store.push([(header.sequence, header.label.arrived_unix_nano, Arc::new(batch))]);
                let (head_spans, head_bytes) = store.head_size();
                if (ingest.config.checkpoint_spans <= head_spans || ingest.config.checkpoint_bytes <= head_bytes)
                    && let Some(frozen) = store.freeze(partition)
                {
                    let _done = store.checkpoint(&frozen)?;
                }
                spans += kept;
                kept
            }
            None => 0,
        };
        if remembered_since <= header.label.arrived_unix_nano {
            remember(ingest, &header.label, kept);
        }
        Ok(())
    };
    let found = journal::recover(&partition.journal_dir(), &*ingest.disk, covered, &mut visit)?;
    ingest.counters.spans_replayed.add(spans);
    ingest.shared.note_losses(partition, &found, &ingest.counters);
    tracing::info!(
        partition = partition.name(),
        records = found.records,
        covered,
        spans,
        torn_bytes = found.torn_bytes,
        "journal replayed"
    );
    Ok((found.last_sequence.max(covered), found.last_segment_no))
}

impl Shared {
    /// An operator learns of it in the log, by counters and in `/ready`.
    pub(super) fn note_losses(&self, partition: &Partition, found: &Found, counters: &Counters) {
        counters.journal_damaged.add(found.missing.max(found.damaged.len() as u64));
        counters.journal_torn_bytes.add(found.torn_bytes);
        for damage in &found.damaged {
            tracing::error!(
                path = %damage.path.display(), start = damage.start, end = damage.end,
                "damaged journal bytes were skipped; their spans are lost unless they are in a block already"
            );
        }
        if 0 < found.missing {
            let (name, missing) = (partition.name(), found.missing);
            let loss =
                format!("{missing} requests are lost: their records in the journal of {name} are damaged or missing");
            tracing::error!(partition = name, missing, "journal records are damaged or missing; their spans are lost");
            self.losses.lock().push(loss);
        }
    }
}

fn remember(ingest: &Ingest, label: &RecordLabel, spans: u64) {
    let rejected_spans = u64::from(label.rejected_spans);
    let message = (0 < rejected_spans).then(|| format!("rejected {rejected_spans} spans when this was first sent"));
    let exported = Exported { rejected_spans, message };
    ingest.shared.window.lock().insert(label.body_hash, label.arrived_unix_nano, Known { spans, exported });
}
