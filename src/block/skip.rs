//! The skip index: of most questions for something rare it says that a block, or a row group of it, has no answer, without
//! a look at tables or columns.
//!
//! ```text
//! zones:u32, that many bytes    series of each service of the summary:varint, then a step of latency for each row group and series
//! lines of 64 bytes             a Bloom filter of the texts of attributes: all bits of one text are in one line
//! ```
//! `docs/format.md` draws it bit by bit. A block of an earlier program has none: then nothing is passed by.

use std::ops::Range;

use super::codec::{Ints, Malformed, Reader, Unpacker};
use super::columns::Owner;
use super::error::BlockError;
use super::header::Header;
use super::{AttributeOwner, Block, SectionId, Sections};
use crate::model::DurationNanos;

/// The bits of one text; so many that a look reads one page.
pub(super) const LINE_BYTES: usize = 64;
/// About 1 in 200 texts that a block does not have seem to be in it.
pub(super) const BITS_PER_TEXT: usize = 12;
const PROBES: u32 = 6;
/// More of them are not kept: blocks with so many series say little about each.
pub(super) const ZONES_MAX: usize = 1 << 16;

/// A zone without a span.
pub(super) const NO_SPAN: u64 = 0;
/// A zone whose spans have no latency.
pub(super) const NO_LATENCY: u64 = 1;

/// The step of a zone whose longest latency is this: 32 steps from each power of two to the next.
pub(super) fn step_of(latency: DurationNanos) -> u64 {
    let shift = latency.0.checked_ilog2().unwrap_or(0).saturating_sub(5);
    NO_LATENCY + 1 + u64::from(shift) * 32 + (latency.0 >> shift)
}

/// What the texts of a key are hashed with.
pub(super) fn key_hash(owner: Owner, key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(key, u64::from(owner as u8))
}

pub(super) fn text_hash(key_hash: u64, text: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(text, key_hash)
}

/// Stands for all that a key has of arrays and lists, which may have any text in them.
pub(super) fn nested_hash(key_hash: u64) -> u64 {
    !key_hash
}

/// The line of a text, and its bits: byte of the line and mask.
pub(super) fn line_of(hash: u64, n_lines: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    let line = usize::try_from(((hash >> 32) * n_lines as u64) >> 32).unwrap_or(0);
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let bits = (0..PROBES).map(move |probe| usize::try_from((mixed >> (10 + 9 * probe)) & 511).unwrap_or(0));
    (line, bits.map(|bit| (bit / 8, 1 << (bit % 8))))
}

/// The skip index of a block.
pub struct SkipIndex<'a> {
    header: &'a Header,
    sections: &'a dyn Sections,
    zones: &'a Zones,
}

/// What is kept of it while a block is open.
#[derive(Debug, Default)]
pub(super) struct Zones {
    /// Behind the last series of each service; `None` in a block without a skip index.
    service_ends: Option<Vec<u32>>,
    /// Group by group, a step for each series; empty where they would be too many.
    steps: Vec<u16>,
    /// Where the lines are.
    lines: Range<u32>,
}

impl Block {
    /// The skip index: of what is kept, but that each text that is asked for takes a look into one page.
    pub fn skip_index<'a>(&'a self, sections: &'a dyn Sections) -> SkipIndex<'a> {
        SkipIndex { header: &self.header, sections, zones: &self.zones }
    }
}

fn damaged(malformed: Malformed) -> BlockError {
    malformed.in_section(SectionId::SKIP)
}

impl<'a> SkipIndex<'a> {
    pub(super) fn of(header: &'a Header, sections: &'a dyn Sections, zones: &'a Zones) -> Self {
        Self { header, sections, zones }
    }

    /// Counts and bounds of the block.
    pub fn summary(&self) -> &super::BlockSummary {
        &self.header.summary
    }

    /// Whether such an attribute may have this text, or an array with it: never wrong when it says no, in about 1 of 200 cases
    /// when yes.
    ///
    /// # Errors
    /// `Damaged`, or as the sections fail.
    pub fn may_have_text(&self, owner: AttributeOwner, key: &[u8], text: &[u8]) -> Result<bool, BlockError> {
        if self.zones.service_ends.is_none() {
            return Ok(true);
        }
        let owner = match owner {
            AttributeOwner::Span => Owner::Span,
            AttributeOwner::Event => Owner::Event,
            AttributeOwner::Link => Owner::Link,
        };
        let key_hash = key_hash(owner, key);
        Ok(self.may_have(text_hash(key_hash, text))? || self.may_have(nested_hash(key_hash))?)
    }

    fn may_have(&self, hash: u64) -> Result<bool, BlockError> {
        let n_lines = self.zones.lines.len() / LINE_BYTES;
        let (line, mut bits) = line_of(hash, n_lines);
        let Some(start) = u32::try_from(line * LINE_BYTES).ok().filter(|_| 0 < n_lines) else { return Ok(false) };
        let start = self.zones.lines.start.saturating_add(start);
        let line = self.sections.read(SectionId::SKIP, start..start.saturating_add(64))?;
        Ok(bits.all(|(byte, mask)| line.get(byte).is_some_and(|byte| byte & mask != 0)))
    }

    /// The numbers of the series of services that are `wanted`; `None` when the index does not say.
    pub fn series_of_services(&self, wanted: impl Fn(&super::ServiceCount) -> bool) -> Option<Vec<bool>> {
        let service_ends = self.zones.service_ends.as_ref()?;
        let mut series = vec![false; service_ends.last().copied().unwrap_or(0) as usize];
        let mut start = 0;
        for (service, end) in self.header.summary.services.iter().zip(service_ends) {
            let end = *end as usize;
            series.get_mut(start..end).unwrap_or_default().fill(wanted(service));
            start = end;
        }
        Some(series)
    }

    /// For each row group, whether it may have spans of the wanted series, all without a list, whose latency is at least this
    /// if there is a bound.
    pub fn groups(&self, series: Option<&[bool]>, latency_min: Option<DurationNanos>) -> Vec<bool> {
        let n_groups = self.header.groups.len();
        if self.zones.steps.is_empty() {
            return vec![true; n_groups];
        }
        let least = latency_min.map_or(NO_LATENCY, step_of);
        let wanted = |number: usize| series.is_none_or(|series| series.get(number).copied().unwrap_or(false));
        let may_be_in = |(number, step): (usize, &u16)| least <= u64::from(*step) && wanted(number);
        let of_groups = self.zones.steps.chunks((self.header.n_series as usize).max(1));
        of_groups.map(|steps| steps.iter().enumerate().any(may_be_in)).collect()
    }
}

impl Zones {
    /// Reads them.
    pub(super) fn read(header: &Header, sections: &dyn Sections) -> Result<Self, BlockError> {
        let len = sections.section_len(SectionId::SKIP)?;
        if len == 0 {
            return Ok(Self::default());
        }
        let zones_len = Reader::new(&sections.read(SectionId::SKIP, 0..4)?).array().map_err(damaged)?;
        let lines_start = u32::from_be_bytes(zones_len).saturating_add(4);
        if len < lines_start {
            return Err(damaged(Malformed("zones pass its end")));
        }
        let bytes = sections.read(SectionId::SKIP, 4..lines_start)?;
        Self::decode(header, &bytes, lines_start..len).map_err(damaged)
    }

    fn decode(header: &Header, bytes: &[u8], lines: Range<u32>) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let mut end = 0_u32;
        let mut service_ends = Vec::with_capacity(header.summary.services.len());
        for _service in &header.summary.services {
            end = end.saturating_add(reader.varint_u32()?);
            service_ends.push(end);
        }
        if end != header.n_series {
            return Err(Malformed("its services have not as many series as the block"));
        }
        let n_zones = n_zones(header.groups.len(), header.n_series as usize);
        let steps = if n_zones == 0 {
            Vec::new()
        } else {
            let steps = Ints::read(&mut reader, n_zones, &mut Unpacker::new())?;
            // The longest latency is below step 2,000.
            (0..n_zones).map(|at| u16::try_from(steps.get(at)).unwrap_or(u16::MAX)).collect()
        };
        Ok(Self { service_ends: Some(service_ends), steps, lines })
    }
}

/// How many zones a block of this size keeps.
pub(super) fn n_zones(n_groups: usize, n_series: usize) -> usize {
    Some(n_groups.saturating_mul(n_series)).filter(|n_zones| *n_zones <= ZONES_MAX).unwrap_or(0)
}
