//! Reading a block: what it may hold, where a trace is, and the spans of chosen rows.

mod attributes;
mod glance;
mod group;
mod keys;
mod known;
mod rows;
mod scan;
mod sizes;
mod spans;
mod tables;

use std::ops::{ControlFlow, RangeInclusive};

pub use self::glance::SpanGlance;
use self::group::{Group, run_of_row};
pub use self::rows::{EachParts, RunPart};
pub use self::scan::{
    AttributeColumn, AttributeOwner, AttributeValues, BlockScan, Dictionary, Exceptions, RowGroup, SpanAttribute,
    TextColumn,
};
pub use self::sizes::PartSize;
pub use self::spans::SpanParts;
use super::columns::{self as column, GROUP_ROWS};
use super::error::BlockError;
use super::filter::TraceFilter;
use super::header::Header;
use super::skip::Zones;
use super::{BlockSummary, SectionId, Sections};
use crate::model::{DurationNanos, SeriesKey, Span, TraceId, UnixNanos};

/// A block that was opened: its header, its trace filter and the zones of its skip index, nothing else.
///
/// Memory: 12 bytes per column chunk (16 row groups with some 40 columns: 8 KiB; 520 columns at most: 110 KiB), 2
/// bytes per distinct trace, 2 for each row group and series (some 2 KiB; 128 KiB at most), and the names of the services.
#[derive(Debug)]
pub struct Block {
    pub(super) header: Header,
    filter: TraceFilter,
    pub(super) zones: Zones,
}

impl Block {
    /// Reads header, filter and zones.
    ///
    /// # Errors
    /// `UnknownVersion` for a block of a newer format, `Damaged` for what is none, or as `sections` fails.
    pub fn open(sections: &dyn Sections) -> Result<Self, BlockError> {
        let whole = |section| sections.read(section, 0..sections.section_len(section)?);
        let header = Header::decode(&whole(SectionId::HEADER)?)?;
        let filter = TraceFilter::decode(&whole(SectionId::FILTER)?)?;
        let zones = Zones::read(&header, sections)?;
        Ok(Self { header, filter, zones })
    }

    /// Counts and bounds.
    pub fn summary(&self) -> &BlockSummary {
        &self.header.summary
    }

    /// Every section that a block of this size has, ascending.
    pub fn section_ids(&self) -> Vec<SectionId> {
        let tables = [SectionId::HEADER, SectionId::FILTER, SectionId::DICTIONARIES, SectionId::TABLES];
        let groups = (0..self.header.groups.len()).map(SectionId::of_group);
        tables.into_iter().chain([SectionId::LATENCY, SectionId::FAMILIES, SectionId::SKIP]).chain(groups).collect()
    }

    /// Whether the block can hold spans of the trace: never wrong when it says no, in about 1 of 1,700 cases when yes.
    pub fn may_hold(&self, trace: TraceId) -> bool {
        self.filter.may_hold(trace)
    }

    /// The block's series, ascending; the series of a row is an index into them.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn series(&self, sections: &dyn Sections) -> Result<Vec<SeriesKey<'static>>, BlockError> {
        tables::read_series(&self.header, sections)
    }

    /// What each part of the block takes: of row groups and dictionaries column by column.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails.
    pub fn sizes(&self, sections: &dyn Sections) -> Result<Vec<PartSize>, BlockError> {
        sizes::sizes(&self.header, sections)
    }

    /// Calls `each` with row, series, start and latency of every span with a latency in `within`, in row order, until it
    /// breaks. Reads one column of the row groups without such a span, five of the others.
    ///
    /// # Errors
    /// `Damaged`, or as `sections` fails; `each` may have been called before.
    pub fn scan_latency(
        &self,
        sections: &dyn Sections,
        within: &RangeInclusive<DurationNanos>,
        each: &mut dyn FnMut(u32, u32, UnixNanos, DurationNanos) -> ControlFlow<()>,
    ) -> Result<(), BlockError> {
        for number in 0..self.header.groups.len() {
            let mut group = Group::new(&self.header, sections, number);
            group.fetch(|column| column == column::DURATION)?;
            let durations = group.ints(column::DURATION, group.n_rows)?.into_values(group.n_rows);
            if !durations.iter().any(|duration| within.contains(&DurationNanos(*duration))) {
                continue;
            }
            group.fetch(|column| {
                matches!(column, column::TRACE | column::TRACE_START | column::START_DELTA | column::SERIES)
            })?;
            let runs = group.runs()?;
            let starts = group.starts(&runs)?;
            let series = group.series(&run_of_row(&runs))?;
            for (row, ((start, series), duration)) in starts.into_iter().zip(series).zip(durations).enumerate() {
                let span = Span {
                    start_time_unix_nano: UnixNanos(start),
                    end_time_unix_nano: UnixNanos(start.wrapping_add(duration)),
                    ..Span::default()
                };
                if let Some(latency) = span.latency().filter(|latency| within.contains(latency)) {
                    let at = block_row(number * GROUP_ROWS + row);
                    if each(at, series, span.start_time_unix_nano, latency).is_break() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

/// Rows of a block are fewer than 2^17.
fn block_row(row: usize) -> u32 {
    u32::try_from(row).unwrap_or(u32::MAX)
}
