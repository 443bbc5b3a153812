//! A block of any bytes.

use std::ops::ControlFlow;

use spandrel::block::{Block, SectionId};
use spandrel::model::{DurationNanos, Span, TraceId};

/// Begins a section; its number, two bytes, stands behind it.
const SECTION: &[u8; 4] = b"\xfa\xce\xb1\x0c";
/// Rows asked for at once.
const ROWS_AT_ONCE: usize = 64;

type Sections = Vec<(SectionId, Vec<u8>)>;

/// Everything that a question or a report asks of a block. What comes out may be an error.
pub fn block(bytes: &[u8]) {
    let sections = sections(bytes);
    let Ok(block) = Block::open(&sections) else { return };
    let _ids = block.section_ids();
    let _sizes = block.sizes(&sections);
    let mut traces = Vec::new();
    let _traces = block.traces(&sections, &mut |trace| traces.push(trace));
    for trace in traces.first().into_iter().chain(traces.last()).chain([&TraceId([3; 16])]) {
        let _held = block.may_hold(*trace);
        let _rows = block.rows_of_trace(&sections, *trace);
    }
    let every = DurationNanos(0)..=DurationNanos(u64::MAX);
    let _scan = block.scan_latency(&sections, &every, &mut |_, _, _, _| ControlFlow::Continue(()));
    if let Ok(series) = block.series(&sections) {
        let _rows = block.rows_of_series(&sections, &vec![true; series.len()]);
    }
    let rows: Vec<u32> = (0..block.summary().spans).collect();
    let mut keys = Vec::new();
    for rows in rows.chunks(ROWS_AT_ONCE).take(2).chain(rows.rchunks(ROWS_AT_ONCE).take(1)) {
        let Ok(batch) = block.spans(&sections, rows) else { continue };
        assert_eq!(batch.spans.len(), rows.len());
        keys.extend(batch.spans.iter().map(Span::key));
    }
    keys.sort_unstable();
    let _rows = block.rows_of_keys(&sections, &keys);
}

fn sections(bytes: &[u8]) -> Sections {
    let mut starts: Vec<usize> = Vec::new();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(SECTION.len()).position(|four| four == SECTION) {
        starts.push(at + found);
        at += found + SECTION.len();
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    let pieces = starts.iter().zip(ends).filter_map(|(start, end)| bytes.get(start + SECTION.len()..end));
    let section = |piece: &[u8]| {
        let (number, bytes) = piece.split_first_chunk()?;
        Some((SectionId(u16::from_be_bytes(*number)), bytes.to_vec()))
    };
    pieces.filter_map(section).collect()
}
