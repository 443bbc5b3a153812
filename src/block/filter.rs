//! The trace filter: says of most traces that the block cannot hold them, without reading a column.
//!
//! ```text
//! probes:u8 = 8   bits: a Bloom filter, bit i of byte j is bit 8 j + i
//! ```
//! Sixteen bits per distinct trace and eight probes: about 1 in 1,700 strangers passes. A block that is written asks the
//! filters of all earlier blocks of its partition about each of its traces, so a stranger that passes must be rare.

use super::SectionId;
use super::codec::Malformed;
use super::error::BlockError;
use crate::model::TraceId;

const BITS_PER_TRACE: usize = 16;
const PROBES: u8 = 8;

/// A Bloom filter over `TraceId::low_u64`.
#[derive(Debug)]
pub(super) struct TraceFilter {
    probes: u8,
    bits: Vec<u8>,
}

impl TraceFilter {
    /// An empty filter for this many traces.
    pub(super) fn sized(n_traces: usize) -> Self {
        Self { probes: PROBES, bits: vec![0; (n_traces * BITS_PER_TRACE).div_ceil(8).max(8)] }
    }

    pub(super) fn insert(&mut self, trace: TraceId) {
        for (byte, mask) in probes(trace, self.probes, self.bits.len()) {
            if let Some(byte) = self.bits.get_mut(byte) {
                *byte |= mask;
            }
        }
    }

    pub(super) fn may_hold(&self, trace: TraceId) -> bool {
        probes(trace, self.probes, self.bits.len())
            .all(|(byte, mask)| self.bits.get(byte).is_some_and(|byte| byte & mask != 0))
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = vec![self.probes];
        out.extend_from_slice(&self.bits);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BlockError> {
        match bytes.split_first() {
            Some((probes @ 1..=32, bits)) if !bits.is_empty() => Ok(Self { probes: *probes, bits: bits.to_vec() }),
            _ => Err(Malformed("no trace filter").in_section(SectionId::FILTER)),
        }
    }
}

/// The bytes and bits to look at, by double hashing.
fn probes(trace: TraceId, probes: u8, n_bytes: usize) -> impl Iterator<Item = (usize, u8)> {
    let hash = xxhash_rust::xxh3::xxh3_64(&trace.low_u64().to_be_bytes());
    let (first, stride) = (hash, hash.rotate_left(32) | 1);
    let n_bits = (n_bytes as u64).saturating_mul(8).max(1);
    (0..u64::from(probes)).map(move |probe| {
        let bit = first.wrapping_add(stride.wrapping_mul(probe)) % n_bits;
        (usize::try_from(bit / 8).unwrap_or(usize::MAX), 1 << (bit % 8))
    })
}
