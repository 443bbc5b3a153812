//! Everything that is stored, or one service or window of it, in pieces that fit into memory.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::block::BlockSummary;
use crate::model::{Span, SpanBatch, SpanCopier, SpanKey, UnixNanos};
use crate::otlp::{self, JsonDialect, Utf8};
use crate::store::{HeadPart, Partition, Snapshot, Store};

use super::{Coverage, Query, QueryError, coverage_of};

/// Spans of one piece.
const PIECE_SPANS: usize = 2_000;
/// Bytes of one piece after which it is full. A span has up to 1 MiB, so it may pass this by `STEP_SPANS` MiB.
const PIECE_BYTES: usize = 4 * 1024 * 1024;
/// Spans between two looks at the bytes.
const STEP_SPANS: usize = 16;
/// Spans decoded at once: a row group of a block.
const READ_ROWS: u32 = 4096;

/// What is to be exported.
#[derive(Clone, Debug, Default)]
pub struct ExportQuestion {
    /// Spans whose index time (end, else start) is not before.
    pub start: UnixNanos,
    /// ... and before this one; `None` for all later ones.
    pub end: Option<UnixNanos>,
    /// `service.name`; `None` for all services.
    pub service: Option<String>,
}

/// How a piece is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// One line of OTLP JSON. Texts that are no UTF-8 come out with U+FFFD.
    JsonLines,
    /// One `TracesData`, bit for bit as sent. Several behind each other are one, by the merge rules of protobuf.
    Protobuf,
}

impl ExportFormat {
    /// The bytes of a piece.
    pub fn encode(self, piece: &SpanBatch) -> Vec<u8> {
        match self {
            Self::JsonLines => (otlp::encode_json(piece, JsonDialect::Otlp) + "\n").into_bytes(),
            Self::Protobuf => otlp::encode_traces(piece, Utf8::Verbatim),
        }
    }
}

/// What was exported.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// Spans given out.
    pub spans: u64,
    /// What could not be read.
    pub coverage: Coverage,
}

/// Gathers spans and gives them out in pieces.
struct Pieces<'a> {
    question: &'a ExportQuestion,
    piece: SpanCopier,
    spans: u64,
    each: &'a mut dyn FnMut(&SpanBatch) -> ControlFlow<()>,
}

impl Query {
    /// Gives out every span that is stored when it is called and that the question selects, in no particular order,
    /// until `each` breaks.
    ///
    /// A span comes once per place where it is stored: once of all heads together, and once of each block. It is in two
    /// places when it was sent in two different requests, so far apart that a block ended between them.
    ///
    /// Cost: one read of the blocks that may hold what is selected. Memory: one row group and one piece; the heads as
    /// long as they are given out. No partition is held open while `each` runs, so a slow reader holds up nothing.
    ///
    /// # Errors
    /// `Starting`. What cannot be read is named in the coverage.
    pub fn export(
        &self,
        question: &ExportQuestion,
        each: &mut dyn FnMut(&SpanBatch) -> ControlFlow<()>,
    ) -> Result<Exported, QueryError> {
        let store = self.store()?;
        let mut snapshot = store.snapshot();
        let mut coverage = coverage_of(&snapshot);
        let mut pieces = Pieces { question, piece: SpanCopier::default(), spans: 0, each };
        let broken = pieces.heads(std::mem::take(&mut snapshot.heads)).is_break()
            || self.export_blocks(store, &snapshot, &mut pieces, &mut coverage).is_break()
            || pieces.flush().is_break();
        if broken {
            coverage.missing("the export was stopped".to_owned());
        }
        Ok(Exported { spans: pieces.spans, coverage })
    }

    fn export_blocks(
        &self,
        store: &Store,
        snapshot: &Snapshot,
        pieces: &mut Pieces<'_>,
        coverage: &mut Coverage,
    ) -> ControlFlow<()> {
        for (partition, visible) in &snapshot.partitions {
            let sealed = partition.manifest();
            if sealed.is_some_and(|sealed| !pieces.question.may_select(sealed.min_time, sealed.max_time)) {
                continue;
            }
            for block_no in 1..=*visible {
                self.export_block(store, partition, block_no, pieces, coverage)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn export_block(
        &self,
        store: &Store,
        partition: &Arc<Partition>,
        block_no: u64,
        pieces: &mut Pieces<'_>,
        coverage: &mut Coverage,
    ) -> ControlFlow<()> {
        let what = || format!("block {block_no} of partition {}", partition.name());
        let (mut row, mut n_rows) = (0, 1);
        while row < n_rows {
            let open = match store.open_partition(partition) {
                Ok(open) => open,
                Err(error) => {
                    self.unreadable(coverage, &format!("partition {}", partition.name()), &error);
                    break;
                }
            };
            let Some(block) = open.block(block_no) else {
                coverage.missing(format!("{} is damaged", what()));
                break;
            };
            n_rows = block.summary().spans;
            if !pieces.question.may_select_of(block.summary()) {
                break;
            }
            let rows: Vec<u32> = (row..n_rows.min(row.saturating_add(READ_ROWS))).collect();
            let read = open.spans(block_no, &rows);
            drop((open, block));
            match read {
                Ok(batch) => pieces.add(&batch, &mut |_| true)?,
                Err(error) => self.unreadable(coverage, &format!("{} from row {row} on", what()), &error),
            }
            row = row.saturating_add(READ_ROWS);
        }
        ControlFlow::Continue(())
    }
}

impl ExportQuestion {
    fn may_select(&self, first: UnixNanos, last: UnixNanos) -> bool {
        self.start <= last && self.end.is_none_or(|end| first < end)
    }

    fn may_select_of(&self, block: &BlockSummary) -> bool {
        let of_service = |wanted: &String| block.services.iter().any(|service| service.service == *wanted);
        self.may_select(block.min_index_time, block.max_index_time) && self.service.as_ref().is_none_or(of_service)
    }

    fn selects(&self, batch: &SpanBatch, span: &Span) -> bool {
        let at = span.index_time();
        self.may_select(at, at)
            && self.service.as_ref().is_none_or(|wanted| batch.service_of(span).1 == wanted.as_str())
    }
}

impl Pieces<'_> {
    /// The heads, each span once; their memory is given back as they are through.
    fn heads(&mut self, heads: Vec<HeadPart>) -> ControlFlow<()> {
        let mut seen: HashSet<SpanKey> = HashSet::new();
        for batch in heads.into_iter().flat_map(|head| head.batches) {
            self.add(&batch, &mut |span| seen.insert(span.key()))?;
        }
        ControlFlow::Continue(())
    }

    fn add(&mut self, batch: &SpanBatch, wanted: &mut dyn FnMut(&Span) -> bool) -> ControlFlow<()> {
        let selected = (0..).zip(&batch.spans).filter(|(_, span)| self.question.selects(batch, span) && wanted(span));
        let rows: Vec<u32> = selected.map(|(row, _)| row).collect();
        for step in rows.chunks(STEP_SPANS) {
            self.piece.copy(batch, step.iter().copied());
            if PIECE_SPANS <= self.piece.batch.spans.len() || PIECE_BYTES <= self.piece.batch.bytes.len() {
                self.flush()?;
            }
        }
        ControlFlow::Continue(())
    }

    fn flush(&mut self) -> ControlFlow<()> {
        let piece = std::mem::take(&mut self.piece).batch;
        if piece.spans.is_empty() {
            return ControlFlow::Continue(());
        }
        self.spans += piece.spans.len() as u64;
        (self.each)(&piece)
    }
}
