//! Bytes of a record and of a segment's file header. Big-endian throughout.

use crate::model::UnixNanos;

use super::JournalError;

/// First bytes of every segment file.
pub(super) const FILE_MAGIC: &[u8; 16] = b"spandrel-journal";
/// Version of the journal format.
pub(super) const VERSION: u32 = 1;
/// Bytes of the file header: magic, version, reserved.
pub(super) const FILE_HEADER_BYTES: usize = 24;
/// First bytes of every record.
pub(super) const RECORD_MAGIC: &[u8; 4] = b"SPJ\x01";
/// Bytes of a record header.
pub(super) const RECORD_HEADER_BYTES: usize = 60;
/// Longest payload; well above the largest request.
pub(super) const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Highest sequence of a record; nobody counts that far.
const SEQUENCE_MAX: u64 = u64::MAX / 2;

/// Collision-resistant hash of a request, by which a retry is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyHash(pub [u8; 16]);

/// What the caller says of a record; read back without its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordLabel {
    /// When the request arrived.
    pub arrived_unix_nano: UnixNanos,
    /// Hash of the request.
    pub body_hash: BodyHash,
    /// Spans of the request that were rejected.
    pub rejected_spans: u32,
}

/// What a record says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Grows by one from record to record, across segments and partitions.
    pub sequence: u64,
    /// From the caller.
    pub label: RecordLabel,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// XXH3-64 of the payload.
    pub payload_checksum: u64,
}

impl RecordHeader {
    pub(super) fn new(sequence: u64, label: RecordLabel, payload: &[u8]) -> Result<Self, JournalError> {
        let too_long = || JournalError::TooLong { bytes: payload.len(), limit: PAYLOAD_BYTES_MAX };
        if PAYLOAD_BYTES_MAX < payload.len() {
            return Err(too_long());
        }
        let payload_bytes = u32::try_from(payload.len()).map_err(|_| too_long())?;
        let payload_checksum = xxhash_rust::xxh3::xxh3_64(payload);
        Ok(Self { sequence, label, payload_bytes, payload_checksum })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(RECORD_MAGIC);
        out.extend_from_slice(&self.label.rejected_spans.to_be_bytes());
        out.extend_from_slice(&self.payload_bytes.to_be_bytes());
        out.extend_from_slice(&self.sequence.to_be_bytes());
        out.extend_from_slice(&self.label.arrived_unix_nano.0.to_be_bytes());
        out.extend_from_slice(&self.label.body_hash.0);
        out.extend_from_slice(&self.payload_checksum.to_be_bytes());
        let checksum = xxhash_rust::xxh3::xxh3_64(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&checksum.to_be_bytes());
    }

    /// `None` when these are not the bytes of a record header.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if !bytes.starts_with(RECORD_MAGIC) {
            return None;
        }
        let (checked, checksum) = bytes.split_at(RECORD_HEADER_BYTES - 8);
        if xxhash_rust::xxh3::xxh3_64(checked) != u64::from_be_bytes(checksum.try_into().ok()?) {
            return None;
        }
        let label = RecordLabel {
            rejected_spans: u32::from_be_bytes(checked.get(4..8)?.try_into().ok()?),
            arrived_unix_nano: UnixNanos(u64::from_be_bytes(checked.get(20..28)?.try_into().ok()?)),
            body_hash: BodyHash(checked.get(28..44)?.try_into().ok()?),
        };
        let sequence = u64::from_be_bytes(checked.get(12..20)?.try_into().ok()?);
        if SEQUENCE_MAX < sequence {
            return None;
        }
        Some(Self {
            sequence,
            label,
            payload_bytes: u32::from_be_bytes(checked.get(8..12)?.try_into().ok()?),
            payload_checksum: u64::from_be_bytes(checked.get(44..52)?.try_into().ok()?),
        })
    }

    /// Whether `payload` is what was written.
    pub(super) fn covers(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize && xxhash_rust::xxh3::xxh3_64(payload) == self.payload_checksum
    }
}

pub(super) fn file_header() -> Vec<u8> {
    let mut header = FILE_MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_be_bytes());
    header.resize(FILE_HEADER_BYTES, 0);
    header
}

/// Version of a segment file; `None` when it is no segment at all.
pub(super) fn file_version(bytes: &[u8]) -> Option<u32> {
    let rest = bytes.strip_prefix(FILE_MAGIC)?;
    Some(u32::from_be_bytes(rest.get(..4)?.try_into().ok()?))
}
